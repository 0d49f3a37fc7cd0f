"""Augmentations: pure functions of a key and one example, batched by the caller.

`views` applies one to a batch, of whatever kind; `chain` composes several. `images`
holds SimCLR's chain for photographs and a small affine chain for characters, `graphs`
GraphCL's augmentations of graphs and those of GRACE, whose functions take packs.
"""

from jaxcl.augment import graphs, images
from jaxcl.augment.transforms import Transform, chain, views, without_key

__all__ = ["Transform", "chain", "graphs", "images", "views", "without_key"]
