"""The core: reductions over all pairs of nodes in O(n d) memory.

Every loss asks the pair matrix a few questions, row by row: the log-sum-exp of an
anchor's negatives, the mean over its positives. `reduce_pairs` answers them without
ever storing the matrix, on one device or over a mesh, and knows the derivative.

Recipes: target graphs, weighted negatives, distillation, and queues. All of them pass
through `reduce_pairs` as it is:

- *A dense target graph* (cross-entropy of a given target row against the learned row):
  `pair_weight` holds the target, row-sharded [n, m], and a "sum" reduction scores
  `pair.weight * pair.logits`; a second reduction is the log-sum-exp over all others.
- *Hardness-weighted negatives*, weights proportional to exp(beta s): the log of the
  weighted sum is a difference of two log-sum-exps, of scores `(1 + beta) * pair.logits`
  and `beta * pair.logits` with beta among the `parameters`. Weights per node go into
  `Nodes.extra` and are added to the logit as their logarithm.
- *Distillation from a second embedding*: both embeddings are concatenated, and a kernel
  that slices them returns the pair (student logit, teacher logit). A first pass takes
  the teacher's log-sum-exp per anchor; it goes into `Nodes.extra`, and a "sum"
  reduction scores `exp(pair.logits[1] - pair.anchor) * pair.logits[0]`.
- *A queue* is more candidates, whose group is nobody's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import _checks, graphs, kernels, mesh
from jaxcl.pairwise import checks, plans, reference, streamed
from jaxcl.pairwise.reductions import Pair, Reduction, logit

__all__ = ["Pair", "Reduction", "logit", "reduce_pairs"]

EXCHANGES = ("auto", "gather", "ring")
IMPLEMENTATIONS = ("auto", "reference", "tiled", "mosaic")
PRECISIONS = ("bfloat16", "high", "highest")
# Bytes that "auto" gathers on each device at most.
GATHERED = 2**28


def reduce_pairs(
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None = None,
    *,
    kernel: kernels.Kernel,
    reductions: tuple[Reduction, ...],
    pair_weight: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> tuple[jax.Array, ...]:
    """Reduces the pair matrix row by row, or column by column, without storing it.

        result_i = accumulate over j with relation(i, j) of score(s_ij)

    Values and gradients equal the dense reference to rounding. Temporary memory is a
    few buffers of the size of the embeddings and a few tiles, forward and backward. The
    backward pass has no derivative of its own: second derivatives and forward mode need
    `impl="reference"`.

    Args:
      anchors: n nodes.
      candidates: m nodes; None compares the anchors with each other, which is cheaper
        than passing them twice and asks for symmetric relations. A node is known by
        its `index`.
      kernel: a symmetric log-kernel. Its leaves are differentiable.
      reductions: what to compute.
      pair_weight: numbers [n, m] that scores may read; a constant. Over a mesh each
        device holds its rows and all columns.
      axis_name: mesh axes over which anchors and candidates are sharded, inside
        `shard_map`; the same that the nodes were built with. Candidates then are those
        of all devices.
      exchange: how candidates travel. "gather" collects them on each device, and what
        the gradients of two node sets owe them; "ring" passes them from device to
        device and holds those of two at a time. "auto" gathers unless that takes more
        than 256 MiB on each device: devices * m * d numbers of the dtype of z and,
        between two node sets, twice as many of float32.
      tile: edge of the square of pairs held at a time; None is chosen for the platform
        that the program is compiled for. It changes memory and speed, not results.
      impl: "tiled"; "mosaic", for TPUs, where one Pallas kernel takes the place of all
        tiles of a block of columns (on a CPU it is interpreted: for tests); "reference"
        (dense); or "auto", which is "mosaic" on TPUs for bfloat16 (or products of one
        pass), 1,024 nodes and more, and no `tile`, if it can compute the call; else
        "tiled".
      precision: of products. bfloat16 embeddings are multiplied as they are, in one
        pass, and products are scaled with lengths: nothing is rounded. For float32
        embeddings "highest" is float32 everywhere; "high" three passes of bfloat16 on
        TPU and TF32 on GPUs; "bfloat16" rounds embeddings to that before they travel
        and then rounds no more. None: what `jax.default_matmul_precision` says, else
        "highest" for kernels of a distance or an angle and "high" for all others. On
        CPUs both are float32.

    Returns:
      One array for each reduction, [n] or, for `over="anchors"`, [m]; float32 (float64
      for float64 input).

    Raises:
      TypeError: if something has the wrong type.
      ValueError: if something has a wrong value or shape, the mesh axis is not usable,
        the nodes were built with another `axis_name`, or "mosaic" cannot compute this.

    >>> nodes = graphs.labelled(jax.numpy.eye(3), jax.numpy.array([0, 0, 1]))
    >>> best = Reduction("logsumexp", graphs.others)
    >>> (result,) = reduce_pairs(nodes, kernel=kernels.cosine(1.0), reductions=(best,))
    >>> print(result)  # log(1 + 1)
    [0.6931472 0.6931472 0.6931472]
    """
    kernels.check(kernel)
    checks.asked(reductions)
    _checks.choice("exchange", exchange, EXCHANGES)
    _checks.choice("impl", impl, IMPLEMENTATIONS)
    if precision is not None:
        _checks.choice("precision", precision, PRECISIONS)
    if tile is not None:
        _checks.count("tile", tile)
    names = mesh.axis_names(axis_name)
    checks.nodes("anchors", anchors, names)
    if candidates is None:
        checks.symmetric(reductions)
    else:
        checks.nodes("candidates", candidates, names)
    if pair_weight is not None:
        others = anchors if candidates is None else candidates
        shape = len(anchors.z), len(others.z) * mesh.size(axis_name)
        if jnp.shape(pair_weight) != shape:
            raise ValueError(
                f"pair_weight must have shape {shape}, a row for each anchor of this "
                "device and a column for each candidate of all devices, "
                f"got {jnp.shape(pair_weight)}"
            )
    dtype = kernels.accumulator(anchors.z.dtype)
    if candidates is not None:
        _checks.same_width("anchors.z", anchors.z, "candidates.z", candidates.z)
        dtype = kernels.accumulator(dtype, candidates.z.dtype)
    if precision == "bfloat16":
        anchors = _rounded(anchors)
        candidates = None if candidates is None else _rounded(candidates)
    everything = (anchors, candidates, pair_weight)
    kernel, asked = kernels.cast_leaves((kernel, tuple(reductions)), dtype)
    # The transpose of this cast sums the gradient of what is replicated, such as a
    # temperature, over the devices.
    varying = mesh.varying_axes((everything, kernel, asked)) | frozenset(names)
    kernel, asked, anchors, candidates, pair_weight = mesh.cast_varying(
        (kernel, asked, anchors, candidates, pair_weight), varying
    )
    if candidates is None and (impl == "reference" or pair_weight is not None):
        candidates = anchors
    if pair_weight is not None:
        pair_weight = jax.lax.stop_gradient(pair_weight)
    arguments = (kernel, asked, anchors, candidates, pair_weight)
    if impl == "reference":
        return _reduce_dense(names, *arguments)
    plan = plans.Plan(
        names,
        _exchange(exchange, names, anchors, candidates),
        None if tile is None else int(tile),
        _precision(precision, kernel),
        impl,
    )
    if impl == "mosaic":
        streamed.check_mosaic(plan, *arguments)
    return _reduce_tiles(plan, *arguments)


def _rounded(nodes: graphs.Nodes) -> graphs.Nodes:
    """The nodes with embeddings of at most bfloat16."""
    narrow = nodes.z.dtype == jnp.float16
    return nodes if narrow else nodes._replace(z=nodes.z.astype(jnp.bfloat16))


def _exchange(
    exchange: str,
    names: tuple[str, ...],
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
) -> str:
    """How candidates travel."""
    if exchange != "auto":
        return exchange
    z = anchors.z if candidates is None else candidates.z
    each = z.dtype.itemsize + (0 if candidates is None else 8)
    held = mesh.size(names or None) * z.size * each
    return "ring" if held > GATHERED else "gather"


def _precision(precision: str | None, kernel: kernels.Kernel) -> Any:
    """What products of float32 vectors are multiplied with, as in `jax.lax.dot`."""
    if precision is not None:
        return None if precision == "bfloat16" else precision
    said = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return said or kernel.precision or lax.Precision.HIGH


# Compiled here, so that a call outside of `jit` is traced once only, and the kernel is
# checked then.
@functools.partial(jax.jit, static_argnums=0)
def _reduce_dense(
    names: tuple[str, ...], kernel: kernels.Kernel, *rest: Any
) -> tuple[jax.Array, ...]:
    _check_kernel(kernel, *rest)
    return reference.reduce_dense(names, kernel, *rest)


@functools.partial(jax.jit, static_argnums=0)
def _reduce_tiles(
    plan: plans.Plan, kernel: kernels.Kernel, *rest: Any
) -> tuple[jax.Array, ...]:
    _check_kernel(kernel, *rest)
    return streamed.reduce_streamed(plan, kernel, *rest)


def _check_kernel(
    kernel: kernels.Kernel,
    asked: tuple[Reduction, ...],
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    *rest: Any,
) -> None:
    z = [nodes.z for nodes in (anchors, candidates) if nodes is not None]
    dtype = kernels.accumulator(*(each.dtype for each in z))
    kernels.check_shapes(kernel, z[0].shape[1], dtype)
