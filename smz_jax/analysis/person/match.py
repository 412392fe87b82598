"""A person against a trained model, in the terminal: games of two players, line by line."""

from collections.abc import Callable

import numpy as np

from smz_jax.analysis.play.boards import Layout, layout_of
from smz_jax.analysis.play.moments import Player, open_player
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_two_players
from smz_jax.storage.export import Exported
from smz_jax.types import EnvSpec, Timestep

HELP = "type a move by its name; ? shows all that are allowed, q ends"
SHOWN = 12
"""Moves that are listed without being asked for."""
RESULTS = {1: "you win", 0: "a draw", -1: "you lose"}
Draw = Callable[[Timestep], str]


def play_match(
    model: Exported,
    request: PlayRequest,
    ask: Callable[[str], str] = input,
    tell: Callable[[str], None] = print,
) -> list[float]:
    """Plays games of a person against the model, greedily and with search.

    The person begins in the first game, the model in the second, and so on.

    Args:
        model: what was read of it.
        request: `games`, `seed` and `max_steps` are used.
        ask: gives a line for a prompt; raises EOFError where there are no more.
        tell: takes what is shown.

    Returns:
        The person's results of the games that came to their end.

    Raises:
        ConfigError: in one line, if the game is not one of two players.
    """
    env = model.config.env
    check_two_players(env, "against", "me")
    scores: list[float] = []
    with open_player(model, request.seed, request.max_steps) as player:
        spec = player.game.env.spec
        tell(f"{env.id} against {model.about['checkpoint']} of {model.config.experiment}; {HELP}")
        draw = make_drawing(env, spec)
        try:
            for game in range(request.games):
                score = _one_game(player, game, draw, layout_of(env), ask, tell)
                result = "cut off by the time limit, no result"
                if score is not None:
                    scores.append(score)
                    result = f"{RESULTS[int(np.sign(score))]}, {score:+g}"
                tell(f"game {game + 1}: {result}")
        except EOFError:
            tell("ended")
    return scores


def _one_game(
    player: Player,
    game: int,
    draw: Draw,
    layout: Layout | None,
    ask: Callable[[str], str],
    tell: Callable[[str], None],
) -> float | None:
    """The person's result of a game, None: it was cut off; raises EOFError where they end it."""
    env, seat = player.game.env, game % 2
    names, score, count = env.spec.action_names, 0.0, 0
    now = env.reset() if game == 0 else env.step(np.zeros(1, np.int32))
    begins = "you begin" if seat == 0 else "the model begins"
    yours = f", your pieces are {' '.join(layout.names(seat))}" if layout else ""
    tell(f"game {game + 1}: {begins}{yours}")
    while not now.game_over[0]:
        valid = np.flatnonzero(now.invalid_actions[0] == 0)
        if now.player[0] == seat:
            action = int(valid[0])
            if len(valid) > 1 or names[action] != "skip":
                tell(draw(now))
                action = _chosen([*names], valid, ask, tell)
            else:
                tell("you cannot move")
        else:
            action = int(player.agent(now, count)[0])
            decision = player.agent.decision
            assert decision is not None, "the agent has decided"
            value = float(decision.search.value[0])
            tell(f"the model plays {names[action]} (it expects {value:+.2f})")
        now, count = env.step(np.array([action], np.int32)), count + 1
        score += float(now.raw_reward[0])
    if now.truncated[0]:
        return None
    return score if seat == 0 else 0.0 - score


def _chosen(
    names: list[str],
    valid: np.ndarray,
    ask: Callable[[str], str],
    tell: Callable[[str], None],
) -> int:
    """The move that the person types, asked for until it is one that is allowed."""
    allowed = [names[x] for x in valid]
    shown = ", ".join(allowed[:SHOWN]) + ", ..." * (len(allowed) > SHOWN)
    while True:
        try:
            typed = ask(f"your move ({shown}): ").strip().lower()
        except UnicodeDecodeError:
            tell("what was typed is no text")
            continue
        if typed in ("q", "quit"):
            raise EOFError
        found = [x for x in valid if names[x].lower() == typed]
        if found:
            return int(found[0])
        tell("allowed: " + ", ".join(allowed) if typed == "?" else f"{typed!r} is not allowed here")


def make_drawing(env: EnvConfig, spec: EnvSpec) -> Draw:
    """The text of a game as who moves sees it."""
    if env.suite == "turns":
        return lambda now: pig_text(now.observation[0, -1])
    if env.id == "backgammon":
        return lambda now: backgammon_text(now.observation[0, -1])
    text = make_scene(env, spec, None).text
    return lambda now: str(text(now))


def pig_text(frame: np.ndarray) -> str:
    """Points of a frame of Pig."""
    own, other, turn = frame.reshape(3, -1).argmax(axis=1).tolist()
    return f"you {own}, the model {other} of {frame.size // 3}; in this turn {turn}"


def backgammon_text(frame: np.ndarray) -> str:
    """The board of a frame of backgammon: o are the mover's checkers, which go to point 1."""
    from smz_jax.envs.pgx.backgammon import POINTS, SIDES, counts_of

    counts = counts_of(frame[None])[0]
    points = {POINTS - i: int(x) for i, x in enumerate(counts[:POINTS])}

    def row(numbers: range) -> list[str]:
        held = [f"{abs(x)}{'o' if x > 0 else 'x'}" if (x := points[p]) else "." for p in numbers]
        return ["".join(f"{x:>4}" for x in line) for line in (numbers, held)]

    upper, lower = row(range(13, 25)), row(range(12, 0, -1))
    dice = [die + 1 for die in range(SIDES) for _ in range(counts[POINTS + 4 + die])]
    beside = f"bar: you {counts[24]}, the model {-counts[25]}; off: you {counts[26]}, "
    beside += f"the model {-counts[27]}; dice {' '.join(map(str, dice))}"
    return "\n".join([*upper, *lower[::-1], beside])
