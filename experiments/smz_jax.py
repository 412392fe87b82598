"""Found by `python experiments/breakout.py`, or here, in place of the library, to say what."""

import sys
from pathlib import Path

script = Path(sys.argv[0]).absolute()
command = "smz_jax" if __name__ == "__main__" else f"experiments.{script.stem}"
sys.exit(f"error: type `python -m {command}` in the folder above {script.parent}")
