"""What `pip install jaxcl` alone brings is enough to be told what else to install."""

import subprocess
import sys

from jaxcl import __main__

ROOMS = {  # what each needs first, and the extra that brings it
    "models": ("flax", "train"),
    "training": ("flax", "train"),
    "evaluation": ("optax", "train"),
    "pictures": ("matplotlib", "tools"),
    "report": ("jinja2", "tools"),
}
# A process in which nothing but jax, numpy and what they bring can be imported.
BARE = """
import sys
for package in ("flax", "optax", "orbax", "chex", "tensorflow_datasets", "array_record",
                "matplotlib", "PIL", "sklearn", "jinja2", "tyro", "tqdm",
                "tensorboardX", "safetensors", "optuna", "absl",
                "tokenizers", "grain"):
    sys.modules[package] = None
"""


def bare(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", BARE + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_room_without_its_packages_names_the_extra_in_one_line():
    program = (
        "import importlib\n"
        f"for room in {list(ROOMS)}:\n"
        "    try:\n"
        "        importlib.import_module(f'jaxcl.{room}')\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    said = bare(program).stdout.splitlines()
    assert said == [
        f"jaxcl.{room} needs {package}: pip install 'jaxcl[{extra}]'"
        for room, (package, extra) in ROOMS.items()
    ]


def test_arrays_are_data_without_any_extra(tmp_path):
    program = (
        "import numpy as np\n"
        "from jaxcl import augment, data\n"
        f"np.save({str(tmp_path / 'a.npy')!r}, np.zeros((5, 4, 4), np.uint8))\n"
        f"print(data.size(data.open({str(tmp_path / 'a.npy')!r})))\n"
        "try:\n"
        "    data.open('digits')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    length, said = bare(program).stdout.splitlines()
    assert length == "5"
    assert "the source 'digits' needs sklearn" in said
    assert said.endswith("pip install 'jaxcl[tools]'")


def test_sentences_are_read_without_any_extra_and_vocabularies_name_theirs():
    program = (
        "from jaxcl import data\n"
        "topics = data.text.open('topics', 'train[:3]')\n"
        "print(data.size(topics))\n"
        "for call in (data.text.learn, data.streamed):\n"
        "    try:\n"
        "        call(['a'])\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    size, *said = bare(program).stdout.splitlines()
    assert size == "3"
    assert said == [
        "a vocabulary needs tokenizers: pip install 'jaxcl[data]'",
        "reading with several threads needs grain: pip install 'jaxcl[data]'",
    ]


def test_a_command_without_its_packages_ends_with_one_line():
    program = (
        "from jaxcl import __main__\n"
        "for command in __main__.COMMANDS:\n"
        "    try:\n"
        "        __main__.cli([command, 'x.npy'])\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"  # a text: printed, and status 1
    )
    run = bare(program)
    lines = run.stdout.splitlines()
    assert len(lines) == len(__main__.COMMANDS), run.stderr
    for line in lines:
        assert line.startswith("ImportError: ")
        assert line.endswith("pip install 'jaxcl[tools]'")


def test_help_needs_no_extra_and_loads_nothing_heavy():
    run = bare("from jaxcl import __main__; __main__.cli()", "--help")
    assert run.returncode == 0, run.stderr
    for command in __main__.COMMANDS:
        (line,) = [x for x in run.stdout.splitlines() if x.strip().startswith(command)]
        assert line.strip().endswith(".")
