"""What a model makes of held-out transitions: is its code alive, does it help, what is random?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.encoders.stored_frames import Transitions
from smz_jax.analysis.rules.known_rules import mean_where, roc_area
from smz_jax.config.settings import Config
from smz_jax.learning.single_losses import consistency_loss, reconstruction_loss
from smz_jax.model import steps
from smz_jax.storage.estimate import bootstrap
from smz_jax.types import Array, Networks, Params

PADDLE_ROWS = (75, 78)  # rows of an 84 x 84 frame of Breakout that hold the paddle
RESAMPLES = 200


def make_probe(networks: Networks, config: Config) -> Callable[..., dict[str, Array]]:
    """How the model sees a batch of transitions, as in search: running statistics, no noise.

    Returns:
        `(params, before [B, F, H, W], action [B], after) -> {name: [B, ...]}`, jitted: `entropy`
        in nats, `code`, `likely` (most likely code), `embedding`, and the error of the prediction
        for each code that g may be given: `error_real`, `error_shuffled` (of another transition
        of the batch), `error_likely`. With a decoder it is the mean squared error of the target's
        pixels, and `error_without` that of the afterstate; `paddle_*` is the part of it in the
        paddle's rows. Else it is 1 + the consistency loss.
    """
    codes, size = config.network.codebook_size, config.network.decoder_size
    low, high = PADDLE_ROWS[0] * size // 84, -(-PADDLE_ROWS[1] * size // 84)

    def pixel_errors(predicted: Array, pixels: Array, name: str) -> dict[str, Array]:
        error = jnp.square(predicted - pixels).reshape(-1, size, size)
        part = error[:, low:high].sum(axis=(1, 2)) / size**2
        return {f"error_{name}": reconstruction_loss(predicted, pixels), f"paddle_{name}": part}

    @jax.jit
    def probe(params: Params, before: Array, action: Array, after: Array) -> dict[str, Array]:
        embedding = networks.representation(params, before)
        next_embedding = networks.representation(params, after)
        afterstate = steps.decide(networks, params, embedding, action)
        seen = steps.Seen(after, next_embedding)
        code = jnp.argmax(steps.encode(networks, params, seen, afterstate.state), axis=-1)
        found = {
            "entropy": steps.entropy_nats(afterstate.logits),
            "code": code,
            "likely": afterstate.likely,
            "embedding": embedding.reshape(len(action), -1).astype(jnp.float32),
        }
        given = {"real": code, "shuffled": jnp.roll(code, 1), "likely": afterstate.likely}
        for name, index in given.items():
            one_hot = steps.one_hot_code(index, codes)
            foreseen = steps.chance(networks, params, afterstate.state, one_hot).state
            if size:
                pixels = networks.frame_target(params, after[:, -1], before[:, -1])
                with_code, without = networks.decode(params, foreseen, afterstate.state)
                found |= pixel_errors(with_code, pixels, name)
                found |= pixel_errors(without, pixels, "without")
            else:
                predicted = networks.project(params, foreseen, True)
                target = networks.project(params, next_embedding, False)
                found[f"error_{name}"] = 1 + consistency_loss(predicted, target)
        return found

    return probe


def probe_all(
    probe: Callable[..., dict[str, Array]], params: Params, held_out: Transitions, batch: int
) -> dict[str, np.ndarray]:
    """`probe` over all held-out transitions in batches; a last part of a batch is left out."""
    batch = min(batch, len(held_out.action))
    parts = []
    for start in range(0, len(held_out.action) - batch + 1, batch):
        inputs = [x[start : start + batch] for x in held_out[:3]]
        parts.append(jax.device_get(probe(params, *inputs)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def perplexity(codes: np.ndarray) -> float:
    """Exponential of the entropy of how often each code is used; `[N]` integers."""
    shares = np.bincount(codes) / len(codes)
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def summarise(
    seen: dict[str, np.ndarray], held_out: Transitions, codebook_size: int
) -> dict[str, float]:
    """One row of diagnostics.

    Returns:
        `embedding_variance`, `code_perplexity`, `agreement`. Normalised H(sigma): `entropy`, and
        its means where the actions' effects differ by the emulator (`entropy_differs`), do not
        (`entropy_same`), and by the actions alone (`entropy_changed`, `entropy_unchanged`). Areas
        under the ROC curve of H(sigma): `roc` for "differs"; `roc_open` the same with the paddle
        away from the walls; `roc_actions` for "changed". `entropy_error`: mean |H - true H| in
        nats, away from the walls. `error_*` and `paddle_*`: means, `..._differs` where it differs;
        `code_gain`: 1 - error with the real code / error with another's, where it differs.
    """
    count = len(seen["entropy"])
    h = Transitions(*(x[:count] for x in held_out))
    entropy = seen["entropy"] / max(np.log(codebook_size), 1e-9)
    kinds = {
        "": np.ones(count, np.bool_),
        "_differs": h.differs,
        "_same": ~h.differs,
        "_changed": h.changed,
        "_unchanged": ~h.changed,
        "_open_differs": h.differs & h.in_open,
        "_open_same": ~h.differs & h.in_open,
    }
    row = {
        "embedding_variance": float(seen["embedding"].var(axis=0).mean()),
        "code_perplexity": perplexity(seen["code"]),
        "agreement": float(np.mean(seen["code"] == seen["likely"])),
        **{f"entropy{kind}": mean_where(entropy, where) for kind, where in kinds.items()},
        "roc": roc_area(entropy, h.differs),
        "roc_open": roc_area(entropy[h.in_open], h.differs[h.in_open]),
        "roc_actions": roc_area(entropy, h.changed),
        "entropy_error": mean_where(np.abs(seen["entropy"] - h.entropy), h.in_open),
    }
    for name in sorted(seen):
        if name.startswith(("error_", "paddle_")):
            row |= {name + kind: mean_where(seen[name], kinds[kind]) for kind in ("", "_differs")}
    other = max(row["error_shuffled_differs"], 1e-12)
    row["code_gain"] = 1 - row["error_real_differs"] / other
    return row


def intervals(
    seen: dict[str, np.ndarray], held_out: Transitions, codebook_size: int, seed: int = 0
) -> dict[str, float]:
    """95 % bootstrap intervals over lanes (steps of one game are no independent draws).

    Returns:
        `entropy_low`, `entropy_high`, `roc_low`, `roc_high`, `roc_open_low`, `roc_open_high`,
        `code_gain_low`, `code_gain_high`.
    """
    lane = held_out.lane[: len(seen["entropy"])]
    slim: dict[str, Any] = {**seen, "embedding": np.zeros((len(lane), 1), np.float32)}
    members = [np.flatnonzero(lane == one) for one in np.unique(lane)]
    names = ("entropy", "roc", "roc_open", "code_gain")

    def statistics(drawn: np.ndarray) -> np.ndarray:
        found = []
        for lanes in drawn:
            pick = np.concatenate([members[i] for i in lanes])
            resampled = {name: x[pick] for name, x in slim.items()}
            row = summarise(resampled, Transitions(*(x[pick] for x in held_out)), codebook_size)
            found.append([row[name] for name in names])
        return np.array(found)

    ends = bootstrap(statistics, len(members), resamples=RESAMPLES, seed=seed)
    return {
        f"{name}_{end}": float(value)
        for end, values in zip(("low", "high"), ends, strict=True)
        for name, value in zip(names, values, strict=True)
    }
