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
from smz_jax.analysis.verify import emulated, grid
from smz_jax.analysis.verify.check import same_actions
from smz_jax.analysis.verify.controls import controls
from smz_jax.analysis.verify.foresight import Learned, Model, by_rows, make_foresight
from smz_jax.analysis.verify.found import Found, to_document
from smz_jax.analysis.verify.libraries import (
    CERTAIN,
    REAL,
    UNTRAINED,
    Library,
    Piece,
    real_library,
    split,
    wanted_lengths,
)
from smz_jax.analysis.verify.states import play_emulator, play_vector
from smz_jax.config.settings import Config, ConfigError, require
from smz_jax.envs import make_spec
from smz_jax.envs.atari.emulator import Emulator
from smz_jax.learning.learner import init_train_state
from smz_jax.macros.precondition.head import HeadState, applies
from smz_jax.model.networks import make_networks
from smz_jax.storage.documents.macros import check_fits
from smz_jax.storage.export import Exported
from smz_jax.types import EnvSpec, Networks, Params

GAMES_SEED = 5_000_003
"""Of the games: they are none of training or evaluation."""
GRID_GAMES = 4
"""Games of a grid world that count as one: they are short."""
STATES_KEPT = 4
"""Times `states`: so many are kept of play, and those where a macro applies are chosen of them."""


class Agents(NamedTuple):
    """The trained and the untrained player, with the model of each."""

    spec: EnvSpec
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
        say: is told what is going on, line by line.

    Returns:
        The document that `smz_jax.analysis.verify.document` describes.

    Raises:
        ConfigError: in one line, if model and library do not fit the game, or the game has neither
            an emulator that can be cloned nor known rules.
    """
    library, config = check_library_of(model), model.config
    emulator = Emulator(game_settings(config)) if config.env.suite == "atari" else None
    spec = make_spec(config.env) if emulator is None else emulator.spec
    check_actions_of(model, spec)
    networks = make_networks(config.network, spec)
    agents = make_agents(networks, config, spec, fit_params(networks, model.weights))
    learned = make_learned(fit_head(networks, spec, model), config)
    agents = agents._replace(model=agents.model._replace(learned=learned))
    if emulator is None:
        found = verify_grid(agents, library, config, request, say)
    else:
        found = verify_emulator(agents, emulator, library, config, request, say)
    return to_document(model, library, request, found)


def make_agents(networks: Networks, config: Config, spec: EnvSpec, params: Params) -> Agents:
    """The players; the untrained one has the parameters that the run began with.

    Greedy games without chance are the same few again and again: nothing would be held out of what
    macros are chosen by, and states would be few. So play that is looked at is as in training.
    """
    foresight = make_foresight(networks, config, spec.num_actions)
    key = jax.random.split(jax.random.key(config.seed), 3)[0]
    first = init_train_state(networks, config, key).params
    decide = make_decide(networks, config, spec, policy="search")
    explore = functools.partial(
        Agent, decide, temperature=config.rollout.temperature_end, noise=1.0
    )
    return Agents(
        spec, Model(foresight, params), Model(foresight, first), make_agent(decide), explore
    )


def make_learned(head: HeadState | None, config: Config) -> Learned | None:
    """The head of a model, asked for NumPy rows; None: it has none, or nothing owns a slot."""
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
    pieces: Sequence[Piece],
    untrained: Sequence[Piece],
    config: Config,
    request: VerifyRequest,
    *,
    tried: bool,
) -> list[Library]:
    """The run's macros and the controls, in the order of the report.

    Those that are tried own a precondition; those that save bits are the best of all sound ones.
    """
    known, _ = split(pieces)
    owners_only = tried and not request.any_status
    real = real_library(document, known, request.macros, request.any_status, owners_only)
    lengths = wanted_lengths(real, document, config.macro, request.macros)
    rng = np.random.default_rng((GAMES_SEED, request.seed))
    actions = len(document["action_names"])
    others, _ = split(untrained)
    return [real, *controls(real, lengths, known, others, actions, config.macro, rng)]


def _judged_by(libraries: Sequence[Library], agents: Agents) -> list[tuple[Library, Model]]:
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


def verify_emulator(
    agents: Agents,
    emulator: Emulator,
    library: Mapping[str, Any],
    config: Config,
    request: VerifyRequest,
    say: Callable[[str], None],
) -> Found:
    """Plays, and tries all libraries from states of the trained agent's games."""
    seed, played = GAMES_SEED + request.seed, []
    sizes = {"games": request.games, "max_steps": request.max_steps, "seed": seed}

    for model, keep in ((agents.model, STATES_KEPT * request.states), (agents.untrained, 0)):
        agent = agents.explore(model.params, seed)
        played.append(play_emulator(agent, emulator, config, keep=keep, **sizes))
        who = "untrained network" if played[1:] else "agent"
        actions = sum(len(piece.actions) for piece in played[-1].pieces)
        say(
            f"{who}: {request.games} games, {actions:,} actions, mean score {_mean(played[-1]):.2f}"
        )
    sources = (library, played[0].pieces, played[1].pieces, config, request)
    libraries = make_libraries(*sources, tried=True)
    bench = emulated.Bench(
        emulator=emulator,
        starts=played[0].starts,
        agent=agents.make(agents.model.params, seed),
        model=agents.model,
        config=config,
        states=request.states,
        repeats=request.repeats,
        seed=seed,
    )
    say(f"{sum(len(x.macros) for x in libraries)} macros, {len(played[0].starts)} states")
    judged = _judged_by(libraries, agents)
    return Found(
        libraries=[each for each, _ in judged],
        tried=emulated.try_libraries(bench, judged),
        saving=make_libraries(*sources, tried=False),
        pieces=played[0].pieces,
        scores=played[0].scores,
        untrained_scores=played[1].scores,
        pairs=None,
        owned=owned_slots(libraries, agents),
        same=same_actions(emulator, played[0].starts, config, seed),
    )


def _mean(played: Any) -> float:
    return float(np.mean(played.scores))


def verify_grid(
    agents: Agents,
    library: Mapping[str, Any],
    config: Config,
    request: VerifyRequest,
    say: Callable[[str], None],
) -> Found:
    """Plays, and holds all libraries against the rules, from every state that can be reached."""
    world, seed = grid.make_world(config), GAMES_SEED + request.seed
    games, steps = GRID_GAMES * request.games, min(request.max_steps, config.eval.max_steps)
    sizes = {"games": games, "max_steps": steps, "seed": seed}
    played = [
        play_vector(agents.explore(x.params, seed), config, **sizes)
        for x in (agents.model, agents.untrained)
    ]

    say(f"agent: {games} games, mean score {np.mean(played[0][1]):.2f}")
    sources = (library, played[0][0], played[1][0], config, request)
    libraries = make_libraries(*sources, tried=True)
    judged = _judged_by(libraries, agents)
    pairs = []
    reached = grid.states_of(world, played[0][2])
    for name, model, states in (
        ("trained network", agents.model, reached),
        ("trained network, all states", agents.model, world.starts),
        (UNTRAINED, agents.untrained, reached),
    ):
        counts, starts = grid.count_pairs(model, world, states, np.random.default_rng(seed))
        pairs.append(
            {
                "model": name,
                "starts": starts,
                **grid.pair_shares(counts),
                "lengths": [x._asdict() for x in counts],
            }
        )
    return Found(
        libraries=[each for each, _ in judged],
        tried=[grid.try_library(model, world, each) for each, model in judged],
        saving=make_libraries(*sources, tried=False),
        pieces=played[0][0],
        scores=played[0][1],
        untrained_scores=played[1][1],
        pairs=pairs,
        owned=owned_slots(libraries, agents),
        same=range(len(library["action_names"])),
    )
