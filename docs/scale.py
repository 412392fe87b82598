"""Counts what Breakout at `gpu` computes and exchanges, and what that makes of many accelerators.

python -m docs.scale prints the tables of docs/scale.md: sizes and operations are the program's own,
rates of accelerators and networks nominal, and how much iterations differ is measured (`SPREAD`).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.breakout import EXPERIMENT
from smz_jax.config.cli import parse
from smz_jax.config.settings import Config
from smz_jax.envs import make_spec
from smz_jax.learning.replay import make_replay
from smz_jax.model.networks import make_networks

DEVICE_RATE = 300e12  # operations a second
IN_MACHINE = 450e9  # bytes a second between the devices of one machine
BETWEEN = (400e9 / 8, 100e9 / 8)  # between machines
TO_DEVICE = 25e9  # from a host to its devices
PER_MACHINE = 8  # devices
ENVIRONMENT_STEPS = 5590  # a second, of one core for each device
SEARCH_SLOWER = 5  # than its operations say
QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1)
SPREAD = {
    "environment": (0.75, 0.81, 0.85, 0.89, 0.94, 0.98, 1.2, 1.46, 6.53, 6.82),
    "learning": (0.85, 0.91, 0.93, 0.97, 1.0, 1.06, 1.11, 1.6, 2.16, 2.42),
}
"""Of an iteration's seconds, by their mean: 407 iterations of Space Invaders at `laptop` (seed 2),
each of 1,024 steps and 40 updates, on one core of a shared machine."""
DRAWS = 4000
EVALUATION_STEPS = 1300  # of a game of Breakout that scores 30


def shape_bytes(tree) -> int:
    """Bytes of the arrays of a tree of shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def count(config: Config) -> dict[str, float]:
    """Parameters, bytes and operations (multiply and add are two), from the program."""
    spec = make_spec(config.env)
    networks, key = make_networks(config.network, spec), jax.random.key(0)
    params = jax.eval_shape(networks.init, key)
    replay = make_replay(config, spec)
    state = jax.eval_shape(replay.init)
    batch = jax.eval_shape(replay.sample, state, key).rows
    shape = spec.observation_shape
    stack = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    action = jnp.zeros(1, jnp.int32)
    code = jnp.zeros((1, config.network.codebook_size))
    embedding = jax.eval_shape(networks.representation, params, stack)
    afterstate = jax.eval_shape(networks.afterstate_dynamics, params, embedding, action)

    def cost(function, *arguments) -> float:
        return (jax.jit(function).lower(params, *arguments).cost_analysis() or {})["flops"]

    h = cost(networks.representation, stack)
    f = cost(networks.prediction, embedding)
    phi = cost(networks.afterstate_dynamics, embedding, action)
    psi = cost(networks.afterstate_prediction, afterstate)
    g = cost(networks.dynamics, afterstate, code)
    return {
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(params["params"])),
        "gradients": shape_bytes(params["params"]),
        "row": shape_bytes(state.experience) / config.replay.capacity,
        "frame": math.prod(shape[1:]),
        "batch": shape_bytes(batch),
        "stack": shape_bytes(stack),
        "h": h,
        "f": f,
        "phi": phi,
        "psi": psi,
        "g": g,
        # Half of the expansions are decisions, half outcomes.
        "search": h + config.search.num_simulations * (phi + psi + g + f) / 2,
        # Backward counts as two forwards; what follows a window's root is embedded forward alone.
        "window": 3 * h + config.learner.unroll_steps * (h + 3 * (phi + psi + g + f)),
    }


def exchange(size: float, devices: int, rate: float) -> float:
    """Milliseconds to add up `size` bytes over all devices: a ring in or between machines."""
    machines = max(devices // PER_MACHINE, 1)
    speed, members = (rate, machines) if machines > 1 else (IN_MACHINE, devices)
    return 2e3 * (members - 1) / members * size / speed


def update(found: dict[str, float], devices: int, batch: int, rate: float, base: int):
    """Milliseconds of an update: computing, gradients, drawn rows."""
    compute = 1e3 * batch * found["window"] / DEVICE_RATE / devices
    rows = exchange(found["batch"] * batch / base, devices, rate)
    return compute, exchange(found["gradients"], devices, rate), rows


def waiting(machines: int, what: str) -> float:
    """Mean time of the slowest of so many, by the mean of one, drawn from what was measured."""
    drawn = np.random.default_rng(0).random((DRAWS, machines))
    return float(np.interp(drawn, QUANTILES, SPREAD[what]).max(1).mean()) if machines > 1 else 1.0


def evaluation(found: dict[str, float], config: Config) -> float:
    """Seconds in which one machine plays the games of an evaluation, all others waiting."""
    search = SEARCH_SLOWER * found["search"] / DEVICE_RATE
    step = 1 / (PER_MACHINE * ENVIRONMENT_STEPS) + search
    return EVALUATION_STEPS * config.eval.num_games * step


def iteration(found: dict[str, float], config: Config, devices: int, rate: float, at_home: bool):
    """Seconds of an iteration in which each device has the lanes and the batch that one has.

    Environment and learning wait for the slowest, once each; `at_home`: drawn rows are not
    exchanged.
    """
    steps = config.env.num_envs * config.rollout.length
    machines = max(devices // PER_MACHINE, 1)
    play = steps / ENVIRONMENT_STEPS
    search = SEARCH_SLOWER * steps * found["search"] / DEVICE_RATE
    updates = round(steps * config.learner.updates_per_env_step)
    size = config.learner.batch_size
    compute, gradients, rows = update(found, devices, size * devices, rate, size)
    exchanged = updates * (gradients + (0 if at_home else rows)) / 1e3
    # The cores of a machine share its disturbances, its devices are stepped together.
    play_waits = play * waiting(machines, "environment")
    learn_waits = updates * compute / 1e3 * waiting(machines, "learning")
    evaluated = evaluation(found, config) * steps * devices / config.eval.every_env_steps
    return play_waits, search, learn_waits, exchanged, evaluated


def between(rate: float) -> str:
    """Gbit/s between machines, for people."""
    return f"{rate * 8e-9:.0f}" if rate else "-"


def main() -> None:
    """Prints the tables."""
    config = parse(["--preset", "gpu"], EXPERIMENT).config
    found, size = count(config), config.learner.batch_size
    each = ", ".join(f"{found[name] / 1e6:.1f}" for name in ("f", "phi", "psi", "g"))
    sent = config.eval.num_games * EVALUATION_STEPS * found["stack"]
    played = 64 * config.env.num_envs * config.rollout.length
    counts = {
        "parameters": f"{found['parameters'] / 1e6:.2f} million, {found['gradients'] / 1e6:.1f} MB",
        "a stored row": f"{found['row']:,.0f} bytes, of which a frame is {found['frame']:,}",
        "the replay": f"{found['row'] * config.replay.capacity / 1e9:.1f} GB",
        "a batch": f"{found['batch'] / 1e6:.1f} MB",
        "h": f"{found['h'] / 1e6:.0f} million operations a row",
        "f, φ, ψ, g": f"{each} million",
        "a search": f"{found['search'] / 1e9:.2f} billion operations",
        "a window in an update": f"{found['window'] / 1e9:.1f} billion",
        "an evaluation": f"{sent / 1e9:.1f} GB to the device, {sent / TO_DEVICE:.2f} s; "
        f"played in {evaluation(found, config):.1f} s",
        "new rows": f"{found['row'] * played / 1e9:.1f} GB an iteration of 64 devices",
    }
    for name, text in counts.items():
        print(f"| {name} | {text} |")
    single = sum(update(found, 1, size, 1.0, size)) / size
    settings = [(1, size, 0.0), (8, size, 0.0), (8, 8 * size, 0.0)]
    settings += [(64, batch, rate) for rate in BETWEEN for batch in (size, 64 * size)]
    for devices, batch, rate in settings:
        parts = update(found, devices, batch, rate, size)
        gain = [single * batch / x for x in (sum(parts), sum(parts[:2]))]
        text = " | ".join(
            f"{x:.2f}" if x < 100 else f"{x:.0f}" for x in (*parts, sum(parts), *gain)
        )
        print(f"| {devices} | {between(rate)} | {batch:,} | {text} |")
    alone = sum(iteration(found, config, 1, 0.0, True))
    cases = [(1, 0.0, False)]
    cases += [(x, y, z) for x, y in ((8, 0.0), *((64, x) for x in BETWEEN)) for z in (False, True)]
    for devices, rate, at_home in cases:
        parts = iteration(found, config, devices, rate, at_home)
        text = " | ".join(f"{x:.2f}" for x in (*parts, sum(parts), devices * alone / sum(parts)))
        print(f"| {devices} | {between(rate)} | {'no' if at_home else 'yes'} | {text} |")


if __name__ == "__main__":
    main()
