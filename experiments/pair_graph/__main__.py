"""CLIP as spectral clustering of a pair graph, seen: what it learns, what rewrites add.

python -m experiments.pair_graph                       # a law that is known, a minute
python -m experiments.pair_graph --embeddings runs/clip/embeddings.npz \
    --directory runs/clip_graph

Kernel-InfoNCE (https://arxiv.org/abs/2303.15103, theorem 4.2) reads CLIP as spectral
clustering of the graph of images and captions. Images of a few classes are described
by the phrases of their class, now and then by others; embeddings are free vectors, so
what is left is the loss. Shown are the learned distributions beside those of the graph,
and whether captions that related images share, or rewrites of one text (LaCLIP), help
spectral clustering to find the classes. With a file, its embeddings are held against
their own graph. At the end: whether images and captions are Gaussian.
"""

import contextlib
import dataclasses
import io
import pathlib
from typing import Annotated, Any

import numpy as np

from experiments.pair_graph import laws, measures, training
from jaxcl import _files, _rules, report
from jaxcl.pictures import pairs as pictures
from jaxcl.pictures import studies, style


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds the pair graph of images and captions beside learned similarities."""

    directory: str = "runs/pair_graph"
    """Where pictures, tables and reports go."""
    overwrite: bool = False
    """Whether results that are there already may be replaced."""
    embeddings: str = ""
    """An .npz with image [n, d], text [m, d], example [m] and, if there are, group [n]
    and label [n], such as experiments.clip writes; empty draws and trains its own."""
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


def beside(pairs: laws.Pairs, s: np.ndarray, count: int, seed: int, **how: Any) -> Any:
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


def of_law(s: Settings, directory: pathlib.Path) -> dict[str, Any]:
    """Trains on graphs that are known; tables, pictures, embeddings of the first seed."""
    temperature = 0.1 if s.temperature is None else s.temperature
    how = {"dimension": s.dimension, "steps": s.steps, "batch_size": s.batch_size}
    how |= {"rate": s.learning_rate, "temperature": temperature}
    sizes = (s.num_classes, s.images, s.phrases, s.captions, s.noise)
    drawn = [laws.draw(*sizes, seed) for seed in s.seeds]
    c, rewrites = s.num_classes, s.captions - 1

    # One to five captions of an image: edges and nodes are not the same mean.
    uneven = []
    for seed, (pairs, texts) in zip(s.seeds, drawn, strict=True):
        random = np.random.default_rng((seed, 1))
        counts = random.integers(1, s.captions + 1, len(texts))
        uneven.append(laws.first(pairs, texts, counts))
    fits: dict[str, list[dict[str, float]]] = {}
    for name, kind in (
        ("CLIP, batches", "batches"),
        ("whole graph, per edge", "per edge"),
        ("whole graph, per node", "per node"),
    ):
        w = np.stack([pairs.w for pairs in uneven])
        z = training.embeddings(w, s.seeds, how=kind, **how)
        logits = training.similarities(*z, temperature)
        weighted = {"weighted": kind == "batches"}
        fits[name] = [
            beside(pairs, each, c, seed, **weighted)
            for pairs, each, seed in zip(uneven, logits, s.seeds, strict=True)
        ]
        if kind == "batches":
            title = "What CLIP learns of a pair graph, free embeddings"
            draw(directory / "graph.png", uneven[0], logits[0], title, **weighted)
            save(directory, uneven[0], z[0][0], z[1][0])
    bound = [measures.compare(p.w, np.log(p.w + 1e-30)) for p in uneven]
    print(f"\nLearned beside the pair graph, one to {s.captions} captions of an image")
    print(f"\n{measures.table(fits)}\n")
    lowest = [
        measures.cell([b[key] for b in bound]) for key in ("per node", "per edge")
    ]
    print(
        f"Entropy of the graph, the least: per node {lowest[0]}, per edge {lowest[1]}"
    )

    # LaCLIP: the same images with one text, its rewrites, or texts that they share.
    clustered: dict[str, list[dict[str, float]]] = {}
    one = [laws.first(pairs, texts, 1) for pairs, texts in drawn]
    copies = [laws.rewritten(pairs, rewrites) for pairs in one]
    for name, given in (
        ("one caption", one),
        (f"{rewrites} rewrites of it", copies),
        (f"{rewrites} captions more", [pairs for pairs, _ in drawn]),
    ):
        w = np.stack([pairs.w for pairs in given])
        z = training.embeddings(w, s.seeds, how="batches", **how)
        clustered[name] = []
        for pairs, each, seed in zip(
            given, training.similarities(*z, temperature), s.seeds, strict=True
        ):
            n, row = len(pairs.w), {"components": float(measures.components(pairs.w))}
            for label, weights in (
                ("graph", pairs.w),
                ("learned", measures.learned_weights(each)),
            ):
                found = measures.clusters(weights, c, seed)[:n]
                scores = measures.agreement(pairs.classes, found)
                row |= {f"{key} {label}": value for key, value in scores.items()}
            clustered[name].append(row)
    print("\nSpectral clusters of the images beside their classes\n")
    print(f"{measures.table(clustered)}\n")
    differences = {}
    first, *others = clustered
    for name in others:
        for key in ("ARI graph", "ARI learned"):
            values = [
                row[key] - base[key]
                for row, base in zip(clustered[name], clustered[first], strict=True)
            ]
            differences[f"{name}, {key}"] = values
            print(f"{name} less {first}, {key}: {measures.cell(values)}")

    # Rewrites of a text lead back to its own images, whatever their number.
    steps = [
        abs(measures.walk(a.w) - measures.walk(b.w)).max()
        for a, b in zip(one, copies, strict=True)
    ]
    alone = np.eye(len(one[0].w), dtype=np.float32)
    leaves = [measures.components(np.repeat(alone, k, axis=1)) for k in (1, s.captions)]
    print(
        f"\nTwo steps of the graph from an image, with rewrites and without, differ by at"
        f" most {max(steps):.1g}.\nOf {len(alone)} images with a text each, {leaves[0]} "
        f"components stay {leaves[1]} with {rewrites} rewrites: leaves connect nothing."
    )
    style.attempt(
        studies.dots,
        directory / "clusters.png",
        list(clustered),
        {
            label: [[row[f"ARI {key}"] for row in rows] for rows in clustered.values()]
            for key, label in (
                ("graph", "the pair graph"),
                ("learned", "what is learned"),
            )
        },
        baseline=first,
        aside="",
        axis="clusters of {}, ARI x 100",
        title="Do more captions help spectral clustering to find the classes?",
    )
    return {
        "fits": fits,
        "entropy": bound,
        "clusters": clustered,
        "differences": differences,
        "walk differs by": float(max(steps)),
        "components of single pairs": leaves,
    }


def of_file(s: Settings, directory: pathlib.Path) -> dict[str, Any]:
    """Holds embeddings of a file beside their own graph."""
    pairs, images, texts, c = laws.read(s.embeddings, s.most_nodes, s.seeds[0])
    cosines = training.similarities(images[None], texts[None], 1.0)[0]
    tried = [s.temperature] if s.temperature else np.geomspace(0.01, 2, 25).tolist()
    fits = [measures.compare(pairs.w, cosines / each) for each in tried]
    best = tried[int(np.argmin([fit["per node"] for fit in fits]))]
    found = {"components": float(measures.components(pairs.w))}
    found |= beside(pairs, cosines / best, c, s.seeds[0])
    entropy = measures.compare(pairs.w, np.log(pairs.w + 1e-30))
    least = (
        f"entropy of the graph {entropy['per node']:.2f} and {entropy['per edge']:.2f}"
    )
    print(
        f"\n{len(images)} images, {len(texts)} captions, temperature {best:.3g}; {least}"
    )
    print(f"\n{measures.table({'learned': [found]})}")
    draw(
        directory / "graph.png", pairs, cosines / best, pathlib.Path(s.embeddings).name
    )
    save(directory, pairs, images, texts)
    return {"fit": found, "temperature": best, "entropy": entropy, "classes": c}


def save(directory: pathlib.Path, pairs: laws.Pairs, *z: np.ndarray) -> None:
    with _files.replacing(directory / "embeddings.npz") as path:
        names = {"label": pairs.classes, "label_text": pairs.of_caption, "w": pairs.w}
        np.savez(path, image=z[0], text=z[1], **names)


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
    results = (of_file if s.embeddings else of_law)(s, directory)
    results["gaussian"] = gaussian(directory, s.overwrite)
    record = {"settings": dataclasses.asdict(s), **results}
    _files.write_json(directory / "results.json", record)
    print(f"\nIn {directory}: results.json, embeddings.npz, pictures and reports")
    return results


if __name__ == "__main__":
    from jaxcl import _cli

    _cli.run(main, Settings, prog="python -m experiments.pair_graph")
