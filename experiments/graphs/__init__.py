"""Contrastive learning on graphs: see `python -m experiments.graphs`."""
