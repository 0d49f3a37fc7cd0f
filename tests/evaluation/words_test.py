"""Baselines of sentences, against scikit-learn and against sums over words."""

import re

import numpy as np
import pytest
from sklearn.feature_extraction import text as sklearn_text

from jaxcl import evaluation

TEXTS = [
    "The dog runs, the dog barks.",
    "A cat sleeps on the mat",
    "the cat and the dog run",
    "Rain falls on a mat of leaves",
    "a dog sleeps",
]


def test_tf_idf_is_that_of_sklearn():
    words = evaluation.count_words(TEXTS)
    theirs = sklearn_text.TfidfVectorizer(token_pattern=r"(?u)\w+").fit(TEXTS)
    assert words.places == {k: int(v) for k, v in theirs.vocabulary_.items()}
    new = [*TEXTS, "the unknown dog", "nothing of it"]
    expected = theirs.transform(new).toarray()
    got = evaluation.tf_idf(words, new).toarray()
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    few = evaluation.count_words(TEXTS, least=2)
    kept = sklearn_text.TfidfVectorizer(token_pattern=r"(?u)\w+", min_df=2).fit(TEXTS)
    assert set(few.places) == set(kept.vocabulary_)


def near(texts, window):
    """Counts of words near to each other, pair by pair."""
    split = [re.findall(r"\w+", text.lower()) for text in texts]
    names = sorted({word for row in split for word in row})
    counts = np.zeros((len(names), len(names)))
    for row in split:
        for i, a in enumerate(row):
            for j, b in enumerate(row):
                if i != j and abs(i - j) <= window:
                    counts[names.index(a), names.index(b)] += 1
    return names, counts


@pytest.mark.parametrize("window", [1, 3])
def test_vectors_are_those_of_the_positive_mutual_information(window):
    names, counts = near(TEXTS, window)
    of, total = counts.sum(axis=1), counts.sum()
    m = np.zeros_like(counts)
    for a in range(len(names)):
        for b in range(len(names)):
            if counts[a, b]:
                m[a, b] = max(0, np.log(counts[a, b] * total / (of[a] * of[b])))
    u, s, _ = np.linalg.svd(m)
    words = evaluation.count_words(TEXTS)
    # As many as are told apart from the next: M has pairs +s, -s of equal size.
    size = next(k for k in range(4, 10) if s[k - 1] - s[k] > 0.05)
    got = evaluation.word_vectors(words, TEXTS, size, window=window)
    expected = u[:, :size] * np.sqrt(s[:size])
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(got, axis=0) ** 2, s[:size], rtol=1e-9)


def test_sentences_are_means_of_their_words():
    words = evaluation.count_words(TEXTS)
    vectors = np.random.default_rng(0).normal(size=(len(words.places), 3))
    texts = ["the dog, the cat", "unknown", "the unknown mat"]
    for weighted in (False, True):
        got = evaluation.average_vectors(words, vectors, texts, weighted=weighted)
        for row, known in zip(
            got, [["the", "dog", "the", "cat"], [], ["the", "mat"]], strict=True
        ):
            places = [words.places[word] for word in known]
            weights = [words.idf[p] if weighted else 1 for p in places]
            expected = np.zeros(3)
            for place, weight in zip(places, weights, strict=True):
                expected += weight * vectors[place] / sum(weights)
            np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_wrong_arguments_are_refused():
    words = evaluation.count_words(TEXTS)
    with pytest.raises(ValueError, match="must have words that are in 9 of them"):
        evaluation.count_words(TEXTS, least=9)
    with pytest.raises(ValueError, match="size must be at most 14, got 99"):
        evaluation.word_vectors(words, TEXTS, 99)
    with pytest.raises(ValueError, match=r"vectors must be \[15, d\], one for each"):
        evaluation.average_vectors(words, np.ones((3, 2)), TEXTS)
