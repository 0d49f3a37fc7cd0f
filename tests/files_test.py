import contextlib
import errno
import pathlib
import resource

import numpy as np
import pytest

from jaxcl import _files


@contextlib.contextmanager
def room_for(size):
    """Files of more bytes are refused, as by a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_numbers(path):
    with _files.replacing(path) as unfinished:
        np.savez(unfinished, z=np.zeros(5000))


def write_json(path):
    _files.write_json(path, list(range(5000)))


@pytest.mark.parametrize("write", [write_numbers, write_json])
def test_a_file_without_room_is_named_and_the_old_one_stays(write, tmp_path):
    path = tmp_path / "results.npz"
    path.write_text("old")
    with room_for(2000), pytest.raises(OSError, match="could not be written"):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_file_that_is_missing_is_named_itself(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):  # noqa: SIM117
        with _files.replacing(tmp_path / "x") as unfinished:
            unfinished.write_bytes((tmp_path / "elsewhere").read_bytes())


@pytest.mark.parametrize("given", ["gs://bucket/run", "s3://x", pathlib.Path("gs://b")])
def test_a_bucket_is_no_directory(given):
    with pytest.raises(ValueError, match="must be a folder of a disk, or of a bucket "):
        _files.check_directory("directory", given)


@pytest.mark.parametrize("given", ["C:/runs", "runs/a:b", "a:/b"])
def test_colons_may_be_in_names(given):
    assert _files.check_directory("directory", given) == pathlib.Path(given)


def test_where_nothing_can_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    def refused(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(_files.tempfile, "TemporaryFile", refused)
    for check in (_files.check_writable, _files.check_new):
        with pytest.raises(OSError, match=r"out must be .*new.*Read-only"):
            check("out", tmp_path / "new")


def test_a_directory_that_can_be_written_to_stays_as_it_is(tmp_path):
    assert _files.check_writable("out", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not list(tmp_path.iterdir())
