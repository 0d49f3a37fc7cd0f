"""Are embeddings Gaussian? Of known inputs, of images, and any given ones."""
