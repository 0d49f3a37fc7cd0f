"""Augmentations: pure functions of a key and one example, batched by the caller.

`views` applies one to a batch, of whatever kind; `chain` composes several, and `one_of`
draws one of them. `images` holds SimCLR's chain for photographs and a small affine
chain for characters, `tokens` those of sentences, `graphs` GraphCL's augmentations of
graphs and those of GRACE, whose functions take packs.
"""

from jaxcl.augment import graphs, images, tokens
from jaxcl.augment.transforms import Transform, chain, one_of, views, without_key

__all__ = [
    "Transform",
    "chain",
    "graphs",
    "images",
    "one_of",
    "tokens",
    "views",
    "without_key",
]
