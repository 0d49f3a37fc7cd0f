import subprocess
import sys

import numpy as np
import pytest

from jaxcl import data


def test_a_flag_opens_digits_and_files(tmp_path):
    images = np.zeros((10, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x=images)
    np.save(tmp_path / "a.npy", images)
    assert data.open("digits", "test").columns["image"].shape == (497, 8, 8, 1)
    for name in ("a.npz", "a.npy"):
        opened = data.open(str(tmp_path / name), "train[:4]")
        assert opened.columns["image"].shape == (4, 4, 4, 1)


@pytest.mark.parametrize("spec", ["cifar10", "", "no/such/folder", "a.mat"])
def test_an_unknown_source_lists_the_choices(spec):
    with pytest.raises(ValueError, match=r"'digits'.*\.npz.*'tfds:NAME'.*got"):
        data.open(spec)


def test_importing_the_room_loads_no_reader():
    code = (
        "import sys, jaxcl.data; "
        "print([m for m in ('tensorflow_datasets', 'sklearn', 'PIL', 'tensorflow') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
