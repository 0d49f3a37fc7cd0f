"""Augmentations of sentences: exact shares, uniform draws, padding that never matters.

The programs are compiled once: a batch of rows, all functions of (keys, rows).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl._token_batch import TokenBatch
from jaxcl.augment import tokens

MASK = 999
SIZES = np.array([1, 2, 7, 12, 5, 12])
RATIO = 0.3
CHANGES = {
    "drop": functools.partial(tokens.drop, ratio=RATIO),
    "crop": functools.partial(tokens.crop, ratio=RATIO),
    "mask": functools.partial(tokens.mask, ratio=RATIO, token=MASK),
    "identity": tokens.identity,
}
LOST = np.array([0, 0, 1, 3, 1, 3])  # floor(0.3 (size - 1))


def rows(length=12, gaps=()):
    """Rows of these sizes, with padding that holds what is no token."""
    place = np.arange(length)
    valid = place < SIZES[:, None]
    for gap in gaps:
        valid[:, gap] = False
    values = np.where(valid, 10 * np.arange(len(SIZES))[:, None] + place, -7)
    return TokenBatch(jnp.asarray(values, jnp.int32), jnp.asarray(valid))


@functools.cache
def compiled(name):
    return jax.jit(jax.vmap(CHANGES[name]))


def keys(seed=0, count=6):
    return jax.random.split(jax.random.key(seed), count)


def changed(name, seed=0, **options):
    return jax.tree.map(np.asarray, compiled(name)(keys(seed), rows(**options)))


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_exact_and_the_first_token_stays(seed):
    before = jax.tree.map(np.asarray, rows())
    for name in ("drop", "crop"):
        after = changed(name, seed)
        np.testing.assert_array_equal(after.valid.sum(axis=1), SIZES - LOST)
        assert after.valid[:, 0].all()
        assert not (after.valid & ~before.valid).any()
        np.testing.assert_array_equal(after.tokens, before.tokens)
    masked = changed("mask", seed)
    np.testing.assert_array_equal((masked.tokens == MASK).sum(axis=1), LOST)
    assert (masked.tokens[:, 0] != MASK).all()
    same = (masked.tokens == before.tokens) | (masked.tokens == MASK)
    assert same.all()
    assert (masked.tokens[~before.valid] == -7).all()
    np.testing.assert_array_equal(masked.valid, before.valid)


def test_a_crop_is_one_stretch():
    for seed in range(5):
        for row in changed("crop", seed).valid:
            places = np.flatnonzero(row[1:])
            assert (np.diff(places) == 1).all()


@pytest.mark.parametrize("name", list(CHANGES))
def test_padding_never_matters(name):
    short, long = changed(name), changed(name, length=17)
    np.testing.assert_array_equal(long.valid[:, :12], short.valid)
    assert not long.valid[:, 12:].any()
    for a, b, valid in zip(long.tokens, short.tokens, short.valid, strict=True):
        np.testing.assert_array_equal(a[:12][valid], b[valid])


def test_what_was_taken_away_before_is_neither_counted_nor_drawn():
    before = np.asarray(rows(gaps=(0, 3, 4)).valid)  # the first that is left is 1
    m = np.maximum(before.sum(axis=1) - 1, 0)
    lost = np.floor(RATIO * m + 1e-9)
    for name in ("drop", "crop"):
        after = changed(name, gaps=(0, 3, 4)).valid
        np.testing.assert_array_equal(after.sum(axis=1), before.sum(axis=1) - lost)
        np.testing.assert_array_equal(after[:, 1], before[:, 1])
        assert not (after & ~before).any()
        if name == "crop":
            for row, there in zip(after, before, strict=True):
                kept = row[there][1:]
                assert (np.diff(np.flatnonzero(kept)) == 1).all()
    masked = changed("mask", gaps=(0, 3, 4)).tokens == MASK
    assert not (masked & ~before).any()


def test_draws_are_uniform():
    n = 4000
    row = TokenBatch(jnp.arange(8), jnp.arange(8) < 7)  # six may go
    for name, places, share in (("drop", 6, 1 / 6), ("crop", 2, 1 / 2)):
        change = jax.jit(jax.vmap(CHANGES[name], (0, None)))
        lost = np.asarray(~change(keys(1, n), row).valid)[:, 1:7].sum(axis=0)
        lost = lost if name == "drop" else lost[[0, 5]]  # one of the ends
        assert lost.sum() == n
        assert len(lost) == places
        spread = np.sqrt(n * share * (1 - share))
        assert np.abs(lost - n * share).max() < 5 * spread


def test_one_key_gives_one_view_and_two_give_two():
    first = augment.views(jax.random.key(3), rows(), CHANGES["drop"])
    again = augment.views(jax.random.key(3), rows(), CHANGES["drop"])
    assert first.tokens.shape == (6, 2, 12)
    np.testing.assert_array_equal(first.valid, again.valid)
    assert (first.valid[:, 0] != first.valid[:, 1]).any()


def test_one_of_gives_what_the_drawn_one_gives():
    names = ["drop", "crop", "mask"]
    transform = augment.one_of(*(CHANGES[name] for name in names))
    got = jax.tree.map(np.asarray, jax.jit(jax.vmap(transform))(keys(7), rows()))
    own = jax.vmap(jax.random.split, out_axes=1)(keys(7))
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 3))(own[0])
    assert len(set(np.asarray(draw).tolist())) == 3
    for i, which in enumerate(np.asarray(draw)):
        alone = compiled(names[which])(own[1], rows())
        np.testing.assert_array_equal(got.tokens[i], alone.tokens[i])
        np.testing.assert_array_equal(got.valid[i], alone.valid[i])


def test_chains_crop_what_was_dropped():
    chain = augment.chain(CHANGES["drop"], CHANGES["mask"])
    got = jax.vmap(chain)(keys(), rows())
    masked = np.asarray((got.tokens == MASK) & got.valid).sum(axis=1)
    np.testing.assert_array_equal(masked, np.floor(RATIO * (SIZES - LOST - 1) + 1e-9))


def test_wrong_arguments_are_refused():
    row = TokenBatch(jnp.arange(4), jnp.ones(4, bool))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\], got 1.2"):
        tokens.drop(key, row, ratio=1.2)
    with pytest.raises(TypeError, match="row must be a TokenBatch, got"):
        tokens.crop(key, row.tokens)
    with pytest.raises(ValueError, match=r"row.tokens must have shape \[L\]"):
        tokens.drop(key, rows())
    with pytest.raises(ValueError, match="must have one shape"):
        tokens.drop(key, row._replace(valid=row.valid[1:]))
    with pytest.raises(ValueError, match="token must be at least 0, got -1"):
        tokens.mask(key, row, token=-1)
    with pytest.raises(ValueError, match="choices must be at least one"):
        augment.one_of()
    with pytest.raises(TypeError, match=r"choices must be functions .* got 3 at 0"):
        augment.one_of(3)
