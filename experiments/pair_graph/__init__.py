"""The pair graph of images and captions, beside what CLIP learns of it."""
