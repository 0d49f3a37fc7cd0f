"""Pallas kernels for TPU, interpreted: they compute what tiles compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import graphs, kernels, losses, pairwise
from jaxcl.pairwise.mosaic_tpu import blocks
from tests.losses import cases, oracle_test

NEGATIVE = pairwise.Reduction("logsumexp", graphs.negatives)
OF_CANDIDATES = pairwise.Reduction("logsumexp", graphs.negatives, over="anchors")
COSINE = kernels.cosine(0.1)
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks and strips of few nodes, of a chip with much memory."""
    monkeypatch.setattr(blocks, "SMALL_MEMORY", blocks.MEMORY)
    small = blocks.Largest(128, 128, 64, 32)
    monkeypatch.setattr(blocks, "TABLE", dict.fromkeys(blocks.TABLE, small))


def _softplus(pair, bias):
    return jax.nn.softplus(pair.logits + pair.anchor - 2 * pair.candidate + bias)


def _twice(anchor, candidate):
    return graphs.negatives(anchor, candidate)  # nobody knows this relation


def _nodes(z, extra, valid, mixed):
    n = len(z)
    number = jnp.arange(n)
    group = (number * 7919) % 5 if mixed else number // 2
    keep = number % 17 != 3 if valid else number >= 0
    return graphs.Nodes(z, group, number, keep, extra)


def _run(impl, asked, valid, mixed, kernel, parameters, ends):
    asked = [r if not r.parameters else _with(r, parameters) for r in asked]
    nodes = [_nodes(z, extra, valid, mixed) for z, extra in ends]
    nodes[1:] = [n._replace(index=n.index + 10_000) for n in nodes[1:]]
    results = pairwise.reduce_pairs(
        *nodes, kernel=kernel, reductions=tuple(asked), impl=impl
    )
    total = jnp.zeros(())
    for k, result in enumerate(results):
        weights = 1 + jnp.cos(0.7 * jnp.arange(result.size, dtype=jnp.float32) + k)
        total += jnp.where(jnp.isfinite(result), result * weights, 0).sum()
    return total / results[0].size, results


def _with(reduction, parameters):
    return pairwise.Reduction(
        reduction.accumulate,
        reduction.relation,
        reduction.score,
        parameters,
        reduction.over,
    )


def _assert_like_tiles(
    kernel, asked, shapes, *, extra=False, valid=False, mixed=False, dtype=jnp.float32
):
    ends = [
        (
            jnp.asarray(cases.random(*shape, seed=k), dtype),
            jnp.sin(jnp.arange(shape[0], dtype=jnp.float32)) if extra else (),
        )
        for k, shape in enumerate(shapes)
    ]
    kernel = kernels.cast_leaves(kernel, jnp.float32)
    run = [
        jax.jit(
            jax.value_and_grad(
                functools.partial(_run, impl, asked, valid, mixed),
                (0, 1, 2),
                has_aux=True,
            )
        )
        for impl in ("tiled", "mosaic")
    ]
    want, got = (each(kernel, (jnp.float32(0.3),), ends) for each in run)
    for a, b in zip(want[0][1], got[0][1], strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-6 * np.nanmax(_finite(a)))
    # Coefficients of bfloat16 vectors are rounded to bfloat16.
    tolerance = 2e-5 if dtype == jnp.float32 else 1e-2
    for a, b in zip(*map(jax.tree.leaves, (want[1], got[1])), strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())


def _finite(x):
    return np.abs(np.where(np.isfinite(x), x, 0))


@pytest.mark.slow
def test_a_log_sum_exp_equals_that_of_tiles():
    _assert_like_tiles(kernels.cosine(0.1), (NEGATIVE,), [(300, 24)])


@SLOW
@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ([(300, 24), (260, 24)], {}),
        ([(300, 24), (260, 24)], {"valid": True}),
        ([(700, 130)], {"dtype": jnp.bfloat16}),
        ([(1100, 24)], {}),
        ([(900, 24)], {"valid": True}),
        ([(300, 24)], {"mixed": True}),
        ([(520, 24), (512, 24)], {"dtype": jnp.bfloat16}),
    ],
)
def test_sizes_masks_and_dtypes(shapes, options):
    asked = (NEGATIVE, OF_CANDIDATES) if len(shapes) > 1 else (NEGATIVE,)
    _assert_like_tiles(kernels.cosine(0.07), asked, shapes, **options)


@SLOW
@pytest.mark.parametrize("shapes", [[(300, 24)], [(300, 24), (260, 24)]])
def test_every_way_to_add_up(shapes):
    asked = (
        NEGATIVE,
        pairwise.Reduction("mean", graphs.positives),
        pairwise.Reduction("mean", _twice, over="anchors"),
        pairwise.Reduction("sum", graphs.others, _softplus, (0.3,)),
        pairwise.Reduction("sum", graphs.others, _softplus, (0.3,), over="anchors"),
    )
    _assert_like_tiles(kernels.cosine(0.5), asked, shapes, extra=True, valid=True)


@SLOW
def test_sums_that_outgrow_their_reference_are_computed_again():
    # Later rows and columns are far longer, so that their logits are far higher.
    def run(impl, z):
        nodes = _nodes(z, (), False, False)
        (result,) = pairwise.reduce_pairs(
            nodes, kernel=kernels.dot(1.0), reductions=(NEGATIVE,), impl=impl
        )
        return result.mean(), result

    z = cases.random(400, 8) * np.linspace(0.01, 12, 400)[:, None]
    z = jnp.asarray(z, jnp.float32)
    want, got = (
        jax.value_and_grad(functools.partial(run, impl), has_aux=True)(z)
        for impl in ("tiled", "mosaic")
    )
    np.testing.assert_allclose(got[0][1], want[0][1], rtol=1e-5)
    scale = np.abs(want[1]).max()
    np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-4 * scale)


# One of each form that the kernels have a branch for; with the others they share it.
BRANCHES = [
    cases.BY_NAME[name]
    for name in (
        "sup_con",
        "nt_xent_of_three_views",
        "siglip",
        "info_nce_with_a_queue",
        "info_nce_with_hard_negatives_and_a_guide",
        "graph_cross_entropy",
        "similarity_distillation_of_two_sets",
        "kernel_info_nce_laplacian",
        "kernel_info_nce_kernel_sum",
        "kernel_info_nce_concatenation_sum",
        "kernel_info_nce_dot",
        "f_micl_squared_hellinger",
        "kcl",
    )
]


@cases.over(BRANCHES, [cases.BY_NAME["sup_con"]])
def test_losses_equal_their_oracles(case):
    arrays, parameters, constants = cases.numbers(case, jnp.float32)
    valid = jnp.array(oracle_test.VALID)

    def run(impl, arrays, parameters):
        loss = case.loss({**arrays, **constants}, parameters, valid=valid, impl=impl)
        return (loss * jnp.cos(jnp.arange(loss.size)).reshape(loss.shape)).sum(), loss

    run_mosaic = jax.grad(functools.partial(run, "mosaic"), (0, 1), has_aux=True)
    if case.name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[case.name]):
            jax.eval_shape(run_mosaic, arrays, parameters)
        return
    gradient, loss = jax.jit(run_mosaic)(arrays, parameters)
    expected = case.oracle(
        {**case.arrays, **case.constants}, case.parameters, oracle_test.VALID
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    run_tiles = jax.grad(functools.partial(run, "tiled"), (0, 1), has_aux=True)
    wanted, _ = jax.jit(run_tiles)(arrays, parameters)
    for a, b in zip(*map(jax.tree.leaves, (wanted, gradient)), strict=True):
        scale = np.abs(a).max() + 1e-3
        np.testing.assert_allclose(b, a, rtol=0, atol=3e-5 * scale)


# Those that tiles compute instead, and why.
REFUSED = {"graph_cross_entropy": "pair_weight is not read"}


@SLOW
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_sharding_changes_nothing(name, exchange):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("data",), axis_types=auto, devices=jax.devices()[:2])
    x, y = (jnp.asarray(cases.random(20, 8, seed=k), jnp.float32) for k in range(2))

    def run(impl, x, y, temperature):
        if name == "clip":
            loss = jaxcl.sharded(losses.clip, mesh)
            arrays = x, y
        else:
            loss = jaxcl.sharded(losses.nt_xent, mesh)
            arrays = (jnp.stack([x, y], axis=1),)
        options = {"temperature": temperature, "exchange": exchange, "impl": impl}
        return loss(*arrays, **options).mean()

    want, got = (
        jax.jit(jax.value_and_grad(functools.partial(run, impl), (0, 1, 2)))(x, y, 0.3)
        for impl in ("tiled", "mosaic")
    )
    for a, b in zip(*map(jax.tree.leaves, (want, got)), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("n", "options", "kernel"),
    [
        (1200, {}, True),
        (1200, {"dtype": jnp.float32}, False),
        (1200, {"impl": "tiled"}, False),
        (1200, {"tile": 512}, False),
        (600, {}, False),
    ],
)
def test_auto_takes_it_on_a_tpu_where_nodes_are_many(n, options, kernel):
    options = dict(options)
    z = jax.ShapeDtypeStruct((n, 4), options.pop("dtype", jnp.bfloat16))
    value = jax.grad(lambda z: losses.uniformity(z, **options).mean())
    traced = jax.jit(value).trace(z)
    for platform, expected in (("tpu", 2 * kernel), ("cuda", 0), ("cpu", 0)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert program.count("@tpu_custom_call") == expected


def test_what_it_cannot_compute_is_refused_with_a_reason(x64):
    z = jnp.eye(4)
    nodes = graphs.labelled(z, jnp.arange(4))

    def ask(reason, z, kernel=COSINE, **options):
        with pytest.raises(ValueError, match=f'got "mosaic": {reason}'):
            pairwise.reduce_pairs(
                nodes._replace(z=z),
                kernel=kernel,
                reductions=(NEGATIVE,),
                impl="mosaic",
                **options,
            )

    ask("TPUs have no float64", z.astype(jnp.float64))
    z = z.astype(jnp.float32)
    ask("pair_weight", z, pair_weight=jnp.ones((4, 4), jnp.float32))
    ask("TPU kernels have no acos", z, _Angle(0.1))
    ask("vectors are too wide", jnp.ones((4, 2_000_000), jnp.float32))


@jax.tree_util.register_static
class _Angle(kernels.Kernel):
    def __init__(self, temperature):
        self.temperature = temperature

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return isinstance(other, _Angle)

    def prepare(self, z, unit):
        return unit, ()

    def pair(self, x, y):
        return jnp.arccos(jnp.dot(x, y))

    def elementwise(self, products, row, column):
        return jnp.arccos(products)
