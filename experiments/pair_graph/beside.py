"""What is learned, beside the pair graph that it was learned from."""

import pathlib
from typing import Any

import numpy as np

from experiments.pair_graph import laws, measures
from jaxcl import _files
from jaxcl.pictures import pairs as pictures
from jaxcl.pictures import style


def both(pairs: laws.Pairs, s: np.ndarray, count: int, seed: int, **how: Any) -> Any:
    """What is learned beside its graph; clusters where there are classes."""
    found = measures.compare(pairs.w, s, **how)
    if count > 1:
        n = len(pairs.w)
        graph = measures.clusters(pairs.w, count, seed)[:n]
        learned = measures.clusters(measures.learned_weights(s), count, seed)[:n]
        found |= {
            "ARI of both": measures.agreement(graph, learned)["ARI"],
            "ARI graph, classes": measures.agreement(pairs.classes, graph)["ARI"],
            "ARI learned, classes": measures.agreement(pairs.classes, learned)["ARI"],
        }
    return found


def draw(
    path: pathlib.Path, pairs: laws.Pairs, s: np.ndarray, title: str, **how: Any
) -> None:
    rows, columns = pairs.w.any(axis=1), pairs.w.any(axis=0)
    orders = [
        np.argsort(of[kept], kind="stable")
        for of, kept in ((pairs.classes, rows), (pairs.of_caption, columns))
    ]
    starts = [
        np.flatnonzero(np.diff(np.sort(of[kept]))) + 1
        for of, kept in ((pairs.classes, rows), (pairs.of_caption, columns))
    ]
    (_, p, q), (_, back, learned) = measures.directions(pairs.w, s, **how)
    there, again = np.ix_(*orders), np.ix_(*orders[::-1])
    shown = {
        "images, to captions": (p[there], q[there]),
        "captions, to images": (back[again], learned[again]),
    }
    lines = dict(zip(shown, (tuple(starts), tuple(starts[::-1])), strict=True))
    names = ("the pair graph", "learned: softmax of similarities")
    note = "sorted by class; each row sums to 1"
    style.attempt(
        pictures.distributions,
        path,
        shown,
        names,
        lines_at=lines,
        title=title,
        note=note,
    )


def save(directory: pathlib.Path, pairs: laws.Pairs, *z: np.ndarray) -> None:
    with _files.replacing(directory / "embeddings.npz") as path:
        np.savez(
            path,
            image=z[0],
            text=z[1],
            label=pairs.classes,
            label_text=pairs.of_caption,
            w=pairs.w,
        )
