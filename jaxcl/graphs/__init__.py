"""Target graphs: who belongs together, as identities of nodes or as a dense matrix.

A contrastive loss compares two graphs on the batch: this one, and that of the learned
similarities. `nodes` says who belongs together without storing an edge, which is what
losses read. `dense` is the theory's side: similarity graphs, Laplacians and convergence
targets as small matrices.
"""

from jaxcl.graphs.dense import (
    PairEstimate,
    augmentation_graph,
    estimate_pair_distributions,
    estimate_transition,
    infonce_target,
    laplacian,
    pair_distributions,
    pair_graph,
    rewritten_pair_graph,
    row_normalize,
    sample_neighbors,
    sc_infonce_target,
    similarity_graph,
    symmetrize,
    views_graph,
)
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
    two_views,
    views,
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
    "rewritten_pair_graph",
    "row_normalize",
    "sample_neighbors",
    "sc_infonce_target",
    "similarity_graph",
    "symmetrize",
    "two_views",
    "views",
    "views_graph",
]
