"""What graphs are measured by: folds, few labels, nodes; and what is kept of it."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.graphs import finetune, frozen, nodes, results, settings, speed
from jaxcl import data

TINY = {"width": 4, "depth": 1, "embedding": 4, "batch_size": 24, "epochs": 2}
FEW = {
    "source": "families",
    "split": "train[:8%,stratified]",
    "folds": 2,
    "seeds": (0,),
}


def rows_of(directory):
    kept = json.loads((directory / "results.json").read_text())["rows"]
    for row in kept:
        assert {"set", "loss", "protocol", "mean", "std", "folds", "seeds"} <= set(row)
        assert 0 <= row["mean"] <= 1
    return kept


def test_rows_are_named_by_loss_and_target():
    s = settings.Compared(losses=("info_nce", "sc_info_nce", "is_info_nce"), beta=0.5)
    base, variants = settings.trainings(s, settings.Training, settings.Target(2, -0.4))
    assert list(variants) == ["info_nce", "sc_info_nce 2, 0.5", "is_info_nce"]
    sc = dataclasses.replace(base, **variants["sc_info_nce 2, 0.5"])
    assert (sc.loss, sc.alpha, sc.beta) == ("sc_info_nce", 2, 0.5)
    assert variants["is_info_nce"]["num_views"] == 3
    # The authors' table.
    assert settings.TARGETS["NCI1"] == (0.7, 0.05)
    assert settings.TARGETS["PROTEINS"] == (2.0, -0.4)


def test_tables_and_files_have_means_and_deviations(tmp_path, capsys):
    s = frozen.Settings(directory=str(tmp_path))
    made = [
        results.Result("MUTAG", "info_nce", "a", [0.5, 0.7], 10),
        results.Result("MUTAG", "dcl", "b", [0.25, 0.25], 10),
    ]
    results.tell(s, made)
    first, second = rows_of(tmp_path)
    assert first["mean"] == pytest.approx(0.6)
    assert first["std"] == pytest.approx(np.sqrt(0.02))
    assert (second["folds"], second["seeds"], second["loss"]) == (10, 2, "dcl")
    said = capsys.readouterr().out
    assert "| info_nce | 60.0 ± 14.1 |            |" in said
    results.tell(s, made[:1])  # other results: the old ones stay
    assert len(list(tmp_path.glob("results*.json"))) == 2


def test_no_label_of_a_test_graph_is_seen_nor_one_that_chooses_the_epoch():
    labels = np.repeat([0, 1, 2], [50, 70, 31])
    s = finetune.Settings(folds=10)
    courses = finetune.make_courses(s, labels, 3)
    tested = np.concatenate([whole.tested for whole, _ in courses])
    np.testing.assert_array_equal(np.sort(tested), np.arange(151))
    for whole, part in courses:
        known = set(whole.labelled)
        assert not known & set(whole.tested)
        assert set(part.labelled) | set(part.tested) == known
        assert not set(part.labelled) & set(part.tested)
        np.testing.assert_array_equal(np.bincount(labels[whole.labelled]), [4, 6, 3])
        np.testing.assert_array_equal(np.bincount(labels[part.tested]), [1, 1, 1])
    first, again, other = (
        finetune.make_courses(s, labels, seed)[0][0].labelled for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_labels_too_few_to_learn_and_to_choose_are_refused():
    labels = np.arange(24) % 2
    with pytest.raises(ValueError, match=r"labelled must be .* got 0.1, 2 of the 24"):
        finetune.check_labels(finetune.Settings(), labels)
    finetune.check_labels(finetune.Settings(labelled=0.2), labels)
    with pytest.raises(ValueError, match="folds must be at most the 12"):
        finetune.check_labels(finetune.Settings(folds=13), labels)


def test_the_epoch_is_chosen_without_the_test(monkeypatch):
    """Curves are made up: epoch 1 is best inside, epoch 2 on the test folds."""
    dataset = data.graphs.families(12)
    s = finetune.Settings(folds=2, tuning_epochs=3)
    curves = [[0.1, 0.3, 0.9], [0.1, 0.5, 0.7], [0.2, 0.4, 0.3], [0.4, 0.4, 0.1]]
    monkeypatch.setattr(finetune, "make_training", lambda *_: curves.__getitem__)
    monkeypatch.setattr(
        finetune, "make_courses", lambda *_: [(None, None), (None, None)]
    )
    found = finetune.fine_tune(s, dataset, finetune.Start(settings.Training(), {}))
    assert found.scores["chosen"] == pytest.approx(0.4)  # of equal ones the last
    assert found.scores["last"] == found.scores["best"] == pytest.approx(0.8)


def test_a_probe_of_nodes_is_told_nothing_of_the_test():
    network = data.graphs.partition(3, 60, seed=1)
    h = np.random.default_rng(0).normal(size=(180, 4)).astype(np.float32)
    h[:, 0] += 3 * (network.labels == 0)
    accuracy = nodes.probe(network, h)
    swapped = network.labels.copy()
    swapped[network.test] = (swapped[network.test] + 1) % 3
    other = nodes.probe(network._replace(labels=swapped), h)
    # The same predictions, of which each is right for one set of labels at most.
    assert 0.5 < accuracy < 0.9
    assert 0 < accuracy + other <= 1


def test_words_are_divided_by_their_number():
    s = nodes.Settings()
    x = nodes.open_network(s).graphs.nodes
    sums = x.sum(axis=1)
    assert np.all((np.abs(sums - 1) < 1e-5) | (sums == 0))
    plain = nodes.open_network(dataclasses.replace(s, normalize=False)).graphs.nodes
    assert plain.sum(axis=1).max() > 2


@pytest.mark.slow
def test_every_command_runs_and_keeps_its_rows(tmp_path, capsys):
    s = frozen.Settings(directory=str(tmp_path / "frozen"), **TINY, **FEW)
    found = frozen.main(s)
    assert [row["loss"] for row in rows_of(tmp_path / "frozen")] == [
        "untrained encoder",
        "info_nce",
        "sc_info_nce 1, 0",
        "degree histogram",
        "Weisfeiler-Lehman kernel",
    ]
    for name in ("accuracy.png", "embedding.png", "neighbors.png"):
        assert (tmp_path / "frozen" / name).stat().st_size > 10_000
    capsys.readouterr()
    assert frozen.main(s) == found  # finished runs are not repeated

    tuned = finetune.Settings(
        directory=str(tmp_path / "tuned"), **TINY, **FEW, labelled=0.5, tuning_epochs=3
    )
    finetune.main(tuned)
    assert "points above the one chosen by" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "tuned")) == 9
    assert all(row["folds"] == 2 for row in rows_of(tmp_path / "tuned"))

    few = {"losses": ("nt_xent",), "seeds": (0, 1), "steps": 3, "width": 8}
    nodes.main(nodes.Settings(directory=str(tmp_path / "nodes"), **few, embedding=8))
    assert [row["loss"] for row in rows_of(tmp_path / "nodes")] == [
        "untrained encoder",
        "nt_xent",
        "features",
        "features, smoothed twice",
    ]
    assert {row["folds"] for row in rows_of(tmp_path / "nodes")} == {1}

    measured = speed.main(
        speed.Settings(rounds=2, source="families", directory=str(tmp_path), **TINY)
    )
    assert "graphs per second" in capsys.readouterr().out
    assert measured["share"] < 1
