"""Games that a trained model plays for figures: what it did and thought, and where macros lie."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from smz_jax.analysis.play.moments import Moment, open_player, play
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view import tree_figure
from smz_jax.analysis.view.tree_figure import TreeDecision
from smz_jax.macros.compression.selection import parse
from smz_jax.storage.export import Exported

Actions = tuple[int, ...]


class Game(NamedTuple):
    """One game; n actions were played."""

    number: int  # from 1
    first: int  # steps of the environment before its first action
    actions: np.ndarray  # [n] int32
    score: np.ndarray  # [n + 1] float64, raw, before each action and at the end
    entropy: np.ndarray  # [n] float64, normalised H(sigma) of each action
    frames: np.ndarray  # [n + 1, *frame_shape] newest frame before each action and at the end
    ends: np.ndarray  # [n] bool, a life or the game ended with the action

    def is_certain(self, start: int, stop: int, threshold: float) -> bool:
        """Whether every transition of the steps from start to before stop was certain."""
        return bool(np.all(self.entropy[start:stop] < threshold))

    @property
    def pieces(self) -> list[tuple[int, np.ndarray]]:
        """The stretches that macros may lie in, with the step that each begins at."""
        cuts = [0, *(np.flatnonzero(self.ends) + 1).tolist(), len(self.actions)]
        return [(a, self.actions[a:b]) for a, b in itertools.pairwise(cuts) if b > a]


class WatchedGames(NamedTuple):
    """What was watched."""

    games: list[Game]
    decided: TreeDecision | None  # None: no tree held a certain transition
    pictures: list[bytes]  # PNGs, one for each step of the environment, as `Game.first` counts them

    def picture(self, step: int) -> Image.Image:
        """What the game looked like: its own screen, or a drawing of what the agent sees."""
        return Image.open(io.BytesIO(self.pictures[step])).convert("RGB")


class Span(NamedTuple):
    """A macro followed from its first action to its last."""

    start: int  # step of its first action
    actions: Actions

    @property
    def stop(self) -> int:
        """The step after its last action."""
        return self.start + len(self.actions)


def watch(model: Exported, library: Mapping[str, Any], request: MacrosRequest) -> WatchedGames:
    """Plays games as in a run's evaluations; says so, since it may take a minute.

    A tree that shows a sound macro of the library is preferred. The request gives the number of
    games, their seed, and the actions after which one is cut.

    Raises:
        ConfigError: in one line, if the model does not fit the game.
    """
    number = "1 game" if request.games == 1 else f"{request.games} games"
    print(f"playing {number} of at most {request.max_steps:,} steps", flush=True)
    known = {tuple(macro["actions"]) for macro in shown_macros(library)[0]}
    games, pictures, best, found = list[Game](), list[bytes](), (-1.0,), None
    settings, threshold = model.config.macro, model.config.macro.tree_threshold
    limit = min(request.max_steps, model.config.eval.max_steps)
    with open_player(model, request.seed, limit, screen=True) as player:
        spec, so_far = player.game.env.spec, list[Moment]()
        scene = make_scene(player.config.env, spec, player.game.screen)
        for moment in play(player, request.games):
            so_far.append(moment)
            scene.picture(moment.timestep).save(png := io.BytesIO(), "PNG", compress_level=1)
            pictures.append(png.getvalue())
            decision = player.agent.decision
            if moment.action is None:
                played, so_far = so_far[:-1], []
                entropies, moments = [x.transition_entropy for x in played], [*played, moment]
                game = Game(
                    number=moment.game,
                    first=len(pictures) - len(moments),
                    actions=np.array([x.action for x in played], np.int32),
                    score=np.array([x.score for x in moments], np.float64),
                    entropy=np.array(entropies, np.float64),
                    frames=np.stack([x.timestep.observation[0, -1] for x in moments]),
                    ends=np.array([x.timestep.terminated[0] for x in moments[1:]], np.bool_),
                )
                games.append(game)
            elif decision is not None and decision.search.tree is not None:
                tree = tree_figure.to_host(decision.search.tree, spec.num_actions)
                chain = tree_figure.best_chain(tree, threshold, settings.max_length, known)
                worth = tree_figure.worth(tree, chain, known, threshold) if chain else best
                if chain and worth > best:
                    best, found = worth, TreeDecision(moment.game, moment.step, tree, chain)
    return WatchedGames(games, found, pictures)


def shown_macros(library: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The macros that figures are about, best first, and what they are, for a title.

    The library by compression, then the others by their count; sound ones only, if there are.
    """
    sound = [macro for macro in library["macros"] if macro["status"] == "sound"]
    allowed = {tuple(macro["actions"]): macro for macro in sound or library["macros"]}
    phrases = (library.get("selection") or {}).get("phrases", ())
    chosen = [tuple(phrase["actions"]) for phrase in phrases]
    by_count = sorted(allowed, key=lambda actions: -allowed[actions]["count"])
    macros = [allowed[x] for x in dict.fromkeys([*chosen, *by_count]) if x in allowed]
    return macros, "sound macros" if sound else "macros, none of them sound"


def spans_of(game: Game, macros: Sequence[Actions], num_actions: int) -> list[Span]:
    """One rewriting of a game with macros: those that are followed, none over another.

    The macros are distinct ones of 2 to 8 actions; `num_actions` is A.
    """
    found, pieces = [], game.pieces
    parsed = parse([actions for _, actions in pieces], macros, num_actions)
    for (start, _), symbols in zip(pieces, parsed, strict=True):
        for symbol in symbols.tolist():
            if symbol >= num_actions:
                found.append(Span(start, tuple(macros[symbol - num_actions])))
            start = found[-1].stop if symbol >= num_actions else start + 1
    return found


def occurrences(game: Game, actions: Actions) -> list[int]:
    """Steps at which a macro's actions begin in a game, within one of its stretches."""
    found = re.finditer(b"(?=" + re.escape(bytes(actions)) + b")", bytes(game.actions.tolist()))
    starts = [match.start() for match in found]
    return [start for start in starts if not game.ends[start : start + len(actions) - 1].any()]
