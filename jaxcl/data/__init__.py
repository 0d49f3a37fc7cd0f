"""Images for training and evaluation, through one interface.

A source gives a `Dataset`: uint8 images with random access, labels, class names.
`batches` makes of it a function from the step to a batch; nothing else has a position,
so a resumed run sees what an unbroken one would.
"""

from jaxcl.data.batching import batches, permutation, prefetch
from jaxcl.data.dataset import Dataset, Images, from_arrays, part, to_memory
from jaxcl.data.files import array_splits, arrays, digits
from jaxcl.data.prepared import default_data_dir, is_prepared, tfds
from jaxcl.data.sources import open

__all__ = [
    "Dataset",
    "Images",
    "array_splits",
    "arrays",
    "batches",
    "default_data_dir",
    "digits",
    "from_arrays",
    "is_prepared",
    "open",
    "part",
    "permutation",
    "prefetch",
    "tfds",
    "to_memory",
]
