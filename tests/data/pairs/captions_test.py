"""Captions and their tokens, against lists; a caption of several is drawn evenly."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment, data
from jaxcl.data import pairs
from jaxcl.data.pairs import captions

EACH = [["a cat", "a tom"], ["a dog"], ["one two three", "a cat", "four"], ["a fox"]]
IMAGES = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones(
    (1, 3, 5, 1), np.uint8
)


def of_lists(each):
    return captions.made("made up", IMAGES[: len(each)], captions.of_lists(each))


@pytest.fixture(scope="module")
def words():
    return data.text.learn([text for texts in EACH for text in texts], size=300)


def test_a_column_gives_the_captions_of_each_image():
    column = of_lists(EACH).columns["caption"]
    assert column[np.array([2, 0])] == [EACH[2], EACH[0]]
    assert column[1] == EACH[1]
    assert column[1:3] == EACH[1:3]
    assert column.ptr.tolist() == [0, 2, 3, 6, 7]
    assert column.texts.dtype == object


def test_parts_of_a_set_have_captions_of_their_own():
    dataset = of_lists(EACH)
    for part, kept in (
        (data.part(dataset, 1, 3), [1, 2]),
        (data.dataset.take(dataset, np.array([3, 0])), [3, 0]),
    ):
        assert isinstance(part.columns["caption"], pairs.Captions)
        texts, example = pairs.texts_of(part)
        found = [texts[example == i].tolist() for i in range(2)]
        assert found == [EACH[i] for i in kept]
    assert data.to_memory(dataset).columns["caption"][0] == EACH[0]


@pytest.mark.parametrize(
    ("texts", "ptr", "words"),
    [
        (["a"], [0, 2], "ptr must lead from 0 to the 1 texts, got [0, 2]"),
        (["a"], [], "ptr must lead from 0 to the 1 texts, got []"),
        (["a"], [0, 0, 1], "each example must have a caption, and 0 has none"),
    ],
)
def test_captions_that_do_not_fit_are_refused(texts, ptr, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        pairs.Captions(texts, ptr)


def test_images_that_share_a_caption_are_one_group():
    assert of_lists(EACH).columns["group"].tolist() == [0, 1, 0, 2]
    # The first and the last share none, and are led to one another.
    chain = [["a"], ["b"], ["x", "c "], ["b", " c"], ["d", "a"]]
    found = captions.shared(captions.of_lists(chain))
    assert found.tolist() == [0, 1, 1, 1, 0]
    assert found.dtype == np.int32


def groups_one_by_one(each):
    """Joins images until no two groups share a caption."""
    groups = [({i}, set(texts)) for i, texts in enumerate(each)]
    joined = True
    while joined:
        joined = False
        for a in groups:
            for b in groups:
                if a is not b and a[1] & b[1]:
                    groups = [g for g in groups if g is not a and g is not b]
                    groups.append((a[0] | b[0], a[1] | b[1]))
                    joined = True
                    break
            if joined:
                break
    return sorted(sorted(members) for members, _ in groups)


def test_groups_are_those_of_joining_one_by_one():
    draw = np.random.default_rng(0)
    for _ in range(30):
        each = [[str(t) for t in draw.integers(0, 14, 2)] for _ in range(10)]
        group = captions.shared(captions.of_lists(each))
        found = sorted(np.flatnonzero(group == g).tolist() for g in set(group.tolist()))
        assert found == groups_one_by_one(each)


def test_tokens_have_as_many_rows_for_each_image(words):
    rows = pairs.tokenize(of_lists(EACH), words, longest=20)
    column = rows.columns["caption"]
    for indices in ([0, 1, 2, 3], [1, 3]):  # which have one caption alone
        batch = column[np.array(indices)]
        assert batch.tokens.shape == (len(indices), 3, column.lengths[-1])
        for i, row in zip(indices, range(len(indices)), strict=True):
            there = batch.valid[row].any(axis=1)
            assert there.tolist() == [k < len(EACH[i]) for k in range(3)]
            assert [
                data.text.decode(words, tokens[valid])
                for tokens, valid in zip(
                    batch.tokens[row][there], batch.valid[row][there], strict=True
                )
            ] == EACH[i]
    assert (batch.tokens[~batch.valid] == words.pad).all()
    later = data.part(rows, 1, 3).columns["caption"][np.array([0])]
    assert later.tokens.shape == batch.tokens[:1].shape


def test_long_captions_are_refused_or_cut(words):
    with pytest.raises(ValueError, match="1 of 7 sentences have more than 13 tokens"):
        pairs.tokenize(of_lists(EACH), words, longest=13)
    cut = pairs.tokenize(of_lists(EACH), words, longest=13, too_long="cut")
    assert "1 captions were longer and are cut" in pairs.about(cut)
    with pytest.raises(ValueError, match="must hold texts, got rows of tokens"):
        pairs.texts_of(cut)
    with pytest.raises(ValueError, match="must have a column 'caption', got image"):
        pairs.texts_of(data.from_arrays("made up", IMAGES))


def test_a_line_says_what_there_is(words):
    dataset = of_lists(EACH)
    assert pairs.about(dataset) == (
        "made up: 4 images of 5x3, 1 to 3 captions each, 2.0 words long; "
        "they are 3 groups"
    )
    assert ", in rows of " in pairs.about(pairs.tokenize(dataset, words, longest=20))


# Picking. -----------------------------------------------------------------------------

TOKENS = np.arange(20, dtype=np.int32).reshape(5, 4)
VALID = np.array([[1, 1, 1, 0], [0] * 4, [1, 0, 0, 0], [0] * 4, [1, 1, 0, 0]], bool)


def drawn(valid, keys):
    captions = data.text.TokenBatch(jnp.asarray(TOKENS), jnp.asarray(valid))
    return jax.jit(jax.vmap(augment.tokens.pick, (0, None)))(keys, captions)


def test_a_pick_is_one_of_the_captions_that_are_there_and_evenly():
    n = 30_000
    found = drawn(VALID, jax.random.split(jax.random.key(0), n))
    assert found.tokens.dtype == jnp.int32
    rows = np.asarray(found.tokens)[:, 0] // 4
    np.testing.assert_array_equal(found.tokens, TOKENS[rows])
    np.testing.assert_array_equal(found.valid, VALID[rows])
    counts = collections.Counter(rows.tolist())
    assert set(counts) == {0, 2, 4}
    # Of n draws of probability 1 / 3, five standard deviations.
    for count in counts.values():
        assert abs(count - n / 3) < 5 * np.sqrt(n * 2 / 9)


def test_a_pick_depends_on_the_key_and_on_how_many_there_are():
    keys = jax.random.split(jax.random.key(1), 50)
    for valid in (VALID, VALID[[1, 0, 2, 4, 3]], VALID[[0, 2, 4, 1, 3]]):
        there = np.flatnonzero(valid.any(axis=1))
        expected = [there[int(jax.random.randint(k, (), 0, 3))] for k in keys[:5]]
        found = np.asarray(drawn(valid, keys).tokens)[:, 0] // 4
        assert found[:5].tolist() == expected


def test_of_no_captions_none_is_drawn():
    found = drawn(np.zeros_like(VALID), jax.random.split(jax.random.key(2), 3))
    assert not found.valid.any()


@pytest.mark.parametrize(
    ("captions", "error", "words"),
    [
        (TOKENS, TypeError, "captions must be a TokenBatch, got ndarray"),
        (data.text.TokenBatch(TOKENS[0], VALID[0]), ValueError, "have shape [c, L]"),
        (data.text.TokenBatch(TOKENS, VALID[:2]), ValueError, "must have one shape"),
        (data.text.TokenBatch(TOKENS[:0], VALID[:0]), ValueError, "one row, got none"),
    ],
)
def test_what_is_no_captions_is_refused(captions, error, words):
    with pytest.raises(error, match=re.escape(words)):
        augment.tokens.pick(jax.random.key(0), captions)
