"""Losses whose target is given: as a dense graph, or by a second embedding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import beside, softmax


def graph_cross_entropy(
    z: jax.Array,
    target: jax.Array,
    *,
    kernel: kernels.Kernel,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Cross-entropy of a target graph and the learned graph, row by row.

        loss_i = -sum_{j != i} P_ij log Q_ij
        P_ij   = target_ij / sum_{l != i} target_il
        Q_ij   = k(z_i, z_j) / sum_{l != i} k(z_i, z_l)

    InfoNCE is an estimate of it that draws one positive from each row of P.

    Args:
      z: embeddings [n, d]; any float dtype.
      target: weights [n, n], real, not negative; a constant. The diagonal is ignored,
        rows are normalized here. Over a mesh a device has its rows, [n / devices, n].
      kernel: a log-kernel; its parameters are differentiable.
      valid: rows to keep [n]; the others are neither rows nor columns of the graphs.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Cross-entropy of each row in nats, float32 [n] (float64 for float64 input); 0
      where not valid, and for a row without edges. It is the entropy of the row of P
      plus KL(P || Q). Collapsed embeddings give log(n - 1).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or a weight is negative or not finite.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103: the cross-entropy of its two
      Markov random fields, in the closed form that independent rows allow.

    >>> target = jnp.ones((3, 3))
    >>> kernel = kernels.gaussian(0.5)
    >>> print(graph_cross_entropy(jnp.ones((3, 2)), target, kernel=kernel).round(4))
    [0.6931 0.6931 0.6931]
    """
    _checks.embeddings("z", z, "n d")
    _checks.array("target", target, "n n")
    n = z.shape[0]
    if target.shape != (n, n * mesh.size(axis_name)):
        raise ValueError(
            f"target must have shape {(n, n * mesh.size(axis_name))}, a row for each "
            f"embedding here and a column for each one anywhere, got {target.shape}"
        )
    _check_weights(target, valid)
    nodes = graphs.labelled(z, jnp.zeros(n, int), valid, axis_name)
    negative, positive, weighted, total, count = pairwise.reduce_pairs(
        nodes,
        kernel=kernel,
        reductions=EDGES,
        pair_weight=jnp.asarray(target, kernels.accumulator(z.dtype)),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    mean_positive = weighted / jnp.where(total > 0, total, 1)
    loss = softmax.of_counted(negative, positive, count, mean_positive)
    return jnp.where(nodes.valid, loss, 0)


def _check_weights(target: jax.Array, valid: jax.Array | None) -> None:
    """Checks the weights that count, where they are known already."""
    if isinstance(target, jax.core.Tracer) or isinstance(valid, jax.core.Tracer):
        return
    if isinstance(target, jax.Array) and not target.is_fully_addressable:
        return
    weights = np.array(target)
    np.fill_diagonal(weights, 0)
    keep = slice(None) if valid is None else np.asarray(valid)
    _checks.no_negative("target", weights[keep][:, keep])


def _of_no_edge(pair: pairwise.Pair) -> jax.Array:
    return jnp.where(pair.weight > 0, -jnp.inf, pair.logits)


def _of_edge(pair: pairwise.Pair) -> jax.Array:
    return jnp.where(pair.weight > 0, pair.logits, -jnp.inf)


def _weighted(pair: pairwise.Pair) -> jax.Array:
    return pair.weight * pair.logits


def _weight(pair: pairwise.Pair) -> jax.Array:
    return pair.weight


def _is_edge(pair: pairwise.Pair) -> jax.Array:
    return (pair.weight > 0).astype(pair.weight.dtype)


# The potentials of edges and of non-edges apart: where training has succeeded their
# difference is the loss, and nothing cancels.
EDGES = (
    pairwise.Reduction("logsumexp", graphs.others, _of_no_edge),
    pairwise.Reduction("logsumexp", graphs.others, _of_edge),
    pairwise.Reduction("sum", graphs.others, _weighted),
    pairwise.Reduction("sum", graphs.others, _weight),
    pairwise.Reduction("sum", graphs.others, _is_edge),
)


def similarity_distillation(
    z: jax.Array,
    teacher: jax.Array,
    *,
    candidates: jax.Array | None = None,
    teacher_candidates: jax.Array | None = None,
    temperature: ArrayLike = 0.1,
    teacher_temperature: ArrayLike = 0.1,
    valid: jax.Array | None = None,
    candidates_valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Distils similarities: a second embedding says how near the others should be.

        loss_i = -sum_{j != i} P_ij log Q_ij
        P_i    = softmax_{j != i} cos(teacher_i, teacher_j) / teacher_temperature
        Q_i    = softmax_{j != i} cos(z_i, z_j) / temperature

    Both softmaxes run over the other rows of the batch, or over a second set, such as
    texts for images or a queue. Then they are of cos(teacher_i, teacher_candidate_j)
    and cos(z_i, candidate_j), and j = i is a candidate like all others:

        to_texts = similarity_distillation(
            images, teacher_images, candidates=texts, teacher_candidates=teacher_texts
        )

    and `to_images` with the two sets exchanged. Nothing of size n x n is kept. Where
    both softmaxes put nearly all probability on one row, the gradient is a difference
    of numbers near 1, and float32 leaves about six digits of 1 to it.

    Args:
      z: embeddings of the student [n, d]; any float dtype.
      teacher: embeddings of the teacher [n, e]; a constant.
      candidates: embeddings of the student [m, d] to compare with, in place of z.
        Gradients reach them too: stop those of a queue.
      teacher_candidates: embeddings of the teacher [m, e] of the same m; a constant.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      teacher_temperature: of the teacher's similarities, > 0; a constant.
      valid: rows to keep [n]; the others are neither anchors nor, without a second set,
        candidates.
      candidates_valid: candidates to keep [m]; of pairs the same mask as `valid`.
      axis_name: mesh axes over which all rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Cross-entropy of each row in nats, float32 [n] (float64 for float64 input), at
      least the entropy of P_i; 0 where not valid, and for a row without candidates.
      Collapsed embeddings give log(n - 1), of a second set log(m).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, a temperature <= 0, or a second set incomplete.

    Source:
      SEED, https://arxiv.org/abs/2101.04731, whose queue of the teacher is both
      `candidates` and `teacher_candidates`; between images and texts the affinity
      mimicking of TinyCLIP, https://arxiv.org/abs/2309.12314.

    >>> loss = similarity_distillation(jnp.ones((3, 2)), jnp.eye(3))
    >>> print(loss.round(4))  # log(2)
    [0.6931 0.6931 0.6931]
    """
    _checks.embeddings("z", z, "n d")
    _checks.embeddings("teacher", teacher, "n e")
    _same_rows("teacher", teacher, "z", z)
    _checks.positive("teacher_temperature", teacher_temperature)
    given = candidates, teacher_candidates, candidates_valid
    if candidates is None or teacher_candidates is None:
        if any(x is not None for x in given):
            raise ValueError(
                "candidates and teacher_candidates must be given together, and "
                "candidates_valid with both, got one without another"
            )
    else:
        _checks.embeddings("candidates", candidates, "m d")
        _checks.embeddings("teacher_candidates", teacher_candidates, "m e")
        _checks.same_width("z", z, "candidates", candidates)
        _checks.same_width("teacher", teacher, "teacher_candidates", teacher_candidates)
        _same_rows("teacher_candidates", teacher_candidates, "candidates", candidates)
        _checks.mask("candidates_valid", candidates_valid, candidates.shape[0])
    ask = functools.partial(
        pairwise.reduce_pairs,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    sets = [(z, teacher)]
    if candidates is not None and teacher_candidates is not None:
        sets.append((candidates, teacher_candidates))
    dtype = kernels.accumulator(*(x.dtype for pair in sets for x in pair))
    teachers = [lax.stop_gradient(of_teacher.astype(dtype)) for _, of_teacher in sets]
    both = [
        jnp.concatenate([of_student.astype(dtype), of_teacher], axis=1)
        for (of_student, _), of_teacher in zip(sets, teachers, strict=True)
    ]

    def nodes(embeddings: list[jax.Array]) -> tuple[graphs.Nodes, ...]:
        if len(embeddings) == 2:
            x, y = embeddings
            return graphs.two_sets(x, y, valid, candidates_valid, axis_name)
        rows = jnp.zeros(z.shape[0], int)
        return (graphs.labelled(embeddings[0], rows, valid, axis_name),)

    fixed = kernels.cosine(lax.stop_gradient(teacher_temperature))
    (potential,) = ask(
        *nodes(teachers),
        kernel=fixed,
        reductions=(pairwise.Reduction("logsumexp", graphs.others),),
    )
    anchors, *others = nodes(both)
    partition, agreement = ask(
        anchors._replace(extra=jnp.where(potential != -jnp.inf, potential, 0)),
        *others,
        kernel=beside.Beside(kernels.cosine(temperature), fixed, z.shape[1]),
        reductions=(
            pairwise.Reduction("logsumexp", graphs.others, _of_student),
            pairwise.Reduction("sum", graphs.others, _of_student_by_teacher),
        ),
    )
    counts, partition = softmax.with_negatives(partition, anchors.valid)
    return jnp.where(counts, partition - agreement, 0)


def _same_rows(name: str, x: jax.Array, other_name: str, other: jax.Array) -> None:
    n = other.shape[0]
    if x.shape[0] != n:
        raise ValueError(
            f"{name} must have a row for each of the {n} rows of {other_name}, "
            f"got {x.shape}"
        )


def _of_student(pair: pairwise.Pair) -> jax.Array:
    return pair.logits[0]


def _of_student_by_teacher(pair: pairwise.Pair) -> jax.Array:
    return jnp.exp(pair.logits[1] - pair.anchor) * pair.logits[0]
