"""What makes embeddings look other than they are is said, and decides nothing."""

import json
import pathlib
import warnings
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import pytest
from absl.testing import parameterized

from jaxcl import report
from jaxcl.report import command, moments, pictures, rounding, tests
from tests.pictures import legible
from tests.report.report_test import Case, gaussian

N, D = 600, 16


def said(found):
    return " ".join([found["verdict"]["headline"], *found["notes"]])


def low_rank(seed, rank, d=64, n=N):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, rank)), random.normal(size=(rank, d))


class OutlierTest(Case):
    @parameterized.parameters(
        (1e4, 1.0, 0.999), (1000, 1.06, 0.969), (60, 13.74, 0.102)
    )
    @pytest.mark.slow
    def test_one_row_far_out_is_not_taken_for_isotropy(self, size, expected, share):
        z = np.random.default_rng(0).normal(size=(2000, D)).astype(np.float32)
        far = np.zeros((1, D), np.float32)
        far[0, 3] = size
        z = np.concatenate([z, far])
        found, printed = self.run_main(z, max_samples=1000, directions=D)
        values = np.linalg.eigvalsh(np.cov(z.T.astype(np.float64), bias=True))
        own = values.sum() ** 2 / np.square(values).sum()
        covariance = found["covariance"]
        self.assertAlmostEqual(own, expected, delta=0.005)
        self.assertAlmostEqual(covariance["participation"], own, delta=1e-6 * own)
        isotropic = next(c for c in found["checks"] if c["name"] == "Isotropic")
        self.assertEqual(isotropic["passed"], bool(own >= 0.8 * D))
        away = np.square(z - z.mean(axis=0, dtype=np.float64)).sum(axis=1)
        self.assertEqual(covariance["rows"][0]["row"], 2000)
        self.assertAlmostEqual(
            covariance["rows"][0]["share"], away[-1] / away.sum(), delta=1e-9
        )
        self.assertEqual(covariance["outlying_rows"], 1)
        self.assertIn(f"Row 2000 alone has {100 * share:.1f} %", said(found))
        self.assertIn("Row 2000 alone has", " ".join(printed.split()))
        self.assertNotRegex(said(found) + printed, r"\de\+\d+ %")

    @parameterized.parameters((2000, 16, False), (25, 40, False), (300, 4, True))
    def test_gaussian_rows_are_hardly_ever_called_far_out(self, n, d, uneven):
        scale = np.geomspace(1, 100, d) if uneven else np.ones(d)
        z = [gaussian(seed, n, d) * scale for seed in range(40)]
        called = [bool(moments.outlying(moments.of_rows(x))) for x in z]
        self.assertLessEqual(sum(called), 3)

    @parameterized.parameters(0, 17, 40)
    def test_far_rows_are_found_wherever_they_are(self, place):
        z = np.insert(gaussian(0, 40, 5), place, 50, axis=0).astype(np.float64)
        z[3] = np.nan
        for block in (1, 7, None):
            (first, *_) = moments.of_rows(z, block=block).far
            self.assertEqual(first.row, place)


class PicturesTest(Case):
    @pytest.mark.slow
    def test_pictures_of_far_rows_and_of_a_relu_can_be_read(self):
        far, relu = gaussian(0), np.maximum(gaussian(1), 0)
        far[7] = 500

        def png(figure):
            legible.check(figure)
            return b""

        for z in (far, relu, far.astype(np.float64) * 1e200):
            with mock.patch.object(pictures, "_png", png):
                self.run_main(z, draw=True)


def test_columns_that_mix_few_directions_count_as_few():
    # Else one draw of two chance directions fails all of its columns together.
    rejected = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 16))
        found = tests.normality(x)
        assert 1 <= found.independent < 3
        rejected += not tests.passes(found.summary())
    assert rejected <= 2
    x = np.random.default_rng(0).laplace(size=(600, 2)) @ rng.normal(size=(2, 16))
    assert not tests.passes(tests.normality(x).summary())


class RoundingTest(Case):
    @parameterized.parameters("float16", "float32", "float64", "bfloat16")
    @pytest.mark.slow
    def test_gaussians_of_low_rank_pass_in_every_dtype(self, dtype):
        z, w = low_rank(3, 40)
        step_of = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        for x in (z @ w, (z @ w) * np.geomspace(1e-2, 1e2, 64)):
            found, _ = self.run_main(x.astype(step_of))
            self.assertTrue(found["joint"]["passed"], found["joint"])
            whole = found["joint"]["tests"]["mardia_kurtosis_of_all"]
            self.assertEqual(whole["directions"], 40)
            self.assertEqual(found["covariance"]["rank_of_sample"], 40)
            self.assertIsNone(found["covariance"]["condition"])

    def test_numbers_rounded_before_they_were_stored_are_seen_as_such(self):
        z, w = low_rank(3, 7, d=9)
        for rounded, stored in (("f4", "f8"), ("f2", "f4"), (ml_dtypes.bfloat16, "f4")):
            x = (z @ w).astype(rounded)
            found, exact = (
                rounding.steps(x.astype(np.float64), np.dtype(dtype))
                for dtype in (stored, rounded)
            )
            np.testing.assert_array_equal(found, exact)
        spacing = np.spacing(np.abs((z @ w).astype("f4"))).astype(np.float64)
        found = rounding.steps((z @ w).astype("f4").astype("f8"), np.dtype("f4"))
        np.testing.assert_allclose(found, np.sqrt(np.square(spacing).mean(axis=0)))

    @parameterized.parameters(1, 2, 7, 8, 9, 63, 64)
    def test_every_rank_is_found(self, rank):
        z, w = low_rank(rank, rank)
        for dtype in ("f8", "f4", "f2"):
            x = (z @ w).astype(dtype).astype(np.float64)
            step = rounding.steps(x, np.dtype(dtype))
            x -= x.mean(axis=0)
            along, kept = rounding.resolved(x, step)
            self.assertEqual(along.shape, (N, rank))
            # What is left out is no more than rounding.
            np.testing.assert_array_less(np.abs(kept - x).max(axis=0), 3 * step + 1e-12)
            few, _ = rounding.resolved(x[:60], step)  # fewer rows than columns
            self.assertEqual(few.shape[1], min(rank, 60))

    @pytest.mark.slow
    def test_what_is_not_gaussian_fails_in_low_rank_too(self):
        random = np.random.default_rng(0)
        z, w = low_rank(0, 40)
        heavy = z / np.sqrt(random.chisquare(5, (N, 1)) / 5)
        for dtype in ("f4", "f2"):
            x = (heavy @ w).astype(dtype).astype(np.float64)
            step = rounding.steps(x, np.dtype(dtype))
            found = tests.joint(x - x.mean(axis=0), step, False, jax.random.key(0))
            self.assertFalse(found.passed)
            self.assertEqual(found.rank, 40)


class OrderTest(Case):
    @pytest.mark.slow
    def test_copies_are_counted_and_are_the_reason(self):
        z = gaussian(0, N // 4)
        found, printed = self.run_main(np.tile(z, (4, 1)))
        self.assertFalse(found["verdict"]["gaussian"])
        self.assertEqual(found["hints"]["copies"], 450)
        self.assertTrue(found["hints"]["copies_explain"])
        reason = "The reason is that 450 of 600 rows are exact copies of others"
        self.assertIn(reason, " ".join(printed.split()))
        cube = np.random.default_rng(0).uniform(size=(N // 4, D))
        found, _ = self.run_main(np.tile(cube, (4, 1)))
        self.assertIs(found["hints"]["copies_explain"], False)
        self.assertNotIn("The reason is", said(found))

    def test_few_different_rows_are_counted(self):
        z = gaussian(0)[np.random.default_rng(0).integers(0, 7, N)]
        found, _ = self.run_main(z)
        self.assertEqual(found["hints"]["copies"], N - 7)
        self.assertIn("593 of 600 rows are exact copies of others", said(found))

    def test_copies_are_told_from_rows_that_differ_in_the_last_bit(self):
        z = gaussian(0).astype(np.float64)
        z[1], z[3], z[5] = z[0], z[2], 0
        z[7] = -z[5]  # zeros of either sign are equal
        z[3, 4] = np.nextafter(z[3, 4], 9)
        prints = moments.of_rows(z, block=7).prints
        self.assertLen(np.unique(prints), N - 2)
        self.assertLen(np.unique(moments.of_rows(np.eye(300)).prints), 300)

    @pytest.mark.slow
    def test_exchanged_axes_are_asked_about(self):
        found, _ = self.run_main(gaussian(0, 24, 100))
        self.assertIn("24 rows of 100 columns", found["verdict"]["headline"])
        found, _ = self.run_main(gaussian(0, 40, 64))
        self.assertNotIn("transpose", said(found))

    @pytest.mark.slow
    def test_many_rows_left_out_are_a_reason(self):
        z = gaussian(0).astype(np.float64)
        z[np.abs(z).max(axis=1) > 2, 0] = np.inf  # as float16 has it of large values
        found, _ = self.run_main(z)
        left = int(np.isinf(z[:, 0]).sum())
        self.assertBetween(left, 200, 500)
        words = f"{left} of 600 rows hold NaN or infinity and are left out, perhaps"
        self.assertIn(words, found["verdict"]["headline"])
        z = gaussian(0)
        z[3] = np.nan
        self.assertNotIn("NaN", self.run_main(z)[0]["verdict"]["headline"])

    def test_the_order_of_rows_changes_nothing(self):
        z = gaussian(0)
        found = [self.run_main(x)[0] for x in (z, z[np.argsort(z[:, 0])], z[::-1])]
        for other in found[1:]:
            self.assertEqual(other["verdict"], found[0]["verdict"])
            for name in ("ad_mean", "dp_mean"):
                self.assertAlmostEqual(
                    other["coordinates"][name], found[0]["coordinates"][name]
                )

    @pytest.mark.slow
    def test_zero_and_level_rows_are_said(self):
        z = gaussian(0)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        z[::50] = 0
        found, _ = self.run_main(z)
        self.assertEqual(found["hints"]["zero_rows"], 12)
        self.assertIn("with --normalize the zero ones are left out", said(found))
        found, _ = self.run_main(z, normalize=True)
        self.assertTrue(found["verdict"]["isotropic_gaussian"])
        z = gaussian(0)
        z[3] = 0.5
        found, _ = self.run_main(z)
        self.assertEqual(found["hints"]["level_rows"], 1)

    def test_values_that_repeat_are_the_reason(self):
        z, random = gaussian(0), np.random.default_rng(1)
        dropped = np.where(random.uniform(size=z.shape) < 0.1, 0, z)
        for x, share in ((np.maximum(z, 0), 50), (dropped, 10), (z.clip(-1, 9), 16)):
            found, _ = self.run_main(x)
            self.assertEqual(found["hints"]["columns_repeating"], D)
            self.assertAlmostEqual(
                100 * found["hints"]["repeated_share"], share, delta=3
            )
            self.assertIn("ReLU", found["verdict"]["headline"])
        found, _ = self.run_main(np.round(3 * z))
        self.assertEqual(found["hints"]["columns_repeating"], 0)
        self.assertEqual(found["hints"]["columns_of_few_values"], D)
        self.assertIn("fewer than 50 different values", found["verdict"]["headline"])
        found, _ = self.run_main(z)
        self.assertEmpty(found["notes"])


class ScaleTest(Case):
    @pytest.mark.slow
    def test_no_scale_changes_what_is_found(self):
        z = gaussian(0).astype(np.float64)
        expected, _ = self.run_main(z, ood=self.save(z[:50] + 1, "o.npy"))
        for scale in (1e-320, 1e-200, 1e-100, 1e100, 1e200, 1e300):
            other = self.save((z[:50] + 1) * scale, "o.npy")
            found, _ = self.run_main(z * scale, ood=other, draw=scale == 1e200)
            self.assertEqual(found["verdict"], expected["verdict"])
            few = 1e-3 if scale < 1e-300 else 1e-9  # digits are few there
            for section, name in (
                ("norms", "cv"),
                ("covariance", "participation"),
                ("coordinates", "ad_mean"),
                ("mean", "share_of_mean_square"),
            ):
                np.testing.assert_allclose(
                    found[section][name], expected[section][name], rtol=few
                )
            for name in ("gaussian", "neighbors"):
                np.testing.assert_allclose(
                    found["ood"]["auroc"][name],
                    expected["ood"]["auroc"][name],
                    rtol=few,
                )
            for name in ("mean", "std", "min", "max"):
                np.testing.assert_allclose(
                    found["norms"][name], expected["norms"][name] * scale, rtol=few
                )
            trace = expected["covariance"]["trace"] * scale * scale
            fits = 0 < trace < np.inf
            if fits:
                np.testing.assert_allclose(found["covariance"]["trace"], trace)
            self.assertEqual(found["covariance"]["trace"] is None, not fits)

    def test_columns_and_rows_of_all_sizes_are_held(self):
        z = gaussian(0).astype(np.float64)
        expected, _ = self.run_main(z)
        found, _ = self.run_main(z * np.logspace(-150, 0, D))
        for one, other in zip(
            found["per_coordinate"], expected["per_coordinate"], strict=True
        ):
            for name in ("skewness", "excess_kurtosis", "ad", "dp_p"):
                np.testing.assert_allclose(one[name], other[name], rtol=1e-6)
        unit, _ = self.run_main(z, normalize=True)
        sizes = np.logspace(-250, 250, N)[:, None]
        found, _ = self.run_main(z * sizes, normalize=True)
        self.assertEqual(found["rows"]["used"], N)
        np.testing.assert_allclose(
            found["coordinates"]["ad_mean"], unit["coordinates"]["ad_mean"]
        )

    @pytest.mark.slow
    def test_rows_too_far_from_the_first_ones_are_refused(self):
        z = np.append(gaussian(0).astype(np.float64), np.full((1, D), 1e200), axis=0)
        with self.assertRaisesRegex(
            ValueError, "up to 1e.200 beside others of about 1"
        ):
            moments.of_rows(z, block=7)
        found, _ = self.run_main(z)  # all are seen at once
        self.assertEqual(found["covariance"]["rows"][0]["row"], N)

    @parameterized.parameters(("f4", 1e-40), ("f4", 1e37), ("f2", 1e4))
    def test_the_ends_of_other_dtypes_are_held(self, dtype, scale):
        found, _ = self.run_main((gaussian(0) * scale).astype(dtype))
        self.assertTrue(found["verdict"]["isotropic_gaussian"], said(found))


class NamesTest(Case):
    @parameterized.parameters(
        "a\nb`|$x_1$.npy",
        "\x1b[31mred\u202e.npy",
        "猫 שלום <script>.npy",
        b"caf\xe9.npy".decode("utf-8", "surrogateescape"),
    )
    def test_any_name_of_a_file_ends_in_a_report(self, name):
        path = self.folder / name
        np.save(path, gaussian(0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, printed = self.run_main(str(path))
        page = (self.folder / "out" / "report.html").read_text("utf-8")
        saved = json.loads((self.folder / "out" / "results.json").read_text("utf-8"))
        self.assertEqual(pathlib.Path(saved["file"]).name, name)
        for shown in (page, printed):
            self.assertNotRegex(shown, "\x1b|\u202e|[\ud800-\udfff]")
        self.assertNotIn("<script", page)
        self.assertIn("npy: 600 of 600 rows", " ".join(printed.split()))


@pytest.mark.parametrize("value", ["-x", "a b", "$(x)"])
def test_the_command_names_values_that_look_like_flags(value):
    line = command.command(report.Settings("z.npz", key=value))
    assert f"--key={value}" in line.replace("'", "")
