"""Neighbors against dense float64 NumPy and scikit-learn, on ragged blocks."""

import jax
import numpy as np
from absl.testing import absltest, parameterized
from sklearn import neighbors as sklearn_neighbors

from jaxcl import evaluation
from jaxcl.evaluation import neighbors


def cosines(queries, keys):
    """All cosines [q, m], float64."""
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    norms = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(keys, axis=1))
    return queries @ keys.T / norms


def votes(train_h, labels, test_h, k, num_classes, temperature):
    """Votes of each class [q, c], one query at a time."""
    result = []
    for row in cosines(test_h, train_h):
        near = np.argsort(-row, kind="stable")[:k]
        weight = np.ones(k) if temperature is None else np.exp(row[near] / temperature)
        result.append([weight[labels[near] == c].sum() for c in range(num_classes)])
    return np.array(result)


class NearestTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        self.queries = random.normal(size=(23, 6)).astype(np.float32)
        self.keys = random.normal(size=(37, 6)).astype(np.float32)

    @parameterized.product(block=(1, 5, 16, 1024), k=(1, 7, 37))
    def test_equals_sorting_all_cosines(self, block, k):
        found = evaluation.nearest(self.queries, self.keys, k, block=block)
        every = cosines(self.queries, self.keys)
        expected = np.argsort(-every, axis=1)[:, :k]
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_allclose(
            found.cosines, np.take_along_axis(every, expected, axis=1), atol=1e-6
        )
        self.assertEqual(found.cosines.dtype, np.float32)

    @parameterized.parameters(5, 64)
    def test_no_key_is_its_own_neighbor(self, block):
        found = evaluation.nearest(
            self.keys, self.keys, 36, exclude_self=True, block=block
        )
        every = cosines(self.keys, self.keys)
        np.fill_diagonal(every, -2)
        np.testing.assert_array_equal(found.indices, np.argsort(-every, axis=1)[:, :36])

    @parameterized.parameters(3, 64)
    def test_equal_keys_are_ordered_by_index(self, block):
        keys = np.tile(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), (5, 1))
        found = evaluation.nearest(keys[:2], keys, 10, block=block)
        np.testing.assert_array_equal(found.indices[0], [0, 2, 4, 6, 8, 1, 3, 5, 7, 9])
        np.testing.assert_array_equal(found.indices[1], [1, 3, 5, 7, 9, 0, 2, 4, 6, 8])

    @parameterized.parameters(1e-200, 1e-30, 1e30, 1e200)
    def test_length_does_not_matter(self, length):
        found = evaluation.nearest(np.float64(length) * self.queries, self.keys, 5)
        expected = evaluation.nearest(self.queries, self.keys, 5)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.cosines, expected.cosines, atol=1e-6)

    def test_a_zero_vector_has_cosine_zero(self):
        found = evaluation.nearest(np.zeros((1, 6)), self.keys, 3)
        np.testing.assert_array_equal(found.indices, [[0, 1, 2]])
        np.testing.assert_array_equal(found.cosines, np.zeros((1, 3)))

    def test_memory_does_not_grow_with_the_number_of_pairs(self):
        def temporary(n):
            h = jax.ShapeDtypeStruct((n, 4), np.float32)
            program = neighbors._nearest.lower(
                h, h, k=5, exclude_self=True, block=128
            ).compile()
            return program.memory_analysis().temp_size_in_bytes

        small, large = temporary(2048), temporary(8192)
        self.assertLess(large, 0.05 * 4 * 8192**2)  # of one float32 matrix of pairs
        self.assertLess(large, 5 * small)  # pairs grow by 16, rows by 4

    def test_bad_input_is_named(self):
        good = self.keys
        cases = [
            (TypeError, "queries must be floating", (good.astype(int), good, 1), {}),
            (ValueError, r"queries must be \[n, r\]", (good[0], good, 1), {}),
            (ValueError, r"keys must be \[n, 6\]", (good, good[:, :5], 1), {}),
            (ValueError, "k must be at most the 37 keys, got 38", (good, good, 38), {}),
            (ValueError, "36 other keys", (good, good, 37), {"exclude_self": True}),
            (ValueError, "23 queries", (self.queries, good, 1), {"exclude_self": True}),
            (ValueError, "k must be at least 1", (good, good, 0), {}),
            (TypeError, "k must be an integer", (good, good, 1.0), {}),
            (ValueError, "block must be at least 1", (good, good, 1), {"block": 0}),
        ]
        for error, message, arguments, options in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.nearest(*arguments, **options)
        good = good.copy()
        good[[3, 5], 1] = np.nan, np.inf
        with self.assertRaisesRegex(ValueError, "keys.*2 of 37 rows.*row 3"):
            evaluation.nearest(self.queries, good, 1)


class KNNTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(1)
        centres = random.normal(size=(4, 5))
        self.labels = random.integers(4, size=61)
        self.train_h = centres[self.labels] + random.normal(size=(61, 5))
        self.test_h = random.normal(size=(29, 5))

    @parameterized.product(k=(1, 6, 61), temperature=(None, 0.07, 0.01), block=(7, 64))
    def test_the_label_with_most_votes_wins(self, k, temperature, block):
        predicted = evaluation.knn(
            self.train_h,
            self.labels,
            self.test_h,
            k=k,
            num_classes=4,
            temperature=temperature,
            block=block,
        )
        expected = votes(self.train_h, self.labels, self.test_h, k, 4, temperature)
        won = expected[np.arange(29), predicted]
        np.testing.assert_allclose(won, expected.max(axis=1), rtol=1e-3)
        # Where there is no tie, the label itself is known.
        second = np.sort(expected, axis=1)[:, -2]
        clear = expected.max(axis=1) > 1.001 * second
        self.assertGreater(clear.mean(), 0.5)
        np.testing.assert_array_equal(predicted[clear], expected.argmax(axis=1)[clear])

    def test_equals_scikit_learn(self):
        model = sklearn_neighbors.KNeighborsClassifier(
            1, metric="cosine", algorithm="brute"
        )
        model.fit(self.train_h, self.labels)
        predicted = evaluation.knn(
            self.train_h, self.labels, self.test_h, k=1, num_classes=4
        )
        np.testing.assert_array_equal(predicted, model.predict(self.test_h))

    def test_a_tie_goes_to_the_nearest(self):
        angles = np.array([0.1, 0.2, -0.3, -0.4])
        train_h = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        query = np.array([[1.0, 0.0]])
        for nearest, other in ((0, 2), (2, 0)):
            predicted = evaluation.knn(
                train_h,
                np.array([nearest, nearest, other, other]),
                query,
                k=4,
                num_classes=3,
            )
            np.testing.assert_array_equal(predicted, [nearest])

    def test_a_tiny_temperature_is_the_single_nearest(self):
        options = {"num_classes": 4, "block": 16}
        sharp = evaluation.knn(
            self.train_h, self.labels, self.test_h, k=9, temperature=1e-6, **options
        )
        single = evaluation.knn(self.train_h, self.labels, self.test_h, k=1, **options)
        np.testing.assert_array_equal(sharp, single)

    def test_bad_input_is_named(self):
        good = {
            "train_h": self.train_h,
            "train_labels": self.labels,
            "test_h": self.test_h,
            "k": 3,
            "num_classes": 4,
        }
        cases = [
            (TypeError, "integers, got float64", {"train_labels": self.labels * 1.0}),
            (ValueError, r"must be \[61\]", {"train_labels": self.labels[:60]}),
            (ValueError, r"in \[0, 3\).*0 to 3", {"num_classes": 3}),
            (ValueError, "-1 to 2", {"train_labels": self.labels - 1}),
            (ValueError, "k must be at most the 61 keys", {"k": 62}),
            (ValueError, r"test_h must be \[n, 5\]", {"test_h": self.test_h[:, 1:]}),
            (ValueError, "temperature must be positive.* got 0", {"temperature": 0.0}),
        ]
        for error, message, change in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.knn(**(good | change))


if __name__ == "__main__":
    absltest.main()
