"""The primitive itself: what no loss of today asks of it, and what it promises."""

import dataclasses
import functools
import os
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import graphs, kernels, losses, pairwise
from tests.losses import cases

LABELS = jnp.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 0])
N = LABELS.size
Z = cases.random(N, 6)
Y = cases.random(N, 6, seed=1)


def _softplus(pair, bias):
    return jax.nn.softplus(pair.logits + bias)


def _weighted(pair):
    return pair.weight * pair.logits


def _extra(pair):
    return pair.anchor * pair.logits - 0.5 * pair.candidate**2


REDUCTIONS = (
    pairwise.Reduction("logsumexp", graphs.negatives),
    pairwise.Reduction("logsumexp", graphs.negatives, over="anchors"),
    pairwise.Reduction("mean", graphs.positives),
    pairwise.Reduction("sum", graphs.others, _softplus, (0.3,)),
    pairwise.Reduction("mean", graphs.others, over="anchors"),
)


def _total(options, reductions, itself, z, y, kernel, extra=(), weight=None):
    valid = jnp.arange(N) != 4
    anchors = graphs.labelled(z, LABELS, valid)._replace(extra=extra)
    candidates = graphs.labelled(y, LABELS, valid)._replace(extra=extra)
    candidates = candidates._replace(index=candidates.index + N)
    results = pairwise.reduce_pairs(
        anchors,
        None if itself else candidates,
        kernel=kernel,
        reductions=reductions,
        pair_weight=weight,
        **options,
    )
    weights = jnp.cos(jnp.arange(len(results) * N, dtype=z.dtype)).reshape(-1, N)
    return sum(
        jnp.where(jnp.isfinite(r), r * w, 0).sum()
        for r, w in zip(results, weights, strict=True)
    )


def _assert_agree(function, *arguments):
    results = [
        jax.jit(jax.value_and_grad(functools.partial(function, options), (0, 1, 2, 3)))
        for options in ({"impl": "reference"}, {"tile": 4})
    ]
    want, got = (run(*arguments) for run in results)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * max(np.abs(a).max(), 1))


@pytest.mark.parametrize("itself", [True, False])
def test_reductions_of_both_directions_equal_the_reference(itself, x64):
    def total(options, z, y, kernel, bias):
        asked = list(REDUCTIONS)
        asked[3] = dataclasses.replace(asked[3], parameters=(bias,))
        return _total(options, tuple(asked), itself, z, y, kernel)

    kernel = kernels.kernel_sum(kernels.gaussian(0.5), kernels.dot(2.0))
    _assert_agree(total, jnp.asarray(Z), jnp.asarray(Y), kernel, jnp.float64(0.3))


@pytest.mark.parametrize("itself", [True, False])
def test_scores_may_read_extras_and_their_gradient_is_right(itself, x64):
    asked = (
        pairwise.Reduction("logsumexp", graphs.others, _extra),
        pairwise.Reduction("sum", graphs.negatives, _extra, over="anchors"),
    )

    def total(options, z, y, kernel, extra):
        return _total(options, asked, itself, z, y, kernel, extra)

    extra = jnp.asarray(cases.random(N, seed=2))
    _assert_agree(total, jnp.asarray(Z), jnp.asarray(Y), kernels.cosine(0.5), extra)


@pytest.mark.parametrize("itself", [True, False])
def test_scores_may_read_a_dense_weight(itself, x64):
    asked = (pairwise.Reduction("sum", graphs.others, _weighted),)
    weight = jnp.asarray(np.abs(cases.random(N, N, seed=3)))

    def total(options, z, y, kernel, shift):
        return shift * _total(options, asked, itself, z, y, kernel, (), weight)

    _assert_agree(
        total, jnp.asarray(Z), jnp.asarray(Y), kernels.cosine(0.5), jnp.float64(1.0)
    )


def test_anyone_can_write_a_kernel(x64):
    @functools.partial(
        jax.tree_util.register_dataclass, data_fields=["metric"], meta_fields=[]
    )
    @dataclasses.dataclass(frozen=True)
    class Metric(kernels.Kernel):
        """A learned diagonal metric, which acts in `prepare`."""

        metric: jax.Array

        def prepare(self, z, unit):
            return z * jnp.broadcast_to(self.metric, z.shape), ()

        def pair(self, x, y):
            return jnp.dot(x, y)

        def elementwise(self, products, row, column):
            return products

    for itself in (True, False):

        def total(options, z, y, kernel, shift, itself=itself):
            return shift * _total(options, REDUCTIONS[:3], itself, z, y, kernel)

        metric = jnp.linspace(0.1, 0.5, 6)
        _assert_agree(
            total, jnp.asarray(Z), jnp.asarray(Y), Metric(metric), jnp.float64(1.0)
        )


def _compiled(loss, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def total(*arrays):
        return loss(*arrays).mean()

    run = jax.jit(jax.value_and_grad(total, tuple(range(len(shapes)))))
    return run.lower(*arguments).compile()


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_temporary_memory_grows_with_n_and_no_pair_matrix_exists(name):
    tile, d, sizes = 64, 8, (1024, 2048, 4096)
    temporary = []
    for n in sizes:
        if name == "nt_xent":
            loss = functools.partial(losses.nt_xent, tile=tile)
            compiled = _compiled(loss, (n // 2, 2, d))
        else:
            loss = functools.partial(losses.clip, tile=tile)
            compiled = _compiled(loss, (n, d), (n, d))
        shapes = re.findall(r"\[([\d,]+)\]", compiled.as_text())
        largest = max(np.prod([int(x) for x in shape.split(",")]) for shape in shapes)
        assert largest <= max(2 * n * d, tile * tile)
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    growth = np.diff(temporary)
    # Doubling n doubles what depends on n; a pair matrix would quadruple.
    assert growth[1] <= 2.2 * growth[0]
    assert temporary[-1] < 0.1 * 4 * sizes[-1] ** 2


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_temporary_memory_is_a_twentieth_of_the_dense_form(name):
    n, d = 16_384, 256

    def dense(x, y):
        x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
        s = x @ y.T / 0.5
        if name == "clip":
            both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
            return both / 2 - jnp.diagonal(s)
        s = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, s)
        return jax.nn.logsumexp(s, axis=1) - s[jnp.arange(n), jnp.arange(n) ^ 1]

    if name == "clip":
        compiled = (
            _compiled(dense, (n, d), (n, d)),
            _compiled(losses.clip, (n, d), (n, d)),
        )
    else:
        compiled = (
            _compiled(lambda z: dense(z, z), (n, d)),
            _compiled(losses.nt_xent, (n // 2, 2, d)),
        )
    whole, tiled = (c.memory_analysis().temp_size_in_bytes for c in compiled)
    assert tiled < 0.05 * whole


def test_a_ring_holds_two_blocks_where_gathering_holds_all():
    n, d = 32_768, 256
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    x = jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=rows)
    memory = {}
    for exchange in ("gather", "ring"):
        loss = functools.partial(losses.clip, exchange=exchange, tile=256)
        run = jaxcl.sharded(loss, mesh)
        total = jax.value_and_grad(lambda x, y, run=run: run(x, y).mean(), (0, 1))
        compiled = jax.jit(total).lower(x, x).compile()
        memory[exchange] = compiled.memory_analysis().temp_size_in_bytes
    assert memory["ring"] < memory["gather"] / 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_65536_anchors_fit_into_a_gigabyte():
    # Not ru_maxrss: a child's begins at what its parent holds.
    code = """
import jax, jax.numpy as jnp
from jaxcl import losses
views = jax.random.normal(jax.random.key(0), (32_768, 2, 256))
value, gradient = jax.jit(
    jax.value_and_grad(lambda v: losses.nt_xent(v).mean()), donate_argnums=0
)(views)
assert bool(jnp.isfinite(value)) and bool(jnp.isfinite(gradient).all())
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 2**20)
"""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout) < 1  # GiB


def test_a_training_loop_traces_a_loss_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(views, temperature):
        return jax.grad(lambda v: losses.nt_xent(v, temperature=temperature).mean())(
            views
        )

    chex.clear_trace_counter()
    for temperature in (0.1, 0.2, 0.3):
        step(jnp.ones((4, 2, 3)), jnp.float32(temperature))


@pytest.mark.parametrize(
    ("reduction", "words"),
    [
        (pairwise.Reduction("median", graphs.others), "accumulate must be one of"),
        (pairwise.Reduction("sum", graphs.others, over="rows"), "over must be one of"),
    ],
)
def test_unknown_words_are_named(reduction, words):
    nodes = graphs.labelled(jnp.ones((3, 2)), jnp.arange(3))
    with pytest.raises(ValueError, match=words):
        pairwise.reduce_pairs(nodes, kernel=kernels.dot(), reductions=(reduction,))
