"""Compiled programs are kept on disk between test runs, as the experiments keep them."""

from smz_jax.launch import use_compile_cache

use_compile_cache()
