"""Linear probes against scikit-learn and float64 NumPy at the same penalty."""

import warnings

import jax
import numpy as np
from absl.testing import absltest, parameterized
from sklearn import datasets, linear_model, preprocessing

from jaxcl import evaluation
from jaxcl.evaluation import linear


def objective(probe, h, labels):
    """Mean cross entropy plus penalty of a logistic probe, float64."""
    x = (np.asarray(h, np.float64) - probe.mean) / probe.scale
    scores = x @ np.asarray(probe.weight, np.float64) + probe.bias
    scores -= scores.max(axis=1, keepdims=True)
    nats = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), labels]
    return nats.mean() + probe.weight_decay / 2 * np.square(probe.weight).sum()


def sklearn_logistic(h, labels, weight_decay):
    """The same problem solved in float64, as a LinearProbe."""
    scaler = preprocessing.StandardScaler().fit(h)
    model = linear_model.LogisticRegression(
        C=1 / (len(h) * weight_decay), tol=1e-7, max_iter=10_000
    ).fit(scaler.transform(h), labels)
    return evaluation.LinearProbe(
        model.coef_.T, model.intercept_, scaler.mean_, scaler.scale_, weight_decay
    )


class LogisticProbeTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        h, labels = datasets.load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(h))
        self.h, self.labels = h[order], labels[order]

    @parameterized.parameters(1e-4, 1e-2, 1.0)
    def test_reaches_the_optimum_of_scikit_learn(self, weight_decay):
        h, labels = self.h[:301], self.labels[:301]  # some columns are constant
        probe = evaluation.logistic_probe(
            h, labels, num_classes=10, weight_decay=weight_decay
        )
        expected = sklearn_logistic(h, labels, weight_decay)
        optimum = objective(expected, h, labels)
        # The objective is strongly convex in the weights: a gradient g leaves at most
        # |g|^2 / (2 weight_decay).
        slack = 650 * 1e-6**2 / (2 * weight_decay)
        self.assertLess(objective(probe, h, labels), optimum + slack + 1e-7)
        scores = evaluation.logits(probe, self.h[301:])
        known = evaluation.logits(expected, self.h[301:])
        centered = [each - each.mean(axis=1, keepdims=True) for each in (scores, known)]
        # And the weights at most |g| / weight_decay away; none of 650 derivatives is
        # above the tolerance of 1e-6. Logits are about 10.
        atol = max(5e-3, np.sqrt(650) * 1e-6 / weight_decay)
        np.testing.assert_allclose(*centered, rtol=0, atol=atol)
        agree = evaluation.predict(probe, self.h[301:]) == known.argmax(axis=1)
        self.assertGreater(agree.mean(), 0.999)

    def test_a_small_gradient_is_no_accident_of_the_start(self):
        # Without the fit the objective is log(10): the test above could not pass.
        h, labels = self.h[:301], self.labels[:301]
        with self.assertWarnsRegex(RuntimeWarning, "raise max_steps"):
            probe = evaluation.logistic_probe(
                h, labels, num_classes=10, weight_decay=1e-2, max_steps=1
            )
        best = objective(sklearn_logistic(h, labels, 1e-2), h, labels)
        self.assertGreater(objective(probe, h, labels), 1.5 * best)

    def test_rounding_does_not_stop_the_descent(self):
        # Few rows, wide rectified h: there the line search that optax makes by default
        # needs up to 1,000 steps and more for some of these draws.
        weight = np.random.default_rng(1).normal(size=(64, 256))
        h = np.square(np.maximum(self.h / 16 @ weight, 0))
        for seed in range(6):
            rows = evaluation.few_labels(self.labels, 10, seed)
            for weight_decay in (3e-4, 1e-3):
                with self.subTest(seed=seed), warnings.catch_warnings():
                    warnings.simplefilter("error")
                    evaluation.logistic_probe(
                        h[rows],
                        self.labels[rows],
                        num_classes=10,
                        weight_decay=weight_decay,
                        max_steps=120,
                    )

    def test_shift_and_scale_of_h_change_nothing(self):
        h, labels = self.h[:301], self.labels[:301]
        options = {"num_classes": 10, "weight_decay": 1e-2}
        plain = evaluation.logistic_probe(h, labels, **options)
        moved = evaluation.logistic_probe(1e4 + 1e-3 * h, labels, **options)
        np.testing.assert_allclose(
            evaluation.logits(moved, 1e4 + 1e-3 * self.h),
            evaluation.logits(plain, self.h),
            rtol=0,
            atol=5e-3,
        )

    def test_the_penalty_is_chosen_by_the_held_out_parts_of_training(self):
        h, labels = self.h[:100], self.labels[:100]
        candidates, folds = (1e-3, 1e-2, 10.0), 3
        parts = linear._parts(labels, folds, seed=3)
        held_out = []
        for candidate in candidates:
            nats = 0.0
            scaler = preprocessing.StandardScaler().fit(h)
            x = scaler.transform(h)
            for part in range(folds):
                used = parts != part
                model = linear_model.LogisticRegression(
                    C=1 / (used.sum() * candidate), max_iter=1000
                ).fit(x[used], labels[used])
                right = model.predict_log_proba(x[~used])
                nats -= right[np.arange(len(right)), labels[~used]].sum()
            held_out.append(nats)
        probe = evaluation.logistic_probe(
            h, labels, num_classes=10, weight_decay=candidates, folds=folds, seed=3
        )
        self.assertEqual(probe.weight_decay, candidates[np.argmin(held_out)])

    def test_choosing_ends_at_the_probe_of_the_chosen_penalty(self):
        h, labels = self.h[:100], self.labels[:100]
        chosen = evaluation.logistic_probe(h, labels, num_classes=10)
        self.assertIn(chosen.weight_decay, evaluation.WEIGHT_DECAYS)
        fixed = evaluation.logistic_probe(
            h, labels, num_classes=10, weight_decay=chosen.weight_decay
        )
        for one, other in zip(chosen, fixed, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_parts_hold_the_same_number_of_every_class(self):
        labels = np.repeat(np.arange(7), 10)
        parts = linear._parts(labels, 5, seed=0)
        table = np.zeros((7, 5), int)
        np.add.at(table, (labels, parts), 1)
        np.testing.assert_array_equal(table, np.full((7, 5), 2))

    def test_many_fits_are_one_compilation(self):
        before = linear._descend._cache_size()
        for seed in range(3):
            rows = evaluation.few_labels(self.labels, 10, seed)
            evaluation.logistic_probe(self.h[rows], self.labels[rows], num_classes=10)
        self.assertLessEqual(linear._descend._cache_size(), before + 1)

    def test_a_class_without_rows_is_never_predicted(self):
        some = self.labels < 8
        h, labels = self.h[some][:100], self.labels[some][:100]
        probe = evaluation.logistic_probe(h, labels, num_classes=10, weight_decay=1e-2)
        self.assertLess(evaluation.predict(probe, self.h).max(), 8)
        self.assertTrue(np.isfinite(probe.weight).all())

    def test_half_precision_and_float64_are_read(self):
        h, labels = self.h[:100], self.labels[:100]  # 0 to 16: exact in bfloat16
        options = {"num_classes": 10, "weight_decay": 1e-2}
        half = jax.numpy.asarray(h, jax.numpy.bfloat16)
        one = evaluation.logistic_probe(half, labels, **options)
        other = evaluation.logistic_probe(h, labels, **options)
        np.testing.assert_allclose(one.weight, other.weight, atol=1e-6)

    def test_float64_mode_changes_nothing(self):
        h, labels = self.h[:100], self.labels[:100]
        options = {"num_classes": 10, "weight_decay": 1e-2}
        expected = evaluation.logistic_probe(h, labels, **options)
        with jax.enable_x64(True):
            probe = evaluation.logistic_probe(h, labels, **options)
        np.testing.assert_allclose(probe.weight, expected.weight, atol=1e-4)


class RidgeProbeTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        self.labels = random.integers(3, size=41)
        self.h = random.normal(size=(41, 6)) + self.labels[:, None]

    @parameterized.product(weight_decay=(1e-4, 0.1), width=(6, 90))
    def test_equals_scikit_learn(self, weight_decay, width):
        h = np.random.default_rng(1).normal(size=(41, width))  # also wider than long
        probe = evaluation.ridge_probe(
            h, self.labels, num_classes=3, weight_decay=weight_decay
        )
        scaler = preprocessing.StandardScaler().fit(h)
        model = linear_model.Ridge(alpha=41 * weight_decay)
        model.fit(scaler.transform(h), np.eye(3)[self.labels])
        np.testing.assert_allclose(
            evaluation.logits(probe, h),
            model.predict(scaler.transform(h)),
            rtol=1e-9,
            atol=1e-11,
        )

    def test_the_penalty_has_the_smallest_leave_one_out_error(self):
        candidates = (1e-4, 1e-2, 0.1, 1.0, 100.0)
        targets = np.eye(3)[self.labels]
        # Left out one at a time, with the scaling of all rows, and really refitted.
        x = preprocessing.StandardScaler().fit_transform(self.h)
        errors = []
        for candidate in candidates:
            error = 0.0
            for i in range(len(x)):
                others = np.arange(len(x)) != i
                model = linear_model.Ridge(alpha=len(x) * candidate)
                model.fit(x[others], targets[others])
                error += np.square(model.predict(x[[i]]) - targets[i]).sum()
            errors.append(error)
        probe = evaluation.ridge_probe(
            self.h, self.labels, num_classes=3, weight_decay=candidates
        )
        self.assertEqual(probe.weight_decay, candidates[np.argmin(errors)])

    def test_a_constant_column_has_no_weight(self):
        h = np.concatenate([self.h, np.full((41, 1), 0.1)], axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            probe = evaluation.ridge_probe(h, self.labels, num_classes=3)
        np.testing.assert_allclose(probe.weight[-1], np.zeros(3), atol=1e-12)

    def test_one_row_is_its_own_prediction(self):
        probe = evaluation.ridge_probe(self.h[:1], self.labels[:1], num_classes=3)
        np.testing.assert_array_equal(
            evaluation.predict(probe, self.h), np.full(41, self.labels[0])
        )


class ScaleTest(parameterized.TestCase):
    @parameterized.product(
        probe=(evaluation.logistic_probe, evaluation.ridge_probe),
        scale=(1e-200, 1e-100, 1e200, 1e307),
    )
    def test_the_scale_of_h_changes_nothing(self, probe, scale):
        random = np.random.default_rng(0)
        labels = random.integers(0, 3, 40)
        h = random.normal(size=(40, 4)) + np.eye(4)[labels]
        h /= np.abs(h).max()
        options = {"num_classes": 3, "weight_decay": 0.01}
        expected = probe(h, labels, **options)
        found = probe(h * scale, labels, **options)
        np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.scale, expected.scale * scale)
        np.testing.assert_array_equal(
            evaluation.predict(found, h * scale), evaluation.predict(expected, h)
        )
        with self.assertRaisesRegex(ValueError, "train_h must hold columns of numbers"):
            probe(h * 1e-305, labels, **options)


class BadInputTest(parameterized.TestCase):
    @parameterized.parameters(evaluation.logistic_probe, evaluation.ridge_probe)
    def test_bad_input_is_named(self, probe):
        h = np.random.default_rng(0).normal(size=(8, 3))
        labels = np.arange(8) % 2
        broken = h.copy()
        broken[4] = np.nan
        good = {"train_h": h, "train_labels": labels, "num_classes": 2}
        cases = [
            (TypeError, "train_h must be floating", {"train_h": labels[:, None]}),
            (ValueError, r"train_h must be \[n, r\]", {"train_h": h[..., None]}),
            (ValueError, r"train_h must be \[n, r\]", {"train_h": h[:0]}),
            (ValueError, "train_h must be finite.*row 4", {"train_h": broken}),
            (TypeError, "train_labels must be int", {"train_labels": labels * 1.0}),
            (TypeError, "train_labels must be int", {"train_labels": labels > 0}),
            (ValueError, r"must be \[8\]", {"train_labels": labels[1:]}),
            (ValueError, r"must be \[n\]", {"train_labels": np.eye(2, dtype=int)}),
            (ValueError, r"\[0, 2\).*1 to 2", {"train_labels": labels + 1}),
            (TypeError, "num_classes must be an integer", {"num_classes": 2.0}),
            (ValueError, "num_classes must be at least 1", {"num_classes": 0}),
            (
                ValueError,
                "weight_decay must be pos.*got 0",
                {"weight_decay": (1.0, 0.0)},
            ),
            (
                ValueError,
                "weight_decay must be pos.*got nan",
                {"weight_decay": np.nan},
            ),
            (ValueError, "weight_decay.*got none", {"weight_decay": ()}),
        ]
        for error, message, change in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                probe(**(good | change))

    def test_bad_options_of_the_logistic_probe_are_named(self):
        good = {"train_h": np.eye(4), "train_labels": np.arange(4), "num_classes": 4}
        cases = [
            (ValueError, "folds must be at most the 4", {"folds": 5}),
            (ValueError, "folds must be at least 2", {"folds": 1}),
            (ValueError, "tolerance must be", {"tolerance": 0.0}),
            (ValueError, "max_steps must be at least 1", {"max_steps": 0}),
        ]
        for error, message, change in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.logistic_probe(**(good | change))

    def test_h_of_another_width_is_refused(self):
        probe = evaluation.ridge_probe(np.eye(4), np.arange(4), num_classes=4)
        with self.assertRaisesRegex(ValueError, r"h must be \[n, 4\], got.*\(4, 3\)"):
            evaluation.predict(probe, np.eye(4)[:, :3])


if __name__ == "__main__":
    absltest.main()
