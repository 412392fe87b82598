"""The model against the true rules of a world that are known, the grid world's above all."""

import numpy as np
from scipy import stats


def mean_where(values: np.ndarray, where: np.ndarray) -> float:
    """Mean of the values under a mask of their shape; NaN where it is empty."""
    return float(values[where].mean()) if where.any() else float("nan")


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of `scores [N]` as a classifier of `positive [N]`; ties count half.

    The rank form (Mann and Whitney 1947): (sum of the positives' ranks - n+ (n+ + 1) / 2)
    / (n+ n-), tied scores sharing their mean rank. NaN where one of the two kinds is missing.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, np.bool_)
    yes, no = scores[positive], scores[~positive]
    if not len(yes) or not len(no):
        return float("nan")
    above = stats.mannwhitneyu(yes, no, method="asymptotic").statistic
    return float(above / (len(yes) * len(no)))


def rules_check(
    entropy: np.ndarray,
    true_entropy: np.ndarray,
    *,
    reachable: np.ndarray,
    visits: np.ndarray,
    codebook_size: int,
) -> dict[str, float]:
    """The model's transition entropies against the true ones, in a world with known rules.

    Args:
        entropy: `[S, A]` the model's, in nats.
        true_entropy: `[S, A]`, in nats; 0 (up to 1e-9) is certain.
        reachable: `[S]` bool, states in which an action is chosen at some time.
        visits: `[S, A]` how often each pair was really played.
        codebook_size: C.

    Returns:
        `roc_area` of entropy as a classifier of random against certain pairs (NaN if there is one
        kind alone), and `entropy_error`, the mean |H(model) - H(true)|, both over the pairs
        visited; `roc_area_reachable`, `entropy_random`, `entropy_certain` over reachable pairs,
        also those never seen; `transition_entropy`, the mean normalised one over visits;
        `pairs_visited`, their share.
    """
    pairs = np.broadcast_to(reachable[:, None], entropy.shape)
    random = true_entropy > 1e-9
    seen = (visits > 0) & pairs
    weights = np.where(seen, visits, 0)
    scale = np.log(codebook_size) if codebook_size > 1 else 1.0
    return {
        "roc_area": roc_area(entropy[seen], random[seen]),
        "roc_area_reachable": roc_area(entropy[pairs], random[pairs]),
        "entropy_error": mean_where(np.abs(entropy - true_entropy), seen),
        "entropy_random": mean_where(entropy, pairs & random),
        "entropy_certain": mean_where(entropy, pairs & ~random),
        "transition_entropy": float(np.sum(entropy * weights) / max(weights.sum(), 1) / scale),
        "pairs_visited": float(seen.sum() / max(pairs.sum(), 1)),
    }
