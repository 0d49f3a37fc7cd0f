"""Pallas kernels, compiled for TPUs that are not here."""

import time

import jax
import jax.numpy as jnp
import pytest

import jaxcl
from experiments.pods import topologies
from jaxcl import losses

pytestmark = pytest.mark.aot
ROWS, WIDTH = 4096, 512


def _compiled(loss, topology, chips, exchange):
    mesh = topologies.mesh(topology, None, chips)
    rows = jax.NamedSharding(mesh, jax.P("data"))
    shape = (ROWS, 2, WIDTH) if loss is losses.nt_xent else (ROWS, WIDTH)
    number = 1 if loss is losses.nt_xent else 2
    z = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=rows)] * number
    t = jax.ShapeDtypeStruct((), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))

    def run(z, t):
        of_shards = jaxcl.sharded(loss, mesh)
        return of_shards(*z, temperature=t, exchange=exchange).mean()

    return jax.jit(jax.value_and_grad(run, (0, 1))).lower(z, t).compile()


@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2", "v4:2x2x1"])
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("loss", [losses.nt_xent, losses.clip])
def test_one_kernel_for_each_pass_and_no_array_of_pairs(loss, topology, exchange):
    start = time.process_time()
    made = _compiled(loss, topology, 4, exchange)
    assert time.process_time() - start < 20  # seconds; about 4 to 8
    text = made.as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
    assert f"{ROWS // 4},{ROWS}]" not in text
    assert f"{ROWS // 2},{2 * ROWS}]" not in text
    # Gathered columns, their gradient, and what brings it home.
    columns = ROWS * WIDTH * (2 if loss is losses.nt_xent else 1)
    assert made.memory_analysis().temp_size_in_bytes < 16 * columns
