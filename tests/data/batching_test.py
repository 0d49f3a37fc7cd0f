import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import data

N, SIZE = 23, 5  # 3 images are left over in each epoch
IMAGES = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones(
    (1, 4, 3, 2), np.uint8
)
DATASET = data.from_arrays("made up", IMAGES, np.arange(N) % 4)


def test_a_batch_holds_rows_of_the_data_set():
    batch = data.batches(DATASET, SIZE, seed=3)(7)
    assert batch["image"].shape == (SIZE, 4, 3, 2)
    assert batch["image"].dtype == np.uint8
    assert batch["index"].dtype == batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    np.testing.assert_array_equal(batch["label"], batch["index"] % 4)


def test_images_without_labels_give_batches_without_labels():
    batch = data.batches(data.from_arrays("made up", IMAGES), SIZE)(0)
    assert sorted(batch) == ["image", "index"]


def test_a_restart_changes_nothing():
    unbroken = data.batches(DATASET, SIZE, seed=1)
    seen = [unbroken(step)["index"] for step in range(20)]
    for step in (19, 3, 11, 0):
        resumed = data.batches(DATASET, SIZE, seed=1)
        np.testing.assert_array_equal(resumed(step)["index"], seen[step])
        np.testing.assert_array_equal(unbroken(step)["index"], seen[step])


def test_what_a_caller_does_to_a_batch_changes_no_other_batch():
    batches = data.batches(DATASET, SIZE, seed=1)
    before = batches(2)
    for array in batches(2).values():
        array[:] = 0
    after = batches(2)
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)


def test_an_epoch_sees_no_image_twice_and_epochs_differ():
    batches = data.batches(DATASET, SIZE, seed=0)
    steps = N // SIZE
    epochs = [
        np.concatenate([batches(e * steps + i)["index"] for i in range(steps)])
        for e in range(30)
    ]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == steps * SIZE
    assert len({epoch.tobytes() for epoch in epochs}) == 30
    # What is left over changes from epoch to epoch: every image is seen.
    assert len(set(np.concatenate(epochs).tolist())) == N


def test_seeds_give_different_orders():
    orders = {data.batches(DATASET, N, seed=s)(0)["index"].tobytes() for s in range(50)}
    assert len(orders) == 50


def test_every_place_is_equally_likely():
    # 4,000 epochs of 6 images: each image is first 667 times on average; the standard
    # deviation of such a count is sqrt(4000 * 1/6 * 5/6) = 23.6.
    orders = np.array([data.permutation(6, 0, epoch) for epoch in range(4000)])
    counts = np.array([(orders == image).sum(axis=0) for image in range(6)])
    assert np.abs(counts - 4000 / 6).max() < 5 * 23.6


@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_processes_share_the_batch_that_one_would_read(process_count):
    whole = data.batches(DATASET, 6, seed=4)
    parts = [
        data.batches(DATASET, 6, seed=4, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    for step in (0, 2, 3, 10):
        for key, expected in whole(step).items():
            joined = np.concatenate([part(step)[key] for part in parts])
            np.testing.assert_array_equal(joined, expected)


def test_steps_may_be_arrays_of_no_axes():
    batches = data.batches(DATASET, SIZE)
    for step in (np.int64(4), jnp.int32(4)):
        np.testing.assert_array_equal(batches(step)["index"], batches(4)["index"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 24}, ValueError, "at most the 23 images of made up, got 24"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got float"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"process_count": 2}, ValueError, "divisible by process_count 2, got 5"),
        ({"process_index": 1}, ValueError, "less than process_count 1, got 1"),
    ],
)
def test_wrong_numbers_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        data.batches(DATASET, **{"batch_size": SIZE, **arguments})


def test_wrong_steps_are_refused():
    batches = data.batches(DATASET, SIZE)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        batches(-1)
    with pytest.raises(TypeError, match="step must be an integer, got float"):
        batches(1.0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_prefetch_keeps_the_order(size):
    batches = data.batches(DATASET, SIZE)
    ahead = list(data.prefetch(batches, 3, 20, size))
    assert len(ahead) == 17
    for step, batch in zip(range(3, 20), ahead, strict=True):
        np.testing.assert_array_equal(batch["index"], batches(step)["index"])


def test_prefetch_reads_ahead_but_not_further_than_asked():
    calls = []
    ahead = data.prefetch(lambda step: calls.append(step) or step, 0, 100, size=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(calls) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert calls == [0, 1, 2, 3]
    ahead.close()


def test_prefetch_raises_where_the_batch_would_have_come():
    def batches(step):
        if step == 3:
            raise ValueError("cannot read step 3")
        return step

    ahead = data.prefetch(batches, 1, 10)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="cannot read step 3"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_prefetch_ends_its_thread_when_the_loop_is_left():
    threads = threading.active_count()
    for step in data.prefetch(lambda step: step, 0, 1000):
        if step == 4:
            break
    del step
    ahead = data.prefetch(lambda step: step, 0, 1000)
    next(ahead)
    assert threading.active_count() > threads
    ahead.close()
    assert threading.active_count() == threads


def test_prefetch_refuses_no_room_at_once():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        data.prefetch(lambda step: step, 0, 10, size=0)
