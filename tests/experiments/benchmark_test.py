"""The benchmark at sizes that take no time: what it compares, writes and refuses."""

import contextlib
import dataclasses
import io
import json
import math
import re
import sys
from unittest import mock

import jax
import matplotlib.image
import numpy as np
import pytest

from experiments.benchmark import __main__ as script
from experiments.benchmark import loop, losses, measure, reading
from experiments.benchmark.settings import Settings
from jaxcl.data import prepare

TINY = Settings(
    forms=("dense", "jaxcl", "scan", "lightly", "open_clip", "inf_cl"),
    sizes=(64,),
    width=8,
    repeats=1,
    tile=24,  # does not divide 64
    block=16,
    matmul_limit="yes",
)
# What is None in sys.modules cannot be imported, whether it is installed or not.
ABSENT = {"lightly.loss": None, "open_clip.loss": None}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory, the rows and the output of one run over all losses."""
    directory = tmp_path_factory.mktemp("benchmark") / "new"
    output = io.StringIO()
    with mock.patch.dict(sys.modules, ABSENT), contextlib.redirect_stdout(output):
        rows = script.main(dataclasses.replace(TINY, directory=str(directory)))
    return directory, rows, output.getvalue()


def run(directory, **changes):
    settings = dataclasses.replace(TINY, directory=str(directory), **changes)
    return script.main(settings)


@pytest.mark.slow
def test_values_and_gradients_agree_with_the_dense_form(written):
    _, rows, _ = written
    assert [row["loss"] for row in rows] == list(losses.LOSSES)
    for row in rows:
        assert set(row["forms"]) == {"dense", "jaxcl", "scan"}
        for got in row["forms"].values():
            assert got["value_difference"] < 1e-5
            assert got["gradient_difference"] < 1e-4
            assert got["seconds"] > 0
            assert got["mib"] > 0


@pytest.mark.slow
def test_part_of_the_product_limit_counts_the_products_of_the_loss(written):
    _, rows, _ = written
    for row in rows:
        products = 4 if row["loss"] in ("clip", "siglip") else 2
        for got in row["forms"].values():
            per_second = products * 2 * 64 * 64 * 8 / got["seconds"]
            expected = per_second / row["product_flops_per_second"]
            np.testing.assert_allclose(got["of_product_limit"], expected, rtol=1e-6)


@pytest.mark.slow
def test_the_directory_holds_table_numbers_and_plots(written):
    directory, rows, output = written
    text = (directory / "benchmark.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(rows) * 3
    assert all(line in output for line in table)
    assert "--sizes 64 --width 8 --repeats 1 --tile 24" in text
    assert str(directory) not in text
    assert f"jax {jax.__version__}" in text
    assert json.loads((directory / "results.json").read_text())["rows"] == rows
    for name in ("time.png", "memory.png"):
        assert name in text
        picture = matplotlib.image.imread(directory / name)
        assert picture.shape[0] > 500
        assert (picture[..., :3].min(axis=-1) < 0.9).mean() > 0.01  # drawn on white


@pytest.mark.slow
def test_absent_packages_are_one_line(written):
    lines = [line for line in written[2].splitlines() if "not installed" in line]
    expected = (
        "Left out: lightly (not installed), open_clip (not installed), "
        "inf_cl (needs a CUDA device)"
    )
    assert lines == [expected] * 2  # at once, and with the table


@pytest.mark.parametrize("name", ["benchmark.md", "results.json", "time.png"])
def test_what_is_there_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with (
        mock.patch.object(measure, "measure", side_effect=AssertionError),
        pytest.raises(FileExistsError, match=f"directory must be new, and .*{name}"),
    ):
        run(tmp_path)
    assert (tmp_path / name).read_text() == "precious"


def test_a_form_that_does_not_run_is_a_dash_and_a_reason(tmp_path, capsys):
    forms = ("dense", "jaxcl", "scan", "optax")
    limits = {"dense_limit": 63, "optax_limit": 32, "block": 24}
    (row,) = run(tmp_path, losses=("nt_xent",), forms=forms, **limits)
    assert row["forms"]["jaxcl"]["value_difference"] is None
    text = capsys.readouterr().out
    for form in ("dense", "scan", "optax"):
        start = r"\| nt_xent \| +64 \| +" + form
        assert re.search(start + " \\| +\N{EN DASH} \\|", text)
    assert "- nt_xent, 64, dense: not run above n = 63 (--dense_limit)" in text
    assert "- nt_xent, 64, optax: not run above n = 32 (--optax_limit)" in text
    assert "- nt_xent, 64, scan: n is not a multiple of the block of 24 rows" in text


def test_running_out_of_memory_is_said_in_words(tmp_path, capsys):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 bytes")
    with mock.patch.object(losses, "dense", side_effect=error):
        run(tmp_path, losses=("clip",), forms=("dense", "jaxcl"))
    assert "- clip, 64, dense: out of memory" in capsys.readouterr().out


def test_a_mistake_of_ours_is_not_hidden(tmp_path):
    wrong = mock.patch.object(losses, "scan", side_effect=ValueError("a mistake"))
    with wrong, pytest.raises(ValueError, match="a mistake"):
        run(tmp_path, losses=("clip",), forms=("scan",))


def test_bfloat16_differs_by_its_rounding(tmp_path):
    options = {"losses": ("clip",), "forms": ("dense", "jaxcl"), "dtype": "bfloat16"}
    (row,) = run(tmp_path, **options)
    assert 1e-7 < row["forms"]["jaxcl"]["value_difference"] < 2e-3
    assert 1e-4 < row["forms"]["jaxcl"]["gradient_difference"] < 2e-2
    assert "Value and gradient, bfloat16" in (tmp_path / "benchmark.md").read_text()


def test_precision_is_of_float32(tmp_path):
    with pytest.raises(ValueError, match="precision must be left at 'float32'"):
        run(tmp_path, dtype="bfloat16", precision="tensorfloat32")


def test_optax_computes_the_same(tmp_path):
    # It mixes dtypes and ranks, which the other tests forbid.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (row,) = run(tmp_path, losses=("nt_xent",), forms=("dense", "optax"))
    assert row["forms"]["optax"]["value_difference"] < 1e-5
    assert row["forms"]["optax"]["gradient_difference"] < 1e-4


@pytest.mark.parametrize(
    ("form", "name", "module"),
    [
        ("lightly", "nt_xent", "lightly"),
        ("open_clip", "clip", "open_clip"),
        ("open_clip", "siglip", "open_clip"),
        ("metric_learning", "sup_con", "pytorch_metric_learning"),
    ],
)
def test_torch_packages_compute_the_same(tmp_path, form, name, module):
    pytest.importorskip(module)
    (row,) = run(tmp_path, losses=(name,), forms=("dense", form))
    assert row["forms"][form]["value_difference"] < 1e-5
    assert row["forms"][form]["gradient_difference"] < 1e-4


def test_dense_values_are_the_published_formulas():
    z = losses.make_inputs("clip", 16, 8)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in z)
    s = (x @ y.T).astype(np.float64) / 0.1
    sums = [np.log(np.exp(s).sum(axis)).mean() / 2 for axis in (0, 1)]
    expected = sum(sums) - np.diagonal(s).mean()
    np.testing.assert_allclose(losses.dense("clip", *z), expected, rtol=1e-5)
    signed = np.where(np.eye(16, dtype=bool), s - 10, 10 - s)
    expected = -sum(math.log(1 / (1 + math.exp(-v))) for v in signed.ravel()) / 16
    np.testing.assert_allclose(losses.dense("siglip", *z), expected, rtol=1e-5)


def test_a_wrong_flag_ends_with_one_line(tmp_path, monkeypatch):
    flags = ["--sizes", "7", "--directory", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags])
    with pytest.raises(SystemExit) as ended:
        script.cli()
    assert (
        ended.value.code
        == "ValueError: sizes must be divisible by the 2 views of an example, got 7"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_loop_is_timed_against_its_bare_step(tmp_path, capsys):
    s = loop.Settings(
        width=2, batch_size=16, steps=2, rounds=3, directory=str(tmp_path / "new")
    )
    rows = loop.main(s)
    assert [row["loop"] for row in rows] == ["bare step", *loop.LOOPS]
    assert rows[0]["ratio"] == 1
    record = json.loads((tmp_path / "new" / "results.json").read_text())
    assert record["rows"] == rows
    for row in rows:
        times = record["seconds"][row["loop"]]
        assert len(times) == 3
        ratios = np.array(times) / np.array(record["seconds"]["bare step"])
        assert row["ratio"] == pytest.approx(np.median(ratios))
        assert row["seconds_per_step"] == pytest.approx(np.median(times) / 2)
    assert "| images from the host |" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="directory must be new"):
        loop.main(s)


def test_reading_is_measured_beside_plain_reading_of_the_same_files(tmp_path, capsys):
    pytest.importorskip("array_record")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "few.npz", image=pixels, label=np.arange(48) % 3)
    few = str(tmp_path / "few.npz")
    prepare.main(prepare.Settings(name="few", train=(few,), data_dir=str(tmp_path)))
    s = reading.Settings(
        str(tmp_path / "few"),
        directory=str(tmp_path / "out"),
        batch_size=8,
        steps=2,
        turns=1,
        cold=True,
    )
    with pytest.raises(ValueError, match="source must be a prepared set, got 'digits'"):
        reading.main(dataclasses.replace(s, source="digits"))
    with pytest.raises(ValueError, match="split must be a whole one, got"):
        reading.main(dataclasses.replace(s, split="train[:50%]"))
    rows = reading.main(s)
    assert [row["images"] for row in rows] == [
        "plain, in order",
        "plain, at random",
        "fed, 1 thread",
        "fed, 2 threads",
    ]
    assert rows[1]["of plain, at random"] == "1.00"
    assert "48 images of 0.1 kB" in (tmp_path / "out" / "reading.md").read_text()
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["rows"]) == 4
