"""Transforms of examples that are pytrees: chains of them, and views of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment

KEY = jax.random.key(0)
ROWS = np.arange(24).reshape(8, 3)


def batch():
    """Rows of numbers and their lengths, as a data set of text would give them."""
    return {"tokens": jnp.asarray(ROWS), "length": jnp.arange(8) % 3 + 1}


def noisy(key, row):
    """A view that shows the example it came from and what was drawn."""
    drawn = row["length"].astype(float) + jax.random.uniform(key)
    return {"source": row["tokens"], "drawn": drawn, **row}


def test_views_of_a_pytree_are_those_of_its_examples_by_the_keys_they_state():
    views = augment.views(KEY, batch(), noisy, count=3)
    keys = jax.random.split(KEY, (8, 3))
    assert views["drawn"].shape == (8, 3)
    for i in range(8):
        for v in range(3):
            np.testing.assert_array_equal(views["source"][i, v], ROWS[i])
            assert views["length"][i, v] == i % 3 + 1
            drawn = i % 3 + 1 + jax.random.uniform(keys[i, v])
            assert views["drawn"][i, v] == drawn


def test_views_do_not_depend_on_the_rest_of_the_batch():
    whole = augment.views(KEY, batch(), noisy)
    some = augment.views(KEY, jax.tree.map(lambda x: x[:5], batch()), noisy)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:5], b), whole, some)


@pytest.mark.slow
def test_views_of_images_are_views_of_pixels_between_0_and_1():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    transform = augment.images.simclr(4)
    got = augment.images.views(KEY, pixels, transform)
    expected = augment.views(KEY, jnp.asarray(pixels, jnp.float32) / 255, transform)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_sharding_changes_nothing_and_moves_nothing(kind):
    axis_type = getattr(jax.sharding.AxisType, kind)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    make = jax.jit(lambda key, x: augment.views(key, x, noisy))
    compiled = make.lower(KEY, jax.device_put(batch(), rows)).compile()
    views = compiled(KEY, jax.device_put(batch(), rows))
    expected = make(KEY, batch())
    for name, x in views.items():
        assert x.sharding.is_equivalent_to(rows, x.ndim)
        np.testing.assert_array_equal(x, expected[name])
    for collective in ("all-gather", "all-reduce", "permute", "all-to-all"):
        assert f"{collective}(" not in compiled.as_text()


def test_steps_of_a_chain_see_the_pytree_and_keys_of_their_own():
    def draw(name):
        return lambda key, row: {**row, name: jax.random.uniform(key)}

    longer = augment.without_key(lambda row: {**row, "length": row["length"] + 1})
    transform = augment.chain(draw("first"), longer, draw("last"))
    row = transform(KEY, {"length": jnp.array(2)})
    keys = jax.random.split(KEY, 3)
    assert row["length"] == 3
    assert row["first"] == jax.random.uniform(keys[0])
    assert row["last"] == jax.random.uniform(keys[2])


@pytest.mark.parametrize(
    ("error", "words", "wrong"),
    [
        (ValueError, "one first axis.*5.*6", (jnp.ones((5, 2)), jnp.ones(6))),
        (ValueError, r"one first axis.*\(\)", (jnp.ones(5), jnp.float32(1))),
        (ValueError, r"one first axis.*\[\]", ()),
    ],
)
def test_a_batch_without_a_common_first_axis_is_refused(error, words, wrong):
    with pytest.raises(error, match=words):
        augment.views(KEY, wrong, lambda key, x: x)


@pytest.mark.parametrize(
    ("error", "words", "count"),
    [
        (ValueError, "count must be at least 1, got 0", 0),
        (TypeError, "count must be an integer, got float", 2.0),
    ],
)
def test_a_wrong_count_is_named(error, words, count):
    with pytest.raises(error, match=words):
        augment.views(KEY, batch(), noisy, count)
