"""What several threads read ahead is what one would read, from any step on."""

import operator
import subprocess
import sys
import threading

import chex
import grain
import jax.numpy as jnp
import pytest

import jaxcl
from jaxcl import data
from tests.data.pairs import made

N, SIZE = 19, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Images in two shards, and the vocabulary of their captions."""
    folder = tmp_path_factory.mktemp("shards")
    for k in range(2):
        members = []
        for i in range(k * 10, min(N, k * 10 + 10)):
            caption = f"number {i}\n" + "another" * (i % 3 == 0)
            members += [(f"{i}.png", made.png(i % 4)), (f"{i}.txt", caption)]
        made.tar(folder / f"{k}.tar", members)
    dataset = data.pairs.open(str(folder))
    words = data.text.learn(data.pairs.texts_of(dataset)[0], size=280)
    return data.pairs.tokenize(dataset, words, longest=20)


def test_a_stream_is_the_same_function_of_the_step(shards):
    batches = data.batches(shards, SIZE, seed=1)
    stream = data.streamed(batches, threads=3)
    for step in (3, 4, 5, 9, 2, 2, 3, jnp.int32(4)):
        chex.assert_trees_all_equal(stream(step), batches(step))
        assert stream.position() == {"next_index": int(step) + 1}


def test_a_run_that_goes_on_sees_what_an_unbroken_one_would(shards):
    batches = data.batches(shards, SIZE, seed=1)
    unbroken = data.streamed(batches, threads=2)
    seen = [unbroken(step) for step in range(9)]
    saved = data.streamed(batches, threads=2)
    for step in range(6):
        saved(step)
    resumed = data.streamed(batches, threads=5)
    for step in range(saved.position()["next_index"], 9):
        chex.assert_trees_all_equal(resumed(step), seen[step])
    # The position is Grain's own: its iterator takes it, and is where a run would be.
    plain = iter(grain.MapDataset.range(100).map(batches).to_iter_dataset())
    plain.set_state(saved.position())
    chex.assert_trees_all_equal(next(plain), seen[6])
    assert plain.get_state() == {"next_index": 7}


def test_threads_read_at_the_same_time():
    together = threading.Barrier(3)

    def batches(step):
        if step < 3:
            together.wait(timeout=60)  # of three, or it breaks
        return {"step": step}

    assert data.streamed(batches, threads=3)(0) == {"step": 0}


def test_an_error_is_raised_where_the_batch_would_have_come_and_again():
    def batches(step):
        if step == 2:
            raise ValueError("cannot read step 2")
        return step + 10

    stream = data.streamed(batches, threads=2)
    assert [stream(0), stream(1)] == [10, 11]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^cannot read step 2$"):
            stream(2)
        assert stream.position() == {"next_index": 2}
    assert [stream(3), stream(1)] == [13, 11]


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        data.streamed(operator.neg, threads=0)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        data.streamed(operator.neg, threads=1)(-1)
    with pytest.raises(TypeError, match="step must be an integer, got float"):
        data.streamed(operator.neg, threads=1)(1.0)


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"threads": 3}])
def test_a_feed_reads_images_in_files_with_threads(options, shards, monkeypatch):
    asked = []

    def streamed(batches, *, threads):
        asked.append(threads)
        return data.Stream(batches, threads)

    monkeypatch.setattr(data.streaming, "streamed", streamed)
    monkeypatch.setattr(data.streaming, "default_threads", lambda: 2)
    _, rows, _ = jaxcl.data_parallel()
    feed = data.feed(shards, 8, 2, rows, on_device=False, **options)
    assert asked == {None: [2], 1: [], 3: [3]}[options.get("threads")]
    host = data.batches(shards, 8, 2)
    for step in (0, 1, 5):
        chex.assert_trees_all_equal(feed(step), host(step))
    # In memory there is nothing to wait for.
    data.feed(data.to_memory(shards), 8, 2, rows, on_device=False)
    assert len(asked) == (options.get("threads") != 1)


def test_what_is_not_read_ends_with_the_process_and_errors_are_one_line(tmp_path):
    members = [(f"{i}.png", made.png(i % 4)) for i in range(8)]
    members += [(f"{i}.txt", "x") for i in range(8)]
    members[5] = ("5.png", made.png(1)[:-20])
    made.tar(tmp_path / "a.tar", members)
    program = (
        "import sys, jaxcl\n"
        "from jaxcl import data\n"
        "pairs = data.pairs.open(sys.argv[1], size=6)\n"
        "print(data.streamed(data.batches(pairs, 1, 0), threads=4)(0)['image'].shape)\n"
        "rows = jaxcl.data_parallel()[1]\n"
        "pairs.columns.pop('caption')\n"
        "feed = data.feed(pairs, 4, 0, rows, on_device=False, threads=3)\n"
        "for step in range(9):\n"
        "    feed(step)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "a.tar")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.stdout == "(1, 6, 6, 3)\n"
    assert run.returncode == 1
    last = [line for line in run.stderr.splitlines() if "not a readable image" in line]
    assert len(last) == 1, run.stderr
    assert "a.tar: 5.png: not a readable image: " in last[0]
