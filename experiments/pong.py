"""Stochastic MuZero on Pong: `python -m experiments.pong --help`.

The settings are Breakout's, but for what is reconstructed.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="pong",
    family="atari",
    base={"env.id": "Pong"},
    # Of differences the own paddle is too small a part: a linear fit on a model's states tells its
    # place with an R2 of 0.45 to 0.72, and one step of imagination later of 0.1 to 0.4; of whole
    # frames, each pixel by its own deviation, of 0.94 and 0.95 (docs/results/strength.md).
    over={"network.decoder_target": "standardised"},
    description="Stochastic MuZero on Pong: plays, searches, learns, finds macros and reports.",
    expects="about as long as Breakout; -17.9 and -17.8 in training (two seeds, random -20.5), and "
    "still rising: 11.9, 19.7 and 19.2 with --total_env_steps 917504, an hour of CPU time",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
