"""Sentences come out of files as they went in, or a line says what is wrong."""

import gzip

import numpy as np
import pytest

from jaxcl import data
from jaxcl.data import text

TABLE = [("2", "A dog runs.", "0.5"), ("10", "A cat\u2028sleeps.", "1"),
         ("2", "Der Hund läuft.", "4.25")]  # fmt: skip


def written(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def table(tmp_path, ending, header=False):
    names = [("photo", "caption", "score")] if header else []
    between = "\t" if ".tsv" in ending else ","
    lines = [between.join(row) for row in names + TABLE]
    return written(tmp_path / f"captions{ending}", "\r\n".join(lines) + "\r\n")


@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
def test_a_line_is_a_sentence(tmp_path, ending):
    path = written(tmp_path / f"two{ending}", "\ufeffFirst one. \n Größe \u2028 zwei")
    found = text.read(path)
    assert found.name == "two"
    assert found.columns["sentence"].tolist() == ["First one.", "Größe \u2028 zwei"]


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz", ".csv", ".csv.gz"])
@pytest.mark.parametrize("header", [False, True])
def test_columns_are_numbered_or_named(tmp_path, ending, header):
    path = table(tmp_path, ending, header)
    photo, caption, score = ("photo", "caption", "score") if header else (0, 1, 2)
    found = text.read(path, sentence=caption, group=photo, label=photo, score=score)
    assert found.columns["sentence"].tolist() == [row[1] for row in TABLE]
    assert found.columns["group"].tolist() == [0, 1, 0]
    assert found.class_names == ("2", "10")
    assert found.columns["label"].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(found.columns["score"], np.float32([0.5, 1, 4.25]))


def test_quotes_are_those_of_csv_alone(tmp_path):
    path = written(tmp_path / "a.csv", 'x,"a, b"\ny,"two\nlines"\n')
    assert text.read(path, sentence=1).columns["sentence"].tolist() == [
        "a, b",
        "two\nlines",
    ]
    path = written(tmp_path / "a.tsv", 'x\t"a, b\n')
    assert text.read(path, sentence=1).columns["sentence"].tolist() == ['"a, b']


def test_objects_have_named_columns(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"t": "one", "y": 3}\n{"t": "two", "y": "b"}')
    found = text.read(path, sentence="t", label="y")
    assert found.class_names == ("3", "b")
    assert found.columns["sentence"].tolist() == ["one", "two"]


def test_sentences_of_several_columns_belong_together(tmp_path):
    found = text.read(table(tmp_path, ".tsv"), sentence=(1, 0), score=2)
    assert found.columns["sentence"].shape == (3, 2)
    assert found.columns["sentence"][2].tolist() == ["Der Hund läuft.", "2"]


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        ("a.txt", "one\n\nthree\n", {}, "line 2 has an empty sentence"),
        ("a.txt", "", {}, "must hold sentences, got none"),
        ("a.txt", "one\n", {"sentence": 1}, "has the column 0 alone, got 1"),
        ("a.txt", b"one\n\xff\n", {}, "line 2 is not UTF-8"),
        ("a.tsv", "a\tb\nc\n", {}, "line 2 must have 2 columns, .* got 1"),
        ("a.tsv", "a\tb\n", {"sentence": 2}, "has no column 2; it has 0 to 1"),
        ("a.tsv", "a\tb\n", {"sentence": "c"}, "has no column 'c'; it has 'a', 'b'"),
        ("a.tsv", "a\t \n", {"sentence": (0, 1)}, "line 1 has .* in column 1"),
        ("a.tsv", "a\tx\n", {"score": 1}, "line 1 must have a finite score, got 'x'"),
        ("a.csv", 'a,"b\n', {}, "line 1: unexpected end of data"),
        ("a.jsonl", "{}\n", {}, "columns of a .jsonl have names"),
        ("a.jsonl", "{\n", {"sentence": "t"}, "line 1 is no JSON"),
        ("a.jsonl", "[]\n", {"sentence": "t"}, "line 1 must be a JSON object"),
        ("a.jsonl", '{"a": 1}', {"sentence": "t"}, "text or number 't'; it has 'a'"),
        ("a.txt", "a\n", {"sentence": ()}, "sentence must name one or more"),
        ("a.pdf", "a\n", {}, "the ending of the file must be one of '.txt'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, content, columns, words):
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=words):
        text.read(path, **columns)


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a sentence\n" * 1000)[:-12])
    with pytest.raises(ValueError, match=r"a\.txt\.gz: cut short or damaged after"):
        text.read(path)
    path.write_bytes(b"a sentence\n")
    with pytest.raises(ValueError, match="cut short or damaged after line 0: Not a gz"):
        text.read(path)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        text.read(tmp_path / "none.txt")
    with pytest.raises(TypeError, match="columns must be names or numbers, got float"):
        text.read(path, sentence=1.5)


def test_flags_name_files_or_what_python_has(tmp_path):
    topics = text.open("topics")
    texts, groups = topics.columns["sentence"], topics.columns["group"]
    assert len(texts) > 1000
    assert groups.max() + 1 == len(np.unique(groups)) > 50
    assert min(len(sentence.split()) for sentence in texts) >= 5
    assert data.size(text.open("topics", "train[:10]")) == 10
    path = table(tmp_path, ".tsv", header=True)
    part = text.open(str(path), "train[1:]", sentence="caption", group="photo")
    assert part.columns["group"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="source must be 'topics', or a file ending"):
        text.open("novels")
    with pytest.raises(ValueError, match="group must be None for the source 'topics'"):
        text.open("topics", group=0)
    with pytest.raises(ValueError, match="split must be 'train' or a slice"):
        text.open("topics", "test")
    with pytest.raises(TypeError, match="source must be a string"):
        text.open(3)
