import hashlib

import numpy as np
import pytest
import sklearn.datasets

from jaxcl import data
from jaxcl.data import files

X = np.random.RandomState(0).randint(0, 256, (7, 5, 4, 3)).astype(np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)


# The held-out part must never change: these sums were taken when it was chosen.
@pytest.mark.parametrize(
    ("split", "size", "expected"),
    [
        ("train", 1300, "6769b9dc0e801e0f"),
        ("test", 497, "cad0464d806e2540"),
    ],
)
def test_the_split_of_the_digits_is_fixed(split, size, expected):
    digits = data.digits(split)
    assert digits.columns["image"].shape == (size, 8, 8, 1)
    images, labels = digits.columns["image"], digits.columns["label"]
    content = images.tobytes() + labels.astype("<i4").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == expected


def test_train_and_test_digits_are_all_digits_once():
    both = [data.digits("train"), data.digits("test")]
    images = np.concatenate([d.columns["image"] for d in both]).reshape(1797, 64)
    rows = np.column_stack([images, np.concatenate([d.columns["label"] for d in both])])
    real = sklearn.datasets.load_digits()
    scaled = np.rint(real.data / 16 * 255)
    expected = np.column_stack([scaled, real.target])
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)]
    )
    assert images.max() == 255


def test_digits_can_be_sliced():
    whole, part = data.digits("train"), data.digits("train[-10%:]")
    np.testing.assert_array_equal(part.columns["image"], whole.columns["image"][1170:])
    np.testing.assert_array_equal(part.columns["label"], whole.columns["label"][1170:])
    with pytest.raises(ValueError, match="digits has splits 'train' and 'test'"):
        data.digits("validation")


@pytest.mark.parametrize("image_key", ["images", "image", "x"])
@pytest.mark.parametrize("label_key", ["labels", "label", "y"])
def test_npz_keys(tmp_path, image_key, label_key):
    np.savez(tmp_path / "a.npz", **{image_key: X, label_key: Y})
    dataset = data.arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(dataset.columns["image"], X)
    np.testing.assert_array_equal(dataset.columns["label"], Y)
    assert len(dataset.class_names) == 3


@pytest.mark.parametrize("order", ["{split}_{key}", "{key}_{split}"])
def test_npz_with_several_splits(tmp_path, order):
    content = {
        order.format(split="train", key="x"): X,
        order.format(split="train", key="y"): Y,
        order.format(split="test", key="x"): X[:2],
        order.format(split="test", key="y"): Y[:2],
    }
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **content)
    assert data.array_splits(path) == ("test", "train")
    test = data.arrays(path, "test")
    np.testing.assert_array_equal(test.columns["image"], X[:2])
    np.testing.assert_array_equal(test.columns["label"], Y[:2])
    assert len(test.class_names) == 3  # although class 2 is not among the two
    np.testing.assert_array_equal(
        data.arrays(path, "train[3:]").columns["image"], X[3:]
    )
    with pytest.raises(ValueError, match=r"has split 'test', 'train', got 'val'"):
        data.arrays(path, "val")


def test_class_names_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=["cat", "dog", "eel", "fox"])
    dataset = data.arrays(tmp_path / "a.npz")
    assert dataset.class_names == ("cat", "dog", "eel", "fox")
    assert len(dataset.class_names) == 4


def test_a_file_without_splits_says_how_to_hold_images_out(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "a.npz", x=X)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        assert data.array_splits(path) == ("train",)
        with pytest.raises(ValueError, match=r"'train\[80%:,stratified\]'"):
            data.arrays(path, "test")


def test_npy_is_mapped_and_has_no_labels(tmp_path):
    np.save(tmp_path / "a.npy", X)
    dataset = data.arrays(tmp_path / "a.npy", "train[:3]")
    assert isinstance(dataset.columns["image"], np.memmap)
    assert "label" not in dataset.columns
    np.testing.assert_array_equal(dataset.columns["image"], X[:3])


def broken_files(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", x=X, y=Y)
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "whole.npy", X)
    mapped = (tmp_path / "whole.npy").read_bytes()
    flipped = bytearray(whole)
    flipped[60:80] = bytes(20)
    (tmp_path / "truncated.npz").write_bytes(whole[:-60])
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("no array at all")
    (tmp_path / "disguised.npz").write_bytes(mapped)
    (tmp_path / "disguised.npy").write_bytes(whole)
    (tmp_path / "truncated.npy").write_bytes(mapped[:-60])
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}, 1]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", allow_pickle=True, x=np.array([{}, 1]))
    np.savez(tmp_path / "keys.npz", pictures=X)
    np.savez(tmp_path / "nothing.npz")
    np.savez(tmp_path / "float.npz", x=X / 255)
    np.savez(tmp_path / "lengths.npz", x=X, y=Y[:-1])
    np.savez(tmp_path / "none.npz", x=X[:0], y=Y[:0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated.npz", "not a readable NumPy file"),
        ("flipped.npz", "cannot read array 'x'|not a readable NumPy file"),
        ("empty.npz", "not a readable NumPy file"),
        ("text.npz", "not a readable NumPy file"),
        ("disguised.npz", "not a readable NumPy file"),
        ("disguised.npy", "not a readable NumPy file: the magic string"),
        ("truncated.npy", "not a readable NumPy file"),
        ("empty.npy", "not a readable NumPy file"),
        ("objects.npy", "not a readable NumPy file"),
        ("objects.npz", "cannot read array 'x'"),
        ("keys.npz", "images, image, x.*got pictures"),
        ("nothing.npz", "got nothing"),
        ("float.npz", "uint8, got float64"),
        ("lengths.npz", r"7 images, got labels of shape \(6,\)"),
        ("none.npz", "at least one image"),
    ],
)
def test_an_error_names_the_broken_file(tmp_path, name, message):
    broken_files(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){name}: .*({message})"):
        data.arrays(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz: there is no such file"):
        data.arrays(tmp_path / "gone.npz")
    with pytest.raises(ValueError, match=r"ending in \.npz or \.npy"):
        data.arrays(tmp_path / "gone.mat")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_a_file_are_mapped_unless_they_are_compressed(tmp_path, save):
    path = tmp_path / "a.npz"
    columns = np.asfortranarray(X[..., 0].reshape(len(X), -1))
    save(path, x=X, columns=columns, nothing=X[:0], one=np.float64(3))
    assert files.headers(path) == {
        "x": (X.shape, np.uint8),
        "columns": (columns.shape, np.uint8),
        "nothing": (X[:0].shape, np.uint8),
        "one": ((), np.float64),
    }
    for key, expected in (("x", X), ("columns", columns), ("nothing", X[:0])):
        found = files.load(path, key)
        np.testing.assert_array_equal(found, expected)
        mapped = save is np.savez and key != "nothing"
        assert isinstance(found, np.memmap) == mapped
    assert files.load(path, "one") == 3
    with pytest.raises(KeyError):
        files.load(path, "y")


def test_a_headers_shape_is_all_that_is_read(tmp_path):
    np.save(tmp_path / "a.npy", X)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:128])
    assert files.headers(tmp_path / "a.npy") == {"": (X.shape, np.uint8)}
