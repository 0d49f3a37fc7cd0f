"""Two operating-system processes compute what one computes."""

import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import losses

ROWS, WIDTH = 16, 5

# What each process runs: it holds half of the rows, on four devices.
WORKER = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
import jaxcl
from jaxcl import losses

port, process, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(f"localhost:{port}", 2, process)
assert jax.process_count() == 2 and jax.device_count() == 8

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows = jax.NamedSharding(mesh, jax.P("data"))
arrays = np.load(out + "/arrays.npz")
half = slice(process * 8, process * 8 + 8)
x, y, valid = (
    jax.make_array_from_process_local_data(rows, arrays[k][half])
    for k in ("x", "y", "valid")
)

def total(loss, parameters, x, y, valid):
    values = loss(x, y, temperature=parameters[0], valid=valid)
    values = values * jnp.cos(jnp.arange(values.size)).reshape(values.shape)
    return parameters[1] * jaxcl.mean(values, valid)

def nt_xent(x, y, **options):
    return losses.nt_xent(jnp.stack([x, y], axis=1), **options)[:, 0]

for name, loss in {"clip": losses.clip, "nt_xent": nt_xent}.items():
    for exchange in ("gather", "ring"):
        def local(x, y, exchange=exchange, loss=loss, **options):
            return loss(x, y, tile=3, exchange=exchange, **options)
        run = jaxcl.sharded(local, mesh)
        differentiate = jax.jit(
            jax.value_and_grad(lambda *a, run=run: total(run, *a), (0, 1, 2))
        )
        value, (parameters, gx, gy) = differentiate(
            (jnp.float64(0.3), jnp.float64(2.0)), x, y, valid
        )
        def local_rows(g):
            shards = sorted(g.addressable_shards, key=lambda s: s.index[0].start)
            return np.concatenate([shard.data for shard in shards])
        np.savez(
            f"{out}/{name}-{exchange}-{process}.npz",
            value=value.addressable_data(0),
            temperature=parameters[0].addressable_data(0),
            factor=parameters[1].addressable_data(0),
            x=local_rows(gx),
            y=local_rows(gy),
        )
"""


def _run_two(directory):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), str(number), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number in range(2)
    ]
    for process in processes:
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            process.kill()
        assert process.returncode == 0, output.decode()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, x64):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, ROWS, WIDTH))
    valid = np.arange(ROWS) != 5
    np.savez(tmp_path / "arrays.npz", x=x, y=y, valid=valid)
    _run_two(tmp_path)

    def nt_xent(x, y, **options):
        return losses.nt_xent(jnp.stack([x, y], axis=1), **options)[:, 0]

    for name, loss in {"clip": losses.clip, "nt_xent": nt_xent}.items():

        def total(temperature, factor, x, y, loss=loss):
            values = loss(
                x, y, temperature=temperature, valid=jnp.array(valid), impl="reference"
            )
            return factor * (values * jnp.cos(jnp.arange(ROWS)))[valid].mean()

        arguments = [jnp.asarray(a) for a in (0.3, 2.0, x, y)]
        value, gradient = jax.value_and_grad(total, (0, 1, 2, 3))(*arguments)
        names = ("temperature", "factor", "x", "y")
        expected = dict(zip(names, gradient, strict=True))
        for exchange in ("gather", "ring"):
            halves = [np.load(tmp_path / f"{name}-{exchange}-{p}.npz") for p in (0, 1)]
            for half in halves:
                np.testing.assert_allclose(half["value"], value, rtol=1e-12)
                for key in ("temperature", "factor"):
                    np.testing.assert_allclose(half[key], expected[key], rtol=1e-11)
            for key in ("x", "y"):
                got = np.concatenate([half[key] for half in halves])
                np.testing.assert_allclose(got, expected[key], rtol=0, atol=1e-13)
