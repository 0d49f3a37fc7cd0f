"""SC-InfoNCE: where its target is known, and on images."""
