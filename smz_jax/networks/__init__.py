"""The model: six Flax modules as pure functions. Torsos are apart from heads."""

from smz_jax.networks.model import make_networks

__all__ = ["make_networks"]
