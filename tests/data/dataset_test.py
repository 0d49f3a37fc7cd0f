import numpy as np
import pytest

from jaxcl import data
from jaxcl.data import dataset as dataset_lib

GRAY = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def test_gray_images_get_a_channel_axis():
    dataset = data.from_arrays("made up", GRAY)
    assert dataset.images.shape == (5, 4, 3, 1)
    np.testing.assert_array_equal(dataset.images[..., 0], GRAY)
    assert dataset.labels is None
    assert dataset.num_classes is None


def test_labels_become_int32_and_are_counted():
    dataset = data.from_arrays("made up", GRAY, np.array([[0], [3], [1], [0], [3]]))
    assert dataset.labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.labels, [0, 3, 1, 0, 3])
    assert dataset.num_classes == 4


def test_class_names_give_the_number_of_classes():
    dataset = data.from_arrays("made up", GRAY, [0, 1, 0, 1, 0], ["a", "b", "c"])
    assert dataset.num_classes == 3
    assert dataset.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GRAY.astype(np.float32), "images must be uint8, got float32.*range"),
        (np.full((2, 4, 4), np.nan), "got float64, with NaN"),
        (GRAY.astype(np.int64), "images must be uint8, got int64"),
        (np.array([{}, {}]), "images must be uint8, got object"),
        (GRAY[0], r"\[n, h, w\] or \[n, h, w, c\], got \(4, 3\)"),
        (GRAY[:0], "at least one image"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"looks like \[n, c, h, w\]"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(ValueError, match=f"made up: .*{message}"):
        data.from_arrays("made up", images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], r"one label for each of 5 images, got labels of shape \(3,\)"),
        ([0.0, 1.0, 0.0, np.nan, 0.0], "integers, got float64 with NaN"),
        ([0.5, 1, 0, 1, 0], "integers, got float64$"),
        (list("abcde"), "integers, got <U1"),
        ([0, -1, 0, 0, 0], "got -1 to 0"),
        ([0, 2**31, 0, 0, 0], "between 0 and"),
        ([0, 1, 2, 3, 4], "smaller than the number of classes 2, got 4"),
    ],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=f"made up: .*{message}"):
        data.from_arrays("made up", GRAY, labels, ["cat", "dog"])


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", (0, 1300)),
        ("train[:]", (0, 1300)),
        ("train[:90%]", (0, 1170)),
        ("train[33%:66%]", (429, 858)),
        ("train[-10%:]", (1170, 1300)),
        ("train[5:-7]", (5, 1293)),
    ],
)
def test_a_split_may_be_a_slice(split, expected):
    assert dataset_lib.split_range(split, 1300) == expected


@pytest.mark.parametrize(
    "split", ["train[", "train[:x]", "train[3]", "", "a b", "train[:0]", "train[:9999]"]
)
def test_a_slice_that_leaves_nothing_or_makes_no_sense_is_refused(split):
    with pytest.raises(ValueError, match="split"):
        dataset_lib.split_range(split, 1300)


def test_a_part_keeps_images_and_labels_together():
    whole = data.from_arrays("made up", GRAY, [0, 1, 0, 1, 1])
    part = data.part(whole, 1, 4)
    np.testing.assert_array_equal(part.images, whole.images[1:4])
    np.testing.assert_array_equal(part.labels, [1, 0, 1])
    assert part.num_classes == 2
    with pytest.raises(ValueError, match=r"made up.*\[3:3\] of 5"):
        data.part(whole, 3, 3)


def test_to_memory_reads_ragged_blocks(tmp_path):
    np.save(tmp_path / "x.npy", GRAY)
    mapped = data.arrays(tmp_path / "x.npy")
    assert isinstance(mapped.images, np.memmap)
    loaded = data.to_memory(mapped, block=2)
    assert type(loaded.images) is np.ndarray
    np.testing.assert_array_equal(loaded.images[..., 0], GRAY)
    assert data.to_memory(loaded) is loaded
