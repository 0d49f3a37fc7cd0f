"""CLIP as spectral clustering of a pair graph, seen: what it learns, what rewrites add.

python -m experiments.pair_graph                       # a law that is known, a minute
python -m experiments.pair_graph --embeddings runs/clip/embeddings.npz \
    --directory runs/clip_graph

Kernel-InfoNCE (https://arxiv.org/abs/2303.15103, theorem 4.2) reads CLIP as spectral
clustering of the graph of images and captions. Images of a few classes are described
by the phrases of their class, now and then by others; embeddings are free vectors, so
what is left is the loss. Shown are the learned distributions beside those of the graph,
and whether captions that related images share, or rewrites of one text (LaCLIP), help
spectral clustering to find the classes. With files, their embeddings are held against
their own graph. At the end: whether images and captions are Gaussian.
"""

import contextlib
import dataclasses
import io
import pathlib
from typing import Any

import numpy as np

from experiments.pair_graph import beside, known, laws, measures, training
from experiments.pair_graph.settings import Settings, check
from jaxcl import _cli, _files, report


def of_files(s: Settings, directory: pathlib.Path) -> dict[str, Any]:
    """Holds embeddings of files, such as those of several seeds, beside their graph."""
    rows: list[dict[str, float]] = []
    for path in s.embeddings:
        pairs, images, texts, count = laws.read(path, s.most_nodes, s.seeds[0])
        cosines = training.similarities(images[None], texts[None], 1.0)[0]
        tried = [s.temperature] if s.temperature else np.geomspace(0.01, 2, 25).tolist()
        fits = [measures.compare(pairs.w, cosines / each)["per node"] for each in tried]
        best = tried[int(np.argmin(fits))]
        fit = beside.both(pairs, cosines / best, count, s.seeds[0])
        rows.append({"temperature": best} | fit)
        if len(rows) == 1:
            title = "A pair graph, and what two towers make of it"
            beside.draw(directory / "graph.png", pairs, cosines / best, title)
            beside.save(directory, pairs, images, texts)
            least = measures.entropy(pairs.w)
            collapsed = measures.compare(pairs.w, np.zeros_like(cosines))
            parts = measures.components(pairs.w)
            print(
                f"\n{len(images)} images and {len(texts)} captions of {path}: "
                f"{parts} components; cross-entropy"
            )
            for key, value in least.items():
                print(f"  {key}: at least {value:.2f}, collapsed {collapsed[key]:.2f}")
    print(f"\n{measures.table({f'learned, {len(rows)} files': rows})}")
    return {"fits": rows, "entropy": least, "components": parts, "classes": count}


def gaussian(directory: pathlib.Path, overwrite: bool) -> dict[str, Any]:
    """Reports of both sides, and their verdicts."""
    found = {}
    print("\nAre the embeddings Gaussian?")
    for side in ("image", "text"):
        home = directory / f"report_{side}"
        asked = report.Settings(
            str(directory / "embeddings.npz"),
            key=side,
            out=str(home),
            overwrite=overwrite,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            said = report.main(asked)
        numbers = said.numbers
        found[side] = said.verdict._asdict() | {
            "rows": numbers.rows.used,
            "ad_mean": numbers.coordinates.ad_mean,
            "dp_mean": numbers.coordinates.dp_mean,
            "cv": numbers.norms.cv,
        }
        print(f"  {side}, {numbers.rows.used} rows: {said.verdict.headline}")
    return found


def main(s: Settings) -> dict[str, Any]:
    directory = _files.check_new("directory", s.directory, overwrite=s.overwrite)
    check(s)
    results = (of_files if s.embeddings else known.run)(s, directory)
    results["gaussian"] = gaussian(directory, s.overwrite)
    record = {"settings": dataclasses.asdict(s), **results}
    _files.write_json(directory / "results.json", record)
    print(f"\nIn {directory}: results.json, embeddings.npz, pictures and reports")
    return results


if __name__ == "__main__":
    _cli.run(main, Settings, prog="python -m experiments.pair_graph")
