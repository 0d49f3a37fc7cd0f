"""Operations against other implementations, draws against their distributions."""

import contextlib
import functools
import inspect
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
from absl.testing import absltest, parameterized

from jaxcl.augment import images
from jaxcl.augment.images import affine_maps, color, crop, filters
from tests.augment import oracles

KEY = jax.random.key(0)
IMAGE = np.zeros((8, 8, 3), np.float32)
SHAPES = ((8, 8, 1), (9, 14, 3))


def picture(shape, seed=0):
    """Random image with runs of black, white and gray, where formulas branch."""
    rng = np.random.default_rng(seed)
    image = rng.random(shape, np.float32)
    image[0, :3], image[1, :2], image[2, :2] = 0, 1, 0.5
    return image


def photograph(shape, seed=0):
    """Smooth random uint8 image for comparisons with Pillow's eight-bit operations."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, np.uint8)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def over_keys(step, image, n):
    """step(key, image) for n keys, [n, ...]."""
    return np.asarray(jax.jit(jax.vmap(step, (0, None)))(keys(n), jnp.asarray(image)))


class CropTest(parameterized.TestCase):
    @parameterized.parameters(
        ((8, 8, 1), (8, 8)),
        ((33, 20, 3), (17, 40)),  # reduced and enlarged
        ((64, 50, 4), (16, 9)),
        ((12, 12, 2), (32, 1)),
    )
    def test_equals_pillow_for_boxes_of_whole_pixels(self, shape, size):
        h, w, _ = shape
        boxes = np.array(
            [[0, 0, h, w], [1, 2, h - 2, w - 3], [h - 1, w - 1, 1, 1], [3, 0, 5, w]]
        )
        image = picture(shape)
        crop = jax.jit(
            jax.vmap(lambda box: images.resized_crop(jnp.asarray(image), box, size))
        )
        expected = [oracles.resized_crop(image, box, size) for box in boxes]
        np.testing.assert_allclose(crop(boxes), expected, atol=2e-6)

    def test_planes_are_resized_together_as_one_by_one(self):
        image = jnp.asarray(picture((9, 14, 3)))
        rows = crop._resize_matrix(jnp.float32(1), jnp.float32(6), 9, 5)
        columns = crop._resize_matrix(jnp.float32(0), jnp.float32(14), 14, 20)
        together = jax.jit(crop._resize_planes)(image, rows, columns)
        each = jax.jit(crop._resize_each_plane)(image, rows, columns)
        np.testing.assert_allclose(together, each, atol=1e-6)

    def test_equals_pillow_at_224(self):
        image, box = picture((256, 240, 3)), np.array([20, 7, 230, 190])
        crop = jax.jit(lambda image: images.resized_crop(image, box, 224))
        expected = oracles.resized_crop(image, box, (224, 224))
        # A float32 coordinate near 224 is known to 1.5e-5.
        np.testing.assert_allclose(crop(image), expected, atol=3e-5)

    def test_enlarging_a_box_of_broken_pixels_interpolates_within_it(self):
        row = np.random.default_rng(0).random(7).astype(np.float32)
        start, length = 1.3, 3.6  # holds the centers of pixels 1 (at 1.5) to 4
        u = start + (np.arange(10) + 0.5) * length / 10
        crop = jax.jit(
            lambda x: images.resized_crop(x, (0, start, 1, length), (1, 10))
        )(row[None, :, None])
        expected = np.interp(u, [1.5, 2.5, 3.5, 4.5], row[1:5])
        np.testing.assert_allclose(crop[0, :, 0], expected, atol=1e-6)

    def test_the_whole_image_at_its_own_size_is_unchanged(self):
        image = picture((9, 14, 3))
        whole = jax.jit(lambda x: images.resized_crop(x, (0, 0, 9, 14), (9, 14)))(image)
        np.testing.assert_array_equal(whole, image)

    def test_crop_uses_its_box_and_nothing_else(self):
        image = picture((12, 10, 1))
        crop = jax.jit(functools.partial(images.random_resized_crop, size=6))
        box = jax.jit(lambda key: images.random_box(key, 12, 10))(jax.random.key(3))
        expected = oracles.resized_crop(image, box, (6, 6))
        actual = crop(jax.random.key(3), image)
        np.testing.assert_allclose(actual, expected, atol=2e-6)

    @parameterized.parameters((8, 8), (5, 31), (224, 180))
    def test_boxes_are_whole_pixels_inside_the_image(self, height, width):
        boxes = over_keys(lambda k, _: images.random_box(k, height, width), 0.0, 2000)
        top, left, box_height, box_width = boxes.T
        np.testing.assert_array_equal(boxes, np.round(boxes))
        self.assertTrue((boxes[:, 2:] >= 1).all())
        self.assertTrue(((top >= 0) & (top + box_height <= height)).all())
        self.assertTrue(((left >= 0) & (left + box_width <= width)).all())

    def test_area_is_uniform_and_ratio_log_uniform(self):
        # Every draw fits: at most sqrt(0.5 * 2) = 1 times the side.
        side, n = 2000, 4000
        boxes = over_keys(
            lambda k, _: images.random_box(
                k, side, side, scale=(0.2, 0.5), ratio=(0.5, 2)
            ),
            0.0,
            n,
        )
        _, _, height, width = boxes.T.astype(np.float64)
        area = oracles.distance_from_uniform(height * width / side**2, 0.2, 0.5)
        ratio = oracles.distance_from_uniform(np.log2(width / height), -1, 1)
        # Kolmogorov: above 2.2 / sqrt(n) once in 8,000; a pixel is 1e-3 of the range.
        self.assertLess(max(area, ratio), 2.2 / np.sqrt(n) + 1e-3)

    def test_every_place_is_as_likely(self):
        n, quarter = 9000, (0.25, 0.25)
        boxes = over_keys(
            lambda k, _: images.random_box(k, 4, 4, scale=quarter, ratio=(1, 1)), 0.0, n
        )
        np.testing.assert_array_equal(boxes[:, 2:], 2)
        counts = np.bincount((boxes[:, 0] * 3 + boxes[:, 1]).astype(int), minlength=9)
        # A count has standard deviation sqrt(n 8 / 81) = 30.
        np.testing.assert_allclose(counts, n / 9, atol=4.5 * 30)

    @parameterized.parameters(
        # A full-area box of ratio 3/4 to 4/3 fits in neither image: as torchvision,
        # the short side whole and the long side its multiple, in the center.
        (8, 64, [0, 26, 8, 11]),
        (64, 8, [26, 0, 11, 8]),
    )
    def test_without_a_fit_the_box_is_central(self, height, width, expected):
        box = jax.jit(lambda key: images.random_box(key, height, width, scale=(1, 1)))(
            KEY
        )
        np.testing.assert_array_equal(box, expected)

    def test_without_a_fit_an_allowed_shape_is_kept_whole(self):
        ratio = (0.7, 1.5)  # 10 x 14 is allowed, but ten draws of that area never fit
        with mock.patch.object(
            jax.random, "uniform", lambda _, s, t: jnp.full(s, 0.99, t)
        ):
            box = images.random_box(KEY, 10, 14, scale=(1, 1), ratio=ratio)
        np.testing.assert_array_equal(box, [0, 0, 10, 14])


class ColorTest(parameterized.TestCase):
    @parameterized.product(name=("brightness", "contrast", "saturation"), shape=SHAPES)
    def test_adjustment_equals_its_definition(self, name, shape):
        adjust = jax.jit(getattr(images, f"adjust_{name}"))
        image = picture(shape)
        for factor in (0.0, 0.3, 1.0, 1.8):
            expected = getattr(oracles, name)(image, factor)
            np.testing.assert_allclose(adjust(image, factor), expected, atol=1e-6)

    @parameterized.parameters(
        ("brightness", PIL.ImageEnhance.Brightness),
        ("contrast", PIL.ImageEnhance.Contrast),
        ("saturation", PIL.ImageEnhance.Color),
    )
    def test_adjustment_means_what_it_means_in_pillow(self, name, enhance):
        image = photograph((9, 14, 3))
        expected = enhance(PIL.Image.fromarray(image)).enhance(1.4)
        actual = getattr(images, f"adjust_{name}")(np.float32(image / 255), 1.4)
        # Pillow rounds the gray and the result to whole levels.
        np.testing.assert_allclose(
            255 * actual, np.asarray(expected, np.float32), atol=1.5
        )

    def test_hue_equals_colorsys(self):
        image = picture((9, 14, 3))
        image[3, :6] = np.array(
            [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
        )
        image[4, :3] = [[0.7, 0.7, 0.2], [0.2, 0.7, 0.7], [0.7, 0.2, 0.7]]
        adjust = jax.jit(images.adjust_hue)
        for shift in (-0.5, -0.13, 0.0, 0.2, 1 / 3, 0.5):
            expected = oracles.hue(image, shift)
            np.testing.assert_allclose(adjust(image, shift), expected, atol=2e-6)

    @parameterized.product(
        shape=SHAPES, left_out=((), ("hue",), ("brightness", "saturation"))
    )
    def test_jitter_equals_the_adjustments_in_each_of_24_orders(self, shape, left_out):
        names = ("brightness", "contrast", "saturation", "hue")
        values = {"brightness": 1.4, "contrast": 0.5, "saturation": 1.6, "hue": -0.15}
        values = {n: v for n, v in values.items() if n not in left_out}
        image = picture(shape)
        jitter = jax.jit(
            jax.vmap(lambda order: images.color_jitter(image, order, **values))
        )
        expected = []
        for order in oracles.orders():
            adjusted = image
            for name in (names[i] for i in order):
                if name in values:
                    adjusted = getattr(oracles, name)(adjusted, values[name])
            expected.append(adjusted)
        np.testing.assert_allclose(jitter(oracles.orders()), expected, atol=5e-6)

    @parameterized.product(form=("by_passes", "at_once"), shape=SHAPES)
    def test_jitter_in_either_form_equals_the_adjustments(self, form, shape):
        run = {
            "by_passes": functools.partial(color._jitter_by_passes, grays=True),
            "at_once": color._jitter_at_once,
        }[form]
        image, values = picture(shape), (1.4, 0.5, 1.6)
        factors = [jnp.float32(value) for value in values]
        shift = jnp.float32(-0.15) if shape[2] == 3 else None
        orders = jnp.asarray(oracles.orders())
        actual = jax.jit(
            jax.vmap(lambda order: run(jnp.asarray(image), order, factors, shift))
        )(orders)
        steps = [
            functools.partial(getattr(oracles, name), factor=value)
            for name, value in zip(
                ("brightness", "contrast", "saturation"), values, strict=True
            )
        ]
        steps.append(functools.partial(oracles.hue, shift=-0.15))
        expected = [
            functools.reduce(lambda x, i: steps[i](x), order, image) for order in orders
        ]
        np.testing.assert_allclose(actual, expected, atol=5e-6)
        ones = [jnp.float32(1)] * 3
        still = None if shift is None else jnp.float32(0)
        same = jax.jit(lambda x: run(x, orders[5], ones, still))(image)
        np.testing.assert_array_equal(same, image)

    def test_jitter_of_brightness_alone_takes_any_number_of_channels(self):
        image = picture((8, 8, 4))
        jittered = images.color_jitter(image, np.arange(4), brightness=0.5)
        np.testing.assert_array_equal(jittered, image / 2)

    def test_jitter_draws_uniform_factors_in_uniform_order(self):
        n = 4800

        def show(image, order, **values):
            parameters = [*order.astype(jnp.float32), *values.values()]
            return jnp.stack(parameters)[None, :, None]

        strengths = {"brightness": 0.8, "contrast": 1.5, "saturation": 0.2, "hue": 0.1}
        step = functools.partial(images.random_color_jitter, **strengths)
        with mock.patch.object(color, "color_jitter", show):
            draws = over_keys(step, np.zeros((1, 8, 1), np.float32), n)[:, 0, :, 0]
        order, factors = draws[:, :4].astype(int), draws[:, 4:]
        ranges = [(0.2, 1.8), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
        for drawn, (low, high) in zip(factors.T, ranges, strict=True):
            self.assertGreaterEqual(drawn.min(), low - 1e-6)
            self.assertLessEqual(drawn.max(), high + 1e-6)
            distance = oracles.distance_from_uniform(drawn, low, high)
            self.assertLess(distance, 2.2 / np.sqrt(n))
        _, counts = np.unique(order, axis=0, return_counts=True)
        self.assertLen(counts, 24)
        # Chi-square with 23 degrees of freedom: above 60 once in 28,000.
        self.assertLess(((counts - n / 24) ** 2 / (n / 24)).sum(), 60)

    @parameterized.parameters((1,), (3,))
    def test_grayscale_is_the_luma_in_every_channel(self, c):
        image = picture((9, 14, c))
        gray = images.grayscale(image)
        np.testing.assert_allclose(gray, oracles.grayscale(image), atol=1e-6)

    def test_grayscale_means_what_it_means_in_pillow(self):
        image = photograph((9, 14, 3))
        expected = np.asarray(PIL.Image.fromarray(image).convert("L"), np.float32)
        gray = images.grayscale(np.float32(image / 255))
        np.testing.assert_allclose(255 * gray[..., 0], expected, atol=0.51)

    @parameterized.parameters(
        images.adjust_saturation, functools.partial(images.adjust_hue, shift=0.3)
    )
    def test_a_gray_image_has_no_saturation_and_no_hue(self, adjust):
        image = picture((8, 8, 1))
        if adjust is images.adjust_saturation:
            adjust = functools.partial(adjust, factor=1.7)
        np.testing.assert_array_equal(adjust(image), image)

    def test_solarize_equals_pillow(self):
        image = photograph((9, 14, 3))
        expected = PIL.ImageOps.solarize(PIL.Image.fromarray(image), threshold=100)
        actual = images.solarize(np.float32(image / 255), 100 / 255)
        np.testing.assert_allclose(
            255 * actual, np.asarray(expected, np.float32), atol=1e-4
        )

    def test_normalized_images_have_the_wanted_moments(self):
        image = picture((9, 14, 3))
        mean, std = image.mean(axis=(0, 1)), image.std(axis=(0, 1))
        normal = np.asarray(images.normalize(image, mean, std))
        np.testing.assert_allclose(normal.mean(axis=(0, 1)), 0, atol=1e-6)
        np.testing.assert_allclose(normal.std(axis=(0, 1)), 1, rtol=1e-5)


class BlurTest(parameterized.TestCase):
    @parameterized.parameters(
        ((8, 8, 1), None, 1),
        ((9, 14, 3), 4, 4),
        ((70, 45, 2), None, 2),
        ((224, 224, 3), None, 11),
    )
    def test_equals_scipy(self, shape, radius, expected_radius):
        image = picture(shape)
        blur = jax.jit(functools.partial(images.gaussian_blur, radius=radius))
        for sigma in (0.1, 0.8, 2.0):
            expected = oracles.gaussian_blur(image, sigma, expected_radius)
            np.testing.assert_allclose(blur(image, sigma), expected, atol=2e-6)

    @parameterized.product(
        form=("sums", "products"),
        case=(((8, 8, 1), 1), ((9, 14, 3), 4), ((5, 5, 2), 4)),
    )
    def test_either_form_equals_scipy_and_can_leave_an_image_alone(self, form, case):
        shape, radius = case
        image = picture(shape)
        run = getattr(filters, f"_blur_by_{form}")
        blur = jax.jit(functools.partial(run, radius=radius))
        for sigma in (0.1, 0.8, 2.0, 9.0):
            expected = oracles.gaussian_blur(image, sigma, radius)
            np.testing.assert_allclose(blur(image, sigma), expected, atol=2e-6)
        np.testing.assert_array_equal(blur(image, filters._NONE), image)

    def test_a_single_row_is_left_alone(self):
        image = picture((3, 5, 1))[:1]
        np.testing.assert_array_equal(images.gaussian_blur(image, 1.0), image)

    def test_sigma_is_uniform(self):
        n = 2000

        def show(image, sigma, radius):
            return jnp.full_like(image, sigma)

        step = functools.partial(images.random_gaussian_blur, sigma=(0.5, 3.0))
        with mock.patch.object(filters, "gaussian_blur", show):
            drawn = over_keys(step, np.zeros((2, 2, 1), np.float32), n)[:, 0, 0, 0]
        distance = oracles.distance_from_uniform(drawn, 0.5, 3.0)
        self.assertLess(distance, 2.2 / np.sqrt(n))


class AffineTest(parameterized.TestCase):
    @parameterized.parameters((8, 8, 1), (28, 28, 1), (9, 14, 3))
    def test_equals_scipy(self, *shape):
        image, fill = picture(shape), np.linspace(0.2, 0.9, shape[2])
        rng = np.random.default_rng(1)
        matrices = rng.normal(size=(5, 2, 3)) + np.eye(2, 3)
        affine = jax.jit(
            jax.vmap(lambda m: images.affine(jnp.asarray(image), m, fill=fill))
        )
        expected = [oracles.affine(image, matrix, fill) for matrix in matrices]
        np.testing.assert_allclose(affine(matrices), expected, atol=2e-5)

    def test_far_away_there_is_only_fill(self):
        matrix = np.array([[1, 0, 1e20], [0, 1, 0]])
        far = jax.jit(lambda x: images.affine(x, matrix, fill=0.25))(IMAGE)
        np.testing.assert_array_equal(far, np.full((8, 8, 3), 0.25))

    def test_matrix_is_the_inverse_of_shear_then_turn_then_scale_then_move(self):
        parameters = (25.0, np.array([1.5, -2.0]), 1.7, -20.0)
        names = ("rotation", "translation", "scale", "shear")
        actual = images.affine_matrix(**dict(zip(names, parameters, strict=True)))
        expected = oracles.affine_matrix(*parameters)
        np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_a_picture_moves_as_one_says(self):
        image = picture((9, 9, 1))
        move = jax.jit(lambda m: images.affine(jnp.asarray(image), m))
        turned = move(images.affine_matrix(rotation=90))
        np.testing.assert_allclose(turned, np.rot90(image), atol=1e-5)
        moved = move(images.affine_matrix(translation=(2, 1)))
        np.testing.assert_allclose(moved[2:, 1:], image[:-2, :-1], atol=1e-6)
        np.testing.assert_array_equal(moved[:2], 0)
        doubled = move(images.affine_matrix(scale=2))
        np.testing.assert_allclose(doubled[::2, ::2], image[2:7, 2:7], atol=1e-6)
        leaning = move(images.affine_matrix(shear=45))
        np.testing.assert_allclose(leaning[0, 4:], image[0, :-4], atol=1e-5)
        np.testing.assert_allclose(leaning[4], image[4], atol=1e-5)
        np.testing.assert_allclose(leaning[8, :-4], image[8, 4:], atol=1e-5)

    def test_parameters_are_uniform_in_their_ranges(self):
        n = 2000

        def show(**values):
            return jnp.concatenate([jnp.atleast_1d(v) for v in values.values()])

        step = functools.partial(
            images.random_affine,
            rotation=20.0,
            translation=0.25,
            scale=(0.5, 0.8),
            shear=5.0,
        )
        with (
            mock.patch.object(affine_maps, "affine_matrix", show),
            mock.patch.object(
                affine_maps, "affine", lambda image, matrix, fill: matrix
            ),
        ):
            draws = over_keys(step, np.zeros((8, 12, 1), np.float32), n)
        ranges = [(-20, 20), (-2, 2), (-3, 3), (0.5, 0.8), (-5, 5)]
        for drawn, (low, high) in zip(draws.T, ranges, strict=True):
            distance = oracles.distance_from_uniform(drawn, low, high)
            self.assertLess(distance, 2.2 / np.sqrt(n))


class NoiseTest(absltest.TestCase):
    def test_noise_has_the_deviation_asked_for(self):
        gray = np.full((8, 8, 1), 0.5, np.float32)
        step = functools.partial(images.random_noise, deviation=0.05)
        noise = over_keys(step, gray, 500) - 0.5
        n = noise.size  # standard errors 0.05 / sqrt(n) and 0.05 / sqrt(2 n)
        self.assertLess(abs(noise.mean()), 4.5 * 0.05 / np.sqrt(n))
        self.assertLess(abs(noise.std() - 0.05), 4.5 * 0.05 / np.sqrt(2 * n))

    def test_noise_stays_within_the_range_of_an_image(self):
        step = functools.partial(images.random_noise, deviation=1.0)
        noisy = over_keys(step, picture((8, 8, 1)), 10)
        self.assertEqual((noisy.min(), noisy.max()), (0, 1))


STEPS = {
    "flip": images.random_horizontal_flip,
    "jitter": functools.partial(
        images.random_color_jitter, brightness=0.8, contrast=0.8, hue=0.2
    ),
    "grayscale": images.random_grayscale,
    "solarize": images.random_solarize,
    "blur": images.random_gaussian_blur,
}


class RandomTest(parameterized.TestCase):
    @parameterized.parameters(*STEPS)
    def test_changes_as_often_as_its_probability_says(self, name):
        image, n, p = picture((8, 8, 3)), 2000, 0.3
        changed = over_keys(functools.partial(STEPS[name], probability=p), image, n)
        share = (changed != image).any(axis=(1, 2, 3)).mean()
        self.assertLess(abs(share - p), 4.5 * np.sqrt(p * (1 - p) / n))

    @parameterized.parameters(*STEPS)
    def test_probability_zero_changes_nothing(self, name):
        step = jax.jit(functools.partial(STEPS[name], probability=0.0))
        image = picture((8, 8, 3))
        np.testing.assert_array_equal(step(KEY, image), image)

    @parameterized.parameters(
        images.random_color_jitter,
        images.random_affine,
        functools.partial(images.random_noise, deviation=0.0),
        functools.partial(
            images.random_resized_crop, size=8, scale=(1, 1), ratio=(1, 1)
        ),
    )
    def test_strength_zero_changes_nothing(self, step):
        image = picture((8, 8, 3))
        actual = jax.jit(step)(KEY, image)
        np.testing.assert_array_equal(actual, image)

    def test_a_flip_mirrors_columns(self):
        flip = functools.partial(images.random_horizontal_flip, probability=1.0)
        image = picture((9, 14, 3))
        np.testing.assert_array_equal(flip(KEY, image), image[:, ::-1])


class ChainTest(parameterized.TestCase):
    def test_steps_run_in_order_each_with_its_own_key(self):
        def draw(key, x):
            return 10 * x + jax.random.uniform(key)

        key = jax.random.key(5)
        first, _, last = map(jax.random.uniform, jax.random.split(key, 3))
        double = images.without_key(lambda x: 2 * x)
        actual = images.chain(draw, double, draw)(key, jnp.float32(3))
        np.testing.assert_allclose(actual, 10 * 2 * (30 + first) + last, rtol=1e-6)

    def test_an_empty_chain_changes_nothing(self):
        image = picture((8, 8, 3))
        self.assertIs(images.chain()(KEY, image), image)

    def test_simclr_is_the_paper_s_chain(self):
        record = []

        def step(name):
            def note(key, image, **values):
                record.append((name, values))
                return image

            return note

        steps = {
            "random_resized_crop": crop,
            "random_horizontal_flip": crop,
            "random_color_jitter": color,
            "random_grayscale": color,
            "random_gaussian_blur": filters,
        }
        with contextlib.ExitStack() as stack:
            for name, module in steps.items():
                stack.enter_context(mock.patch.object(module, name, step(name)))
            note = functools.partial(step("normalize"), None)
            stack.enter_context(mock.patch.object(color, "normalize", note))
            chain = images.simclr(24, strength=0.5, mean=0.4, std=0.2)
            chain(KEY, picture((8, 8, 3)))
        jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
        expected = [
            {"size": 24},
            {},
            {**jitter, "probability": 0.8},
            {},
            {"probability": 0.5},
            {"mean": 0.4, "std": 0.2},
        ]
        self.assertEqual(
            record, list(zip((*steps, "normalize"), expected, strict=True))
        )
        for function, values in (
            (
                images.random_resized_crop,
                {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
            ),
            (images.random_horizontal_flip, {"probability": 0.5}),
            (images.random_grayscale, {"probability": 0.2}),
            (images.random_gaussian_blur, {"sigma": (0.1, 2.0)}),
        ):
            parameters = inspect.signature(function).parameters
            for name, value in values.items():
                self.assertEqual(parameters[name].default, value)

    def test_simclr_gives_images(self):
        image = photograph((16, 12, 9, 3))
        make = jax.jit(lambda key: images.views(key, image, images.simclr(8)))
        views = np.asarray(make(KEY))
        self.assertEqual(views.shape, (16, 2, 8, 8, 3))
        self.assertGreaterEqual(views.min(), -1e-6)
        self.assertLessEqual(views.max(), 1 + 1e-6)

    @parameterized.product(size=(8, 28, (96, 64), 224), c=(1, 3))
    def test_simclr_gives_the_size_asked_for(self, size, c):
        given = jax.ShapeDtypeStruct((3, 40, 30, c), np.uint8)
        make = functools.partial(images.views, transform=images.simclr(size))
        height, width = size if isinstance(size, tuple) else (size, size)
        views = jax.eval_shape(make, KEY, given)
        self.assertEqual(views.shape, (3, 2, height, width, c))

    def test_characters_gives_images(self):
        image = photograph((16, 8, 8, 1))
        make = jax.jit(lambda key: images.views(key, image, images.characters()))
        views = np.asarray(make(KEY))
        self.assertEqual(views.shape, (16, 2, 8, 8, 1))
        self.assertTrue(((views >= 0) & (views <= 1)).all())

    def test_characters_at_strength_zero_only_normalizes(self):
        still = images.characters(
            rotation=0, translation=0, scale=(1, 1), shear=0, noise=0, mean=0.5, std=2
        )
        image = picture((8, 8, 1))
        actual = jax.jit(still)(KEY, image)
        np.testing.assert_allclose(actual, (image - 0.5) / 2, atol=1e-7)


class ViewsTest(parameterized.TestCase):
    @pytest.mark.slow
    @parameterized.parameters(
        (jax.sharding.AxisType.Auto, images.simclr(8, mean=(0.5,) * 3, std=(0.2,) * 3)),
        (jax.sharding.AxisType.Auto, images.characters()),
        (
            jax.sharding.AxisType.Explicit,
            functools.partial(images.random_resized_crop, size=8),
        ),
    )
    def test_sharding_changes_nothing_and_moves_nothing(self, axis_type, transform):
        batch = photograph((16, 10, 9, 3))
        make = jax.jit(lambda key, x: images.views(key, x, transform))
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
        rows = jax.NamedSharding(mesh, jax.P("data"))
        spread = jax.device_put(batch, rows)
        compiled = make.lower(KEY, spread).compile()
        views = compiled(KEY, spread)
        self.assertTrue(views.sharding.is_equivalent_to(rows, views.ndim))
        np.testing.assert_allclose(views, make(KEY, batch), atol=1e-6)
        program = compiled.as_text()
        for collective in ("all-gather", "all-reduce", "permute", "all-to-all"):
            self.assertNotIn(f"{collective}(", program)

    def test_views_depend_on_key_image_and_view_only(self):
        def step(key, image):
            return image * jax.random.uniform(key)

        make = jax.jit(lambda key, x: images.views(key, x, step, count=3))
        ones, other = np.ones((4, 2, 2, 1), np.float32), jax.random.key(8)
        views = np.asarray(make(KEY, ones))
        np.testing.assert_array_equal(views, make(KEY, ones))
        np.testing.assert_array_equal(views[:2], make(KEY, ones[:2]))
        every = np.concatenate([views, make(other, ones)])
        self.assertLen(np.unique(every), 24)

    def test_every_platform_has_its_form(self):
        transform = images.simclr(24, mean=(0.5,) * 3, std=(0.2,) * 3)
        given = jax.ShapeDtypeStruct((2, 24, 24, 3), np.uint8)
        make = jax.jit(functools.partial(images.views, transform=transform))
        traced = make.trace(KEY, given)
        for platform in ("cpu", "cuda", "rocm", "tpu"):
            program = traced.lower(lowering_platforms=(platform,)).as_text()
            # Two of the crop, for each channel on a CPU, and two of a TPU's blur.
            products = {"cpu": 6, "tpu": 4}.get(platform, 2)
            self.assertEqual(program.count("stablehlo.dot_general"), products)
            self.assertEqual(program.count("precision = [HIGHEST, HIGHEST]"), products)
            self.assertEqual("stablehlo.while" in program, platform == "cpu")  # jitter

    @parameterized.parameters(np.uint8, np.float32, np.float64, jnp.bfloat16)
    def test_bytes_are_scaled_and_floats_are_not(self, dtype):
        whole = 255 if dtype == np.uint8 else 1
        given = np.array([0, 51, 255]).reshape(1, 1, 3, 1) * (whole / 255)
        kept = images.chain()
        views = images.views(KEY, given.astype(dtype), kept, count=1)
        self.assertEqual(views.dtype, jnp.float32)
        rtol = 4e-3 if dtype == jnp.bfloat16 else 1e-6
        np.testing.assert_allclose(np.ravel(views), [0, 0.2, 1], rtol=rtol)


OF_ONE_IMAGE = {
    "adjust_brightness": lambda x: images.adjust_brightness(x, 1.0),
    "adjust_contrast": lambda x: images.adjust_contrast(x, 1.0),
    "adjust_hue": lambda x: images.adjust_hue(x, 0.0),
    "adjust_saturation": lambda x: images.adjust_saturation(x, 1.0),
    "affine": lambda x: images.affine(x, np.eye(2, 3)),
    "color_jitter": lambda x: images.color_jitter(x, np.arange(4), hue=0.0),
    "gaussian_blur": lambda x: images.gaussian_blur(x, 1.0),
    "grayscale": images.grayscale,
    "horizontal_flip": images.horizontal_flip,
    "normalize": lambda x: images.normalize(x, 0.0, 1.0),
    "random_affine": lambda x: images.random_affine(KEY, x),
    "random_color_jitter": lambda x: images.random_color_jitter(KEY, x, hue=0.1),
    "random_gaussian_blur": lambda x: images.random_gaussian_blur(KEY, x),
    "random_grayscale": lambda x: images.random_grayscale(KEY, x),
    "random_horizontal_flip": lambda x: images.random_horizontal_flip(KEY, x),
    "random_noise": lambda x: images.random_noise(KEY, x, deviation=0.1),
    "random_resized_crop": lambda x: images.random_resized_crop(KEY, x, size=4),
    "random_solarize": lambda x: images.random_solarize(KEY, x),
    "resized_crop": lambda x: images.resized_crop(x, (0, 0, 8, 8), 4),
    "solarize": images.solarize,
}
OF_COLOR = (
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "color_jitter",
    "grayscale",
    "random_color_jitter",
    "random_grayscale",
)


class BadInputTest(parameterized.TestCase):
    @parameterized.parameters(*OF_ONE_IMAGE)
    def test_an_image_has_three_axes_and_is_float32(self, name):
        function = OF_ONE_IMAGE[name]
        with self.assertRaisesRegex(ValueError, r"image must be \[h, w, c\].*\(8, 8\)"):
            function(np.zeros((8, 8), np.float32))
        with self.assertRaisesRegex(ValueError, r"batch axis.*\(2, 8, 8, 3\)"):
            function(np.zeros((2, 8, 8, 3), np.float32))
        with self.assertRaisesRegex(ValueError, r"empty.*\(0, 8, 3\)"):
            function(np.zeros((0, 8, 3), np.float32))
        for dtype in (np.int32, np.uint8, jnp.bfloat16):
            with self.assertRaisesRegex(TypeError, f"float32.*{np.dtype(dtype).name}"):
                function(np.zeros((8, 8, 3), dtype))

    @parameterized.parameters(*OF_COLOR)
    def test_color_has_one_or_three_channels(self, name):
        for c in (2, 4):
            with self.assertRaisesRegex(ValueError, rf"image must be.*\(8, 8, {c}\)"):
                OF_ONE_IMAGE[name](np.zeros((8, 8, c), np.float32))

    @parameterized.parameters(*sorted(set(OF_ONE_IMAGE) - set(OF_COLOR)))
    def test_everything_else_takes_any_number_of_channels(self, name):
        for c in (1, 2, 5):
            image = jax.ShapeDtypeStruct((8, 8, c), np.float32)
            self.assertEqual(jax.eval_shape(OF_ONE_IMAGE[name], image).shape[2], c)

    @parameterized.parameters(
        ("scale must.*0.5, 0.1", images.random_resized_crop, {"scale": (0.5, 0.1)}),
        ("scale must.*0, 1", images.random_resized_crop, {"scale": (0, 1)}),
        ("scale must.*0.1, 2", images.random_resized_crop, {"scale": (0.1, 2)}),
        ("ratio must.*2, 1", images.random_resized_crop, {"ratio": (2, 1)}),
        ("ratio must.*-1, 1", images.random_resized_crop, {"ratio": (-1, 1)}),
        ("size must.*0", images.random_resized_crop, {"size": 0}),
        ("size must.*4, -1", images.random_resized_crop, {"size": (4, -1)}),
        ("sigma must.*2, 1", images.random_gaussian_blur, {"sigma": (2, 1)}),
        ("sigma must.*0, 1", images.random_gaussian_blur, {"sigma": (0, 1)}),
        ("radius must.*8", images.random_gaussian_blur, {"radius": 8}),
        ("radius must.*-1", images.random_gaussian_blur, {"radius": -1}),
        ("brightness must.*-1", images.random_color_jitter, {"brightness": -1}),
        ("contrast must.*-1", images.random_color_jitter, {"contrast": -1}),
        ("saturation must.*-1", images.random_color_jitter, {"saturation": -1}),
        ("hue must.*0.6", images.random_color_jitter, {"hue": 0.6}),
        ("deviation must.*-1", images.random_noise, {"deviation": -1}),
        ("rotation must.*-1", images.random_affine, {"rotation": -1}),
        ("translation must.*1.5", images.random_affine, {"translation": 1.5}),
        ("scale must.*0, 1", images.random_affine, {"scale": (0, 1)}),
        ("shear must.*90", images.random_affine, {"shear": 90}),
        (r"fill must.*\(2,\)", images.random_affine, {"fill": (0.0, 1.0)}),
    )
    def test_what_is_out_of_bounds_is_named(self, message, step, values):
        if step is images.random_resized_crop:
            values = {"size": 4, **values}
        with self.assertRaisesRegex(ValueError, message):
            step(KEY, IMAGE, **values)

    @parameterized.product(name=tuple(STEPS), probability=(-0.1, 1.1, float("nan")))
    def test_a_probability_is_between_zero_and_one(self, name, probability):
        with self.assertRaisesRegex(ValueError, f"probability must lie.*{probability}"):
            STEPS[name](KEY, IMAGE, probability=probability)

    @parameterized.parameters(
        (
            ValueError,
            r"box must.*\(3,\)",
            lambda: images.resized_crop(IMAGE, (0, 0, 8), 4),
        ),
        (TypeError, "size must.*4.0", lambda: images.simclr(4.0)),
        (TypeError, "size must.*1, 2, 3", lambda: images.simclr((1, 2, 3))),
        (ValueError, "size must.*0", lambda: images.simclr(0)),
        (ValueError, "strength must.*3", lambda: images.simclr(8, strength=3)),
        (ValueError, "mean and std must.*None", lambda: images.simclr(8, mean=0.5)),
        (ValueError, "mean and std must.*None", lambda: images.characters(std=0.5)),
        (ValueError, r"mean must.*\(2,\)", lambda: images.normalize(IMAGE, (0, 0), 1)),
        (
            ValueError,
            r"order must.*\(3,\)",
            lambda: images.color_jitter(IMAGE, [0, 1, 2]),
        ),
        (
            TypeError,
            "order must.*float",
            lambda: images.color_jitter(IMAGE, [0.0] * 4),
        ),
        (ValueError, r"matrix must.*\(2, 2\)", lambda: images.affine(IMAGE, np.eye(2))),
        (
            ValueError,
            r"translation must.*\(\)",
            lambda: images.affine_matrix(translation=1),
        ),
        (
            TypeError,
            "steps must.*0.5 at 1",
            lambda: images.chain(images.random_noise, 0.5),
        ),
        (ValueError, "height and width must.*0", lambda: images.random_box(KEY, 0, 8)),
    )
    def test_wrong_arguments_are_named(self, error, message, call):
        with self.assertRaisesRegex(error, message):
            call()

    def test_views_need_a_batch_of_bytes_or_floats(self):
        flip = images.random_horizontal_flip
        with self.assertRaisesRegex(ValueError, r"images must.*\(8, 8, 3\)"):
            images.views(KEY, IMAGE, flip)
        with self.assertRaisesRegex(TypeError, "images must.*int32"):
            images.views(KEY, IMAGE[None].astype(np.int32), flip)
        with self.assertRaisesRegex(ValueError, "count must.*0"):
            images.views(KEY, IMAGE[None], flip, count=0)
        with self.assertRaisesRegex(TypeError, "count must be an integer, got float"):
            images.views(KEY, IMAGE[None], flip, count=2.0)


if __name__ == "__main__":
    absltest.main()
