"""What augmentations of graphs should give, by definition: loops, fractions."""

import collections
import fractions
import itertools

import numpy as np


def share(ratio, n):
    """floor(ratio n) for a ratio written as a decimal or as 'a/b'."""
    return int(fractions.Fraction(ratio) * n)


def smallest(bits, graph, valid, share):
    """The smallest of each graph's valid ones; of equal ones the first."""
    chosen = np.zeros(len(bits), bool)
    for g, count in enumerate(share):
        own = [i for i in range(len(bits)) if graph[i] == g and valid[i]]
        own.sort(key=lambda i: (int(bits[i]), i))
        chosen[own[:count]] = True
    return chosen


def edges_between(edges, edge_valid, kept):
    """Which edges are left when only some nodes are."""
    left = edge_valid.copy()
    for e in np.flatnonzero(edge_valid):
        left[e] = kept[edges[e, 0]] and kept[edges[e, 1]]
    return left


def growth(nodes, edges, size):
    """Probability of each set of nodes that the random-walk subgraph may keep.

    Sequentially, as it is defined: from a node drawn uniformly, an edge that leads out
    is drawn uniformly and followed; where none does, another node is drawn.
    """
    states = {frozenset(): fractions.Fraction(1)}
    for _ in range(size):
        following = collections.defaultdict(fractions.Fraction)
        for kept, probability in states.items():
            out = [j for e in edges for i, j in (e, e[::-1]) if i in kept]
            out = [j for j in out if j not in kept] or [
                i for i in nodes if i not in kept
            ]
            for j in out:
                following[kept | {j}] += probability / len(out)
        states = following
    return {tuple(sorted(kept)): float(p) for kept, p in states.items()}


def is_walk(nodes, edges, kept):
    """Whether growth could have kept these nodes: all but one component are whole."""
    left = set(nodes)
    parts = []
    while left:
        part, border = set(), {min(left)}
        while border:
            part |= border
            ends = itertools.chain.from_iterable((e, e[::-1]) for e in edges)
            border = {j for i, j in ends if i in part} - part
        parts.append(part)
        left -= part
    cut = [part for part in parts if part & kept and not part <= kept]
    if len(cut) > 1:
        return False
    inside = [e for e in edges if set(e) <= kept]
    return not cut or len(growth_front(cut[0] & kept, inside)) == len(cut[0] & kept)


def growth_front(nodes, edges):
    """All nodes that can be reached from one of them."""
    reached = {min(nodes)}
    for _ in nodes:
        reached |= {j for e in edges for i, j in (e, e[::-1]) if i in reached}
    return reached & nodes
