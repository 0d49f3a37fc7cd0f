"""The report on a file of embeddings says what is true, and refuses what it cannot."""

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import markupsafe
import numpy as np
import pytest
import tyro
from absl.testing import absltest, parameterized
from matplotlib import figure as mpl_figure
from scipy import integrate, spatial, stats

from jaxcl import report
from jaxcl.pictures import embeddings
from jaxcl.report import (
    command,
    comparisons,
    moments,
    pictures,
    reading,
    rounding,
    rules,
    tests,
    verdict,
    words,
)
from jaxcl.report import sample as sampling

N, D = 600, 16


def gaussian(seed, n=N, d=D):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def escaped(text):
    return str(markupsafe.escape(text))


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def save(self, z, name="z.npy"):
        np.save(self.folder / name, z)
        return str(self.folder / name)

    def run_main(self, z, draw=False, **settings):
        """Results of a run on an array or a path, and what it printed."""
        path = z if isinstance(z, str) else self.save(z)
        settings = {"out": str(self.folder / "out"), "overwrite": True} | settings
        drawn = {} if draw else {"return_value": []}  # pictures take most of the time
        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            mock.patch.object(pictures, "of", wraps=pictures.of, **drawn),
        ):
            results = report.main(report.Settings(path, **settings))
        return results.as_json(), printed.getvalue()


class ReadingTest(Case):
    @parameterized.parameters("float16", "float32", "float64", "bfloat16", ">f4")
    def test_numbers_are_read_as_they_were_written(self, dtype):
        z = jnp.asarray(gaussian(0, 21, 5)).astype(jnp.bfloat16)
        z = np.asarray(z).astype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
        expected = z.astype(np.float64)
        paths = {"z.npy": self.save(z), "f": self.save(np.asfortranarray(z), "f.npy")}
        for name, save in (("s.npz", np.savez), ("c.npz", np.savez_compressed)):
            paths[name] = str(self.folder / name)
            save(paths[name], ids=np.arange(21), z=z)
        for name, path in paths.items():
            with self.subTest(name):
                rows = reading.embeddings("file", path)
                self.assertEqual(isinstance(rows.array, np.memmap), name != "c.npz")
                found = np.concatenate(list(reading.blocks(rows.array, 4)))
                np.testing.assert_array_equal(found, expected)
                np.testing.assert_array_equal(
                    reading.pick(rows.array, np.array([3, 20])), expected[[3, 20]]
                )
        if dtype != ">f4":
            (self.folder / "z.raw").write_bytes(z.tobytes())
            raw = str(self.folder / "z.raw")
            rows = reading.embeddings("file", raw, raw=f"{dtype},5")
            np.testing.assert_array_equal(rows.array.astype(np.float64), expected)

    def test_the_first_floating_matrix_is_taken_and_the_choice_is_said(self):
        path = str(self.folder / "z.npz")
        z = gaussian(0, 20, 3)
        np.savez(path, ids=np.arange(20), line=z[:, 0], first=z, second=2 * z)
        rows = reading.embeddings("file", path)
        np.testing.assert_array_equal(rows.array, z)
        self.assertIn("'first'", rows.notes[0])
        self.assertIn("'second'", rows.notes[0])
        rows = reading.embeddings("file", path, key="second")
        np.testing.assert_array_equal(rows.array, 2 * z)
        self.assertEmpty(rows.notes)

    def test_labels_are_a_key_or_a_file_of_numbers_or_text(self):
        path = str(self.folder / "z.npz")
        names = np.array(["cat", "dog", "cat"])
        np.savez(path, z=gaussian(0, 3, 2), names=names)
        expected = [0, 1, 0]
        for choice in ("names", self.save(names), self.save(np.array([-7, 2**40, -7]))):
            np.testing.assert_array_equal(reading.classes(choice, path, 3), expected)


class BadInputTest(Case):
    def refused(self, error, message, z, **settings):
        with self.subTest(message), self.assertRaisesRegex(error, message):
            self.run_main(z, **settings)
        self.assertFalse((self.folder / "out").exists())

    def test_files_that_are_broken_are_named(self):
        good = self.save(gaussian(0), "good.npy")
        whole = pathlib.Path(good).read_bytes()

        def broken(name, content):
            (self.folder / name).write_bytes(content)
            return str(self.folder / name)

        np.savez(self.folder / "good.npz", z=gaussian(0))
        np.savez_compressed(self.folder / "packed.npz", z=gaussian(0))
        archive = (self.folder / "good.npz").read_bytes()
        packed = bytearray((self.folder / "packed.npz").read_bytes())
        packed[5000:5100] = bytes(100)
        for error, message, path in (
            (FileNotFoundError, "none there", str(self.folder / "absent.npy")),
            (ValueError, "must be a file, got the folder", str(self.folder)),
            (
                ValueError,
                "cut.npy: not a readable NumPy file: mmap length is greater",
                broken("cut.npy", whole[:38000]),
            ),
            (
                ValueError,
                "cut0.npy: not a readable NumPy file: .*EOF",
                broken("cut0.npy", whole[:40]),
            ),
            (
                ValueError,
                "text.npy: not a readable NumPy file: .*magic",
                broken("text.npy", b"1,2\n3,4\n"),
            ),
            (
                ValueError,
                "empty.npy: not a readable NumPy file: ",
                broken("empty.npy", b""),
            ),
            (
                ValueError,
                "cut.npz: not a readable NumPy file",
                broken("cut.npz", archive[:30000]),
            ),
            (
                ValueError,
                "hole.npz: cannot read array 'z'",
                broken("hole.npz", bytes(packed)),
            ),
            (ValueError, "end in .npy or .npz", broken("z.csv", b"1,2\n")),
        ):
            self.refused(error, message, path)

    def test_arrays_that_are_no_embeddings_are_named(self):
        z = gaussian(0)
        spoilt = np.full_like(z, np.nan)
        spoilt[:19] = z[:19]
        one = np.zeros_like(z)
        one[:, 3] = z[:, 3]
        for error, message, array in (
            (
                ValueError,
                "not a readable NumPy file: .*Python objects",
                np.array([[1.0, None]], dtype=object),
            ),
            (TypeError, "got dtype complex64", z.astype(np.complex64)),
            (TypeError, "got dtype int64; convert integers", z.astype(np.int64)),
            (TypeError, "got dtype bool", z > 0),
            (ValueError, r"\[n, d\].*got shape \(600,\)", z[:, 0]),
            (ValueError, r"\[n, d\].*got shape \(2, 300, 16\)", z.reshape(2, 300, 16)),
            (ValueError, r"\[n, d\].*got shape \(0, 16\)", z[:0]),
            (ValueError, r"\[n, d\].*got shape \(600, 0\)", z[:, :0]),
            (ValueError, "at least 20 rows.*got 19 of 19", z[:19]),
            (ValueError, "got 16 of 16; if each of its 600 columns is an", z[:600].T),
            (ValueError, "at least 20 rows.*got 19 of 600", spoilt),
            (ValueError, "at least 20 rows.*got 0 of 600", spoilt * np.nan),
            (ValueError, "all 600 usable rows of .* are equal", np.ones_like(z)),
            (ValueError, "2 columns that vary, got 1 of 16", one),
        ):
            self.refused(error, message, self.save(array))
        np.savez(self.folder / "o.npz", o=np.array([None]), i=np.arange(3))
        path = str(self.folder / "o.npz")
        self.refused(ValueError, "floating array.*'o' object.*'i' int64", path)
        self.refused(ValueError, "key must be one of .*got 'x'", path, key="x")
        self.refused(ValueError, "array 'o'.*not unpickled", path, key="o")

    def test_settings_that_do_not_fit_are_named(self):
        path, z = self.save(gaussian(0)), gaussian(0)
        other, labels = str(self.folder / "other.npy"), str(self.folder / "labels.npy")

        def refused(error, message, array=None, **settings):
            if array is not None:
                np.save(other, array)
            self.refused(error, message, path, **settings)

        refused(ValueError, "max_samples must be at least 20, got 19", max_samples=19)
        refused(ValueError, "directions must be at least 1, got 0", directions=0)
        refused(ValueError, "give one", labels=labels, pairs=other)
        refused(ValueError, "key is for .npz", key="z")
        refused(ValueError, "pairs must have shape.*599", z[:-1], pairs=other)
        refused(ValueError, "ood must have shape.*15", z[:, 1:], ood=other)
        refused(ValueError, "ood must hold finite rows", z * np.nan, ood=other)
        refused(FileNotFoundError, "a file or a key, got 'absent'", labels="absent")
        refused(TypeError, "labels.*float32", z[:, 0], labels=other)
        refused(ValueError, r"labels must be \[600\]", np.arange(5), labels=other)
        refused(ValueError, "at least two classes", np.zeros(N, int), labels=other)
        refused(ValueError, "raw must be a dtype", raw="int8,4")
        refused(ValueError, "whole rows of 9 numbers", raw="float64,9")

    def test_a_file_in_the_way_of_the_report_is_found_before_the_work(self):
        path = self.save(gaussian(0))
        for out in (path, path + "/deeper/still"):
            with (
                mock.patch.object(reading, "files", side_effect=AssertionError),
                self.assertRaisesRegex(NotADirectoryError, "out must be a dir.*z.npy"),
            ):
                self.run_main(path, out=out)

    def test_a_report_is_not_overwritten_unless_asked(self):
        self.run_main(gaussian(0))
        with self.assertRaisesRegex(FileExistsError, "holds a report"):
            self.run_main(gaussian(1), overwrite=False)
        again, _ = self.run_main(gaussian(1))
        saved = json.loads((self.folder / "out" / "results.json").read_text())
        self.assertEqual(saved, json.loads(json.dumps(again)))


class NumbersTest(Case):
    @parameterized.product(block=(1, 7, 1000, None), normalize=(False, True))
    def test_one_pass_in_ragged_blocks_gives_the_moments(self, block, normalize):
        random = np.random.default_rng(0)
        z = (random.gamma(2.0, size=(41, 5)) + 1000).astype(np.float32)
        z[3, 1], z[20, 0], z[:, 4] = np.nan, np.inf, 2.5
        z[7] = 0
        found = moments.of_rows(z, normalize=normalize, block=block)
        left_out = [3, 20] + [7] * normalize
        x = np.delete(z, left_out, axis=0).astype(np.float64)
        np.testing.assert_array_equal(np.flatnonzero(found.not_finite), [3, 20])
        np.testing.assert_array_equal(np.flatnonzero(~found.usable), sorted(left_out))
        norms = np.sqrt((x**2).sum(axis=1))
        np.testing.assert_allclose(found.norms, norms, rtol=1e-12)
        if normalize:
            x = x / norms[:, None]
        np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
        covariance = np.cov(x, rowvar=False, bias=True)
        scale = np.abs(covariance).max()
        np.testing.assert_allclose(
            found.covariance, covariance, rtol=1e-9, atol=1e-9 * scale
        )
        # The column that is 2.5 in all rows but the zero one varies when that counts.
        np.testing.assert_array_equal(found.constant, np.ptp(x, axis=0) == 0)
        varies = ~found.constant
        for values, expected in (
            (found.skewness, stats.skew(x[:, varies])),
            (found.kurtosis, stats.kurtosis(x[:, varies])),
        ):
            np.testing.assert_allclose(values[varies], expected, rtol=1e-6)
            self.assertTrue(np.isnan(values[~varies]).all())

    def test_the_trace_of_the_squared_covariance_is_estimated_without_bias(self):
        # Two independent differences of rows have twice the covariance each.
        z = np.random.default_rng(0).gamma(1.0, size=(7, 3)) * [1, 2, 5] + 10
        four = np.array(list(itertools.permutations(range(7), 4)))
        first, second = z[four[:, 0]] - z[four[:, 1]], z[four[:, 2]] - z[four[:, 3]]
        expected = np.mean((first * second).sum(axis=1) ** 2) / 4
        for block in (2, None):
            found = moments.square_trace(moments.of_rows(z, block=block))
            np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_the_trace_of_the_squared_covariance_is_right_with_few_rows(self):
        random, scale = np.random.default_rng(0), np.geomspace(1, 3, 40)
        found = [
            moments.square_trace(moments.of_rows(random.normal(size=(12, 40)) * x))
            for x in [scale] * 400
        ]
        standard_error = np.std(found) / 20
        self.assertLess(abs(np.mean(found) - (scale**4).sum()), 4 * standard_error)
        self.assertLess(standard_error, 0.02 * np.mean(found))

    @parameterized.parameters(2, 3, 4, 50)
    def test_the_density_of_cosines_is_that_of_uniform_directions(self, d):
        def law(t):
            return (1 - t * t) ** ((d - 3) / 2)

        x = np.linspace(-0.9, 0.9, 7)
        expected = law(x) / integrate.quad(law, -1, 1)[0]
        np.testing.assert_allclose(embeddings.cosine_density(x, d), expected, rtol=1e-6)

    def test_cosines_are_those_of_all_pairs_by_label(self):
        z = gaussian(0, 700, 5).astype(np.float64)  # more than one block
        labels = np.arange(700) % 3
        cosine = 1 - spatial.distance.pdist(z, "cosine")
        same = spatial.distance.pdist(labels[:, None], "hamming") == 0
        negative, positive = comparisons.cosines(z, labels)
        everything, nothing = comparisons.cosines(z, None)
        self.assertIsNone(nothing)
        for found, values in (
            (negative, cosine[~same]),
            (positive, cosine[same]),
            (everything, cosine),
        ):
            np.testing.assert_allclose(found.mean, values.mean(), atol=1e-12)
            np.testing.assert_allclose(found.std, values.std(), rtol=1e-9)
            expected, _ = np.histogram(values, 200, (-1, 1))
            self.assertLessEqual(np.abs(found.counts - expected).sum(), 4)
            self.assertEqual(found.counts.sum(), len(values))

    def test_auroc_is_the_share_of_ordered_pairs(self):
        # A grid has few directions: many scores are equal.
        fitted = np.concatenate([np.eye(2), -np.eye(2)])
        random = np.random.default_rng(0)
        inside, outside = (random.integers(1, 4, (n, 2)) * 1.0 for n in (40, 30))
        found = comparisons.separation(fitted, inside, outside, 1)
        a, b = found.inside["neighbors"], found.outside["neighbors"]
        above, tied = (b[:, None] > a).mean(), (b[:, None] == a).mean()
        self.assertGreater(tied, 0.1)
        self.assertAlmostEqual(found.auroc["neighbors"], above + tied / 2)

    @parameterized.parameters((60, 240), (200, 100))
    def test_marchenko_pastur_is_the_spectrum_of_white_noise(self, d, n):
        x = np.random.default_rng(0).standard_normal((20, n, d))
        values = np.linalg.eigvalsh(np.einsum("rni,rnj->rij", x, x) / n)
        found = pictures.marchenko_pastur(d, n)
        np.testing.assert_allclose(found.mean(), 1, rtol=2e-3)
        # Finite samples move the edge by the Tracy-Widom scale, inner ones by less.
        scale = (n**0.5 + d**0.5) / n * (n**-0.5 + d**-0.5) ** (1 / 3)
        away = np.abs(found - values.mean(axis=0)[::-1])
        self.assertLess(away.max(), scale)
        self.assertLess(np.median(away), 1 / n)


class VerdictTest(Case):
    def failed(self, results):
        return {c["name"] for c in results["checks"] if c["passed"] is False}

    def test_gaussian_embeddings_pass(self):
        results, printed = self.run_main(gaussian(0))
        self.assertEmpty(self.failed(results))
        self.assertTrue(results["verdict"]["gaussian"])
        self.assertTrue(results["verdict"]["isotropic_gaussian"])
        self.assertIn("Gaussian as far as", printed)
        stretched = gaussian(0) * np.geomspace(1, 30, D, dtype=np.float32) + 3
        results, printed = self.run_main(stretched)
        self.assertTrue(results["verdict"]["gaussian"])
        self.assertFalse(results["verdict"]["isotropic_gaussian"])
        self.assertIn("Isotropic", self.failed(results))
        self.assertIn("not an isotropic", " ".join(printed.split()))

    @parameterized.parameters((30, 64), (20, 4))
    @pytest.mark.slow
    def test_few_gaussian_rows_are_rarely_called_anything_else(self, n, d):
        failed = [
            self.failed(self.run_main(gaussian(seed, n, d), seed=seed)[0])
            - {"Joint tests"}
            for seed in range(10)
        ]
        self.assertLessEqual(sum(map(bool, failed)), 1, failed)

    def test_few_rows_still_tell_an_uneven_or_moved_or_heavy_law(self):
        z, random = gaussian(0, 40, 64), np.random.default_rng(1)
        moved, _ = self.run_main(z + 1)
        self.assertIn("Centered", self.failed(moved))
        uneven, _ = self.run_main(z * np.geomspace(1, 30, 64, dtype=np.float32))
        self.assertIn("Isotropic", self.failed(uneven))
        heavy, _ = self.run_main(z / np.sqrt(random.chisquare(3, (40, 1)) / 3))
        self.assertIn("Norms", self.failed(heavy))

    def test_embeddings_that_are_not_gaussian_fail(self):
        random = np.random.default_rng(0)
        laplace = random.laplace(size=(N, D)) * random.choice([0.3, 1.0], (N, D))
        heavy = gaussian(0) / np.sqrt(random.chisquare(3, (N, 1)) / 3)
        shell = gaussian(0) * np.exp(0.5 * random.standard_normal((N, 1)))
        for name, z, least in (
            ("Laplace mixture", laplace, {"Coordinates", "Joint tests"}),
            ("cube", random.uniform(-1, 1, (N, D)), {"Coordinates"}),
            ("heavy tails", heavy, {"Coordinates", "Random directions", "Norms"}),
            ("thick shell", shell, {"Norms", "Thin shell", "Joint tests"}),
        ):
            with self.subTest(name):
                results, printed = self.run_main(z.astype(np.float32))
                self.assertContainsSubset(least, self.failed(results))
                self.assertFalse(results["verdict"]["gaussian"])
                self.assertIn("Not Gaussian", printed)

    def test_normalized_rows_are_tested_on_no_more_than_a_sphere_bears(self):
        z = gaussian(0)
        results, _ = self.run_main(z, normalize=True)
        self.assertEqual(results["coordinates"]["num_samples"], (D + 2) ** 2 // 3)
        self.assertTrue(results["verdict"]["isotropic_gaussian"])
        self.assertIsNone(results["joint"]["passed"])
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        found, _ = self.run_main(unit)
        self.assertTrue(found["normalized"])
        self.assertIn("tested as normalized", " ".join(found["notes"]))
        self.assertEqual(found["coordinates"]["num_samples"], 108)

    def test_pictures_that_fail_cost_a_line_each_and_no_number(self):
        z = gaussian(0, 60, 3)
        expected, said = self.run_main(z)
        figure = mpl_figure.Figure
        with (
            mock.patch.object(figure, "savefig", side_effect=OSError("<no room>")),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            found, printed = self.run_main(z, draw=True)
        del expected["how"], found["how"]
        self.assertEqual(found, expected)
        self.assertEqual(printed, said)
        text = [str(each.message) for each in warned]
        self.assertLen(text, 5)
        self.assertEqual(text[0], "picture 'Norms' was not drawn, OSError: <no room>")
        page = (self.folder / "out" / "report.html").read_text()
        self.assertEqual(page.count("Not drawn, OSError: &lt;no room&gt;"), 5)
        self.assertNotIn("<img", page)

    def test_the_verdict_on_normalized_rows_does_not_claim_to_have_seen_norms(self):
        z = gaussian(0)
        for normalize in (False, True):
            unit = z / np.linalg.norm(z, axis=1, keepdims=True)
            with mock.patch.object(pictures, "_norms", side_effect=AssertionError):
                found, _ = self.run_main(unit, normalize=normalize, draw=True)
            rule = found["verdict"]["rule"]
            self.assertStartsWith(
                rule,
                "Called Gaussian where coordinates and random directions pass, and "
                "isotropic where centered and isotropic pass too.",
            )
            self.assertIn("no picture of norms", " ".join(found["notes"]))
        found, _ = self.run_main(z)
        self.assertIn("directions and norms pass", found["verdict"]["rule"])
        self.assertIn("thin shell, centered and isotropic", found["verdict"]["rule"])

    def test_norms_alike_for_a_far_mean_are_not_called_normalized(self):
        found, _ = self.run_main(gaussian(0) + 3000)
        self.assertLess(found["norms"]["cv"], 1e-3)
        self.assertFalse(found["normalized"])
        self.assertTrue(found["verdict"]["gaussian"])
        self.assertEqual(self.failed(found), {"Centered"})

    @parameterized.parameters("float16", "bfloat16")
    def test_rounding_does_not_hide_that_rows_are_normalized(self, dtype):
        z = gaussian(0)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        found, _ = self.run_main(np.asarray(jnp.asarray(z).astype(dtype)))
        self.assertTrue(found["normalized"])

    def test_rows_and_columns_without_information_change_nothing(self):
        z = gaussian(0)
        clean, _ = self.run_main(z)
        spoilt = np.insert(z, [0, 5, 5], [[np.nan], [np.inf], [-np.inf]], axis=0)
        spoilt = np.insert(spoilt, [2, 16], [[7.0, 0.0]], axis=1).astype(np.float32)
        found, printed = self.run_main(spoilt)
        self.assertEqual(found["rows"]["not_finite"], 3)
        self.assertEqual(found["rows"]["first_not_finite"], [0, 6, 7])
        self.assertEqual(found["columns"]["first_left_out"], [2, 17])
        self.assertIn("3 of 603 rows hold NaN", " ".join(printed.split()))
        for section in ("coordinates", "directions", "joint", "cosines"):
            self.assertEqual(found[section], clean[section])

    def test_a_column_that_hardly_ever_varies_is_left_out_and_said(self):
        z = gaussian(0, 4 * N)
        rare = np.zeros(len(z), np.float32)
        tested = sampling.draw(np.random.default_rng(0), np.arange(len(z)), N)
        rare[np.setdiff1d(np.arange(len(z)), tested)[0]] = 1
        z = np.insert(z, 4, rare, axis=1)
        found, printed = self.run_main(z, max_samples=N)
        self.assertEqual(found["columns"]["first_left_out"], [4])
        self.assertIn("1 column varies so rarely", " ".join(printed.split()))
        self.assertTrue(found["verdict"]["isotropic_gaussian"])
        self.assertNotIn(4, [c["column"] for c in found["per_coordinate"]])

    @pytest.mark.slow
    def test_with_fewer_rows_than_columns_it_says_what_is_not_computed(self):
        found, printed = self.run_main(gaussian(0, N, 610), directions=D)
        said = " ".join(printed.split())
        self.assertIn("needs more rows than columns, and 600 rows of 610", said)
        self.assertNotIn("mardia_kurtosis_of_all", found["joint"]["tests"])
        self.assertIn("henze_zirkler", found["joint"]["tests"])
        self.assertTrue(found["verdict"]["gaussian"])
        few = gaussian(0, 20, 30).astype(np.float64)
        step = rounding.steps(few, np.dtype("f4"))
        few = tests.joint(few, step, False, jax.random.key(0))
        self.assertIsNone(few.passed)
        said = verdict.of_joint_tests(few)
        self.assertIn("fewer than 100 rows, 20, are too few", said.found)


class RulesTest(Case):
    @parameterized.parameters(1, 2, 6, 32, 100, 2048)
    def test_gaussian_coordinates_reach_the_needed_share_in_99_of_100_cases(self, d):
        needed = rules.needed_share(d)
        self.assertLessEqual(needed, rules.SHARE)
        enough = np.ceil(needed * d - 1e-9)
        self.assertGreaterEqual(stats.binom.sf(enough - 1, d, 0.95), 0.99)

    @parameterized.parameters(
        ({}, True),
        ({"ad_mean": rules.AD_LIMIT}, False),
        ({"dp_mean": rules.DP_LIMIT}, False),
        ({"ad_pass": 0.84}, False),
        ({"dp_pass": 0.84}, False),
        ({"dp_pass": 0.84, "needed": 0.8}, True),
    )
    def test_both_averages_and_both_shares_must_pass(self, changes, passes):
        good = {"ad_mean": 0.4, "ad_pass": 0.9, "dp_mean": 0.5, "dp_pass": 0.9}
        self.assertIs(report.coordinates_pass(**good | changes), passes)


class OutputTest(Case):
    def test_json_is_one_object_and_complete(self):
        _, printed = self.run_main(gaussian(0), json=True)
        results = json.loads(printed)  # fails if anything else was printed
        self.assertEqual(
            results, json.loads((self.folder / "out" / "results.json").read_text())
        )
        self.assertLen(results["per_coordinate"], D)
        self.assertLen(results["checks"], 7)
        for check in results["checks"]:
            self.assertEqual(set(check), {"name", "passed", "rule", "found", "means"})
        for key in ("verdict", "norms", "mean", "covariance", "how", "rows", "ood"):
            self.assertIn(key, results)
        self.assertNotRegex(printed, "NaN|Infinity")

    def test_the_page_stands_alone_and_escapes_names(self):
        name = "<b>&'x.npy"
        results, _ = self.run_main(self.save(gaussian(0), name), draw=True)
        page = (self.folder / "out" / "report.html").read_text()
        self.assertNotRegex(page, r"https?:|<script|<link|url\(|@import")
        sources = re.findall(r"src='([^']{0,30})", page)
        self.assertLen(sources, page.count("<img"))
        self.assertGreaterEqual(len(sources), 7)
        for source in sources:
            self.assertStartsWith(source, "data:image/png;base64,iVBOR")
        self.assertNotIn("<b>&", page)
        self.assertIn(escaped(name), page)
        self.assertIn(escaped(results["verdict"]["headline"]), page)
        self.assertIn(escaped(results["how"]["command"]), page)

    def test_the_page_of_many_columns_shows_the_hundred_least_gaussian(self):
        results, _ = self.run_main(gaussian(0, 60, 130), directions=D)
        page = (self.folder / "out" / "report.html").read_text()
        self.assertIn("The other 30 are in results.json.", page)
        shown = re.findall(r"<tr><td class=number>(\d+)</td>", page)
        worst = sorted(results["per_coordinate"], key=lambda c: -c["ad"])[:100]
        self.assertEqual([int(i) for i in shown], [c["column"] for c in worst])

    def test_the_command_on_the_page_repeats_the_run(self):
        s = report.Settings("a b.npy", normalize=True, seed=3, labels="y'")
        line = shlex.split(command.command(s))
        self.assertEqual(line[:2], ["jaxcl", "report"])
        self.assertEqual(tyro.cli(report.Settings, args=line[2:]), s)


class PositivesTest(Case):
    def test_labels_and_pairs_say_what_a_positive_is(self):
        random = np.random.default_rng(0)
        labels = random.integers(0, 30, N)
        z = gaussian(0)[labels] + 0.5 * gaussian(1)
        np.savez(self.folder / "z.npz", z=z, y=labels)
        found, _ = self.run_main(str(self.folder / "z.npz"), labels="y")
        # Centers of variance 1, noise of variance 1/4.
        self.assertAlmostEqual(found["cosines"]["positive"]["mean"], 0.8, delta=0.05)
        self.assertLess(abs(found["cosines"]["negative"]["mean"]), 0.1)
        self.assertFalse(found["cosines"]["negatives_are_all_pairs"])

        z = gaussian(2)
        partner = 0.6 * z + 0.8 * gaussian(3)
        partner[5] = np.nan
        other = self.save(partner, "other.npy")
        found, printed = self.run_main(z, pairs=other)
        expected = (z * partner).sum(axis=1) / (
            np.linalg.norm(z, axis=1) * np.linalg.norm(partner, axis=1)
        )
        cosines = found["cosines"]["positive"]
        self.assertAlmostEqual(cosines["mean"], np.nanmean(expected), delta=1e-5)
        self.assertEqual(cosines["pairs"], N - 1)
        self.assertIn("1 of 600 sampled rows of pairs", " ".join(printed.split()))
        np.savez(self.folder / "both.npz", z=z, partner=partner)
        path = str(self.folder / "both.npz")
        again, _ = self.run_main(path, key="z", pairs="partner")
        self.assertEqual(again["cosines"], found["cosines"])


class OutOfDistributionTest(Case):
    def auroc(self, z, other, **settings):
        found, printed = self.run_main(z, ood=self.save(other, "o.npy"), **settings)
        self.assertIn("Out of distribution", printed)
        return found["ood"]

    def test_another_law_is_told_and_the_same_is_not(self):
        z = gaussian(0) + np.eye(D, dtype=np.float32)[0] * 4
        same = self.auroc(z, gaussian(1) + np.eye(D, dtype=np.float32)[0] * 4)
        for value in same["auroc"].values():
            self.assertLess(abs(value - 0.5), 4 * same["chance_std"])
        moved = self.auroc(z, gaussian(1) - np.eye(D, dtype=np.float32)[0] * 4)
        self.assertGreater(moved["auroc"]["gaussian"], 0.9)
        self.assertGreater(moved["auroc"]["neighbors"], 0.9)
        self.assertEqual(moved["num_fitted"] + moved["num_held_out"], N)

    def test_the_likelihood_is_that_of_the_fitted_gaussian(self):
        z, other = gaussian(0, 300, 4).astype(np.float64) * [1, 2, 3, 4], gaussian(1)
        fitted, inside, outside = z[:200], z[200:], other[:50, :4].astype(np.float64)
        found = comparisons.separation(fitted, inside, outside, 3)
        law = stats.multivariate_normal(
            fitted.mean(axis=0), np.cov(fitted, rowvar=False, bias=True)
        )
        np.testing.assert_allclose(
            found.inside["gaussian"], -law.logpdf(inside), rtol=1e-4
        )
        np.testing.assert_allclose(
            found.outside["gaussian"], -law.logpdf(outside), rtol=1e-4
        )
        distance = np.sort(spatial.distance.cdist(outside, fitted, "cosine"), axis=1)
        np.testing.assert_allclose(
            found.outside["neighbors"], distance[:, 2], atol=1e-6
        )

    def test_what_needs_more_rows_is_said(self):
        z = gaussian(0, 60, 40)
        found = words.out_of_distribution(
            comparisons.separation(z[:30], z[30:], z, k=31)
        )
        self.assertIsNone(found.auroc["gaussian"])
        self.assertIn("30 <= 40", found.not_computed["gaussian"])
        self.assertIn("k = 31", found.not_computed["neighbors"])


class MemoryTest(Case):
    def peak(self, n):
        """Most anonymous memory of a process that reports on n rows of 256, in MiB.

        Anonymous: mapped pages of the file are the system's to take back.
        """
        path = self.folder / f"{n}.npy"
        z = np.lib.format.open_memmap(path, "w+", np.float32, (n, 256))
        for start in range(0, n, 10_000):
            z[start : start + 10_000] = gaussian(start, 10_000, 256)
        code = f"""
from jaxcl import report
settings = report.Settings({str(path)!r}, out={str(self.folder)!r},
    max_samples=1000, overwrite=True)
assert report.main(settings).numbers.rows.used == {n}
"""
        most = 0
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with (
            open(self.folder / "errors", "w") as errors,
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            ) as run,
        ):
            while run.poll() is None:
                status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
                now = re.search(r"RssAnon:\s+(\d+) kB", status)  # none once it exits
                most = max(most, int(now[1]) if now else 0)
                time.sleep(0.005)
        self.assertEqual(run.returncode, 0, (self.folder / "errors").read_text())
        return most / 2**10

    @pytest.mark.slow
    @unittest.skipUnless(sys.platform == "linux", "memory is read from /proc")
    def test_memory_does_not_grow_with_rows(self):
        small, large = self.peak(20_000), self.peak(200_000)
        self.assertGreater(small, 50)
        self.assertLess(large, 1024)
        # The numbers that were added take 176 MiB in the file, 352 MiB in float64.
        self.assertLess(large - small, 64)


if __name__ == "__main__":
    absltest.main()
