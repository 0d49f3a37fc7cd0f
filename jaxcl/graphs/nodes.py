"""Who belongs together: nodes that carry their identity, and relations between them.

Edges are never stored: each node carries a `group` (belongs together) and an `index`
(is the same node), and a relation is an elementwise test on the two. Tiles, shards and
queues then need no arithmetic on positions; the position of a shard is known here only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import _checks, mesh


class Nodes(NamedTuple):
    """Embeddings and who they are.

    Attributes:
      z: embeddings [n, d].
      group: nodes with the same number belong together, int [n].
      index: nodes with the same number are the same node, int [n].
      valid: which nodes take part, bool [n]; the others are zero in `z`.
      extra: a pytree of floating arrays [n] that scores may read (`pairwise.Pair`).
    """

    z: jax.Array
    group: jax.Array
    index: jax.Array  # type: ignore[assignment]  # hides tuple.index
    valid: jax.Array
    extra: Any = ()


def positives(anchor: Nodes, candidate: Nodes) -> jax.Array:
    """Tells whether a candidate belongs to the anchor's group and is another node.

    Args:
      anchor: identities, of any shape that broadcasts with the candidate's.
      candidate: identities.

    Returns:
      Booleans of the broadcast shape.
    """
    return (anchor.group == candidate.group) & (anchor.index != candidate.index)


def negatives(anchor: Nodes, candidate: Nodes) -> jax.Array:
    """Tells whether a candidate belongs to another group than the anchor.

    Args:
      anchor: identities, of any shape that broadcasts with the candidate's.
      candidate: identities.

    Returns:
      Booleans of the broadcast shape.
    """
    return anchor.group != candidate.group


def others(anchor: Nodes, candidate: Nodes) -> jax.Array:
    """Tells whether a candidate is another node than the anchor.

    Args:
      anchor: identities, of any shape that broadcasts with the candidate's.
      candidate: identities.

    Returns:
      Booleans of the broadcast shape.
    """
    return anchor.index != candidate.index


def views(
    z: jax.Array,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    groups: jax.Array | None = None,
) -> Nodes:
    """Builds the nodes of augmented views: the views of one example belong together.

    Args:
      z: embeddings [b, v, d], v views of each example.
      valid: examples to keep [b]; None keeps all.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      groups: integers [b]; examples with the same number belong together as well.

    Returns:
      b * v nodes, the views of an example next to each other.

    Raises:
      TypeError: if `z` is not a floating array, `valid` not boolean, or `groups` not
        integer.
      ValueError: if a shape is wrong.

    >>> print(views(jnp.ones((2, 3, 5))).group)
    [0 0 0 1 1 1]
    """
    _checks.embeddings("z", z, "b v d")
    b, v, d = z.shape
    _checks.mask("valid", valid, b)
    first = mesh.position(axis_name) * b
    if groups is None:
        groups = jnp.arange(b) + first
    else:
        _checks.labels("groups", groups, b)
    index = jnp.arange(b * v) + first * v
    valid = None if valid is None else jnp.repeat(valid, v)
    return _nodes(z.reshape(b * v, d), jnp.repeat(groups, v), index, valid)


def labelled(
    z: jax.Array,
    labels: jax.Array,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> Nodes:
    """Builds nodes from labels: embeddings with one label belong together.

    Args:
      z: embeddings [n, d].
      labels: integers [n]; any values.
      valid: embeddings to keep [n]; None keeps all.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      n nodes.

    Raises:
      TypeError: if `z` is not floating, `labels` not integer, or `valid` not boolean.
      ValueError: if a shape is wrong.

    >>> print(labelled(jnp.ones((3, 2)), jnp.array([7, -1, 7])).group)
    [ 7 -1  7]
    """
    _checks.embeddings("z", z, "n d")
    n = z.shape[0]
    _checks.labels("labels", labels, n)
    _checks.mask("valid", valid, n)
    index = jnp.arange(n) + mesh.position(axis_name) * n
    return _nodes(z, jnp.asarray(labels), index, valid)


def pairs(
    x: jax.Array,
    y: jax.Array,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    groups: jax.Array | None = None,
) -> tuple[Nodes, Nodes]:
    """Builds two sets of nodes in which row i of both belongs together.

    Args:
      x: embeddings [b, d], say of images.
      y: embeddings [b, d], say of texts.
      valid: pairs to keep [b]; None keeps all.
      axis_name: mesh axes over which the pairs are sharded, inside `shard_map`.
      groups: integers [b]; pairs with the same number belong together as well.

    Returns:
      The nodes of x and the nodes of y. No node of one set is a node of the other.

    Raises:
      TypeError: if an embedding is not a floating array, `valid` not boolean, or
        `groups` not integer.
      ValueError: if the shapes differ or are wrong.

    >>> images, texts = pairs(jnp.ones((2, 4)), jnp.ones((2, 4)))
    >>> print(images.index, texts.index)
    [0 1] [2 3]
    """
    _checks.paired("x", x, "y", y)
    b = x.shape[0]
    _checks.mask("valid", valid, b)
    row = jnp.arange(b) + mesh.position(axis_name) * b
    total = b * mesh.size(axis_name)
    if groups is None:
        groups = row
    else:
        _checks.labels("groups", groups, b)
    return _nodes(x, groups, row, valid), _nodes(y, groups, row + total, valid)


def two_views(
    views: jax.Array,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> tuple[Nodes, Nodes]:
    """Builds the first views and the second views as two sets of nodes, as `pairs`.

    Args:
      views: embeddings [b, 2, d].
      valid: examples to keep [b]; None keeps all.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.

    Returns:
      The nodes of the first and of the second views.

    Raises:
      TypeError: if `views` is not a floating array, or `valid` not boolean.
      ValueError: if there are not two views, or a shape is wrong.

    >>> first, second = two_views(jnp.ones((3, 2, 4)))
    >>> print(first.group, second.index)
    [0 1 2] [3 4 5]
    """
    _checks.embeddings("views", views, "b v d")
    if views.shape[1] != 2:
        raise ValueError(
            f"views must hold exactly 2 views of each example, got {views.shape}"
        )
    return pairs(views[:, 0], views[:, 1], valid, axis_name)


def keyed(
    queries: jax.Array,
    keys: jax.Array,
    negatives: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    groups: jax.Array | None = None,
) -> tuple[Nodes, Nodes]:
    """Builds queries and what they are compared with: keys and a queue of negatives.

    Args:
      queries: embeddings [n, d].
      keys: embeddings [m, d], m >= n. Row i of the global array belongs to row i of the
        global array of queries.
      negatives: embeddings [k, d] that belong to nobody, such as a queue.
      valid: masks query i and key i [n]; further keys are always valid.
      axis_name: mesh axes over which all of them are sharded, inside `shard_map`.
      groups: integers [n] of query i and key i; those with the same number belong
        together as well. Further keys and the queue belong to none of them.

    Returns:
      The n queries and the m + k candidates.

    Raises:
      TypeError: if an embedding is not a floating array, `valid` not boolean, or
        `groups` not integer.
      ValueError: if there are fewer keys than queries, or a shape is wrong.
    """
    _checks.embeddings("queries", queries, "n d")
    _checks.embeddings("keys", keys, "m d")
    _checks.same_width("queries", queries, "keys", keys)
    n, m = queries.shape[0], keys.shape[0]
    if m < n:
        raise ValueError(
            f"keys must have at least as many rows as queries, got {m} keys for "
            f"{n} queries"
        )
    _checks.mask("valid", valid, n)
    position, devices = mesh.position(axis_name), mesh.size(axis_name)
    query = jnp.arange(n) + position * n
    key = jnp.arange(m) + position * m
    # Key i is masked by query i's mask, which may live on another device.
    key_valid, group, key_group = valid, query, key
    if groups is not None:
        _checks.labels("groups", groups, n)
        # By the first of its rows, so that no other key can have a group's number.
        group = key_group = _first_rows(groups, query, axis_name)
    if m > n:
        own = key < n * devices

        def of_key(x: jax.Array, else_: Any) -> jax.Array:
            everyone = mesh.all_rows(x, axis_name)
            return jnp.where(own, everyone[jnp.minimum(key, n * devices - 1)], else_)

        key_group = key if groups is None else of_key(group, key)
        key_valid = None if valid is None else of_key(valid, True)
    anchors = _nodes(queries, group, query, valid)
    candidates = _nodes(keys, key_group, key + n * devices, key_valid)
    if negatives is None:
        return anchors, candidates
    _checks.embeddings("negatives", negatives, "k d")
    _checks.same_width("queries", queries, "negatives", negatives)
    k = negatives.shape[0]
    alone = jnp.arange(k) + position * k + m * devices
    queue = _nodes(negatives, alone, alone + n * devices, None)
    return anchors, _joined(candidates, queue)


def queued(
    z: jax.Array,
    labels: jax.Array,
    negatives: jax.Array,
    negative_labels: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> tuple[Nodes, Nodes]:
    """Builds nodes from labels and what they are compared with: each other, a queue.

    Args:
      z: embeddings [n, d].
      labels: integers [n]; any values.
      negatives: embeddings [k, d] of a queue, which are nobody's anchors.
      negative_labels: integers [k]; entries of the queue belong to the embeddings of
        their label. None: they belong to nobody.
      valid: embeddings to keep [n]; the queue is always valid.
      axis_name: mesh axes over which all of them are sharded, inside `shard_map`.

    Returns:
      The n anchors and the n + k candidates.

    Raises:
      TypeError: if an embedding is not floating, a label not integer, or `valid` not
        boolean.
      ValueError: if a shape is wrong.

    >>> labels, of_queue = jnp.array([7, 8]), jnp.array([8, 9, 9])
    >>> nodes, others = queued(jnp.ones((2, 4)), labels, jnp.ones((3, 4)), of_queue)
    >>> print(others.group, has_positive(nodes, candidates=others))
    [7 8 8 9 9] [False  True]
    """
    anchors = labelled(z, labels, valid, axis_name)
    _checks.embeddings("negatives", negatives, "k d")
    _checks.same_width("z", z, "negatives", negatives)
    n, k = z.shape[0], negatives.shape[0]
    index = jnp.arange(k) + mesh.position(axis_name) * k + n * mesh.size(axis_name)
    if negative_labels is None:
        # No label can stand for nobody: each becomes the first of its rows, and those
        # of the queue lie behind.
        group = _first_rows(anchors.group, anchors.index, axis_name)
        queue = _nodes(negatives, index, index, None)
    else:
        _checks.labels("negative_labels", negative_labels, k)
        group = anchors.group.astype(int)
        queue = _nodes(negatives, jnp.asarray(negative_labels).astype(int), index, None)
    anchors = anchors._replace(group=group)
    return anchors, _joined(anchors, queue)


def two_sets(
    x: jax.Array,
    y: jax.Array,
    valid: jax.Array | None = None,
    y_valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> tuple[Nodes, Nodes]:
    """Builds two sets of nodes of one group: whom an anchor is near to, a score says.

    Args:
      x: embeddings [n, d], the anchors.
      y: embeddings [m, d], the candidates; row i of both need not belong together.
      valid: rows of x to keep [n]; None keeps all.
      y_valid: rows of y to keep [m]; None keeps all.
      axis_name: mesh axes over which both are sharded, inside `shard_map`.

    Returns:
      The nodes of x and the nodes of y. No node of one set is a node of the other.

    Raises:
      TypeError: if an embedding is not a floating array, or a mask not boolean.
      ValueError: if a shape is wrong.

    >>> x, y = two_sets(jnp.ones((2, 4)), jnp.ones((3, 4)))
    >>> print(x.index, y.index)
    [0 1] [2 3 4]
    """
    _checks.embeddings("x", x, "n d")
    _checks.embeddings("y", y, "m d")
    _checks.same_width("x", x, "y", y)
    (n, _), (m, _) = x.shape, y.shape
    anchors = labelled(x, jnp.zeros(n, int), valid, axis_name)
    candidates = labelled(y, jnp.zeros(m, int), y_valid, axis_name)
    index = candidates.index + n * mesh.size(axis_name)
    return anchors, candidates._replace(index=index)


def count_positives(
    nodes: Nodes,
    axis_name: mesh.AxisName | None = None,
    *,
    candidates: Nodes | None = None,
) -> jax.Array:
    """Counts the positives of each node.

    Args:
      nodes: n nodes.
      axis_name: mesh axes over which the nodes are sharded, inside `shard_map`.
      candidates: m nodes to look among, such as those of `queued`; None: the nodes
        themselves.

    Returns:
      The number of other valid nodes of the node's group, int [n]; 0 where not valid.

    >>> print(count_positives(labelled(jnp.ones((4, 2)), jnp.array([5, 5, 5, 6]))))
    [2 2 2 0]
    """
    if candidates is None:
        count = _occurrences(nodes.group, nodes.valid, axis_name) - 1
    else:
        among = candidates.valid
        count = _occurrences(candidates.group, among, axis_name, nodes.group)
        count -= _occurrences(candidates.index, among, axis_name, nodes.index)
    return jnp.where(nodes.valid, count, 0)


def has_positive(
    nodes: Nodes,
    axis_name: mesh.AxisName | None = None,
    *,
    candidates: Nodes | None = None,
) -> jax.Array:
    """Tells which nodes have a positive.

    Args:
      nodes: n nodes.
      axis_name: mesh axes over which the nodes are sharded, inside `shard_map`.
      candidates: m nodes to look among, such as those of `queued`; None: the nodes
        themselves.

    Returns:
      Booleans [n]; False where not valid.

    >>> print(has_positive(labelled(jnp.ones((3, 2)), jnp.array([5, 5, 6]))))
    [ True  True False]
    """
    return count_positives(nodes, axis_name, candidates=candidates) > 0


def count_valid(nodes: Nodes, axis_name: mesh.AxisName | None = None) -> jax.Array:
    """Counts the nodes that take part, on all devices.

    Args:
      nodes: n nodes.
      axis_name: mesh axes over which the nodes are sharded, inside `shard_map`.

    Returns:
      An integer [].

    >>> print(count_valid(labelled(jnp.ones((4, 2)), jnp.array([5, 5, 5, 6]))))
    4
    """
    return mesh.total(nodes.valid.sum(), axis_name)


def count_negatives(nodes: Nodes, axis_name: mesh.AxisName | None = None) -> jax.Array:
    """Counts the negatives of each node.

    Args:
      nodes: n nodes.
      axis_name: mesh axes over which the nodes are sharded, inside `shard_map`.

    Returns:
      The number of valid nodes of other groups, int [n]; 0 where not valid.

    >>> print(count_negatives(labelled(jnp.ones((4, 2)), jnp.array([5, 5, 5, 6]))))
    [1 1 1 3]
    """
    members = count_positives(nodes, axis_name) + 1
    return jnp.where(nodes.valid, count_valid(nodes, axis_name) - members, 0)


def _occurrences(
    numbers: jax.Array,
    valid: jax.Array,
    axis_name: mesh.AxisName | None,
    asked: jax.Array | None = None,
) -> jax.Array:
    """How often, on all devices, each number that is asked occurs among valid ones.

    None asks for the numbers themselves.
    """
    everyone, counts = (
        mesh.all_rows(numbers, axis_name),
        mesh.all_rows(valid, axis_name),
    )
    if asked is None:
        n = numbers.shape[0]
    else:
        n, questions = asked.shape[0], mesh.all_rows(asked, axis_name)
        everyone = jnp.concatenate([questions, everyone])
        counts = jnp.concatenate([jnp.zeros(questions.shape, bool), counts])
    # Sorting costs n log n, where comparing all pairs would cost n^2.
    order = jnp.argsort(everyone)
    rank = jnp.cumsum(_starts(everyone[order]))
    total = jax.ops.segment_sum(
        counts[order].astype(int), rank, num_segments=everyone.shape[0]
    )
    found = jnp.zeros_like(total).at[order].set(total[rank])
    return mesh.own_rows(found, n, axis_name)


def _first_rows(
    groups: jax.Array, row: jax.Array, axis_name: mesh.AxisName | None
) -> jax.Array:
    """The lowest row, among all devices, of each row's group."""
    everyone, rows = mesh.all_rows(groups, axis_name), mesh.all_rows(row, axis_name)
    order = jnp.argsort(everyone)
    rank = jnp.cumsum(_starts(everyone[order]))
    lowest = jax.ops.segment_min(rows[order], rank, num_segments=everyone.shape[0])
    first = jnp.zeros_like(rows).at[order].set(lowest[rank])
    return mesh.own_rows(first, groups.shape[0], axis_name)


def _joined(nodes: Nodes, queue: Nodes) -> Nodes:
    """Candidates and a queue as one set of nodes."""
    # A float32 queue beside bfloat16 embeddings is common, and exact once raised.
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(nodes.z.dtype, queue.z.dtype)
    parts = [part._replace(z=part.z.astype(dtype)) for part in (nodes, queue)]
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)


def _nodes(
    z: jax.Array, group: jax.Array, index: jax.Array, valid: jax.Array | None
) -> Nodes:
    if valid is None:
        return Nodes(jnp.asarray(z), group, index, jnp.ones(z.shape[0], bool))
    # Rows that are not valid may hold NaN. Zeroed here, before anything sees them, they
    # can reach neither a value nor a gradient.
    valid = jnp.asarray(valid)
    return Nodes(jnp.where(valid[:, None], z, 0), group, index, valid)


def _starts(x: jax.Array) -> jax.Array:
    """Marks where a new value begins in a sorted array."""
    return jnp.concatenate([jnp.zeros(1, bool), x[1:] != x[:-1]])
