"""Seeds that never meet one another."""

INTERIM_SEED, FINAL_SEED = 1_000_003, 2_000_003
"""Of evaluations: never a training seed, nor the final ones those that chose the best."""
LADDER_SEED = 4_000_003
"""Of matches between checkpoints of one run."""
CHECK_KEY = 3_000_003
"""Checks of the model have randomness of their own: a run is the same with and without them."""
HEAD_KEY = 5_000_003
"""Of the precondition head: the rest of a run is the same with and without it."""
REANALYSE_KEY = 6_000_003
"""Of searches that reanalyse stored targets: play draws what it would draw without them."""
FORESIGHT_KEY = 7_000_003
"""Of the windows that a model's foresight is checked on."""
JUMP_KEY = 8_000_003
"""Of the jump's parameters: the rest of a run is the same with and without it."""
CANDIDATES_KEY = 9_000_003
"""Of the actions that a root's search is over: all else is drawn as where it is over all."""
VIEW_KEY = 10_000_003
"""Of windows that are drawn by a second priority: the others are those of a run without."""
SHIFT_KEY = 11_000_003
"""Of the pixels that a window is shifted by: else it is the one that a run without it has."""
