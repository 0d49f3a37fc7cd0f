"""What watches a run or draws its results fails in turn: the work is done all the same.

Each script runs whole, then once for each fault, and ends with the same numbers.
"""

import dataclasses
import errno
import json
import re
import types
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from matplotlib import figure as mpl_figure

from experiments import moco, simclr
from experiments.gaussianity import images
from experiments.kernel_infonce import compare
from experiments.sc_infonce import images as sc_images
from experiments.spectral_clustering import __main__ as spectral
from jaxcl import _cli, _files, evaluation, recipes, report
from jaxcl.tools import probe
from jaxcl.training import metrics

MONITORS = ("knn", "alignment", "uniformity", "effective_rank", "norm_cv")
SIMCLR = simclr.Settings(
    width=2,
    embedding=8,
    batch_size=16,
    warmup_epochs=0,
    log_every=1,
    evaluate_every=2,
    save_every=2,
    max_steps=4,
    split="train[:200]",
    monitors=MONITORS,
)
SPLITS = {"split": "train[:200]", "test_split": "test[:60]"}
FEW = recipes.Instead(split="train[:200]", width=2, batch_size=40, epochs=1)


def of_simclr(home):
    simclr.main(dataclasses.replace(SIMCLR, directory=str(home)))


def of_probe(home):
    of_simclr(home)
    s = probe.Settings(str(home), test_split="test[:60]")
    probe.main(s)


def of_moco(home):
    changes = {field: getattr(SIMCLR, field) for field in ("width", "embedding")}
    moco.main(
        moco.Settings(
            **SPLITS,
            **changes,
            directory=str(home),
            kernels=("gaussian",),
            batch_size=16,
            queue_size=32,
            warmup_epochs=0,
            max_steps=4,
            log_every=1,
            evaluate_every=2,
            save_every=2,
            monitors=MONITORS,
        )
    )


def of_kernels(home):
    compare.main(
        compare.Settings(
            directory=str(home), kernels=("Gaussian (SimCLR)",), instead=FEW
        )
    )


def of_sc(home):
    sc_images.main(
        sc_images.Settings(
            directory=str(home),
            alphas=(1.0,),
            betas=(0.0,),
            losses=("IS-InfoNCE",),
            instead=FEW,
        )
    )


def of_gaussianity(home):
    images.main(
        images.Settings(
            **SPLITS,
            directory=str(home),
            width=2,
            dimension=4,
            batch_size=48,
            epochs=2,
            measurements=2,
        )
    )


def of_spectral(home):
    spectral.main(
        spectral.Settings(directory=str(home), group_size=4, snapshots=(0, 20))
    )


def of_report(home):
    home.mkdir(exist_ok=True, parents=True)
    z = np.random.default_rng(0).normal(size=(200, 4))
    np.save(home / "z.npy", z)
    report.main(report.Settings(str(home / "z.npy"), out=str(home)))


SCRIPTS = {
    name.removeprefix("of_"): script
    for name, script in list(globals().items())
    if name.startswith("of_")
}


RESULTS = ("results.json", "probe.json", "report.html")


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def exits(state):
    raise SystemExit(3)


def out_of_memory(state):
    raise MemoryError("left to nobody")


ANSWERS = (
    full,
    exits,
    out_of_memory,
    lambda s: "text",
    lambda s: np.ones(2),
    lambda s: np.nan,
)


WATCH = evaluation.watch


def watch_badly(measures):
    broken = zip([*measures, "sixth"], ANSWERS, strict=True)
    return WATCH(dict(broken))


FAULTS = {
    "metrics": (metrics.MetricWriter, "write", full),
    "events": (metrics._Events, "write", full),
    "monitors": (evaluation, "watch", watch_badly),
    "pictures": (mpl_figure.Figure, "savefig", full),
}


def numbers(home):
    """What a script has found, without places and times."""
    found = {}
    for path in sorted(home.rglob("*.json")):
        if path.name not in ("settings.json", "encoder.json"):
            content = json.loads(path.read_text())
            for name in ("settings", "how", "file"):
                content.pop(name, None)
            found[str(path.relative_to(home))] = content
    return found


def arrays(home):
    """The newest checkpoint of each run."""
    found = []
    for folder in sorted(home.rglob("checkpoints")):
        step = max(int(path.name) for path in folder.iterdir())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that devices are those of the file
            read = ocp.PyTreeCheckpointer().restore(folder / f"{step}/state")
        found += jax.tree.leaves(read)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_faults_of_what_watches_cost_a_warning_and_no_number(
    name, tmp_path, monkeypatch, capsys
):
    whole = tmp_path / "0"
    SCRIPTS[name](whole)
    printed = capsys.readouterr().out
    expected, weights = numbers(whole), arrays(whole)
    # One after the other where it is quick; all together they could hide each other.
    parts = [[f] for f in FAULTS] if name in ("simclr", "report") else [[*FAULTS]]
    for i, faults in enumerate(parts, start=1):
        home = tmp_path / str(i)
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as w:
            warnings.simplefilter("always")
            for fault in faults:
                patch.setattr(*FAULTS[fault])
            SCRIPTS[name](home)
        said = [str(each.message) for each in w]
        assert all("No space left" in s or "left out" in s for s in said), said
        assert said or name in (
            "simclr",
            "report",
        )  # which have no pictures, no metrics
        assert numbers(home) == expected, faults
        for a, b in zip(arrays(home), weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert capsys.readouterr().out.replace(str(home), str(whole)) == printed
    if not expected:
        return
    # Results that find no room: one line with the path, and the same command goes on.
    for file in RESULTS:
        (whole / file).unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        # Of files of results alone: TensorBoard's are written so as well.
        full_disk = types.SimpleNamespace(**{**vars(_files.os), "fsync": full})
        patch.setattr(_files, "os", full_disk)
        with pytest.raises(SystemExit) as ended, _cli.one_line_errors():
            SCRIPTS[name](whole)
    line = f"OSError: {whole}/.*: could not be written .*No space left on device"
    assert re.fullmatch(line + ".", ended.value.code)
    SCRIPTS[name](whole)
    assert numbers(whole) == expected
    for a, b in zip(arrays(whole), weights, strict=True):
        np.testing.assert_array_equal(a, b)
