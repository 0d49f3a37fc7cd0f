"""Images with captions: one or several for each image, and who shares them.

dataset = data.pairs.open("digits", "train[:90%]")
words = data.text.learn(data.pairs.texts_of(dataset)[0], size=1000)
rows = data.pairs.tokenize(dataset, words, longest=16)
batch = data.batches(rows, 128, seed=0)(0)["caption"]  # a TokenBatch [b, c, L]
"""

from jaxcl.data.pairs.captions import Captions, about, texts_of, tokenize
from jaxcl.data.pairs.sources import open

__all__ = [
    "Captions",
    "about",
    "open",
    "texts_of",
    "tokenize",
]
