"""Data sets for training and evaluation, through one interface.

A source gives a `Dataset`: named columns of one length with random access, such as
images and labels. `batches` makes of it a function from the step to a batch; nothing
else has a position, so a resumed run sees what an unbroken one would. `feed` gives the
same batches on a mesh.
"""

from jaxcl.data import graphs, pairs, text
from jaxcl.data.batching import (
    ahead,
    batches,
    batches_per_epoch,
    feed,
    permutation,
    put,
)
from jaxcl.data.dataset import (
    Column,
    Dataset,
    Rows,
    from_arrays,
    memory_limit,
    part,
    size,
    size_in_bytes,
    to_memory,
)
from jaxcl.data.files import array_splits, arrays, digits
from jaxcl.data.prepared import default_data_dir, is_prepared, tfds
from jaxcl.data.sources import open
from jaxcl.data.streaming import Stream, streamed

__all__ = [
    "Column",
    "Dataset",
    "Rows",
    "Stream",
    "ahead",
    "array_splits",
    "arrays",
    "batches",
    "batches_per_epoch",
    "default_data_dir",
    "digits",
    "feed",
    "from_arrays",
    "graphs",
    "is_prepared",
    "memory_limit",
    "open",
    "pairs",
    "part",
    "permutation",
    "put",
    "size",
    "size_in_bytes",
    "streamed",
    "text",
    "tfds",
    "to_memory",
]
