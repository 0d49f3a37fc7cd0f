"""Histograms and Weisfeiler-Lehman kernels against their definitions."""

import collections
import itertools
import math

import numpy as np
from absl.testing import absltest, parameterized

from jaxcl import evaluation
from jaxcl.data.graphs import Graphs


def packed(each):
    """Graphs from (number of nodes, pairs, labels or None) of each."""
    sizes, pairs, labels = zip(*each, strict=True)
    ends = [np.cumsum([0, *map(len, x)]) for x in ([range(n) for n in sizes], pairs)]
    edges = np.array([p for of in pairs for p in of], np.int32).reshape(-1, 2)
    if labels[0] is not None:
        labels = np.concatenate(labels).astype(np.int32)
    else:
        labels = None
    nodes = np.zeros((sum(sizes), 0), np.float32)
    return Graphs(nodes, ends[0], edges, ends[1], labels)


def cycle(n, first=0):
    return [(first + i, first + (i + 1) % n) for i in range(n)]


def random_graphs(seed, labelled, count=9):
    """Graphs of 0 to 8 nodes; the first one has none, the second one no edge."""
    random, each = np.random.default_rng(seed), []
    for size in [0, 3, *random.integers(2, 9, size=count - 2)]:
        every = list(itertools.combinations(range(size), 2))
        share = 0.0 if size == 3 else 0.4
        pairs = [p if random.random() < 0.5 else p[::-1] for p in every]
        pairs = [p for p in pairs if random.random() < share]
        each.append((size, pairs, random.choice([0, 2, 5], size) if labelled else None))
    return each


def colors_of(graph, iterations):
    """Counts of the unfolded colors of a graph: nested tuples, no numbering."""
    size, pairs, labels = graph
    around = [
        [b if a == i else a for a, b in pairs if i in (a, b)] for i in range(size)
    ]
    color = [len(x) for x in around] if labels is None else [int(x) for x in labels]
    counts = collections.Counter((0, c) for c in color)
    for iteration in range(1, iterations + 1):
        color = [
            (color[i], tuple(sorted((color[j] for j in around[i]), key=repr)))
            for i in range(size)
        ]
        counts.update((iteration, c) for c in color)
    return counts


def cosine(a, b):
    """Of two dictionaries of counts."""

    def dot(x, y):
        return sum(count * y[color] for color, count in x.items())

    norm = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / norm if norm else 0.0


class HistogramTest(parameterized.TestCase):
    def test_labels_and_degrees_are_counted_graph_by_graph(self):
        each = random_graphs(0, labelled=True)
        labels = evaluation.label_histogram(packed(each))
        degrees = evaluation.degree_histogram(packed(each))
        self.assertEqual(labels.shape, (9, 6))
        for row, (size, pairs, of_nodes) in enumerate(each):
            expected = [np.sum(of_nodes == label) for label in range(6)]
            np.testing.assert_array_equal(labels[row], expected)
            ends = [i for pair in pairs for i in pair]
            of_nodes = [ends.count(i) for i in range(size)]
            expected = [of_nodes.count(d) for d in range(degrees.shape[1])]
            np.testing.assert_array_equal(degrees[row], expected)
            self.assertEqual(degrees[row].sum(), size)
        self.assertGreater(degrees[:, -1].sum(), 0)
        self.assertEqual((labels.dtype, degrees.dtype), (np.float32, np.float32))

    def test_degrees_above_the_most_are_counted_with_it(self):
        star = [(0, i) for i in range(1, 6)]
        found = evaluation.degree_histogram(packed([(6, star, None)]), most=3)
        np.testing.assert_array_equal(found, [[0, 5, 0, 1]])

    def test_graphs_without_labels_have_degrees(self):
        graphs = packed([(2, [(0, 1)], None)])
        with self.assertRaisesRegex(ValueError, "node_labels, got None; degree_hist"):
            evaluation.label_histogram(graphs)
        negative = graphs._replace(node_labels=np.array([0, -1]))
        with self.assertRaisesRegex(ValueError, "at least 0, got -1"):
            evaluation.label_histogram(negative)
        with self.assertRaisesRegex(ValueError, "most must be"):
            evaluation.degree_histogram(graphs, most=0)


class WeisfeilerLehmanTest(parameterized.TestCase):
    @parameterized.product(seed=(0, 1, 2), labelled=(True, False))
    def test_equals_the_definition(self, seed, labelled):
        each = random_graphs(seed, labelled)
        kernels = evaluation.weisfeiler_lehman(packed(each), 3)
        self.assertLen(kernels, 4)
        for h, kernel in enumerate(kernels):
            counts = [colors_of(graph, h) for graph in each]
            expected = [[cosine(a, b) for b in counts] for a in counts]
            np.testing.assert_allclose(kernel, expected, rtol=3e-7)
            np.testing.assert_array_equal(kernel, kernel.T)
            self.assertEqual(kernel.dtype, np.float32)
        self.assertTrue(np.any(kernels[0] != kernels[1]))

    @parameterized.parameters(True, False)
    def test_the_order_of_nodes_and_edges_changes_nothing(self, labelled):
        each = random_graphs(3, labelled)
        random, mixed = np.random.default_rng(0), []
        for size, pairs, labels in each:
            order = random.permutation(size)
            pairs = [(order[b], order[a]) for a, b in random.permutation(pairs)]
            if labels is not None:
                labels = labels[np.argsort(order)]
            mixed.append((size, pairs, labels))
        for found, expected in zip(
            evaluation.weisfeiler_lehman(packed(mixed), 3),
            evaluation.weisfeiler_lehman(packed(each), 3),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            evaluation.degree_histogram(packed(mixed)),
            evaluation.degree_histogram(packed(each)),
        )

    def test_two_triangles_are_a_hexagon_to_it_and_a_path_is_not(self):
        triangles = cycle(3) + cycle(3, first=3)
        path = cycle(6)[:-1]
        graphs = packed([(6, pairs, None) for pairs in (triangles, cycle(6), path)])
        for kernel in evaluation.weisfeiler_lehman(graphs, 4):
            self.assertAlmostEqual(kernel[0, 1], 1.0, places=6)
            self.assertLess(kernel[0, 2], 0.9)

    def test_neighbors_of_equal_degrees_are_told_apart_by_the_second_iteration(self):
        # Trees of the same degrees: a leaf hangs from another place of a path.
        path = [(0, 1), (1, 2), (2, 3), (3, 4)]
        graphs = packed([(6, [*path, (1, 5)], None), (6, [*path, (2, 5)], None)])
        same, other, *_ = evaluation.weisfeiler_lehman(graphs, 1)
        self.assertAlmostEqual(same[0, 1], 1.0, places=6)
        self.assertLess(other[0, 1], 0.99)

    def test_bad_input_is_named(self):
        with self.assertRaisesRegex(ValueError, "iterations must be"):
            evaluation.weisfeiler_lehman(packed([(1, [], None)]), -1)


if __name__ == "__main__":
    absltest.main()
