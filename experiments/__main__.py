"""Every command by one name, in a checkout: `python -m experiments breakout --preset tiny`."""

from smz_jax.__main__ import main
from smz_jax.config.process import run_main

if __name__ == "__main__":
    run_main(main)
