"""Augmentations: pure functions of a key and one example, batched by the caller.

`views` applies one to a batch, of whatever kind; `chain` composes several. `images`
holds SimCLR's chain for photographs and a small affine chain for characters.
"""

from jaxcl.augment import images
from jaxcl.augment.transforms import Transform, chain, views, without_key

__all__ = ["Transform", "chain", "images", "views", "without_key"]
