import io
import pathlib
import socket

import numpy as np
import PIL.Image
import pytest

import jaxcl
from jaxcl import data, recipes

tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

X = np.random.RandomState(1).randint(0, 256, (40, 6, 5, 3)).astype(np.uint8)
Y = np.arange(40) % 4
NAMES = ("ant", "bee", "cat", "dog")


def write(root, name, features, splits, version="1.0.0", file_format="array_record"):
    """A TFDS set written by TFDS itself, in the order of the examples."""

    class Made(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version(version)

        def _info(self):
            return tensorflow_datasets.core.DatasetInfo(
                builder=self,
                features=tensorflow_datasets.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {k: self._generate_examples(v) for k, v in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    Made.name = name
    tensorflow_datasets.disable_progress_bar()
    builder = Made(data_dir=root, file_format=file_format)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def png(image):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file


BYTES = tensorflow_datasets.features.Tensor(
    shape=(6, 5, 3), dtype=np.uint8, encoding="bytes"
)
LABEL = tensorflow_datasets.features.ClassLabel(names=NAMES)
EXAMPLES = [{"image": x, "label": int(y)} for x, y in zip(X, Y, strict=True)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    splits = {"train": EXAMPLES, "test": EXAMPLES[:7]}
    write(root, "small", {"image": BYTES, "label": LABEL}, splits)
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("tried the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_bytes_are_read_as_written(root):
    dataset = data.tfds("small", "train", root)
    assert dataset.columns["image"].shape == (40, 6, 5, 3)
    assert len(dataset.columns["image"]) == 40
    np.testing.assert_array_equal(data.to_memory(dataset).columns["image"], X)
    np.testing.assert_array_equal(dataset.columns["label"], Y)
    assert dataset.columns["label"].dtype == np.int32
    assert dataset.class_names == NAMES
    np.testing.assert_array_equal(
        data.tfds("small", "test", root).columns["image"][:], X[:7]
    )


def test_images_are_indexed_like_an_array(root):
    images = data.tfds("small", "train", root).columns["image"]
    for key in (
        3,
        -1,
        np.int32(5),
        slice(4, 9),
        slice(0, 0),
        [7, 7, 0],
        np.array([39]),
    ):
        np.testing.assert_array_equal(images[key], X[key])
    with pytest.raises(IndexError):
        images[40]


def test_png_images_are_read_without_tensorflow(tmp_path):
    for channels in (1, 3):
        image = tensorflow_datasets.features.Image(
            shape=(6, 5, channels), encoding_format="png"
        )
        examples = [
            {"image": png(x if channels == 3 else x[..., 0]), "label": int(y)}
            for x, y in zip(X[:9], Y, strict=False)
        ]
        name = f"png{channels}"
        write(tmp_path, name, {"image": image, "label": LABEL}, {"train": examples})
        dataset = data.tfds(name, data_dir=tmp_path)
        np.testing.assert_array_equal(
            dataset.columns["image"][:], X[:9, :, :, :channels]
        )
        np.testing.assert_array_equal(dataset.columns["label"], Y[:9])


def test_other_names_and_other_features_do_no_harm(tmp_path):
    features = {
        "picture": tensorflow_datasets.features.Tensor(shape=(6, 5), dtype=np.uint8),
        "kind": tensorflow_datasets.features.ClassLabel(num_classes=4),
        "text": tensorflow_datasets.features.Text(),
    }
    examples = [
        {"picture": x[..., 0], "kind": int(y), "text": "hello"}
        for x, y in zip(X[:5], Y, strict=False)
    ]
    write(tmp_path, "other", features, {"train": examples})
    dataset = data.tfds("other", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.columns["image"][:], X[:5, :, :, :1])
    np.testing.assert_array_equal(dataset.columns["label"], Y[:5])
    assert len(dataset.class_names) == 4


def test_unlabelled_splits_have_no_labels(tmp_path, root):
    unlabelled = [{"image": x, "label": -1} for x in X[:3]]
    features = {"image": BYTES, "label": LABEL}
    write(tmp_path, "half", features, {"train": EXAMPLES[:3], "test": unlabelled})
    assert "label" in data.tfds("half", "train", tmp_path).columns
    assert "label" not in data.tfds("half", "test", tmp_path).columns
    assert "label" not in data.tfds("small", "train", root, labels=False).columns


DRAWN = "train[80%:,stratified]"


def test_a_slice_of_a_sorted_set_is_warned_of_and_a_drawn_one_is_not(tmp_path):
    labels = np.repeat([0, 1, -1], [48, 48, 4])
    examples = [{"image": X[0], "label": int(label)} for label in labels]
    write(tmp_path, "sorted", {"image": BYTES, "label": LABEL}, {"train": examples})
    with pytest.warns(UserWarning, match=r"holds no image of .*'train\[:40%,strat"):
        data.tfds("sorted", "train[:40%]", tmp_path)
    drawn = data.tfds("sorted", "train[:40%,stratified]", tmp_path).columns["label"]
    np.testing.assert_array_equal(np.unique(drawn), [-1, 0, 1])


def test_slices_are_those_of_files(root, tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    for split in ("train[:90%]", "train[-3:]", "train[33%:66%]", "train[5:-7]", DRAWN):
        ours, theirs = (
            data.arrays(tmp_path / "a.npz", split),
            data.tfds("small", split, root),
        )
        np.testing.assert_array_equal(
            ours.columns["image"][:], theirs.columns["image"][:]
        )
        np.testing.assert_array_equal(ours.columns["label"], theirs.columns["label"])
    bare = data.tfds("small", "train[:9,stratified]", root, labels=False)
    assert list(bare.columns) == ["image"]
    assert len(bare.columns["image"][:]) == 9
    both = data.tfds("small", "train+test", root)
    np.testing.assert_array_equal(both.columns["image"][38:42], X[[38, 39, 0, 1]])


def test_a_batch_does_not_depend_on_where_images_are_kept(root):
    stored = data.tfds("small", "train", root)
    loaded = data.to_memory(stored)
    for step in (0, 4, 9):
        one = data.batches(stored, 8, seed=2)(step)
        other = data.batches(loaded, 8, seed=2)(step)
        for key, expected in other.items():
            np.testing.assert_array_equal(one[key], expected)


def test_a_set_is_found_by_name_version_and_directory(root, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    for spec in (
        "tfds:small",
        "tfds:small:1.0.0",
        str(root / "small"),
        str(root / "small" / "1.0.0"),
    ):
        assert len(data.open(spec, "test").columns["image"]) == 7


def test_the_newest_version_is_taken(tmp_path):
    features = {"image": BYTES, "label": LABEL}
    for version, count in (("9.0.0", 3), ("10.0.0", 2)):
        write(tmp_path, "old", features, {"train": EXAMPLES[:count]}, version)
    assert len(data.tfds("old", "train", tmp_path).columns["image"]) == 2
    assert len(data.tfds("old:9.0.0", "train", tmp_path).columns["image"]) == 3


def test_a_missing_set_says_what_to_run(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data.open("tfds:cifar10", data_dir=root)
    for words in (
        "'cifar10'",
        "there: small",
        "`jaxcl prepare --name cifar10 --train FILES",
        "`jaxcl prepare --stock cifar10`",
        "TFDS_DATA_DIR",
    ):
        assert words in str(error.value)
    with pytest.raises(
        FileNotFoundError, match=r"no prepared TFDS set 'small:2\.0\.0'"
    ):
        data.tfds("small:2.0.0", data_dir=root)
    with pytest.raises(FileNotFoundError, match="`jaxcl prepare --help`"):
        data.open(str(tmp_path))
    with pytest.raises(ValueError, match="NAME/CONFIG"):
        data.open("tfds:what is this")


def test_unfinished_sets_are_not_found(root, tmp_path):
    for name in ("incomplete.AB12_1.0.0", ".preparing-ab12"):
        place = tmp_path / "small" / name
        place.mkdir(parents=True)
        info = (root / "small" / "1.0.0" / "dataset_info.json").read_bytes()
        (place / "dataset_info.json").write_bytes(info)
    assert not data.is_prepared(tmp_path / "small")
    with pytest.raises(FileNotFoundError):
        data.tfds("small", data_dir=tmp_path)


@pytest.mark.parametrize(
    "split", ["validation", "train[:0]", "train[9:3]", "train[:999]", "train[:x%]", ""]
)
def test_a_wrong_split_lists_the_splits(root, split):
    with pytest.raises(ValueError, match=r"small.*split.*"):
        data.tfds("small", split, root)


def test_several_configurations_must_be_told_apart(tmp_path, root):
    for config in ("large", "tiny"):
        place = tmp_path / "set" / config / "1.0.0"
        place.mkdir(parents=True)
        for file in (root / "small" / "1.0.0").iterdir():
            (place / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="name one: large, tiny"):
        data.tfds("set", data_dir=tmp_path)
    assert len(data.tfds("set/tiny", data_dir=tmp_path).columns["image"]) == 40


def copy(root, tmp_path):
    place = tmp_path / "small" / "1.0.0"
    place.mkdir(parents=True)
    for file in (root / "small" / "1.0.0").iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place, next(place.glob("small-train*"))


@pytest.mark.parametrize("damage", ["truncated", "gone", "empty", "flipped"])
def test_damaged_records_name_the_set(root, tmp_path, damage):
    place, records = copy(root, tmp_path)
    content = bytearray(records.read_bytes())
    if damage == "gone":
        records.unlink()
    elif damage == "flipped":
        content[100:2000] = bytes(1900)
        records.write_bytes(content)
    else:
        records.write_bytes(content[:30_000] if damage == "truncated" else b"")
    with pytest.raises(ValueError, match=r"1\.0\.0: cannot read .*--overwrite"):
        data.to_memory(data.tfds(place))


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_damaged_descriptions_name_the_set(root, tmp_path, name):
    place, _ = copy(root, tmp_path)
    (place / name).write_text("{")
    with pytest.raises(ValueError, match=r"1\.0\.0: not a readable TFDS set"):
        data.tfds(place)


def test_another_file_format_says_what_to_run(root, tmp_path):
    place, _ = copy(root, tmp_path)
    info = place / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        ValueError, match="got tfrecord: `jaxcl prepare` writes that format"
    ):
        data.tfds(place)


def test_sets_that_are_not_images_or_of_many_sizes_are_refused(tmp_path):
    text = {"text": tensorflow_datasets.features.Text()}
    write(tmp_path, "words", text, {"train": [{"text": "hello"}]})
    with pytest.raises(ValueError, match="one image in each record, got features text"):
        data.tfds("words", data_dir=tmp_path)
    sizes = {"image": tensorflow_datasets.features.Image(encoding_format="png")}
    examples = [{"image": png(X[0])}, {"image": png(X[0, 1:])}]
    write(tmp_path, "sizes", sizes, {"train": examples})
    dataset = data.tfds("sizes", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"one size.*--resize"):
        dataset.columns["image"][:]


def test_what_does_not_fit_into_memory_is_read_by_threads_and_said(
    root, monkeypatch, capsys
):
    monkeypatch.setattr(data.dataset, "memory_limit", lambda: 4 * X[0].nbytes)
    monkeypatch.setattr(data.streaming, "default_threads", lambda: 2)
    s = recipes.Images(source=f"tfds:{root / 'small'}", batch_size=8)
    images = recipes.open_images(s)
    recipes.open_images(s)
    said = capsys.readouterr().err
    assert said.count("40 images would take 0.0 GB, more than a quarter of the") == 1
    _, rows, _ = jaxcl.data_parallel()
    feed = data.feed(images, 8, 2, rows)
    for step in (0, 1, 5):
        batch = feed(step)
        np.testing.assert_array_equal(batch["image"], X[batch["index"]])
        np.testing.assert_array_equal(batch["label"], Y[batch["index"]])
    expected = data.batches(data.from_arrays("same", X, Y), 8, 2)
    np.testing.assert_array_equal(batch["index"], expected(5)["index"])
