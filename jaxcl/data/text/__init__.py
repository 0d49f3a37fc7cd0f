"""Sentences: readers, a vocabulary, and rows of tokens of a few fixed lengths.

dataset = data.text.open("captions.tsv.gz", sentence=1, group=0)
words = data.text.learn(data.text.texts_of(dataset), size=8000)
rows = data.text.tokenize(dataset, words, longest=32, too_long="cut")
rows = data.text.bucket(rows, at_least=128)
batch = data.batches(rows, 128, seed=0)(0)["sentence"]  # a TokenBatch
"""

from jaxcl._token_batch import TokenBatch
from jaxcl.data.text.files import Name, open, read, texts_of
from jaxcl.data.text.rows import (
    TokenRows,
    about,
    bucket,
    pairs,
    rows_of,
    tokenize,
)
from jaxcl.data.text.topics import topics
from jaxcl.data.text.vocabulary import (
    SPECIAL,
    Vocabulary,
    decode,
    encode,
    learn,
    read_vocabulary,
    write,
)

__all__ = [
    "SPECIAL",
    "Name",
    "TokenBatch",
    "TokenRows",
    "Vocabulary",
    "about",
    "bucket",
    "decode",
    "encode",
    "learn",
    "open",
    "pairs",
    "read",
    "read_vocabulary",
    "rows_of",
    "texts_of",
    "tokenize",
    "topics",
    "write",
]
