"""What an accuracy is an accuracy of: a protocol in words, beside every number."""

from typing import NamedTuple


class Protocol(NamedTuple):
    """How an accuracy was measured; "" where a source does not say.

    Attributes:
      method: in a word or two, "k-NN", "linear", "fine-tuned".
      learned: what was trained on labels, "linear layer", "all weights" or "nothing".
      details: of the method: neighbors and votes, or optimizer and penalty.
      epochs: passes over the labelled images; "" where there are none.
      chosen: what was chosen, and on which images.
      labels: those that were known.
      augmentation: of the labelled images.
      tested: images on which accuracy was measured.
    """

    method: str
    learned: str = ""
    details: str = ""
    epochs: str = ""
    chosen: str = ""
    labels: str = ""
    augmentation: str = ""
    tested: str = ""


def protocol_text(protocol: Protocol) -> str:
    """A protocol in one line.

    Args:
      protocol: how an accuracy was measured.

    Returns:
      Its parts, without those that are not said.

    >>> print(protocol_text(Protocol("k-NN", "nothing", "k = 5", tested="497 images")))
    k-NN, learns: nothing, k = 5, tested on 497 images
    """
    words = {
        "method": "{}",
        "learned": "learns: {}",
        "details": "{}",
        "epochs": "{} epochs",
        "chosen": "chosen: {}",
        "labels": "labels: {}",
        "augmentation": "augmentation: {}",
        "tested": "tested on {}",
    }
    parts = protocol._asdict()
    return ", ".join(words[k].format(v) for k, v in parts.items() if v)


def protocol_differences(ours: Protocol, theirs: Protocol) -> list[str]:
    """Where two protocols differ, or where one does not say.

    Args:
      ours: how an accuracy was measured.
      theirs: how the other was.

    Returns:
      A line for each part that is not the same; [] where all are.

    >>> ours = Protocol("k-NN", details="k = 20", tested="10,000 test images")
    >>> print(protocol_differences(ours, ours._replace(details="k = 10")))
    ['details: here k = 20, there k = 10']
    """
    for name, given in (("ours", ours), ("theirs", theirs)):
        if not isinstance(given, Protocol):
            raise TypeError(f"{name} must be a Protocol, got {type(given).__name__}")
    both = zip(ours, theirs, Protocol._fields, strict=True)
    return [
        f"{field}: here {a or 'not said'}, there {b or 'not said'}"
        for a, b, field in both
        if a != b
    ]
