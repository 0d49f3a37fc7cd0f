"""Contrastive learning as spectral clustering of a graph."""
