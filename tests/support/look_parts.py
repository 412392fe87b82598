"""Made-up games, and what a figure says."""

import numpy as np
from matplotlib.text import Text

from smz_jax.analysis.view.watched_games import Game


def game(actions, score=None, entropy=None, ends=(), number=1, first=0, frames=None):
    n = len(actions)
    return Game(
        number=number,
        first=first,
        actions=np.array(actions, np.int32),
        score=np.zeros(n + 1) if score is None else np.array(score, np.float64),
        entropy=np.full(n, 0.05) if entropy is None else np.array(entropy, np.float64),
        frames=np.zeros((n + 1, 2, 2), np.uint8) if frames is None else frames,
        ends=np.isin(np.arange(n), ends),
    )


def texts(figure):
    """All texts of a figure."""
    return [x.get_text() for x in figure.findobj(Text) if x.get_text()]
