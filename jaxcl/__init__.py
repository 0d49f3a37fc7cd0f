"""Contrastive losses for JAX: exact, in O(n d) memory, sharded over any mesh."""

from jaxcl import diagnostics, graphs, kernels, losses, mesh, pairwise
from jaxcl.mesh import data_parallel, mean, sharded

__all__ = [
    "data_parallel",
    "diagnostics",
    "graphs",
    "kernels",
    "losses",
    "mean",
    "mesh",
    "pairwise",
    "sharded",
]
__version__ = "0.1.0"
