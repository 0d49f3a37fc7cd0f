"""The pretraining script, a few steps at a time on real images."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import simclr
from jaxcl import training

ROOT = pathlib.Path(__file__).parents[2]

TINY = simclr.Settings(
    width=4,
    embedding=8,
    batch_size=16,
    epochs=1,
    warmup_epochs=0,
    log_every=1,
    evaluate_every=100,
    save_every=2,
    max_steps=4,
    split="train[:200]",
    progress=False,
)


def _run(directory, **changes):
    settings = dataclasses.replace(TINY, directory=str(directory), **changes)
    return jax.device_get(simclr.main(settings))


def _assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# A run with all that a state can hold.
FULL = {"average": 0.9, "monitors": ("knn", "linear", "uniformity"), "chunks": 2}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simclr") / "unbroken"
    return directory, _run(directory, **FULL)


@pytest.mark.slow
def test_a_run_that_was_stopped_and_resumed_ends_bit_equal(unbroken, tmp_path):
    _run(tmp_path, **FULL, max_steps=3)
    resumed = _run(tmp_path, **FULL, on_device=False)
    _assert_equal(resumed, unbroken[1])
    steps = [line["step"] for line in training.read_metrics(tmp_path)]
    assert steps == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_was_asked_for_is_watched(unbroken):
    lines = training.read_metrics(unbroken[0])
    every = {"loss", "gradient_norm", "embedding_norm", "linear", "steps_per_second"}
    assert every | {"step"} == set(lines[0])
    assert set(lines[-1]) - set(lines[0]) == {"knn", "uniformity"}
    assert 0.3 < lines[-1]["knn"] <= 1
    assert -4 < lines[-1]["uniformity"] < 0
    assert all(0 <= line["linear"] <= 1 for line in lines)


@pytest.mark.slow
def test_the_online_probe_does_not_touch_the_encoder(tmp_path):
    with_probe = _run(tmp_path / "a", monitors=("linear",), max_steps=2)
    without = _run(tmp_path / "b", monitors=(), max_steps=2)
    _assert_equal(with_probe.params["model"], without.params["model"])
    _assert_equal(with_probe.model_state, without.model_state)
    assert np.abs(with_probe.params["probe"]["kernel"]).max() > 1e-4
    losses = [
        [line["loss"] for line in training.read_metrics(tmp_path / name)]
        for name in ("a", "b")
    ]
    assert losses[0] == losses[1]


def test_a_run_with_other_settings_is_not_overwritten(tmp_path):
    training.save_settings(tmp_path, dataclasses.asdict(TINY))
    with pytest.raises(ValueError, match=r"temperature: 0\.\d+ -> 0\.7"):
        _run(tmp_path, temperature=0.7)


def test_what_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be divisible by the 8"):
        _run(tmp_path, batch_size=20)
    with pytest.raises(ValueError, match="num_views must be at least 3, got 2"):
        _run(tmp_path, loss="is_info_nce")
    np.save(tmp_path / "x.npy", np.zeros((20, 8, 8), np.uint8))
    bare = {"source": str(tmp_path / "x.npy"), "split": "train"}
    with pytest.raises(ValueError, match=r"'sup_con' needs labels, and .*x\.npy' has"):
        _run(tmp_path / "run", loss="sup_con", **bare)
    with pytest.raises(ValueError, match="monitors must not name 'linear'"):
        _run(tmp_path / "run", monitors=("linear",), **bare)
    assert not (tmp_path / "run").exists()


def _cli(module, *flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_program_explains_its_flags_and_ends_in_one_line():
    text = _cli("experiments.simclr", "--help").stdout
    for field in dataclasses.fields(simclr.Settings):
        assert f"--{field.name}" in text
    result = _cli("experiments.simclr", "--source", "nowhere.npz")
    assert result.returncode == 1
    assert "nowhere.npz" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_default_run_learns_digits(tmp_path):
    # In processes of their own, as a user runs them: on one device, not on the tests'
    # eight, which share two cores and would wait for each other thousands of times.
    directory = str(tmp_path / "run")
    for module, flags in (
        ("experiments.simclr", ["--directory", directory]),
        ("experiments.linear_probe", [directory]),
    ):
        result = _cli(module, *flags, XLA_FLAGS="")
        assert result.returncode == 0, result.stderr[-2000:]
    accuracy = json.loads((tmp_path / "run" / "probe.json").read_text())["accuracy"]
    pretrained, untrained = (
        accuracy[f"{name} encoder"] for name in ("pretrained", "untrained")
    )
    assert pretrained["few_labels"] > 0.96
    assert pretrained["few_labels"] > untrained["few_labels"] + 0.05
    assert pretrained["all_labels"] > 0.98
