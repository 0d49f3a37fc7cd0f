"""The wheel, installed where nothing else is, does what the README says.

Packages come from the registry that pip is set up for. Each environment is made once.
"""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest

import jaxcl

ROOT = pathlib.Path(__file__).resolve().parents[1]

# In one worker, so that no environment is made twice.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


class Installed:
    """An environment of its own, asked from a folder outside of the repository."""

    def __init__(self, folder, requirement):
        self.folder = folder
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.run("python", "-m", "pip", "install", "--quiet", requirement)

    def run(self, program, *arguments, status=0):
        """Runs one of its programs and returns its outcome, which has this status."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=environment | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr[-3000:]
        return done

    def python(self, program):
        """What a Python program prints."""
        return self.run("python", "-c", program).stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", ROOT],
        cwd=folder,
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("core"), str(wheel))


@pytest.fixture(scope="module")
def tools(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("tools"), f"{wheel}[tools]")


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"jaxcl", f"jaxcl-{jaxcl.__version__}.dist-info"}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "jaxcl").rglob("*.py")}
    assert modules <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


CLOSURE = """
import re
from importlib import metadata
asked, found = ["jax", "numpy"], set()
while asked:
    name = re.sub("[-_.]+", "-", asked.pop()).lower()
    if name not in found:
        found.add(name)
        for line in metadata.requires(name) or []:
            if "extra ==" not in line:
                asked.append(re.match(r"[\\w.-]+", line)[0])
print(*found)
"""


def test_jaxcl_alone_brings_jax_and_numpy_alone(core):
    listed = core.run("python", "-m", "pip", "list", "--format", "json").stdout
    names = {x["name"].lower().replace("_", "-") for x in json.loads(listed)}
    allowed = set(core.python(CLOSURE).split())
    assert {"jax", "numpy", "jaxcl"} <= names
    assert names - allowed <= {"jaxcl", "pip", "setuptools"}


def test_jaxcl_alone_computes_losses(core):
    program = (
        "import jax, jaxcl\n"
        "from jaxcl import losses\n"
        "views = jax.numpy.ones((4, 2, 3))\n"
        "print(float(jaxcl.mean(losses.nt_xent(views))), jaxcl.__file__)\n"
    )
    loss, place = core.python(program).split(maxsplit=1)
    assert float(loss) == pytest.approx(np.log(7), rel=1e-6)
    assert pathlib.Path(place).is_relative_to(core.folder)


@pytest.mark.parametrize("room", ["models", "training", "evaluation"])
def test_what_is_missing_is_named_with_its_extra(core, room):
    done = core.run("python", "-c", f"import jaxcl.{room}", status=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: jaxcl.{room} needs ")
    assert last.endswith("pip install 'jaxcl[train]'")


def test_a_command_without_its_packages_is_one_line(core):
    assert "prepare" in core.run("jaxcl", "--help").stdout
    done = core.run("jaxcl", "report", "x", status=1)
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().endswith("pip install 'jaxcl[tools]'")


def test_every_room_opens_with_the_tools(tools):
    rooms = (
        "augment",
        "data",
        "models",
        "training",
        "evaluation",
        "pictures",
        "report",
    )
    program = f"from jaxcl import {', '.join(rooms)}; print(models.__file__)"
    place = pathlib.Path(tools.python(program))
    assert place.is_relative_to(tools.folder)


# Each command of the package, run once as a user does. A new one has its test here.


def test_report_writes_a_page(tools):
    z = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.save(tools.folder / "z.npy", z)
    said = tools.run("jaxcl", "report", "z.npy", "--out", "page").stdout
    assert "Gaussian as far as" in said
    results = json.loads((tools.folder / "page" / "results.json").read_text())
    assert results["shape"] == [400, 6]
    page = (tools.folder / "page" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 7
    assert results["verdict"]["headline"] in page


def test_prepare_makes_a_set_that_opens(tools):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    for i, image in enumerate(images):
        place = tools.folder / "photos" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(place / f"{i}.png")
    flags = ["--name", "tiny", "--folder", "photos", "--data_dir", "sets"]
    said = tools.run("jaxcl", "prepare", *flags).stdout
    assert "train: 6 images 5x4x3, 2 classes" in said
    source = said.strip().splitlines()[-1].removeprefix("Use it with: --source ")
    program = (
        "from jaxcl import data\n"
        f"images = data.open({source!r}).columns['image']\n"
        "print(images.shape, int(images[:].sum()))\n"
    )
    assert tools.python(program) == f"(6, 5, 4, 3) {images.sum()}"


@pytest.fixture(scope="module")
def run(tools):
    """A short run on the digits, made by the repository's own script."""
    flags = "--width 4 --embedding 8 --batch_size 16 --epochs 1 --warmup_epochs 0"
    flags += " --max_steps 3 --evaluate_every 100 --no-progress --split train[:200]"
    place = str(tools.folder / "run")
    subprocess.run(
        [sys.executable, "-m", "experiments.simclr", *flags.split()]
        + ["--directory", place],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=True,
        capture_output=True,
    )
    return place


def test_probe_measures_a_run(tools, run):
    said = tools.run("jaxcl", "probe", run, "--no-linear").stdout
    assert "pretrained encoder" in said
    assert json.loads((pathlib.Path(run) / "probe.json").read_text())


def test_embed_and_export_bring_an_encoder_out(tools, run):
    tools.run("jaxcl", "export", run, "--out", "encoder")
    for place, out in ((run, "of_run.npz"), ("encoder", "of_export.npz")):
        flags = ["--out", out, "--source", "digits"]
        tools.run("jaxcl", "embed", place, *flags)
    with np.load(tools.folder / "of_run.npz") as content:
        embeddings, labels = content["embeddings"], content["labels"]
    assert len(embeddings) == len(labels) == 497
    with np.load(tools.folder / "of_export.npz") as content:
        np.testing.assert_array_equal(content["embeddings"], embeddings)
