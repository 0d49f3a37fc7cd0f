"""Skips this folder where the compiler is not installed, and says so."""

import importlib.util
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("libtpu") is None:
        reason = "needs libtpu: pip install 'jaxcl[aot]'"
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))
