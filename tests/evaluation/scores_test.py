"""Accuracy, draws of few labels, and the three scores on real digits."""

import numpy as np
import pytest
from absl.testing import absltest, parameterized
from sklearn import datasets

from jaxcl import evaluation


def digits():
    h, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(h))
    return (h[order] / 16).astype(np.float32), labels[order]


class AccuracyTest(parameterized.TestCase):
    def test_counts_equal_labels(self):
        predicted, labels = np.array([3, 1, 4, 1, 5]), np.array([3, 1, 4, 2, 6])
        self.assertEqual(evaluation.accuracy(predicted, labels), 0.6)
        self.assertIsInstance(evaluation.accuracy(predicted, labels), float)

    def test_bad_input_is_named(self):
        labels = np.arange(3)
        cases = [
            (TypeError, "predicted must be integers", labels * 1.0, labels),
            (TypeError, "labels must be integers", labels, labels * 1.0),
            (ValueError, r"predicted must be \[3\]", labels[:2], labels),
            (ValueError, r"labels must be \[n\]", labels, labels[:0]),
            (ValueError, r"predicted must be \[n\]", labels[:, None], labels),
        ]
        for error, message, predicted, labels in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.accuracy(predicted, labels)


class FewLabelsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.labels = np.random.default_rng(0).integers(5, size=203)

    @parameterized.parameters(1, 10)
    def test_every_class_is_drawn_equally_and_no_row_twice(self, per_class):
        rows = evaluation.few_labels(self.labels, per_class, seed=0)
        self.assertLen(set(rows.tolist()), 5 * per_class)
        np.testing.assert_array_equal(
            np.bincount(self.labels[rows]), np.full(5, per_class)
        )

    def test_the_seed_decides(self):
        def draw(seed):
            return evaluation.few_labels(self.labels, 10, seed).tolist()

        self.assertEqual(draw(3), draw(3))
        self.assertEqual(draw((3, 1)), draw((3, 1)))
        self.assertNotEqual(draw(3), draw(4))
        self.assertNotEqual(draw((3, 1)), draw((3, 2)))

    def test_every_row_of_a_class_is_as_likely_as_another(self):
        labels = np.array([0] * 6 + [1] * 4)
        counts = np.zeros(10)
        for seed in range(600):
            counts[evaluation.few_labels(labels, 2, seed)] += 1
        # Binomial with p = 1/3 and 1/2; five standard deviations.
        self.assertLess(np.abs(counts[:6] - 200).max(), 5 * np.sqrt(600 * 2 / 9))
        self.assertLess(np.abs(counts[6:] - 300).max(), 5 * np.sqrt(600 / 4))

    def test_bad_input_is_named(self):
        labels = np.array([0, 0, 0, 7, 7])
        cases = [
            (ValueError, "got 3, but class 7 has 2", labels, 3),
            (ValueError, "per_class must be at least 1", labels, 0),
            (TypeError, "labels must be integers", labels * 1.0, 1),
        ]
        for error, message, labels, per_class in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.few_labels(labels, per_class, seed=0)


class ProbeScoresTest(parameterized.TestCase):
    @pytest.mark.slow
    def test_raw_digits_score_what_is_known_of_them(self):
        # Seen with scikit-learn on other shuffles: 98, 88.5 and 98 %.
        h, labels = digits()
        scores = evaluation.probe_scores(
            h[:1300], labels[:1300], h[1300:], labels[1300:], num_classes=10
        )
        self.assertBetween(scores.knn, 0.97, 0.995)
        self.assertBetween(scores.few_labels, 0.85, 0.925)
        self.assertBetween(scores.all_labels, 0.96, 0.99)

    def test_the_parts_are_the_probes_of_the_same_names(self):
        h, labels = digits()
        train, test = (h[:301], labels[:301]), (h[301:401], labels[301:401])
        scores = evaluation.probe_scores(
            *train, *test, num_classes=10, k=3, temperature=None, per_class=10, draws=2
        )
        voted = evaluation.knn(*train, test[0], k=3, num_classes=10)
        self.assertEqual(scores.knn, evaluation.accuracy(voted, test[1]))
        few = []
        for draw in range(2):
            rows = evaluation.few_labels(train[1], 10, (0, draw))
            probe = evaluation.logistic_probe(
                train[0][rows], train[1][rows], num_classes=10
            )
            few.append(evaluation.accuracy(evaluation.predict(probe, test[0]), test[1]))
        self.assertEqual(scores.few_labels, np.mean(few))

    @pytest.mark.slow
    def test_test_rows_do_not_change_what_is_learned(self):
        h, labels = digits()
        train = h[:301], labels[:301]
        options = {"num_classes": 10, "draws": 1}
        both = evaluation.probe_scores(*train, h[301:401], labels[301:401], **options)
        halves = [
            evaluation.probe_scores(*train, h[rows], labels[rows], **options)
            for rows in (slice(301, 351), slice(351, 401))
        ]
        np.testing.assert_allclose(np.mean(halves, axis=0), both, atol=1e-12)

    # Rows of an identity are separable: the probe has no end that rounding reaches.
    @pytest.mark.filterwarnings("ignore:the logistic probe stopped:RuntimeWarning")
    def test_classes_that_no_training_row_has_are_named_with_their_share(self):
        h, labels = np.eye(20), np.repeat([0, 1, 2, 3], 5)
        options = {"num_classes": 4, "k": 1, "per_class": 3, "draws": 1}
        rest = h[:10], labels[:10], h[5:], labels[5:]
        for names, said in ((None, "2, 3"), (["ant", "bee", "cat", "dog"], "cat, dog")):
            with self.assertWarnsRegex(UserWarning, f"of class {said}, but 67 %"):
                evaluation.probe_scores(*rest, class_names=names, **options)
        evaluation.warn_of_unseen(labels, labels[:2])  # not one: no warning

    def test_bad_input_is_named(self):
        h, labels = np.eye(6), np.arange(6) % 2
        good = {
            "train_h": h,
            "train_labels": labels,
            "test_h": h,
            "test_labels": labels,
            "num_classes": 2,
            "k": 1,
            "per_class": 3,
        }
        cases = [
            (ValueError, r"test_h must be \[n, 6\]", {"test_h": h[:, :5]}),
            (ValueError, r"test_labels must be \[6\]", {"test_labels": labels[:5]}),
            (ValueError, r"test_labels.*in \[0, 2\)", {"test_labels": labels + 1}),
            (TypeError, "train_labels must be int", {"train_labels": labels * 1.0}),
            (ValueError, "draws must be at least 1", {"draws": 0}),
            (ValueError, "class 0 has 3", {"per_class": 4}),
            (ValueError, "k must be at most the 6 keys", {"k": 7}),
        ]
        for error, message, change in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.probe_scores(**(good | change))


if __name__ == "__main__":
    absltest.main()
