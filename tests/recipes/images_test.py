"""What the settings of a training on images stand for, and that probes agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import data, models, recipes, training
from jaxcl.recipes import images as images_lib

TINY = recipes.Images(width=2, embedding=4, batch_size=8, epochs=4, warmup_epochs=1)
RNG = np.random.default_rng(0)


def sets_of(n, labels=True, size=8):
    pixels = RNG.integers(0, 256, (n, size, size, 1), np.uint8)
    return data.from_arrays("made up", pixels, np.arange(n) % 3 if labels else None)


@pytest.mark.parametrize(
    "augmentation",
    [
        "characters",
        "crops",
        pytest.param("photographs", marks=pytest.mark.slow),
        pytest.param("moco", marks=pytest.mark.slow),
        pytest.param("identity", marks=pytest.mark.slow),
    ],
)
def test_pixels_are_standardized_for_views_and_for_probes_alike(augmentation):
    s = dataclasses.replace(TINY, pixels="cifar", augmentation=augmentation, jitter=0.0)
    gray = np.full((2, 8, 8, 3), 128, np.uint8)
    described = recipes.describe(s, (8, 8, 3))
    mean, std = (np.array(x) for x in images_lib.STATISTICS["cifar"])
    assert (described.mean, described.std) == (tuple(mean), tuple(std))
    # A model that gives back the pixels it sees.
    seen = []

    class Eye:
        def apply(self, variables, pixels, **_):
            seen.append(pixels)
            return pixels[:, 0, 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxcl.models.kinds.build", lambda described: Eye())
        given = models.encode(described)({}, gray)
    np.testing.assert_allclose(given[0], (128 / 255 - mean) / std, rtol=1e-5)
    # Views are in the same units: of a gray image they stay near it.
    view = recipes.make_transform(s, (8, 8, 3))(
        jax.random.key(0), jnp.float32(gray[0] / 255)
    )
    assert view.shape == (8, 8, 3)
    np.testing.assert_allclose(view[3:5, 3:5].mean((0, 1)), given[0], atol=1.2)
    assert abs(view[3:5, 3:5].mean() - 128 / 255) > 0.2  # not the pixels themselves


def test_light_crops_leave_left_and_right_and_colors_as_they_are():
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None] / 16, (16, 16, 3))
    s = dataclasses.replace(TINY, augmentation="crops")
    crop = jax.jit(jax.vmap(recipes.make_transform(s, (16, 16, 3)), (0, None)))
    seen = np.asarray(crop(jax.random.split(jax.random.key(0), 16), ramp))
    assert seen.shape == (16, 16, 16, 3)
    assert (np.diff(seen, axis=2) >= -1e-6).all()  # none is mirrored
    np.testing.assert_allclose(seen[..., 0], seen[..., 1], rtol=1e-6)
    widths = seen[:, 0, -1, 0] - seen[:, 0, 0, 0]
    assert widths.min() > 0.7
    assert widths.max() - widths.min() > 0.02
    plain = recipes.make_transform(dataclasses.replace(s, augmentation="identity"), ())
    np.testing.assert_array_equal(plain(jax.random.key(0), ramp), ramp)


def test_plain_and_normalized_projectors_differ_by_the_normalization():
    for name, normalized in (("plain", False), ("normalized", True)):
        s = dataclasses.replace(TINY, projector=name)
        params, _ = recipes.initialize(s, recipes.describe(s, (8, 8, 1)))
        assert ("BatchNorm_0" in params["model"]["projector"]) == normalized


def _state(s, images):
    described = recipes.describe(s, recipes.image_size(images))
    params, stats = recipes.initialize(s, described, 3)
    tx = recipes.make_optimizer(s, images)
    return described, training.create_state(params, stats, tx, average=s.average > 0)


ALL = ("knn", "linear", "alignment", "uniformity", "effective_rank", "norm_cv")


@pytest.mark.slow
def test_monitors_measure_what_their_names_say():
    images = sets_of(40)
    s = dataclasses.replace(TINY, monitors=ALL)
    described, state = _state(s, images)
    found = recipes.make_monitors(s, described, images)(state)
    assert set(found) == set(ALL) - {"linear"}  # which is measured at every step
    encode = {layer: models.encode(described, layer) for layer in "hz"}
    variables = recipes.variables_of(s, state)
    h, z = (
        np.asarray(encode[layer](variables, images.columns["image"]), np.float64)
        for layer in "hz"
    )
    norms = np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(found["norm_cv"], norms.std() / norms.mean(), rtol=1e-4)
    singular = np.linalg.svd(h, compute_uv=False)
    p = singular / singular.sum()
    rank = np.exp(-(p * np.log(p)).sum())
    np.testing.assert_allclose(found["effective_rank"], rank, rtol=1e-3)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    squared = np.square(unit[:, None] - unit[None]).sum(-1)
    apart = ~np.eye(len(z), dtype=bool)
    expected = np.log(np.exp(-2 * squared[apart]).mean())
    np.testing.assert_allclose(found["uniformity"], expected, rtol=1e-4)
    assert 0 < found["alignment"] < 4


def test_knn_watches_a_set_that_is_sorted_by_its_classes():
    classes = np.arange(60) // 6
    pixels = np.zeros((60, 8, 8, 1), np.uint8)
    pixels[np.arange(60), classes // 3 * 2, classes % 3 * 2] = 255
    images = data.from_arrays("sorted", pixels, classes)
    s = dataclasses.replace(TINY, width=8)
    described, state = _state(s, images)
    found = recipes.make_monitors(s, described, images)(state)
    assert found["knn"] > 0.8


def test_a_monitor_that_cannot_measure_is_left_out_with_a_warning():
    images = sets_of(4)  # too few for five neighbors
    s = dataclasses.replace(TINY, monitors=("knn", "norm_cv"), batch_size=4)
    described, state = _state(s, images)
    with pytest.warns(UserWarning, match="monitor 'knn' left out: ValueError: k must"):
        found = recipes.make_monitors(s, described, images)(state)
    assert set(found) == {"norm_cv"}


def test_without_labels_there_is_no_knn_and_no_linear_probe():
    images = sets_of(10, labels=False)
    s = dataclasses.replace(TINY, monitors=("knn",))
    described = recipes.describe(s, (8, 8, 1))
    assert recipes.make_monitors(s, described, images)(None) == {}
    with pytest.raises(ValueError, match="monitors must not name 'linear' where"):
        recipes.initialize(dataclasses.replace(s, monitors=("linear",)), described, 0)


def test_labelled_sources_are_asked_for_labels(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"test_split must have labels, and .* none"):
        recipes.labelled(str(tmp_path / "x.npy"), "test_split", "train")
    digits = recipes.labelled("digits", "split", "train[:5]")
    assert (len(digits.images), digits.labels.shape, len(digits.class_names)) == (
        5,
        (5,),
        10,
    )
