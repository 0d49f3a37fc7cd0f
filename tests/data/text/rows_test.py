"""Rows of tokens: a vocabulary, a few lengths, little padding, few programs."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import jaxcl
from jaxcl import data
from jaxcl.data import text

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "the quick dog",
    "Größe: 3 µm 😀  two  spaces",
    "[MASK] is no special token here, nor is [SEP]",
    "the the the the",
]


@pytest.fixture(scope="module")
def words():
    return text.learn(SENTENCES * 2, 300)


def set_of(sentences, **columns):
    return data.Dataset("made", {"sentence": np.array(sentences, object), **columns})


def ragged(sizes, members=None, **options):
    """Rows whose tokens tell sentence and place."""
    ptr = np.append(0, np.cumsum(sizes))
    ids = np.concatenate([100 * i + np.arange(s) for i, s in enumerate(sizes)])
    return text.TokenRows(ids.astype(np.int32), ptr, members, **options)


def of_rows(rows, **columns):
    return data.Dataset("made", {"sentence": rows, **columns})


# The vocabulary. ----------------------------------------------------------------------


@pytest.mark.parametrize("lower", [True, False])
def test_sentences_come_back(lower):
    words = text.learn(SENTENCES, 280, lower=lower)
    ids, ptr = text.encode(words, SENTENCES)
    assert ids.dtype == np.int32
    assert ids.max() < words.size <= 280
    for i, sentence in enumerate(SENTENCES):
        row = ids[ptr[i] : ptr[i + 1]]
        assert (row[0], row[-1]) == (words.cls, words.sep)
        assert not set(row[1:-1]) & set(range(len(text.SPECIAL)))
        assert text.decode(words, row) == (sentence.lower() if lower else sentence)


def test_frequent_pairs_become_tokens(words):
    [row] = [words.tokenizer.encode(s).tokens for s in ["the dog"]]
    assert row[:2] == ["[CLS]", "Ġthe"]
    assert words[3:] == (0, 1, 2, 3, 4)


def test_a_vocabulary_is_kept_and_depends_on_the_sentences_alone(tmp_path, words):
    text.write(tmp_path, words)
    again = text.read_vocabulary(tmp_path)
    assert again[1:] == words[1:]
    assert again.checksum == text.learn(SENTENCES * 2, 300).checksum
    assert again.checksum != text.learn(SENTENCES * 2, 301).checksum
    for got, expected in zip(
        text.encode(again, SENTENCES), text.encode(words, SENTENCES), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_files_that_are_no_vocabulary_are_refused(tmp_path, words):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: there is no such"):
        text.read_vocabulary(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a readable tokenizer"):
        text.read_vocabulary(tmp_path)
    content = json.loads(words.text)
    path.write_text(json.dumps(content | {"post_processor": None}))
    with pytest.raises(ValueError, match=r"must put \[CLS\] before and \[SEP\] behind"):
        text.read_vocabulary(tmp_path)
    path.write_text(words.text.replace("[MASK]", "[HOLE]"))
    with pytest.raises(ValueError, match="must have the special tokens"):
        text.read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
    ],
)
def test_vocabularies_of_others_are_read(tmp_path, names):
    words = ["zero", *names, "the", "dog", "##s"]
    places = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(places, unk_token=names[1])
    )
    tokenizer.add_special_tokens(list(names))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{names[2]} $A {names[3]}",
        special_tokens=[(name, places[name]) for name in names[2:4]],
    )
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = text.read_vocabulary(tmp_path)
    assert found[2:] == (9, 1, 2, 3, 4, 5)
    ids, ptr = text.encode(found, ["the dogs", "cat"])
    assert ids.tolist() == [3, 6, 7, 8, 4, 3, 2, 4]
    assert ptr.tolist() == [0, 5, 8]
    rows = text.tokenize(set_of(["the dogs", "cat"]), found, longest=5)
    assert rows.columns["sentence"][np.arange(2)].tokens[1].tolist() == [3, 2, 4, 1, 1]


def test_padding_and_cutting_of_a_file_are_left_out(tmp_path, words):
    content = json.loads(words.text)
    content["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = text.encode(text.read_vocabulary(tmp_path), SENTENCES)
    np.testing.assert_array_equal(found[1], text.encode(words, SENTENCES)[1])


def test_wrong_sentences_and_sizes_are_refused(words):
    with pytest.raises(ValueError, match="sentences must not be empty, and sentence 1"):
        text.encode(words, ["a", " "])
    with pytest.raises(ValueError, match="made: sentences must not be empty"):
        text.tokenize(set_of(["a", ""]), words, longest=9)
    with pytest.raises(ValueError, match="size must be at least 261, got 100"):
        text.learn(SENTENCES, 100)
    with pytest.raises(TypeError, match="sentences must be several texts, got one"):
        text.learn("one")


# Rows. --------------------------------------------------------------------------------


def test_rows_hold_the_sentences_and_padding(words):
    dataset = text.tokenize(set_of(SENTENCES), words, longest=64)
    column = dataset.columns["sentence"]
    batch = column[np.array([4, 0, 4])]
    ids, ptr = text.encode(words, SENTENCES)
    assert batch.tokens.shape == (3, np.diff(ptr).max())
    assert (batch.tokens.dtype, batch.valid.dtype) == (np.int32, bool)
    for row, valid, i in zip(*batch, [4, 0, 4], strict=True):
        np.testing.assert_array_equal(row[valid], ids[ptr[i] : ptr[i + 1]])
        assert (row[~valid] == words.pad).all()
        assert (np.diff(valid.astype(int)) <= 0).all()


def test_long_sentences_are_refused_or_cut(words):
    with pytest.raises(
        ValueError, match="3 of 5 sentences have more than 6 tokens, the"
    ):
        text.tokenize(set_of(SENTENCES), words, longest=6)
    cut = text.tokenize(set_of(SENTENCES), words, longest=6, too_long="cut")
    rows, whole = cut.columns["sentence"], text.tokenize(
        set_of(SENTENCES), words, longest=99
    ).columns["sentence"]  # fmt: skip
    assert rows.cut == 3
    assert "; 3 sentences were longer and are cut" in text.about(cut)
    batch = rows[np.arange(5)]
    assert batch.tokens.shape == (5, 6)
    expected = whole[np.arange(5)].tokens[:, :6]
    np.testing.assert_array_equal(batch.tokens[:, :5], expected[:, :5])
    long = whole.sizes > 6
    assert (batch.tokens[long, 5] == words.sep).all()
    np.testing.assert_array_equal(batch.tokens[~long], expected[~long])


def test_sentences_of_one_example_share_a_row_length(words):
    two = np.array([["the dog", "dog"], ["a", "the quick fox"]], object)
    rows = text.tokenize(data.Dataset("made", {"sentence": two}), words, longest=64)
    batch = rows.columns["sentence"][np.array([1])]
    assert batch.tokens.shape[:2] == (1, 2)
    assert text.decode(words, batch.tokens[0, 1]) == "the quick fox"
    assert text.decode(words, batch.tokens[0, 0][batch.valid[0, 0]]) == "a"


# Lengths. -----------------------------------------------------------------------------


def brute_force(sizes, unit, at_least, most):
    """The least room of so many multiples of unit, by trying all."""
    last = max(sizes)
    best = []
    for k in range(1, most + 1):
        rooms = []
        for inner in itertools.combinations(range(unit, last, unit), k - 1):
            ends = np.array([*inner, last])
            of = np.searchsorted(ends, sizes)
            if np.bincount(of, minlength=k).min() >= at_least:
                rooms.append(ends[of].sum())
        best.append(min(rooms, default=None))
    return [room for room in best if room is not None]


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("at_least", [1, 6])
def test_lengths_are_the_best_that_there_are(unit, at_least):
    sizes = np.random.default_rng(unit).integers(3, 15, 40)
    found = text.rows._least_room(sizes, unit, at_least, 4)
    assert [room for room, _ in found] == brute_force(sizes, unit, at_least, 4)
    for room, lengths in found:
        of = np.searchsorted(lengths, sizes)
        assert np.asarray(lengths)[of].sum() == room
        assert np.bincount(of).min() >= at_least


def test_lengths_keep_padding_small_and_batches_whole():
    sizes = 3 + np.random.default_rng(0).poisson(14, 3000)
    dataset = text.bucket(of_rows(ragged(sizes)), at_least=100)
    rows = dataset.columns["sentence"]
    assert rows.padding <= 0.15
    assert len(rows.lengths) <= 4
    assert all(length % 4 == 0 for length in rows.lengths[:-1])
    assert np.bincount(rows.groups).min() >= 100
    room = sum(rows[np.array([i])].tokens.size for i in range(len(rows)))
    np.testing.assert_allclose(rows.padding, 1 - sizes.sum() / room)
    assert f"in rows of {', '.join(map(str, rows.lengths))}; 1" in text.about(dataset)
    assert rows.lengths[-1] == sizes.max()
    given = text.bucket(dataset, lengths=(20, 60)).columns["sentence"]
    assert given.lengths == (20, 60)
    two = text.bucket(dataset, most=2).columns["sentence"]
    assert two.padding > 0.15  # more than was asked for: no two lengths can do it
    assert two.lengths[0] % 4 == 0
    assert text.bucket(of_rows(ragged([5] * 9))).columns["sentence"].groups is None


def test_wrong_lengths_are_refused():
    dataset = of_rows(ragged([3, 9]))
    with pytest.raises(ValueError, match="reach the longest sentence, of 9 tokens"):
        text.bucket(dataset, lengths=(4, 8))
    with pytest.raises(ValueError, match="lengths must ascend"):
        text.bucket(dataset, lengths=(9, 8))
    with pytest.raises(ValueError, match="column 'sentence' of rows of tokens"):
        text.bucket(set_of(["a"]))
    with pytest.raises(ValueError, match="must hold texts, got rows of tokens"):
        text.texts_of(dataset)
    with pytest.raises(ValueError, match="must have a column 'sentence', got x"):
        text.texts_of(data.Dataset("made", {"x": np.arange(3)}))


# Batches. -----------------------------------------------------------------------------


def test_a_batch_has_rows_of_one_length_and_programs_are_few():
    sizes = 3 + np.random.default_rng(1).poisson(9, 640)
    dataset = text.bucket(of_rows(ragged(sizes)), at_least=16)
    mesh_rows = jaxcl.data_parallel()[1]
    feed = data.feed(dataset, 16, 5, mesh_rows)
    host, lengths = data.batches(dataset, 16, 5), set()

    @jax.jit
    def count(batch):
        return jnp.sum(batch.valid, axis=1)

    for step in range(data.batches_per_epoch(dataset, 16)):
        batch, expected = feed(step)["sentence"], host(step)
        length = batch.tokens.shape[1]
        own = sizes[expected["index"]]
        assert own.max() <= length
        assert length == min(
            n for n in dataset.columns["sentence"].lengths if n >= min(own)
        )
        np.testing.assert_array_equal(count(batch), own)
        lengths.add(length)
    assert (
        count._cache_size() == len(lengths) == len(dataset.columns["sentence"].lengths)
    )
    with pytest.raises(ValueError, match="on_device must not be True for made"):
        data.feed(dataset, 16, 5, mesh_rows, on_device=True)


def test_rows_of_one_length_live_on_the_device():
    dataset = of_rows(ragged([3, 4, 5, 6] * 8))
    rows = jaxcl.data_parallel()[1]
    batch = data.feed(dataset, 8, 0, rows, on_device=True)(2)
    expected = data.batches(dataset, 8, 0)(2)
    jax.tree.map(np.testing.assert_array_equal, batch, expected)


# Pairs. -------------------------------------------------------------------------------


def test_pairs_are_all_of_a_group():
    group = np.array([7, 1, 7, 3, 7, 1], np.int32)
    dataset = text.pairs(of_rows(ragged([3, 4, 5, 6, 7, 8]), group=group))
    members = dataset.columns["sentence"].members
    assert {frozenset(pair) for pair in members.tolist()} == {
        frozenset(pair) for pair in [(0, 2), (0, 4), (2, 4), (1, 5)]
    }
    np.testing.assert_array_equal(dataset.columns["group"], group[members[:, 0]])
    batch = dataset.columns["sentence"][np.arange(4)]
    assert batch.tokens.shape == (4, 2, 8)
    np.testing.assert_array_equal(batch.tokens[..., 0] // 100, members)
    with pytest.raises(ValueError, match="groups of two sentences or more"):
        text.pairs(of_rows(ragged([3, 4]), group=np.array([0, 1])))
    with pytest.raises(ValueError, match="must have a column 'group'"):
        text.pairs(of_rows(ragged([3, 4])))
    with pytest.raises(ValueError, match="one sentence in each example"):
        text.pairs(dataset)


def test_pairs_may_be_of_similar_length():
    group = np.array([0, 0, 0, 1, 1, 1], np.int32)
    dataset = of_rows(ragged([4, 6, 9, 3, 7, 12]), group=group)
    found = text.pairs(dataset, apart=3).columns["sentence"].members.tolist()
    assert {frozenset(pair) for pair in found} == {
        frozenset(pair) for pair in [(0, 1), (1, 2), (3, 4)]
    }  # 4 and 6, 6 and 9; and 3 and 7, which differ least


def test_first_and_second_are_even():
    group = np.repeat(np.arange(500), 2).astype(np.int32)
    members = text.pairs(of_rows(ragged([3] * 1000), group=group))
    first = members.columns["sentence"].members[:, 0] % 2
    assert 0.4 < first.mean() < 0.6
