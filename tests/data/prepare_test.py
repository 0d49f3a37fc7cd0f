import gzip
import pathlib
import struct
import subprocess
import sys
import warnings

import numpy as np
import PIL.Image
import pytest

from jaxcl import __main__, _optional, data
from jaxcl.data import prepare
from tests.data import delta

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

# Tests give the same images to both splits, of which `prepare` warns.
SHARED = pytest.mark.filterwarnings("ignore:.* images of test are in train, too")
REAL = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "images"
X = np.random.RandomState(2).randint(0, 256, (13, 6, 5, 3)).astype(np.uint8)
Y = np.arange(13, dtype=np.uint8) % 3


def run(tmp_path, **settings):
    """Prepares a set in a directory of its own and opens its splits."""
    settings = {"name": "made", "data_dir": str(tmp_path / "sets"), **settings}
    source = prepare.main(prepare.Settings(**settings))

    def opened(split):
        return data.to_memory(data.open(source, split))

    return opened


def idx(values):
    header = struct.pack(">HBB", 0, 8, values.ndim)
    return header + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def folder(root, images, labels, names, kind="png"):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / names[label]
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(place / f"{i:03d}.{kind}")
    return str(root)


def as_set(dataset):
    """Images with their class names, in no order."""
    return sorted(
        (dataset.class_names[label], image.tobytes())
        for image, label in zip(
            dataset.columns["image"], dataset.columns["label"], strict=True
        )
    )


@SHARED
@pytest.mark.filterwarnings("ignore:.*holds no image of")
def test_arrays_make_the_round_trip(tmp_path):
    names = ["ant", "bee", "cat", "dog"]
    np.savez(tmp_path / "a.npz", x=X[:8], y=Y[:8], classes=names)
    np.savez(tmp_path / "b.npz", images=X[8:], labels=Y[8:].astype(np.int64))
    np.savez(tmp_path / "c.npz", image=X[:2], label=Y[:2])
    train = (str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    opened = run(tmp_path, train=train, test=(str(tmp_path / "c.npz"),))
    for split, count in (("train", 13), ("test", 2)):
        dataset = opened(split)
        np.testing.assert_array_equal(dataset.columns["image"], X[:count])
        np.testing.assert_array_equal(dataset.columns["label"], Y[:count])
        assert dataset.class_names == tuple(names)


@SHARED
def test_one_file_may_hold_both_splits(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=X, y_train=Y[:, None], x_test=X[:4], y_test=Y[:4, None])
    opened = run(tmp_path, train=(str(path),), test=(str(path),))
    np.testing.assert_array_equal(opened("train").columns["image"], X)
    np.testing.assert_array_equal(opened("test").columns["label"], Y[:4])


def test_npy_files_hold_images_or_labels(tmp_path):
    paths = tuple(str(tmp_path / f"{name}.npy") for name in "abc")
    for path, array in zip(paths, (X[:5, ..., 0], X[5:, ..., 0], Y), strict=True):
        np.save(path, array)
    dataset = run(tmp_path, train=paths)("train")
    np.testing.assert_array_equal(dataset.columns["image"], X[..., :1])
    np.testing.assert_array_equal(dataset.columns["label"], Y)
    assert dataset.class_names == ("0", "1", "2")
    unlabelled = run(tmp_path, name="bare", train=paths[:2])("train")
    np.testing.assert_array_equal(unlabelled.columns["image"], X[..., :1])
    assert "label" not in unlabelled.columns


def test_idx_files_are_read_plain_and_compressed(tmp_path):
    images, labels = X[..., 0], Y
    (tmp_path / "images").write_bytes(idx(images))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(labels)))
    paths = (str(tmp_path / "images"), str(tmp_path / "labels.gz"))
    dataset = run(tmp_path, train=paths)("train")
    np.testing.assert_array_equal(dataset.columns["image"][..., 0], images)
    np.testing.assert_array_equal(dataset.columns["label"], labels)


@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_makes_the_round_trip(tmp_path, nested):
    names, root = ["zebra", "ant", "train"], tmp_path / "pictures"
    if nested:
        folder(root / "valid", X[:4], Y[:4], names)
    start = 4 if nested else 0
    folder(root / "train" if nested else root, X[start:], Y[start:], names)
    opened = run(tmp_path, folder=str(root))
    expected = data.from_arrays("expected", X, Y, names)
    assert as_set(opened("train")) == as_set(data.part(expected, start, 13))
    assert opened("train").class_names == ("ant", "train", "zebra")
    if nested:
        assert as_set(opened("valid")) == as_set(data.part(expected, 0, 4))


def test_a_slice_of_a_folder_holds_all_classes(tmp_path):
    images = np.zeros((60, 4, 4), np.uint8)
    root = folder(tmp_path / "pictures", images, np.arange(60) // 20, "abc")
    labels = run(tmp_path, folder=root)("train[:50%]").columns["label"]
    assert np.bincount(labels, minlength=3).min() >= 5


def test_gray_and_unlabelled_folders(tmp_path):
    root = folder(tmp_path / "gray", X[..., 0], Y, ["a", "b", "c"])
    dataset = run(tmp_path, name="gray", folder=root)("train")
    assert dataset.columns["image"].shape == (13, 6, 5, 1)
    alone = tmp_path / "alone"
    alone.mkdir()
    PIL.Image.fromarray(X[0]).save(alone / "a.png")
    PIL.Image.fromarray(X[1, ..., 0]).save(alone / "b.PNG")  # gray becomes color
    dataset = run(tmp_path, name="alone", folder=str(alone))("train")
    assert dataset.columns["image"].shape == (2, 6, 5, 3)
    assert "label" not in dataset.columns


def test_resize_cuts_the_middle_out(tmp_path):
    # Three flat stripes: of the middle one alone remains what was cut out.
    stripes = np.repeat(np.array([10, 130, 250], np.uint8), 20)
    wide = np.tile(stripes, (20, 1))
    root = folder(tmp_path / "pictures", [wide, wide.T], [0, 1], ["wide", "tall"])
    np.save(tmp_path / "a.npy", wide[None])
    for name, settings in (
        ("pictures", {"folder": root}),
        ("files", {"train": (str(tmp_path / "a.npy"),)}),
    ):
        images = run(tmp_path, name=name, resize=10, **settings)("train").columns[
            "image"
        ]
        assert images.shape[1:] == (10, 10, 1)
        np.testing.assert_array_equal(images[:, 2:-2, 2:-2], 130)
    with pytest.raises(ValueError, match=r"one size, or use --resize; got .*tall"):
        run(tmp_path, name="other", folder=root)


def test_jpeg_is_read(tmp_path):
    flat = np.full((2, 8, 8, 3), 100, np.uint8)
    root = folder(tmp_path / "pictures", flat, [0, 1], "ab", "jpg")
    images = run(tmp_path, folder=root)("train").columns["image"].astype(int)
    assert np.abs(images - 100).max() <= 2


@SHARED
def test_an_npz_instead_of_a_set(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=["ant", "bee", "cat"])
    a = (str(tmp_path / "a.npz"),)
    out = str(tmp_path / "new" / "out.npz")
    opened = run(tmp_path, name="", npz=out, train=a, test=a)
    for split in ("train", "test"):
        np.testing.assert_array_equal(opened(split).columns["image"], X)
        np.testing.assert_array_equal(opened(split).columns["label"], Y)
        assert opened(split).class_names == ("ant", "bee", "cat")
    with pytest.raises(FileExistsError, match=r"out\.npz .*--overwrite"):
        run(tmp_path, name="", npz=out, train=a)
    run(tmp_path, name="", npz=out, train=a, overwrite=True)
    assert data.array_splits(out) == ("train",)


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X[:3], y=Y[:3])
    a, b = ((str(tmp_path / f"{name}.npz"),) for name in "ab")
    opened = run(tmp_path, train=a)
    with pytest.raises(FileExistsError, match=r"made.*there already: use --overwrite"):
        run(tmp_path, train=b)
    assert len(opened("train").columns["image"]) == 13
    run(tmp_path, train=b, overwrite=True)
    assert len(opened("train").columns["image"]) == 3
    assert [p.name for p in (tmp_path / "sets" / "made").iterdir()] == ["1.0.0"]


def test_a_run_that_fails_half_way_destroys_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    opened = run(tmp_path, train=(str(tmp_path / "a.npz"),))
    broken = folder(tmp_path / "pictures", X, Y, "abc")
    last = sorted((tmp_path / "pictures").glob("*/*"))[-1]
    last.write_bytes(last.read_bytes()[:-40])  # the header is whole, the rest is not
    few = f"1 of 13 files .* --max_unreadable 0.01 .*{last.name} .*truncated"
    with pytest.raises(ValueError, match=few):
        run(tmp_path, folder=broken, overwrite=True)
    np.testing.assert_array_equal(opened("train").columns["image"], X)
    with pytest.raises(ValueError, match="not a readable image"):
        run(tmp_path, name="fresh", folder=broken)
    assert [p.name for p in (tmp_path / "sets").rglob("*") if p.is_dir()] == [
        "made",
        "1.0.0",
    ]


def test_a_directory_of_something_else_is_never_replaced(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    for name in ("2.0.0", "1.0.0"):
        place = tmp_path / "sets" / f"thesis{name[0]}" / name
        place.mkdir(parents=True)
        (place / "thesis.tex").write_text("all of it")
        with pytest.raises(FileExistsError, match="holds something else"):
            run(
                tmp_path,
                name=place.parent.name,
                train=(str(tmp_path / "a.npz"),),
                overwrite=True,
            )
        assert (place / "thesis.tex").read_text() == "all of it"


def inputs(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=["ant", "bee", "cat"])
    np.savez(tmp_path / "names.npz", x=X, y=Y, classes=["ant", "bee", "cow"])
    np.savez(tmp_path / "size.npz", x=X[:, :4], y=Y)
    np.savez(tmp_path / "twice.npz", x=X, y=Y, classes=["ant", "ant", "cat"])
    np.savez(tmp_path / "bare.npz", x=X)
    np.save(tmp_path / "labels.npy", Y)
    (tmp_path / "short-idx3").write_bytes(idx(X[..., 0])[:-1])
    (tmp_path / "torn.gz").write_bytes(gzip.compress(idx(X[..., 0]))[:-20])
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "mixed" / "ant").mkdir(parents=True)
    PIL.Image.fromarray(X[0]).save(tmp_path / "mixed" / "a.png")
    PIL.Image.fromarray(X[0]).save(tmp_path / "mixed" / "ant" / "a.png")
    (tmp_path / "hollow" / "ant").mkdir(parents=True)
    (tmp_path / "hollow" / "ant" / "a.HEIC").write_bytes(b"of a telephone")
    (tmp_path / "bad" / "ant").mkdir(parents=True)
    (tmp_path / "bad" / "ant" / "a.png").write_text("no image")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--name made", "one of --train .*, got none"),
        ("--name made --train a.npz --folder nothing", "got --train and --folder"),
        ("--train a.npz", "--name must be lower case"),
        ("--name Made! --train a.npz", "--name must be lower case"),
        ("--name made --test a.npz", "--test needs --train"),
        ("--name made --npz o.npz --train a.npz", "got both"),
        ("--npz o.zip --train a.npz", r"--npz must end in \.npz"),
        ("--name made --train a.npz --resize 0", "resize must be at least 1, got 0"),
        ("--name made --train gone.npz", "gone.npz: there is no such file"),
        ("--name made --train a.npz names.npz", "agree on the class names"),
        ("--name made --train a.npz --test names.npz", "agree on the class names"),
        ("--name made --train a.npz size.npz", r"one size.*\(13, 4, 5, 3\)"),
        ("--name made --train a.npz --test size.npz", "splits must have images of one"),
        ("--name made --train a.npz bare.npz", "one label for each of 26 images"),
        ("--name made --train a.npz --test bare.npz", "all splits must have labels"),
        ("--name made --train twice.npz", "class names must differ"),
        ("--name made --train labels.npy", "must hold images, got only labels"),
        ("--name made --train short-idx3", "short-idx3: expected .* after the header"),
        ("--name made --train torn.gz", "torn.gz: damaged gzip file"),
        ("--name made --train notes.txt", "notes.txt: expected .npz, .npy, or an idx"),
        ("--name made --folder gone", "gone: there is no such folder"),
        ("--name made --folder nothing", "nothing: no images in it"),
        ("--name made --folder mixed", "got both: a.png, ant/"),
        ("--name made --folder hollow", "no images .* left out, .heic files: 1"),
        ("--name made --folder bad", "ant/a.png .of no format that Pillow knows"),
        ("--name made --folder a.npz", "must be a folder, got a file"),
        ("--name made --train bad", "must be a file, got a folder; --folder"),
        ("--name made --folder bad --ground 256", "ground must be at most 255"),
        ("--name made --folder bad --max_unreadable 2", "max_unreadable must lie"),
        ("--name made --folder bad --max_pixels 0", "max_pixels must be at least 1"),
        ("--name made --train a.npz --held_out 1", r"held_out must lie in \[0, 1\)"),
        ("--name made --train a.npz --held_out 0.01", "must leave images to both"),
        (
            "--name made --train a.npz --test a.npz --held_out 0.2",
            "'train' alone, got train, test",
        ),
        ("--stock cifar10 --name made", "--stock takes no --name"),
    ],
)
def test_a_wrong_input_ends_with_one_line(tmp_path, monkeypatch, flags, message):
    inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=f"^[A-Z][a-zA-Z]*Error: .*{message}[^\n]*$"
    ) as end:
        __main__.cli(["prepare", *flags.split(), "--data_dir", "sets"])
    assert end.value.code not in (0, None)
    assert not (tmp_path / "sets" / "made").exists()


def test_unreadable_images_are_left_out_and_named(tmp_path, capsys):
    root = folder(tmp_path / "pictures", np.repeat(X, 2, 0), np.repeat(Y, 2), "abc")
    torn, empty = (tmp_path / "pictures" / name for name in ("a/000.png", "b/002.png"))
    torn.write_bytes(torn.read_bytes()[:-40])  # the header is whole
    empty.write_bytes(b"")
    for name, settings in (("made", {}), ("", {"npz": str(tmp_path / "o.npz")})):
        with pytest.warns(UserWarning, match="2 of 26 files") as warned:
            opened = run(
                tmp_path, name=name, folder=root, max_unreadable=0.1, **settings
            )
        said = str(warned[0].message)
        assert "a/000.png (image file is truncated" in said
        assert "b/002.png (the file is empty)" in said
        # Files 0 and 2 are gone; each image was in two files.
        kept = np.delete(np.arange(26), [0, 2]) // 2
        expected = data.from_arrays("expected", X[kept], Y[kept], "abc")
        assert as_set(opened("train")) == as_set(expected)
    assert "images taken: 24 (24 PNG)" in capsys.readouterr().out


def test_a_split_of_which_nothing_can_be_read_is_refused(tmp_path):
    root = tmp_path / "pictures"
    folder(root / "train", X[:3], Y[:3], "abc")
    folder(root / "val", X[3:4], Y[3:4], "abc")
    (path,) = (root / "val").glob("*/*")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"each split must hold .* got only val/a/000"):
        run(tmp_path, folder=str(root), max_unreadable=1.0)
    assert not list((tmp_path / "sets").rglob("*.json"))


def test_a_share_is_held_out_of_every_class(tmp_path):
    labels = np.arange(60) // 20
    images = (
        np.arange(60, dtype=np.uint8)[:, None, None].repeat(16, 1).reshape(-1, 4, 4)
    )
    np.savez(tmp_path / "sorted.npz", x=images, y=labels)
    root = folder(tmp_path / "pictures", images, labels, "abc")
    for name, given in (
        ("files", {"train": (str(tmp_path / "sorted.npz"),)}),
        ("pictures", {"folder": root}),
    ):
        opened = run(tmp_path, name=name, held_out=0.2, **given)
        train, test = opened("train"), opened("test")
        for part, count in ((train, 16), (test, 4)):
            np.testing.assert_array_equal(
                np.bincount(part.columns["label"]), [count] * 3
            )
            levels = part.columns["image"][:, 0, 0, 0]
            np.testing.assert_array_equal(levels // 20, part.columns["label"])
        both = np.concatenate([d.columns["image"][:, 0, 0, 0] for d in (train, test)])
        assert sorted(both) == list(range(60))


def test_splits_that_lack_classes_or_share_images_are_named(tmp_path, capsys):
    np.savez(
        tmp_path / "a.npz",
        x_train=X[:4],
        y_train=[0, 0, 1, 1],
        x_test=X[3:6],
        y_test=[1, 2, 2],
        x_dev=X[:1],
        y_dev=[0],
        classes=["ant", "bee", "cat"],
    )
    a = (str(tmp_path / "a.npz"),)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(tmp_path, train=a, test=a)
    assert [str(w.message) for w in warned] == [
        "train holds no image of 1 class (cat)",
        "test holds no image of 1 class (ant)",
        "1 of 3 images of test are in train, too",
    ]
    assert "left out, splits but train and test: dev" in capsys.readouterr().out


def test_unknown_flags_fail_and_help_explains_all(capsys):
    with pytest.raises(SystemExit) as end:
        __main__.cli(["prepare", "--nonsense", "1"])
    assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        __main__.cli(["prepare", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in ("--train", "--overwrite", "jaxcl[prepare]", "TFDS_DATA_DIR"):
        assert word in text


def test_a_stock_set_names_the_extra_that_prepares_it(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'jaxcl\[prepare\]'"):
        __main__.cli(["prepare", "--stock", "cifar10", "--data_dir", str(tmp_path)])


def test_a_stock_set_is_prepared_as_array_record(tmp_path, monkeypatch):
    calls = []

    class Builder:
        def __init__(self, name, data_dir, file_format):
            calls.append((name, file_format))
            self.data_dir = pathlib.Path(data_dir) / name / "3.0.2"

        def download_and_prepare(self, download_dir):
            calls.append(str(download_dir))
            self.data_dir.mkdir(parents=True)
            (self.data_dir / "dataset_info.json").write_text("{}")

    tfds = type("tfds", (), {"builder": Builder})
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(_optional, "require", lambda name, purpose, extra: tfds)
    settings = prepare.Settings(stock="mnist", data_dir=str(tmp_path))
    assert prepare.main(settings) == str(tmp_path / "mnist")
    assert set(calls) == {("mnist", "array_record"), str(tmp_path / "downloads")}
    assert [p.name for p in (tmp_path / "mnist").iterdir()] == ["3.0.2"]
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare.main(settings)


def test_the_program_ends_with_a_status_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "jaxcl", "prepare", "--name", "made"]
    end = subprocess.run(
        [*command, "--train", "gone.npz", "--data_dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert end.returncode == 1
    assert end.stderr == "FileNotFoundError: gone.npz: there is no such file\n"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data of the repository")
@pytest.mark.slow
def test_real_cifar10_images_make_the_round_trip(tmp_path):
    path = REAL / "cifar10" / "cifar10_eval_0.npz"
    plain = tmp_path / "plain.npz"
    delta.to_plain(path, plain)
    dataset = run(tmp_path, train=(str(plain),))("train")
    assert dataset.columns["image"].shape == (5000, 32, 32, 3)
    assert dataset.class_names[:2] == ("airplane", "automobile")
    with np.load(path) as content:
        np.testing.assert_array_equal(dataset.columns["label"], content["y"])
        np.testing.assert_array_equal(
            delta.encoded(dataset.columns["image"]), content["delta"]
        )


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data of the repository")
def test_real_mnist_images_make_the_round_trip(tmp_path):
    paths = [
        REAL / "mnist" / f"t10k-{kind}-ubyte.gz"
        for kind in ("images-idx3", "labels-idx1")
    ]
    dataset = run(tmp_path, train=tuple(map(str, paths)))("train")
    assert dataset.columns["image"].shape == (10_000, 28, 28, 1)
    for path, values in zip(
        paths, (dataset.columns["image"][..., 0], dataset.columns["label"]), strict=True
    ):
        raw = gzip.decompress(path.read_bytes())
        assert idx(values.astype(np.uint8)) == raw
