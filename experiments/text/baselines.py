"""What counting words knows of sentences: the rows that an encoder has to beat."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.text.scores import Encode
from jaxcl import evaluation

TF_IDF = "TF-IDF"
VECTORS = "averaged word vectors"
WEIGHTED = "averaged vectors, by IDF"
NAMES = (TF_IDF, VECTORS, WEIGHTED)

LEAST = 2  # sentences that a word with a vector is in
SIZE = 300


def encodings(texts: np.ndarray) -> Mapping[str, Encode]:
    """TF-IDF and averaged vectors, both learnt from the sentences of the training.

    Args:
      texts: array of objects [n].
    """
    words = evaluation.count_words(texts)
    found: dict[str, Any] = {TF_IDF: functools.partial(_tf_idf, words)}
    known = evaluation.count_words(texts, least=LEAST)
    size = min(SIZE, len(known.places) - 1)
    vectors = evaluation.word_vectors(known, list(texts), size)
    for name, weighted in ((VECTORS, False), (WEIGHTED, True)):
        found[name] = functools.partial(_average, known, vectors, weighted)
    return found


def _tf_idf(words: Any, texts: np.ndarray) -> Any:
    return evaluation.tf_idf(words, list(texts))


def _average(words: Any, vectors: np.ndarray, weighted: bool, texts: Any) -> Any:
    return evaluation.average_vectors(words, vectors, list(texts), weighted=weighted)
