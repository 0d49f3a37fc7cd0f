"""Probes as papers do them: what they need, what they say, what they find."""

import dataclasses
import json
import re
import types

import jax
import numpy as np
import pytest

from experiments import simclr
from jaxcl import __main__ as command
from jaxcl import _cli, data, evaluation, recipes
from jaxcl.evaluation import Protocol
from jaxcl.tools import measures, probe, tuning

NAME = "cifar10-resnet18-100ep"


def of_recipe(**changes):
    s = recipes.with_recipe(simclr.Settings(), NAME)
    return dataclasses.asdict(dataclasses.replace(s, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": ("linear_1_percent",)}, "'linear_1_percent' needs two .* 0"),
        ({"protocol": ("fine_tune_10_percent",)}, "of the 12 of 'bee' .* it has 1"),
        ({"k": (5, 33)}, "k must be at most 32, got 33"),
        ({"per_class": 13}, "per_class must be at most"),
        (
            {"protocol": ("linear",), "validation": 0.99},
            "validation must leave a row of every class",
        ),
    ],
)
def test_labels_that_are_too_few_are_refused_before_anything_is_encoded(changes, words):
    labels = np.repeat([0, 1], [20, 12])
    s = dataclasses.replace(probe.Settings(), **changes)
    with pytest.raises(ValueError, match=words):
        measures.check(s, labels, ("ant", "bee"))


def test_settings_that_no_protocol_reads_are_refused(monkeypatch):
    part = recipes.Labelled(None, np.arange(40) % 2, ("ant", "bee"))
    monkeypatch.setattr(recipes, "labelled", lambda *a: part)
    monkeypatch.setattr(probe, "_warn_of_shared", lambda *a: None)
    for changes, words in (
        ({"protocol": ("knn",), "draws": 2}, "draws must be left at 5, since only a"),
        ({"tuning_epochs": 2}, "tuning_epochs must be left .* 'fine_tune' protocol"),
        ({"validation": 0.2}, "only a 'linear' protocol or a 'fine_tune' protocol"),
        ({"protocol": ("logistic",), "linear": False}, "protocol must name more than"),
    ):
        s = dataclasses.replace(probe.Settings(), **changes)
        with pytest.raises(ValueError, match=words):
            probe.probe_images(s, types.SimpleNamespace(settings={}), "digits")


def test_images_without_labels_are_not_learned_from(monkeypatch):
    columns = {"image": np.zeros((3, 2, 2, 1), np.uint8), "label": np.array([-1, 0, 0])}
    unlabelled = data.Dataset("stl10", columns, ("ant", "bee"))
    monkeypatch.setattr(data, "open", lambda *a: unlabelled)
    with pytest.raises(ValueError, match=r"train_split must .*none for 1 of 3 images"):
        recipes.labelled("stl10", "train_split", "unlabelled")


def test_a_published_figure_stands_beside_its_own_protocol_alone():
    theirs = recipes.recipe(NAME).published[0].protocol
    same = measures.Measured("10-NN", 0.832, theirs)
    lines = measures.published_lines(of_recipe(), [same])
    assert lines[0].startswith("published: 83.2 % (github.com/dkobak")
    assert "k = 10, equal votes" in lines[0]
    assert lines[1] == "  the same protocol as 83.2 % (10-NN) here"
    assert lines[3] == "  not measured this time: linear"
    other = same._replace(protocol=theirs._replace(tested="5,000 of 'train[50%:60%]'"))
    lines = measures.published_lines(of_recipe(epochs=5, max_steps=9), [other])
    assert lines[0] == (
        f"this run is not recipe {NAME}: it has epochs 5 for 100, max_steps 9 for None"
    )
    assert lines[2] == (
        "  not the same protocol as 83.2 % (10-NN) here: tested: here 5,000 of "
        "'train[50%:60%]', there 10,000 test images"
    )
    assert measures.published_lines({"recipe": None}, [same]) == []


def test_accuracies_of_one_protocol_share_a_line():
    one, other = Protocol("k-NN", details="k = 5"), Protocol("linear", epochs="3")
    found = {
        name: {
            "knn": measures.Measured("5-NN", 0.5, one),
            "linear": measures.Measured("linear", 0.5, other._replace(chosen=name)),
        }
        for name in ("a", "b")
    }
    assert measures.protocol_lines(found) == [
        "5-NN: k-NN, k = 5",
        "linear (a): linear, 3 epochs, chosen: a",
        "linear (b): linear, 3 epochs, chosen: b",
    ]


def test_numbers_of_an_earlier_probe_are_never_lost(tmp_path, capsys):
    path = tmp_path / "probe.json"

    def keep(key, details, **changes):
        record = {"step": 3, "averaged": False, "settings": {}}
        record |= {"accuracy": {"raw": {key: 0.5}}}
        record |= {"protocol": {"raw": {key: {"details": details}}}}
        same = dict.fromkeys(probe._SAME, "train")
        probe._keep(path, {**record, "settings": same, **changes})
        found = json.loads(path.read_text())["accuracy"]["raw"]
        return set(found), sorted(p.name for p in tmp_path.iterdir())

    assert keep("fine_tune", "a") == ({"fine_tune"}, ["probe.json"])
    both = {"fine_tune", "knn"}
    assert keep("knn", "k = 5") == (both, ["probe.json"])
    assert keep("knn", "k = 5") == (both, ["probe.json"])
    assert capsys.readouterr().out == ""
    assert keep("knn", "k = 20") == (both, ["probe.json", "probe_1.json"])
    assert "it is probe_1.json now" in capsys.readouterr().out
    names = ["probe.json", "probe_1.json", "probe_2.json"]
    assert keep("knn", "k = 20", step=4) == ({"knn"}, names)
    path.write_text("{")  # no record, and somebody's all the same
    assert keep("knn", "k = 20") == ({"knn"}, [*names, "probe_3.json"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A few steps of a recipe, made small, on images of two colors."""
    place = tmp_path_factory.mktemp("protocols")
    random = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = random.integers(0, 100, (120, 16, 16, 3), np.uint8)
    images[..., 0] += 120 * labels[:, None, None].astype(np.uint8)
    files = {"train_images": images[:80], "train_labels": labels[:80]}
    files |= {"test_images": images[80:], "test_labels": labels[80:]}
    np.savez(place / "two.npz", **files)
    flags = ["--recipe", NAME, "--source", str(place / "two.npz"), "--width", "4"]
    flags += ["--encoder", "small"]  # which compiles faster
    flags += ["--batch_size", "16", "--epochs", "3", "--embedding", "8"]
    flags += ["--average", "0.5", "--directory", str(place / "run"), "--no-progress"]

    def train(*more):
        options = {"prog": "simclr", "named": simclr.RECIPES}
        _cli.run(simclr.main, simclr.Settings, arguments=[*flags, *more], **options)

    train("--max_steps", "2")
    return place / "run", train


@pytest.mark.slow
def test_a_recipe_is_kept_in_the_settings_and_resumes_by_the_same_command(run):
    directory, train = run
    train("--max_steps", "2")
    settings = json.loads((directory / "settings.json").read_text())
    assert (settings["recipe"], settings["optimizer"]) == (NAME, "sgd")
    changed = recipes.changed_settings(settings)
    assert {"epochs", "width", "batch_size", "source"} <= set(changed)
    with pytest.raises(SystemExit, match=r"holds a run with other settings.*epochs"):
        train("--max_steps", "2", "--epochs", "4")


@pytest.mark.slow
def test_every_protocol_is_measured_said_and_kept(run, capsys):
    directory, _ = run
    asked = ["linear", "linear_10_percent", "linear_augmented", "fine_tune"]
    asked += ["fine_tune_10_percent"]
    flags = ["--tuning_epochs", "15", "--tuning_rates", "0.01", "0.05"]
    flags += ["--linear_epochs", "5", "--probe_batch_size", "20"]
    command.cli(["probe", str(directory), "--protocol", *asked, *flags])
    said, bars = capsys.readouterr()
    for name in asked[2:]:  # these take long: they show their steps, to the last one
        done, total = re.findall(rf"{name}:.*?(\d+)/(\d+) \[", bars)[-1]
        assert done == total != "0"
    assert "moving average of the weights" in said
    assert f"this run is not recipe {NAME}" in said
    assert "this run is not finished: step 2 of 15" in said
    assert "not the same protocol as" in said
    written = json.loads((directory / "probe.json").read_text())
    pretrained = written["accuracy"]["pretrained encoder"]
    assert set(pretrained) == set(asked)
    assert set(written["accuracy"]["raw pixels"]) == {"linear", "linear_10_percent"}
    assert pretrained["fine_tune"] > 0.9  # the mean color tells
    protocol = written["protocol"]["pretrained encoder"]["fine_tune_10_percent"]
    assert protocol["labels"] == "10 % of each class, 8"
    assert "by 10 % of the labelled images" in protocol["chosen"]
    # A probe by another protocol loses nothing; one of other images begins anew.
    command.cli(["probe", str(directory), "--protocol", "knn", "--k", "3", "20"])
    written = json.loads((directory / "probe.json").read_text())
    pretrained = written["accuracy"]["pretrained encoder"]
    assert set(pretrained) == {*asked, "knn", "knn_20"}
    command.cli(
        ["probe", str(directory), "--protocol", "knn", "--test_split", "test[:20]"]
    )
    written = json.loads((directory / "probe.json").read_text())
    assert set(written["accuracy"]["pretrained encoder"]) == {"knn"}
    earlier = json.loads((directory / "probe_1.json").read_text())
    assert set(earlier["accuracy"]["pretrained encoder"]) == {*asked, "knn", "knn_20"}


@pytest.mark.slow
def test_what_chooses_a_learning_rate_is_not_learned_before(run):
    encoder = recipes.open_encoder(run[0])
    before = jax.tree.map(np.array, encoder.variables)
    part = recipes.labelled(encoder.settings["source"], "train_split", "train")
    labels = part.labels
    held_out = np.flatnonzero(evaluation.hold_out(labels, 0.2, 7))
    read = []

    class Images:
        shape = part.images.shape

        def __len__(self):
            return len(part.images)

        def __getitem__(self, rows):
            read.append(np.asarray(rows))
            return part.images[rows]

    found = tuning.fine_tune(
        encoder,
        Images(),
        labels,
        num_classes=2,
        learning_rates=(0.05, 0.01),
        epochs=1,
        batch_size=16,
        validation=0.2,
        seed=7,
    )
    assert found.learning_rates == (0.01, 0.05)
    # Two trials: four batches, then the part that chooses; then all images.
    assert [len(rows) for rows in read] == [16] * 4 + [16] + [16] * 4 + [16] + [16] * 5
    for at in (4, 9):
        np.testing.assert_array_equal(read[at], held_out)
        assert not set(np.concatenate(read[at - 4 : at])) & set(held_out)
    assert set(np.concatenate(read[10:])) == set(range(80))
    jax.tree.map(np.testing.assert_array_equal, encoder.variables, before)
    # A rate that is too large is no network that says class 0.
    options = {"num_classes": 2, "learning_rates": (1e30,), "epochs": 2}
    mixed = np.arange(80) // 2 % 2  # which no network tells at once
    diverged = tuning.fine_tune(encoder, part.images, mixed, **options)
    with pytest.raises(FloatingPointError, match=r"stays finite, got 1e\+30"):
        diverged.predict(part.images)


@pytest.mark.slow
def test_augmented_representations_come_from_the_frozen_encoder(run):
    encoder = recipes.open_encoder(run[0])
    images = data.open(encoder.settings["source"], "train").columns["image"]
    draw = tuning.make_draw(encoder, images)
    rows = np.array([5, 3, 8])
    h = draw(rows, jax.random.key(0))
    plain = encoder.represent(np.asarray(images[rows]))
    assert h.shape == plain.shape
    assert not np.allclose(h, plain)
    np.testing.assert_array_equal(h, draw(rows, jax.random.key(0)))
    assert not np.allclose(h, draw(rows, jax.random.key(1)))
