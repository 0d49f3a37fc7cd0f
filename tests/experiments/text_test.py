"""Pretraining on sentences, a few steps at a time, and what it is measured by."""

import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest

from experiments.text import __main__ as script
from experiments.text import compare, pretraining, scores, sets, settings, speed
from jaxcl import evaluation, losses, models, recipes, training
from jaxcl.recipes import text as text_lib

TINY = settings.Training(
    width=8,
    batch_size=16,
    epochs=3,
    vocabulary=400,
    longest=32,
    lengths=2,
    split="train[:200]",
    max_steps=4,
    log_every=1,
    save_every=2,
    loss="info_nce",
    optimizer="sgd",  # Adam would divide rounding errors by the size of a gradient
    learning_rate=0.1,
)


def changed(directory, **changes):
    return dataclasses.replace(TINY, directory=str(directory), **changes)


def compared(directory, **changes):
    names = {f.name for f in dataclasses.fields(TINY)} - {"loss", "directory"}
    known = {name: getattr(TINY, name) for name in names}
    s = compare.Settings(**{**known, "directory": str(directory), "seeds": (0,)})
    return dataclasses.replace(s, **changes)


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    """Anchors, positives and hard negatives, of few different words."""
    rng, words = (
        np.random.default_rng(0),
        ["red", "green", "blue", "cat", "dog", "bird", "sees", "eats"],
    )
    lines = [
        "\t".join(" ".join(rng.choice(words, 5)) for _ in range(3)) for _ in range(40)
    ]
    path = tmp_path_factory.mktemp("triples") / "triples.tsv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


COLUMNS = {
    "positives": "columns",
    "sentence": ("0", "1", "2"),
    "split": "train",
    "vocabulary": 270,
}


# From end to end. ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_topics_of_python_are_learned_from_and_tested_on(tmp_path, capsys):
    s = compared(tmp_path, losses=("sc_info_nce",), max_steps=2)
    found = compare.main(s)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [r["loss"] for r in rows] == [r.loss for r in found]
    assert [r["loss"] for r in rows][-2:] == ["untrained encoder", "sc_info_nce 1, 0"]
    assert "TF-IDF" in [r["loss"] for r in rows]
    assert all(0 <= r["mean"] <= 1 and r["set"] == "retrieval" for r in rows)
    told = capsys.readouterr().out
    assert "Recall at 1 of a topic's other half (x 100), one seed" in told
    assert "little of what a loss is worth" in told
    assert (tmp_path / "retrieval.png").stat().st_size > 0
    run = tmp_path / "sc_info_nce_1_0" / "seed_0"
    encoder = recipes.open_encoder(run)
    opened = encoder.open("topics", "train[:5]")
    assert encoder.represent(opened.columns["sentence"]).shape == (5, 8)


@pytest.mark.slow
def test_a_run_that_was_stopped_and_resumed_ends_bit_equal(tmp_path):
    s = {"augmentation": ("identity", "drop"), "average": 0.9, "depth": 1}
    s |= {"heads": 2, "projector": "normalized", "embedding": 4}
    expected = pretraining.pretrain(changed(tmp_path / "whole", **s))
    pretraining.pretrain(changed(tmp_path / "two", **s, max_steps=3))
    resumed = pretraining.pretrain(changed(tmp_path / "two", **s))
    for a, b in zip(*map(jax.tree.leaves, (resumed, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    resumed, expected = (
        [line["loss"] for line in training.read_metrics(tmp_path / name)]
        for name in ("two", "whole")
    )
    assert resumed == expected
    assert len(expected) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.losses.LossName.__args__)
def test_every_loss_runs_on_views(name, tmp_path):
    if name == "sup_con":
        with pytest.raises(ValueError, match="loss must not be 'sup_con', which reads"):
            settings.check(changed(tmp_path, loss=name))
        return
    views = 3 if name == "is_info_nce" else 2
    s = changed(tmp_path, loss=name, num_views=views, max_steps=1)
    settings.check(s)
    pretraining.pretrain(s)
    assert np.isfinite(training.read_metrics(tmp_path)[-1]["loss"])


@pytest.mark.slow
def test_third_columns_are_hard_negatives(triples, tmp_path):
    s = changed(
        tmp_path, source=triples, **COLUMNS, dropout=0.0, temperature=0.3, max_steps=1
    )
    made = pretraining.prepare(s)
    steps = pretraining.prepare_steps(s, made)
    batch = steps.feed(0)["sentence"]
    described = text_lib.describe(s, made.vocabulary)
    params, _ = text_lib.initialize(s, described, made.vocabulary)
    flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), batch)
    z = models.encode(described, "z")({"params": params["model"]}, flat)
    z = z.reshape(16, 3, -1)
    expected = losses.info_nce(
        z[:, 0], z[:, 1], hard_negatives=z[:, 2:], temperature=0.3
    )
    _, metrics = steps.step(steps.state, steps.feed(0), steps.key)
    np.testing.assert_allclose(metrics["loss"], expected.mean(), rtol=1e-5)


@pytest.mark.slow
def test_speed_says_what_feeding_and_padding_take(tmp_path, capsys):
    s = speed.Settings(**{**vars(TINY), "directory": str(tmp_path), "rounds": 3})
    found = speed.main(s)
    assert 0 < found["feeding"] < 1
    assert 0 < found["tokenizing"] < 1
    assert 0 <= found["padding"] < 0.3
    assert "sentences per second: a step of 16 takes" in capsys.readouterr().out


# What it is measured by. --------------------------------------------------------------


def test_retrieval_of_topics_is_that_of_one_topic_after_the_other():
    rng = np.random.default_rng(0)
    topic = rng.permutation(np.repeat(np.arange(7), 5))
    second = np.zeros(35, bool)
    for t in range(7):
        second[np.flatnonzero(topic == t)[:2]] = True
    h = rng.standard_normal((35, 3)) + 0.7 * rng.standard_normal((7, 3))[topic]
    right = 0
    for t in range(7):
        half = {}
        for u in range(7):
            for side in (False, True):
                among = h[(topic == u) & (second == side)]
                half[u, side] = sum(row / np.linalg.norm(row) for row in among)
        cosines = [
            half[t, False] @ half[u, True] / np.linalg.norm(half[u, True])
            for u in range(7)
        ]
        right += int(np.argmax(cosines)) == t
    assert 0 < right < 7
    topics = sets.Topics(np.array([""] * 35, object), topic, second)
    assert sets.retrieval(h, topics) == right / 7
    assert sets.retrieval(np.zeros((35, 3)), topics) == 0  # ties are wrong


def test_topics_are_halved_and_those_of_one_sentence_are_left_out():
    texts = np.array([f"sentence {i}" for i in range(9)], object)
    group = np.array([0, 1, 0, 2, 2, 0, 2, 2, 0])
    dataset = recipes.text.data.Dataset("x", {"sentence": texts, "group": group})
    topics = sets.read_topics(dataset)
    assert list(topics.texts) == [
        t for t, g in zip(texts, group, strict=True) if g != 1
    ]
    counts = [
        np.bincount(topics.second[topics.topic == t], minlength=2) for t in (0, 1)
    ]
    assert np.abs(np.diff(counts, axis=1)).max() <= 1


@pytest.fixture
def folder(tmp_path):
    def write(name, lines):
        with gzip.open(tmp_path / f"{name}.tsv.gz", "wt", encoding="utf-8") as file:
            file.write("".join("\t".join(line) + "\n" for line in lines))

    write("stsb_dev", [("5.0", "a b", "a b"), ("3", "a b", "a c"), ("0", "a b", "d e")])
    write(
        "mr",
        [(str(i % 2), f"{'good' if i % 2 else 'bad'} film {i}") for i in range(40)],
    )
    write(
        "trec_train",
        [(str(i % 2), f"{'who' if i % 2 else 'how'} {i}") for i in range(20)],
    )
    write("trec_test", [("0", "how far"), ("1", "who was"), ("1", "who else")])
    write(
        "agnews_test7600",
        [(str(1 + i % 2), f"title {i % 2}", "text") for i in range(20)],
    )
    return tmp_path


def test_sets_of_a_folder_are_scored_by_any_encoding(folder):
    tested = sets.open_tested(str(folder), (), True, None)
    assert list(tested.pairs) == ["stsb_dev"]
    assert list(tested.classes) == ["TREC", "MR", "AG News"]
    assert [c.official for c in tested.classes.values()] == [True, False, False]
    assert (len(tested.classes["MR"].train), len(tested.classes["MR"].test)) == (32, 8)
    assert np.bincount(tested.classes["MR"].test_labels).tolist() == [4, 4]
    assert tested.classes["AG News"].train[0].split()[0] == "title"
    words = evaluation.count_words(["a b c d e good bad film how who title 0 1"])

    def sparse(texts):
        return evaluation.tf_idf(words, list(texts))

    def dense(texts):
        return sparse(texts).toarray()

    found = [scores.measure(encode, tested).scores for encode in (sparse, dense)]
    assert found[0] == found[1]
    assert found[0]["stsb_dev"] == 1
    assert found[0]["MR"] == found[0]["TREC"] == found[0]["mean accuracy"] == 1
    metric = scores.metric_of(tested)
    assert set(metric.labels) == set(found[0])
    assert metric.compared == ["stsb_dev", "mean accuracy"]


# What a user's mistake ends in. -------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": ("nt_xent",), **COLUMNS}, "loss must be one of info_nce, clip for"),
        ({"losses": ("sup_con",)}, "loss must not be 'sup_con'"),
        ({"losses": ("dcl",), "alpha": 2.0}, "alpha must be left at 1.0, since only"),
        ({"source": "nowhere.txt", "split": "train"}, "nowhere.txt: there is no such"),
        ({"source": "pairs.docx", "split": "train"}, "source must be 'topics', or a f"),
        ({"sts": ("bad",)}, "sts must be NAME=path, got 'bad'"),
        ({"sets": "nowhere"}, "sets: there is no directory nowhere"),
        ({"sets": "."}, r"sets: \. must hold some of stsb_dev, sts12"),
        ({"sts": ("x=bad.tsv",)}, "bad.tsv: line 2 must have a finite score, got 'so"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(
    changes, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tsv").write_text("1.0\ta b\ta c\nsome\ta b\ta c\n")
    with pytest.raises((ValueError, OSError), match=f"^{words}"):
        compare.main(compared("run", **changes))
    assert not (tmp_path / "run").exists()


def test_sentences_without_topics_need_a_set(tmp_path, triples):
    s = compared(tmp_path / "run", source=triples, split="train", losses=("info_nce",))
    with pytest.raises(
        ValueError, match="sets or sts must name what encoders are test"
    ):
        compare.main(s)


def test_the_command_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["text", "--source", str(tmp_path / "no.txt")])
    with pytest.raises(SystemExit) as stop:
        script.cli()
    assert "no.txt: there is no such file" in str(stop.value)
    assert "\n" not in str(stop.value)
