"""The trials of whole libraries in the emulator: what is played where, and how it is judged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.analysis.verify.check import (
    Outcome,
    chance_seeds,
    choose_states,
    draw_pool,
    greedy_returns,
    play_from,
    returns,
    values_of,
)
from smz_jax.analysis.verify.foresight import Measure, Model, nearness, padded, where_applies
from smz_jax.analysis.verify.libraries import Library, Macro
from smz_jax.analysis.verify.states import Start
from smz_jax.analysis.verify.trial import Trial, Tried, is_paid
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator

RIVALS = 19


class Bench(NamedTuple):
    """All that trials need."""

    emulator: Emulator
    starts: Sequence[Start]  # in a random order
    agent: Agent  # the greedy policy
    model: Model  # the trained one, which also says what ends are worth
    config: Config
    states: int  # in which each macro is tried
    repeats: int  # runs of a macro from a state
    seed: int

    @property
    def runs(self) -> int:
        """Runs that differ: without sticky actions all are the same, and one says it all."""
        return self.repeats if self.config.env.sticky > 0 else 1


class Plan(NamedTuple):
    """Where the macros of a library are tried, and by which model they are judged."""

    library: Library
    model: Model
    embeddings: np.ndarray  # [S, ...] of the start states
    measure: Measure
    centre: np.ndarray  # [E] mean place of the start states
    applies: np.ndarray  # [M, S] bool
    tried: np.ndarray  # [M, S] bool
    drawn: np.ndarray  # [S] bool


def make_plan(bench: Bench, library: Library, model: Model) -> Plan:
    """Asks where the macros of a library apply, and chooses where to try them."""
    observations = np.stack([start.state.step.observation for start in bench.starts])
    embeddings = model.foresight.look(model.params, observations)
    measure = Measure(model.params, embeddings)
    places = np.asarray(model.foresight.place(measure, embeddings), np.float64)
    longest = bench.config.macro.max_length
    applies = where_applies(model, library.macros, embeddings, longest)
    # The same generator for each library: states are the same where that is possible.
    rng = np.random.default_rng((bench.seed, 1))
    tried, drawn = choose_states(applies, bench.states, rng)
    return Plan(library, model, embeddings, measure, places.mean(axis=0), applies, tried, drawn)


def try_libraries(
    bench: Bench,
    libraries: Sequence[tuple[Library, Model]],
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tried]:
    """Tries all macros of some libraries.

    Args:
        bench: all that trials need.
        libraries: each with the model that its claims are of.
        told: is called with the number of states that are done, and of all.

    Returns:
        The trials of each library, in their order.
    """
    plans = [make_plan(bench, library, model) for library, model in libraries]
    rng = np.random.default_rng((bench.seed, 2))
    found: list[list[Trial]] = [[] for _ in plans]
    for state, start in enumerate(bench.starts):
        wanted = [
            [macro for macro, here in zip(plan.library.macros, plan.tried[:, state], strict=True)
             if here]
            for plan in plans
        ]  # fmt: skip
        macros = dict.fromkeys(macro for some in wanted for macro in some)
        if macros:
            scene = _play_scene(bench, state, start, macros, rng)
            looked: dict[int, Mapping[Macro, np.ndarray]] = {}
            for plan, some, trials in zip(plans, wanted, found, strict=True):
                if some:
                    key = id(plan.model.params)  # plans of one model share its measure
                    looked[key] = looked.get(key) or _look_at_ends(bench, plan, scene)
                    trials += _judge_all(bench, plan, state, some, scene, looked[key])
        told(state + 1, len(bench.starts))
    return [
        Tried(tuple(sorted(trials, key=lambda x: (x.macro, x.state))), plan.applies)
        for plan, trials in zip(plans, found, strict=True)
    ]


class Scene(NamedTuple):
    """All that was played from one state."""

    macros: Mapping[Macro, list[Outcome]]  # `repeats` runs of each
    pools: Mapping[int, Mapping[Macro, list[Outcome]]]  # others of each length
    values: Mapping[Macro, np.ndarray]  # of the ends of a macro's runs, 0 where over
    greedy: list[list[float]]  # of each run that counts, as `greedy_returns`


def _play_scene(
    bench: Bench, state: int, start: Start, macros: Iterable[Macro], rng: np.random.Generator
) -> Scene:
    emulator, config = bench.emulator, bench.config
    seeds = chance_seeds(bench.seed, state, max(bench.repeats, 1))
    runs = seeds[: bench.runs]
    played = play_from(emulator, start, macros, seeds, config)
    pools = {
        length: play_from(
            emulator, start, draw_pool(length, emulator.spec.num_actions, rng), runs, config
        )
        for length in sorted({len(macro) for macro in macros})
    }
    longest = max(pools)
    greedy = [
        greedy_returns(emulator, start, seed, bench.agent, bench.model, config, longest)
        for seed in runs
    ]
    ends = [(macro, run) for macro in played for run in played[macro][: bench.runs]]
    worth = values_of(bench.model, np.stack([run.observation for _, run in ends]))
    worth *= [not run.over for _, run in ends]
    values = dict(zip(played, worth.reshape(len(played), bench.runs), strict=True))
    return Scene(played, pools, values, greedy)


def _look_at_ends(bench: Bench, plan: Plan, scene: Scene) -> dict[Macro, np.ndarray]:
    """Where a model sees the end of each run of each sequence, `[runs, E]`."""
    played = {x: runs for pool in (*scene.pools.values(), scene.macros) for x, runs in pool.items()}
    seen = np.stack([run.observation for runs in played.values() for run in runs[: bench.runs]])
    foresight = plan.model.foresight
    places = foresight.place(plan.measure, foresight.look(plan.model.params, seen))
    return dict(zip(played, places.reshape(len(played), bench.runs, -1), strict=True))


def _judge_all(
    bench: Bench,
    plan: Plan,
    state: int,
    macros: Sequence[Macro],
    scene: Scene,
    places: Mapping[Macro, np.ndarray],
) -> list[Trial]:
    """The trials of a library's macros from one state; `places` of `_look_at_ends`."""
    config, foresight = bench.config, plan.model.foresight
    sequences = list(dict.fromkeys([*macros, *(x for pool in scene.pools.values() for x in pool)]))
    rows = np.repeat(plan.embeddings[state][None], len(sequences), axis=0)
    foreseen = foresight.foresee(plan.measure, rows, padded(sequences, config.macro.max_length))
    ends = dict(zip(sequences, foreseen.end, strict=True))
    rewards = dict(zip(sequences, foreseen.reward.tolist(), strict=True))
    trials = []
    for macro in macros:
        index = plan.library.macros.index(macro)
        outcomes, pool = scene.macros[macro], scene.pools[len(macro)]
        same = len({x.ram for x in outcomes}) == 1 if len(outcomes) > 1 else None
        for run, place in enumerate(places[macro]):
            own = outcomes[run]
            rivals = rivals_of(macro, own.frame, {x: y[run].frame for x, y in pool.items()})
            returned = returns(own.rewards, scene.values[macro][run], config.learner.gamma)
            trials.append(
                Trial(
                    macro=index,
                    state=state,
                    applies=bool(plan.applies[index, state]),
                    drawn=bool(plan.drawn[state]),
                    cut=own.cut,
                    rivals=len(rivals),
                    nearest=is_nearest(ends[macro], [ends[x] for x in rivals], place, plan.centre),
                    told_apart=is_nearest(
                        place, [places[x][run] for x in rivals], ends[macro], plan.centre
                    ),
                    paid=bool(is_paid(rewards[macro], own.rewards.sum(), config)),
                    rewarded=bool(np.any(own.rewards != 0)),
                    lives=own.lost,
                    gain=returned - scene.greedy[run][len(macro)],
                    repeats=same,
                )
            )
    return trials


def rivals_of(macro: Macro, frame: bytes, others: Mapping[Macro, bytes]) -> list[Macro]:
    """The first `RIVALS` other sequences that really end in another frame."""
    return [x for x, end in others.items() if x != macro and end != frame][:RIVALS]


def is_nearest(
    own: np.ndarray, others: Sequence[np.ndarray], end: np.ndarray, centre: np.ndarray
) -> bool:
    """Whether `own [E]` is nearer to `end` than every other; a tie is not.

    Of foreseen ends and a real one, or of real ends and a foreseen one.
    """
    near = nearness(np.stack([own, *others]), end[None], centre)[:, 0]
    return bool(np.all(near[0] > near[1:]))
