"""Contrastive losses for JAX: exact, in O(n d) memory, sharded over any mesh."""

from jaxcl import graphs, kernels, losses, mesh, pairwise
from jaxcl.mesh import mean, sharded

__all__ = ["graphs", "kernels", "losses", "mean", "mesh", "pairwise", "sharded"]
__version__ = "0.1.0"
