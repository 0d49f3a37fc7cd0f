"""Contrastive losses: pure functions of embeddings that return one value per anchor."""

from jaxcl.losses.geometry import alignment, norm_entropy_penalty, uniformity
from jaxcl.losses.labels import sincere, sup_con, uni_cl
from jaxcl.losses.learned import learned_temperature, log_temperature
from jaxcl.losses.pairs import clip, info_nce, sc_info_nce, siglip
from jaxcl.losses.targets import graph_cross_entropy, similarity_distillation
from jaxcl.losses.views import (
    dcl,
    debiased_nt_xent,
    kernel_info_nce,
    nt_xent,
    spectral_contrastive,
)
from jaxcl.losses.within import dhel, f_micl, is_info_nce, kcl

__all__ = [
    "alignment",
    "clip",
    "dcl",
    "debiased_nt_xent",
    "dhel",
    "f_micl",
    "graph_cross_entropy",
    "info_nce",
    "is_info_nce",
    "kcl",
    "kernel_info_nce",
    "learned_temperature",
    "log_temperature",
    "norm_entropy_penalty",
    "nt_xent",
    "sc_info_nce",
    "siglip",
    "similarity_distillation",
    "sincere",
    "spectral_contrastive",
    "sup_con",
    "uni_cl",
    "uniformity",
]
