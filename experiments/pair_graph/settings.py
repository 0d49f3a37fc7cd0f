"""Settings of the pair graph's experiment."""

import dataclasses
from typing import Annotated

from jaxcl import _rules


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds the pair graph of images and captions beside learned similarities."""

    directory: str = "runs/pair_graph"
    """Where pictures, tables and reports go."""
    overwrite: bool = False
    """Whether results that are there already may be replaced."""
    embeddings: tuple[str, ...] = ()
    """Files .npz with image [n, d], text [m, d], example [m] and, if there are, group
    [n] and label [n], such as experiments.clip writes, of one run or of several seeds;
    without, pairs are drawn and vectors trained here."""
    temperature: _rules.Positive | None = None
    """Of cosines; None = 0.1, or for a file what fits its graph best."""
    most_nodes: Annotated[int, _rules.whole(8)] = 1200
    """Images and captions of a file that are looked at; of more, groups are drawn."""
    num_classes: _rules.Several = 4
    images: _rules.Several = 20
    """Of each class."""
    phrases: _rules.Several = 10
    """Of each class, which describe its images."""
    captions: _rules.Several = 5
    """Of each image, at most; LaCLIP has as many texts."""
    noise: Annotated[float, _rules.inside("[0, 1)")] = 0.1
    """Probability that a caption is a phrase of another class."""
    dimension: _rules.Several = 8
    """Of the vectors."""
    steps: _rules.Count = 1000
    """Of Adam."""
    batch_size: _rules.Several = 64
    """Pairs of a batch."""
    learning_rate: _rules.Positive = 0.05
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0, 1, 2, 3, 4)
    """Of pairs, first vectors, batches and k-means; a file takes the first alone."""


def check(s: Settings) -> None:
    _rules.check(s)
    mine = "num_classes images phrases captions noise dimension steps batch_size"
    for names, read, which in (
        (f"{mine} learning_rate", not s.embeddings, "a run without embeddings"),
        ("most_nodes", bool(s.embeddings), "a run with embeddings"),
    ):
        _rules.unread(s, names, unless=read, which=which)
    if s.captions > s.phrases:
        raise ValueError(
            f"captions must be at most the {s.phrases} phrases of a class, "
            f"got {s.captions}"
        )
