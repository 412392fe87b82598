"""The trials of whole libraries: in which states each macro is tried, and how its model sees them.

A world is a game in which sequences can be played from chosen states: an emulator, or known rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from smz_jax.analysis.verify.foresight import Measure, Model, padded, where_applies
from smz_jax.analysis.verify.libraries import Library, Macro
from smz_jax.analysis.verify.trial import LibraryTrials, Trial
from smz_jax.config.settings import Config


class View(NamedTuple):
    """How one model sees the states of a world."""

    model: Model
    embeddings: np.ndarray  # [S, ...] of the start states
    measure: Measure
    places: np.ndarray  # [N, E] of known states, in the space where ends are compared
    centre: np.ndarray  # [E] their mean

    def foresee(self, state: int, sequences: Sequence[Macro], length: int) -> dict[Macro, Any]:
        """Foreseen end `[E]` and sum of rewards of each sequence from a start state.

        Args:
            state: index of the start state.
            sequences: distinct ones.
            length: of the longest sequence in any call, so that all have one shape.
        """
        rows = np.repeat(self.embeddings[state][None], len(sequences), axis=0)
        foreseen = self.model.foresight.foresee(self.measure, rows, padded(sequences, length))
        pairs = zip(foreseen.end, foreseen.reward.tolist(), strict=True)
        return dict(zip(sequences, pairs, strict=True))


class Choice(NamedTuple):
    """In which states the macros of a library are tried."""

    applies: np.ndarray  # [M, S] bool
    tried: np.ndarray  # [M, S] bool
    drawn: np.ndarray  # [S] bool, the states chosen whether or not a macro applies there


class World(Protocol):
    """What a game must offer for trials; S start states."""

    @property
    def config(self) -> Config:
        """The run's settings."""
        ...

    @property
    def num_starts(self) -> int:
        """S."""
        ...

    def view(self, model: Model) -> View:
        """The states as a model sees them."""
        ...

    def choose(self, macros: Sequence[Macro], applies: np.ndarray) -> Choice:
        """Start states for each macro; `applies [M, S]` is where its precondition holds."""
        ...

    def play(self, state: int, macros: Iterable[Macro]) -> Any:
        """Plays macros from a start state; what came of them is handed to `judge`."""
        ...

    def judge(
        self, view: View, state: int, macros: Sequence[Macro], scene: Any
    ) -> Mapping[Macro, list[Trial]]:
        """The trials of macros that were played in `scene`, against what a model foresees."""
        ...


def make_view(model: Model, starts: np.ndarray, known: np.ndarray | None = None) -> View:
    """The view of a model.

    Args:
        model: the model.
        starts: `[S, F, ...]` observations of the start states.
        known: `[N, F, ...]` of the states whose places are kept; None: the start states.
    """
    look = model.foresight.look
    embeddings = look(model.params, starts)
    measure = Measure(model.params, embeddings)
    seen = embeddings if known is None else look(model.params, known)
    places = np.asarray(model.foresight.place(measure, seen), np.float64)
    return View(model, embeddings, measure, places, places.mean(axis=0))


class _Plan(NamedTuple):
    library: Library
    params: int  # identity of the model's parameters: with and without a head they are the same
    choice: Choice
    trials: list[Trial]


def try_libraries(world: World, libraries: Sequence[tuple[Library, Model]]) -> list[LibraryTrials]:
    """Tries all macros of some libraries.

    Args:
        world: where.
        libraries: each with the model that its claims are of.

    Returns:
        The trials of each library, by macro and state.
    """
    views = {id(model.params): model for _, model in libraries}
    views = {key: world.view(model) for key, model in views.items()}
    plans = []
    for library, model in libraries:
        view, length = views[id(model.params)], world.config.macro.max_length
        applies = where_applies(model, library.macros, view.embeddings, length)
        plans.append(_Plan(library, id(model.params), world.choose(library.macros, applies), []))
    for state in range(world.num_starts):
        here = [(plan, np.flatnonzero(plan.choice.tried[:, state]).tolist()) for plan in plans]
        macros = list(dict.fromkeys(x.library.macros[row] for x, rows in here for row in rows))
        if not macros:
            continue
        scene = world.play(state, macros)
        judged = {key: world.judge(view, state, macros, scene) for key, view in views.items()}
        for plan, rows in here:
            choice = plan.choice
            plan.trials.extend(
                trial._replace(
                    macro=row,
                    applies=bool(choice.applies[row, state]),
                    drawn=bool(choice.drawn[state]),
                )
                for row in rows
                for trial in judged[plan.params][plan.library.macros[row]]
            )
    return [
        LibraryTrials(
            plan.library,
            tuple(sorted(plan.trials, key=lambda x: (x.macro, x.state))),
            plan.choice.applies,
        )
        for plan in plans
    ]


def choose_states(
    applies: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which states each macro is tried in.

    Args:
        applies: `[M, S]` bool; the states are in a random order.
        count: states wanted.
        rng: chooses among states in which a macro applies.

    Returns:
        `[M, S]` bool: the first `count` states, the same for all, or `count` in which it applies;
        and `[S]` bool, those first ones.
    """
    drawn = np.arange(applies.shape[1]) < count
    tried = np.broadcast_to(drawn, applies.shape).copy()
    for row, here in zip(tried, applies, strict=True):
        more = count - int((here & drawn).sum())
        others = rng.permutation(np.flatnonzero(here & ~drawn))
        row[others[: max(more, 0)]] = True
    return tried, drawn
