"""Comparisons of losses: the tables of kernels and of (alpha, beta), tiny."""

import dataclasses
import json

import jax
import numpy as np
import optuna
import pytest

from experiments import compare, kernel_infonce, simclr
from experiments.sc_infonce import images
from jaxcl import evaluation, kernels, losses, study

TINY = compare.Instead(split="train[:200]", width=2, batch_size=40, epochs=1)
TWO = ("Gaussian (SimCLR)", "simple sum of losses")


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

    def of_images(held_out="test"):
        return study.Study(runs.append, features)

    monkeypatch.setattr(compare, "of_images", of_images)
    monkeypatch.setattr(evaluation, "probe_scores", scores)
    return runs


def test_a_table_of_kernels_is_trained_and_said(tmp_path, capsys, trained):
    s = kernel_infonce.Compare(
        directory=str(tmp_path), kernels=TWO, seeds=(0, 1), instead=TINY
    )
    rows = kernel_infonce.main(s)
    assert [(r.kernel, r.seed) for r in trained] == [
        ("gaussian", 0),
        ("simple_sum", 0),
        ("gaussian", 1),
        ("simple_sum", 1),
    ]
    assert [row.name for row in rows] == [study.UNTRAINED, *TWO]
    printed = capsys.readouterr().out
    assert "| simple sum of losses |" in printed
    assert "± 0.7" in printed  # of 90 and 91 %
    assert (tmp_path / "accuracy.png").exists()
    assert (tmp_path / "results.json").exists()


def test_a_search_that_was_stopped_goes_on_and_never_asks_held_out_images(
    tmp_path, monkeypatch, trained
):
    s = kernel_infonce.Search(
        directory=str(tmp_path), kernels=("Laplacian",), trials=3, rungs=2
    )
    asked, stop = [], [2]
    original = study.measure

    def measure(images, settings, **options):
        asked.append(settings.split)
        if len(asked) in stop:
            stop.clear()
            raise KeyboardInterrupt
        return original(images, settings, **options)

    monkeypatch.setattr(study, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        kernel_infonce.main(s)
    tuned = kernel_infonce.main(s)
    assert set(asked) == {"train[:80%]"}
    assert set(tuned["Laplacian"]) == {"learning_rate", "temperature"}
    assert json.loads((tmp_path / "tuned.json").read_text()) == tuned

    def trials(*states):
        study = kernel_infonce.open_study(tmp_path / "Laplacian" / "study.log", s)
        return study.get_trials(states=states)

    finished = trials(*kernel_infonce.FINISHED)
    assert len(finished) == 3
    # Accuracy was made to rise with the temperature.
    best = max(trial.params["temperature"] for trial in finished)
    assert tuned["Laplacian"]["temperature"] == best
    # The one that was stopped has gone on with its own settings, in its directory, and
    # no draw came twice.
    (failed,) = trials(kernel_infonce.FAILED)
    (resumed,) = (t for t in finished if t.params == failed.params)
    assert resumed.user_attrs == failed.user_attrs
    assert len({trial.params["temperature"] for trial in finished}) == 3
    # Again: nothing is left to do. Another kernel joins the file.
    asked.clear()
    assert kernel_infonce.main(s) == tuned
    assert not asked
    kernel_infonce.main(dataclasses.replace(s, kernels=("power 0.5",), trials=1))
    both = json.loads((tmp_path / "tuned.json").read_text())
    assert set(both) == {"Laplacian", "power 0.5"}
    assert both["Laplacian"] == tuned["Laplacian"]
    with pytest.raises(ValueError, match='metric: "all_labels" -> "knn"'):
        kernel_infonce.main(dataclasses.replace(s, metric="knn"))


def test_a_file_of_hyperparameters_is_checked(tmp_path, capsys):
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"Laplacian": {"temperature": 0.3}}))
    tuned = kernel_infonce.read_tuned(str(path), ("Laplacian", "power 0.5"))
    assert tuned["Laplacian"] == {"temperature": 0.3}
    assert "nothing for power 0.5" in capsys.readouterr().out
    path.write_text(json.dumps({"Laplacian": {"tau": 0.3}}))
    with pytest.raises(ValueError, match=r"settings of kernels.*\['tau'\]"):
        kernel_infonce.read_tuned(str(path), ())


@pytest.mark.slow
def test_a_real_comparison_trains_and_probes(tmp_path):
    s = kernel_infonce.Compare(
        directory=str(tmp_path), kernels=TWO[:1], seeds=(0,), instead=TINY
    )
    _, row = kernel_infonce.main(s)
    assert 0.3 < row.accuracy["all_labels"][0] <= 1


def test_the_search_draws_from_the_space_of_each_kernel():
    base = kernel_infonce.PROTOCOLS["digits"].settings
    space = {
        "Gaussian (SimCLR)": {"temperature"},
        "simple sum": {"temperature", "second_temperature"},
        "simple sum of losses": {"temperature", "weight", "power"},
        "arc-cosine 1": {"arc_scale"},
        "spectral contrastive": set(),
    }
    for name, expected in space.items():
        trial = optuna.create_study().ask()
        drawn = kernel_infonce.draw_settings(trial, name, "adamw", 1e-3)
        assert set(drawn) == expected | {"learning_rate"}
        assert drawn["learning_rate"] == 1e-3
        changed = kernel_infonce.variants(base, (name,), {name: drawn})[name]
        simclr.make_loss(dataclasses.replace(base, **changed))


def test_tuned_values_belong_to_rows_and_are_settings():
    fields = {field.name for field in dataclasses.fields(simclr.Settings)}
    assert set(kernel_infonce.TUNED) <= set(kernel_infonce.KERNELS)
    for changes in kernel_infonce.TUNED.values():
        assert set(changes) <= fields


def test_losses_are_added_outside_of_the_logarithm_and_kernels_inside():
    z = jax.random.normal(jax.random.key(0), (5, 2, 6))
    s = simclr.Settings(
        loss="kernel_info_nce", kernel="simple_sum", temperature=0.4, weight=0.3
    )
    labels = jax.numpy.arange(5)

    def of(**changes):
        changed = dataclasses.replace(s, **changes)
        return simclr.make_loss(changed)(z, labels, axis_name=None)

    gaussian, laplacian = of(kernel="gaussian"), of(kernel="laplacian")
    outside = of(mixture="losses")
    np.testing.assert_allclose(outside, 0.7 * gaussian + 0.3 * laplacian, rtol=1e-5)
    assert np.abs(of() - outside).max() > 1e-3
    # Equal weights are the paper's sum without weights.

    plain = kernels.kernel_sum(kernels.gaussian(0.4), kernels.laplacian(0.4))
    np.testing.assert_allclose(
        of(weight=0.5), losses.kernel_info_nce(z, kernel=plain), rtol=1e-5
    )
    half = of(kernel="concatenation_sum", mixture="losses", weight=0.0)
    unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
    first = losses.kernel_info_nce(
        unit[..., :3], kernel=kernels.gaussian(0.4, normalize=False)
    )
    np.testing.assert_allclose(half, first, rtol=1e-5)


def test_alpha_and_beta_give_a_table_and_a_picture(tmp_path, capsys, trained):
    s = images.Settings(
        directory=str(tmp_path),
        alphas=(1.0,),
        betas=(0.0, 0.5),
        losses=("IS-InfoNCE",),
        instead=TINY,
    )
    rows = images.main(s)
    names = [row.name for row in rows]
    assert names == [study.UNTRAINED, "IS-InfoNCE", "SC 1, 0", "SC 1, 0.5"]
    assert "| alpha \\ beta |    0 |  0.5 |" in capsys.readouterr().out
    assert (tmp_path / "alpha_beta.png").exists()
    assert [(r.loss, r.num_views, r.beta) for r in trained] == [
        ("is_info_nce", 3, 0.0),
        ("sc_info_nce", 2, 0.0),
        ("sc_info_nce", 2, 0.5),
    ]


@pytest.mark.parametrize("protocols", [kernel_infonce.PROTOCOLS, images.PROTOCOLS])
def test_named_protocols_build_their_models_and_losses(protocols):
    for protocol in protocols.values():
        simclr.make_model(protocol.settings)
        simclr.make_loss(protocol.settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (kernel_infonce.Compare(protocol="svhn"), "protocol must be one of digits"),
        (kernel_infonce.Compare(kernels=("Gauss",)), "each once, got .'Gauss'"),
        (kernel_infonce.Compare(kernels=TWO + TWO), "each once, got"),
        (kernel_infonce.Compare(seeds=()), r"seeds must be one or more .* got \(\)"),
        (kernel_infonce.Compare(seeds=(0, 0)), r"different ones, got \(0, 0\)"),
        (kernel_infonce.Search(trials=0), "trials must be at least 1, got 0"),
        (kernel_infonce.Search(rungs=0), "rungs must be at least 1, got 0"),
        (kernel_infonce.Search(learning_rate=-1.0), "must be positive, got -1"),
        (images.Settings(protocol="svhn"), "protocol must be one of digits"),
        (images.Settings(losses=("triplet",)), "each once, got .'triplet'"),
        (images.Settings(alphas=()), "alphas and betas must not be empty"),
    ],
)
def test_wrong_choices_are_named(settings, words, tmp_path):
    run = images.main if isinstance(settings, images.Settings) else kernel_infonce.main
    with pytest.raises(ValueError, match=words):
        run(dataclasses.replace(settings, directory=str(tmp_path)))


def test_wrong_kernels_are_named():
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], got 2"):
        simclr.make_kernels(simclr.Settings(kernel="simple_sum", weight=2.0))
    with pytest.raises(ValueError, match=r"power must lie in \(0, 2\], got 3"):
        simclr.make_kernels(simclr.Settings(kernel="simple_sum", power=3.0))
