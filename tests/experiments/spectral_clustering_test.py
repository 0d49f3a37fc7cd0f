"""Free vectors against a graph: small runs end where theory says they do."""

import dataclasses
import json
import pathlib
import sys
from unittest import mock

import jax
import numpy as np
import pytest

from experiments.spectral_clustering import __main__ as script
from experiments.spectral_clustering import graph as graph_lib
from experiments.spectral_clustering import theory
from jaxcl import diagnostics
from jaxcl.pictures import style

ROOT = pathlib.Path(__file__).parents[2]
CORA = ROOT.parent / "shared" / "data" / "graphs" / "cora.npz"

TINY = script.Settings(snapshots=(0, 40), record_every=20)
# What each graph reads, which no other one may be given.
GRAPHS = {"groups": {"group_size": 5}, "digits": {"neighbors": 5}}


def _run(directory, **changes):
    changes = GRAPHS.get(changes.get("graph", "groups"), {}) | changes
    settings = dataclasses.replace(TINY, directory=str(directory), **changes)
    return script.main(settings)


@pytest.mark.slow
def test_three_groups_end_on_a_triangle_as_theory_says(tmp_path, capsys):
    results = _run(tmp_path)
    # Four of one's own at distance 0, ten others at squared distance 3; tau = 1 / 2.
    np.testing.assert_allclose(
        results["H/n"], np.log(4 + 10 * np.exp(-3)), rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(results["cosine between groups"], -0.5, atol=1e-2)
    assert results["1-NN purity"] == 1
    assert results["ARI with spectral clustering"] == 1
    for name in ("snapshots.png", "curves.png", "agreement.png"):
        assert (tmp_path / name).exists()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"] == results
    assert [c["step"] for c in written["curves"]] == [*range(10), 20, 40]
    with np.load(tmp_path / "embeddings.npz") as file:
        assert file["z"].shape == (2, 15, 2)
        np.testing.assert_allclose(np.linalg.norm(file["z"], axis=-1), 1, rtol=1e-5)
    out = capsys.readouterr().out
    assert out.count("agrees") == 8
    assert "DIFFERS" not in out

    # What is there is not lost by running the same command again.
    with pytest.raises(FileExistsError, match="directory must be new"):
        _run(tmp_path)


@pytest.mark.slow
def test_a_run_that_has_not_begun_is_not_there_yet(tmp_path, capsys):
    _run(tmp_path, snapshots=(0,))
    out = capsys.readouterr().out
    verdicts = _verdicts(out)
    assert verdicts["H/n"] == verdicts["cosine within groups"] == "not yet"
    assert "the points still move" in out
    # Attraction plus repulsion is the loss at any point.
    assert verdicts["H/n, attraction plus repulsion"] == "agrees"


def _verdicts(text):
    """Last column of the table that was printed, by the first."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return {row[1].strip(): row[-2].strip() for row in rows}


def test_optima_that_are_not_those_of_theory_differ():
    optimum = dict.fromkeys(
        ("H/n", "entropy of P", "trace term / tau + log R / n", "trace term"), 1.0
    )
    said = {"H/n": 2.0, "trace term": 1.0}
    results = optimum | {"largest gradient": 0.0}
    verdicts = _verdicts(theory.report(results, said, True))
    assert verdicts["H/n"] == "DIFFERS"
    assert verdicts["trace term"] == "agrees"
    # An identity of the Gaussian kernel says nothing about another one.
    assert "H/n, attraction plus repulsion" not in _verdicts(
        theory.report(results, {}, False)
    )


def test_the_expected_values_are_those_of_the_specification():
    def expected(dimension=2, num_groups=3, eta=0.0, tau=0.5):
        return theory.expected(num_groups, 20, eta, dimension, tau)

    close = {"rel": 0, "abs": 5e-5}
    assert expected()["H/n"] == pytest.approx(3.0441, **close)
    assert expected(tau=0.2)["H/n"] == pytest.approx(2.9456, **close)
    assert expected(eta=0.1)["H/n"] == pytest.approx(3.3441, **close)
    assert expected(eta=0.1)["trace term"] == pytest.approx(0.15)
    assert expected(3, num_groups=4)["H/n"] == pytest.approx(3.1428, **close)
    # Where no closed form is known, none is claimed.
    assert expected(2, num_groups=4) == {}
    assert expected(eta=0.97) == {}


def test_pictures_that_fail_are_warnings_and_numbers_are_kept(tmp_path, monkeypatch):
    def fail(figure, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(style, "save", fail)
    with pytest.warns(UserWarning, match="was not drawn, OSError") as caught:
        results = _run(tmp_path)
    names = [str(warning.message).split(" ")[0] for warning in caught]
    pictures = ("snapshots.png", "curves.png", "agreement.png")
    assert names == [str(tmp_path / name) for name in pictures]
    assert json.loads((tmp_path / "results.json").read_text())["results"] == results


@pytest.mark.slow
def test_no_closed_form_is_claimed_for_another_kernel(tmp_path, capsys):
    _run(tmp_path, power=1.0, snapshots=(0, 2))
    assert json.loads((tmp_path / "results.json").read_text())["theory"] == {}
    assert "No closed form" in capsys.readouterr().out


def test_the_judge_finds_the_components_of_a_graph():
    graph = graph_lib.of_groups(4, 5, 0.0)
    np.testing.assert_allclose(graph.p.sum(axis=1), 1, rtol=1e-6)
    clusters = np.asarray(diagnostics.spectral_clusters(graph.p, 4, jax.random.key(0)))
    assert len({(a, b) for a, b in zip(clusters, graph.groups, strict=True)}) == 4


@pytest.mark.slow
def test_digits_are_compared_by_their_views_without_labels(tmp_path):
    make = graph_lib.of_digits
    made = []
    with mock.patch.object(
        graph_lib, "of_digits", lambda *s: made.append(make(*s)) or made[-1]
    ):
        results = _run(
            tmp_path, graph="digits", num_images=60, views=3, snapshots=(0, 20)
        )
    (graph,) = made
    np.testing.assert_allclose(graph.p.sum(axis=1), 1, rtol=1e-5)
    assert ((graph.p > 0).sum(axis=1) == 5).all()
    assert not np.diag(graph.p).any()
    # Ten classes: a share of chance would be 0.1.
    assert results["1-NN purity"] > 0.4
    assert results["H/n"] >= results["entropy of P"]


@pytest.mark.slow
def test_a_file_s_graph_may_have_no_labels(tmp_path):
    # Two squares with one edge between them, and a triangle apart.
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5), (5, 6), (6, 7), (7, 4)]
    edges += [(8, 9), (9, 10), (10, 8)]
    both = np.array([*edges, *[(b, a) for a, b in edges]]).T
    path = tmp_path / "graph.npz"
    np.savez(path, edge_index=both.astype(np.int32))
    results = _run(
        tmp_path / "run",
        graph=str(path),
        largest_component=True,
        num_clusters=2,
        power=1.0,
        dimension=3,
        snapshots=(0, 5),
    )
    assert "1-NN purity" in results
    assert "cosine within groups" not in results
    with np.load(tmp_path / "run" / "embeddings.npz") as file:
        assert file["z"].shape == (2, 8, 3)
        clusters = file["spectral_clusters"]
    assert len(set(clusters[:4])) == len(set(clusters[4:])) == 1
    assert clusters[0] != clusters[4]


@pytest.mark.skipif(not CORA.exists(), reason="needs Cora in ../shared/data")
def test_cora_is_read_as_it_is_published():
    graph = graph_lib.of_file(str(CORA), False)
    assert graph.p.shape == (2708, 2708)
    assert (graph.p > 0).sum() == 2 * 5278
    assert len(graph.names) == 7
    largest = graph_lib.of_file(str(CORA), True)
    assert len(largest.p) == len(largest.groups) == 2485


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (-np.ones((3, 3)), r"graph\.npz: w must be finite and not negative"),
        (np.ones((3, 3)), "has no y: say how many clusters"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, weights, words):
    path = tmp_path / "graph.npz"
    np.savez(path, weights=weights)
    with pytest.raises(ValueError, match=words):
        _run(tmp_path / "run", graph=str(path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snapshots": (0, 10, 5)}, "snapshots must increase and begin at 0"),
        ({"snapshots": (-5, 0)}, "snapshots must be at least 0, got -5"),
        ({"snapshots": (5, 10)}, "snapshots must increase and begin at 0"),
        ({"num_groups": 1}, "num_groups must be at least 2, got 1"),
        ({"eta": 1.0}, r"eta must lie in \[0, 1\), got 1"),
        ({"num_clusters": 15}, r"num_clusters must lie in \[2, 15\), got 15"),
        ({"dimension": 0}, "dimension must be at least 2, got 0"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"power": 0.0}, "power must be positive and finite, got 0"),
        ({"tau": 0.0}, "tau must be positive and finite, got 0"),
        (
            {"graph": "digits", "neighbors": 400},
            "neighbors must be less than num_images 400, got 400",
        ),
        ({"views": 3}, "views must be left at 8, since only graph 'digits' reads it"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        _run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_ends_the_command_with_one_line(tmp_path, monkeypatch):
    flags = ["--graph", "no.npz", "--directory", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["spectral_clustering", *flags])
    with pytest.raises(SystemExit) as ended:
        script.cli()
    assert ended.value.code == "FileNotFoundError: no.npz: there is no such file"
