import socket

import jax
import pytest

from jaxcl import _text, training
from jaxcl.training import processes


def test_one_process_joins_nobody():
    training.join_processes(False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_processes": 2}, "given together, got no coordinator and no process_id"),
        (
            {"coordinator": "localhost:1", "num_processes": 2, "process_id": 2},
            r"process_id must lie in \[0, 2\), got 2",
        ),
        *(
            (
                {"coordinator": where, "num_processes": 2, "process_id": 0},
                f"coordinator must be HOST:PORT of process 0, got '{where}'",
            )
            for where in ("localhost", ":80", "localhost:x", "localhost:65536")
        ),
    ],
)
def test_processes_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        training.join_processes(False, **given)


def test_without_a_cluster_it_says_what_to_give():
    with pytest.raises((ValueError, RuntimeError), match=r"coordinator|must be called"):
        training.join_processes()


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (KeyError("SLURM_PROCID"), ValueError, "detects a cluster.*SLURM_PROCID"),
        (
            ValueError("invalid literal"),
            ValueError,
            "invalid literal.*give coordinator",
        ),
        (
            RuntimeError("Kubernetes API Error: 403"),
            ValueError,
            "Error: 403.*give coor",
        ),
        (
            jax.errors.JaxRuntimeError("no RPC"),
            ConnectionError,
            "must be free, got: no",
        ),
    ],
)
def test_what_a_cluster_answers_is_one_error(error, expected, message, monkeypatch):
    def initialize():
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(expected, match=message):
        training.join_processes()


def test_a_first_process_that_is_not_there_is_waited_for_and_named(monkeypatch, capsys):
    monkeypatch.setattr(processes, "_PATIENCE", 1)
    monkeypatch.setattr(processes, "_SAID_AFTER", 0.1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    with pytest.raises(
        ConnectionError, match=f"{where}, and it is not there after 1 s"
    ):
        training.join_processes(coordinator=where, num_processes=2, process_id=1)
    said = f"process 1 of 2 waits for process 0 at {where}\n"
    assert capsys.readouterr().err == said


def test_all_but_the_first_process_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(_text.TERMINAL, "muted", True, raising=False)
    _text.TERMINAL.write("a bar")
    assert capsys.readouterr().err == ""
