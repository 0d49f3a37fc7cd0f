"""Which files of a folder are taken, of which class and split, and what is said."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest

from jaxcl.data import folders, image_files


def save(path, level=0, size=(4, 4), mode="L"):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, (level,) * len(mode) if mode != "L" else level).save(path)
    return path


def read(root, resize=None):
    return folders.read(str(root), resize=resize, ground=128, max_pixels=10**6)


def classes(dataset):
    """Levels of the images of each class."""
    levels = dataset.columns["image"][:][:, 0, 0, 0].tolist()
    found = {name: [] for name in dataset.class_names}
    for level, label in sorted(zip(levels, dataset.columns["label"], strict=True)):
        found[dataset.class_names[label]].append(level)
    return found


def test_hidden_files_and_leftovers_are_left_out_at_every_depth(tmp_path):
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "a" / "deep" / "er" / "2.png", 2)
    for name in (
        "a/.ipynb_checkpoints/1.png",
        "a/deep/.thumbnails/2.png",
        "@eaDir/1.png",
    ):
        save(tmp_path / name, 9)
    save(tmp_path / "a" / "._1.png", 9).write_bytes(b"resource fork")
    for name in ("__MACOSX/a/._1.jpg", "a/Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    datasets, account = read(tmp_path)
    assert classes(datasets["train"]) == {"a": [1, 2]}
    assert set(account.left_out["hidden or left behind by a system"]) == {
        *("a/.ipynb_checkpoints/", "a/deep/.thumbnails/", "@eaDir/", "a/._1.png"),
        *("__MACOSX/", "a/Thumbs.db", "desktop.ini", ".DS_Store"),
    }
    assert not account.unreadable


def test_all_formats_are_taken_and_what_is_none_is_named(tmp_path):
    kinds = ("png", "webp", "bmp", "gif", "tif", "pgm", "PNG", "ico", "jp2")
    for i, kind in enumerate(kinds):
        save(tmp_path / "a" / f"{i}.{kind}", i)
    save(tmp_path / "a" / "20.bmp", 20).rename(tmp_path / "a" / "wrong.jpg")
    save(tmp_path / "a" / "30.png", 30).rename(tmp_path / "a" / "noending")
    (tmp_path / "a" / "README").write_text("no image")
    (tmp_path / "a" / "labels.csv").write_text("1,2")
    (tmp_path / "a" / "photo.HEIC").write_bytes(b"of a telephone")
    datasets, account = read(tmp_path)
    assert classes(datasets["train"])["a"] == [*range(9), 20, 30]
    assert account.left_out == {
        "without an ending and no image": ["a/README"],
        ".csv files": ["a/labels.csv"],
        ".heic files": ["a/photo.HEIC"],
    }
    assert account.formats.total() == 11
    assert "  left out, .heic files: 1 (a/photo.HEIC)" in account.lines()


def test_links_are_followed_and_lead_in_no_circles(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    save(root / "a" / "1.png", 1)
    save(root / "b" / "2.png", 2)
    save(elsewhere / "3.png", 3)
    (root / "a" / "more").symlink_to(elsewhere)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (elsewhere / "back").symlink_to(elsewhere)
    (root / "a" / "4.png").symlink_to(tmp_path / "gone.png")
    (root / "b" / "one.png").symlink_to(elsewhere / "3.png")
    os.mkfifo(root / "b" / "pipe.png")
    datasets, account = read(root)
    assert classes(datasets["train"]) == {"a": [1, 3], "b": [2, 3]}
    circles = ["a/more/back/", "a/self/", "a/up/"]
    assert account.left_out == {
        "reached before, through a link": circles,
        "broken links or no files": ["a/4.png", "b/pipe.png"],
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "valid"], ["train", "valid"]),
        (["train", "dev", "eval"], ["dev", "eval", "train"]),
        (["Train", "VALIDATION", "test"], ["test", "train", "validation"]),
        (["Training", "Testing"], ["test", "train"]),
        (["train2017", "val2017"], ["train", "val"]),
        (["training_set", "test_set"], ["test", "train"]),
        (["train"], ["train"]),
        (["train", "bus"], None),  # a class may be called so
        (["test", "bus"], None),
    ],
)
def test_folders_of_these_names_alone_are_splits(tmp_path, names, expected):
    for i, name in enumerate(names):
        for c in "ab":
            save(tmp_path / name / c / "1.png", i)
    save(tmp_path / "notes" / "a.txt.png").rename(tmp_path / "notes" / "a.txt")
    datasets, account = read(tmp_path)
    if expected is None:
        assert datasets["train"].class_names == tuple(sorted(names))
    else:
        assert list(datasets) == expected
        assert {d.class_names for d in datasets.values()} == {("a", "b")}
        for i, name in enumerate(names):
            split = folders.split_of(name)
            assert classes(datasets[split]) == {"a": [i], "b": [i]}
    assert account.empty == ["notes/"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/1", "val/a/1", "extra/1"], "splits or classes, got both: .*extra"),
        (["train/a/1", "Training/a/1"], "each split once, got Training, train"),
        (["a/train/1", "a/test/1", "b/train/1"], "splits within folders, a/test$"),
        (["a/train/1", "a/test/1"], "folders, a/test: give --folder .*/a$"),
        (
            ["a/train/1", "a/test/1", "a/truth/1"],
            "folders, a/test: give --folder .*/a$",
        ),
        (["train/a/1", "train/2"], "got both: train/2.png, train/a/"),
        (["a/b/1", "1"], "got both: 1.png, a/b/"),
    ],
)
def test_an_order_of_folders_that_may_mean_two_things_is_refused(
    tmp_path, files, message
):
    for name in files:
        save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_classes_that_lie_a_folder_deeper_are_warned_of(tmp_path):
    for name in ("photos/cats", "photos/dogs"):
        save(tmp_path / name / "1.png")
    deeper = (
        f"one class, photos; to make cats, dogs classes: give --folder {tmp_path}/p"
    )
    with pytest.warns(UserWarning, match=deeper):
        datasets, _ = read(tmp_path)
    assert datasets["train"].class_names == ("photos",)
    assert read(tmp_path / "photos")[0]["train"].class_names == ("cats", "dogs")


def test_a_class_keeps_its_number_where_a_split_lacks_it(tmp_path):
    for name in ("train/b", "train/c", "val/a", "val/c"):
        save(tmp_path / name / "1.png", ord(name[-1]))
    save(tmp_path / "beside.png")
    datasets, account = read(tmp_path)
    names = ("a", "b", "c")
    for split, labels in (("train", [1, 2]), ("val", [0, 2])):
        assert datasets[split].class_names == names
        assert sorted(datasets[split].columns["label"]) == labels
    assert account.left_out == {"beside the splits": ["beside.png"]}


def test_names_are_composed_and_printable(tmp_path):
    save(tmp_path / "train" / "cafe\N{COMBINING ACUTE ACCENT}" / "1.png", 1)
    save(tmp_path / "val" / "caf\N{LATIN SMALL LETTER E WITH ACUTE}" / "2.png", 2)
    save(tmp_path / "train" / "two\nlines" / "new\nline.gif", 3)
    raw = os.fsencode(tmp_path / "train" / "two\nlines") + b"/\xff.gif"
    os.rename(tmp_path / "train" / "two\nlines" / "new\nline.gif", raw)
    datasets, account = read(tmp_path)
    assert datasets["train"].class_names == ("caf\xe9", "two\\nlines")
    assert classes(datasets["val"]) == {"caf\xe9": [2], "two\\nlines": []}
    with open(raw, "wb") as file:
        file.write(b"broken")
    _, account = read(tmp_path)
    assert list(account.unreadable) == ["train/two\\nlines/\\udcff.gif"]
    account.reasons().encode()


def test_two_folders_of_one_composed_name_are_joined_with_a_word(tmp_path):
    for i, name in enumerate(("caf\xe9", "cafe\N{COMBINING ACUTE ACCENT}")):
        save(tmp_path / name / "1.png", i)
    with pytest.warns(UserWarning, match="the same name are one: caf\xe9/$"):
        datasets, _ = read(tmp_path)
    assert sorted(classes(datasets["train"])["caf\xe9"]) == [0, 1]


def test_sizes_are_compared_after_turning(tmp_path):
    tag = PIL.Image.Exif()
    tag[0x0112] = 6
    save(tmp_path / "a" / "1.png", size=(4, 6))
    lying = PIL.Image.new("L", (6, 4))
    lying.save(tmp_path / "a" / "2.png", exif=tag)
    assert read(tmp_path)[0]["train"].columns["image"][:].shape == (2, 6, 4, 1)
    save(tmp_path / "a" / "3.png", size=(6, 4))
    both = r"one size, or use --resize; got 2 sizes: 4x6 .*1\.png, 6x4 .*3\.png"
    with pytest.raises(ValueError, match=both):
        read(tmp_path)
    assert read(tmp_path, 5)[0]["train"].columns["image"][:].shape == (3, 5, 5, 1)


@pytest.mark.parametrize(
    ("mode", "size", "now"), [("L", (9, 4), "9x4 pixels"), ("RGB", (6, 4), "colors")]
)
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, mode, size, now):
    save(tmp_path / "a" / "1.png", size=(6, 4))
    datasets, account = read(tmp_path)
    PIL.Image.new(mode, size).save(tmp_path / "a" / "1.png")
    with pytest.raises(image_files.Unreadable, match=f"it has {now} now"):
        datasets["train"].columns["image"][0]
    assert list(account.unreadable) == ["a/1.png"]


def test_what_was_done_is_counted_and_named(tmp_path):
    for i in range(5):
        PIL.Image.new("I;16", (4, 4)).save(save(tmp_path / "a" / f"{i}.png"))
    save(tmp_path / "a" / "5.png", mode="RGB")
    datasets, account = read(tmp_path)
    datasets["train"].columns["image"][:]
    assert account.lines()[0] == f"{tmp_path}: images taken: 6 (6 PNG)"
    done = "gray among colors, given three channels"
    assert {why: len(names) for why, names in account.done.items()} == {
        done: 5,
        "upper 8 of 16 bits kept": 5,
        "dark, since less than a 16th of 16 bits is used": 5,
    }
    assert f"  {done}: 5 (" in "\n".join(account.lines())
    assert "and 2 more)" in account.lines()[1]
    assert np.unique(datasets["train"].columns["label"]) == [0]
