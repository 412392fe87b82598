"""One more edge of a decision node: a macro, whose end the jump foresees in one call.

A node's macro is the one that gains most by the gain head, among those that a search may use and
that the head holds certain there. Selection has two stages. In the first the macro's statistics are
those of its first action a*, so that the rule of the search, its prior and its noise are over the
actions alone:

    N'(a*) = N(a*) + N(m),   Q'(a*) = (N(a*) Q(a*) + N(m) Q(m)) / N'(a*)

If it picks a*, the interior rule chooses between a* itself, of prior 1 - eta, and m, of eta
(OptionZero, 2025, has such stages). A jump whose return is not what the gain head foretold is
refused: nothing of it stays in the tree but that its node has no macro any more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from smz_jax.config.search import SearchConfig
from smz_jax.model.steps import CERTAIN_AT
from smz_jax.search.edges import Edges
from smz_jax.search.nodes import UNVISITED, NewNode, Nodes, take
from smz_jax.search.scores import Actions
from smz_jax.search.selection import root_qvalues
from smz_jax.types import Array, Networks, Params


def best_macro(
    networks: Networks, params: Params, state: Array, invalid_actions: Array | None = None
) -> tuple[Array, Array]:
    """The macro of decision nodes `state [B, D]`, and what it is foretold to gain there.

    Returns:
        Its actions `[B, L]` int32, padded with -1, all -1 where there is none; and `[B]` float32.
    """
    assert networks.gains is not None
    known = params["jump"]["gains"]
    gain, certain = networks.gains(params, state)
    fits = known["usable"] & (certain >= CERTAIN_AT)
    if invalid_actions is not None:
        fits &= invalid_actions[:, jnp.maximum(known["actions"][:, 0], 0)] == 0
    gain = jnp.where(fits, gain, -jnp.inf)
    slot = jnp.argmax(gain, axis=-1)
    best = jnp.take_along_axis(gain, slot[:, None], axis=1)[:, 0]
    exists = jnp.isfinite(best)
    actions = jnp.where(exists[:, None], known["actions"][slot], -1)
    return actions, jnp.where(exists, best, 0.0)


class MacroEdge(NamedTuple):
    """The macro of B decision nodes as its statistics are; where there is none, without visits."""

    first: Array  # [B] int32, its first action, -1: none
    visits: Array  # [B] int32
    qvalue: Array  # [B] float32


def look_at_macro(nodes: Nodes, node: Array, edges: Edges) -> MacroEdge | None:
    """The macros of `node [B]`; None of a search without."""
    if nodes.macro is None:
        return None
    child = take(nodes.child, node)[:, edges.num_actions]
    index = jnp.maximum(child, 0)
    qvalue = take(nodes.reward, index) + take(nodes.discount, index) * take(nodes.value, index)
    visits = jnp.where(child == UNVISITED, 0, take(nodes.visits, index))
    return MacroEdge(take(nodes.macro, node)[:, 0], visits, qvalue)


def fold(visits: Array, qvalues: Array, macro: MacroEdge) -> tuple[Array, Array]:
    """Visits and Q `[B, A]` of actions, with those of macros counted as their first actions'."""
    takes = jnp.arange(visits.shape[-1]) == macro.first[:, None]
    takes &= macro.visits[:, None] > 0
    both = visits + macro.visits[:, None]
    own = jnp.where(visits > 0, visits * qvalues, 0.0)
    mean = (own + (macro.visits * macro.qvalue)[:, None]) / jnp.maximum(both, 1)
    return jnp.where(takes, both, visits), jnp.where(takes, mean, qvalues)


def folded(actions: Actions, macro: MacroEdge) -> Actions:
    """What the first stage sees."""
    visits, qvalues = fold(actions.visits, actions.qvalues, macro)
    return actions._replace(visits=visits, qvalues=qvalues)


def make_second_stage(
    settings: SearchConfig, score: Callable[[Actions], Array]
) -> Callable[[Actions, Actions, Array, MacroEdge], Array]:
    """The second stage: whether the action of stage one is played by its macro.

    Args:
        settings: of the search.
        score: the rule below the root.

    Returns:
        `(actions, first stage's, action [B], macro) -> [B] bool`.
    """
    share, with_bounds = settings.macro_share, settings.interior == "puct"

    def second_stage(actions: Actions, seen: Actions, chosen: Array, macro: MacroEdge) -> Array:
        at = jnp.maximum(macro.first, 0)[:, None]

        def own(x: Array) -> Array:
            return jnp.take_along_axis(x, at, axis=1)[:, 0]

        probs = jnp.broadcast_to(jnp.float32([1 - share, share]), (len(at), 2))
        arms = {
            "prior_probs": probs,
            "prior_logits": jnp.log(probs),
            "visits": jnp.stack([own(actions.visits), macro.visits], axis=1),
            "qvalues": jnp.stack([own(actions.qvalues), macro.qvalue], axis=1),
        }
        if with_bounds:
            # The bounds of Q are those of stage one: its actions beside the two, of no prior.
            beside = seen._replace(prior_probs=jnp.zeros_like(seen.prior_probs))
            arms = {x: jnp.concatenate([getattr(beside, x), y], axis=1) for x, y in arms.items()}
        scores = score(actions._replace(node_visits=own(seen.visits) + 1, **arms))[:, -2:]
        return (chosen == macro.first) & (scores[:, 1] > scores[:, 0])

    return second_stage


def refuse(
    nodes: Nodes, parent: Array, takes_macro: Array, new: NewNode, agreement: float
) -> tuple[Nodes, Array]:
    """Takes the macro from each node whose jump does not return what was foretold of it.

    Args:
        nodes: the trees.
        parent: `[B]`, the node.
        takes_macro: `[B]` bool, `new` is where its jump ends.
        new: the new nodes.
        agreement: how far return and foretold gain may be apart.

    Returns:
        The trees, and where a jump is refused, `[B]` bool.
    """
    gained = new.reward + new.discount * new.value - take(nodes.raw_value, parent)
    apart = jnp.abs(gained - take(nodes.gain, parent)) > agreement
    refused = takes_macro & apart
    rows = jnp.arange(len(parent))
    macro = jnp.where(refused[:, None], -1, take(nodes.macro, parent))
    return nodes._replace(macro=nodes.macro.at[rows, parent].set(macro)), refused


def folded_root(tree: Any, edges: Edges) -> Any:
    """An `mctx.Tree` to decide by: macros' statistics at the root are their first actions'."""
    if tree.embeddings.macro is None:
        return tree
    rewards, discounts = tree.children_rewards[:, 0], tree.children_discounts[:, 0]
    visits, at = tree.children_visits[:, 0], edges.num_actions
    qvalues = root_qvalues(tree)
    macro = MacroEdge(tree.embeddings.macro[:, 0, 0], visits[:, at], qvalues[:, at])
    both, mean = fold(visits, qvalues, macro)
    changed = both != visits
    return tree.replace(
        children_visits=tree.children_visits.at[:, 0].set(both),
        children_rewards=tree.children_rewards.at[:, 0].set(jnp.where(changed, mean, rewards)),
        children_discounts=tree.children_discounts.at[:, 0].set(jnp.where(changed, 0.0, discounts)),
    )
