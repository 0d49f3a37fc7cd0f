"""Inputs, measures and steps of the experiments on Gaussianity; the scripts, tiny."""

import dataclasses
import functools
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.gaussianity import (
    __main__,
    encoders,
    image_runs,
    images,
    inputs,
    measures,
    pictures,
    sweep,
    synthetic,
    synthetic_conclusions,
    synthetic_runs,
    synthetic_settings,
)
from jaxcl import training
from tests.pictures import legible

TINY = synthetic_settings.Settings(
    size=24,
    dimension=6,
    num_train=256,
    num_test=200,
    batch_size=32,
    epochs=3,
    measurements=2,
)
PICTURES = ("norms.png", "quantiles.png", "cosines.png", "metrics.png")


def _moments(rows):
    x = np.asarray(rows, np.float64)
    return x - x.mean(axis=0)


def test_views_of_laplace_are_correlated_as_the_formula_says():
    s = inputs.Scales(size=8, view_scale=0.0)
    source = inputs.laplace(s)
    items = source.draw(jax.random.key(0), 20_000)
    x = _moments(source.views(jax.random.key(1), items))
    correlation = (x[:, 0] * x[:, 1]).mean() / (x**2).mean()
    # Channel: A x of variance 2 A^2, noise 1 - A^2 and 0.2^2; a number stays by 0.9.
    signal, rest = 2 * 0.36, 0.64 + 0.04
    expected = 0.9**2 * signal / (0.9 * (signal + rest))
    np.testing.assert_allclose(inputs.view_correlation(s), expected, rtol=1e-12)
    # 4 standard errors of a mean of 160,000 products of about unit variance.
    assert abs(correlation - expected) < 4 * 2 / math.sqrt(160_000)


def test_the_norm_of_projected_laplace_numbers_varies_as_the_formula_says():
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.standard_normal((256, 64)))[0]
    norm = np.sqrt(((random.laplace(size=(20_000, 256)) @ basis) ** 2).sum(1))
    cv = inputs.projection_cv(inputs.Scales(size=256), 64)
    # The formula keeps the leading order in 1 / d; the standard error is 0.5 %.
    np.testing.assert_allclose(norm.std() / norm.mean(), cv, rtol=0.02)


def test_one_factor_scales_a_whole_view_of_laplace():
    silent = inputs.Scales(size=5, signal=1.0, view_noise=0.0, view_dropout=0.0)
    items = jnp.ones((4000, 5))
    views = np.asarray(inputs.laplace(silent).views(jax.random.key(0), items))
    np.testing.assert_allclose(np.ptp(views, axis=2), 0, atol=1e-6)
    logarithm = np.log(views[..., 0])
    assert abs(logarithm.std() - 0.1) < 4 * 0.1 / math.sqrt(2 * logarithm.size)
    assert abs(np.corrcoef(logarithm.T)[0, 1]) < 4 / math.sqrt(len(items))


def test_views_of_a_mixture_share_their_component_and_nothing_else():
    s = inputs.Scales(size=16, components=5)
    source = inputs.mixture(s)
    train, test = (np.asarray(source.draw(jax.random.key(i), 300)) for i in (0, 1))
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 5
    views = np.asarray(source.views(jax.random.key(2), jnp.asarray(train)), np.float64)
    noise = views - train[:, None]
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 4 / math.sqrt(noise.size / 2)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / noise.size)
    clean = source.clean(jax.random.key(3), jnp.asarray(train))
    assert abs((np.asarray(clean) - train).mean()) < 4 / math.sqrt(clean.size)


def test_views_of_binary_gain_ones_at_the_stated_rate_and_lose_none():
    s = inputs.Scales(size=50, density=0.1, flip=0.02)
    source = inputs.binary(s)
    items = np.asarray(source.draw(jax.random.key(0), 2000))
    assert abs(items.mean() - 0.1) < 4 * math.sqrt(0.09 / items.size)
    views = np.asarray(source.views(jax.random.key(1), jnp.asarray(items)))
    assert set(np.unique(views)) == {0.0, 1.0}
    for view in (views[:, 0], views[:, 1]):
        assert (view >= items).all()
        gained = view[items == 0]
        assert abs(gained.mean() - 0.02) < 4 * math.sqrt(0.02 / gained.size)
    assert (views[:, 0] != views[:, 1]).any()


def test_gaussian_rows_pass_and_what_is_measured_equals_its_definition():
    random = np.random.default_rng(0)
    z = 3 * random.standard_normal((2000, 32)).astype(np.float32)
    views = np.stack([z, 2 * z + random.standard_normal(z.shape)], 1).astype(np.float32)
    found = measures.snapshot(z, views, pairs=50)
    m, x = found.measures, z.astype(np.float64)
    norm = np.sqrt((x**2).sum(1))
    u = x / norm[:, None]
    cosines = (u @ u.T)[~np.eye(len(u), dtype=bool)]
    np.testing.assert_allclose(m.cv, norm.std() / norm.mean(), rtol=1e-4)
    np.testing.assert_allclose(m.mean_norm, norm.mean(), rtol=1e-6)
    np.testing.assert_allclose(m.negative_std, cosines.std(), rtol=1e-4)
    np.testing.assert_allclose(m.negative_mean, cosines.mean(), atol=1e-6)
    expected = math.sqrt((u.mean(0) ** 2).sum())
    np.testing.assert_allclose(m.mean_direction, expected, rtol=1e-6)
    y = views[:, 1].astype(np.float64)
    y /= np.sqrt((y**2).sum(1, keepdims=True))
    np.testing.assert_allclose(m.alignment, (u * y).sum(1).mean(), rtol=1e-5)
    assert found.negatives.shape == (50 * 49 // 2,)
    assert m.num_samples == 2000
    assert measures.is_gaussian(m)


def test_cosines_are_of_inputs_of_all_classes_where_these_are_sorted():
    z = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    z[:, 0] += np.repeat([-9, 9], 300)  # two classes, opposite to each other
    found = measures.snapshot(z, np.stack([z, z], 1), pairs=50)
    assert 0.4 < (found.negatives < 0).mean() < 0.6


def test_long_tails_a_wide_shell_or_one_bad_average_are_not_gaussian():
    random = np.random.default_rng(0)
    tails = random.laplace(size=(2000, 32)).astype(np.float32)
    m = measures.snapshot(tails, np.stack([tails, tails], 1)).measures
    assert not measures.is_gaussian(m)
    wide = random.standard_normal((2000, 32)) * random.lognormal(0, 0.5, (2000, 1))
    wide = wide.astype(np.float32)
    m = measures.snapshot(wide, np.stack([wide, wide], 1)).measures
    assert not measures.is_gaussian(m)
    good = m._replace(ad_mean=0.4, dp_mean=0.5, ad_pass=0.9, dp_pass=0.9)
    assert measures.is_gaussian(good)
    for bad in ({"ad_mean": 0.8}, {"dp_mean": 0.04}, {"ad_pass": 0.8}):
        assert not measures.is_gaussian(good._replace(**bad))


def test_a_table_has_a_row_for_each_name_and_one_for_gaussian_embeddings():
    m = measures.Measures(0.1, 0.4, 0.9, 0.5, 0.9, 99, 0, 0.7, 0, 0.1, 2.0, 0.0, 4.0)
    lines = measures.table([("one", m), ("another", m)], 4).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert "0.500" in lines[-1]  # 1 / sqrt(4)


def test_every_panel_of_a_grid_shows_the_moment_that_its_row_and_title_name():
    z = np.zeros((3, 2))
    moments = {
        law: {kind: measures.Snapshot(z, z, z, f"{law} {kind}") for kind in "abc"}
        for law in ("one", "another")
    }
    figure, panels = pictures._grid(moments, "density", "cosine", 2.0)
    titles = [axes.get_title() for axes in figure.axes[:3]]
    for i, (panel, _, moment) in enumerate(panels):
        law = figure.axes[i // 3 * 3].get_ylabel().split("\n")[0]
        assert panel is figure.axes[i]
        assert moment.measures == f"{law} {titles[i % 3]}"
    assert len(panels) == 6


@pytest.mark.slow
def test_pictures_of_moments_are_legible_and_show_every_moment(tmp_path):
    random = np.random.default_rng(0)

    def snapshot(d, scale):
        z = (scale * random.laplace(size=(300, d))).astype(np.float32)
        return measures.snapshot(z, np.stack([z, z + 0.1], 1))

    kinds = ("untrained", "InfoNCE", "with penalty")
    moments = {
        law: {kind: snapshot(d, 2.0**i) for i, kind in enumerate(kinds)}
        for law, d in (("laplace", 8), ("a mixture", 32))
    }
    with legible.checked() as drawn:
        pictures.norms(tmp_path / "norms.png", moments)
        pictures.quantiles(tmp_path / "quantiles.png", moments)
        pictures.cosines(tmp_path / "cosines.png", moments)
        curves = [
            pictures.History(
                kind, i, 0, [0, 5], [moments["laplace"][kind].measures] * 2
            )
            for i, kind in enumerate(kinds)
        ]
        pictures.histories(tmp_path / "metrics.png", curves, 8)
    assert sorted(drawn) == sorted(PICTURES)


def _step(views, *, valid=None, **options):
    """One step of plain gradient descent: weights before and after, and metrics."""
    model = encoders.make("linear", 3)
    params = model.init(jax.random.key(0), views[:1, 0])
    loss_fn = encoders.make_loss(model, 0.2, **options)
    state = training.create_state(params, {}, optax.sgd(0.1))
    batch = {"views": views} if valid is None else {"views": views, "valid": valid}
    step = jax.jit(functools.partial(training.train_step, loss_fn))
    after, metrics = step(state, batch, jax.random.key(0))
    weights = [x.params["params"]["kernel"] for x in (state, after)]
    return *weights, (metrics["info_nce"], metrics["norm"])


def test_a_step_reports_info_nce_and_norm_of_all_views():
    views = jax.random.normal(jax.random.key(1), (6, 2, 5))
    before, after, (loss, norm) = _step(views)
    z = np.asarray(views, np.float64) @ np.asarray(before, np.float64)
    u = z / np.sqrt((z**2).sum(-1, keepdims=True))
    expected = 0
    for i in range(6):
        s = u[:, 1] @ u[i, 0] / 0.2
        expected += (np.log(np.exp(s).sum()) - s[i]) / 6
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(norm, np.sqrt((z**2).sum(-1).mean()), rtol=1e-6)
    assert np.abs(after - before).max() > 1e-4


def test_a_step_on_valid_examples_is_a_step_on_them_alone():
    views = jax.random.normal(jax.random.key(1), (6, 2, 5))
    _, masked, (loss, _) = _step(views, valid=jnp.arange(6) < 4)
    _, alone, (expected, _) = _step(views[:4])
    np.testing.assert_allclose(masked, alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_penalty_moves_the_norm_towards_its_target():
    views = jax.random.normal(jax.random.key(1), (64, 2, 5))
    for factor, grows in ((0.1, True), (10.0, False)):
        before, after, _ = _step(factor * views, beta=0.2, lam=0.5)
        x = factor * np.asarray(views)
        first, last = (np.square(x @ np.asarray(w)).sum() for w in (before, after))
        assert (last > first) == grows


def test_the_weight_of_the_penalty_is_the_threshold_of_the_theory():
    s = dataclasses.replace(TINY, beta_factor=2.0, temperature=0.1, eta=0.36)
    assert synthetic_settings.beta_of(s, "binary") == pytest.approx(
        2 * 2 * 10 * 0.64 / 6
    )
    s = dataclasses.replace(s, eta=None)
    assert synthetic_settings.beta_of(s, "mixture") == pytest.approx(2 * 2 * 10 / 6)
    plugged = 1 - inputs.view_correlation(s)
    assert synthetic_settings.beta_of(s, "laplace") == pytest.approx(
        2 * 2 * 10 * plugged / 6
    )


@pytest.mark.slow
def test_a_synthetic_run_keeps_what_it_measured_and_is_not_overwritten(
    tmp_path, capsys
):
    s = dataclasses.replace(TINY, laws=("binary",), directory=str(tmp_path / "run"))
    with legible.checked() as drawn:
        runs = synthetic.main(s)
    assert list(runs["binary"]) == ["InfoNCE", "with penalty"]
    assert runs["binary"]["InfoNCE"].epochs == [0, 1, 2, 3]
    assert runs["binary"]["InfoNCE"].norm.shape == (3 * 8,)
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(record["rows"]) == {
        "binary, untrained",
        "binary, InfoNCE",
        "binary, with penalty",
    }
    first, last = (
        getattr(runs["binary"]["InfoNCE"], x).measures.cv for x in ("first", "last")
    )
    assert record["rows"]["binary, untrained"]["cv"] == first
    assert record["rows"]["binary, InfoNCE"]["cv"] == last
    assert "binary: without penalty the norm" in capsys.readouterr().out
    assert sorted(drawn) == sorted((*PICTURES, "radius.png"))
    with pytest.raises(FileExistsError, match="directory must be new"):
        synthetic.main(s)


@pytest.mark.slow
def test_theory_of_laplace_and_the_pinned_radius_are_found_by_training(tmp_path):
    s = synthetic_settings.Settings(
        laws=("laplace",),
        encoder="linear",
        size=128,
        dimension=32,
        num_train=2560,
        epochs=20,
        directory=str(tmp_path),
    )
    runs = synthetic.main(s)["laplace"]
    ceiling = inputs.view_correlation(s)
    for moment in (runs["InfoNCE"].first, runs["InfoNCE"].last):
        assert abs(moment.measures.alignment - ceiling) < 0.02
    drifting, pinned = runs["InfoNCE"].norm, runs["with penalty"].norm
    assert drifting[-40:].mean() > 1.1 * drifting[0]
    np.testing.assert_allclose(pinned[-40:].mean(), math.sqrt(32), rtol=0.02)


@pytest.mark.slow
def test_a_sweep_measures_every_batch_size_dimension_and_seed(tmp_path):
    s = sweep.Settings(
        size=24,
        batch_sizes=(4, 8),
        dimensions=(4, 6),
        seeds=2,
        steps=20,
        num_test=200,
        directory=str(tmp_path / "run"),
    )
    with legible.checked() as drawn:
        found = sweep.main(s)
    assert set(found) == set(sweep.TITLES)
    for values in found.values():
        assert values.shape == (2, 2, 2)
        assert np.isfinite(values).all()
        assert len(np.unique(values)) == values.size
    assert drawn == ["sweep.png"]
    with pytest.raises(FileExistsError, match="directory must be new"):
        sweep.main(s)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["info_nce", "nt_xent"])
def test_both_encoders_of_images_start_as_one_and_end_apart(tmp_path, loss):
    s = images.Settings(
        split="train[:200]",
        test_split="test[:120]",
        width=4,
        dimension=8,
        batch_size=48,
        epochs=2,
        measurements=1,
        loss=loss,
        directory=str(tmp_path / "run"),
    )
    with legible.checked() as drawn:
        runs = images.main(s)
    first = [run.first.z for run in runs.values()]
    np.testing.assert_array_equal(*first)
    assert np.abs(runs["contrastive"].last.z - runs["supervised"].last.z).max() > 0.1
    assert runs["supervised"].epochs == [0, 2]
    assert sorted(drawn) == sorted(PICTURES)
    with pytest.raises(FileExistsError, match="directory must be new"):
        images.main(s)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1000}, r"batch_size must be at most \d+, got 1000"),
        ({"signal": 0.0}, r"signal must lie in \(0, 1\], got 0"),
        ({"eta": 2.0}, r"eta must lie in \[0, 1\], got 2"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"laws": ("binary", "binary")}, "laws must be one or more different ones"),
        ({"beta_factor": -1.0}, r"beta_factor must lie in \[0, inf\), got -1"),
    ],
)
def test_settings_that_cannot_run_are_named(tmp_path, changes, message):
    s = dataclasses.replace(TINY, directory=str(tmp_path / "new"), **changes)
    with pytest.raises(ValueError, match=message):
        synthetic.main(s)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (synthetic.main, TINY),
        (sweep.main, sweep.Settings()),
        (images.main, images.Settings()),
    ],
)
def test_a_file_in_the_way_of_the_results_is_found_before_the_work(
    tmp_path, run, settings
):
    (tmp_path / "file").write_text("")
    s = dataclasses.replace(settings, directory=str(tmp_path / "file" / "run"))
    with pytest.raises(NotADirectoryError, match="directory must be a directory, and"):
        run(s)


@pytest.mark.slow
def test_a_finding_allows_for_the_chance_of_few_inputs():
    random = np.random.default_rng(0)
    s = dataclasses.replace(TINY, dimension=32, size=128)
    ceiling, cv = inputs.view_correlation(s), inputs.projection_cv(s, 32)

    def verdicts(n, off):
        z = random.standard_normal((n, 2))
        m = measures.snapshot(z.astype("f4"), np.stack([z, z], 1).astype("f4")).measures
        m = m._replace(alignment=ceiling + off, cv=cv * (1 + 5 * off))
        moment = measures.Snapshot(z, 0.12 * z[:, 0], z[:, 0], m)
        run = synthetic_runs.Trained([0], [m], moment, moment, np.ones(4), np.ones(4))
        said = list(synthetic_conclusions.conclude_laplace(s, run))
        assert all("after 4 steps" in line for line in said)
        return ["DISAGREES" not in line for line in said]

    # Four standard errors of 50 cosines are 0.068, and of their cv 40 %.
    assert verdicts(50, 0.033) == [True, True]
    assert verdicts(50, 0.12) == [False, False]
    assert verdicts(2000, 0.033) == [False, False]


@pytest.mark.parametrize(
    ("command", "suggested"),
    [("synthetic", "--epochs INT"), ("images", "--seed INT")],
)
def test_a_wrong_flag_is_answered_with_those_of_its_own_script(
    command, suggested, capsys, monkeypatch
):
    flag = suggested.split()[0][:-1]
    monkeypatch.setattr(sys, "argv", ["gaussianity", *command.split(), flag, "3"])
    with pytest.raises(SystemExit):
        __main__.cli()
    printed = capsys.readouterr()
    said = " ".join((printed.out + printed.err).replace("│", " ").split())
    name = command.split()[0]
    assert suggested in said
    assert f"run python -m experiments.gaussianity {name} --help" in said
    assert "in python" not in said


def test_the_command_line_ends_with_the_error_and_no_traceback(tmp_path, monkeypatch):
    flags = ["synthetic", "--directory", str(tmp_path), "--batch_size", "1"]
    monkeypatch.setattr(sys, "argv", ["gaussianity", *flags])
    with pytest.raises(SystemExit, match="ValueError: batch_size must be at least 2"):
        __main__.cli()


@pytest.mark.slow
def test_a_run_on_images_that_was_stopped_goes_on_and_keeps_its_moments(
    tmp_path, monkeypatch
):
    s = images.Settings(
        split="train[:100]",
        test_split="test[:60]",
        width=4,
        dimension=8,
        batch_size=48,
        epochs=3,
        measurements=3,
        directory=str(tmp_path / "run"),
    )
    whole = image_runs.train(
        dataclasses.replace(s, directory=str(tmp_path / "whole")), "contrastive"
    )
    original, count = measures.snapshot, []

    def stopping(*arguments, **options):
        count.append(None)
        if len(count) == 4:  # at the start, after one epoch, after two, and now
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(measures, "snapshot", stopping)
    with pytest.raises(KeyboardInterrupt):
        image_runs.train(s, "contrastive")
    monkeypatch.setattr(measures, "snapshot", original)
    resumed = image_runs.train(s, "contrastive")
    assert resumed.epochs == whole.epochs == [0, 1, 2, 3]
    np.testing.assert_array_equal(resumed.last.z, whole.last.z)
    for a, b in zip(resumed.history, whole.history, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    "content", [None, "", '{"step": 2, "lo\n{"step": 3}\n', "x\ny\n"]
)
def test_measures_of_a_run_that_are_lost_are_none(content, tmp_path, recwarn):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert measures.of_run(tmp_path) == {}
    assert len(recwarn) == (content != "")


def test_measures_of_a_run_come_back_by_step(tmp_path):
    of_step = measures.Measures(*range(len(measures.Measures._fields)))
    with training.MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
        writer.write(4, {"loss": 1.0, "cv": 2.0})  # the rest of them is lost
        writer.write(5, {"loss": 1.0, **of_step._asdict()})
    assert measures.of_run(tmp_path) == {5: of_step}
