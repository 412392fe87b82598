"""Stochastic MuZero's tree search on mctx: root and recurrent functions, selection, policies."""

from smz_jax.search.root_search import make_prior_policy, make_search

__all__ = ["make_prior_policy", "make_search"]
