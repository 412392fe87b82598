"""Stored frames of random play in Breakout: collected once; each lane's last tenth is held out."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.envs import make_env
from smz_jax.envs.atari.sticky import StickyTruth, sticky_truth
from smz_jax.storage.files import atomic_write_bytes
from smz_jax.types import Trajectory

FORMAT = 3
WALLS = (55, 191)  # RAM x of the paddle at Breakout's walls


class Stored(NamedTuple):
    """Rows of random play (NumPy, `[lanes, T, ...]`), and what the emulator says of each."""

    rows: Trajectory
    truth: StickyTruth


class Transitions(NamedTuple):
    """Held-out transitions with the ball in play, in a fixed random order."""

    before: np.ndarray  # [N, F, H, W] uint8
    action: np.ndarray  # [N] int32
    after: np.ndarray  # [N, F, H, W] uint8
    lane: np.ndarray  # [N] int32
    changed: np.ndarray  # [N] bool, by the actions alone
    differs: np.ndarray  # [N] bool, by the emulator: the courses end in different frames
    in_open: np.ndarray  # [N] bool, the paddle is at no wall
    entropy: np.ndarray  # [N] float32, true, in nats


def collect(config: Config, num_rows: int, held_out: int) -> Stored:
    """Plays uniformly random valid actions.

    Args:
        config: of the games; `config.seed` seeds games and actions.
        num_rows: T, rows of each lane.
        held_out: rows at each lane's end whose outcomes the emulator gives.

    Returns:
        Rows as the replay keeps them: policy target uniform over valid actions, search value 0.

    Raises:
        ConfigError: if a replay of the games in the emulator does not show the same frames.
    """
    env = make_env(config.env, seed=config.seed)
    generator = np.random.default_rng(config.seed)
    zeros = np.zeros(config.env.num_envs, np.float32)
    steps: list[Any] = []
    try:
        now = env.reset()
        for _ in range(num_rows):
            weights = 1 - now.invalid_actions
            weights /= weights.sum(axis=1, keepdims=True)
            draws = generator.random((len(weights), 1)) < np.cumsum(weights, axis=1)
            action = np.argmax(draws, axis=1).astype(np.int32)
            after = env.step(action)
            step: dict[str, Any] = {
                "frame": now.observation[:, -1].copy(),  # else the whole stack is kept alive
                "action": action,
                "reward": after.reward.astype(np.float32),
                "discount": np.where(after.terminated, np.float32(0), np.float32(1)),
                "is_first": now.is_first.astype(np.bool_),
                "invalid_actions": now.invalid_actions.astype(np.uint8),
                "action_weights": weights.astype(np.float32),
                "search_value": zeros,
                "search_spread": zeros,
                "transition_entropy": zeros,
                "target_step": zeros.astype(np.int32),
            }
            steps.append(Trajectory(**step))
            now = after
    finally:
        env.close()
    rows: Trajectory = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *steps)
    seeds = np.random.SeedSequence(config.seed).generate_state(config.env.num_envs)
    lanes = [
        sticky_truth(
            config.env,
            lane_seed=max(int(seed) % 2**31, 1),
            frames=np.asarray(rows.frame[lane]),
            actions=np.asarray(rows.action[lane]),
            is_first=np.asarray(rows.is_first[lane]),
            action_names=env.spec.action_names,
            first_row=num_rows - held_out,
        )
        for lane, seed in enumerate(seeds)
    ]
    return Stored(rows, StickyTruth(*(np.stack(x) for x in zip(*lanes, strict=True))))


def stored_frames(path: Path, config: Config, num_rows: int, held_out: int) -> Stored:
    """The frames in `path`, collected and written first where it is missing.

    Raises:
        ConfigError: in one line, if the file is damaged or holds other frames.
    """
    names = ("backend", "sticky", "frame_skip", "frame_size", "episodic_life", "clip_rewards")
    wanted = {  # what the frames depend on
        "format": FORMAT,
        "env": config.env.id,
        **{name: getattr(config.env, name) for name in names},
        "lanes": config.env.num_envs,
        "seed": config.seed,
        "rows": num_rows,
        "held_out": held_out,
    }
    if not path.exists():
        stored = collect(config, num_rows, held_out)
        buffer, fields = io.BytesIO(), stored.rows._asdict()
        arrays = {name: x for name, x in fields.items() if x is not None}
        arrays |= {f"truth_{name}": value for name, value in stored.truth._asdict().items()}
        np.savez_compressed(buffer, description=np.array(json.dumps(wanted)), **arrays)
        atomic_write_bytes(path, buffer.getvalue())
        return stored
    try:
        with np.load(path, allow_pickle=False) as file:
            found = json.loads(str(file["description"]))
            if found == wanted:
                fields = set(Trajectory._fields) - set(Trajectory._field_defaults)
                rows = Trajectory(**{name: file[name] for name in fields})
                truth = StickyTruth(**{x: file[f"truth_{x}"] for x in StickyTruth._fields})
                return Stored(rows, truth)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ConfigError(f"{path} is damaged ({reason}): remove it") from None
    other = ", ".join(name for name, value in wanted.items() if found.get(name) != value)
    raise ConfigError(f"{path} holds other frames (other {other}): use another --run_dir")


def training_rows(stored: Stored, held_out: int) -> Trajectory:
    """The rows to learn from, on the device."""
    return jax.tree.map(lambda x: jnp.asarray(x[:, : x.shape[1] - held_out]), stored.rows)


def held_out_transitions(
    stored: Stored, held_out: int, frame_stack: int, most: int, seed: int = 0
) -> Transitions:
    """Up to `most` of the last `held_out` rows of each lane, those with the ball in play.

    Raises:
        ConfigError: if there are none.
    """
    rows, truth = stored.rows, stored.truth
    index = np.arange(rows.action.shape[1])
    is_held_out = (index >= max(len(index) - held_out, 1)) & (index < len(index) - 1)
    lane, row = np.nonzero(truth.in_play & is_held_out)
    if not len(lane):
        raise ConfigError("no held-out transition has the ball in play: raise --transitions")
    order = np.random.default_rng(seed).permutation(len(lane))[:most]
    lane, row = lane[order], row[order]
    start = np.maximum.accumulate(np.where(rows.is_first, index, 0), axis=1)
    back = np.arange(frame_stack) - (frame_stack - 1)

    def stack(at: np.ndarray) -> np.ndarray:
        wanted = np.maximum(at[:, None] + back, start[lane, at][:, None])
        return np.asarray(rows.frame)[lane[:, None], wanted]

    return Transitions(
        before=stack(row),
        action=np.asarray(rows.action)[lane, row],
        after=stack(row + 1),
        lane=lane.astype(np.int32),
        changed=truth.changed[lane, row],
        differs=truth.outcomes[lane, row] > 1,
        in_open=~np.isin(truth.paddle[lane, row], WALLS),
        entropy=truth.entropy[lane, row],
    )
