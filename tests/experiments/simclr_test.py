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
from jaxcl import losses, training

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


def test_a_run_that_was_stopped_and_resumed_ends_bit_equal(unbroken, tmp_path):
    _run(tmp_path, **FULL, max_steps=3)
    resumed = _run(tmp_path, **FULL, on_device=False)
    _assert_equal(resumed, unbroken[1])
    steps = [line["step"] for line in training.read_metrics(tmp_path)]
    assert steps == [1, 2, 3, 4]


def test_what_was_asked_for_is_watched(unbroken):
    lines = training.read_metrics(unbroken[0])
    every = {"loss", "gradient_norm", "embedding_norm", "linear", "steps_per_second"}
    assert every | {"step"} == set(lines[0])
    assert set(lines[-1]) - set(lines[0]) == {"knn", "uniformity"}
    assert 0.3 < lines[-1]["knn"] <= 1
    assert -4 < lines[-1]["uniformity"] < 0
    assert all(0 <= line["linear"] <= 1 for line in lines)


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


def _views(count=2):
    return jax.random.normal(jax.random.key(0), (8, count, 6))


# What each name of the flag stands for, at temperature 0.3.
NAMED = {
    "nt_xent": lambda z: losses.nt_xent(z, temperature=0.3),
    "dcl": lambda z: losses.dcl(z, temperature=0.3),
    "debiased_nt_xent": lambda z: losses.debiased_nt_xent(z, temperature=0.3),
    "dhel": lambda z: losses.dhel(z, temperature=0.3),
    "spectral_contrastive": losses.spectral_contrastive,
    "f_micl": losses.f_micl,
    "kernel_info_nce": lambda z: losses.kernel_info_nce(
        z, kernel=simclr.make_kernel(OF_NAMES)
    ),
    "kcl": lambda z: losses.kcl(z, kernel=simclr.make_kernel(OF_NAMES)),
    "info_nce": lambda z: losses.info_nce(z[:, 0], z[:, 1], temperature=0.3),
    "clip": lambda z: losses.clip(z[:, 0], z[:, 1], temperature=0.3),
    "siglip": lambda z: losses.siglip(z[:, 0], z[:, 1], temperature=0.3),
    "sc_info_nce": lambda z: losses.sc_info_nce(
        z[:, 0], z[:, 1], temperature=0.3, alpha=0.5, beta=-0.2, variant="official"
    ),
    "is_info_nce": lambda z: losses.is_info_nce(*z.swapaxes(0, 1), temperature=0.3),
    "sup_con": lambda z: losses.sup_con(
        z.reshape(-1, 6), np.arange(8).repeat(z.shape[1]) // 2, temperature=0.3
    ),
}
OF_NAMES = dataclasses.replace(
    TINY,
    temperature=0.3,
    alpha=0.5,
    beta=-0.2,
    variant="official",
    kernel="concatenation_sum",
    weight=0.3,
)


@pytest.mark.parametrize("name", NAMED)
def test_every_loss_of_the_flag_is_the_librarys_with_the_flags_numbers(name):
    z = _views(3 if name == "is_info_nce" else 2)
    labels = jax.numpy.arange(8) // 2
    loss = simclr.make_loss(dataclasses.replace(OF_NAMES, loss=name))
    np.testing.assert_allclose(loss(z, labels, axis_name=None), NAMED[name](z), 1e-5)


def test_the_losses_of_the_flag_are_all_here():
    field = {f.name: f for f in dataclasses.fields(simclr.Settings)}["loss"]
    assert set(field.type.__args__) == set(NAMED)


def test_a_kernel_of_the_flag_has_the_flags_numbers():
    x, y = _views()[:, 0], _views()[:, 1]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
    distance = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=-1)
    s = dataclasses.replace(
        TINY, temperature=0.3, second_temperature=0.7, power=0.5, weight=0.2
    )
    sums = 0.8 * np.exp(-(distance**2) / 0.3) + 0.2 * np.exp(-(distance**0.5) / 0.7)
    for name, expected in {
        "gaussian": -(distance**2) / 0.3,
        "laplacian": -distance / 0.3,
        "power_half": -(distance**0.5) / 0.3,
        "simple_sum": np.log(sums),
    }.items():
        kernel = simclr.make_kernel(dataclasses.replace(s, kernel=name))
        np.testing.assert_allclose(kernel(x, y), expected, rtol=1e-4)


def test_the_penalty_is_added_with_the_weight_of_the_theory():
    settings = dataclasses.replace(
        TINY, loss="nt_xent", temperature=0.2, penalty=1.5, penalty_alignment=0.4
    )
    z = jax.random.normal(jax.random.key(0), (8, 2, 8))
    loss = simclr.make_loss(settings)
    penalized = simclr.add_penalty(settings, loss)(z, None, axis_name=None)
    penalty = losses.norm_entropy_penalty(z.reshape(16, 8), scale=0.5)
    weight = 1.5 * 2 * (1 - 0.4) / (8 * 0.2)  # c 2 alpha (1 - eta) / d
    expected = loss(z, None, axis_name=None) + weight * penalty
    np.testing.assert_allclose(penalized, expected, rtol=1e-5)
    plain = dataclasses.replace(settings, penalty=0.0)
    assert simclr.add_penalty(plain, loss) is loss


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
