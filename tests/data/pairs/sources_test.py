"""Pairs come out of files as they went in, or a line says what is wrong."""

import gzip
import json
import pathlib
import re
import warnings

import numpy as np
import pytest

from jaxcl import data
from jaxcl.data import pairs
from tests.data import delta
from tests.data.pairs import made

REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "pairs"
GRAY = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
COLOR = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), np.uint8)
CAPTIONS = [["a cat", "a tom"], ["a dog"], ["a fox"], ["a cat", "it sleeps"]]


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def captions_of(dataset):
    return dataset.columns["caption"][np.arange(data.size(dataset))]


def column(dataset, name):
    return np.asarray(dataset.columns[name][np.arange(data.size(dataset))])


# Digits and arrays. -------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train[:40]", "test[:10%,stratified]"])
def test_digits_have_captions_of_their_class_and_are_its_group(split):
    dataset, source = pairs.open("digits", split), data.digits(split)
    for name in ("image", "label"):
        np.testing.assert_array_equal(column(dataset, name), source.columns[name])
    assert dataset.class_names == source.class_names
    label, group = column(dataset, "label"), column(dataset, "group")
    np.testing.assert_array_equal(label[:, None] == label, group[:, None] == group)
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
             "nine")  # fmt: skip
    for c, texts in zip(label, captions_of(dataset), strict=True):
        assert len(texts) == 5
        for text in texts:
            assert str(c) in text or words[c] in text


def test_images_and_captions_of_a_file_of_arrays(tmp_path):
    texts = np.array([[*texts, "", ""][:2] for texts in CAPTIONS])
    path = npz(tmp_path / "a.npz", images=GRAY, captions=texts)
    found = pairs.open(path)
    np.testing.assert_array_equal(found.columns["image"], GRAY[..., None])
    assert captions_of(found) == CAPTIONS
    assert found.columns["group"].tolist() == [0, 1, 2, 0]
    assert set(found.columns) == {"image", "caption", "group"}
    assert captions_of(pairs.open(path, "train[50%:]")) == CAPTIONS[2:]


def test_groups_classes_and_splits_of_a_file_of_arrays(tmp_path):
    path = npz(
        tmp_path / "a.npz",
        train_image=COLOR,
        train_caption=np.array(["a ", "b", "b", "c"]),
        train_group=np.array([7, 3, 5, 7]),
        train_label=np.array([1, 0, 1, 1]),
        test_image=COLOR[:1],
        test_caption=np.array(["z"]),
        class_names=np.array(["cat", "dog"]),
    )
    found = pairs.open(path)
    assert captions_of(found) == [["a"], ["b"], ["b"], ["c"]]
    assert found.columns["group"].tolist() == [0, 1, 2, 0]  # as the column says
    assert found.columns["label"].tolist() == [1, 0, 1, 1]
    assert found.class_names == ("cat", "dog")
    assert captions_of(pairs.open(path, "test")) == [["z"]]
    with pytest.raises(ValueError, match="has split 'test', 'train', got 'val'"):
        pairs.open(path, "val")


def test_classes_may_be_called_by_their_names(tmp_path):
    path = npz(
        tmp_path / "a.npz",
        image=COLOR,
        caption=np.array(list("abcd")),
        label=np.array(["dog", "cat", "dog", "ant"]),
    )
    found = pairs.open(path)
    assert found.class_names == ("ant", "cat", "dog")
    assert found.columns["label"].tolist() == [2, 1, 2, 0]


def meta(**content):
    return json.dumps({"name": "hot dog", "key": "1", "group": "Food", **content})


def test_differences_are_decoded_and_names_and_keywords_are_captions(tmp_path):
    described = [
        meta(keywords=["hot dog", "food", "food", "bun"]),
        meta(name="mouse", key="2", group="Animals", keywords=[]),
        meta(name="hotdog"),
        meta(
            name="cat", key="3", group="Animals", keywords=[str(k) for k in range(20)]
        ),
    ]
    path = npz(tmp_path / "a.npz", delta=delta.encoded(COLOR), meta=np.array(described))
    found = pairs.open(path)
    np.testing.assert_array_equal(found.columns["image"], COLOR)
    assert captions_of(found) == [
        ["hot dog", "hot dog: food, bun"],
        ["mouse"],
        ["hotdog"],
        ["cat", "cat: 0, 1, 2, 3, 4, 5, 6, 7"],
    ]
    assert found.columns["group"].tolist() == [0, 1, 0, 2]  # by the key
    assert found.columns["label"].tolist() == [1, 0, 1, 0]
    assert found.class_names == ("Animals", "Food")


def test_arrays_are_scaled_as_files_are(tmp_path):
    image = np.repeat(np.repeat(COLOR, 4, axis=1), 4, axis=2)
    path = npz(tmp_path / "a.npz", image=image, caption=np.array(list("abcd")))
    found = pairs.open(path, size=8).columns["image"]
    assert found.shape == (4, 8, 8, 3)
    assert pairs.open("digits", "train[:3]", size=16).columns["image"].shape == (
        3, 16, 16, 1
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captions": np.array(list("abc"))},
         "captions must be [4] or [4, c], as many rows as there are images, got [3]"),
        ({"captions": np.array([["a"], ["b"], [" "], ["c"]])},
         "each image must have a caption; 1 have none, the first is image 2"),
        ({"captions": np.arange(4)}, "captions must be texts, got dtype int64"),
        ({}, "expected captions under one of the keys captions, caption, or JSON"),
        ({"captions": np.array(list("abcd")), "group": np.arange(3)},
         "group must be of the 4 images, one row each, got 3"),
        ({"captions": np.array(list("abcd")), "label": np.arange(4),
          "class_names": np.array(["a", "b"])}, "label must lie in [0, 2), got values"),
        ({"captions": np.array(list("abcd")), "label": np.arange(4) / 2},
         "label must be integers or texts [4], got float64 [4]"),
        ({"images": COLOR.astype(np.float32), "captions": np.array(list("abcd"))},
         "images must be uint8, got float32"),
        ({"images": None, "delta": GRAY, "captions": np.array(list("abcd"))},
         "delta must be uint8 [n, 3, h, w], got uint8 [4, 6, 6]"),
        ({"meta": np.array(["{}", "[", "1", "{}"])}, "meta of image 1 is no JSON"),
        ({"meta": np.array(["{}", "2", "1", "{}"])},
         "meta of image 1 must be a JSON object, got '2'"),
        ({"meta": np.array(["{}"] * 4)}, "meta of image 0 must have a text 'name'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_arrays_is_said(changes, words, tmp_path):
    arrays = {"images": GRAY, **changes}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {words}")):
        pairs.open(path)


# Folders with a table. ----------------------------------------------------------------

IMAGES = {"a.png": made.png(0), "in/b.png": made.png(1), "c.png": made.png(2)}
LINES = [
    ("a.png", "a cat"),
    ("a.png", "a tom "),
    ("in/b.png", "a dog, it runs"),
    ("c.png", "a cat"),
]


def rows(table):
    if table.endswith(".jsonl"):
        return [{"file_name": name, "text": text} for name, text in LINES]
    quoted = [(name, f'"{text}"' * ("csv" in table) or text) for name, text in LINES]
    return [("image", "caption"), *quoted]


@pytest.mark.parametrize("table", ["captions.csv", "captions.tsv", "metadata.jsonl"])
def test_a_folder_of_images_with_a_table(table, tmp_path):
    path = made.folder(tmp_path, IMAGES, table, rows(table))
    for source in (path, f"{path}/{table}"):
        found = pairs.open(source)
        assert captions_of(found) == [["a cat", "a tom"], ["a dog, it runs"], ["a cat"]]
        assert found.columns["group"].tolist() == [0, 1, 0]
        images = found.columns["image"]
        assert images.shape == (3, 6, 6, 3)
        expected = [made.pixels(i) for i in (2, 0)]
        np.testing.assert_array_equal(images[np.array([2, 0])], expected)
    part = pairs.open(path, "train[1:]")
    np.testing.assert_array_equal(part.columns["image"][0], made.pixels(1))
    assert captions_of(part) == [["a dog, it runs"], ["a cat"]]


def test_a_table_may_have_no_names_and_be_compressed(tmp_path):
    path = made.folder(tmp_path, IMAGES, "x.tsv", [("a.png", "a cat"), *LINES[2:]])
    table = tmp_path / "x.tsv"
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    assert captions_of(pairs.open(path)) == [["a cat"], ["a dog, it runs"], ["a cat"]]


def test_a_table_may_say_groups_and_classes_and_be_one_of_a_split(tmp_path):
    train = [
        {"path": "a.png", "captions": ["x", "y"], "group": 4, "label": 10},
        {"path": "b.png", "caption": "x", "group": 3, "label": 9},  # found inside
    ]
    made.folder(tmp_path, IMAGES, "train.jsonl", train)
    lines = [("file", "text"), ("c.png", "z")]
    path = made.folder(tmp_path, IMAGES, "val.csv", lines)
    found = pairs.open(path)  # and does not warn of c.png, which is of the other
    assert captions_of(found) == [["x", "y"], ["x"]]
    assert found.columns["group"].tolist() == [0, 1]
    assert found.class_names == ("9", "10")
    assert found.columns["label"].tolist() == [1, 0]
    assert captions_of(pairs.open(path, "val")) == [["z"]]
    with pytest.raises(ValueError, match="has split 'train', 'val', got 'test'"):
        pairs.open(path, "test")


def test_what_is_left_out_is_said_in_a_line_for_each_kind(tmp_path):
    lines = [
        ("image", "caption"),
        *LINES[:2],
        ("a.png", "a cat"),
        ("c.png", " "),
        ("x.png", "gone"),
        ("y.png", "gone"),
    ]
    path = made.folder(tmp_path, IMAGES, "x.tsv", lines)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = pairs.open(path)
    assert captions_of(found) == [["a cat", "a tom"]]
    assert [str(warning.message) for warning in said] == [
        f"{path}: 1 captions that an image has already, left out: a.png (line 4)",
        f"{path}: 1 empty captions, left out: c.png (line 5)",
        f"{path}: 2 captions of missing images, left out: x.png (line 6), "
        "y.png (line 7)",
        f"{path}: 2 images without a caption, left out: c.png, in/b.png",
    ]


def test_images_of_several_sizes_need_a_size(tmp_path):
    images = {"a.png": made.png(0, 6, 9), "c.png": made.png(2, 8, 8)}
    path = made.folder(tmp_path, images, "x.csv", [LINES[0], LINES[3]])
    with pytest.raises(
        ValueError, match=r"size must be given, .* got 9x6 \(.*a.png\) and 8x8 \(.*c.pn"
    ):
        pairs.open(path)
    found = pairs.open(path, size=4).columns["image"]
    np.testing.assert_array_equal(
        found[np.arange(2)], [made.pixels(0, 4, 4), made.pixels(2, 4, 4)]
    )


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    images = {"a.png": made.png(0), "in/b.png": made.png(1)[:-20], "c.png": b"no"}
    path = made.folder(tmp_path, images, "x.csv", LINES[:1] + LINES[3:])
    (tmp_path / "in" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"c.png: not a readable image: of no format"):
        pairs.open(path)
    found = pairs.open(path, size=6).columns["image"]
    np.testing.assert_array_equal(found[0], made.pixels(0))
    with pytest.raises(ValueError, match=r"^\S*/c.png: not a readable image: of no f"):
        found[np.array([0, 1])]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a.png: not a readable image: No such file"):
        found[0]


@pytest.mark.parametrize(
    ("images", "table", "content", "words"),
    [
        ({"a.png"}, "x.csv", [("img", "what"), ("a.png", "b")],
         "x.csv: line 2 must have the name of a file under one of file_name, "),
        ({"a.png"}, "x.csv", [("image", "caption"), ("a.png",)],
         "x.csv: line 2 must have 2 columns, as the first line, got 1"),
        ({"a.png"}, "x.csv", [("what", "this"), ("z.png", "b")],
         "line 2 must have the name of a file under one of file_name, "),
        ({"a.png"}, "x.jsonl", [["a.png", "b"]], "x.jsonl: line 1 must be a JSON obj"),
        ({"a.png"}, "x.jsonl", [{"file": "a.png", "text": 3}],
         "line 1 must have the name of a file under"),
        ({"a.png"}, "x.csv", [("image", "caption", "label"), ("a.png", "b", "1"),
         ("a.png", "c", "2")], "line 3 must give a.png one label, as before: '1'"),
        ({"a.png", "c.png"}, "x.jsonl",
         [{"file": "a.png", "text": "b", "group": 2}, {"file": "c.png", "text": "b"}],
         "all images or none must have a group; 1 of 2 have none, the first is"),
        ({"1/a.png", "2/a.png"}, "x.csv", [("image", "caption"), ("a.png", "b")],
         "line 2 must name one image, got 'a.png' for 1/a.png, 2/a.png"),
        ({"a.png"}, "x.csv", [("image", "caption"), ("b.png", "b")],
         "must hold images with captions, got none; "),
        ({"a.png"}, "x.csv", [], "must hold images with captions, got none"),
        ({"a.png"}, "x.txt", [("a.png", "b")],
         "must hold images and a table of captions, ending in .csv, .tsv, .jsonl; or"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(images, table, content, words, tmp_path):
    path = made.folder(tmp_path, dict.fromkeys(images, made.png(0)), table, content)
    with pytest.raises(ValueError, match=re.escape(words)):
        pairs.open(path)


def test_an_image_that_changes_is_noticed(tmp_path):
    path = made.folder(tmp_path, IMAGES, "x.jsonl", [{"path": "a.png", "text": "b"}])
    for name in ("c.png", "in/b.png"):
        (tmp_path / name).unlink()
    images = pairs.open(path).columns["image"]
    (tmp_path / "a.png").write_bytes(made.png(0, 9, 7))
    with pytest.raises(ValueError, match=r"a.png: not .* changed .* has 7x9 pixels"):
        images[np.array([0])]


def test_lines_that_are_no_json_and_splits_of_a_table_are_refused(tmp_path):
    path = made.folder(tmp_path, IMAGES, "x.jsonl", [{}])
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"x.jsonl: line 1 is no JSON: "):
        pairs.open(path)
    with pytest.raises(ValueError, match=r"x.jsonl: has split 'train', got 'val'"):
        pairs.open(f"{path}/x.jsonl", "val")


def test_several_tables_must_be_splits(tmp_path):
    made.folder(tmp_path, IMAGES, "x.csv", LINES)
    path = made.folder(tmp_path, IMAGES, "train.csv", LINES)
    with pytest.raises(ValueError, match=r"got train.csv, x.csv; the table itself"):
        pairs.open(path)


# Shards. ------------------------------------------------------------------------------


def shard(path, first=0, count=2):
    """Two images with captions, the second ones said in JSON."""
    members = []
    for i in range(first, first + count):
        said = {"caption": [f"number {i}", "a thing"], "group": i // 2, "label": "odd"}
        members += [
            (f"in/{i:03}.png", made.png(i)),
            (f"in/{i:03}.json", json.dumps({**said, "label": ["even", "odd"][i % 2]})),
            (f"in/{i:03}.cls", "0"),
        ]
    return made.tar(path, members)


@pytest.mark.parametrize(
    "spec", ["", "/*.tar", "/x-{000..001}.tar", "/x-{000,001}.tar"]
)
def test_shards_are_one_set(spec, tmp_path):
    for k in range(2):
        shard(tmp_path / f"x-{k:03}.tar", 2 * k)
    found = pairs.open(f"{tmp_path}{spec}")
    assert captions_of(found) == [[f"number {i}", "a thing"] for i in range(4)]
    images = found.columns["image"]
    np.testing.assert_array_equal(
        images[np.array([3, 0])], [made.pixels(3), made.pixels(0)]
    )
    assert found.columns["group"].tolist() == [0, 0, 1, 1]
    assert found.columns["label"].tolist() == [0, 1, 0, 1]
    assert found.class_names == ("even", "odd")


def test_a_shard_has_a_caption_in_each_line_of_a_text(tmp_path):
    path = made.tar(
        tmp_path / "x.tar",
        [
            ("a.b.png", made.png(0)),
            ("b.png", made.png(0)),
            ("c.txt", "one\r\ntwo \n"),
            ("c.PNG", made.png(1)),
        ],
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = pairs.open(path)
    assert [str(warning.message).partition("tar: ")[2] for warning in said] == [
        f"1 images with two endings, left out: {path}: a.b.png",
        "1 keys without a caption, left out: x.tar: b",
    ]
    assert captions_of(found) == [["one", "two"]]
    np.testing.assert_array_equal(found.columns["image"][0], made.pixels(1))


def test_shards_of_a_folder_may_be_called_after_splits(tmp_path):
    for k, name in enumerate(("train-0.tar", "train-1.tar", "val-0.tar")):
        shard(tmp_path / name, k, 1)
    assert data.size(pairs.open(str(tmp_path))) == 2
    assert captions_of(pairs.open(str(tmp_path), "val"))[0][0] == "number 2"


GOOD = [("a.png", made.png(0)), ("a.txt", "a cat"), ("b.png", made.png(1))]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([("b.txt", " \n ")], ["1 empty captions, left out: x.tar: b"]),
        ([("c.txt", "x")], ["1 keys without a caption, left out: x.tar: b",
                            "1 keys without an image, left out: x.tar: c"]),
        ([("b.txt", "x\n\nx")], ["1 empty captions, left out: x.tar: b",
                                 "1 captions that an image has already, left out: "]),
    ],
)  # fmt: skip
def test_what_is_left_out_of_shards_is_said(more, words, tmp_path):
    path = made.tar(tmp_path / "x.tar", GOOD + more)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pairs.open(path)
    assert len(said) == len(words)
    for warning, expected in zip(said, words, strict=True):
        assert str(warning.message).startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            [("b.json", '{"text": 1}')],
            "b.json must be a JSON object with a caption, or",
        ),
        ([("b.json", "[")], "x.tar: b.json is no JSON"),
        ([("b.txt", b"\xff")], "x.tar: b.txt is not UTF-8"),
        ([("b.txt", "x"), ("b.json", "{}")], "b.json: its key must have one image and"),
        ([("b.txt", "x"), ("b.webp", b"")], "b.webp: its key must have one image and"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said(more, words, tmp_path):
    path = made.tar(tmp_path / "x.tar", GOOD + more)
    with pytest.raises(ValueError, match=re.escape(words)):
        pairs.open(path)


def test_a_shard_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    path = tmp_path / "x.tar"
    made.tar(path, [*GOOD, ("b.txt", "a dog")])
    whole = path.read_bytes().rstrip(b"\0")
    blocks = -(-len(whole) // 512)
    assert data.size(pairs.open(str(path))) == 2
    for length in (0, 100, *range(512, blocks * 512 + 1, 256)):
        path.write_bytes(whole.ljust(blocks * 512, b"\0")[:length])
        with pytest.raises(ValueError, match=r"x.tar: not a whole .tar file: "):
            pairs.open(str(path))


def test_shards_that_are_joined_are_refused(tmp_path):
    path = tmp_path / "x.tar"
    made.tar(path, [*GOOD[:2]])
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"something follows its end, as where sever"):
        pairs.open(str(path))


def test_an_image_of_a_shard_that_cannot_be_read_is_named_with_it(tmp_path):
    members = [*GOOD[:2], ("b.png", made.png(1)[:-30]), ("b.txt", "a dog")]
    path = made.tar(tmp_path / "x.tar", members)
    images = pairs.open(path, size=6).columns["image"]
    np.testing.assert_array_equal(images[0], made.pixels(0))
    with pytest.raises(ValueError, match=r"x.tar: b.png: not a readable image: "):
        images[np.array([1])]


def test_shards_that_are_not_there_are_named(tmp_path):
    shard(tmp_path / "x-000.tar")
    with pytest.raises(FileNotFoundError, match=r"no such file: \S*x-001.tar"):
        pairs.open(f"{tmp_path}/x-{{000..001}}.tar")
    with pytest.raises(FileNotFoundError, match=r"y\*.tar: no shard is called so"):
        pairs.open(f"{tmp_path}/y*.tar")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        pairs.open(f"{tmp_path}/nothing")
    with pytest.raises(ValueError, match=r"source must be 'digits', a \.npz file, a"):
        pairs.open("digit")
    with pytest.raises(ValueError, match="has split 'train', got 'val'"):
        pairs.open(f"{tmp_path}/x-000.tar", "val")
    with pytest.raises(TypeError, match="source must be a string, got int"):
        pairs.open(3)
    with pytest.raises(ValueError, match="has split 'train', got 'val'"):
        pairs.open(str(tmp_path), "val")
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        pairs.open("digits", size=0)


# Real sets. ---------------------------------------------------------------------------

needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="needs ../shared/data of the repository"
)


@needs_real
def test_emoji_of_two_artists_are_one_group():
    found = pairs.open(str(REAL / "emoji64_val.npz"))
    with np.load(REAL / "emoji64_val.npz") as content:
        np.testing.assert_array_equal(
            found.columns["image"], delta.decoded(content["delta"])
        )
        said = [json.loads(line) for line in content["meta"]]
    for i, texts in enumerate(captions_of(found)):
        assert texts[0] == said[i]["name"]
        assert len(texts) <= 2
        label = found.columns["label"][i]
        assert found.class_names[label] == said[i]["group"]
    keys, group = np.array([s["key"] for s in said]), found.columns["group"]
    np.testing.assert_array_equal(keys[:, None] == keys, group[:, None] == group)


@needs_real
def test_photos_have_five_captions():
    found = pairs.open(str(REAL / "flickr8k_mini64_val.npz"))
    assert found.columns["image"].shape == (150, 64, 64, 3)
    assert {len(texts) for texts in captions_of(found)} == {5}
