"""The experiments of SC-InfoNCE, tiny: synthetic, and on images."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from experiments.sc_infonce import images, pretraining, synthetic, theory
from jaxcl import evaluation, kernels, losses, recipes, study

TINY = synthetic.Settings(
    settings=("1.2,0.2", "1.5,0"), batch_size=64, steps=40, test_batches=2
)


def _in(directory, **changes):
    return dataclasses.replace(TINY, directory=str(directory), **changes)


@pytest.mark.slow
def test_an_encoder_moves_towards_its_target_and_results_are_kept(tmp_path, capsys):
    rows = synthetic.main(_in(tmp_path / "run"))
    by_name = {row["loss"]: row for row in rows}
    assert by_name["InfoNCE"]["free_critic_error"] < 1e-6
    assert by_name["SC 1.2, 0.2"]["free_critic_error"] < 1e-6
    assert by_name["SC 1.5, 0"]["free_critic_error"] > 0.1
    assert by_name["InfoNCE, dot"]["encoder_error"] < 0.3
    printed = capsys.readouterr().out
    assert "does not reach its target, as theory says" in printed
    assert "NOT" not in printed
    for name in ("targets.png", "cosines.png"):
        assert (tmp_path / "run" / name).exists()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(record["cosines"]) >= {"InfoNCE", "DHEL", "KCL", "f-MICL"}
    with pytest.raises(FileExistsError, match="directory must be new"):
        synthetic.main(_in(tmp_path / "run"))


@pytest.mark.slow
def test_a_free_critic_reaches_its_target_where_theory_says_so():
    assert theory.free_critic(None, 0.0) < 1e-6
    assert theory.free_critic(1.2, 0.2) < 1e-6
    assert theory.free_critic(1.5, 0.0) > 0.1


def test_settings_that_are_no_pair_are_named():
    with pytest.raises(ValueError, match=r"pairs alpha,beta.*got '1'"):
        synthetic.main(_in("unused", settings=("1",)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"steps": 0}, "steps must be at least 11, got 0"),
        ({"test_batches": 0}, "test_batches must be at least 1, got 0"),
        ({"noise": -1.0}, r"noise must lie in \[0, inf\), got -1"),
    ],
)
def test_sizes_that_cannot_run_are_named_at_once(changes, words):
    with pytest.raises(ValueError, match=words):
        synthetic.main(_in("unused", **changes))


@pytest.fixture
def trained(monkeypatch):
    """The runs that were trained. Nothing is: accuracies are made of the settings."""
    runs = []

    def features(s, trained):
        value = 0.9 + s.seed / 100 + (s.temperature / 1000 if trained else 0)
        made = np.full((1, 1), value)
        return study.Features(made, np.zeros(1), made, np.zeros(1000), 10)

    def scores(h, *others, num_classes):
        return evaluation.ProbeScores(*3 * [float(h[0, 0])])

    monkeypatch.setattr(pretraining, "STUDY", study.Study(runs.append, features))
    monkeypatch.setattr(evaluation, "probe_scores", scores)
    return runs


def test_alpha_and_beta_give_a_table_and_a_picture(tmp_path, capsys, trained):
    s = images.Settings(
        directory=str(tmp_path),
        alphas=(1.0,),
        betas=(0.0, 0.5),
        losses=("IS-InfoNCE",),
        instead=recipes.Instead(split="train[:200]", width=2, epochs=1),
    )
    rows = images.main(s)
    names = [row.name for row in rows]
    assert names == [study.UNTRAINED, "IS-InfoNCE", "SC 1, 0", "SC 1, 0.5"]
    assert "| alpha \\ beta |    0 |  0.5 |" in capsys.readouterr().out
    assert (tmp_path / "alpha_beta.png").exists()
    assert [(r.loss, r.num_views, r.alpha, r.beta) for r in trained] == [
        ("IS-InfoNCE", 3, 1.0, 0.0),
        ("SC-InfoNCE", 2, 1.0, 0.0),
        ("SC-InfoNCE", 2, 1.0, 0.5),
    ]


def test_every_loss_is_the_one_that_its_name_says():
    z, t = jax.random.normal(jax.random.key(0), (5, 3, 6)), 0.3
    s = pretraining.Training(temperature=t, alpha=1.2, beta=0.2, variant="full")
    of_views = {
        "NT-Xent": functools.partial(losses.nt_xent, temperature=t),
        "DCL": functools.partial(losses.dcl, temperature=t),
        "DHEL": functools.partial(losses.dhel, temperature=t),
        "KCL": functools.partial(losses.kcl, kernel=kernels.gaussian(1.0)),
        "f-MICL": losses.f_micl,
    }
    expected = {name: loss(z[:, :2]) for name, loss in of_views.items()}
    x, y, negatives = z[:, 0], z[:, 1], z[:, 2]
    expected["InfoNCE"] = losses.info_nce(x, y, temperature=t)
    expected["IS-InfoNCE"] = losses.is_info_nce(x, y, negatives, temperature=t)
    expected["SC-InfoNCE"] = losses.sc_info_nce(
        x, y, temperature=t, alpha=1.2, beta=0.2, variant="full"
    )
    assert set(expected) == {"SC-InfoNCE", *pretraining.OTHERS}
    for name, values in expected.items():
        views = z if name == "IS-InfoNCE" else z[:, :2]
        loss = pretraining.make_loss(dataclasses.replace(s, loss=name))
        np.testing.assert_allclose(loss(views), values, rtol=1e-6)


@pytest.mark.slow
def test_a_loss_of_three_views_trains(tmp_path):
    s = images.Settings(
        directory=str(tmp_path),
        alphas=(1.0,),
        betas=(0.0,),
        losses=("IS-InfoNCE",),
        instead=recipes.Instead(split="train[:200]", width=2, batch_size=40, epochs=1),
    )
    rows = images.main(s)
    accuracy = {row.name: row.scores["all_labels"][0] for row in rows}
    assert len(set(map(str, (row.scores for row in rows)))) == 3
    assert min(accuracy.values()) > 0.3


@pytest.mark.parametrize("name", pretraining.PROTOCOLS)
def test_named_protocols_build_their_models(name):
    settings = pretraining.PROTOCOLS[name]
    shape = (8, 8, 1) if name in ("digits", "mnist") else (32, 32, 3)
    described = recipes.describe(settings, shape)
    params, _ = jax.eval_shape(lambda: recipes.initialize(settings, described))
    assert sum(x.size for x in jax.tree.leaves(params)) > 10_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": "svhn"}, "protocol must be one of digits"),
        ({"losses": ("triplet",)}, "each once, got .'triplet'"),
        ({"alphas": ()}, r"alphas must be one or more different ones, got \(\)"),
    ],
)
def test_wrong_choices_are_named(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        images.main(images.Settings(directory=str(tmp_path), **changes))
