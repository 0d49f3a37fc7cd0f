"""The synthetic experiment of SC-InfoNCE, tiny."""

import dataclasses
import json

import pytest

from experiments.sc_infonce import synthetic, theory

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
        ({"noise": -1.0}, "noise must be at least 0, got -1"),
    ],
)
def test_sizes_that_cannot_run_are_named_at_once(changes, words):
    with pytest.raises(ValueError, match=words):
        synthetic.main(_in("unused", **changes))
