"""Whether anyone's embeddings are Gaussian: a verdict in words, numbers and pictures.

python -m experiments.gaussianity embeddings z.npy
python -m experiments.gaussianity embeddings z.npz --key features --labels labels

One pass over the whole file gives norms, mean, covariance and moments in bounded
memory; the tests of normality then see a random sample of its rows.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
import time
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro

from experiments.gaussianity import (
    reading,
    report,
    samples,
    streaming,
    verdict,
)
from jaxcl import _files, diagnostics


@dataclasses.dataclass(frozen=True)
class Settings:
    """Tests whether the embeddings [n, d] in a file are Gaussian, and writes a page."""

    file: Annotated[str, tyro.conf.Positional]
    """Embeddings [n, d]: .npy, or .npz with key; float16, 32, 64 or bfloat16."""
    key: str = ""
    """Array of a .npz file; the first floating [n, d] if empty."""
    raw: str = ""
    """"dtype,width" of files that are rows of bare numbers, such as float32,768."""
    labels: str = ""
    """A key or a file of one label per row; equal labels make positive pairs."""
    pairs: str = ""
    """Other embeddings [n, d], a key or a file: row i is the positive of row i."""
    ood: str = ""
    """Other embeddings [m, d], a key or a file: how well are they told from these?"""
    normalize: bool = False
    """Divide every row by its norm before everything but the norms' own statistics."""
    max_samples: int = 5000
    """Rows, drawn at random, that tests and cosines see; at least 20."""
    directions: int = 256
    """Random orthonormal directions that are tested like coordinates; at most d."""
    k: int = 5
    """Neighbor whose cosine distance is the other score of out-of-distribution."""
    seed: int = 0
    """Of all that is random."""
    json: bool = False
    """Print one JSON object instead of the verdict."""
    out: str = ""
    """Directory of report.html and results.json; runs/gaussianity/NAME if empty."""
    overwrite: bool = False
    """Replace a report that is there already."""


def main(s: Settings) -> dict[str, Any]:
    started = time.monotonic()
    directory = _check(s)
    files = reading.files(
        s.file, key=s.key, raw=s.raw, pairs=s.pairs, ood=s.ood, labels=s.labels
    )
    m = streaming.moments(files.array, normalize=s.normalize)
    table = streaming.look_over(m, files.name, normalize=s.normalize)
    random = np.random.default_rng(s.seed)
    sample = draw_sample(files, m, table, s, random)
    found = Found(
        files=files,
        moments=m,
        table=table,
        sample=sample,
        eigenvalues=streaming.eigenvalues(m, sample.kept),
        tests=run_tests(sample, table.normalized, s),
        pairs=compare_pairs(files, sample, s),
        apart=tell_apart(files, m, sample.kept, s, random),
    )
    results = collect(found)
    results["checks"] = verdict.judge(results)
    results["verdict"] = verdict.verdict(results["checks"])
    results["how"] = _how(s, time.monotonic() - started)
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    page = report.page(results, pictures(found))
    directory.mkdir(parents=True, exist_ok=True)
    reading.write(directory / "report.html", page)
    reading.write(directory / "results.json", text)
    if s.json:
        sys.stdout.write(text)
    else:
        print(report.plain_text(results))
        print(f"In {directory}: report.html, results.json")
    return results


def _check(s: Settings) -> pathlib.Path:
    """The directory to write, if the settings make sense."""
    if s.max_samples < 20:
        raise ValueError(f"max_samples must be at least 20, got {s.max_samples}")
    if min(s.directions, s.k) < 1:
        raise ValueError(
            f"directions and k must be at least 1, got {s.directions} and {s.k}"
        )
    if s.labels and s.pairs:
        raise ValueError("labels and pairs both say what a positive is: give one")
    directory = pathlib.Path(s.out or f"runs/gaussianity/{pathlib.Path(s.file).stem}")
    _files.check_directory("out", directory)
    written = [directory / name for name in ("report.html", "results.json")]
    if not s.overwrite and any(path.exists() for path in written):
        raise FileExistsError(
            f"out must be a new directory, and {directory} holds a report; "
            "--overwrite replaces it"
        )
    return directory


class Sample(NamedTuple):
    """Random rows of the file.

    Attributes:
      rows: their places in the file [m].
      z: the rows, for cosines [m, d].
      tested: those of them that tests of normality see, in random order [., d].
      kept: columns that vary among the rows tested, bool [width] of sum d.
      notes: what is left out, as sentences.
    """

    rows: np.ndarray
    z: np.ndarray
    tested: np.ndarray
    kept: np.ndarray
    notes: list[str]


def draw_sample(
    files: reading.Files,
    m: streaming.Moments,
    table: streaming.Table,
    s: Settings,
    random: np.random.Generator,
) -> Sample:
    rows = samples.draw(random, np.flatnonzero(m.usable), s.max_samples)
    z, _ = samples.clean(files.array, rows, table.kept, normalize=s.normalize)
    order = random.permutation(len(z))
    # Normalized rows are never exactly Gaussian, and enough of them tell: at
    # 2/3 (d + 2)^2 rows one in seven perfectly uniform spheres fails the rule, at half
    # as many one in thirty.
    limit = max(20, (z.shape[1] + 2) ** 2 // 3) if table.normalized else len(z)
    tested = z[order[:limit]]
    kept, notes = table.kept.copy(), []
    varies = np.ptp(tested, axis=0) > 0
    if not varies.all():
        columns = np.flatnonzero(kept)[~varies]
        kept[columns] = False
        z, tested = z[:, varies], tested[:, varies]
        notes.append(
            (
                "1 column varies so rarely that it is constant among the rows tested, "
                "and is left out too: "
                if len(columns) == 1
                else f"{len(columns)} columns vary so rarely that they are constant "
                "among the rows tested, and are left out too: "
            )
            + f"{streaming.first(columns, 'column')}."
        )
        if kept.sum() < 2:
            raise ValueError(
                "file must hold at least 2 columns that vary among the rows tested, "
                f"got {kept.sum()} of {len(kept)}; more max_samples may help"
            )
    if limit < len(z):
        notes.append(
            f"Coordinates of normalized rows are tested on {limit} rows, about "
            "(d + 2)^2 / 3: from twice as many on even a perfectly uniform sphere is "
            "told from a Gaussian."
        )
    return Sample(rows, z, tested, kept, notes)


class Outcome(NamedTuple):
    """Tests of coordinates, of random directions, and of several directions at once.

    The last as `samples.joint` gives them.
    """

    coordinates: samples.Normality
    directions: samples.Normality
    joint: dict[str, Any]


def run_tests(sample: Sample, normalized: bool, s: Settings) -> Outcome:
    d = sample.tested.shape[1]
    centered = sample.tested - sample.tested.mean(axis=0)
    keys = jax.random.split(jax.random.key(s.seed))
    basis = diagnostics.random_projections(keys[0], d, min(d, s.directions))
    return Outcome(
        samples.normality(sample.tested),
        samples.normality(centered @ np.asarray(basis, np.float64)),
        samples.joint(centered, normalized, keys[1]),
    )


class Pairs(NamedTuple):
    """Cosines of negative pairs and, where labels or pairs say so, of positive ones."""

    negative: samples.Cosines
    positive: samples.Cosines | None
    notes: list[str]


def compare_pairs(files: reading.Files, sample: Sample, s: Settings) -> Pairs:
    labels = None if files.labels is None else files.labels[sample.rows]
    negative, positive = samples.cosines(sample.z, labels)
    notes = []
    if files.pairs is not None:
        partner, usable = samples.clean(
            files.pairs, sample.rows, sample.kept, normalize=s.normalize
        )
        positive = samples.paired_cosines(sample.z[usable], partner)
        notes += _left_out("pairs", usable)
    if labels is not None and positive is None:
        notes.append("No two of the sampled rows have one label: no positive pairs.")
    return Pairs(negative, positive, notes)


class Apart(NamedTuple):
    """Separation of out-of-distribution embeddings, where there are any."""

    separation: samples.Separation | None
    notes: list[str]


def tell_apart(
    files: reading.Files,
    m: streaming.Moments,
    kept: np.ndarray,
    s: Settings,
    random: np.random.Generator,
) -> Apart:
    """How well other embeddings are told from rows of the file."""
    if files.ood is None:
        return Apart(None, [])
    count = max(2 * s.max_samples, 20 * int(kept.sum()))
    more = random.permutation(samples.draw(random, np.flatnonzero(m.usable), count))
    half = len(more) // 2
    fitted, held_out = (
        samples.clean(files.array, np.sort(rows), kept, normalize=s.normalize)[0]
        for rows in (more[:half], more[half:][: s.max_samples])
    )
    chosen = samples.draw(random, np.arange(len(files.ood)), s.max_samples)
    outside, usable = samples.clean(files.ood, chosen, kept, normalize=s.normalize)
    if not usable.any():
        raise ValueError(f"ood must hold finite rows, got none in {s.ood}")
    separation = samples.separation(fitted, held_out, outside, s.k)
    return Apart(separation, _left_out("ood", usable))


def _left_out(argument: str, usable: np.ndarray) -> list[str]:
    if usable.all():
        return []
    bad = np.flatnonzero(~usable)
    are = streaming.verb(bad, "is", "are")
    return [
        f"{len(bad)} of {len(usable)} sampled rows of {argument} {are} not finite, or "
        f"zero, and {are} left out."
    ]


class Found(NamedTuple):
    """All that the results and the pictures tell."""

    files: reading.Files
    moments: streaming.Moments
    table: streaming.Table
    sample: Sample
    eigenvalues: np.ndarray  # of the covariance of all rows, the largest first [d]
    tests: Outcome
    pairs: Pairs
    apart: Apart


def collect(found: Found) -> dict[str, Any]:
    """Results as they are in the JSON file, without verdict."""
    files, m, table, sample, eigenvalues, tests, pairs, apart = found
    n, width, d, used = *files.array.shape, len(eigenvalues), len(m.norms)
    bad = np.flatnonzero(m.not_finite)
    scaled = jax.numpy.asarray(sample.z / np.abs(sample.z).max(), "f4")
    columns = streaming.column_summaries(m, sample.kept)
    tested = zip(columns, tests.coordinates.ad, tests.coordinates.dp, strict=True)
    return {
        "file": files.name,
        "shape": [n, width],
        "dtype": str(files.array.dtype),
        "normalized": table.normalized,
        "rows": {
            "in_file": n,
            "not_finite": len(bad),
            "first_not_finite": bad[:5].tolist(),
            "without_direction": n - used - len(bad),
            "used": used,
            "sampled": len(sample.z),
        },
        "columns": {
            "in_file": width,
            "left_out": width - d,
            "first_left_out": np.flatnonzero(~sample.kept)[:5].tolist(),
            "tested": d,
        },
        "norms": streaming.norms_summary(m, table, d),
        "mean": streaming.mean_summary(m),
        "covariance": streaming.covariance_summary(m, eigenvalues)
        | {"effective_rank_of_sample": float(diagnostics.effective_rank(scaled))},
        "coordinates": tests.coordinates.summary(),
        "directions": tests.directions.summary(),
        "joint": tests.joint,
        "cosines": {
            "reference_std": float(1 / np.sqrt(d)),
            "negatives_are_all_pairs": files.labels is None,
            "negative": pairs.negative.summary(),
            "positive": pairs.positive.summary() if pairs.positive else None,
        },
        "ood": apart.separation.summary() if apart.separation else None,
        "notes": [
            note
            for step in (files, table, sample, pairs, apart)
            for note in step.notes  # in the order of the steps
        ],
        "per_coordinate": [
            column | {"ad": float(ad), "dp_p": float(p)} for column, ad, p in tested
        ],
    }


def pictures(found: Found) -> list[report.Picture]:
    tests, pairs = found.tests.coordinates, found.pairs
    return report.pictures(
        norms=None if found.table.one_norm else found.moments.norms,
        z=found.sample.tested,
        ad=tests.ad,
        dp=tests.dp,
        columns=np.flatnonzero(found.sample.kept),
        negative=pairs.negative.counts,
        positive=pairs.positive.counts if pairs.positive else None,
        all_pairs=found.files.labels is None,
        eigenvalues=found.eigenvalues,
        num_rows=len(found.moments.norms),
        separation=found.apart.separation,
    )


def _how(s: Settings, seconds: float) -> dict[str, Any]:
    packages = ("jaxcl", "jax", "numpy", "scipy")
    return {
        "command": command(s),
        "settings": dataclasses.asdict(s),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def command(s: Settings) -> str:
    """The command line of these settings."""
    words = ["python", "-m", "experiments.gaussianity", "embeddings", s.file]
    for field in dataclasses.fields(s)[1:]:
        value = getattr(s, field.name)
        if value != field.default:
            words += [f"--{field.name}"] + ([] if value is True else [str(value)])
    return shlex.join(words)
