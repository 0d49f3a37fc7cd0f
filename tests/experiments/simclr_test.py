"""The pretraining and probing scripts, three steps at a time on real images."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from experiments import embed, linear_probe, simclr
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
)


def _run(directory, **changes):
    settings = dataclasses.replace(TINY, directory=str(directory), **changes)
    return jax.device_get(simclr.main(settings))


def test_a_run_that_was_stopped_and_resumed_ends_bit_equal(tmp_path):
    unbroken = _run(tmp_path / "unbroken")
    _run(tmp_path / "broken", max_steps=3)
    resumed = _run(tmp_path / "broken")
    for a, b in zip(jax.tree.leaves(unbroken), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [line["step"] for line in training.read_metrics(tmp_path / "broken")]
    assert sorted(set(steps)) == [1, 2, 3, 4]

    # Embeddings go into a file, of either layer, and never over another one.
    ask = embed.Settings(str(tmp_path / "broken"), str(tmp_path / "z.npz"), layer="z")
    ask = dataclasses.replace(ask, split="test[:30]")
    z = embed.main(ask)
    with np.load(tmp_path / "z.npz") as written:
        np.testing.assert_array_equal(written["embeddings"], z)
        assert written["labels"].shape == (30,)
    assert z.shape == (30, TINY.embedding)
    with pytest.raises(FileExistsError, match="out must be a new file"):
        embed.main(ask)

    # What the run left is what the probe reads, and it draws all its pictures.
    probe = linear_probe.Settings(
        str(tmp_path / "broken"), train_split="train[:300]", test_split="test[:100]"
    )
    before = jax.tree.map(np.array, resumed.params)
    scores = linear_probe.main(probe)
    assert set(scores) == {"raw pixels", "untrained encoder", "pretrained encoder"}
    assert scores["raw pixels"].knn > 0.8
    for name in ("curves.png", "embedding.png", "neighbors.png"):
        assert (tmp_path / "broken" / name).stat().st_size > 5_000
    written = json.loads((tmp_path / "broken" / "probe.json").read_text())
    assert written["accuracy"]["raw pixels"]["knn"] == scores["raw pixels"].knn
    for a, b in zip(
        jax.tree.leaves(before), jax.tree.leaves(resumed.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_run_with_other_settings_is_not_overwritten(tmp_path):
    training.save_settings(tmp_path, dataclasses.asdict(TINY))
    with pytest.raises(ValueError, match=r"temperature: 0\.\d+ -> 0\.7"):
        _run(tmp_path, temperature=0.7)


@pytest.mark.parametrize(
    "loss", ["kernel_info_nce", "dcl", "info_nce", "sc_info_nce", "sup_con"]
)
def test_every_loss_of_the_flags_is_a_finite_loss_of_embeddings(loss):
    settings = dataclasses.replace(TINY, loss=loss, kernel="concatenation_sum")
    z = jax.random.normal(jax.random.key(0), (8, 2, 6))
    values = simclr.make_loss(settings)(z, jax.numpy.arange(8) // 2, axis_name=None)
    assert np.isfinite(values).all()


def test_the_penalty_is_added_with_the_weight_of_the_theory():
    settings = dataclasses.replace(
        TINY, loss="nt_xent", temperature=0.2, penalty=1.5, penalty_alignment=0.4
    )
    z = jax.random.normal(jax.random.key(0), (8, 2, 8))
    labels = jax.numpy.zeros(8, int)
    loss = simclr.make_loss(settings)
    penalized = simclr.add_penalty(settings, loss)(z, labels, axis_name=None)
    penalty = losses.norm_entropy_penalty(z.reshape(16, 8), scale=0.5)
    weight = 1.5 * 2 * (1 - 0.4) / (8 * 0.2)  # c 2 alpha (1 - eta) / d
    expected = loss(z, labels, axis_name=None) + weight * penalty
    np.testing.assert_allclose(penalized, expected, rtol=1e-5)
    plain = dataclasses.replace(settings, penalty=0.0)
    assert simclr.add_penalty(plain, loss) is loss
    with pytest.raises(ValueError, match=r"penalty must be >= 0 .* got -1 and 0\.4"):
        simclr.add_penalty(dataclasses.replace(settings, penalty=-1.0), loss)


def test_pixels_are_standardized_for_views_and_for_probes_alike():
    settings = dataclasses.replace(TINY, pixels="cifar")
    gray = np.full((2, 8, 8, 3), 128, np.uint8)
    model = types.SimpleNamespace(apply=lambda variables, x, **_: x)
    h = simclr.make_encode(model, "cifar")({}, gray)
    mean, std = (np.array(x) for x in simclr.STATISTICS["cifar"])
    np.testing.assert_allclose(h[0, 0, 0], (128 / 255 - mean) / std, rtol=1e-5)
    # Moved and disturbed, but in the same units: the center is near what it was.
    view = simclr.make_transform(settings, (8, 8))(
        jax.random.key(0), np.float32(gray[0] / 255)
    )
    np.testing.assert_allclose(view[3:5, 3:5].mean((0, 1)), h[0, 0, 0], atol=0.3)


def test_a_batch_that_devices_do_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be divisible by the 8"):
        _run(tmp_path, batch_size=20)


def _cli(module, *flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        ("experiments.simclr", ["--loss", "triplet"], "triplet"),
        ("experiments.simclr", ["--source", "nowhere.npz"], "nowhere.npz"),
        ("experiments.linear_probe", ["/nowhere"], "/nowhere"),
    ],
)
def test_wrong_flags_end_with_a_message_and_no_traceback(
    module, flags, words, tmp_path
):
    if "simclr" in module:
        flags = [*flags, "--directory", str(tmp_path)]
    result = _cli(module, *flags)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_help_explains_every_flag():
    text = _cli("experiments.simclr", "--help").stdout
    for field in dataclasses.fields(simclr.Settings):
        assert f"--{field.name.replace('_', '-')}" in text.replace("_", "-")


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
