"""Sets of graphs: readers, features, and batches of fixed shape.

Here graphs are data: molecules, proteins, circles of people, each with a label, or one
network whose nodes have labels. `jaxcl.graphs` is another subject, the graphs that
theory sees on a batch of examples.

    dataset = data.graphs.open("path/to/NCI1", features=("labels", "degree"))
    packed = data.graphs.pack(dataset, batch_size=128, seed=0, epochs=20)
    batch = data.batches(packed, 128, seed=0)(0)["graph"]  # a GraphBatch
"""

from jaxcl._graph_batch import GraphBatch
from jaxcl.data.graphs.converted import from_networkx
from jaxcl.data.graphs.features import (
    FEATURES,
    degrees,
    with_features,
    with_same_features,
)
from jaxcl.data.graphs.files import npz, open, tu
from jaxcl.data.graphs.generated import atlas, families, partition
from jaxcl.data.graphs.networks import open_network
from jaxcl.data.graphs.packing import (
    Packed,
    about,
    pack,
    pack_batches,
    pack_in_order,
)
from jaxcl.data.graphs.sets import (
    Features,
    Graphs,
    Network,
    Ragged,
    from_edges,
    graphs_of,
    labelled,
)

__all__ = [
    "FEATURES",
    "Features",
    "GraphBatch",
    "Graphs",
    "Network",
    "Packed",
    "Ragged",
    "about",
    "atlas",
    "degrees",
    "families",
    "from_edges",
    "from_networkx",
    "graphs_of",
    "labelled",
    "npz",
    "open",
    "open_network",
    "pack",
    "pack_batches",
    "pack_in_order",
    "partition",
    "tu",
    "with_features",
    "with_same_features",
]
