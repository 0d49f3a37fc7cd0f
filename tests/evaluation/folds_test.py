"""Cross-validated machines against scikit-learn's, and blind to the rows they test."""

from unittest import mock

import numpy as np
import sklearn.preprocessing
import sklearn.svm
from absl.testing import absltest, parameterized

from jaxcl import evaluation
from jaxcl.evaluation import folds, linear


def clouds(sizes, width=5, distance=1.5, seed=0):
    """Overlapping clouds [n, width] and their labels, mixed."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = distance * random.normal(size=(len(sizes), width))
    return centers[labels] + random.normal(size=(len(labels), width)), labels


class StratifiedFoldsTest(parameterized.TestCase):
    @parameterized.parameters((2, (5, 3)), (3, (9, 7, 4)), (10, (63, 125)))
    def test_every_class_is_spread_evenly_and_so_are_all(self, num, sizes):
        labels = np.random.default_rng(1).permutation(
            np.repeat(np.arange(len(sizes)), sizes)
        )
        found = evaluation.stratified_folds(labels, num, seed=0)
        counts = [np.bincount(found[labels == c], minlength=num) for c in set(labels)]
        for each in (*counts, np.sum(counts, axis=0)):
            self.assertLessEqual(each.max() - each.min(), 1)

    def test_depends_on_labels_and_seed_alone(self):
        labels = np.arange(60) % 3
        first, again, other = (
            evaluation.stratified_folds(labels, 5, seed) for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        self.assertGreater(np.mean(first != other), 0.5)

    def test_bad_input_is_named(self):
        cases = (
            ("two classes or more, got 3 only", np.full(9, 3), 3),
            ("at most the 2 examples of class 7.*got 3", np.array([7, 7, 1, 1, 1]), 3),
            ("folds must be.*at least 2", np.array([0, 0, 1, 1]), 1),
        )
        for message, labels, num in cases:
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                evaluation.stratified_folds(labels, num)
        with self.assertRaisesRegex(TypeError, "labels must be integers"):
            evaluation.stratified_folds(np.zeros(4), 2)


class SvmFoldsTest(parameterized.TestCase):
    @parameterized.product(
        shape=(((30, 21), 4), ((11, 14, 9), 3), ((9, 12), 40)), cost=(0.01, 1.0, 1000.0)
    )
    def test_equals_linear_svc_on_scaled_rows(self, shape, cost):
        h, labels = clouds(*shape)
        found = evaluation.svm_folds(h, 3 * labels - 1, folds=3, costs=[cost])
        fold_of = evaluation.stratified_folds(labels, 3)
        for fold in range(3):
            test = fold_of == fold
            scaler = sklearn.preprocessing.StandardScaler().fit(h[~test])
            machine = sklearn.svm.LinearSVC(
                C=cost, tol=1e-9, max_iter=1_000_000, dual=False
            ).fit(scaler.transform(h[~test]), labels[~test])
            expected = machine.predict(scaler.transform(h[test]))
            np.testing.assert_array_equal(found.predicted[test], 3 * expected - 1)
            accuracy = np.mean(expected == labels[test])
            self.assertAlmostEqual(found.accuracy[fold], accuracy)
        self.assertEqual(found.unfinished, 0)
        np.testing.assert_array_equal(found.cost, np.full(3, cost))

    @parameterized.parameters((50, 4), (20, 40))
    def test_weights_are_those_of_liblinear(self, n, width):
        h, labels = clouds((n // 2, n // 2), width)
        sign = 2.0 * labels - 1
        for cost in (1e-3, 1.0, 1e2):
            start = np.random.default_rng(0).normal(size=width + 1)
            w, finished = folds._newton(folds._with_ones(h), sign, cost, start)
            self.assertTrue(finished)
            machine = sklearn.svm.LinearSVC(
                C=cost, tol=1e-10, max_iter=1_000_000, dual=False
            ).fit(h, labels)
            expected = np.append(machine.coef_[0], machine.intercept_)
            np.testing.assert_allclose(w, expected, atol=1e-6 * np.abs(expected).max())

    def test_the_cost_is_right_most_often_in_the_inner_folds(self):
        h, labels = clouds((40, 37), 6, distance=0.5)
        found = evaluation.svm_folds(h, labels, folds=3, seed=5, inner=4)
        fold_of = evaluation.stratified_folds(labels, 3, seed=5)
        for fold in range(3):
            train = np.flatnonzero(fold_of != fold)
            parts = linear.spread(labels[train], 4, (5, fold))
            right = [
                (
                    evaluation.svm_folds(
                        h[train], labels[train], folds=parts, costs=[cost]
                    ).predicted
                    == labels[train]
                ).sum()
                for cost in folds.COSTS
            ]
            self.assertEqual(found.cost[fold], folds.COSTS[int(np.argmax(right))])
        self.assertGreater(len(set(found.cost)), 1)  # the data leaves a choice

    def test_rows_of_a_fold_change_nothing_for_the_machine_that_is_tested_on_it(self):
        h, labels = clouds((40, 37), 6, distance=0.5)
        fold_of = evaluation.stratified_folds(labels, 3)
        clean = evaluation.svm_folds(h, labels, folds=fold_of)
        for fold in range(3):
            test = np.flatnonzero(fold_of == fold)
            poisoned, rest = test[::2], test[1::2]
            h_poisoned, labels_poisoned = h.copy(), labels.copy()
            h_poisoned[poisoned] = 1e6 * np.random.default_rng(0).normal(size=6)
            labels_poisoned[test] = 1 - labels[test]
            found = evaluation.svm_folds(h_poisoned, labels_poisoned, folds=fold_of)
            self.assertEqual(found.cost[fold], clean.cost[fold])
            np.testing.assert_array_equal(found.predicted[rest], clean.predicted[rest])
            # The same rows do matter to the others.
            self.assertFalse(np.array_equal(found.accuracy, clean.accuracy))

    @parameterized.parameters(1e-30, 1e30, 1e150)
    def test_units_do_not_matter(self, unit):
        h, labels = clouds((20, 21), 4)
        expected = evaluation.svm_folds(h, labels, folds=3)
        units = unit ** np.linspace(-1, 1, 4)
        found = evaluation.svm_folds(h * units, labels, folds=3)
        np.testing.assert_array_equal(found.predicted, expected.predicted)

    def test_columns_without_a_difference_are_left_out(self):
        h, labels = clouds((18, 23), 4)
        expected = evaluation.svm_folds(h, labels, folds=3)
        noise = np.random.default_rng(0).integers(-1, 2, size=len(h))
        rounded = np.float32(12345.678) * (1 + 1e-7 * noise)
        constant = np.stack([np.zeros(41), np.full(41, 1e30), rounded], axis=1)
        # In one row a constant column is another one: fold by fold.
        constant[7, 0] = 1e9
        fold_of = evaluation.stratified_folds(labels, 3)
        found = evaluation.svm_folds(
            np.concatenate([h, constant], axis=1), labels, folds=3
        )
        same = fold_of == fold_of[7]
        np.testing.assert_array_equal(found.predicted[same], expected.predicted[same])
        nothing = evaluation.svm_folds(constant[:, 1:], labels, folds=3)
        np.testing.assert_array_equal(nothing.predicted, np.ones(41))

    def test_nearly_dependent_columns_are_solved_exactly(self):
        h, labels = clouds((60, 61), 3, distance=0.3)
        h = np.concatenate([h, h @ np.ones((3, 9)) + 1e-4 * h[:, [0] * 9]], axis=1)
        self.assertEqual(evaluation.svm_folds(h, labels, folds=3).unfinished, 0)

    def test_unfinished_fits_are_counted_and_said(self):
        h, labels = clouds((20, 21), 4)
        with (
            mock.patch.object(folds, "_MOST_STEPS", 1),
            self.assertWarnsRegex(RuntimeWarning, "66 fits reached the limit"),
        ):
            found = evaluation.svm_folds(h, labels, folds=3)
        self.assertEqual(found.unfinished, 3 * 3 * 7 + 3)

    def test_bad_input_is_named(self):
        h, labels = clouds((9, 8), 2)
        with_nan = np.where(h > 1, np.nan, h)
        cases = [
            ("h must be finite, got NaN", {"h": with_nan}),
            (r"labels must be \[17\]", {"labels": labels[:5]}),
            ("two classes or more, got 0 only", {"labels": 0 * labels}),
            ("folds must be at most the 8 examples of class 1", {"folds": 9}),
            ("inner must be at most the 4 examples of class", {"inner": 5}),
            ("costs must be positive", {"costs": [1.0, 0.0]}),
            ("costs must be one cost or several, got none", {"costs": []}),
            (r"folds must hold every number.*\[0, 2\]", {"folds": labels * 2}),
            ("some of each class outside of fold 0", {"folds": labels}),
        ]
        for message, change in cases:
            arguments = {"h": h, "labels": labels, "folds": 2} | change
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                evaluation.svm_folds(**arguments)

    def test_a_single_cost_needs_no_inner_folds(self):
        h, labels = clouds((2, 3), 2)
        found = evaluation.svm_folds(h, labels, folds=2, costs=[1.0])
        self.assertEqual(found.predicted.shape, (5,))


class KernelSvmFoldsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        h, self.labels = clouds((21, 20, 15), 4)
        distances = np.square(h[:, None] - h).sum(axis=2)
        self.kernels = [np.exp(-distances / width) for width in (0.1, 10.0, 1000.0)]

    def test_equals_svc_with_the_choice_made_by_hand(self):
        costs = (0.1, 1.0, 10.0)
        found = evaluation.kernel_svm_folds(
            self.kernels, 2 * self.labels, folds=3, costs=costs
        )
        fold_of = evaluation.stratified_folds(self.labels, 3)

        def right(kernel, cost, train, test):
            machine = sklearn.svm.SVC(C=cost, kernel="precomputed").fit(
                kernel[train][:, train], self.labels[train]
            )
            return machine.predict(kernel[test][:, train]) == self.labels[test]

        for fold in range(3):
            train, test = (
                np.flatnonzero(fold_of != fold),
                np.flatnonzero(fold_of == fold),
            )
            parts = linear.spread(self.labels[train], 3, (0, fold))
            table = np.array(
                [
                    sum(
                        right(kernel, cost, train[parts != p], train[parts == p]).sum()
                        for p in range(3)
                    )
                    for kernel in self.kernels
                    for cost in costs
                ]
            )
            kernel, cost = divmod(int(np.argmax(table)), 3)
            self.assertEqual(
                (found.kernel[fold], found.cost[fold]), (kernel, costs[cost])
            )
            np.testing.assert_array_equal(
                found.predicted[test] == 2 * self.labels[test],
                right(self.kernels[kernel], costs[cost], train, test),
            )

    def test_one_kernel_may_come_alone(self):
        alone = evaluation.kernel_svm_folds(self.kernels[1], self.labels, folds=3)
        one = evaluation.kernel_svm_folds(self.kernels[1:2], self.labels, folds=3)
        np.testing.assert_array_equal(alone.predicted, one.predicted)
        np.testing.assert_array_equal(alone.kernel, [0, 0, 0])

    def test_rows_of_a_fold_change_nothing_for_the_machine_that_is_tested_on_it(self):
        fold_of = evaluation.stratified_folds(self.labels, 3)
        clean = evaluation.kernel_svm_folds(self.kernels, self.labels, folds=fold_of)
        poisoned = np.flatnonzero(fold_of == 0)[::2]
        rest = np.flatnonzero(fold_of == 0)[1::2]
        for kernel in self.kernels:
            kernel[poisoned], kernel[:, poisoned] = 9.0, 9.0
        found = evaluation.kernel_svm_folds(self.kernels, self.labels, folds=fold_of)
        self.assertEqual(found.cost[0], clean.cost[0])
        self.assertEqual(found.kernel[0], clean.kernel[0])
        np.testing.assert_array_equal(found.predicted[rest], clean.predicted[rest])

    def test_unfinished_fits_are_counted_and_said(self):
        with (
            mock.patch.object(folds, "_MOST_PIVOTS", 1),
            self.assertWarnsRegex(RuntimeWarning, "3 fits reached the limit"),
        ):
            found = evaluation.kernel_svm_folds(
                self.kernels[1], self.labels, folds=3, costs=[1.0]
            )
        self.assertEqual(found.unfinished, 3)

    def test_bad_input_is_named(self):
        with self.assertRaisesRegex(ValueError, r"kernels must be \[n, 56\]"):
            evaluation.kernel_svm_folds(self.kernels[0][:, :5], self.labels)
        with self.assertRaisesRegex(ValueError, r"kernels must be \[56, 56\]"):
            evaluation.kernel_svm_folds([self.kernels[0][:5]], self.labels)
        with self.assertRaisesRegex(ValueError, "kernels must be finite"):
            evaluation.kernel_svm_folds(self.kernels[0] * np.nan, self.labels)


if __name__ == "__main__":
    absltest.main()
