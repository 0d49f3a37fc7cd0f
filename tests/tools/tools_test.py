"""A run is probed, embedded, exported and brought back, through the command."""

import dataclasses
import json
import re
import types
import warnings

import jax
import numpy as np
import pytest

from experiments import simclr
from jaxcl import __main__ as command
from jaxcl import data, models, pictures, recipes
from jaxcl.tools import measures, probe
from jaxcl.training import checkpoints
from tests.pictures import legible

TINY = simclr.Settings(
    width=4,
    embedding=8,
    batch_size=16,
    epochs=1,
    warmup_epochs=0,
    log_every=1,
    evaluate_every=100,
    save_every=2,
    max_steps=3,
    split="train[:200]",
    average=0.5,
    monitors=("knn", "linear"),
    progress=False,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tools") / "run"
    state = simclr.main(dataclasses.replace(TINY, directory=str(directory)))
    return directory, jax.device_get(state)


@pytest.mark.slow
def test_a_run_is_opened_with_its_moving_average_or_without(trained):
    directory, state = trained
    for average, params in ((True, state.average), (False, state.params)):
        encoder = recipes.open_encoder(directory, average=average)
        assert (encoder.step, encoder.averaged) == (3, average)
        variables = {"params": params["model"], **state.model_state}
        for a, b in zip(
            jax.tree.leaves(encoder.variables), jax.tree.leaves(variables), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert recipes.open_encoder(directory, step=2).step == 2
    start = recipes.open_encoder(directory).untrained()
    expected = recipes.initialize(TINY, encoder.described, 10)[0]["model"]
    for a, b in zip(
        jax.tree.leaves(start.variables["params"]),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_an_exported_encoder_is_brought_back_and_gives_equal_outputs(trained, tmp_path):
    directory, _ = trained
    command.cli(["export", str(directory), "--out", str(tmp_path)])
    images = data.digits("test[:30]").columns["image"]
    for layer, size in (("h", 32), ("z", 8)):
        expected = recipes.open_encoder(directory).represent(images, layer=layer)
        encoder = models.load(tmp_path, layer=layer)
        assert encoder(images).shape == (30, size)
        np.testing.assert_allclose(jax.jit(encoder)(images), expected, atol=1e-5)
    about = json.loads((tmp_path / "encoder.json").read_text())
    assert about["model"]["shape"] == [8, 8, 1]
    assert (about["trained"]["step"], about["trained"]["averaged"]) == (3, True)
    with pytest.raises(SystemExit, match=r"out must hold no encoder.*overwrite"):
        command.cli(["export", str(directory), "--out", str(tmp_path)])
    command.cli(["export", str(directory), "--out", str(tmp_path), "--overwrite"])
    with pytest.raises(ValueError, match=r"images must be uint8 \[n, 8, 8, 1\], got"):
        models.load(tmp_path)(np.zeros((2, 8, 8, 1), np.float32))


def test_embeddings_go_into_a_new_file_from_a_run_or_an_exported_encoder(
    trained, tmp_path
):
    directory, _ = trained
    command.cli(["export", str(directory), "--out", str(tmp_path / "encoder")])
    found = []
    for place, name in ((directory, "a.npz"), (tmp_path / "encoder", "b.npz")):
        out = str(tmp_path / name)
        flags = ["--source", "digits", "--split", "test[:30]", "--layer", "z"]
        command.cli(["embed", str(place), "--out", out, *flags])
        with np.load(out) as written:
            assert written["labels"].shape == (30,)
            found.append(written["embeddings"])
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (30, 8)
    with pytest.raises(SystemExit, match="out must be a new file"):
        command.cli(["embed", str(directory), "--out", out])
    with pytest.raises(SystemExit, match="source must be given"):
        command.cli(
            ["embed", str(tmp_path / "encoder"), "--out", str(tmp_path / "c.npz")]
        )


def test_images_of_another_size_are_refused(trained, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 9, 8), np.uint8))
    flags = ["--source", str(tmp_path / "x.npy"), "--split", "train"]
    with pytest.raises(SystemExit, match=r"images \[8, 8, 1\] as .*got \[9, 8, 1\]"):
        command.cli(
            ["embed", str(trained[0]), "--out", str(tmp_path / "z.npz"), *flags]
        )


@pytest.mark.slow
def test_a_run_is_probed_and_drawn_and_stays_as_it_is(trained, capsys):
    directory, _ = trained
    files = [p for p in (directory / "checkpoints").rglob("*") if p.is_file()]
    before = {p: p.read_bytes() for p in files}
    with legible.checked() as drawn:
        command.cli(
            ["probe", str(directory), "--train_split", "train[:300]"]
            + ["--test_split", "test[:100]", "--draws", "1"]
        )
    assert drawn == ["curves.png", "embedding.png", "neighbors.png"]
    table = capsys.readouterr().out
    assert "step 3, moving average of the weights: accuracy on 100 held-out" in table
    written = json.loads((directory / "probe.json").read_text())
    assert written["num_test"] == 100
    assert written["accuracy"]["raw pixels"]["knn"] > 0.8
    assert set(written["accuracy"]) == {
        "raw pixels",
        "untrained encoder",
        "pretrained encoder",
    }
    assert before == {p: p.read_bytes() for p in files}


def test_metrics_that_are_damaged_cost_a_probe_no_other_picture(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo\n{"step": 2, "loss": 1}\n')
    drawn = []
    for name in ("learning_curves", "embedding_map", "montage"):
        monkeypatch.setattr(pictures, name, lambda path, *a, **k: drawn.append(path))
    images, labels = np.zeros((4, 2, 2, 1), np.uint8), np.arange(4) % 2
    part = recipes.Labelled(images, labels, ("ant", "bee"))
    h = np.eye(4, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"curves\.png was not drawn, .*line 1: got"):
        probe.draw(tmp_path, part, part, h, h)
    assert [path.name for path in drawn] == ["embedding.png", "neighbors.png"]


def test_neighbors_are_drawn_of_every_class_and_counted_over_all_images(
    tmp_path, monkeypatch
):
    random = np.random.default_rng(0)
    train_y, test_y = np.arange(60) % 10, np.sort(np.arange(45) % 10)
    h = [
        np.eye(10)[y] + random.standard_normal((len(y), 10)) for y in (train_y, test_y)
    ]
    of_train, of_test = (x.astype(np.float32) for x in h)
    names = tuple("abcdefghij")
    parts = [
        recipes.Labelled(np.zeros((len(y), 4, 4), np.uint8), y, names)
        for y in (train_y, test_y)
    ]
    drawn = {}

    def montage(*arguments, note, **options):
        drawn["labels"], drawn["note"] = arguments[2], note

    monkeypatch.setattr(pictures, "montage", montage)
    monkeypatch.setattr(pictures, "embedding_map", lambda *a, **k: None)
    probe.draw(tmp_path, *parts, of_train, of_test)
    assert drawn["labels"].tolist() == list(range(10))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (of_train, of_test)]
    nearest = np.argsort(-(unit[1] @ unit[0].T), axis=1)[:, :8]
    share = 100 * (train_y[nearest] == test_y[:, None]).mean()
    assert f"Over all 45 held-out images: {share:.1f} % of their 8" in drawn["note"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "/nowhere"], "there is no directory /nowhere"),
        (["embed", "/nowhere", "--out", "z.npy"], "out must end in .npz"),
        (["export", "/nowhere"], "there is no directory /nowhere"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, words):
    with pytest.raises(SystemExit, match=words):
        command.cli(arguments)


def test_damaged_exports_are_refused_by_name(trained, tmp_path):
    command.cli(["export", str(trained[0]), "--out", str(tmp_path)])
    weights, about = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="safetensors: not a readable"):
        models.load(tmp_path)
    weights.write_bytes(content)
    wider = json.loads(about.read_text())
    wider["model"]["width"] = 5
    about.write_text(json.dumps(wider))
    with pytest.raises(ValueError, match=r"must hold the arrays of encoder\.json"):
        models.load(tmp_path)
    about.write_text("{}")
    with pytest.raises(ValueError, match=r"encoder\.json: not an encoder's"):
        models.load(tmp_path)


def test_an_exported_encoder_is_as_it_was_written_or_refused(trained, tmp_path):
    command.cli(["export", str(trained[0]), "--out", str(tmp_path)])
    weights, about = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"
    content = weights.read_bytes()
    models.load(tmp_path)
    # A bit of the last array.
    weights.write_bytes(content[:-3] + bytes([content[-3] ^ 0b100]) + content[-2:])
    with pytest.raises(ValueError, match="must be as it was written, and its arrays"):
        models.load(tmp_path)
    weights.write_bytes(content)
    brighter = json.loads(about.read_text())
    brighter["model"]["mean"] = [0.25]
    about.write_text(json.dumps(brighter))
    with pytest.raises(ValueError, match=r"the encoder\.json that it was written with"):
        models.load(tmp_path)


def test_a_probe_that_does_not_exist_in_a_run_is_not_asked_for(trained):
    # The run's parameters hold the online probe as well; the encoder is a part of them.
    _, state = trained
    assert set(state.params) == {"model", "probe"}
    assert (
        checkpoints.restore_variables(
            trained[0], {"params": {"probe": state.params["probe"]}}
        )[1]
        == 3
    )


def test_a_probe_of_neighbors_alone_names_the_classes_it_was_never_shown():
    labels, names = np.array([0, 0, 1, 1]), ("ant", "bee")
    parts = [recipes.Labelled(None, labels[rows], names) for rows in (slice(2), [1, 2])]
    h = np.eye(4, dtype=np.float32)
    settings = probe.Settings(protocol=("knn",), k=(1,))
    parts = measures.Parts(*parts, "all", "2 test images")
    with pytest.warns(UserWarning, match="of class bee, but 50 % of the test rows"):
        found = measures.of_features(settings, h[:2], h[1:3], parts)
    assert found["knn"].accuracy == 0.5


@pytest.mark.parametrize(
    ("learned", "train", "test", "said"),
    [
        ("train[:80%]", "train[:80%]", "train[80%:]", []),
        ("train", "train[:1000]", "test", []),
        ("train[:1000]", "test", "train[900:1100]", ["100 of 200 .* learned from"]),
        ("test", "train[:1000]", "train[900:1100]", ["100 of 200 .* in train_split"]),
        (
            "train",
            "train[:80%,stratified]",
            "train[80%:,stratified]",
            ["260 of 260 .* learned from, 'train'; its --split can"],
        ),
    ],
)
def test_images_that_are_not_held_out_are_warned_of(learned, train, test, said):
    run = types.SimpleNamespace(settings={"source": "digits", "split": learned})
    settings = probe.Settings(train_split=train, test_split=test)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        probe._warn_of_shared(settings, "digits", run)
        probe._warn_of_shared(settings, "digits", types.SimpleNamespace(settings={}))
    said = said + [x for x in said if "train_split" in x]
    assert len(found) == len(said)
    for warning, words in zip(found, said, strict=True):
        assert re.search(words, str(warning.message))
