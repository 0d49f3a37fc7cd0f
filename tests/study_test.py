"""Comparisons over variants and seeds: what is run, kept, repeated and concluded."""

import dataclasses
import errno
import io
import json
import pathlib
import sys
import warnings

import jax
import matplotlib.image
import numpy as np
import pytest
from matplotlib import figure as mpl_figure

from jaxcl import study
from jaxcl.pictures import studies
from tests.pictures import legible


@dataclasses.dataclass(frozen=True)
class Settings:
    directory: str
    seed: int = 0
    strength: float = 1.0
    steps: int = 3


VARIANTS = {"plain": {}, "twice as strong": {"strength": 2.0}}


class Counted:
    """A study without an encoder: h separates the classes better when trained."""

    def __init__(self):
        self.trained, self.asked, self.stop_at = [], [], None

    def pretrain(self, s):
        if len(self.trained) == self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt
        self.trained.append((s.strength, s.seed))
        (pathlib.Path(s.directory) / "weights").write_text(str(s.steps))

    def features(self, s, trained):
        self.asked.append((s.strength, s.seed, trained))
        assert trained == (pathlib.Path(s.directory) / "weights").exists()
        random = np.random.default_rng(s.seed)
        labels = np.arange(80) % 2
        apart = s.strength if trained else 0.0
        h = random.standard_normal((80, 3)) + apart * labels[:, None]
        h = h.astype(np.float32)
        return study.Features(h[:50], labels[:50], h[50:], labels[50:], 2)

    def study(self):
        return study.Study(self.pretrain, self.features)


@pytest.fixture
def counted():
    return Counted()


def test_every_variant_and_seed_is_trained_once_and_the_untrained_never(
    tmp_path, counted
):
    base = Settings(str(tmp_path))
    first = study.run(counted.study(), base, VARIANTS, (0,))
    assert [row.name for row in first] == [study.UNTRAINED, *VARIANTS]
    assert counted.trained == [(1.0, 0), (2.0, 0)]
    assert counted.asked == [(1.0, 0, False), (1.0, 0, True), (2.0, 0, True)]
    assert {row.num_held_out for row in first} == {30}
    assert first[0].scores["knn"][0] < first[2].scores["knn"][0]

    # Another seed is added; what has been measured is not trained or measured again.
    both = study.run(counted.study(), base, VARIANTS, (0, 1))
    assert counted.trained[2:] == [(1.0, 1), (2.0, 1)]
    assert len(counted.asked) == 6
    for row, before in zip(both, first, strict=True):
        assert row.scores["all_labels"][0] == before.scores["all_labels"][0]
        assert all(len(values) == 2 for values in row.scores.values())
    assert {row.num_held_out for row in both} == {30}


def test_scores_by_another_protocol_are_measured_again(tmp_path, counted):
    base, plain = Settings(str(tmp_path)), {"plain": {}}
    for folds, asked in ((5, 2), (5, 2), (2, 4), (None, 6), ((1, 2), 8), ((1, 2), 8)):
        protocol = {} if folds is None else {"folds": folds}
        study.run(counted.study()._replace(protocol=protocol), base, plain, (0,))
        assert len(counted.asked) == asked
    assert counted.trained == [(1.0, 0)] * 4


def test_a_comparison_goes_on_where_it_stopped(tmp_path, counted):
    counted.stop_at = 1
    base = Settings(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        study.run(counted.study(), base, VARIANTS, (0,))
    rows = study.run(counted.study(), base, VARIANTS, (0,))
    assert counted.trained == [(1.0, 0), (2.0, 0)]
    assert len(rows) == 3


@pytest.mark.parametrize("content", ["", '{"sett', "[]", '{"settings": 1}', "\x00"])
def test_an_accuracy_that_was_damaged_is_measured_again(content, tmp_path, counted):
    base = Settings(str(tmp_path))
    first = study.run(counted.study(), base, VARIANTS, (0,))
    [path] = tmp_path.glob("plain/*/accuracy.json")
    before = path.read_text()
    path.write_text(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert study.run(counted.study(), base, VARIANTS, (0,)) == first
    assert path.read_text() == before
    said = [str(each.message) for each in warned]
    # Of other settings is no damage.
    assert all(f"{path} is damaged" in text for text in said)
    assert len(said) == ("settings" not in content)


def test_a_comparison_outlives_its_terminal(tmp_path, counted, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    study.run(counted.study(), Settings(str(tmp_path)), VARIANTS, (0,))
    assert len(counted.trained) == 2


def test_a_run_with_other_settings_is_refused_before_anything_is_trained(
    tmp_path, counted
):
    study.run(counted.study(), Settings(str(tmp_path)), VARIANTS, (0,))
    counted.trained.clear()
    longer = Settings(str(tmp_path), steps=5)
    with pytest.raises(ValueError, match="steps: 3 -> 5"):
        study.run(counted.study(), longer, VARIANTS, (1, 0))
    assert not counted.trained
    # What may change is trained and measured again, in the same place.
    study.run(counted.study(), longer, VARIANTS, (0,), may_change=("steps",))
    assert counted.trained == [(1.0, 0), (2.0, 0)]


@pytest.mark.parametrize("seeds", [(), (0, 0)])
def test_seeds_must_be_different_ones(tmp_path, counted, seeds):
    with pytest.raises(ValueError, match="seeds must be one or more different ones"):
        study.run(counted.study(), Settings(str(tmp_path)), VARIANTS, seeds)


def _rows(num_held_out=1000, **values):
    return [
        study.Row(name, dict.fromkeys(study.PROBES, of_name), num_held_out)
        for name, of_name in values.items()
    ]


def test_differences_are_taken_seed_by_seed():
    found = study.differences(
        _rows(a=[0.1, 0.5], b=[0.2, 0.6], c=[0.3, 0.5]), "a", "knn"
    )
    # The 97.5 % point of Student's t with one degree is tan(0.475 pi); the standard
    # error of b is not 0 but half an example of a thousand.
    t = np.tan(0.475 * np.pi)
    np.testing.assert_allclose(found["b"], (10.0, 0.05 * t))
    np.testing.assert_allclose(found["c"], (10.0, 10.0 * t))


def test_a_difference_is_supported_only_outside_of_its_interval():
    rows = _rows(
        a=[0.5, 0.5, 0.5],
        b=[0.6, 0.601, 0.602],
        c=[0.4, 0.55, 0.6],
        **{study.UNTRAINED: [0.1, 0.1, 0.1]},
    )
    text = study.report_differences(rows, "a", "all_labels")
    assert "accuracy with all labels" in text
    assert "b: +10.10 ± 0.25, supported\n" in text
    assert "c: +1.67" in text
    assert text.count("not supported by these runs") == 1
    assert study.UNTRAINED not in text
    one = study.report_differences(_rows(a=[0.5], b=[0.6]), "a", "knn")
    assert "b: +10.00\n" in one
    assert "One seed supports nothing" in one


def test_the_table_has_means_and_standard_deviations_in_percent():
    lines = study.table(_rows(a=[0.9, 0.91], bb=[0.5, 0.5])).splitlines()
    # The standard deviation of 90 and 91 is 1 / sqrt(2).
    assert lines[2].split("|")[1:3] == [" a       ", " 90.5 ± 0.7 "]
    assert lines[3].split("|")[2] == " 50.0 ± 0.0 "
    assert "±" not in study.table(_rows(a=[0.9]))


def test_what_was_measured_before_is_read_and_written_as_it_was(tmp_path, counted):
    """The files of comparisons are older than metrics of other names."""
    base, of = Settings(str(tmp_path)), {"plain": {}}
    scores = {"knn": 0.25, "few_labels": 0.5, "all_labels": 0.75}
    for name, trained in ((study.UNTRAINED, False), ("plain", True)):
        home = tmp_path / study.directory_of(name) / "seed_0"
        home.mkdir(parents=True)
        settings = {"directory": None, "seed": 0, "strength": 1.0, "steps": 3}
        kept = {"settings": settings, "trained": trained}
        kept |= {"accuracy": scores, "num_held_out": 40}
        (home / "accuracy.json").write_text(json.dumps(kept))
    rows = study.run(counted.study(), base, of, (0,))
    assert (counted.trained, counted.asked) == ([], [])
    assert rows[1].scores == {key: [value] for key, value in scores.items()}
    assert rows[1].num_held_out == 40
    said = {"settings": base, "variants": of, "title": "t", "baseline": "plain"}
    study.report(tmp_path, rows, **said)
    record = json.loads((tmp_path / "results.json").read_text())
    expected = {"name": "plain", "accuracy": rows[1].scores, "num_held_out": 40}
    assert record["rows"][1] == expected


SPEARMAN = study.Metric(
    {"sts": "STS-B", "sick": "SICK-R"},
    compared=("sick",),
    name="Spearman correlation",
    phrase="Spearman correlation on {}",
    unit="x 100",
)


def _spearman(counted, **changes):
    """A study of texts: no examples are right or wrong."""

    def features(s, trained):
        counted.asked.append(trained)
        return s.strength + s.seed / 64 if trained else 0.0

    def score(h):
        return study.Measured({"sick": np.float32(h / 4), "sts": -h / 4})

    return study.Study(counted.pretrain, features, score, SPEARMAN)._replace(**changes)


def test_another_kind_of_data_has_scores_of_its_own(tmp_path, counted, capsys):
    base, of = Settings(str(tmp_path)), _spearman(counted)
    rows = study.run(of, base, VARIANTS, (0, 4))
    assert rows[2].scores == {"sts": [-0.5, -0.515625], "sick": [0.5, 0.515625]}
    assert rows[2].num_held_out is None
    assert study.run(of, base, VARIANTS, (0, 4)) == rows
    assert len(counted.asked) == 6  # not measured again
    with legible.checked():
        study.report(
            tmp_path,
            rows,
            settings=base,
            variants=VARIANTS,
            title="Texts",
            baseline="plain",
        )
    said = capsys.readouterr().out
    assert "Texts (x 100), mean ± standard deviation of 2 seeds" in said
    assert "| variant           |       STS-B |     SICK-R |" in said
    # Every seed gained as much: without a count nothing is added to the error.
    assert "'plain' in points, Spearman correlation on SICK-R:\n" in said
    assert "twice as strong: +25.00 ± 0.00, supported" in said
    assert "accuracy" not in said
    assert "%)" not in said
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"results.json", "Spearman_correlation.png"}
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["rows"][2] == {
        "name": "twice as strong",
        "Spearman correlation": rows[2].scores,
        "num_held_out": None,
    }


def test_scores_that_were_added_are_measured_without_a_training(tmp_path, counted):
    base, before = Settings(str(tmp_path)), len(VARIANTS) + 1
    study.run(_spearman(counted), base, VARIANTS, (0,))
    one = SPEARMAN._replace(labels={"sts": "STS-B"})
    of_one = _spearman(
        counted, metric=one, score=lambda h: study.Measured({"sts": h}, 7)
    )
    rows = study.run(of_one, base, VARIANTS, (0,))
    assert (rows[1].scores, rows[1].num_held_out) == ({"sts": [1.0]}, 7)
    assert len(counted.asked) == 2 * before


def test_scores_are_those_of_the_metric(tmp_path, counted):
    of = _spearman(counted, score=lambda h: study.Measured({"sts": h}))
    with pytest.raises(ValueError, match="of the metric, sts, sick, got sts"):
        study.measure(of, Settings(str(tmp_path)))


def test_a_panel_is_called_as_its_metric_is(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(studies.style, "save", lambda figure, _: figures.append(figure))
    scores = {f"set {i}": [[0.1], [0.5, 0.6], [0.7, 0.9]] for i in range(5)}
    how = {"baseline": "a", "aside": "untrained", "axis": "correlation on {} (x 100)"}
    studies.dots(tmp_path / "x.png", ["untrained", "a", "b"], scores, **how)
    [figure] = figures
    assert [axes.get_xlabel() for axes in figure.axes] == [
        f"correlation on set {i} (x 100)" for i in range(5)
    ]


def test_a_report_keeps_what_was_there_beside_it(tmp_path, capsys):
    def write(rows):
        study.report(
            tmp_path,
            rows,
            settings=Settings("here"),
            variants=VARIANTS,
            title="All",
            baseline="a",
        )
        return capsys.readouterr().out

    three = _rows(**{study.UNTRAINED: [0.2, 0.2]}, a=[0.5, 0.6], b=[0.7, 0.6])
    assert "| b " in write(three)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["settings"]["directory"] == "here"
    assert [row["name"] for row in record["rows"]] == [study.UNTRAINED, "a", "b"]
    assert "was there with other results" not in write(three)
    assert "it is results_1.json now" in write(three[:2])
    assert "it is results_2.json now" in write(three)
    kept = json.loads((tmp_path / "results_2.json").read_text())
    assert [row["name"] for row in kept["rows"]] == [study.UNTRAINED, "a"]


def test_numbers_outlive_a_picture_that_fails(tmp_path, capsys, monkeypatch):
    def full(figure, path, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mpl_figure.Figure, "savefig", full)
    rows = _rows(**{study.UNTRAINED: [0.2, 0.2]}, a=[0.5, 0.6])
    said = {"settings": Settings("here"), "variants": {}, "title": "t", "baseline": "a"}
    with pytest.warns(UserWarning, match=r"accuracy\.png was not drawn, OSError.*left"):
        study.report(tmp_path, rows, **said)
    assert "| a " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_an_arrow_stands_for_a_row_aside_only_if_none_of_it_is_seen(
    tmp_path, monkeypatch
):
    figures = []
    monkeypatch.setattr(studies.style, "save", lambda figure, _: figures.append(figure))
    for aside in ([0.5, 0.6], [0.5, 0.89], [0.895, 0.9]):
        accuracy = {"5-NN": [aside, [0.9, 0.91], [0.9, 0.92]]}
        how = {"baseline": "a", "aside": "first"}
        studies.dots(tmp_path / "x.png", ["first", "a", "b"], accuracy, **how)
        [axes] = figures.pop().axes
        low, _ = axes.get_xlim()
        assert bool(axes.texts) == (100 * max(aside) < low)
        assert axes.texts or low < 100 * min(aside)


def test_programs_are_shared_within_and_left_alone_afterwards(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(jax.config, "update", lambda name, value: seen.append(value))
    seen = []
    if before is None:
        with study.shared_programs():
            assert pathlib.Path(seen[0]).is_dir()
        assert not pathlib.Path(seen[0]).exists()
        assert None in seen
    else:  # what the user has chosen stays
        with study.shared_programs():
            assert not seen


def _columns_of(path, color):
    """Where a picture has a color [h, w]."""
    picture = matplotlib.image.imread(path)[..., :3]
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.abs(picture - rgb).max(axis=-1) < 0.02


def test_every_seed_is_a_dot_in_every_panel(tmp_path):
    from jaxcl.pictures import style

    names = ["untrained", "a", "b"]
    accuracy = {"5-NN": [[0.2], [0.5, 0.6], [0.7, 0.9]]}

    def dark(**panels):
        path = tmp_path / "dots.png"
        with legible.checked():
            studies.dots(path, names, panels, baseline="a", aside="untrained")
        return _columns_of(path, style.COLORS[0]).sum()

    one = dark(**accuracy)
    three_dots = {"5-NN": [[0.2], [0.5, 0.55, 0.6], [0.7, 0.8, 0.9]]}
    # Two more dots, of some 90 pixels each at this resolution.
    assert 100 < dark(**three_dots) - one < 500
    assert dark(**accuracy, more=accuracy["5-NN"]) == pytest.approx(2 * one, rel=0.1)


def test_a_grid_has_a_cell_for_each_number_and_frames_where_asked(tmp_path):
    from jaxcl.pictures import style

    numbers = {"one": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}
    axes = ("alpha", (0.5, 1.0, 2.0)), ("beta", (0.0, 0.5))

    def framed(*places):
        path = tmp_path / "grid.png"
        with legible.checked():
            studies.grid(path, numbers, *axes, framed=places)
        return _columns_of(path, style.COLORS[6]).sum()

    assert framed() == 0
    one = framed((1, 0))
    assert one > 300
    assert framed((1, 0), (2, 1)) == pytest.approx(2 * one, rel=0.1)


def test_matrices_are_colored_alike_on_both_sides_of_their_center(
    tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        studies.style, "save", lambda figure, path: drawn.append(figure)
    )
    twice = np.array([[2.0, 1.0], [0.5, 1.0]])
    studies.matrices(
        tmp_path / "m.png",
        ["one", "two"],
        {"above": [twice, twice], "below": [twice, twice / twice]},
        center=1.0,
    )
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "", ""]
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(image.get_clim(), (-np.log(2), np.log(2)))
    np.testing.assert_allclose(
        np.asarray(image.get_array()), [[np.log(2), 0], [-np.log(2), 0]], atol=1e-12
    )
    assert [t.get_text() for t in figure.axes[0].texts] == [
        "2.00",
        "1.00",
        "0.50",
        "1.00",
    ]
    with pytest.raises(ValueError, match="one of limits and center"):
        studies.matrices(tmp_path / "m.png", ["one"], {"": [twice]})
