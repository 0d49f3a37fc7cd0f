"""Pictures are whole PNGs in which no text hides another."""

import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import matplotlib
import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import figure as mpl_figure
from matplotlib import image as mpl_image

from jaxcl import pictures
from jaxcl.pictures import neighbors, runs, style
from tests.pictures import legible


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def count(picture, color):
    """Pixels of exactly this color."""
    pixels = np.round(255 * picture[..., :3]).astype(int)
    return int((pixels == rgb(color)).all(axis=-1).sum())


class PicturesTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "deep" / "er" / "picture.png"
        random = np.random.default_rng(0)
        self.h = random.normal(size=(41, 5))
        self.labels = np.arange(41) % 3
        self.names = ("airplane", "automobile", "a very long name of a class")

    def draw_curves(self, num=200):
        steps = np.arange(1, num + 1)
        pictures.learning_curves(
            self.path,
            steps,
            1 / steps,
            [0, num],
            [0.5, 0.9],
            baselines={"raw pixels": 0.8, "untrained encoder": 0.8, "chance": 0.1},
            title="SimCLR on digits",
        )

    def draw_numbers(self, num=200):
        steps = np.arange(1, num + 1)
        pictures.number_curves(
            self.path,
            steps,
            {"temperature": 0.01 + 0.06 / steps, "bias": -10 + steps / 50},
            bounds={"temperature": 0.01},
            title="CLIP on digits, seed 0",
        )

    def draw_map(self, **options):
        pictures.embedding_map(
            self.path,
            self.h,
            self.labels,
            class_names=self.names,
            title="Untrained",
            **options,
        )

    def draw_montage(self, shape=(8, 8), k=4, right=(True, False), dtype=np.float32):
        images = np.random.default_rng(0).random((5, *shape))
        if dtype == np.uint8:
            images = (255 * images).astype(np.uint8)
        pictures.montage(
            self.path,
            images[:2],
            np.array([0, 0]),
            images,
            np.array([0, 1, 0, 1, 2]),
            np.stack([np.full(k, 0 if same else 4) for same in right]),
            np.full((2, k), 0.5),
            class_names=self.names[2:] + self.names,
            title="A title that is longer than the picture of few neighbors is wide",
        )

    def captured(self, draw):
        """The figure that would have been written."""
        with mock.patch.object(style, "save") as save:
            draw()
        return save.call_args.args[0]

    @parameterized.parameters("draw_curves", "draw_map", "draw_montage", "draw_numbers")
    def test_one_readable_png_is_written_and_nothing_else(self, draw):
        settings = dict(matplotlib.rcParams)
        getattr(self, draw)()
        self.assertEqual([p.name for p in self.path.parent.iterdir()], [self.path.name])
        picture = mpl_image.imread(self.path)
        self.assertGreater(min(picture.shape[:2]), 400)
        self.assertGreater(picture[..., :3].std(), 0.05)
        self.assertEqual(dict(matplotlib.rcParams), settings)

    def test_pyplot_is_never_imported(self):
        program = "import sys, jaxcl.pictures; assert 'matplotlib.pyplot' not in "
        subprocess.run([sys.executable, "-c", program + "sys.modules"], check=True)

    def test_a_picture_that_fails_leaves_the_old_one(self):
        self.draw_curves()
        before = self.path.read_bytes()

        def fail(figure, path, **_):
            pathlib.Path(path).write_bytes(b"half")
            raise OSError("disk full")

        with (
            mock.patch.object(mpl_figure.Figure, "savefig", fail),
            self.assertRaisesRegex(OSError, "disk full"),
        ):
            self.draw_curves()
        self.assertEqual(self.path.read_bytes(), before)
        self.assertLen(list(self.path.parent.iterdir()), 1)

    @parameterized.parameters(
        "curves", "few", "map", "montage", "narrow", "color", "numbers", "one number"
    )
    def test_no_text_hides_another_or_leaves_the_picture(self, which):
        draw = {
            "curves": self.draw_curves,
            "few": lambda: self.draw_curves(3),
            "map": self.draw_map,
            "numbers": self.draw_numbers,
            "one number": lambda: pictures.number_curves(
                self.path, [1], {"temperature": [0.07]}
            ),
            "montage": lambda: self.draw_montage(k=8),
            "narrow": lambda: self.draw_montage(k=1),
            "color": lambda: self.draw_montage((6, 9, 3)),
        }[which]
        figure = self.captured(draw)
        legible.check(figure)

    def test_frames_tell_right_from_wrong(self):
        def drawn(right):
            self.draw_montage(right=right)
            picture = mpl_image.imread(self.path)
            return count(picture, neighbors.SAME), count(picture, neighbors.OTHER)

        legend = drawn((True, True))[1]
        self.assertLess(legend, 1500)  # the only red when all is right
        green, red = drawn((True, False))
        self.assertGreater(green, 5000)
        self.assertGreater(red, 5000)
        green, red = drawn((False, False))
        self.assertLess(green, 1500)

    @parameterized.product(
        shape=((8, 8), (8, 8, 1), (8, 8, 3), (6, 9)), dtype=(np.uint8, np.float64)
    )
    def test_images_keep_their_pixels_and_their_shape(self, shape, dtype):
        figure = self.captured(lambda: self.draw_montage(shape, dtype=dtype))
        images = figure.axes[0].images
        self.assertLen(images, 2 + 2 * 4)
        for image in images:
            self.assertEqual(image.get_interpolation(), "nearest")
            left, right, bottom, top = image.get_extent()
            self.assertAlmostEqual((bottom - top) / (right - left), shape[0] / shape[1])
        expected = np.random.default_rng(0).random((5, *shape))[0].squeeze()
        np.testing.assert_allclose(images[0].get_array(), expected, atol=1 / 255)

    def test_numbers_that_are_not_there_are_refused(self):
        for numbers in ({}, {"loss": [1.0]}):
            with self.assertRaisesRegex(ValueError, "numbers must hold a name"):
                pictures.number_curves(
                    self.path, [1], numbers, bounds={"temperature": 0.01}
                )
        with self.assertRaisesRegex(ValueError, "numbers of 'loss' and its steps must"):
            pictures.number_curves(self.path, [1, 2], {"loss": [1.0]})

    @parameterized.parameters(60, 119, 120, 200)
    def test_a_mean_is_drawn_in_the_middle_of_what_it_is_of(self, num):
        steps = 7 * np.arange(num) + 3
        # Of a straight line, means in the middle lie on the line.
        figure = self.captured(
            lambda: pictures.learning_curves(self.path, steps, 2 * steps + 1, [], [])
        )
        x, y = figure.axes[0].lines[-1].get_data()
        np.testing.assert_allclose(y, 2 * x + 1, rtol=1e-12)
        self.assertLen(figure.axes[0].lines, 2)

    def test_the_last_accuracy_is_written_where_the_curve_does_not_come_from(self):
        for last, side in ((0.4, "top"), (0.6, "bottom")):
            figure = self.captured(
                lambda last=last: pictures.learning_curves(
                    self.path, [1], [1], [1, 2], [0.5, last], knn_of="9 images"
                )
            )
            [number] = figure.axes[1].texts
            self.assertEqual(number.get_text(), f"{100 * last:.1f} %")
            self.assertEqual(number.get_verticalalignment(), side)
            self.assertIn("of 9 images", figure.axes[1].get_ylabel())

    def test_many_points_are_laid_out_by_principal_components(self):
        points, method = runs._plane(self.h, seed=0, max_tsne=40)
        centered = self.h - self.h.mean(axis=0)
        _, singular, axes = np.linalg.svd(centered)
        np.testing.assert_allclose(np.abs(points), np.abs(centered @ axes[:2].T))
        share = 100 * np.square(singular[:2]).sum() / np.square(singular).sum()
        self.assertIn(f"principal components, {share:.0f} %", method)
        for limit, name in ((40, "principal components"), (41, "t-SNE")):
            figure = self.captured(lambda limit=limit: self.draw_map(max_tsne=limit))
            self.assertIn(name, figure.get_suptitle())

    def test_the_map_depends_on_the_seed_only(self):
        first, _ = runs._plane(self.h, seed=0, max_tsne=100)
        again, _ = runs._plane(self.h, seed=0, max_tsne=100)
        np.testing.assert_array_equal(first, again)

    def test_clusters_are_named_and_mixtures_are_not(self):
        def named():
            return [
                text.get_text() for text in self.captured(self.draw_map).axes[0].texts
            ]

        self.h = np.concatenate([np.eye(3)[self.labels], 0.01 * self.h], axis=1)
        self.assertCountEqual(named(), self.names)
        self.labels = np.random.default_rng(0).integers(3, size=41)
        self.assertEmpty(named())
        said = self.captured(self.draw_map).get_suptitle()
        self.assertIn("none of 3 classes lies together", said)

    def test_of_two_mixed_classes_none_is_named(self):
        # Of the larger one are more than 0.6 of the points everywhere.
        self.labels = (np.random.default_rng(0).random(400) < 0.7).astype(int)
        self.h = np.random.default_rng(1).normal(size=(400, 3))
        figure = self.captured(lambda: self.draw_map(max_tsne=3))
        self.assertEmpty(figure.axes[0].texts)
        self.h[:, 0] += 20 * self.labels - 10
        figure = self.captured(lambda: self.draw_map(max_tsne=3))
        self.assertLen(figure.axes[0].texts, 2)

    def test_no_class_is_drawn_over_the_others(self):
        self.labels, self.h = (
            np.arange(900) % 2,
            np.random.default_rng(0).random((900, 3)),
        )
        figure = self.captured(lambda: self.draw_map(max_tsne=3))
        drawn = figure.axes[0].collections
        # Of either class no more than a fifth of the points lies over all of the other.
        self.assertEqual(sum(len(each.get_offsets()) for each in drawn), 900)
        colors = [tuple(each.get_facecolor()[0]) for each in drawn]
        self.assertEqual(colors[0::2], [colors[0]] * 5)
        self.assertEqual(colors[1::2], [colors[1]] * 5)
        self.assertLess(max(len(each.get_offsets()) for each in drawn), 120)

    def test_many_classes_and_few_points_are_drawn(self):
        for n, r, classes in ((100, 3, 100), (3, 4, 2), (2, 2, 1)):
            pictures.embedding_map(
                self.path,
                np.random.default_rng(0).normal(size=(n, r)),
                np.arange(n) % classes,
                class_names=[f"class {c}" for c in range(classes)],
                max_tsne=50,
            )

    def test_a_run_without_probes_has_a_picture(self):
        pictures.learning_curves(self.path, [1], [2.0], [], [])
        self.assertTrue(self.path.exists())

    def test_bad_input_is_named(self):
        images, labels = np.zeros((3, 4, 4)), np.zeros(3, int)
        rows = np.zeros((3, 2), int)
        good = {
            "path": self.path,
            "queries": images,
            "query_labels": labels,
            "keys": images,
            "key_labels": labels,
            "indices": rows,
            "cosines": rows,
        }

        def montage(**change):
            pictures.montage(**(good | change), class_names=["only"])

        def curves(path, loss):
            pictures.learning_curves(path, [1, 2], loss, [], [])

        def map_of(h, labels):
            pictures.embedding_map(self.path, h, labels, class_names=["only"])

        cases = [
            (r"end in \.png.*jpg", lambda: curves(self.folder / "a.jpg", [1, 2])),
            ("loss and its steps", lambda: curves(self.path, [1, 2, 3])),
            (r"h must be \[n, r\]", lambda: map_of(images, labels)),
            ("labels must be integers", lambda: map_of(self.h, self.labels * 1.0)),
            (r"labels must lie in \[0, 1\)", lambda: map_of(self.h, self.labels)),
            ("queries must be", lambda: montage(queries=np.zeros((3, 4, 4, 2)))),
            (r"keys must lie in \[0, 1\].*2", lambda: montage(keys=images + 2)),
            ("keys must be uint8", lambda: montage(keys=images.astype(int))),
            ("images of one shape", lambda: montage(keys=np.zeros((3, 5, 4)))),
            (r"indices must lie in \[0, 3\), got 3", lambda: montage(indices=rows + 3)),
            (r"indices must be \[3, k\]", lambda: montage(indices=rows[:2])),
            (r"cosines must be \(3, 2\)", lambda: montage(cosines=rows[:, :1])),
            ("key_labels must be int", lambda: montage(key_labels=labels[:2])),
        ]
        for message, call in cases:
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                call()


if __name__ == "__main__":
    absltest.main()
