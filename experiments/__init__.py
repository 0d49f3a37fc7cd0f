"""Scripts that read top to bottom; each runs as `python -m experiments.NAME --help`."""
