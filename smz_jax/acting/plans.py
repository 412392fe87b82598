"""Macros that are played to their end, open loop: `rollout.execute_macros`.

A lane commits to a macro where the search at a root decided for the macro's first action and took
the macro's edge more often than the action's own. The rest of the macro is the lane's plan. At the
steps that follow searches are made as always, and what they say stands in the rows as targets; but
what is played is the plan, as long as

    the game goes on: no first observation, no end, no lost life
    its next action is valid
    the model is certain of it here: H(sigma) below `macro.play_threshold`

else it is dropped, and the search decides. Plans are of one rollout: the next one begins without.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smz_jax.config.settings import Config
from smz_jax.model import steps
from smz_jax.model.lanes import LANES, WHOLE, over_lanes, placed, shardings
from smz_jax.types import Array, Decision, Networks, Params, Timestep


def no_plans(lanes: int, longest: int, mesh: Mesh | None = None) -> Array:
    """Plans `[B, L]` int32 of lanes that follow none: all -1."""
    plans = np.full((lanes, longest), -1, np.int32)
    if mesh is None or mesh.size == 1:
        return jnp.asarray(plans)
    return placed(plans, shardings(plans, mesh, LANES), mesh)


def goes_on(now: Timestep) -> np.ndarray:
    """Where a step is one of the game and of the life that the action before it was chosen in."""
    return ~(now.is_first | now.terminated | now.truncated)


def make_follow(
    networks: Networks, config: Config, mesh: Mesh | None = None
) -> Callable[..., tuple[Decision, Array]]:
    """What is played of a decision where a lane has a plan, or begins one.

    Returns:
        `(params, plans [B, L], decision, invalid_actions [B, A], goes_on [B] bool) -> Decision,
        plans`: with the action that is played, its entropy, and `follows`; and what is left of the
        plans after it. The plans given are consumed; the decision's tree is one with macros.
    """

    def follow(
        params: Params, plans: Array, decision: Decision, invalid_actions: Array, lasts: Array
    ) -> tuple[Array, Array, Array, Array]:
        search, tree = decision.search, decision.search.tree
        planned = plans[:, 0]
        action = jnp.maximum(planned, 0)
        entropy = steps.decide(networks, params, decision.embedding, action).entropy

        def of(actions: Array, x: Array) -> Array:
            return jnp.take_along_axis(x, actions[:, None], axis=1)[:, 0]

        follows = (planned >= 0) & lasts & (of(action, invalid_actions) == 0)
        follows &= entropy < config.macro.play_threshold
        macro, visits = tree.embeddings.macro[:, 0], tree.children_visits[:, 0]
        by_macro = visits[:, invalid_actions.shape[1]]  # its edge is the one after the actions'
        begins = (macro[:, 0] == search.action) & (by_macro > of(search.action, visits))
        left = jnp.where(follows[:, None], plans, jnp.where(begins[:, None], macro, -1))
        left = jnp.pad(left[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        played = jnp.where(follows, planned, search.action)
        entropy = jnp.where(follows, entropy, decision.transition_entropy)
        return played, entropy, follows, left

    on_devices = over_lanes(follow, mesh, (WHOLE, *[LANES] * 4), LANES)
    run = jax.jit(on_devices, donate_argnums=1)

    def follow_plans(
        params: Params, plans: Array, decision: Decision, invalid_actions: Array, lasts: Array
    ) -> tuple[Decision, Array]:
        action, entropy, follows, left = run(params, plans, decision, invalid_actions, lasts)
        search = decision.search._replace(action=action)
        played = decision._replace(search=search, transition_entropy=entropy, follows=follows)
        return played, left

    return follow_plans
