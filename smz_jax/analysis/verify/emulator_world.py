"""Macros in the real emulator: played from states that were reached, against what was foreseen.

From each state a macro is played, and other sequences of its length. The model unrolls all of them
open loop. The macro is nearest if the end that the model foresees of it is nearer to where it
really ended than the ends that it foresees of the 19 others. It is distinguished (`told_apart`) if
where it really ended is nearer to what the model foresees than where the others did. Others that
really end in the same frame are left out, and replaced while there are more. Under sticky actions
each run has chance of its own, and the others are played under the same chance.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.analysis.verify.foresight import Model, nearness
from smz_jax.analysis.verify.libraries import Macro
from smz_jax.analysis.verify.outcomes import Outcome, chance_seeds, draw_pool, play_from
from smz_jax.analysis.verify.starts import StartState, is_over, timestep_of
from smz_jax.analysis.verify.trial import Trial, is_paid
from smz_jax.analysis.verify.worlds import Choice, View, choose_states, make_view
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator

RIVALS = 19
"""Other sequences at most that a macro's end is compared with."""


class Scene(NamedTuple):
    """All that was played from one state."""

    macros: Mapping[Macro, list[Outcome]]  # `repeats` runs of each
    pools: Mapping[int, Mapping[Macro, list[Outcome]]]  # others of each length
    values: Mapping[Macro, np.ndarray]  # of the ends of a macro's runs, 0 where over
    greedy: list[list[float]]  # of each run that counts, as `returns`


@dataclass
class EmulatorWorld:
    """Trials from states of play that an emulator goes back to."""

    emulator: Emulator
    starts: Sequence[StartState]  # in a random order
    agent: Agent  # the greedy policy
    model: Model  # the trained one, which also says what ends are worth
    config: Config
    states: int  # in which each macro is tried
    repeats: int  # runs of a macro from a state
    seed: int
    rng: np.random.Generator = field(init=False)  # of the other sequences

    def __post_init__(self) -> None:
        """Begins the draws."""
        self.rng = np.random.default_rng((self.seed, 2))

    @property
    def num_starts(self) -> int:
        """S."""
        return len(self.starts)

    @property
    def runs(self) -> int:
        """Runs that differ: without sticky actions all are the same, and one says it all."""
        return self.repeats if self.config.env.sticky > 0 else 1

    def view(self, model: Model) -> View:
        """The start states as a model sees them."""
        return make_view(model, np.stack([x.state.step.observation for x in self.starts]))

    def choose(self, macros: Sequence[Macro], applies: np.ndarray) -> Choice:
        """As `choose_states`; the same for each library where that is possible."""
        del macros
        rng = np.random.default_rng((self.seed, 1))
        return Choice(applies, *choose_states(applies, self.states, rng))

    def play(self, state: int, macros: Iterable[Macro]) -> Scene:
        """Plays macros from a state, others of their lengths, and the greedy policy."""
        emulator, config, start = self.emulator, self.config, self.starts[state]
        seeds = chance_seeds(self.seed, state, max(self.repeats, 1))
        runs = seeds[: self.runs]
        played = play_from(emulator, start, macros, seeds, config)
        num_actions = emulator.spec.num_actions
        pools = {
            length: play_from(
                emulator, start, draw_pool(length, num_actions, self.rng), runs, config
            )
            for length in sorted({len(macro) for macro in played})
        }
        greedy = [self._greedy_returns(start, seed, max(pools)) for seed in runs]
        ends = [run for outcomes in played.values() for run in outcomes[: self.runs]]
        worth = self._values([run.observation for run in ends])
        worth *= [not run.over for run in ends]
        values = dict(zip(played, worth.reshape(len(played), self.runs), strict=True))
        return Scene(played, pools, values, greedy)

    def judge(
        self, view: View, state: int, macros: Sequence[Macro], scene: Scene
    ) -> dict[Macro, list[Trial]]:
        """A trial for each run of each macro that differs."""
        others = {macro: runs for pool in scene.pools.values() for macro, runs in pool.items()}
        played = others | {macro: scene.macros[macro] for macro in macros}
        places = self._places(view, played)
        foreseen = view.foresee(state, list(played), self.config.macro.max_length)

        def trial(macro: Macro, run: int) -> Trial:
            (end, reward), place = foreseen[macro], places[macro][run]
            outcomes, own = scene.macros[macro], scene.macros[macro][run]
            frames = {x: runs[run].frame for x, runs in scene.pools[len(macro)].items()}
            rivals = rivals_of(macro, own.frame, frames)
            foreseen_ends = [foreseen[x][0] for x in rivals]
            real_ends = [places[x][run] for x in rivals]
            returned = returns(own.rewards, scene.values[macro][run], self.config.learner.gamma)
            return Trial(
                state=state,
                cut=own.cut,
                rivals=len(rivals),
                nearest=is_nearest(end, foreseen_ends, place, view.centre),
                told_apart=is_nearest(place, real_ends, end, view.centre),
                paid=bool(is_paid(reward, own.rewards.sum(), self.config)),
                rewarded=bool(np.any(own.rewards != 0)),
                lives=own.lost,
                gain=returned - scene.greedy[run][len(macro)],
                repeats=len({x.ram for x in outcomes}) == 1 if len(outcomes) > 1 else None,
            )

        return {macro: [trial(macro, run) for run in range(self.runs)] for macro in macros}

    def _greedy_returns(self, start: StartState, seed: int, length: int) -> list[float]:
        """Returns of the greedy policy after 0..length actions, as `returns`; an end is worth 0."""
        config = self.config
        step = self.emulator.restore(start.state, seed=seed)
        observations, rewards, over = [step.observation], [], []
        for count in range(length):
            if over and over[-1]:
                break
            lives = step.lives
            step = self.emulator.step(int(self.agent(timestep_of(step), count)[0]))
            rewards.append(np.sign(step.reward) if config.env.clip_rewards else step.reward)
            observations.append(step.observation)
            over.append(is_over(step, lives, config))
        values = self._values(observations)
        values[1:] *= ~np.array(over, np.bool_)
        paid = np.array(rewards, np.float32)
        found = [returns(paid[:n], value, config.learner.gamma) for n, value in enumerate(values)]
        return found + found[-1:] * (length + 1 - len(found))

    def _values(self, observations: Sequence[np.ndarray]) -> np.ndarray:
        """What the trained model says that observations `[F, ...]` are worth, `[N]`."""
        foresight, params = self.model.foresight, self.model.params
        embedding = foresight.look(params, np.stack(observations))
        return np.asarray(foresight.value(params, embedding), np.float64)

    def _places(self, view: View, played: Mapping[Macro, list[Outcome]]) -> dict[Macro, Any]:
        """Where a model sees the end of each run of each sequence, `[runs, E]`."""
        seen = np.stack([run.observation for runs in played.values() for run in runs[: self.runs]])
        foresight = view.model.foresight
        places = foresight.place(view.measure, foresight.look(view.model.params, seen))
        return dict(zip(played, places.reshape(len(played), self.runs, -1), strict=True))


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


def returns(rewards: np.ndarray, value: float, gamma: float) -> float:
    """Discounted rewards, and the value after them: sum gamma^i r_i + gamma^n v."""
    discounts = gamma ** np.arange(len(rewards))
    return float(discounts @ rewards + gamma ** len(rewards) * value)
