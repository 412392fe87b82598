"""A linear model whose optimum is known, fitted to it by the real training step.

Three states, two actions, random transitions. Each head is a matrix over one-hot features, so that
its cross-entropy has a single minimum: the conditional mean of its targets. The batch holds every
path of two steps as often as it is probable, so that these means are exact; they are summed up
below from the rules alone, in plain Python.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import LearnerConfig, LossConfig, RolloutConfig
from smz_jax.learning.learner import TrainStep, init_train_state
from smz_jax.learning.replay import Replay
from smz_jax.model.values import logits_to_scalar
from smz_jax.types import EnvSpec, Networks, ReplaySample, Space, Trajectory

S, A, QUARTERS, GAMMA, SUPPORT = 3, 2, 4, 0.9, 3
SPEC = EnvSpec("toy", (S,), 1, np.dtype(np.float32), Space(A, ("a", "b")), 1)
NEXT = {  # the state after (s, a), each entry with probability 1/4
    (0, 0): (0, 0, 1, 2),
    (0, 1): (1, 1, 1, 1),
    (1, 0): (0, 0, 0, 2),
    (1, 1): (2, 2, 0, 0),
    (2, 0): (2, 1, 1, 1),
    (2, 1): (0, 1, 2, 2),
}
REWARD = np.linspace(-1.5, 1.5, S * A * S).reshape(S, A, S)  # of (s, a, s')
STORED = (0.7, -1.1, 2.0)  # search value of each state
POLICY = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])  # search policy of each state


def config():
    updates = 1_500
    return Config(
        total_env_steps=updates,
        env=EnvConfig(num_envs=1, frame_stack=1),
        rollout=RolloutConfig(length=1),
        network=NetworkConfig(
            codebook_size=S,
            value_support=SUPPORT,
            reward_support=SUPPORT,
            encoder_input="frames",
            encoder_noise=0.0,
            encoder_noise_end=0.0,
        ),
        loss=LossConfig(consistency=0.0),
        learner=LearnerConfig(
            batch_size=S * (A * QUARTERS) ** 2,
            unroll_steps=1,
            td_steps=1,
            gamma=GAMMA,
            learning_rate=0.05,
            learning_rate_end=1e-3,
            warmup_steps=0,
            weight_decay=0.0,
            updates_per_env_step=1.0,
        ),
    )


def linear_networks():
    """Embedding, afterstate and every head linear; the code is the state that was reached."""
    bins = 2 * SUPPORT + 1
    shapes = {
        "state": (S, S),
        "policy": (S, A),
        "value": (S, bins),
        "chance": (S * A, S),
        "q": (S * A, bins),
        "next": (S * A * S, S),
        "reward": (S * A * S, bins),
    }

    def init(rng_key):
        keys = jax.random.split(rng_key, len(shapes))
        named = zip(shapes.items(), keys, strict=True)
        params = {name: 0.1 * jax.random.normal(key, shape) for (name, shape), key in named}
        params["state"] += jnp.eye(S)
        return {"params": params, "batch_stats": {}}

    def outer(x, y):
        return jnp.einsum("bi,bj->bij", x, y).reshape(x.shape[0], -1)

    def representation(params, observation):
        return observation[:, -1] @ params["params"]["state"]

    def dynamics(params, afterstate, code):
        both = outer(afterstate, code)
        return both @ params["params"]["next"], both @ params["params"]["reward"]

    def scalar(logits):
        flat = jax.vmap(lambda x: logits_to_scalar(x, SUPPORT))(logits.reshape(-1, bins))
        return flat.reshape(logits.shape[:-1])

    def unused(*_):
        raise AssertionError("not part of this model")

    return Networks(
        init=init,
        representation=representation,
        prediction=lambda p, x: (x @ p["params"]["policy"], x @ p["params"]["value"]),
        afterstate_dynamics=lambda p, x, action: outer(x, jax.nn.one_hot(action, A)),
        afterstate_prediction=lambda p, x: (x @ p["params"]["chance"], x @ p["params"]["q"]),
        dynamics=dynamics,
        encoder=lambda p, after, afterstate: 10.0 * after[:, -1],
        representation_train=lambda p, x: (representation(p, x), {}),
        project=unused,
        decode=unused,
        frame_target=unused,
        value_of=scalar,
        reward_of=scalar,
    )


def all_paths():
    """Every (s0, a0, s1, a1, s2), as often as it is probable."""
    for state, first, which, second, after in itertools.product(
        range(S), range(A), range(QUARTERS), range(A), range(QUARTERS)
    ):
        reached = NEXT[state, first][which]
        yield state, first, reached, second, NEXT[reached, second][after]


def all_rows():
    paths = np.array(list(all_paths()))
    states, actions = paths[:, ::2], paths[:, 1::2]
    rewards = REWARD[states[:, :-1], actions, states[:, 1:]]
    past = np.zeros((len(paths), 1))  # row 2 gives its state and value alone
    rows = Trajectory(
        frame=np.eye(S, dtype=np.float32)[states],
        action=np.concatenate([actions, past], axis=1).astype(np.int32),
        reward=np.concatenate([rewards, past + 99.0], axis=1).astype(np.float32),
        discount=np.ones(states.shape, np.float32),
        is_first=np.zeros(states.shape, bool),
        invalid_actions=np.zeros((*states.shape, A), np.uint8),
        action_weights=POLICY[states].astype(np.float32),
        search_value=np.array(STORED, np.float32)[states],
        search_spread=np.zeros(states.shape, np.float32),
        transition_entropy=np.zeros(states.shape, np.float32),
        target_step=np.zeros(states.shape, np.int32),
    )
    return jax.tree.map(jnp.asarray, rows)


def whole_batch():
    """A replay whose every sample is all paths."""

    def sample(state, rng_key):
        size = state.reward.shape[0]
        return ReplaySample(state, jnp.arange(size, dtype=jnp.int32), jnp.ones(size))

    unused = dict.fromkeys(("init", "add", "add_donated", "can_sample", "size"))
    return Replay(sample=sample, set_priorities=lambda state, *_: state, **unused)


def spread(x):
    """h(x) shared by its two neighbouring whole numbers, in plain Python."""
    y = math.copysign(math.sqrt(abs(x) + 1) - 1, x) + 0.001 * x
    low = math.floor(y)
    probs = np.zeros(2 * SUPPORT + 1)
    probs[low + SUPPORT] += low + 1 - y
    probs[low + 1 + SUPPORT] += y - low
    return probs


def known_optimum():
    """The distribution that each head should hold, from the rules."""
    reward = np.array([[[spread(x) for x in row] for row in table] for table in REWARD])
    chance = np.array([[[NEXT[s, a].count(t) / QUARTERS for t in range(S)] for a in range(A)]
                       for s in range(S)])  # fmt: skip
    target = np.array([[[spread(REWARD[s, a, t] + GAMMA * STORED[t]) for t in range(S)]
                        for a in range(A)] for s in range(S)])  # fmt: skip
    q = np.einsum("sat,satb->sab", chance, target)
    return {"reward": reward, "chance": chance, "q": q, "value": q.mean(axis=1), "policy": POLICY}


def predictions(networks, params):
    """What the fitted model says: of the root, and of the state that it reached itself."""
    s, a, t = (x.ravel() for x in np.indices((S, A, S)))
    root = networks.representation(params, jnp.eye(S)[s][:, None])
    afterstate = networks.afterstate_dynamics(params, root, jnp.asarray(a))
    chance, q = networks.afterstate_prediction(params, afterstate)
    reached, reward = networks.dynamics(params, afterstate, jnp.eye(S)[t])
    logits = dict(zip(("policy", "value"), networks.prediction(params, root), strict=True))
    own = dict(zip(("policy", "value"), networks.prediction(params, reached), strict=True))
    heads = {**logits, "chance": chance, "q": q, "reward": reward}
    softmax = lambda tree: jax.tree.map(lambda x: np.asarray(jax.nn.softmax(x)), tree)  # noqa: E731
    return (s, a, t), softmax(heads), softmax(own)


def entropy(probs):
    return -np.sum(probs * np.log(np.maximum(probs, 1e-30)), axis=-1)


def test_the_training_step_finds_the_known_optimum():
    networks = linear_networks()
    settings = config()
    step = TrainStep(networks, whole_batch(), settings, SPEC)
    state, memory = init_train_state(networks, settings, jax.random.key(0)), all_rows()
    for _ in range(settings.total_env_steps):
        state, memory, metrics = step(state, memory)
    best = known_optimum()
    (s, a, t), of_root, of_reached = predictions(networks, state.params)
    possible = best["chance"][s, a, t] > 0  # what never happens is never learned
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=0.01)  # noqa: E731
    close(of_root["policy"], best["policy"][s])
    close(of_root["value"], best["value"][s])
    close(of_root["chance"], best["chance"][s, a])
    close(of_root["q"], best["q"][s, a])
    close(of_root["reward"][possible], best["reward"][s, a, t][possible])
    # The state after a step is the state that the code names, wherever it was reached from.
    close(of_reached["policy"][possible], best["policy"][t][possible])
    close(of_reached["value"][possible], best["value"][t][possible])
    # At its optimum a cross-entropy is the entropy of the mean target. Roots are evenly spread.
    path = np.array(list(all_paths()))
    least = {
        "chance": entropy(best["chance"]).mean(),
        "afterstate_value": entropy(best["q"]).mean(),
        "reward": entropy(best["reward"])[path[:, 0], path[:, 1], path[:, 2]].mean(),
    }
    for name in ("policy", "value"):  # of the root and of the one step
        least[name] = entropy(best[name])[path[:, [0, 2]]].sum(axis=1).mean()
    for name, value in least.items():
        assert value - 1e-4 < metrics[f"loss/{name}"] < value + 0.01, name
