"""Every command by one name: `python -m smz_jax breakout --preset tiny`.

In a checkout that is `python -m experiments.breakout --preset tiny`. An installed package has no
`experiments` on the path of imports, where it would hide a user's folder of that name: it lies
beside the library, and this command alone imports it.
"""

import os
import re
import runpy
import sys

from smz_jax.config.experiment import experiments_root
from smz_jax.config.process import command_names, run_main


def main() -> int:
    """Runs the command that the first argument names; without one lists them."""
    root = experiments_root()
    if root is None:
        print("error: the folder experiments/ is not installed", file=sys.stderr)
        return 2
    names = command_names(root / "experiments")
    typed, *words = sys.argv[1:] or [""]
    # Also of who types the name of a module, a file or a game.
    name = re.sub(r"^experiments[./]|\.py$", "", typed).lower().replace("-", "_")
    if name not in names:
        wants_help = typed in ("-h", "--help")
        print(
            f"usage: python -m smz_jax COMMAND ...; --help after a command explains it\n"
            f"commands: {' '.join(names)}",
            file=None if wants_help else sys.stderr,
        )
        return 0 if wants_help else 2
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *([path] if path else [])])
    sys.path.insert(0, str(root))
    sys.argv = [f"python -m smz_jax {name}", *words]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    run_main(main)
