"""Pretraining on graphs, a few steps at a time, and what a user's mistake ends in."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

import jaxcl
from experiments.graphs import __main__ as script
from experiments.graphs import pretraining, settings
from jaxcl import recipes, training
from tests.data.graphs import made

SIZES = [3, 5, 2, 6, 4, 7, 3, 5, 1, 4] * 4

TINY = settings.Training(
    width=4,
    depth=2,
    embedding=4,
    batch_size=16,
    packs=8,
    epochs=4,
    log_every=1,
    save_every=2,
    evaluate_every=100,
    max_steps=4,
    learning_rate=0.01,
    optimizer="sgd",  # Adam would divide rounding errors by the size of a gradient
    source="",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Forty graphs in a file."""
    with pytest.warns(UserWarning, match="graphs have no edges"):
        graphs = made.random_graphs(SIZES, 0.6)
    first = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.edge_ptr))
    arrays = {
        "edge_index": (graphs.edges + first[:, None]).T,
        "node_ptr": graphs.node_ptr,
        "node_label": np.arange(len(graphs.nodes)) % 3,
        "y": np.arange(len(SIZES)) % 2,
    }
    return made.npz(tmp_path_factory.mktemp("graphs") / "forty.npz", arrays)


def run(directory, source, devices=2, **changes):
    """The state after a run on so many of the devices."""
    s = dataclasses.replace(
        TINY, directory=str(directory), source=str(source), **changes
    )
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=auto, devices=jax.devices()[:devices]
    )
    rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (["data"], []))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxcl, "data_parallel", lambda: (mesh, rows, whole))
        with pytest.warns(UserWarning, match="graphs have no edges"):
            return jax.device_get(pretraining.pretrain(s))


def metrics_of(directory):
    return [(line["step"], line["loss"]) for line in training.read_metrics(directory)]


# A run with all that a state can hold.
FULL = {"average": 0.9, "monitors": ("knn",), "projector": "normalized"}


@pytest.fixture(scope="module")
def unbroken(source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("graphs") / "unbroken"
    return directory, run(directory, source, **FULL)


@pytest.mark.slow
def test_a_run_that_was_stopped_and_resumed_ends_bit_equal(unbroken, source, tmp_path):
    directory, expected = unbroken
    run(tmp_path, source, **FULL, max_steps=3)
    resumed = run(tmp_path, source, **FULL)
    for a, b in zip(*map(jax.tree.leaves, (resumed, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics_of(tmp_path) == metrics_of(directory)
    assert [step for step, _ in metrics_of(tmp_path)] == [1, 2, 3, 4]
    assert 0 <= training.read_metrics(directory)[-1]["knn"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"devices": 1},
        pytest.param({"devices": 1, "packs": 16}, marks=pytest.mark.slow),
        pytest.param({"devices": 8}, marks=pytest.mark.slow),
    ],
    ids=["one device", "more packs", "eight devices"],
)
def test_devices_and_packs_change_nothing(changes, unbroken, source, tmp_path):
    directory, expected = unbroken
    found = run(tmp_path, source, **FULL, **changes)
    first = first_variables(source, tmp_path)
    for name in ("params", "average"):
        moved_alike(
            getattr(found, name)["model"],
            getattr(expected, name)["model"],
            first["params"],
        )
    stats = "batch_stats"
    moved_alike(found.model_state[stats], expected.model_state[stats], first[stats])
    np.testing.assert_allclose(metrics_of(tmp_path), metrics_of(directory), rtol=1e-5)


def moved_alike(found, expected, first):
    """From the first step on, but for rounding: that grows from step to step."""
    for a, b, start in zip(
        *map(jax.tree.leaves, (found, expected, first)), strict=True
    ):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b - start)


def first_variables(source, directory):
    s = dataclasses.replace(TINY, source=str(source), directory=str(directory), **FULL)
    with pytest.warns(UserWarning, match="graphs have no edges"):
        dataset = recipes.graphs.open_graphs(s)
    return pretraining.variables_of(s, dataset, False)


@pytest.mark.slow
def test_something_is_learned_from_the_first_step_on(unbroken, source, tmp_path):
    first = first_variables(source, tmp_path)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), first["params"],
        unbroken[1].params["model"],
    )  # fmt: skip
    still = [path for path, size in jax.tree.leaves_with_path(moved) if size == 0]
    assert not still
    assert not list(tmp_path.iterdir())  # nothing was trained


def test_the_packs_of_a_run_are_part_of_what_it_is(source, tmp_path):
    # A chunk holds every so-manieth pack: which graphs share statistics depends on it.
    kept = dataclasses.replace(TINY, source=str(source))
    training.save_settings(tmp_path, dataclasses.asdict(kept))
    with pytest.raises(ValueError, match="packs: 8 -> 16"):
        run(tmp_path, source, packs=16)
    assert {"nodes", "edges", "tile"} <= set(settings.MAY_CHANGE)


# The command. -------------------------------------------------------------------------


def ends(monkeypatch, *flags):
    """The line that a command ends with, with status 1."""
    monkeypatch.setattr(sys, "argv", ["graphs", *map(str, flags)])
    with pytest.raises(SystemExit) as end:
        script.cli()
    assert isinstance(end.value.code, str)  # which Python prints, with status 1
    assert "\n" not in end.value.code
    return end.value.code


TU = {
    "missing node": ({"A": "1, 2\n4, 6\n"}, "line 2 joins 4 and 6"),
    "across graphs": ({"A": "3, 4\n"}, "edge 1 joins node 3 of graph 1 and node 4"),
    "cut short": ({"graph_labels": "1\n-"}, "TWO_graph_labels.txt is cut short"),
    "missing file": ({"graph_indicator": None}, "TWO_graph_indicator.txt is missing"),
    "empty file": ({"A": ""}, "TWO_A.txt must hold numbers, and is empty"),
    "labels": ({"graph_labels": "1\n"}, "a line for each of the 2 graphs, got 1"),
    "NaN": ({"node_attributes": "nan\n" * 5}, "features must be finite"),
    "few": ({}, "batch_size must be at most the 2 graphs"),
}


@pytest.mark.parametrize("what", TU)
@pytest.mark.parametrize("command", [(), ("finetune",)])
def test_a_folder_that_does_not_fit_ends_in_one_line(
    what, command, tmp_path, monkeypatch
):
    changes, said = TU[what]
    folder = made.tu(tmp_path / "set", **changes)
    runs = tmp_path / "runs"
    line = ends(monkeypatch, *command, "--source", folder, "--directory", runs)
    kind = "FileNotFoundError: " if what == "missing file" else "ValueError: "
    assert line.startswith(kind)
    assert str(folder) in line
    assert said in line
    assert not runs.exists()


def test_other_sources_that_do_not_fit_end_in_one_line(tmp_path, monkeypatch, source):
    runs = ("--directory", tmp_path / "runs")
    gone, broken = tmp_path / "gone.npz", tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4")
    network = made.npz(tmp_path / "network.npz", made.NETWORK)
    unlabelled = made.npz(tmp_path / "unlabelled.npz", made.TWO_NPZ, y=None)
    for flags, said in (
        (["--source", gone], "gone.npz: there is no such file"),
        (["nodes", "--source", gone], "gone.npz: there is no such file"),
        (["--source", broken], "broken.zip: not a readable zip file"),
        (["--source", "MUTAG"], "source must be 'families', 'atlas', a file ending"),
        (["--source", network], "open_network"),
        (["--source", unlabelled], "source must have labels to test with"),
        (["nodes", "--source", source], "a set of graphs is for open"),
        (["nodes", "--source", broken], "source must be 'partition' or a file"),
        (["--losses", "sup_con"], "the labels of the graphs that it is tested on"),
        (["finetune", "--losses", "dcl", "sup_con"], "must not name 'sup_con'"),
        (["--split", "test"], "split must be 'train' or a slice of it, got 'test'"),
        (["--features", "attributes"], "families: features must not name 'attributes'"),
        (["--nodes", "50"], "nodes must be at least "),
        (["--edges", "50"], "edges must be at least "),
        (["--packs", "3"], "packs must be divisible by the 8 devices"),
        (["--batch_size", "20"], "batch_size must be divisible by the 8 devices"),
    ):
        assert said in ends(monkeypatch, *flags, *runs), flags
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_settings_are_kept_with_the_run(unbroken):
    kept = json.loads((unbroken[0] / "settings.json").read_text())
    assert (kept["packs"], kept["encoder"], kept["average"]) == (8, "gin", 0.9)
