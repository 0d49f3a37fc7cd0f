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


@pytest.mark.parametrize(
    "name", ["nt_xent", pytest.param("clip", marks=pytest.mark.slow)]
)
def test_temporary_memory_grows_with_n_and_no_pair_matrix_exists(name):
    tile, d, sizes = 64, 8, (8192, 16_384, 32_768)
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
def test_32768_anchors_take_a_fifth_of_what_their_matrix_would():
    # Not ru_maxrss: a child's begins at what its parent holds.
    code = """
import jax, jax.numpy as jnp
from jaxcl import losses
views = jax.random.normal(jax.random.key(0), (16_384, 2, 256))
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
    assert float(run.stdout) < 0.75  # GiB


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


NODES = graphs.labelled(jnp.asarray(Z, jnp.float32), LABELS)
MORE = NODES._replace(index=NODES.index + N)
OTHERS = pairwise.Reduction("sum", graphs.others)
AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit


def _reads_anchor(pair):
    return pair.logits - pair.anchor


def _reads_candidate_and_weight(pair):
    return jnp.exp(pair.candidate) * pair.logits * pair.weight


def _of_one_axis(pair):
    return pair.logits.sum(axis=1)


def _reduce(anchors=NODES, candidates=None, reductions=(OTHERS,), **options):
    return pairwise.reduce_pairs(
        anchors, candidates, kernel=kernels.dot(), reductions=reductions, **options
    )


@pytest.mark.parametrize("impl", ["tiled", "reference"])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((NODES.z,), TypeError, "anchors must be Nodes.*got an array"),
        ((tuple(NODES),), TypeError, "anchors must be Nodes.*got tuple"),
        ((NODES, NODES.z), TypeError, "candidates must be Nodes.*got an array"),
        ((NODES, None, OTHERS), TypeError, "reductions must be a tuple.*got Reduction"),
        ((NODES, None, (graphs.others,)), TypeError, "reductions.*got function in it"),
        (
            (NODES, None, (pairwise.Reduction("sum", "others"),)),
            TypeError,
            "relation must be a function, got 'others'",
        ),
        (
            (NODES, None, (dataclasses.replace(OTHERS, parameters=0.3),)),
            TypeError,
            "parameters must be a tuple.*got float",
        ),
        (
            (NODES._replace(index=NODES.index[1:]),),
            ValueError,
            r"anchors.index must have shape \(11,\), got \(10,\)",
        ),
        (
            (NODES._replace(extra={"a": jnp.ones(N - 1)}),),
            ValueError,
            r"anchors.extra must hold arrays of shape \(11,\).*got shape \(10,\)",
        ),
        (
            (NODES, MORE._replace(extra=0.5)),
            ValueError,
            r"candidates.extra must hold.*got shape \(\)",
        ),
        (
            (NODES, None, (dataclasses.replace(OTHERS, score=_reads_anchor),)),
            ValueError,
            "score _reads_anchor, which reads pair.anchor, without an extra of the anc",
        ),
        (
            (
                NODES._replace(extra=NODES.z[:, 0]),
                MORE,
                (dataclasses.replace(OTHERS, score=_reads_candidate_and_weight),),
            ),
            ValueError,
            "reads pair.candidate and pair.weight, without .* and pair_weight",
        ),
        (
            (NODES, None, (dataclasses.replace(OTHERS, score=_of_one_axis),)),
            ValueError,
            r"score _of_one_axis must be elementwise, got scores of shape \(11,\)",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, words, impl):
    with pytest.raises(error, match=words):
        _reduce(*arguments, impl=impl)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"pair_weight must have shape \(11, 5\)"):
        _reduce(
            NODES, jax.tree.map(lambda x: x[:5], MORE), pair_weight=jnp.ones((5, N))
        )


def _fails_for_another_reason(pair):
    return pair.logits - undefined  # noqa: F821


def test_a_score_that_fails_for_another_reason_says_so_itself():
    asked = (dataclasses.replace(OTHERS, score=_fails_for_another_reason),)
    with pytest.raises(NameError, match="undefined"):
        _reduce(reductions=asked)


# Relations of which each end sees something else.
ONE_SIDED = {
    "before": lambda a, b: a.index < b.index,
    "next": lambda a, b: b.index == a.index + 1,
    "far ahead": lambda a, b: b.index == a.index + 100,
    "of one group": lambda a, b: (a.group == 0) & (a.index != b.index),
    "in jax": lambda a, b: jnp.less(a.group, b.group),
}
TABLE = jnp.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], bool)
# Relations of which both ends see the same, computed in one way or another.
EVEN = {
    "positives": graphs.positives,
    "near": lambda a, b: jnp.abs(a.index - b.index) < 3,
    "table": lambda a, b: TABLE[a.group, b.group],
    "partial": functools.partial(lambda c, a, b: a.group + b.group > c, 2),
}


@pytest.mark.parametrize("name", ONE_SIDED)
@pytest.mark.parametrize("how", ["eager", "jit", "vmap", "shard_map"])
def test_a_relation_that_is_not_symmetric_is_refused_between_anchors(name, how):
    asked = (pairwise.Reduction("sum", ONE_SIDED[name]),)

    def total(z, axis_name=None):
        nodes = graphs.labelled(z, LABELS[: len(z)], None, axis_name)
        return _reduce(nodes, None, asked, axis_name=axis_name)[0]

    z, run = jnp.ones((8, 6)), total
    if how == "jit":
        run = jax.jit(total)
    elif how == "vmap":
        z, run = z[None], jax.vmap(total)
    elif how == "shard_map":
        mesh = jax.make_mesh((8,), ("data",), axis_types=(EXPLICIT,))
        z, run = jnp.ones((16, 6)), jaxcl.sharded(total, mesh)
    with pytest.raises(ValueError, match=r"relation must be symmetric.*got <lambda>"):
        run(z)


@pytest.mark.parametrize("name", ONE_SIDED)
def test_between_two_node_sets_a_relation_need_not_be_symmetric(name):
    asked = (pairwise.Reduction("sum", ONE_SIDED[name]),)
    for candidates in (NODES, MORE):
        want, got = (
            jax.value_and_grad(
                lambda z, o=options, c=candidates: (
                    _reduce(NODES._replace(z=z), c, asked, **o)[0] ** 2
                ).sum()
            )(NODES.z)
            for options in ({"impl": "reference"}, {"tile": 4})
        )
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVEN)
def test_a_symmetric_relation_passes_whatever_computes_it(name):
    asked = (pairwise.Reduction("sum", EVEN[name]),)
    want, got = (_reduce(reductions=asked, **o)[0] for o in ({"tile": 4}, {"tile": 11}))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(EXPLICIT,))

    def total(z, labels, axis_name):
        nodes = graphs.labelled(z, labels, None, axis_name)
        return _reduce(nodes, None, asked, axis_name=axis_name)[0]

    z, labels = jnp.tile(NODES.z, (8, 1)), jnp.tile(LABELS, 8)
    whole = jax.jit(lambda z: total(z, labels, None))(z)
    split = jax.jit(jaxcl.sharded(total, mesh))(z, labels)
    np.testing.assert_allclose(split, whole, rtol=1e-4, atol=1e-4)


def test_a_relation_is_asked_once_and_one_that_reads_a_traced_value_is_let_through():
    asked_for = []

    def counted(a, b):
        asked_for.append(isinstance(a.group, np.ndarray))
        return a.index != b.index

    for _ in range(3):
        _reduce(reductions=(pairwise.Reduction("sum", counted),))
    assert sum(asked_for) == 4  # both orders, of few nodes and of more

    @jax.jit
    def beyond(least):
        relation = lambda a, b: a.group + b.group >= least  # noqa: E731
        return _reduce(NODES, MORE, (pairwise.Reduction("sum", relation),))[0]

    @jax.jit
    def inside(least):
        relation = lambda a, b: a.group + b.group >= least  # noqa: E731
        asked = (pairwise.Reduction("sum", relation),)
        return _reduce(NODES, None, asked, impl="reference")[0]

    np.testing.assert_allclose(inside(2), beyond(2), rtol=1e-5, atol=1e-5)


BUILDERS = {
    "labelled": lambda z, a: (graphs.labelled(z, jnp.arange(len(z)), None, a), None),
    "views": lambda z, a: (graphs.views(z.reshape(-1, 2, 6), None, a), None),
    "pairs": lambda z, a: graphs.pairs(z, 2 * z, None, a),
    "keyed": lambda z, a: graphs.keyed(z, 2 * z, z, None, a),
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    "axes",
    [("data",), ("data", "model")],
    ids=["one axis", "two axes"],
)
def test_nodes_and_reductions_need_the_same_axis_name(name, axes):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AUTO,) * 2)
    z = jax.random.normal(jax.random.key(0), (32, 6))

    def total(z, of_nodes, of_pairs):
        anchors, candidates = BUILDERS[name](z, of_nodes)
        return _reduce(anchors, candidates, axis_name=of_pairs)[0]

    def over_mesh(of_nodes, of_pairs):
        run = functools.partial(total, of_nodes=of_nodes, of_pairs=of_pairs)
        rows = jax.P(axes)
        # Traced only: that the values are right is a law of the losses.
        return jax.eval_shape(
            jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows), z
        )

    assert over_mesh(axes, axes).shape[0] in (16, 32)
    words = "anchors must be built with the axis_name of reduce_pairs, 'data'"
    with pytest.raises(ValueError, match=f"{words}.*got.*over no mesh axis"):
        over_mesh(None, axes)
    with pytest.raises(ValueError, match=r"no mesh axis, got.*over 'data'"):
        over_mesh(axes, None)
    if len(axes) == 2:
        with pytest.raises(ValueError, match=r"'data' and 'model', got.*over 'data';"):
            over_mesh("data", axes)
        with pytest.raises(ValueError, match=r"'data', got.*over 'data' and 'model'"):
            over_mesh(axes, "data")


def test_candidates_of_another_axis_name_are_refused():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AUTO,))

    def total(z, axis_name):
        anchors, _ = graphs.pairs(z, z, None, axis_name)
        _, candidates = graphs.pairs(z, z)
        return _reduce(anchors, candidates, axis_name=axis_name)[0]

    with pytest.raises(ValueError, match="candidates must be built with"):
        jaxcl.sharded(total, mesh)(jnp.ones((16, 6)))
