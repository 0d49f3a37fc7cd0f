"""Whether anyone's embeddings are Gaussian: a verdict in words, numbers and pictures.

jaxcl report z.npy
jaxcl report z.npz --key features --labels labels

One pass over the whole file gives norms, mean, covariance and moments in bounded
memory; the tests of normality then see a random sample of its rows.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
import time
from typing import Annotated

import numpy as np
import tyro

from jaxcl import _files, _rules, _text
from jaxcl.report import (
    comparisons,
    moments,
    page,
    pictures,
    reading,
    results,
    rounding,
    tests,
    verdict,
)
from jaxcl.report import found as found_lib
from jaxcl.report import sample as sampling


@dataclasses.dataclass(frozen=True)
class Settings:
    """Tests whether the embeddings [n, d] in a file are Gaussian, and writes a page."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
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
    max_samples: Annotated[int, _rules.whole(20)] = 5000
    """Rows, drawn at random, that tests and cosines see; at least 20."""
    directions: _rules.Count = 256
    """Random orthonormal directions that are tested like coordinates; at most d."""
    k: _rules.Count = 5
    """Neighbor whose cosine distance is the other score of out-of-distribution."""
    seed: _rules.Seed = 0
    """Of all that is random."""
    json: bool = False
    """Print one JSON object instead of the verdict."""
    out: str = ""
    """Directory of report.html and results.json; runs/report/NAME if empty."""
    overwrite: bool = False
    """Replace a report that is there already."""


def main(s: Settings) -> results.Results:
    """Writes `report.html` and `results.json` into a directory, and prints a summary.

    Args:
      s: the settings.

    Returns:
      What the report says.

    Raises:
      FileExistsError: if there is a report already and `overwrite` is not given.
      FileNotFoundError: if a file is not there.
      TypeError: if embeddings are not floating, or labels are.
      ValueError: if a file cannot be read, or settings do not fit it.
    """
    started = time.monotonic()
    directory = _check(s)
    files = reading.files(
        s.file,
        key=s.key,
        raw=s.raw,
        pairs=s.pairs,
        ood=s.ood,
        labels=s.labels,
        normalize=s.normalize,
    )
    m = moments.of_rows(files.array, normalize=s.normalize, unit=files.unit)
    table = moments.look_over(m, files.name, normalize=s.normalize)
    random = np.random.default_rng(s.seed)
    sample = sampling.of_file(
        files, m, table, random, max_samples=s.max_samples, normalize=s.normalize
    )
    test = functools.partial(
        tests.of_sample,
        step=rounding.steps(sample.z, files.array.dtype, files.unit),
        normalized=table.normalized,
        directions=s.directions,
        seed=s.seed,
    )
    different, most = sample.tested[sample.different], len(sample.tested)
    found = found_lib.Found(
        files=files,
        moments=m,
        table=table,
        sample=sample,
        eigenvalues=moments.eigenvalues(m, sample.kept),
        tests=test(sample.tested),
        different=test(different) if 20 <= len(different) < 0.99 * most else None,
        pairs=comparisons.compare_pairs(files, sample, normalize=s.normalize),
        apart=comparisons.tell_apart(
            files,
            m,
            sample.kept,
            random,
            max_samples=s.max_samples,
            k=s.k,
            normalize=s.normalize,
        ),
    )
    numbers = found_lib.numbers(found)
    checks = verdict.judge(numbers)
    said = results.Results(
        numbers,
        checks,
        verdict.sum_up(checks, numbers),
        _how(s, time.monotonic() - started),
    )
    text = json.dumps(said.as_json(), indent=2, allow_nan=False) + "\n"
    html = page.html(said, pictures.of(found))
    _files.write_text(directory / "report.html", html)
    _files.write_text(directory / "results.json", text)
    if s.json:
        sys.stdout.write(text)
    else:
        print(page.plain_text(said))
        print(_text.printable(f"In {directory}: report.html, results.json"))
    return said


def _check(s: Settings) -> pathlib.Path:
    """The directory to write, if the settings make sense."""
    _rules.check(s)
    if s.labels and s.pairs:
        raise ValueError("labels and pairs both say what a positive is: give one")
    directory = pathlib.Path(s.out or f"runs/report/{pathlib.Path(s.file).stem}")
    _files.check_writable("out", directory)
    written = [directory / name for name in ("report.html", "results.json")]
    if not s.overwrite and any(path.exists() for path in written):
        raise FileExistsError(
            f"out must be a new directory, and {directory} holds a report; "
            "--overwrite replaces it"
        )
    return directory


def _how(s: Settings, seconds: float) -> results.How:
    packages = ("jaxcl", "jax", "numpy", "scipy")
    return results.How(
        command=command(s),
        settings=dataclasses.asdict(s),
        versions={"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
    )


def command(s: Settings) -> str:
    """The command line of these settings."""
    line = ["jaxcl", "report", s.file]
    for field in dataclasses.fields(s)[1:]:
        value = getattr(s, field.name)
        if value != field.default:
            line.append(f"--{field.name}" + ("" if value is True else f"={value}"))
    return shlex.join(line)
