"""Targets against hand-computed numbers, a plain-Python twin, and stored values of rlax."""

import functools
import json
import math
import pathlib
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.learning import targets
from smz_jax.model import values
from smz_jax.types import Trajectory

RLAX = json.loads((pathlib.Path(__file__).parents[1] / "fixtures" / "rlax_values.json").read_text())
A = 3


# ---- transform and support ----------------------------------------------------------------------


def test_transform_equals_rlax():
    x = np.asarray(RLAX["x"], np.float32)
    np.testing.assert_allclose(values.signed_hyperbolic(x), RLAX["hyperbolic"], rtol=3e-7)
    y = np.asarray(RLAX["y"], np.float32)
    np.testing.assert_allclose(values.signed_parabolic(y), RLAX["parabolic"], rtol=2e-6)


def test_transform_is_inverted_in_float32_at_every_size():
    x = np.asarray(RLAX["x"], np.float32)
    back = values.signed_parabolic(values.signed_hyperbolic(x))
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=0)


def test_two_hot_equals_rlax():
    two_hot = jax.vmap(lambda y: values.two_hot(y, RLAX["support"]))
    got = two_hot(jnp.asarray(RLAX["scalars"], jnp.float32))
    # rlax adds 1e-5 inside, so that even its whole numbers spill over into the next bin.
    np.testing.assert_allclose(got, RLAX["two_hot"], atol=2e-5)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (0.0, [0, 0, 1, 0, 0]),
        (-2.0, [1, 0, 0, 0, 0]),
        (2.0, [0, 0, 0, 0, 1]),
        (-7.5, [1, 0, 0, 0, 0]),
        (99.0, [0, 0, 0, 0, 1]),
        (1.25, [0, 0, 0, 0.75, 0.25]),
        (-0.5, [0, 0.5, 0.5, 0, 0]),
        (1.75, [0, 0, 0, 0.25, 0.75]),
    ],
)
def test_two_hot_by_hand(y, expected):
    got = values.two_hot(jnp.float32(y), 2)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, np.asarray(expected, np.float32))


@pytest.mark.parametrize("y", [-2.0, -0.5, 0.0, 0.3, 1.75, 2.0, 99.0])
def test_hl_gauss_by_hand(y):
    def below(x):  # the normal distribution's mass below x, by the error function
        return (1 + math.erf((x - min(y, 2.0)) / (0.75 * math.sqrt(2)))) / 2

    mass = [below(border + 1) - below(border) for border in np.arange(-5.5, 5.5)]
    got = values.hl_gauss(jnp.float32(y), 5)  # -2 to 2, and three bins at each end
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.array(mass) / sum(mass), atol=1e-6)
    assert float(got @ np.arange(-5.0, 6.0)) == pytest.approx(min(y, 2.0), abs=2e-4)
    if y == 0.0:  # Phi(2/3), Phi(2) and Phi(10/3) of a table: 0.74751, 0.97725, 0.99957
        np.testing.assert_allclose(
            got[3:8], [0.02232, 0.22974, 0.49502, 0.22974, 0.02232], atol=2e-5
        )


def test_narrow_bins_hold_the_scalar():
    """Bins of 0.1: 1.27 lies between those of 1.2 and 1.3, and the mean of a bell is its middle."""
    two_hot = values.scalar_to_probs(jnp.float32(1.27), 30, "none", width=0.1)
    np.testing.assert_allclose(two_hot[42:44], [0.3, 0.7], atol=1e-5)
    bell = values.scalar_to_probs(jnp.float32(1.27), 33, "none", "hl_gauss", 0.1)
    assert 6 <= (bell > 1e-3).sum() <= 7
    for probs in (two_hot, bell):
        back = values.logits_to_scalar(jnp.log(probs + 1e-30), len(probs) // 2, "none", 0.1)
        assert float(back) == pytest.approx(1.27, abs=2e-4)


def test_scalar_survives_the_support():
    x = jnp.asarray([-900.0, -3.0, -0.1, 0.0, 0.02, 1.0, 21.0, 860.0], jnp.float32)
    probs = jax.vmap(lambda v: values.scalar_to_probs(v, 300))(x)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-6)
    assert ((probs > 0).sum(axis=1) <= 2).all()
    back = jax.vmap(lambda p: values.logits_to_scalar(jnp.log(p + 1e-30), 300))(probs)
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-3)


def test_logits_to_scalar_by_hand_and_in_float32():
    # softmax(log 1, log 2, log 5) = 1/8, 2/8, 5/8: mean 1/2, and h^-1(1/2) by bisection of h.
    logits = jnp.log(jnp.asarray([1.0, 2.0, 5.0]))
    low, high = 0.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        small = (middle + 1) ** 0.5 - 1 + 0.001 * middle < 0.5
        low, high = (middle, high) if small else (low, middle)
    assert float(values.logits_to_scalar(logits, 1)) == pytest.approx(low, rel=1e-6)
    flat = jnp.zeros(601, jnp.bfloat16).at[305].set(12.0)
    got = values.logits_to_scalar(flat, 300)
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(float(values.logits_to_scalar(flat.astype("f4"), 300)))


# ---- returns and masks --------------------------------------------------------------------------


def test_returns_equal_rlax():
    for case in RLAX["returns"]:
        pad = {k: jnp.asarray([*case[k], 0.0], jnp.float32) for k in ("reward", "discount")}
        run = functools.partial(targets.n_step_targets, td_steps=case["n"], gamma=case["gamma"])
        got = jax.jit(run)(
            pad["reward"],
            pad["discount"],
            jnp.zeros(len(case["values"]), bool),
            jnp.asarray(case["values"], jnp.float32),
        )
        np.testing.assert_allclose(got, case["targets"], rtol=1e-5, atol=1e-6)


def test_a_negative_discount_turns_a_return_around():
    """Players in turn: what the other one gains counts against the mover, and bootstraps so."""
    reward = jnp.array([1.0, 2.0, 4.0, 8.0, 0.0])
    discount = jnp.array([-1.0, -1.0, 1.0, 0.0, 1.0])
    values = jnp.array([10.0, 20.0, 30.0, 40.0, 50.0])
    got = targets.n_step_targets(
        reward, discount, jnp.zeros(5, bool), values, td_steps=2, gamma=0.5
    )
    expected = [1 - 0.5 * 2 + 0.25 * 30, 2 - 0.5 * 4 - 0.25 * 40, 4 + 0.5 * 8]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@functools.partial(jax.jit, static_argnames=("K", "n", "gamma", "cut"))
def targets_of(reward, discount, is_first, action_weights, values, K, n, gamma, action=None, cut=0):
    fields = None, action, reward, discount, is_first, None, action_weights, *[None] * 4
    rows = Trajectory(*fields)  # type: ignore[arg-type]
    lengths = {"unroll_steps": K, "td_steps": n}
    return targets.make_unroll_targets(rows, values, **lengths, gamma=gamma, cut_below=cut)


def make(window, K, n, gamma):
    """Targets of a window given as (reward, discount, is_first, value) rows."""
    reward, discount, first, value = (np.asarray(c) for c in zip(*window, strict=True))
    rows = len(window)
    weights = (np.arange(rows)[:, None] * A + np.arange(A) + 1) / (rows * A)
    columns = (reward, discount, np.asarray(first) > 0, weights, value)
    floats = [jnp.asarray(c, bool if c.dtype == bool else jnp.float32) for c in columns]
    return targets_of(*floats, K, n, gamma)


def check(got, **expected):
    for name, want in expected.items():
        np.testing.assert_allclose(getattr(got, name), want, rtol=1e-6, err_msg=name)


def test_by_hand_without_an_end():
    # gamma 1/2, n = 2: z_0 = 1 + 2/2 + 40/4, z_1 = 2 + 4/2 + 80/4, z_2 = 4 + 8/2 + 160/4
    window = [(1, 1, 1, 10), (2, 1, 0, 20), (4, 1, 0, 40), (8, 1, 0, 80), (16, 1, 0, 160)]
    got = make(window, K=2, n=2, gamma=0.5)
    check(got, value=[12, 24, 48], reward=[1, 2], value_mask=[1, 1, 1], policy_mask=[1, 1, 1])
    check(got, transition_mask=[1, 1], policy=(np.arange(9).reshape(3, 3) + 1) / 15)


def test_by_hand_termination_then_final_row_then_next_game():
    # Row 1's action ends the game; row 2 is the final observation; row 3 starts the next game.
    window = [(1, 1, 0, 10), (2, 0, 0, 20), (0, 1, 0, 40), (8, 1, 1, 80), (16, 1, 0, 160)]
    window += [(32, 1, 0, 320)]
    got = make(window, K=3, n=2, gamma=0.5)
    # z_0 = 1 + 2/2, z_1 = 2, then true zeros that count.
    check(got, value=[2, 2, 0, 0], value_mask=[1, 1, 1, 1], reward=[1, 2, 0])
    check(got, policy_mask=[1, 1, 0, 0], transition_mask=[1, 1, 0])
    assert not np.asarray(got.policy[2:]).any()


def test_by_hand_truncation():
    # Row 2 is the final observation of a game that was cut off; row 3 starts the next one.
    window = [(1, 1, 0, 10), (2, 1, 0, 20), (0, 1, 0, 40), (8, 1, 1, 80), (16, 1, 0, 160)]
    window += [(32, 1, 0, 320), (64, 1, 0, 640), (0, 1, 0, 0)]
    got = make(window, K=4, n=3, gamma=0.5)
    # z_0 = 1 + 2/2 + 40/4, z_1 = 2 + 40/2, z_2 = v_2, then nothing is known.
    check(got, value=[12, 22, 40, 0, 0], value_mask=[1, 1, 1, 0, 0], reward=[1, 2, 0, 0])
    check(got, policy_mask=[1, 1, 0, 0, 0], transition_mask=[1, 1, 0, 0])


def test_by_hand_lost_life():
    # Row 1's action loses a life; the game goes on at row 2 without a reset.
    window = [(1, 1, 0, 10), (2, 0, 0, 20), (4, 1, 0, 40), (8, 1, 0, 80), (16, 1, 0, 160)]
    got = make(window, K=2, n=2, gamma=0.5)
    check(got, value=[2, 2, 0], value_mask=[1, 1, 1], policy_mask=[1, 1, 0], reward=[1, 2])
    check(got, transition_mask=[1, 1])


def test_by_hand_players_in_turn():
    """Player a moves, b moves, a moves twice and wins; then the same game drawn, and cut off."""
    moves = [(0, -1, 1, 10), (0, -1, 0, 20), (0, 1, 0, 40), (1, 0, 0, 80)]
    after = [(0, 1, 0, 160), (0, -1, 1, 320), (0, 1, 0, 640)]
    got = make([*moves, *after], K=3, n=3, gamma=0.5)
    # To a at first: her win three steps ahead is two too far, so 40 / 8 of her own second state.
    # b: -1 / 4. a: 1 / 2. a: 1.
    check(got, value=[0.125 * 80, -0.25, 0.5, 1], reward=[0, 0, 0], discount=[-1, -1, 1])
    got = make([*moves, *after], K=2, n=4, gamma=0.5)
    check(got, value=[0.125, -0.25, 0.5], value_mask=[1, 1, 1], policy_mask=[1, 1, 1])
    drawn = [*moves[:3], (0, 0, 0, 80), *after]
    got = make(drawn, K=2, n=4, gamma=0.5)
    check(got, value=[0, 0, 0], discount=[-1, -1], transition_mask=[1, 1])
    # Cut off after b's move: row 2 is the final observation, a's, whose value she has to the end.
    cut = [*moves[:2], (0, 1, 0, 40), (0, -1, 1, 320), *after]
    got = make(cut, K=3, n=3, gamma=0.5)
    check(got, value=[10, -20, 40, 0], value_mask=[1, 1, 1, 0], discount=[-1, -1, 0])


def of_three(rows, K, n, gamma, action=None, cut=0):
    """Targets of rows (player, rewards by seat, discount, is_first, values from the mover on)."""
    rows = rows[: K + n + 1]
    player, rewards, discount, first, values = (np.array(c) for c in zip(*rows, strict=True))
    mine = rewards[np.arange(len(rows)), player]
    fields = {"reward": mine, "rewards": rewards, "discount": discount}
    fields |= {"action_weights": np.tile([0.8, 0.2, 0.0], (len(rows), 1))}
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in fields.items()}
    rest = dict.fromkeys(set(Trajectory._fields) - set(arrays))
    rest |= {"player": jnp.asarray(player, jnp.int32), "is_first": jnp.asarray(first) > 0}
    rest |= {"action": None if action is None else jnp.asarray(action, jnp.int32)}
    run = functools.partial(
        targets.make_unroll_targets, unroll_steps=K, td_steps=n, gamma=gamma, cut_below=cut
    )
    return jax.jit(run)(Trajectory(**arrays, **rest), jnp.asarray(values, jnp.float32))


LAST = (-0.5, -0.5, 1.0)


def test_by_hand_three_players():
    """Player 0 moves, 1 moves twice, 2 wins; then the same game drawn, and cut off."""
    none = (0, 0, 0)
    moves = [(0, none, -1, 1, (1, 2, 3)), (1, none, 1, 0, (4, 5, 6)), (1, none, -1, 0, (7, 8, 9))]
    after = [(2, none, 1, 0, (0, 0, 0)), (0, none, -1, 1, (1, 1, 1))] * 3
    won = [*moves, (2, LAST, 0, 0, (7, 7, 7)), *after]
    got = of_three(won, K=3, n=4, gamma=0.5)
    # By seat z_3 = (-1/2, -1/2, 1), each row before half of it; told from the mover on.
    expected = [(-1 / 16, -1 / 16, 1 / 8), (-1 / 8, 1 / 4, -1 / 8), (-1 / 4, 1 / 2, -1 / 4)]
    check(got, values=[*expected, (1, -0.5, -0.5)], value=[-1 / 16, -1 / 8, -1 / 4, 1])
    check(got, turn=[1, 0, 1], discount=[-1, 1, -1], rewards=np.zeros((3, 3)))
    got = of_three(won, K=4, n=4, gamma=0.5)
    check(got, turn=[1, 0, 1, 3], reward=[0, 0, 0, 1], value_mask=[1, 1, 1, 1, 1])
    check(got, rewards=[*[none] * 3, (1, -0.5, -0.5)], values=[*expected, (1, -0.5, -0.5), none])
    # Two steps ahead stands player 1, who says 7 of itself, 8 of player 2 and 9 of player 0.
    got = of_three(won, K=1, n=2, gamma=0.5)
    check(got, values=[(9 / 4, 7 / 4, 8 / 4), (7 / 4, 7 / 4, 7 / 4)])
    got = of_three([*moves, (2, none, 0, 0, (7, 7, 7)), *after], K=3, n=4, gamma=0.5)
    check(got, values=np.zeros((4, 3)), value_mask=[1, 1, 1, 1], turn=[1, 0, 1])
    # Cut off when player 2 is to move: row 3 is the final observation.
    cut = [*moves, (2, none, 1, 0, (1, 2, 4)), (0, none, -1, 1, (9, 9, 9)), *after]
    got = of_three(cut, K=4, n=4, gamma=0.5)
    check(got, values=[(2 / 8, 4 / 8, 1 / 8), (4 / 4, 1 / 4, 2 / 4), (4 / 2, 1 / 2, 2 / 2),
                       (1, 2, 4), none], turn=[1, 0, 1, 3])  # fmt: skip
    check(got, value_mask=[1, 1, 1, 1, 0], transition_mask=[1, 1, 1, 0])
    # Player 1's first move was played to explore: there its own values end player 0's return.
    got = of_three(won, K=1, n=2, gamma=0.5, action=[0, 1, 0, 0], cut=0.5)
    check(got, values=[(6 / 2, 4 / 2, 5 / 2), (4, 5, 6)])
    check(got, decision_value=[(6 / 2, 4 / 2, 5 / 2)])


def test_three_players_equal_the_twin_seat_by_seat():
    rng, K, n, gamma = np.random.default_rng(2), 3, 4, Fraction(7, 8)
    ends = [(int(rng.integers(2, 6)), ("turns", "truncation in turns")[i % 2]) for i in range(12)]
    rows, players = random_game_rows(rng, ends), [0]
    for _, discount, *_ in rows:
        players.append((players[-1] + int(rng.integers(1, 3)) * (discount < 0)) % 3)
    gains, values = rng.integers(-9, 9, (2, len(rows), 3))
    never = np.zeros(len(rows), bool)
    for root in range(len(rows) - K - n - 2):
        window = slice(root, root + K + n + 1)
        given = [
            (player, gains[t], rows[t][1], rows[t][2], np.roll(values[t], -player))
            for t, player in enumerate(players[:-1])
        ]
        got = of_three(given[window], K, n, float(gamma))
        by_seat = []
        for seat in range(3):
            own = [
                (int(gains[t, seat]), abs(row[1]), row[2], int(values[t, seat]))
                for t, row in enumerate(rows)
            ]
            by_seat.append(twin(own, root, K, n, gamma, never)["value"])
        for k, value in enumerate(np.transpose(by_seat)):
            np.testing.assert_allclose(
                got.values[k], np.roll(value, -players[root + k]), rtol=1e-5, atol=1e-6
            )


def test_by_hand_what_was_played_to_explore_does_not_count():
    """Row 1's action has a quarter of the best one's weight: there the row's own value stands in.

    What was done in it is told by what came of it all the same.
    """
    window = [(1, 1, 1, 10), (2, -1, 0, 20), (4, 1, 0, 40), (8, 0, 0, 80), (16, 1, 0, 160)]
    columns = [jnp.asarray(c, jnp.float32) for c in zip(*window, strict=True)]
    weights = jnp.asarray([[0.2, 0.8, 0.0]] * 5)
    action = jnp.asarray([1, 0, 1, 1, 0], jnp.int32)
    reward, discount, first, value = columns
    given = reward, discount, first > 0, weights, value
    run = functools.partial(targets_of, *given, K=2, n=2, gamma=0.5, action=action)
    got = run(cut=0.5)
    # z_0 = 1 + 20/2, z_1 = 20, z_2 = 4 + 8/2; and done: 1 + 20/2, 2 - 8/2.
    check(got, value=[11, 20, 8], decision_value=[11, -2], discount=[1, -1])
    # A quarter is no less than a quarter.
    check(run(cut=0.25), value=[1 + 2 / 2 - 40 / 4, 2 - 4 / 2 - 80 / 4, 8])
    assert run().decision_value is None


def test_play_is_astray_where_one_part_is():
    weights = jnp.asarray([[0.9, 0.1, 0.3, 0.3, 0.4]] * 4)
    action = jnp.asarray([0, 2, 3, 5], jnp.int32)  # options (0, 0), (0, 2), (1, 0), (1, 2)
    astray = targets.is_astray(action, weights, (2, 3), 0.5)
    np.testing.assert_array_equal(astray, [False, False, True, True])
    astray = targets.is_astray(action, weights, (2, 3), 0.8)
    np.testing.assert_array_equal(astray, [True, False, True, True])


def test_by_hand_root_is_a_final_observation():
    for discount in (0, 1):
        window = [(0, discount, 0, 10), (2, 1, 1, 20), (4, 1, 0, 40), (8, 1, 0, 80)]
        got = make(window, K=2, n=1, gamma=0.5)
        for field in got:
            assert not np.asarray(field).any()


def twin(episode, root, K, n, gamma, astray):
    """What `make_unroll_targets` should give, row by row, in exact arithmetic.

    Returns end at rows that are `astray`.
    """

    def is_final(t):
        return bool(episode[t + 1][2])

    def z(t):
        total, factor = Fraction(0), Fraction(1)
        for _ in range(n):
            reward, discount, _, value = episode[t]
            if is_final(t) or astray[t]:
                return total + factor * value
            total += factor * reward
            if discount == 0:
                return total
            factor *= gamma * discount
            t += 1
        return total + factor * episode[t][3]

    value, vmask, pmask, reward, tmask, turn, done = [], [], [], [], [], [], []
    state = "final root" if is_final(root) else "own"
    for k in range(K + 1):
        t = root + k
        acting = state == "own" and not is_final(t)
        value.append(z(t) if state == "own" else 0)
        vmask.append(int(state in ("own", "terminated")))
        pmask.append(int(acting))
        reward.append(episode[t][0] if acting else 0)
        turn.append(episode[t][1] if acting else 0)
        tmask.append(int(acting))
        done.append(episode[t][0] + gamma * episode[t][1] * z(t + 1) if acting else 0)
        if state == "own" and is_final(t):
            state = "truncated"
        elif acting and episode[t][1] == 0:
            state = "terminated"
    return {
        "value": [float(v) for v in value],
        "value_mask": vmask,
        "policy_mask": pmask,
        "reward": reward[:K],
        "discount": turn[:K],
        "transition_mask": tmask[:K],
        "decision_value": [float(v) for v in done[:K]],
    }


def random_game_rows(rng, ends):
    """Rows of several games, each with its final observation; `lives` loses one every third row.

    In `turns` two players move, often one of them twice, and the last move ends the game.
    """
    rows = []
    for length, end in ends:
        for t in range(length):
            dies = not end.startswith("truncation") and t == length - 1
            loses_life = end == "lives" and t % 3 == 2
            turns = end.endswith("turns") and rng.random() < 0.6
            discount = 0 if dies or loses_life else -1 if turns else 1
            rows.append((int(rng.integers(1, 9)), discount, int(t == 0), int(rng.integers(1, 99))))
        rows.append((0, 1, 0, int(rng.integers(1, 99))))
    return rows


def test_every_offset_of_many_games_equals_the_twin():
    rng = np.random.default_rng(1)
    kinds = ("termination", "truncation", "lives", "turns", "truncation in turns")
    seen = set()
    cases = [(3, 2, Fraction(1, 2), 0), (5, 4, Fraction(7, 8), 0.5), (1, 1, Fraction(1), 0)]
    for K, n, gamma, cut in cases:
        ends = [(3 * int(rng.integers(1, 4)) - i % 2, kinds[i % 5]) for i in range(15)]
        rows = random_game_rows(rng, ends)
        roots = range(len(rows) - K - n - 2)
        windows = np.asarray([rows[root : root + K + n + 1] for root in roots], np.float32)
        reward, discount, first, value = (jnp.asarray(c) for c in np.moveaxis(windows, 2, 0))
        astray = rng.random(len(rows)) < 0.3 * (cut > 0)
        weights = np.where(astray[:, None], [0.2, 0.8, 0.0], [0.8, 0.2, 0.0])
        weights = jnp.asarray([weights[root : root + K + n + 1] for root in roots], jnp.float32)
        run = jax.vmap(functools.partial(targets_of, K=K, n=n, gamma=float(gamma), cut=cut))
        action = jnp.zeros(reward.shape, jnp.int32)
        got = run(reward, discount, first > 0, weights, value, action=action)
        for i, root in enumerate(roots):
            want = twin(rows, root, K, n, gamma, astray)
            mask = want["transition_mask"]
            if not cut:
                del want["decision_value"]
            else:
                got = got._replace(
                    decision_value=got.decision_value.at[i].multiply(jnp.array(mask))
                )
            seen.add(tuple(want["value_mask"]))
            for name, expected in want.items():
                np.testing.assert_allclose(
                    getattr(got, name)[i], expected, rtol=1e-5, err_msg=f"{name} of row {root}"
                )
    assert len(seen) > 5


@pytest.mark.parametrize("discount", [0, 1])
def test_nothing_crosses_into_the_next_episode(discount):
    """Whatever stands in the next game's rows, even NaN, changes nothing."""
    head = [(1, 1, 0, 10), (2, discount, 0, 20), (0, 1, 0, 40)]
    results = []
    for poison in (0.0, 1e9, np.nan, np.inf):
        tail = [(poison, 1, i == 0, poison) for i in range(5)]
        results.append(make(head + tail, K=4, n=3, gamma=0.5))
    for other in results[1:]:
        jax.tree.map(
            np.testing.assert_array_equal, results[0], other._replace(policy=results[0].policy)
        )
    assert np.isfinite(np.asarray(results[2].policy)).all()


def test_random_actions_only_past_the_end():
    action = jnp.asarray([2, 1, 2, 2, 0], jnp.int32)
    mask = jnp.asarray([1, 1, 0, 0, 0], jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.vmap(lambda k: targets.random_actions_past_end(k, action, mask, A))(keys)
    drawn = np.asarray(drawn)
    assert drawn.dtype == np.int32
    assert (drawn[:, :2] == [2, 1]).all()
    for step in (2, 3, 4):
        counts = np.bincount(drawn[:, step], minlength=A)
        assert counts.shape == (A,)
        assert np.abs(counts - 1000).max() < 130  # five standard deviations
