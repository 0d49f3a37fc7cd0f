"""Real digits and what they are called."""

import numpy as np

from jaxcl.data import dataset as dataset_lib
from jaxcl.data import files
from jaxcl.data.pairs import captions

_WORDS = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
_TEMPLATES = (
    "the digit {word}",
    "a handwritten {number}",
    "a picture of the number {word}",
    "{number}, written by hand",
    "a small gray {word}",
)


def digits(split: str) -> dataset_lib.Dataset:
    """scikit-learn's digits, each with its name in five captions.

    All images of a class have the same captions and are one group.

    Args:
      split: as `data.digits` takes it.

    Returns:
      The data set.
    """
    source = files.digits(split)
    label = np.asarray(source.columns["label"])
    names = [
        [template.format(word=word, number=number) for template in _TEMPLATES]
        for number, word in enumerate(_WORDS)
    ]
    return captions.made(
        "digits",
        source.columns["image"],
        captions.of_lists([names[c] for c in label]),
        group=label,
        label=label,
        class_names=source.class_names,
    )
