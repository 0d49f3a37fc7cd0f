"""CLIP on images and captions, a few steps at a time, and mistakes in its flags."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

import jaxcl
from experiments.clip import __main__ as script
from experiments.clip import measuring, pretraining, settings
from jaxcl import data, evaluation, recipes, training

TINY = settings.Settings(
    split="train[:96]",
    test_split="test[:40]",
    width=2,
    units=8,
    depth=1,
    heads=2,
    vocabulary=280,
    longest=12,
    embedding=4,
    batch_size=16,
    epochs=2,
    warmup_epochs=0,
    learning_rate=0.05,
    log_every=1,
    max_steps=4,
    losses=("siglip", "sc_info_nce"),
    seeds=(0,),
    minimum=0.05,
    bias=-3.0,
    progress=False,
    templates=("the digit {}", "a handwritten {}"),
)


def changed(directory, **changes):
    return dataclasses.replace(TINY, directory=str(directory), **changes)


# What users get wrong. ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"classes": ("3", "cat")},
            "classes must be some of '0', .*, got 'cat'",
        ),
        ({"templates": ("a drawing",)}, r"every one of templates must hold \{\} once"),
        ({"losses": ("clip",)}, "bias must be left at -10.0, since only loss 'siglip'"),
        ({"test": "nowhere.npz"}, "nowhere"),
        ({"losses": ("uni_cl",), "also": ("unshared",), "bias": -10.0}, "shared must"),
        ({"shared": True, "losses": ("siglip", "clip")}, None),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    changes, words, tmp_path
):
    s = changed(tmp_path / "run", **changes)
    if words is None:
        assert settings.trainings(s)[1]["clip"] == {
            "loss": "clip",
            "shared": True,
            "minimum": 0.05,
        }
        return
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        script.main(s)
    assert not (tmp_path / "run").exists()


def test_a_loss_is_given_what_it_reads():
    base, variants = settings.trainings(TINY)
    assert (base.bias, base.temperature) == (-10.0, None)  # as by default
    read = {"bias": -3.0, "shared": None, "minimum": 0.05}
    assert variants["siglip"] == {"loss": "siglip", **read}
    assert "minimum" not in variants["sc_info_nce"]  # its temperature is fixed
    assert variants["sc_info_nce"]["variant"] == "constant"
    more = dataclasses.replace(TINY, also=("first", "unshared"))
    rows = settings.trainings(more)[1]
    assert rows["siglip, first caption"]["captions"] == "first"
    assert rows["siglip, groups as negatives"]["shared"] is False
    assert settings.held_out(TINY) == ("digits", "test[:40]")
    other = dataclasses.replace(TINY, test="a.npz", test_split=None)
    assert settings.held_out(other) == ("a.npz", "train")


def test_held_out_images_are_as_those_that_are_learned_from(tmp_path):
    images = np.zeros((20, 9, 9, 1), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, captions=np.array(["a"] * 20))
    with pytest.raises(ValueError, match=r"test must hold images \[8, 8, 1\] as the"):
        measuring.hold(changed("run", test=str(tmp_path / "x.npz"), test_split=None))
    np.savez(tmp_path / "x.npz", images=images[:, :8, :8], captions=["a"] * 20)
    bare = changed("run", test=str(tmp_path / "x.npz"), test_split=None)
    held = measuring.hold(bare)
    assert held.labels is None
    assert set(held.keys) == set(measuring.RECALLS)
    assert measuring.by_chance(held)["to_text_1"] == 1.0  # all have one caption
    with pytest.raises(ValueError, match=r"classes must be None: .* has no classes"):
        measuring.hold(dataclasses.replace(bare, classes=("3",)))


def test_scores_are_those_of_the_embeddings(monkeypatch):
    one_penalty = functools.partial(evaluation.logistic_probe, weight_decay=0.01)
    monkeypatch.setattr(evaluation, "logistic_probe", one_penalty)
    held = measuring.hold(changed("run", classes=("3", "5")))
    group = np.asarray(held.test.columns["group"])
    pairs = recipes.pairs.Embedded(
        np.eye(10)[held.labels],
        np.repeat(np.eye(10)[held.labels], 5, axis=0),
        np.repeat(np.arange(40), 5),
        group,
        held.labels,
    )
    labels = held.train.columns["label"]
    h = np.eye(10)[labels], labels, np.eye(10)[held.labels]
    seen = measuring.Seen(pairs, measuring.OfLabels(np.eye(10)[[5, 3]], *h))
    found = measuring.score(held, seen).scores
    assert {found[key] for key in measuring.RECALLS} == {1.0}
    assert found["linear"] == 1.0
    assert found["zero_shot"] == 0.0  # the prompts are of the other class each
    chance = measuring.by_chance(held)
    assert chance["zero_shot"] == 0.5
    assert 0.05 < chance["to_image_1"] < 0.2


# Runs. --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_measures_draws_and_does_nothing_twice(
    tmp_path, capsys, monkeypatch
):
    s = changed(tmp_path)
    script.main(s)
    table = capsys.readouterr().out
    for name in ("chance", "untrained encoder", "siglip", "sc_info_nce"):
        assert f"| {name}" in table
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert all(0 <= v <= 1 for row in rows for [v] in row["scores"].values())
    home = tmp_path / "siglip" / "seed_0"
    lines = training.read_metrics(home)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["temperature"] == pytest.approx(0.1)
    assert len({line["temperature"] for line in lines}) == 4
    assert lines[0]["bias"] == -3.0 != lines[-1]["bias"]
    other = training.read_metrics(tmp_path / "sc_info_nce" / "seed_0")
    assert {line["temperature"] for line in other} == {other[0]["temperature"]}
    assert "bias" not in other[0]
    with np.load(home / "embeddings.npz") as kept:
        shapes = {name: kept[name].shape for name in kept}
    assert shapes == {
        "image": (40, 4),
        "text": (200, 4),
        "example": (200,),
        "group": (40,),
        "label": (40,),
    }
    for tower in ("image", "text"):
        assert recipes.open_encoder(home / tower).described.embedding == 4
    pictures = {path.name for path in tmp_path.rglob("*.png")}
    assert {"retrieval.png", "temperature.png"} <= pictures
    monkeypatch.setattr(pretraining, "pretrain", None)
    script.main(s)
    assert capsys.readouterr().out.split("Held out")[1] == table.split("Held out")[1]


def run(directory, devices=2, **changes):
    """The state after a training on so many of the devices."""
    base, variants = settings.trainings(changed(directory))
    s = dataclasses.replace(base, **variants["siglip"], **changes)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=auto, devices=jax.devices()[:devices]
    )
    rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (["data"], []))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxcl, "data_parallel", lambda: (mesh, rows, whole))
        return jax.device_get(pretraining.pretrain(s))


@pytest.mark.slow
def test_a_run_that_was_stopped_or_has_other_devices_is_the_same(tmp_path):
    full = {"average": 0.9, "frozen": ("text",), "save_every": 2, "chunks": 2}
    whole = run(tmp_path / "a", **full)
    run(tmp_path / "b", **full, max_steps=3)
    again = run(tmp_path / "b", **full)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert data.text.read_vocabulary(tmp_path / "b" / "text").size == 280
    # Adam would divide rounding errors by the size of a gradient.
    plain = {"optimizer": "sgd", "average": 0.9, "frozen": ("text",)}
    one, two = (run(tmp_path / str(n), n, **plain) for n in (1, 2))
    for name in ("params", "average", "model_state"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
            getattr(one, name),
            getattr(two, name),
        )
