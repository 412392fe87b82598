"""Found by `python experiments/breakout.py` in place of the library, to say what to type."""

import sys
from pathlib import Path

script = Path(sys.argv[0])
sys.exit(f"error: type `python -m experiments.{script.stem}` in the folder above {script.parent}")
