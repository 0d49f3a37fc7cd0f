"""Runs on graphs are probed, embedded, exported and brought back, as all are."""

import json

import jax
import numpy as np
import pytest

from experiments.graphs import pretraining, settings
from jaxcl import __main__ as command
from jaxcl import data, models, recipes
from jaxcl.report import reading
from tests.pictures import legible


def written(path, n, labels):
    """Rings and paths of four to six nodes, labelled by turns."""
    sizes = 4 + np.arange(n) % 3
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    edges = [
        (a + i, a + (i + 1) % size)
        for k, (a, size) in enumerate(zip(ptr, sizes, strict=False))
        for i in range(size - k % 2)
    ]
    np.savez(
        path,
        edge_index=np.array(edges).T,
        node_ptr=ptr,
        y=np.arange(n) % 2,
        node_label=np.resize(labels, ptr[-1]),
    )
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("graphs")
    s = settings.Training(
        directory=str(home / "run"),
        source=written(home / "made.npz", 40, [1, 6, 8]),
        features=("labels", "degree"),
        width=4,
        depth=1,
        embedding=5,
        batch_size=16,
        epochs=2,
        warmup_epochs=0,
        average=0.5,
        augmentation=("mask_nodes",),
        log_every=1,
        monitors=("knn",),
        evaluate_every=2,
    )
    return home, s, jax.device_get(pretraining.pretrain(s))


def test_a_run_says_what_its_encoder_takes_and_is_opened(trained):
    home, s, state = trained
    encoder = recipes.open_encoder(home / "run")
    assert encoder.described == models.GraphDescription(
        ("labels", "degree"), (3, 1), (1, 6, 8), width=4, depth=1, embedding=5
    )
    assert (encoder.step, encoder.averaged) == (4, True)
    for found, expected in (
        (encoder.variables["params"], state.average["model"]),
        (
            encoder.untrained().variables["params"],
            recipes.graphs.initialize(s, encoder.described)[0]["model"],
        ),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_an_exported_encoder_embeds_what_the_run_embeds(trained, tmp_path, capsys):
    run, source = trained[0] / "run", str(trained[0] / "made.npz")
    command.cli(["export", str(run), "--out", str(tmp_path / "encoder")])
    assert "gin for graphs, features of nodes labels [3], degree" in (
        capsys.readouterr().out
    )
    for layer, size in (("h", 4), ("z", 5)):
        paths = [tmp_path / f"{name}_{layer}.npz" for name in "ab"]
        flags = ["--layer", layer, "--batch_size", "7"]
        command.cli(["embed", str(run), "--out", str(paths[0]), *flags])
        flags += ["--source", source, "--split", "train[:39]"]
        command.cli(
            ["embed", str(tmp_path / "encoder"), "--out", str(paths[1]), *flags]
        )
        one, other = map(np.load, paths)
        assert one["embeddings"].shape == (40, size)
        np.testing.assert_array_equal(one["labels"], np.arange(40) % 2)
        # Packs of another room; float32 sums in another order, perhaps.
        np.testing.assert_allclose(
            one["embeddings"][:39], other["embeddings"], rtol=1e-5, atol=1e-6
        )
    # The one that is loaded is a function of packs.
    encoder = models.load(tmp_path / "encoder", layer="z")
    dataset = recipes.graphs.open_like(
        models.read_description(tmp_path / "encoder"), source, "train"
    )
    packed = data.graphs.pack_in_order(dataset, 40).columns["graph"]
    rows = encoder(jax.tree.map(jax.numpy.asarray, packed[np.arange(40)]))
    np.testing.assert_allclose(rows, one["embeddings"], rtol=1e-5, atol=1e-6)
    # And the report takes the file.
    assert reading.embeddings("FILE", str(paths[0])).array.shape == (40, 5)


def test_graphs_that_the_encoder_does_not_know_are_refused(trained, tmp_path):
    run, out = str(trained[0] / "run"), str(tmp_path / "z.npz")
    other = written(tmp_path / "other.npz", 4, [6, 7])
    for source, split, words in (
        (other, "train", "other: labels of nodes must be among 3 values, 1 to 8, got"),
        (other, "test", "split must be 'train' or a slice of it, got 'test'"),
        ("digits", "train", "source must be 'families', 'atlas', a file"),
    ):
        flags = ["--source", source, "--split", split]
        with pytest.raises(SystemExit, match=words):
            command.cli(["embed", run, "--out", out, *flags])


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_a_run_on_graphs_is_probed_in_folds_and_drawn(trained, capsys):
    directory = trained[0] / "run"
    with legible.checked() as drawn:
        command.cli(["probe", str(directory), "--folds", "4", "--seed", "3"])
    assert drawn == ["curves.png", "embedding.png", "neighbors.png"]
    assert "on 40 graphs,\neach tested once in 4 folds" in capsys.readouterr().out
    record = json.loads((directory / "probe.json").read_text())
    assert (record["step"], record["num_test"]) == (4, 40)
    assert list(record["accuracy"]) == [
        "label histogram",
        "degree histogram",
        "untrained encoder",
        "pretrained encoder",
    ]
    for scores in record["accuracy"].values():
        assert len(scores["folds"]) == 4
        np.testing.assert_allclose(scores["svm"], np.mean(scores["folds"]))
    # Rings have no node of degree one.
    assert record["accuracy"]["degree histogram"]["svm"] == 1


def test_settings_of_another_kind_of_data_are_refused(trained):
    with pytest.raises(SystemExit, match=r"k must be left at \(5,\), since only a"):
        command.cli(["probe", str(trained[0] / "run"), "--k", "3"])
