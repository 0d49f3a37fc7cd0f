import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
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
        ({"batch_size": 24}, ValueError, "at most the 23 examples of made up, got 24"),
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


def test_ahead_is_the_same_function_of_the_step():
    batches = data.batches(DATASET, SIZE)
    ahead = data.ahead(batches)
    for step in (3, 4, 5, 9, 2, 2, 3):
        np.testing.assert_array_equal(ahead(step)["index"], batches(step)["index"])


def test_ahead_prepares_the_next_batch_and_no_more():
    calls = []
    ahead = data.ahead(lambda step: calls.append(step) or step)
    assert ahead(0) == 0
    deadline = time.monotonic() + 5
    while len(calls) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert calls == [0, 1]
    assert ahead(1) == 1  # not read twice
    assert calls.count(1) == 1


def test_ahead_raises_where_the_batch_would_have_come():
    def batches(step):
        if step == 3:
            raise ValueError("cannot read step 3")
        return step

    ahead = data.ahead(batches)
    assert [ahead(1), ahead(2)] == [1, 2]
    with pytest.raises(ValueError, match="cannot read step 3"):
        ahead(3)
    assert ahead(4) == 4


class Tokens:
    """A column that is no array: two arrays for each example, read when asked."""

    def __len__(self):
        return N

    def __getitem__(self, indices):
        rows = np.arange(N)[indices]
        return {"ids": rows[:, None] * np.ones(6, np.int32), "length": rows}


@pytest.mark.parametrize("on_device", [True, False, None])
def test_a_feed_gives_the_batches_on_the_mesh_from_anywhere(on_device):
    _, rows, _ = jaxcl.data_parallel()
    dataset = data.Dataset("made up", {"image": IMAGES, "tokens": Tokens()})
    feed = data.feed(dataset, 8, 2, rows, on_device=on_device)
    host = data.batches(dataset, 8, 2)
    for step in (0, 1, 5):
        batch = feed(step)
        chex.assert_trees_all_equal(batch, host(step))
        for leaf in jax.tree.leaves(batch):
            assert leaf.sharding == rows
        assert batch["image"].dtype == np.uint8


def test_a_feed_takes_batches_that_all_devices_share():
    _, rows, _ = jaxcl.data_parallel()
    with pytest.raises(ValueError, match="divisible by the 8 devices, got 12"):
        data.feed(DATASET, 12, 0, rows)


def test_put_places_arrays_and_keys():
    _, rows, whole = jaxcl.data_parallel()
    tree = {"x": np.arange(16), "y": np.ones((8, 3))}
    for sharding in (rows, whole):
        placed = data.put(tree, sharding)
        chex.assert_trees_all_equal(placed, tree)
        assert {leaf.sharding for leaf in jax.tree.leaves(placed)} == {sharding}
    key = data.put(jax.random.key(3), whole)
    assert jax.random.key_data(key).tolist() == [0, 3]


# Groups. ------------------------------------------------------------------------------

GROUPS = np.array([0] * 9 + [1] * 3 + [2] * 11, np.int32)


def test_a_batch_is_of_one_group_and_epochs_are_whole():
    batches = data.batches(DATASET, 4, seed=2, groups=GROUPS)
    each = data.batches_per_epoch(DATASET, 4, groups=GROUPS)
    assert each == 2 + 0 + 2
    seen, orders = set(), set()
    for epoch in range(40):
        index = np.array([batches(epoch * each + i)["index"] for i in range(each)])
        of = GROUPS[index]
        assert (of == of[:, :1]).all()
        assert len(set(index.reshape(-1).tolist())) == 16
        orders.add(tuple(of[:, 0].tolist()))
        seen |= set(index.reshape(-1).tolist())
    assert len(orders) == 6  # of two and two batches
    assert seen == set(range(N)) - {9, 10, 11}


def test_groups_depend_on_seed_and_step_alone():
    unbroken = data.batches(DATASET, 4, seed=2, groups=GROUPS)
    expected = [unbroken(step)["index"] for step in range(12)]
    resumed = data.batches(DATASET, 4, seed=2, groups=GROUPS)
    for step in (11, 3, 7):
        np.testing.assert_array_equal(resumed(step)["index"], expected[step])
    parts = [
        data.batches(
            DATASET, 4, seed=2, groups=GROUPS, process_index=i, process_count=2
        )
        for i in range(2)
    ]
    for step in (0, 5, 9):
        joined = np.concatenate([part(step)["index"] for part in parts])
        np.testing.assert_array_equal(joined, expected[step])
    rows = jaxcl.data_parallel()[1]
    for on_device in (True, False):
        fed = data.feed(DATASET, 8, 2, rows, groups=GROUPS, on_device=on_device)
        whole = data.batches(DATASET, 8, seed=2, groups=GROUPS)
        for step in (0, 3):
            chex.assert_trees_all_equal(jax.device_get(fed(step)), whole(step))


def test_one_group_is_cut_as_no_groups_are():
    same = data.batches(DATASET, 5, seed=3, groups=np.zeros(N, np.int32))
    plain = data.batches(DATASET, 5, seed=3)
    epochs = [
        {frozenset(b(step)["index"].tolist()) for step in range(4)}
        for b in (same, plain)
    ]
    assert epochs[0] == epochs[1]


def test_of_examples_with_one_number_an_epoch_has_one():
    once = np.arange(N, dtype=np.int32) // 2  # 12 of them, the last one alone
    batches = data.batches(DATASET, 4, seed=1, once=once)
    assert data.batches_per_epoch(DATASET, 4, once=once) == 3
    chosen = []
    for epoch in range(60):
        index = np.concatenate([batches(3 * epoch + i)["index"] for i in range(3)])
        assert sorted(once[index]) == list(range(12))
        chosen.append((np.sort(index)[:-1] % 2).tolist())
    # 660 fair coins: mean 330, standard deviation 12.8.
    assert abs(np.sum(chosen) - 330) < 5 * 12.8


def test_groups_and_numbers_have_as_many_batches_in_each_epoch():
    once, groups = np.arange(N) // 2, (np.arange(N) % 2).astype(np.int32)
    each = data.batches_per_epoch(DATASET, 2, groups=groups, once=once)
    assert each == 5  # of 12 examples at most one in each group is left over
    batches = data.batches(DATASET, 2, seed=0, groups=groups, once=once)
    for epoch in range(30):
        index = np.array([batches(each * epoch + i)["index"] for i in range(each)])
        assert (groups[index[:, 0]] == groups[index[:, 1]]).all()
        assert len(set(once[index.reshape(-1)].tolist())) == 2 * each


def test_groups_that_give_no_batch_are_refused():
    with pytest.raises(ValueError, match="epoch of made up has a batch, got 12, for"):
        data.batches(DATASET, 12, groups=GROUPS)
    with pytest.raises(
        ValueError, match=r"groups must have shape \(23,\), got \(22,\)"
    ):
        data.batches(DATASET, 4, groups=GROUPS[1:])
    with pytest.raises(TypeError, match="once must be an integer array"):
        data.batches(DATASET, 4, once=GROUPS / 2)
