"""Backgammon's chance codes against the dice: models that are right, and one that knows nothing."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.analysis.rules import dice_check
from smz_jax.analysis.rules.dice_check import check_rolls, stored_moves
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.envs.pgx.backgammon import ROLL_CHANCES, ROLL_ENTROPY

LANES, ROWS = 2, 12


def ring(index, is_full):
    """A ring whose frames tell the time of a row, whose discounts tell whether it is odd."""
    time = (np.arange(ROWS) - index) % ROWS if is_full else np.arange(ROWS)
    frame = np.stack([time, time + 100])[..., None].astype(np.int32)
    rows = SimpleNamespace(
        frame=frame,
        action=frame[..., 0] * 2,
        discount=np.where(frame[..., 0] % 2 == 1, -1.0, 1.0).astype(np.float32),
        is_first=np.isin(frame[..., 0], (0, 5, 100)),
    )
    return SimpleNamespace(experience=rows, current_index=index, is_full=is_full)


@pytest.mark.parametrize(
    ("index", "is_full", "last"), [(8, False, 8), (3, True, 12), (0, True, 12)]
)
def test_stored_moves_are_the_real_ones_in_their_order(index, is_full, last):
    """Row 4 of the first lane is a final observation, and nothing is known after the newest."""
    frame, action, discount = stored_moves(ring(index, is_full))
    both = [x for time in range(last - 1) for x in (time, time + 100) if x != 4]
    assert frame[:, 0].tolist() == both and action.tolist() == [2 * x for x in both]
    assert (discount < 0).tolist() == [x % 2 == 1 for x in both]


def test_only_the_newest_moves_are_looked_at(monkeypatch):
    monkeypatch.setattr(dice_check, "MOVES", 5)
    assert stored_moves(ring(3, True))[0][:, 0].tolist() == [108, 9, 109, 10, 110]


def model(of_roll, of_certain):
    """A model whose chance logits are those of a roll where the frame is odd."""
    networks = SimpleNamespace(
        representation=lambda params, seen: seen[:, -1],
        all_values=None,
        afterstate_dynamics=lambda params, state, action: state + 0 * action[:, None],
        afterstate_prediction=lambda params, after: (
            jnp.where(after % 2 == 1, of_roll, of_certain),
            jnp.zeros((len(after), 1)),
        ),
        value_of=lambda logits: logits[:, 0],
    )
    train = SimpleNamespace(params=None, target_params=None)
    config = Config(network=NetworkConfig(codebook_size=32))
    parts = SimpleNamespace(config=config, networks=networks)
    return check_rolls(parts, SimpleNamespace(train=train, replay=ring(3, True)))


def test_entropies_of_models_that_are_right_and_wrong():
    exact = np.log(np.pad(ROLL_CHANCES, (0, 11), constant_values=1e-30))
    certain = np.where(np.arange(32) == 3, 0.0, -1e9)
    found = model(exact, certain)
    assert found["roc_area"] == 1 and found["entropy_error"] == pytest.approx(0, abs=1e-5)
    assert found["entropy_random"] == pytest.approx(ROLL_ENTROPY, abs=1e-5)
    found = model(np.zeros(32), np.zeros(32))  # ln 32 everywhere
    assert found["roc_area"] == 0.5 and found["entropy_certain"] == pytest.approx(np.log(32))
    error = (np.log(32) - ROLL_ENTROPY, np.log(32))  # where the turn passes, and where it does not
    odd = np.mean([x % 2 == 1 for t in range(11) for x in (t, t + 100) if x != 4])
    assert found["entropy_error"] == pytest.approx(odd * error[0] + (1 - odd) * error[1], rel=1e-5)
    found = model(certain, exact)
    assert found["roc_area"] == 0
