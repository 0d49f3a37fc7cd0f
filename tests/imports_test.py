"""`import jaxcl` loads jax and numpy only, and rooms import from lower rooms only."""

import ast
import pathlib
import subprocess
import sys

import jaxcl

PACKAGE = pathlib.Path(jaxcl.__file__).parent

LEVELS = {
    "_optional": -2,
    "_text": -2,
    "_host": -2,
    "_checks": -2,
    "_rules": -1,
    "_cli": -1,
    "_files": -1,
    "_checksums": -1,
    "_tables": -1,
    "_graph_batch": -1,
    "_token_batch": -1,
    "mesh": 0,
    "graphs": 1,
    "kernels": 1,
    "pairwise": 2,
    "losses": 3,
    "diagnostics": 4,
    "augment": 5,
    "models": 5,
    "data": 5,
    "training": 6,
    "evaluation": 6,
    "pictures": 6,
    "recipes": 7,
    "report": 7,
    "study": 7,
    "tools": 8,
    "__main__": 9,
}


def test_import_loads_jax_and_numpy_only():
    program = (
        "import sys, jaxcl; "
        "heavy = {'flax', 'optax', 'chex', 'orbax', 'tensorflow_datasets', 'sklearn', "
        "'scipy.stats', 'matplotlib', 'tensorflow', 'tyro', 'jinja2', 'PIL', "
        "'tqdm', 'safetensors', 'tokenizers', 'grain'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def _imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxcl":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith("jaxcl."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("jaxcl."):
                    yield alias.name.split(".")[1]


def test_rooms_import_from_lower_rooms_only():
    found = 0
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in LEVELS, f"{path.name} is in a room without a level"
        found += 1
        for other in _imported_rooms(path):
            if other in LEVELS and other != room:
                assert LEVELS[other] < LEVELS[room], f"{path.name} imports {other}"
    assert found > 20


def test_the_package_sends_nobody_to_a_script_it_does_not_hold():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "python -m experiments" not in text.replace(_SHOWN, ""), path
        assert "jaxcl[experiments]" not in text, path


# The docstring of _cli shows how a script calls it.
_SHOWN = 'prog="python -m experiments'
