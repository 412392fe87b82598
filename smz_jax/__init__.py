"""Stochastic MuZero with learned temporal abstractions (macros), in JAX."""
