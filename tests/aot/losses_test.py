"""What the compiler for TPUs makes of the losses: memory, collectives, cycles.

No TPU is needed, and nothing runs. What is compared with a record was recorded by
`python -m tests.aot`.
"""

import math

import pytest

from tests.aot import programs

pytestmark = pytest.mark.aot
CASES = pytest.mark.parametrize("name", programs.CASES)


def moved(name, kind):
    """The collectives of a kind."""
    found = programs.compiled(name).found["collectives"]
    return [c for c in found if c["kind"] == kind]


def known(name):
    """The record of a case."""
    record = programs.recorded().get(name)
    if record is None:
        pytest.skip(
            f"nothing is recorded of {name!r} with {programs.version()}: "
            "python -m tests.aot"
        )
    return record


@CASES
def test_embeddings_travel_in_the_dtype_that_is_multiplied(name):
    float32 = programs.CASES[name].dtype == "float32"
    of_rows = programs.ROWS * programs.WIDTH  # numbers of all embeddings of one set
    for c in moved(name, "all-gather"):
        if c["largest"] >= 2 * of_rows:
            assert float32 or c["dtype"] == "bf16", c
    if programs.CASES[name].exchange == "ring":
        dtypes = {c["dtype"] for c in moved(name, "collective-permute")}
        assert float32 or "bf16" in dtypes


@CASES
def test_no_array_has_a_number_for_each_pair(name):
    chips = programs.compiled(name).found
    pairs = programs.ROWS**2 / 4  # of one of four chips
    largest = max(a.size for v in programs.compiled(name).visits for a in v.op.arrays)
    assert largest < pairs, chips["buffers"]


@CASES
def test_nothing_of_the_size_of_all_embeddings_is_summed_on_every_chip(name):
    for c in moved(name, "all-reduce"):
        assert c["largest"] < programs.ROWS * programs.WIDTH


@pytest.mark.parametrize("name", programs.COSINES)
def test_products_of_cosines_take_one_pass_and_of_float32_three(name):
    passes = 3 if programs.CASES[name].dtype == "float32" else 1
    found = programs.compiled(name).found["products"]
    assert found
    for p in found:
        assert programs.CHIP.slower(p["dtype"], p["precision"]) == passes


@CASES
def test_the_program_multiplies_what_is_needed_and_no_more(name):
    seconds = programs.compiled(name).found["seconds"]
    found = programs.compiled(name).found["products"]
    computed = sum(p["flops"] for p in found) / programs.CHIP.flops
    assert computed <= 1.05 * seconds["limit"]


@CASES
def test_memory_is_at_most_what_was_recorded(name):
    peak = programs.compiled(name).found["memory"]["peak"]
    assert peak <= 1.1 * known(name)["peak"]


@CASES
def test_collectives_are_those_that_were_recorded(name):
    assert programs.record(name)["collectives"] == known(name)["collectives"]


@CASES
def test_cycles_are_within_a_tenth_of_what_was_recorded(name):
    cycles = programs.compiled(name).found["cycles"]
    assert math.isclose(cycles, known(name)["cycles"], rel_tol=0.1)


@CASES
def test_every_loop_tells_how_often_it_runs(name):
    assert not programs.compiled(name).found["guessed"]
