"""One observation searched: what the tree says at its root, and the chance that the model sees."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from smz_jax.acting.agent import Agent
from smz_jax.analysis.load import Functions
from smz_jax.analysis.view import tree_figure
from smz_jax.analysis.view.tree_figure import SmallTree
from smz_jax.config.check import require
from smz_jax.model import steps
from smz_jax.types import Array, Networks, Params, Space, Timestep


class ActionNames(Sequence[str]):
    """Names of all actions of a space, made when they are asked for: there may be millions."""

    def __init__(self, space: Space) -> None:
        """Takes the space."""
        self._space = space

    def __len__(self) -> int:
        """A."""
        return self._space.size

    def __getitem__(self, action: Any) -> Any:
        """Of an action."""
        return self._space.name(range(len(self))[action])


class Look(NamedTuple):
    """A searched observation; E edges of the root, which are all A actions or those it drew.

    Values are in units of the rewards learned from, of who moves where two play.
    """

    action: int  # that is played
    value: float  # of the root, searched
    names: tuple[str, ...]  # [E] of the actions
    actions: np.ndarray  # [E] int32
    visits: np.ndarray  # [E] int32, simulations that went that way
    values: np.ndarray  # [E] float32, searched; NaN: not visited
    prior: np.ndarray  # [E] float32, the policy head's
    weights: np.ndarray  # [E] float32, of the policy that the search improved; where an action has
    #                      several parts, shares of the visits
    chance: np.ndarray  # [E, C] float32, probability of each chance code after the action
    entropy: np.ndarray  # [E] float32, of these, from 0 (certain) to 1 (no idea)
    tree: SmallTree  # on the host, see `figure`
    library: Mapping[str, Any]  # as macros.json: names, thresholds, and the known macros

    def __str__(self) -> str:
        """A line for each action, the most visited first."""
        wide = max(6, *(len(name) for name in self.names))
        lines = [f"{'action':{wide}}  visits    value    prior   weight  entropy"]
        for k in np.lexsort((np.arange(len(self.names)), -self.visits)):
            value = "        -" if np.isnan(self.values[k]) else f"{self.values[k]:9.3f}"
            numbers = f"{self.prior[k]:9.3f}{self.weights[k]:9.3f}{self.entropy[k]:9.3f}"
            mark = "  played" if self.actions[k] == self.action else ""
            lines.append(f"{self.names[k]:{wide}}{self.visits[k]:8d}{value}{numbers}{mark}")
        return "\n".join([*lines, f"value of the root: {self.value:.3f}"])

    def _repr_png_(self) -> bytes:
        """A notebook shows the tree."""
        stream = io.BytesIO()
        self.figure().savefig(stream, format="png", dpi=80)
        return stream.getvalue()

    def figure(self, most: int = tree_figure.NODES) -> Figure:
        """The tree, with the chain of certain transitions that shows a macro best, if any.

        At most so many nodes are drawn.
        """
        library, settings = self.library, self.library["config"]
        threshold, longest = settings["tree_threshold"], settings["max_length"]
        known = {tuple(macro["actions"]) for macro in library["macros"]}
        chain = tree_figure.best_chain(self.tree, threshold, longest, known)
        decided = tree_figure.TreeDecision(None, 0, self.tree, chain or tree_figure.NO_CHAIN)
        return tree_figure.tree_figure(decided, library, tree_threshold=threshold, most=most)


def look(
    functions: Functions, timestep: Timestep, seed: int, library: Mapping[str, Any] | None = None
) -> Look:
    """Searches the observation of a timestep of one lane, greedily and without noise.

    Macros of the library are looked for in the tree.
    """
    config, spec, networks, params, decide = functions
    agent = Agent(decide, params, seed)
    agent(timestep, 0)
    assert agent.decision is not None, "the agent has decided"
    found, embedding = agent.decision.search, agent.decision.embedding
    require(found.tree is not None, "search.num_simulations", 0, "above 0, to have a tree")
    tree = jax.device_get(found.tree)
    count = len(tree.root_invalid_actions[0])
    visits, actions = tree.children_visits[0, 0, :count], np.arange(count, dtype=np.int32)
    named = tree.embeddings.action
    edges = actions
    if named is not None:  # drawn: those that were visited are known
        edges = np.flatnonzero(visits > 0)
        actions = named[0, tree.children_index[0, 0, edges]].astype(np.int32)
    at = (0, 0, edges)
    values = tree.children_rewards[at] + tree.children_discounts[at] * tree.children_values[at]
    logits = tree.children_prior_logits[0, 0, :count]
    prior = np.exp(logits - logits.max())
    chance = np.asarray(_chances(networks, params, embedding, jnp.asarray(actions)))
    weights = visits[edges] / max(visits[edges].sum(), 1)
    if len(spec.action_space.sizes) == 1:
        weights = np.asarray(found.action_weights[0])[actions]
    known: Mapping[str, Any] = library or {"config": dataclasses.asdict(config.macro), "macros": []}
    return Look(
        action=int(found.action[0]),
        value=float(found.value[0]),
        names=tuple(spec.action_space.name(int(x)) for x in actions),
        actions=actions,
        visits=visits[edges],
        values=np.where(visits[edges] > 0, values, np.nan).astype(np.float32),
        prior=(prior / prior.sum())[edges],
        weights=weights,
        chance=chance,
        entropy=np.asarray(steps.normalised_entropy(jnp.log(chance))),
        tree=tree_figure.to_host(found.tree, spec.num_actions),
        library={**known, "action_names": ActionNames(spec.action_space)},
    )


@partial(jax.jit, static_argnums=0)
def _chances(networks: Networks, params: Params, embedding: Array, actions: Array) -> Array:
    """Probabilities `[E, C]` of the codes after each action from one embedding `[1, D]`."""
    state = jnp.repeat(embedding, len(actions), axis=0)
    return jax.nn.softmax(steps.decide(networks, params, state, actions).logits)
