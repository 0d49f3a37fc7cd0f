"""What a release says about itself is said once, or says the same everywhere."""

import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest

import jaxcl

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_written_in_one_place_and_cited_as_it_is():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "jaxcl/__init__.py"
    assert f"\nversion: {jaxcl.__version__}\n" in read("CITATION.cff")


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == jaxcl.__version__


def test_pages_say_that_it_is_not_released_as_long_as_it_is_not():
    unreleased = f"## {jaxcl.__version__} (unreleased)\n" in read("CHANGELOG.md")
    for name in ("README.md", "docs/install.md"):
        assert (f"{jaxcl.__version__} is not released yet" in read(name)) == unreleased
    assert ("is released" in read("docs/tutorial.md")) == unreleased


def test_supported_versions_are_documented_as_they_are_declared():
    page = read("docs/install.md")
    (jax,) = (x for x in PROJECT["project"]["dependencies"] if x.startswith("jax"))
    assert f"`{jax}`" in page
    declared = [
        line.rsplit(" ", 1)[1]
        for line in PROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", line)
    ]
    assert f"| Python | {', '.join(declared)} |" in page
    assert PROJECT["project"]["requires-python"] == f">={declared[0]}"


def test_the_citation_names_the_papers_of_the_readme():
    cited = set(re.findall(r"abs/(\d+\.\d+)", read("CITATION.cff")))
    named = read("README.md").split("## Reading on")[1]
    assert set(re.findall(r"\((\d+\.\d+)\)", named)) == cited


def test_a_report_of_a_bug_asks_for_the_command_and_the_versions():
    text = read(".github/ISSUE_TEMPLATE/bug.yml")
    for asked in ("command", "jaxcl.__version__", "print_environment_info"):
        assert asked in text


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_simclr_ends_by_saying_where_to_look_next():
    said = subprocess.run(
        ["make", "-n", "simclr", "PYTHON=python3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shown = said.split("Where to look next")[1]
    assert (ROOT / re.search(r"docs/\S+\.md", shown)[0]).exists()
    assert "report.html" in shown
    three = shown.split("three commands")[1]
    assert len(re.findall(r"experiments\.simclr|jaxcl probe|jaxcl prepare", three)) == 3
