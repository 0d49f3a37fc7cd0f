"""Contrastive learning on sentences: see `python -m experiments.text`."""
