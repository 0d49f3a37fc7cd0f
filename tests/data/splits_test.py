"""Parts that are drawn evenly over the classes, and warnings where they are not."""

import warnings

import numpy as np
import pytest

from jaxcl import data
from jaxcl.data import splits

Y = np.repeat(np.arange(5), 40)
X = np.arange(200, dtype=np.uint8)[:, None, None]
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def sorted_file(tmp_path, **more):
    np.savez(tmp_path / "s.npz", images=X, labels=Y, **more)
    return str(tmp_path / "s.npz")


def test_stratified_parts_hold_every_class_in_proportion_and_meet_nowhere(tmp_path):
    source = sorted_file(tmp_path)
    parts = [
        data.open(source, f"train[{part},stratified]")
        for part in (":60%", "60%:80%", "80%:")
    ]
    for part, count in zip(parts, (24, 8, 8), strict=True):
        np.testing.assert_array_equal(np.bincount(part.columns["label"]), [count] * 5)
        levels = np.asarray(part.columns["image"][:])[:, 0, 0, 0]
        np.testing.assert_array_equal(levels // 40, part.columns["label"])
    everything = np.concatenate([part.columns["image"][:] for part in parts])
    assert sorted(everything[:, 0, 0, 0]) == list(range(200))
    again = data.open(source, "train[:60%, stratified]")
    np.testing.assert_array_equal(again.columns["image"][:], everything[:120])


def test_a_first_part_holds_every_class_however_rare():
    sizes = np.array([1, 2, 3, 9, 70, 1])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), sizes))
    order = splits.stratified_order(labels)
    assert sorted(order) == list(range(86))
    assert sorted(labels[order[:6]]) == list(range(6))
    for stop in range(6, 87):
        counts = np.bincount(labels[order[:stop]], minlength=6)
        # One more of a rare class than its share, at the cost of the large one.
        excess = counts - sizes * stop / 86
        assert -4 < excess.min() <= excess.max() <= 1


def test_images_without_labels_are_drawn_evenly_too(tmp_path):
    np.save(tmp_path / "a.npy", X)
    first, second = (
        data.open(str(tmp_path / "a.npy"), f"train[{part},stratified]").columns["image"]
        for part in (":50%", "50%:")
    )
    assert sorted(np.concatenate([first[:], second[:]])[:, 0, 0, 0]) == list(range(200))
    assert 80 < first[:].mean() < 120


@pytest.mark.parametrize(
    ("split", "named"),
    [
        ("train[:80%]", r"1 class \(eel\)"),
        ("train[80%:]", r"4 classes \(ant, bee, cat, dog\)"),
        ("train[-40:]", r"4 classes \(ant, bee, cat, dog\)"),
    ],
)
def test_a_slice_that_lacks_classes_is_warned_of_and_keeps_its_meaning(
    tmp_path, split, named
):
    source = sorted_file(tmp_path, classes=NAMES)
    drawn = split.replace("]", ",stratified").replace("[", r"\[")
    with pytest.warns(UserWarning, match=f"holds no image of {named}.*{drawn}"):
        part = data.open(source, split)
    start = {"train[:80%]": 0}.get(split, 160)
    np.testing.assert_array_equal(part.columns["label"], Y[start:][: data.size(part)])


def test_a_small_slice_may_lack_classes_and_so_may_a_whole_set(tmp_path):
    source = sorted_file(tmp_path, classes=[*NAMES, "fox"])  # of which there is none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.open(source, "train[:4]")
        data.open(source, "train")
        data.open(source, "train[:80%,stratified]")


def test_a_slice_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"or 'train\[:90%,stratified\]', got"):
        data.open(sorted_file(tmp_path), "train[:80%,mixed]")
