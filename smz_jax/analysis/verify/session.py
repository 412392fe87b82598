"""Verification of a trained model, from its folder to the document of what was found."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax.acting.agent import Agent, make_agent
from smz_jax.acting.decide import make_decide
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.load import check_actions_of, fit_head, fit_params
from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify.controls import controls
from smz_jax.analysis.verify.document import Verification, to_document
from smz_jax.analysis.verify.emulator_world import EmulatorWorld
from smz_jax.analysis.verify.foresight import Learned, Model, by_rows, make_foresight
from smz_jax.analysis.verify.grid_world import make_world
from smz_jax.analysis.verify.libraries import (
    CERTAIN,
    REAL,
    UNTRAINED,
    Library,
    real_library,
    split,
    wanted_lengths,
)
from smz_jax.analysis.verify.outcomes import same_actions
from smz_jax.analysis.verify.pairs import count_model_pairs
from smz_jax.analysis.verify.starts import PlayedGames, play_emulator, play_vector
from smz_jax.analysis.verify.worlds import try_libraries
from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.envs import make_spec
from smz_jax.envs.atari.emulator import Emulator
from smz_jax.learning.learner import init_train_state
from smz_jax.macros.precondition.head import HeadState, applies
from smz_jax.model.networks import make_networks
from smz_jax.storage.documents.macros import check_fits
from smz_jax.storage.export import Exported
from smz_jax.types import EnvSpec, Params

GAMES_SEED = 5_000_003
"""Of the games: they are none of training or evaluation."""
GRID_GAMES = 4
"""Games of a grid world that count as one: they are short."""
STATES_KEPT = 4
"""Times `states`: so many are kept of play, and those where a macro applies are chosen of them."""


class Agents(NamedTuple):
    """The trained and the untrained player, with the model of each."""

    model: Model
    untrained: Model
    make: Callable[[Params, int], Agent]
    explore: Callable[[Params, int], Agent]  # plays as training does at its end


def check_library_of(model: Exported) -> Mapping[str, Any]:
    """The library of a model; raises ConfigError in one line if it is none of this game."""
    suite = model.config.env.suite
    allowed = "atari (tried in ale-py's emulator) or grid (against its exact rules)"
    require(suite in ("atari", "grid"), "env.suite", suite, allowed)
    if suite == "grid":
        stack = model.config.env.frame_stack
        require(stack == 1, "env.frame_stack", stack, "1, so that what is seen tells the state")
    library = model.macros
    if library is None:
        works = "one with it: a run writes it at each checkpoint"
        raise ConfigError(f"the model's folder holds no macros.json; what would work is {works}")
    check_fits(library, model.about["action_names"], model.config.macro.max_length)
    return library


def verify(
    model: Exported, request: VerifyRequest, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Tries a model's macros, and controls, where they claim to hold.

    Args:
        model: as `smz_jax.analysis.load.load_model` gives it.
        request: sizes; its folder is not read.
        say: called with what is going on, line by line.

    Returns:
        The document that `smz_jax.analysis.verify.document` describes.

    Raises:
        ConfigError: in one line, if model and library do not fit the game, or the game has neither
            an emulator that can be cloned nor known rules.
    """
    document, config = check_library_of(model), model.config
    seed = GAMES_SEED + request.seed
    emulator = Emulator(game_settings(config)) if config.env.suite == "atari" else None
    spec = make_spec(config.env) if emulator is None else emulator.spec
    check_actions_of(model, spec)
    agents = make_agents(model, spec)

    def play(who: str, params: Params, keep: int) -> PlayedGames:
        agent, sizes = agents.explore(params, seed), {"max_steps": request.max_steps, "seed": seed}
        if emulator is not None:
            played = play_emulator(agent, emulator, config, games=request.games, keep=keep, **sizes)
        else:
            played = play_vector(agent, config, games=GRID_GAMES * request.games, **sizes)
        actions = sum(len(piece.actions) for piece in played.pieces)
        score = f"mean score {np.mean(played.scores):.2f}"
        say(f"{who}: {len(played.scores)} games, {actions:,} actions, {score}")
        return played

    played = play("agent", agents.model.params, STATES_KEPT * request.states)
    untrained = play("untrained network", agents.untrained.params, 0)
    tried, saving = (
        make_libraries(document, played, untrained, config, request, owners_only=owners_only)
        for owners_only in (not request.any_status, False)
    )
    if emulator is not None:
        agent = agents.make(agents.model.params, seed)
        sizes = {"states": request.states, "repeats": request.repeats, "seed": seed}
        world = EmulatorWorld(emulator, played.starts, agent, agents.model, config, **sizes)
        pairs, same = None, same_actions(emulator, played.starts, config, seed)
    else:
        world = make_world(config)
        pairs = count_model_pairs(agents.model, agents.untrained, world, played.seen, seed)
        same = range(spec.num_actions)
    say(f"{sum(len(x.macros) for x in tried)} macros, {world.num_starts} states")
    found = Verification(
        results=try_libraries(world, judged_by(tried, agents)),
        saving=saving,
        played=played,
        untrained_scores=untrained.scores,
        pairs=pairs,
        owned=owned_slots(tried, agents),
        same=same,
    )
    return to_document(model, document, request, found)


def make_agents(model: Exported, spec: EnvSpec) -> Agents:
    """The players; the untrained one has the parameters that the run began with.

    Greedy games without chance are the same few again and again: nothing would be held out of what
    macros are chosen by, and states would be few. So play is as in training.
    """
    config = model.config
    networks = make_networks(config.network, spec)
    params = fit_params(networks, model.weights)
    learned = make_learned(fit_head(networks, spec, model), config)
    foresight = make_foresight(networks, config, spec.num_actions)
    key = jax.random.split(jax.random.key(config.seed), 3)[0]
    first = init_train_state(networks, config, key).params
    decide = make_decide(networks, config, spec, policy="search")
    temperature = config.rollout.temperature_end
    explore = functools.partial(Agent, decide, temperature=temperature, noise=1.0)
    trained, untrained = Model(foresight, params, learned), Model(foresight, first)
    return Agents(trained, untrained, make_agent(decide), explore)


def make_learned(head: HeadState | None, config: Config) -> Learned | None:
    """The head of a model, for NumPy rows; None: it has none, or nothing owns a slot."""
    if head is None:
        return None
    slots = jax.device_get(head.slots)
    owned = {
        tuple(int(action) for action in slots.actions[slot][: slots.length[slot]]): int(slot)
        for slot in np.flatnonzero(slots.length)
    }
    ask = by_rows(jax.jit(lambda head, embedding: applies(head, config.macro, embedding)))
    return Learned(owned, lambda embeddings: ask(head, embeddings)) if owned else None


def make_libraries(
    document: Mapping[str, Any],
    played: PlayedGames,
    untrained: PlayedGames,
    config: Config,
    request: VerifyRequest,
    *,
    owners_only: bool,
) -> list[Library]:
    """The run's macros and the controls, in the order of the report.

    Those that are tried own a precondition; those that save bits are the best of all sound ones.
    """
    known, others = split(played.pieces)[0], split(untrained.pieces)[0]
    real = real_library(document, known, request.macros, request.any_status, owners_only)
    lengths = wanted_lengths(real, document, config.macro, request.macros)
    rng = np.random.default_rng((GAMES_SEED, request.seed))
    actions = len(document["action_names"])
    return [real, *controls(real, lengths, known, others, actions, config.macro, rng)]


def judged_by(libraries: Sequence[Library], agents: Agents) -> list[tuple[Library, Model]]:
    """Each library with the model whose claims its macros are; only the run's own have a head.

    With a head they come twice, the second time without it, from the same states where they can
    be: so that what the head adds to the gate is seen.
    """
    models = {REAL: agents.model, UNTRAINED: agents.untrained}
    plain = agents.model._replace(learned=None)
    judged = [(library, models.get(library.name, plain)) for library in libraries]
    if agents.model.learned is not None and libraries[0].name == REAL and libraries[0].macros:
        judged.insert(1, (libraries[0]._replace(name=CERTAIN), plain))
    return judged


def owned_slots(libraries: Sequence[Library], agents: Agents) -> int | None:
    """How many of the run's macros that are tried own a slot; None: there is no head."""
    learned = agents.model.learned
    return None if learned is None else sum(x in learned.slots for x in libraries[0].macros)
