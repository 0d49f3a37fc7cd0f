"""The core: reductions over all pairs of nodes in O(n d) memory.

Every loss asks the pair matrix a few questions, row by row: the log-sum-exp of an
anchor's negatives, the mean over its positives. `reduce_pairs` answers them without
ever storing the matrix, on one device or over a mesh, and knows the derivative.

How what is still to come passes through the same signature:

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

import jax

from jaxcl import _checks, graphs, kernels, mesh
from jaxcl.pairwise import reference, tiled
from jaxcl.pairwise.reductions import Pair, Reduction, logit

__all__ = ["Pair", "Reduction", "logit", "reduce_pairs"]

EXCHANGES = ("gather", "ring")
IMPLEMENTATIONS = ("auto", "reference", "tiled")


def reduce_pairs(
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None = None,
    *,
    kernel: kernels.Kernel,
    reductions: tuple[Reduction, ...],
    pair_weight: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
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
        than passing them twice. A node is known by its `index`.
      kernel: a symmetric log-kernel. Its leaves are differentiable.
      reductions: what to compute.
      pair_weight: numbers [n, m] that scores may read; a constant. Over a mesh each
        device holds its rows and all columns.
      axis_name: mesh axes over which anchors and candidates are sharded, inside
        `shard_map`. Candidates then are those of all devices.
      exchange: how candidates travel. "gather" collects them on each device; "ring"
        passes them from device to device and holds those of two at a time.
      tile: edge of the square of pairs held at a time; None is chosen. It changes
        memory and speed, not results.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

    Returns:
      One array for each reduction, [n] or, for `over="anchors"`, [m]; float32 (float64
      for float64 input).

    Raises:
      TypeError: if something has the wrong type.
      ValueError: if something has a wrong value, or the mesh axis is not usable.

    >>> nodes = graphs.labelled(jax.numpy.eye(3), jax.numpy.array([0, 0, 1]))
    >>> best = Reduction("logsumexp", graphs.others)
    >>> (result,) = reduce_pairs(nodes, kernel=kernels.cosine(1.0), reductions=(best,))
    >>> print(result)  # log(1 + 1)
    [0.6931472 0.6931472 0.6931472]
    """
    _check(kernel, reductions, exchange, tile, impl)
    names = mesh.axis_names(axis_name)
    everything = (anchors, candidates, pair_weight)
    dtype = kernels.accumulator(anchors.z.dtype)
    if candidates is not None:
        _checks.same_width("anchors.z", anchors.z, "candidates.z", candidates.z)
        dtype = kernels.accumulator(dtype, candidates.z.dtype)
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
    plan = tiled.Plan(names, exchange, None if tile is None else int(tile))
    return _reduce_tiles(plan, *arguments)


# Compiled here, so that a call outside of `jit` is traced once only.
_reduce_dense = jax.jit(reference.reduce_dense, static_argnums=0)
_reduce_tiles = jax.jit(tiled.reduce_tiles, static_argnums=0)


def _check(
    kernel: kernels.Kernel,
    reductions: tuple[Reduction, ...],
    exchange: str,
    tile: int | None,
    impl: str,
) -> None:
    kernels.check(kernel)
    for reduction in reductions:
        _checks.choice("accumulate", reduction.accumulate, ("logsumexp", "sum", "mean"))
        _checks.choice("over", reduction.over, ("candidates", "anchors"))
    _checks.choice("exchange", exchange, EXCHANGES)
    _checks.choice("impl", impl, IMPLEMENTATIONS)
    if tile is not None:
        _checks.count("tile", tile)
