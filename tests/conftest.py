"""Every test runs on eight CPU devices, with JAX's strictest settings.

Silent dtype or rank promotion and warnings are errors here: in numerical code each of
them is a bug more often than not.
"""

import os

# Most of the time goes into compiling programs that run once: compile them plainly.
# `XLA_FLAGS= make test` runs the same tests on fully optimized programs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
