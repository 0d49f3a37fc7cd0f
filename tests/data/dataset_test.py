import numpy as np
import pytest

from jaxcl import data
from jaxcl.data import dataset as dataset_lib

GRAY = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def test_gray_images_get_a_channel_axis():
    dataset = data.from_arrays("made up", GRAY)
    assert dataset.columns["image"].shape == (5, 4, 3, 1)
    np.testing.assert_array_equal(dataset.columns["image"][..., 0], GRAY)
    assert set(dataset.columns) == {"image"}
    assert dataset.class_names is None


def test_labels_become_int32_and_are_counted():
    dataset = data.from_arrays("made up", GRAY, np.array([[0], [3], [1], [0], [3]]))
    assert dataset.columns["label"].dtype == np.int32
    np.testing.assert_array_equal(dataset.columns["label"], [0, 3, 1, 0, 3])
    assert dataset.class_names == ("0", "1", "2", "3")


def test_class_names_give_the_number_of_classes():
    dataset = data.from_arrays("made up", GRAY, [0, 1, 0, 1, 0], ["a", "b", "c"])
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
    np.testing.assert_array_equal(part.columns["image"], whole.columns["image"][1:4])
    np.testing.assert_array_equal(part.columns["label"], [1, 0, 1])
    assert part.class_names == whole.class_names
    with pytest.raises(ValueError, match=r"made up.*\[3:3\] of 5"):
        data.part(whole, 3, 3)


def test_what_is_mapped_stays_mapped_and_is_an_array(tmp_path):
    np.save(tmp_path / "x.npy", GRAY)
    mapped = data.arrays(tmp_path / "x.npy")
    assert isinstance(mapped.columns["image"], np.memmap)
    loaded = data.to_memory(mapped, limit=0)  # nothing has to be read
    assert type(loaded.columns["image"]) is np.ndarray
    assert np.shares_memory(loaded.columns["image"], mapped.columns["image"])
    np.testing.assert_array_equal(loaded.columns["image"][..., 0], GRAY)
    assert data.to_memory(loaded) is loaded


class Files:
    """A column that reads what it is asked for, and counts."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return len(GRAY)

    def __getitem__(self, indices):
        rows = GRAY[indices]
        self.read += len(rows)
        return rows


def test_what_does_not_fit_stays_where_it_is():
    files = data.Dataset("made up", {"image": Files(), "label": np.arange(5)})
    assert data.size_in_bytes(files) == GRAY.nbytes + 5 * 8
    assert data.to_memory(files, limit=GRAY.nbytes - 1) is files
    assert files.columns["image"].read <= 2  # of the first, its size
    loaded = data.to_memory(files, limit=GRAY.nbytes, block=2)  # ragged blocks
    np.testing.assert_array_equal(loaded.columns["image"], GRAY)
    assert loaded.columns["label"] is files.columns["label"]
    assert 2**28 < data.memory_limit() < 2**46


class Sentences:
    """A column of pytrees."""

    def __len__(self):
        return 5

    def __getitem__(self, indices):
        rows = np.arange(5)[indices]
        return {"ids": rows[:, None] * np.ones(3, int), "length": rows}


def test_columns_may_hold_pytrees():
    text = data.Dataset("made up", {"text": Sentences(), "label": np.arange(5)})
    assert data.size(text) == 5
    part = data.part(text, 1, 4)
    for dataset in (part, data.to_memory(part, block=2)):
        chosen = dataset.columns["text"][np.array([2, 0])]
        np.testing.assert_array_equal(chosen["length"], [3, 1])
        np.testing.assert_array_equal(chosen["ids"], [[3] * 3, [1] * 3])
    assert data.size(data.to_memory(part)) == 3


def test_columns_that_are_none_are_refused():
    with pytest.raises(
        TypeError, match=r"made up: columns must be a mapping .* ndarray"
    ):
        data.size(data.Dataset("made up", np.zeros(3)))
    with pytest.raises(TypeError, match="column 'x' must take an array of indices"):
        data.size(data.Dataset("made up", {"x": [1, 2]}))


def test_columns_of_different_lengths_are_refused():
    ragged = data.Dataset("made up", {"a": np.arange(3), "b": np.arange(4)})
    with pytest.raises(ValueError, match=r"made up: columns .*\{'a': 3, 'b': 4\}"):
        data.size(ragged)
