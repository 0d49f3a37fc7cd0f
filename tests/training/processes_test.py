import pytest

from jaxcl import training


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
    ],
)
def test_processes_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        training.join_processes(False, **given)


def test_without_a_cluster_it_says_what_to_give():
    with pytest.raises((ValueError, RuntimeError), match=r"coordinator|must be called"):
        training.join_processes()
