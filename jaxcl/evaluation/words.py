"""What is known of sentences by counting words: TF-IDF, averaged word vectors.

Baselines of every learned representation. A word is a run of letters and digits, in
small letters.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _checks, _optional

_WORD = re.compile(r"\w+")


class Words(NamedTuple):
    """The words of a set of sentences.

    Attributes:
      places: the column of each word, sorted by name.
      idf: inverse document frequency of each word, float64 [w].
    """

    places: dict[str, int]
    idf: np.ndarray


def count_words(texts: Iterable[str], *, least: int = 1) -> Words:
    """Counts in how many sentences each word is.

        idf_w = log((1 + n) / (1 + n_w)) + 1

    Args:
      texts: n sentences.
      least: in how many a word must be to be known.

    Returns:
      The words.

    Raises:
      ValueError: if there are no such words.

    >>> list(count_words(["A dog.", "a cat"]).places)
    ['a', 'cat', 'dog']
    """
    _checks.count("least", least)
    counts: dict[str, int] = {}
    n = 0
    for n, text in enumerate(texts, 1):  # noqa: B007
        for word in set(_words(text)):
            counts[word] = counts.get(word, 0) + 1
    names = sorted(word for word, count in counts.items() if count >= least)
    if not names:
        raise ValueError(f"texts must have words that are in {least} of them, got none")
    known = np.array([counts[name] for name in names], np.float64)
    places = {name: place for place, name in enumerate(names)}
    return Words(places, np.log((1 + n) / (1 + known)) + 1)


def tf_idf(words: Words, texts: Sequence[str]) -> Any:
    """Sentences as weighted counts of their words, in rows of norm 1.

    Args:
      words: those that are known, with their weights.
      texts: n sentences.

    Returns:
      A sparse matrix of SciPy, float64 [n, w]; the row of a sentence without known
      words is 0.

    >>> words = count_words(["a dog", "a cat"])
    >>> print(tf_idf(words, ["a a", "mouse"]).toarray())
    [[1. 0. 0.]
     [0. 0. 0.]]
    """
    sparse = _optional.require("scipy.sparse", "evaluation.tf_idf", "tools")
    x = _counts(words, texts).multiply(words.idf[None]).tocsr()
    norms = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return sparse.csr_array(sparse.diags_array(inverse) @ x)


def word_vectors(
    words: Words, texts: Sequence[str], size: int = 100, *, window: int = 5
) -> np.ndarray:
    """Vectors of words, by the words that stand near to them.

        M_ab = max(0, log(c_ab c / (c_a c_b))),   M ~ U S V^T,   vectors U sqrt(S)

    with c_ab how often b is at most `window` words from a, and sums over one or both.

    Args:
      words: those that are known; others are left out before distances are counted.
      texts: sentences to learn from.
      size: d, numbers of a vector.
      window: largest distance.

    Returns:
      float64 [w, d]; where M has fewer than d singular values above 0, columns of 0.

    Raises:
      ValueError: if size is not below the number of words.

    Source:
      Neural word embedding as implicit matrix factorization (Levy and Goldberg, 2014),
      sections 4 and 5, with one negative sample.
    """
    linalg = _optional.require(
        "scipy.sparse.linalg", "evaluation.word_vectors", "tools"
    )
    _checks.count("size", size, 1, len(words.places) - 1)
    c = _near(words, texts, _checks.count("window", window)).tocoo()
    of = np.asarray(c.sum(axis=1)).ravel()
    pmi = np.log(c.data * of.sum() / (of[c.row] * of[c.col]))
    c.data = np.maximum(pmi, 0)
    start = np.random.default_rng(0).standard_normal(len(words.places))
    u, s, _ = linalg.svds(c.tocsr(), k=size, v0=start)
    order = np.argsort(-s)
    s = np.where(s > 1e-9 * s.max(), s, 0)
    return u[:, order] * np.sqrt(s[order])


def average_vectors(
    words: Words, vectors: np.ndarray, texts: Sequence[str], *, weighted: bool = False
) -> np.ndarray:
    """Sentences as the mean of the vectors of their words.

    Args:
      words: those that are known.
      vectors: of the words, [w, d].
      texts: n sentences.
      weighted: whether words count by their inverse document frequency.

    Returns:
      float64 [n, d]; 0 for a sentence without known words.

    Raises:
      ValueError: if there is not a vector for each word.
    """
    if vectors.ndim != 2 or len(vectors) != len(words.places):
        raise ValueError(
            f"vectors must be [{len(words.places)}, d], one for each word, got "
            f"{list(vectors.shape)}"
        )
    x = _counts(words, texts)
    if weighted:
        x = x.multiply(words.idf[None]).tocsr()
    total = np.asarray(x.sum(axis=1)).ravel()
    return (x @ vectors) / np.where(total > 0, total, 1)[:, None]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _known(words: Words, text: str) -> list[int]:
    return [words.places[w] for w in _words(text) if w in words.places]


def _counts(words: Words, texts: Sequence[str]) -> Any:
    """How often each word is in each sentence, sparse [n, w]."""
    sparse = _optional.require("scipy.sparse", "a baseline of sentences", "tools")
    rows = [_known(words, text) for text in texts]
    sizes = [len(row) for row in rows]
    column = np.array([place for row in rows for place in row], np.int64)
    row = np.repeat(np.arange(len(rows)), sizes)
    shape = (len(rows), len(words.places))
    return sparse.coo_array((np.ones(len(row)), (row, column)), shape).tocsr()


def _near(words: Words, texts: Sequence[str], window: int) -> Any:
    """How often two words are near to each other, sparse [w, w]."""
    sparse = _optional.require("scipy.sparse", "a baseline of sentences", "tools")
    rows = [np.array(_known(words, text), np.int64) for text in texts]
    ones, others = [], []
    for apart in range(1, window + 1):
        ones += [row[:-apart] for row in rows]
        others += [row[apart:] for row in rows]
    a, b = np.concatenate(ones), np.concatenate(others)
    shape = (len(words.places),) * 2
    once = sparse.coo_array((np.ones(len(a)), (a, b)), shape).tocsr()
    return once + once.T
