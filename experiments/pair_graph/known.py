"""Pairs whose law is known: what CLIP learns of their graph, what rewrites add."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.pair_graph import beside, laws, measures, training
from experiments.pair_graph.settings import Settings
from jaxcl.pictures import studies, style

Measured = dict[str, list[dict[str, float]]]


def run(s: Settings, directory: pathlib.Path) -> dict[str, Any]:
    """Trains on graphs that are known; tables, pictures, embeddings of one seed."""
    sizes = (s.num_classes, s.images, s.phrases, s.captions, s.noise)
    drawn = [laws.draw(*sizes, seed) for seed in s.seeds]
    return learn(s, drawn, directory) | cluster(s, drawn, directory)


def embed(
    s: Settings, pairs: Sequence[laws.Pairs], how: training.How
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of images and captions, a seed each, and their similarities."""
    temperature = 0.1 if s.temperature is None else s.temperature
    images, texts = training.embeddings(
        np.stack([each.w for each in pairs]),
        s.seeds,
        how=how,
        dimension=s.dimension,
        steps=s.steps,
        batch_size=s.batch_size,
        rate=s.learning_rate,
        temperature=temperature,
    )
    return images, texts, training.similarities(images, texts, temperature)


def learn(s: Settings, drawn: Any, directory: pathlib.Path) -> dict[str, Any]:
    """What is learned of images with different numbers of captions."""
    # So that edges and nodes are not the same mean.
    uneven = []
    for seed, (pairs, texts) in zip(s.seeds, drawn, strict=True):
        random = np.random.default_rng((seed, 1))
        counts = random.integers(1, s.captions + 1, len(texts))
        uneven.append(laws.first(pairs, texts, counts))
    fits: Measured = {}
    losses: Mapping[str, training.How] = {
        "CLIP, batches": "batches",
        "whole graph, per edge": "per edge",
        "whole graph, per node": "per node",
    }
    for name, how in losses.items():
        images, texts, logits = embed(s, uneven, how)
        weighted = how == "batches"
        fits[name] = [
            beside.both(pairs, each, s.num_classes, seed, weighted=weighted)
            for pairs, each, seed in zip(uneven, logits, s.seeds, strict=True)
        ]
        if weighted:
            title = "What CLIP learns of a pair graph, free embeddings"
            path = directory / "graph.png"
            beside.draw(path, uneven[0], logits[0], title, weighted=True)
            beside.save(directory, uneven[0], images[0], texts[0])
    entropy = [measures.entropy(pairs.w) for pairs in uneven]
    least = ", ".join(
        f"{key} {measures.cell([each[key] for each in entropy])}" for key in entropy[0]
    )
    print(f"\nLearned beside the pair graph, one to {s.captions} captions of an image")
    print(f"\n{measures.table(fits)}\n")
    print(f"Entropy of the graph, which none is below: {least}")
    return {"fits": fits, "entropy": entropy}


def cluster(s: Settings, drawn: Any, directory: pathlib.Path) -> dict[str, Any]:
    """LaCLIP: images with one text, its rewrites, or texts that they share."""
    rewrites = s.captions - 1
    one = [laws.first(pairs, texts, 1) for pairs, texts in drawn]
    copies = [laws.rewritten(pairs, rewrites) for pairs in one]
    graphs = {
        "one caption": one,
        f"{rewrites} rewrites of it": copies,
        f"{rewrites} captions more": [pairs for pairs, _ in drawn],
    }
    found: Measured = {}
    for name, given in graphs.items():
        _, _, logits = embed(s, given, "batches")
        found[name] = []
        for pairs, each, seed in zip(given, logits, s.seeds, strict=True):
            row = {"components": float(measures.components(pairs.w))}
            learned = measures.learned_weights(each)
            for label, weights in (("graph", pairs.w), ("learned", learned)):
                clusters = measures.clusters(weights, s.num_classes, seed)
                scores = measures.agreement(pairs.classes, clusters[: len(pairs.w)])
                row |= {f"{key} {label}": value for key, value in scores.items()}
            found[name].append(row)
    print("\nSpectral clusters of the images beside their classes")
    print(f"\n{measures.table(found)}\n")
    differences = {}
    first, *others = found
    for name in others:
        for key in ("ARI graph", "ARI learned"):
            both = zip(found[name], found[first], strict=True)
            values = [row[key] - base[key] for row, base in both]
            differences[f"{name}, {key}"] = values
            print(f"{name} less {first}, {key}: {measures.cell(values)}")

    # Rewrites of a text lead back to its own images, whatever their number.
    apart = max(
        float(abs(measures.walk(a.w) - measures.walk(b.w)).max())
        for a, b in zip(one, copies, strict=True)
    )
    alone = np.eye(len(one[0].w), dtype=np.float32)
    leaves = [measures.components(np.repeat(alone, k, axis=1)) for k in (1, s.captions)]
    print(
        f"\nTwo steps of the graph from an image, with rewrites and without, differ by "
        f"{apart:.1g} at most.\nOf {len(alone)} images with a text each, {leaves[0]} "
        f"components are {leaves[1]} with {rewrites} rewrites: a leaf connects nothing."
    )
    style.attempt(
        studies.dots,
        directory / "clusters.png",
        list(found),
        {
            label: [[row[f"ARI {key}"] for row in rows] for rows in found.values()]
            for key, label in (("graph", "the pair graph"), ("learned", "the learned"))
        },
        baseline=first,
        aside="",
        axis="clusters of {}, ARI x 100",
        title="Do more captions help spectral clustering to find the classes?",
    )
    return {
        "clusters": found,
        "differences": differences,
        "walk differs by": apart,
        "components of single pairs": leaves,
    }
