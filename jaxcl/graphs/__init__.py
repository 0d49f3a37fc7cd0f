"""Target graphs: who belongs together, as identities of nodes or as a dense matrix.

A contrastive loss compares two graphs on the batch: this one, and that of the learned
similarities. `nodes` says who belongs together without storing an edge, which is what
losses read. `similarity` and `targets` are the theory's side, as small matrices:
similarity graphs and Laplacians, and what losses converge to.
"""

from jaxcl.graphs.nodes import (
    Nodes,
    count_negatives,
    count_positives,
    count_valid,
    has_positive,
    keyed,
    labelled,
    negatives,
    others,
    pairs,
    positives,
    queued,
    two_sets,
    two_views,
    views,
)
from jaxcl.graphs.similarity import (
    augmentation_graph,
    laplacian,
    pair_graph,
    rewritten_pair_graph,
    row_normalize,
    sample_neighbors,
    similarity_graph,
    symmetrize,
    views_graph,
    without_loops,
    without_overflow,
)
from jaxcl.graphs.targets import (
    PairEstimate,
    estimate_pair_distributions,
    estimate_transition,
    infonce_target,
    pair_distributions,
    sc_infonce_target,
)

__all__ = [
    "Nodes",
    "PairEstimate",
    "augmentation_graph",
    "count_negatives",
    "count_positives",
    "count_valid",
    "estimate_pair_distributions",
    "estimate_transition",
    "has_positive",
    "infonce_target",
    "keyed",
    "labelled",
    "laplacian",
    "negatives",
    "others",
    "pair_distributions",
    "pair_graph",
    "pairs",
    "positives",
    "queued",
    "rewritten_pair_graph",
    "row_normalize",
    "sample_neighbors",
    "sc_infonce_target",
    "similarity_graph",
    "symmetrize",
    "two_sets",
    "two_views",
    "views",
    "views_graph",
    "without_loops",
    "without_overflow",
]
