"""Contrastive losses: pure functions of embeddings that return one value per anchor."""

from jaxcl.losses.labels import sup_con
from jaxcl.losses.pairs import clip, info_nce, sc_info_nce
from jaxcl.losses.views import dcl, kernel_info_nce, nt_xent

__all__ = [
    "clip",
    "dcl",
    "info_nce",
    "kernel_info_nce",
    "nt_xent",
    "sc_info_nce",
    "sup_con",
]
