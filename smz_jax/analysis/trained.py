"""A trained model in Python, as `smz_jax.load` gives it: it acts, searches, plays, is measured."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smz_jax.acting.agent import Agent, make_decide
from smz_jax.acting.evaluate import evaluate
from smz_jax.analysis.load import Functions, format_scores, make_functions
from smz_jax.analysis.look import Look, look
from smz_jax.analysis.play.moments import Moment, open_player, play
from smz_jax.analysis.play.showing import play_model
from smz_jax.analysis.requests import PlayRequest, VerifyRequest
from smz_jax.analysis.verify.session import verify
from smz_jax.config.check import require
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict, flatten, from_dict
from smz_jax.config.training import Opponents
from smz_jax.envs import count_players, make_spec
from smz_jax.macros.library.listing import Wanted, listed
from smz_jax.storage.export import Exported, write_export
from smz_jax.types import EnvSpec, Timestep


class Model:
    """A trained model and the game that it was trained on.

    Observations are the game's own, `[*frame_shape]` where one frame is seen at a time, else
    `[F, *frame_shape]` with the newest frame last; a batch of either `[B, ...]` is one too.
    `invalid_actions` `[A]` or `[B, A]` is 1 where an action is not allowed.

    Args:
        exported: what was read of it.

    Raises:
        ConfigError: in one line, if it does not fit the game as it is installed.
    """

    def __init__(self, exported: Exported) -> None:
        self.exported = exported
        """Settings, weights, scores and macros, as plain Python and NumPy."""
        self.functions: Functions = make_functions(exported, make_spec(exported.config.env))
        """Networks, parameters and the jitted decision."""

    def __repr__(self) -> str:
        about = self.exported.about
        numbers = sum(array.size for array in self.exported.weights.values())
        steps = "" if about["env_steps"] is None else f", {about['env_steps']:,} steps"
        return (
            f"Model({about['experiment']}, seed {about['seed']}, {about['checkpoint']}{steps}, "
            f"{numbers:,} parameters)\n{format_scores(self.exported.scores)}"
        ).rstrip()

    @property
    def config(self) -> Config:
        """All settings of its run."""
        return self.exported.config

    @property
    def spec(self) -> EnvSpec:
        """Its game: the names of the actions, the shape of what is seen."""
        return self.functions.spec

    @property
    def library(self) -> Mapping[str, Any]:
        """The macros with all that is known of them, as macros.json (`docs/macros_json.md`).

        Raises:
            ConfigError: in one line, if its run left none.
        """
        library = self.exported.macros
        require(library is not None, "macros", None, "those of a run, which writes them as it goes")
        assert library is not None
        return library

    def macros(self, **wanted: Any) -> list[dict[str, Any]]:
        """Macros, the most frequent first.

        Args:
            **wanted: as the flags of `experiments.macros`: `status="sound"`, `sort="held"`,
                `min_length=3`, `contains=("LEFT",)`, `no_repeats=True`, `top=10`.

        Raises:
            ConfigError: in one line, for a filter that does not fit.
        """
        return listed(self.library, Wanted(**wanted))

    def changed(self, settings: Mapping[str, Any]) -> "Model":
        """The same weights under other settings: `model.changed({"search.num_simulations": 64})`.

        Raises:
            ConfigError: in one line, if a setting is wrong, or the weights do not fit it.
        """
        config = from_dict({**flat_dict(self.config), **flatten(settings, "the settings")})
        return Model(self.exported._replace(config=config))

    def act(self, observation: Any, invalid_actions: Any = None, *, seed: int = 0) -> Any:
        """What it plays, greedily, by a search without noise.

        Returns:
            The action's number, an int; of a batch an int32 array `[B]`.
        """
        timestep, is_batch = self._seen(observation, invalid_actions)
        actions = Agent(self.functions.decide, self.functions.params, seed)(timestep, 0)
        return actions if is_batch else int(actions[0])

    def search(self, observation: Any, invalid_actions: Any = None, *, seed: int = 0) -> Look:
        """Searches one observation: visits, values and chance of each action, and the tree."""
        timestep, is_batch = self._seen(observation, invalid_actions)
        require(not is_batch, "observation", np.shape(observation), "one, not a batch")
        return look(self.functions, timestep, seed, self.exported.macros)

    def play(
        self, games: int = 1, *, seed: int | None = None, max_steps: int | None = None
    ) -> Iterator[Moment]:
        """Plays whole games greedily, move by move; `model.search(moment.timestep.observation[0])`.

        Yields:
            A `Moment` for every action, before it is played, and one for the end of each game.
        """
        opened = open_player(self.exported, seed, max_steps, functions=self.functions)
        with opened as player:
            yield from play(player, games, self.exported.macros)

    def film(self, out: str | Path, **wishes: Any) -> Path:
        """Plays and writes a gif or an mp4, as `experiments.play --out`; prints the scores.

        Args:
            out: a .gif or .mp4.
            **wishes: as its flags: `games=1`, `seed=7`, `max_steps=300`, `fps=10`.

        Raises:
            ConfigError: in one line, if a wish or the file cannot be used.
        """
        request = PlayRequest(folder=Path(), out=Path(out), **wishes)
        play_model(self.exported, request, functions=self.functions)
        return Path(out)

    def evaluate(
        self,
        games: int | None = None,
        *,
        seed: int | None = None,
        noise: float | None = None,
        sticky_prob: float | None = None,
        opponent: Opponents | None = None,
    ) -> dict[str, Any]:
        """Scores over whole games, raw, as a run's final evaluation measures them (`eval.policy`).

        Args:
            games: at least so many, as many in each lane; unset: as many as the run.
            seed: of the games and of the search's noise; unset: that of the run's final evaluation.
            noise: scale of the noise at the root; 0 is greedy; unset: `eval.noise` of the run.
            sticky_prob: Atari: chance that the last action is repeated; unset: as in training.
            opponent: of two players: who plays the other side; unset: `eval.opponent` of the run.

        Returns:
            `mean`, `mean_low`, `mean_high` (95 % bootstrap), `median`, `iqm`, `scores` and more:
            `smz_jax.acting.evaluate.summarise_games`.

        Raises:
            ConfigError: in one line, if the games fail again and again.
        """
        config, noise = self.config, self.config.eval.noise if noise is None else noise
        games = config.eval.num_games if games is None else games
        require(games >= 1, "games", games, "at least 1")
        players = count_players(config.env)
        rounds = -(-games // (config.eval.num_envs * players))
        lanes = -(-games // (rounds * players))
        sizes = {"num_envs": lanes, "opponent": opponent or config.eval.opponent}
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, **sizes))
        seed = FINAL_SEED + config.seed if seed is None else seed
        _, spec, networks, params, decide = self.functions
        if config.eval.policy != "search":
            decide = make_decide(networks, config, spec, policy=config.eval.policy)
        # The noise, too, follows from the seed of the games.
        agent = Agent(decide, params, seed if noise else config.seed, noise=noise)
        found = evaluate(agent, config, seed=seed, num_games=games, sticky_prob=sticky_prob)
        assert found is not None, "nothing stops it"
        return found

    def verify(self, **sizes: Any) -> dict[str, Any]:
        """Tries its macros, beside controls, where they claim to hold: `experiments.verify`.

        Args:
            **sizes: as its flags: `macros=8`, `states=4`, `games=4`, `any_status=True`.

        Returns:
            What verify.json holds; `smz_jax.analysis.verify.verify_table.to_text` makes a table.

        Raises:
            ConfigError: in one line, if the game is neither Atari nor the grid world.
        """
        return verify(self.exported, VerifyRequest(folder=Path(), **sizes))

    def export(self, out: str | Path) -> Path:
        """Writes it as one small folder with checksums, as `experiments.export`.

        Raises:
            ConfigError: in one line, if `out` is no new or empty folder.
            OSError: if it cannot be written.
        """
        return write_export(Path(out), self.exported)

    def _seen(self, observation: Any, invalid_actions: Any) -> tuple[Timestep, bool]:
        """What the agent takes, and whether it is a batch; raises ConfigError for other shapes."""
        spec = self.spec
        seen = np.asarray(observation, spec.frame_dtype)
        own, dims = spec.observation_shape, len(spec.frame_shape)
        if own[0] == 1 and seen.ndim >= dims and seen.shape[-dims - 1 :] != own:
            seen = np.expand_dims(seen, -dims - 1)
        is_batch = seen.ndim > len(own)
        seen = seen if is_batch else seen[None]
        fits, allowed = seen.shape[1:] == own and len(seen) > 0, f"{own}, or a batch of these"
        require(fits, "observation.shape", np.shape(observation), allowed)
        lanes = len(seen)
        invalid = np.zeros(spec.num_options) if invalid_actions is None else invalid_actions
        invalid = np.broadcast_to(np.asarray(invalid, np.float32), (lanes, spec.num_options))
        none, false = np.zeros(lanes, np.float32), np.zeros(lanes, np.bool_)
        flags = false, false, false, false
        timestep = Timestep(seen, none, none, *flags, invalid, np.zeros(lanes, np.int32))
        return timestep, is_batch
