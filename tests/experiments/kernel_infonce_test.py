"""The table of kernels, tiny: what its rows are, what is trained, and the search."""

import dataclasses
import json
import sys

import jax
import numpy as np
import optuna
import pytest

from experiments.kernel_infonce import __main__ as script
from experiments.kernel_infonce import compare, pretraining, search
from experiments.kernel_infonce import rows as rows_lib
from jaxcl import evaluation, kernels, losses, recipes, study

TINY = recipes.Instead(split="train[:200]", width=2, batch_size=40, epochs=1)
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

    monkeypatch.setattr(pretraining, "STUDY", study.Study(runs.append, features))
    monkeypatch.setattr(evaluation, "probe_scores", scores)
    return runs


def test_a_table_of_kernels_is_trained_and_said(tmp_path, capsys, trained):
    s = compare.Settings(
        directory=str(tmp_path), kernels=TWO, seeds=(0, 1), instead=TINY
    )
    rows = compare.main(s)
    assert [(r.row, r.seed) for r in trained] == [
        (name, seed) for seed in (0, 1) for name in TWO
    ]
    assert {(r.width, r.batch_size, r.epochs) for r in trained} == {(2, 40, 1)}
    assert [row.name for row in rows] == [study.UNTRAINED, *TWO]
    printed = capsys.readouterr().out
    assert "| simple sum of losses |" in printed
    assert "± 0.7" in printed  # of 90 and 91 %
    assert (tmp_path / "accuracy.png").exists()
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["variants"][TWO[1]] == {
        "row": TWO[1],
        "temperature": 0.137,
        "weight": 0.926,
        "power": 1.0,
    }


def test_the_published_gain_is_supported_only_where_the_interval_says_so():
    def said(mean, margin):
        return compare.conclude({"simple sum": study.Difference(mean, margin)})

    assert "+1.00; supported by these runs" in said(1.0, 0.5)
    assert "+0.40; not supported by these runs." in said(0.4, 0.5)
    assert "where it LOSES" in said(-1.0, 0.5)
    assert "one seed supports nothing" in said(1.0, np.nan)
    assert compare.conclude({}) == ""


def test_a_search_that_was_stopped_goes_on_and_never_asks_held_out_images(
    tmp_path, monkeypatch, trained
):
    s = search.Settings(
        directory=str(tmp_path), kernels=("Laplacian",), trials=3, rungs=2
    )
    asked, stop = [], [2]
    original = study.measure

    def measure(images, settings, **options):
        asked.append((settings.split, settings.test_split))
        if len(asked) in stop:
            stop.clear()
            raise KeyboardInterrupt
        return original(images, settings, **options)

    monkeypatch.setattr(study, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        search.main(s)
    tuned = search.main(s)
    assert set(asked) == {("train[:80%]", "train[80%:]")}
    assert set(tuned["Laplacian"]) == {"learning_rate", "temperature"}
    assert json.loads((tmp_path / "tuned.json").read_text()) == tuned

    def trials(*states):
        found = search.open_study(tmp_path / "Laplacian" / "study.log", s.seed)
        return found.get_trials(states=states)

    finished = trials(*search.FINISHED)
    assert len(finished) == 3
    # Accuracy was made to rise with the temperature.
    best = max(trial.params["temperature"] for trial in finished)
    assert tuned["Laplacian"]["temperature"] == best
    # The one that was stopped has gone on with its own settings, in its directory, and
    # no draw came twice.
    (failed,) = trials(search.FAILED)
    (resumed,) = (t for t in finished if t.params == failed.params)
    assert resumed.user_attrs == failed.user_attrs
    assert len({trial.params["temperature"] for trial in finished}) == 3
    # Again: nothing is left to do. Another kernel joins the file.
    asked.clear()
    assert search.main(s) == tuned
    assert not asked
    search.main(dataclasses.replace(s, kernels=("power 0.5",), trials=1))
    both = json.loads((tmp_path / "tuned.json").read_text())
    assert set(both) == {"Laplacian", "power 0.5"}
    assert both["Laplacian"] == tuned["Laplacian"]
    with pytest.raises(ValueError, match='metric: "all_labels" -> "knn"'):
        search.main(dataclasses.replace(s, metric="knn"))


def test_a_file_of_hyperparameters_is_checked(tmp_path, capsys):
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"Laplacian": {"temperature": 0.3}}))
    tuned = compare.read_tuned(str(path), ("Laplacian", "power 0.5"))
    assert tuned["Laplacian"] == {"temperature": 0.3}
    assert "nothing for power 0.5" in capsys.readouterr().out
    path.write_text(json.dumps({"Laplacian": {"tau": 0.3}}))
    with pytest.raises(ValueError, match=r"settings of kernels.*\['tau'\]"):
        compare.read_tuned(str(path), ())


@pytest.mark.slow
def test_a_real_comparison_trains_and_probes(tmp_path):
    s = compare.Settings(
        directory=str(tmp_path), kernels=TWO[:1], seeds=(0,), instead=TINY
    )
    untrained, row = compare.main(s)
    assert 0.3 < row.scores["all_labels"][0] <= 1
    assert row.scores != untrained.scores
    assert row.num_held_out == 497


def test_the_search_draws_from_the_space_of_each_kernel():
    base = pretraining.PROTOCOLS["digits"].settings
    space = {
        "Gaussian (SimCLR)": {"temperature"},
        "simple sum": {"temperature", "second_temperature"},
        "simple sum of losses": {"temperature", "weight", "power"},
        "arc-cosine 1": {"arc_scale"},
        "spectral contrastive": set(),
    }
    for name, expected in space.items():
        trial = optuna.create_study().ask()
        drawn = search.draw_settings(trial, name, "adamw", 1e-3)
        assert set(drawn) == expected | {"learning_rate"}
        assert drawn["learning_rate"] == 1e-3
        changed = dataclasses.replace(base, **rows_lib.variant(base, name, drawn))
        values = rows_lib.ROWS[name].make_loss(changed)(Z)
        assert np.isfinite(values).all()


Z = jax.random.normal(jax.random.key(0), (5, 2, 6))


def _loss(name, **changes):
    return rows_lib.ROWS[name].make_loss(rows_lib.Training(**changes))(Z)


def test_every_row_is_the_kernel_that_its_name_says():
    t, u = 0.4, 0.3
    kernel_of = {
        "Gaussian (SimCLR)": kernels.gaussian(t),
        "Laplacian": kernels.laplacian(t),
        "power 0.5": kernels.exponential(0.5, t),
        "simple sum": kernels.kernel_sum(
            kernels.gaussian(t), kernels.laplacian(u), weights=(0.5, 0.5)
        ),
        "concatenation sum": kernels.concatenation_sum(
            kernels.gaussian(t), kernels.laplacian(u), weights=(0.5, 0.5)
        ),
        "arc-cosine 0": kernels.arc_cosine(0, 0.7),
        "arc-cosine 1": kernels.arc_cosine(1, 0.7),
        "arc-cosine 2": kernels.arc_cosine(2, 0.7),
    }
    for name, kernel in kernel_of.items():
        found = _loss(name, temperature=t, second_temperature=u, arc_scale=0.7)
        expected = losses.kernel_info_nce(Z, kernel=kernel)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(
        _loss("spectral contrastive"), losses.spectral_contrastive(Z), rtol=1e-6
    )
    others = {"simple sum of losses", "concatenation of losses", "spectral contrastive"}
    assert set(rows_lib.ROWS) == set(kernel_of) | others


def test_losses_are_added_outside_of_the_logarithm_and_kernels_inside():
    options = {"temperature": 0.4, "weight": 0.3}
    gaussian = _loss("Gaussian (SimCLR)", temperature=0.4)
    laplacian = _loss("Laplacian", temperature=0.4)
    outside = _loss("simple sum of losses", **options)
    np.testing.assert_allclose(outside, 0.7 * gaussian + 0.3 * laplacian, rtol=1e-5)
    assert np.abs(_loss("simple sum", **options) - outside).max() > 1e-3
    # Equal weights are the paper's sum without weights.
    plain = kernels.kernel_sum(kernels.gaussian(0.4), kernels.laplacian(0.4))
    np.testing.assert_allclose(
        _loss("simple sum", temperature=0.4),
        losses.kernel_info_nce(Z, kernel=plain),
        rtol=1e-5,
    )
    half = _loss("concatenation of losses", temperature=0.4, weight=0.0)
    unit = Z / np.linalg.norm(Z, axis=-1, keepdims=True)
    first = losses.kernel_info_nce(
        unit[..., :3], kernel=kernels.gaussian(0.4, normalize=False)
    )
    np.testing.assert_allclose(half, first, rtol=1e-5)


def test_rows_that_compare_halves_have_an_embedding_twice_as_wide():
    base = rows_lib.Training(embedding=12)
    changed = {name: rows_lib.variant(base, name, {}) for name in rows_lib.ROWS}
    wider = {name for name, of in changed.items() if of.get("embedding") == 24}
    assert wider == {"concatenation sum", "concatenation of losses"}


def test_tuned_values_belong_to_rows_and_to_what_is_searched():
    for name, changes in rows_lib.TUNED.items():
        assert set(changes) <= set(rows_lib.ROWS[name].space)


@pytest.mark.parametrize("name", pretraining.PROTOCOLS)
def test_named_protocols_build_their_models_and_views(name):
    settings = pretraining.PROTOCOLS[name].settings
    shape = (8, 8, 1) if name in ("digits", "mnist") else (32, 32, 3)
    described = recipes.describe(settings, shape)
    params, _ = jax.eval_shape(lambda: recipes.initialize(settings, described))
    assert sum(x.size for x in jax.tree.leaves(params)) > 10_000
    transform = recipes.make_transform(settings, shape)
    image = jax.ShapeDtypeStruct(shape, np.float32)
    assert jax.eval_shape(transform, jax.random.key(0), image).shape == shape


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (compare.Settings(protocol="svhn"), "protocol must be one of digits"),
        (compare.Settings(kernels=("Gauss",)), "each once, got .'Gauss'"),
        (compare.Settings(kernels=TWO + TWO), "each once, got"),
        (compare.Settings(seeds=()), r"seeds must be one or more .* got \(\)"),
        (search.Settings(trials=0), "trials must be at least 1, got 0"),
        (search.Settings(rungs=0), "rungs must be at least 1, got 0"),
        (
            search.Settings(learning_rate=-1.0),
            "learning_rate must be positive and finite, got -1",
        ),
    ],
)
def test_wrong_choices_are_named(settings, words, tmp_path):
    run = compare.main if isinstance(settings, compare.Settings) else search.main
    with pytest.raises(ValueError, match=words):
        run(dataclasses.replace(settings, directory=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 2.0}, r"weight must lie in \[0, 1\], got 2"),
        ({"power": -1.0}, "power must be positive and finite, got -1"),
        ({"batch_size": 240}, "batch_size must be at most the 200 images of 'digits'"),
        ({"epochs": 1, "split": "train[:60]"}, "at least 10 images of each class"),
    ],
)
def test_runs_that_could_not_end_leave_nothing_behind(changes, words, tmp_path):
    tuned, home = tmp_path / "tuned.json", tmp_path / "new"
    of_row = {k: v for k, v in changes.items() if k in ("weight", "power")}
    tuned.write_text(json.dumps({"simple sum of losses": of_row}))
    given = {"split": "train[:200]", "batch_size": 40, "epochs": 1} | changes
    given = {k: v for k, v in given.items() if k not in of_row}
    s = compare.Settings(
        directory=str(home),
        kernels=("simple sum of losses",),
        tuned=str(tuned),
        instead=recipes.Instead(**given),
    )
    with pytest.raises(ValueError, match=words):
        compare.main(s)
    assert not home.exists()


def test_flags_alone_mean_the_comparison_and_errors_are_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kernel_infonce", "--protocol", "svhn"])
    with pytest.raises(SystemExit) as ended:
        script.cli()
    assert str(ended.value.code).startswith("ValueError: protocol must be one of")
    assert "\n" not in ended.value.code
