"""Augmentations: pure functions of a key and one example, batched by the caller.

`images` holds SimCLR's chain for photographs and a small affine chain for characters.
"""

from jaxcl.augment import images as images
