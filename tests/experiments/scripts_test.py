"""Experiments are scripts: short, alone, and a small part of the code."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "experiments").rglob("*.py"))


def _script(path):
    """The script that a file belongs to: itself, or its package."""
    return path.relative_to(ROOT / "experiments").parts[0].removesuffix(".py")


def _imported(tree):
    """Names of scripts that are imported, whatever the form."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "experiments":
            names = [f"experiments.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("experiments."))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_script_imports_no_other_script(path):
    imported = set(_imported(ast.parse(path.read_text())))
    assert imported <= {_script(path)}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_of_a_script_fits_in_a_reader_s_head(path):
    assert len(path.read_text().splitlines()) <= 250


def test_scripts_are_no_more_than_a_quarter_of_the_code():
    def lines(paths):
        return sum(len(path.read_text().splitlines()) for path in paths)

    package = lines((ROOT / "jaxcl").rglob("*.py"))
    assert lines(SCRIPTS) <= 0.25 * (package + lines(SCRIPTS))


def test_the_package_needs_no_script():
    for path in (ROOT / "jaxcl").rglob("*.py"):
        assert not list(_imported(ast.parse(path.read_text()))), path
