"""Images and their captions: CLIP and its relatives, retrieval, zero-shot classes."""
