"""Verification of a trained model, from its folder to the document of what was found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from smz_jax.acting.agent import Agent, make_decide
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis import load
from smz_jax.analysis.requests import VerifyRequest, check_can_be_verified
from smz_jax.analysis.verify import document, foresight, tried_libraries
from smz_jax.analysis.verify.emulator_world import EmulatorWorld, same_actions
from smz_jax.analysis.verify.foresight import Learned, Model
from smz_jax.analysis.verify.grid_world import GridWorld, count_model_pairs
from smz_jax.analysis.verify.played import PlayedGames, play_emulator, play_vector
from smz_jax.analysis.verify.probe import MEMORY
from smz_jax.analysis.verify.tried_libraries import (
    CERTAIN,
    REAL,
    UNTRAINED,
    WITH_HEAD,
    Library,
)
from smz_jax.analysis.verify.verify_table import to_markdown, to_text
from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.envs import make_spec
from smz_jax.envs.atari.emulator import Emulator
from smz_jax.learning.learner import init_train_state
from smz_jax.macros.precondition.quality import slot_entries
from smz_jax.macros.precondition.updates import HeadState, applies
from smz_jax.model.networks import make_networks
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.documents.macro_form import check_fits
from smz_jax.storage.documents.verify_json import FILE, TABLE
from smz_jax.storage.export import Exported
from smz_jax.storage.files import atomic_write_text, write_json
from smz_jax.storage.pretrained import find_model, is_export, place_for
from smz_jax.types import Decision, EnvSpec, Params

GAMES_SEED = 5_000_003
"""Of the games: they are none of training or evaluation."""
GRID_GAMES = 4
"""Games of a grid world that count as one: they are short."""
LOOKS_KEPT = 4096
"""Observations of play that a linear probe is fitted on, at most."""
STATES_KEPT = 4
"""Times `states`: so many are kept of play, and those where a macro applies are chosen of them."""


def check_library_of(model: Exported) -> Mapping[str, Any]:
    """The library of a model; raises ConfigError in one line if it is none of this game."""
    check_can_be_verified(model.config)
    library = model.macros
    if library is None:
        works = "one with it: a run writes it at each checkpoint"
        raise ConfigError(f"the model's folder holds no macros.json; what would work is {works}")
    check_fits(library, model.about["action_names"], model.config.macro.max_length)
    return library


def verify_folder(request: VerifyRequest) -> None:
    """Verifies the model of a run or an export, prints the tables and writes them.

    Raises:
        ConfigError: in one line, if the folder has no such model, or as `verify`.
    """
    folder, kind = find_model(request.folder), request.checkpoint or "last"
    out = place_for(folder, request.out)
    store = CheckpointStore(folder)
    there = [x for x in ("last", "best") if is_export(folder) or store.steps(x)]
    if not there:
        works = "a run that has saved one: training does so at its end, and now and then before"
        raise ConfigError(f"{folder} holds no checkpoint; what would work is {works}")
    require(kind in there, "--checkpoint", kind, f"{there[0]} (the only one that the run has)")
    model = load.load_model(folder, kind)
    found = verify(model, request, lambda line: print(line, flush=True))
    found["code_perplexity"] = document.code_perplexity(folder)
    print(to_text(found))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / FILE, found)
        atomic_write_text(out / TABLE, to_markdown(found))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    print(f"wrote {out / FILE} and {out / TABLE}")


def verify(
    model: Exported, request: VerifyRequest, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Tries a model's macros, and controls, where they claim to hold.

    The request's folder is not read; `say` is called with each line on how far it is.

    Returns:
        The document that `smz_jax.storage.documents.verify_json` describes.

    Raises:
        ConfigError: in one line, if model and library do not fit the game, or the game has neither
            an emulator that can be cloned nor known rules.
    """
    library, config = check_library_of(model), model.config
    seed, chance = GAMES_SEED + request.seed, (GAMES_SEED, request.seed)
    emulator = Emulator(game_settings(config)) if config.env.suite == "atari" else None
    spec = make_spec(config.env) if emulator is None else emulator.spec
    load.check_layout(model, spec)
    trained, untrained, decide = make_models(model, spec)

    def play(who: str, params: Params, keep: int) -> PlayedGames:
        # Greedy games without chance are the same few again and again: nothing would be held out
        # of what macros are chosen by, and states would be few. So play is as in training.
        agent = Agent(decide, params, seed, temperature=config.rollout.temperature_end, noise=1.0)
        sizes: Any = {"max_steps": request.max_steps, "seed": seed}
        if emulator is not None:
            looks = LOOKS_KEPT if keep and config.env.id in MEMORY else 0
            sizes |= {"games": request.games, "keep": keep, "looks": looks}
            played = play_emulator(agent, emulator, config, **sizes)
        else:
            played = play_vector(agent, config, games=GRID_GAMES * request.games, **sizes)
        actions = sum(len(piece.actions) for piece in played.pieces)
        score = f"mean score {np.mean(played.scores):.2f}"
        say(f"{who}: {len(played.scores)} games, {actions:,} actions, {score}")
        return played

    played = play("agent", trained.params, STATES_KEPT * request.states)
    others = play("untrained network", untrained.params, 0)
    known, strange = (tried_libraries.split(games.pieces)[0] for games in (played, others))

    def libraries(owners_only: bool) -> list[Library]:
        settings, most, rng = config.macro, request.macros, np.random.default_rng(chance)
        real = tried_libraries.real_library(library, known, most, request.any_status, owners_only)
        lengths = tried_libraries.wanted_lengths(real, library, settings, most)
        plays = known, strange, len(library["action_names"])
        return [real, *tried_libraries.controls(real, lengths, *plays, settings, rng)]

    # Those that are tried own a precondition; those that save bits are the best of all sound ones.
    tried, saving = libraries(not request.any_status), libraries(False)
    if emulator is not None:
        sizes = {"states": request.states, "repeats": request.repeats, "seed": seed}
        greedy = Agent(decide, trained.params, seed)
        world = EmulatorWorld(
            emulator, played.starts, greedy, trained, config, looks=played.looks, **sizes
        )
        pairs, same = None, same_actions(emulator, played.starts, config, seed)
    else:
        world = GridWorld(config)
        pairs = count_model_pairs(trained, untrained, world, played.seen, seed)
        same = range(spec.num_actions)
    say(f"{sum(len(x.macros) for x in tried)} macros, {len(world.starts)} states")
    results = try_libraries(world, judged_by(tried, trained, untrained))
    owned = owned_slots(tried, trained)
    held_out = tried_libraries.split(played.pieces)[1]
    perfect = tried_libraries.perfect_macros(held_out, config.macro, world)
    found = document.Verification(
        results, saving, played, others.scores, pairs, owned, same, perfect
    )
    return document.to_document(model, request, found)


def make_models(model: Exported, spec: EnvSpec) -> tuple[Model, Model, Callable[..., Decision]]:
    """The trained and the untrained model, with the search that plays by the parameters of either.

    The untrained one has the parameters that the run began with.
    """
    config = model.config
    networks = make_networks(config.network, spec)
    learned = make_learned(load.fit_head(networks, spec, model), config)
    functions = foresight.make_foresight(networks, config, spec.num_actions)
    key = jax.random.split(jax.random.key(config.seed), 3)[0]
    first = init_train_state(networks, config, key).params
    trained = Model(functions, load.fit_params(networks, model.weights), learned)
    return trained, Model(functions, first), make_decide(networks, config, spec, policy="search")


def make_learned(head: HeadState | None, config: Config) -> Learned | None:
    """The head of a model, for NumPy rows; None: it has none, or nothing owns a slot."""
    entries = {} if head is None else slot_entries(head.slots, head.tally)
    chance = foresight.by_rows(jax.jit(lambda head, rows: applies(head, config.macro, rows)))
    owned = {actions: int(entry["slot"] or 0) for actions, entry in entries.items()}
    return Learned(owned, lambda embeddings: chance(head, embeddings)) if owned else None


def judged_by(
    libraries: Sequence[Library], trained: Model, untrained: Model
) -> list[tuple[Library, Model]]:
    """Each library with the model whose claims its macros are, under each condition there is.

    With a head the run's macros come twice, the second time without it, from the same states where
    they can be: so that what the head adds to the gate is seen. Controls come without it, and
    those of their sequences that own a slot come again with it.
    """
    models, plain = {REAL: trained, UNTRAINED: untrained}, trained._replace(learned=None)
    judged = [(library, models.get(library.name, plain)) for library in libraries]
    if trained.learned is None or libraries[0].name != REAL or not libraries[0].macros:
        return judged
    for library in libraries:
        rows = [row for row, x in enumerate(library.macros) if x in trained.learned.slots]
        if library.name not in models and rows:
            macros = tuple(library.macros[row] for row in rows)
            status = tuple(library.status[row] for row in rows)
            judged.append((Library(library.name + WITH_HEAD, macros, status), trained))
    judged.insert(1, (libraries[0]._replace(name=CERTAIN), plain))
    return judged


def owned_slots(libraries: Sequence[Library], trained: Model) -> int | None:
    """How many of the run's macros that are tried own a slot; None: there is no head."""
    learned = trained.learned
    return None if learned is None else sum(x in learned.slots for x in libraries[0].macros)


def try_libraries(
    world: EmulatorWorld | GridWorld, libraries: Sequence[tuple[Library, Model]]
) -> list[document.LibraryTrials]:
    """Tries all macros of some libraries, each with the model that its claims are of.

    The world is a game in which sequences can be played from chosen states.
    """
    # With and without a head the parameters are the same, and so is the view.
    views = {
        key: world.view(model) for key, model in {id(x.params): x for _, x in libraries}.items()
    }
    plans = []
    for library, model in libraries:
        among, longest = views[id(model.params)].measure.among, world.config.macro.max_length
        applied = foresight.where_applies(model, library.macros, among, longest)
        plans.append((library, id(model.params), *world.choose(library.macros, applied)))
    judged = []
    for state in range(len(world.starts)):
        macros = dict.fromkeys(
            library.macros[row]
            for library, _, _, tried, _ in plans
            for row in np.flatnonzero(tried[:, state])
        )
        judged.append(world.judge(views, state, list(macros)) if macros else {})
    found = []
    for library, key, applied, tried, drawn in plans:
        trials = [
            trial._replace(macro=row, applies=bool(applied[row, state]), drawn=bool(drawn[state]))
            for row, state in np.argwhere(tried).tolist()
            for trial in judged[state][key, library.macros[row]]
        ]
        found.append(document.LibraryTrials(library, trials, applied))
    return found
