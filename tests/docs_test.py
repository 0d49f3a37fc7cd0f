"""The documentation runs: every Python block of the README and of docs, in order."""

import dataclasses
import pathlib
import re
import shutil
import subprocess

import pytest

from docs.website import rooms
from experiments import simclr
from jaxcl import losses
from jaxcl.training import run as training

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path):
    """A file by its place in the repository."""
    return str(path.relative_to(ROOT))


def blocks_of(text, language="python"):
    """The blocks in a language of a Markdown text, with the numbers of first lines."""
    blocks, block, first = [], None, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if block is None and line.startswith("```"):
            block, first, wanted = [], number + 1, line == f"```{language}"
        elif block is not None and line == "```":
            if wanted:
                blocks.append((first, "\n".join(block)))
            block = None
        elif block is not None:
            block.append(line)
    if block is not None:
        raise ValueError(f"the block that begins in line {first} never ends")
    return blocks


def run(path):
    """Runs a file's blocks in one namespace, which it returns."""
    namespace = {"__name__": path.stem}
    for first, block in blocks_of(path.read_text(encoding="utf-8")):
        # The empty lines make a traceback show the line of the file.
        exec(compile("\n" * (first - 1) + block, str(path), "exec"), namespace)
    return namespace


def headings(text):
    """The headings of a Markdown text outside of its blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)


def anchor(heading):
    """What a link to a heading ends in."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


RUNNABLE = [f for f in FILES if blocks_of(f.read_text(encoding="utf-8"))]


def test_code_is_found():
    assert {"README.md", "losses.md", "migrating.md"} <= {f.name for f in RUNNABLE}


# Those of the README are what users meet first.
LONG = (
    "losses.md",
    "graphs.md",
    "pairs.md",
    "text.md",
    "training.md",
    "tutorial.md",
    "models.md",
    "own_loss.md",
)
# Packages that a page shows and nothing else of the repository needs.
SHOWN = {"models.md": "equinox"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.name in LONG))
        for path in RUNNABLE
    ],
    ids=name_of,
)
def test_every_python_block_runs(path, monkeypatch, tmp_path):
    if path.name in SHOWN:
        pytest.importorskip(SHOWN[path.name])
    monkeypatch.chdir(tmp_path)
    run(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_link_to_a_file_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)]*)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        aim = path.parent / name if name else path
        assert aim.exists(), target
        if fragment:
            known = [anchor(h) for h in headings(aim.read_text(encoding="utf-8"))]
            assert fragment in known, target


# Functions of jaxcl.losses that are no losses.
PARAMETERS = {"log_temperature", "learned_temperature"}


def test_every_public_loss_has_a_section():
    sections = headings((ROOT / "docs" / "losses.md").read_text(encoding="utf-8"))
    assert set(losses.__all__) - PARAMETERS <= set(sections)


def test_one_table_has_a_full_row_for_every_public_loss():
    text = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.splitlines():
        if found := re.match(r"\| \[`(\w+)`\]\(losses\.md#(\w+)\)", line):
            assert found[1] == found[2]
            assert found[1] not in rows, "twice"
            rows[found[1]] = [cell.strip() for cell in line.strip("|").split("|")]
    assert set(rows) == set(losses.__all__) - PARAMETERS
    for name, cells in rows.items():
        assert len(cells) == 5, name
        assert all(cells), name  # name, formula, negatives, cost, when to take it
        assert "$" in cells[1], name


def test_the_reference_has_every_public_module():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    assert set(rooms.public(ROOT / "jaxcl")) <= shown


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert re.search(rf"(: |- ){re.escape(name)}$", navigation, re.MULTILINE), name


def test_pictures_of_the_documentation_are_small():
    pictures = list((ROOT / "docs" / "assets" / "pictures").glob("*.png"))
    pages = "".join(f.read_text(encoding="utf-8") for f in FILES)
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 100_000, path.name
        assert f"assets/pictures/{path.name}" in pages, f"{path.name} is nowhere shown"


def test_a_block_that_fails_is_found_at_its_line(tmp_path):
    path = tmp_path / "broken.md"
    path.write_text("# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as error:
        run(path)
    assert error.traceback[-1].lineno + 1 == 5


def test_other_languages_are_no_python():
    assert blocks_of("```\nmake\n```\n```python\nx\n```\n") == [(5, "x")]


def test_a_block_without_an_end_is_an_error():
    with pytest.raises(ValueError, match="line 2 never ends"):
        blocks_of("```python\nx = 1\n")


PODS = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")
SHELL = [block for _, block in blocks_of(PODS, "bash")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_launch_scripts_are_shell_scripts():
    assert len(SHELL) >= 5
    for block in SHELL:
        checked = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_launch_scripts_give_flags_that_there_are():
    known = {field.name for field in dataclasses.fields(simclr.Settings)}
    lines = [
        line
        for block in (*SHELL, *(b for _, b in blocks_of(PODS, "yaml")))
        for line in re.findall(
            r"experiments\.simclr((?:[^\n]|\n(?= +--)|\n +(?=--))*)", block
        )
    ]
    given = {flag for line in lines for flag in re.findall(r"--(\w+)", line)}
    assert {"distributed", "coordinator", "num_processes", "directory"} <= given
    assert given <= known


def test_manifests_are_of_pods_that_find_each_other():
    yaml = pytest.importorskip("yaml")
    first, second = (block for _, block in blocks_of(PODS, "yaml"))
    service, job = yaml.safe_load_all(first)
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    # As many hosts as the slice has: 16 chips, of 4 in each.
    rows, columns = map(
        int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    )
    [container] = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert rows * columns == job["spec"]["completions"] * chips
    assert all(isinstance(word, str) for word in container["command"])
    rules = job["spec"]["podFailurePolicy"]["rules"]
    stopped = [r for r in rules if training.EXIT_STOPPED in r["onExitCodes"]["values"]]
    assert [rule["action"] for rule in stopped] == ["Ignore"]
    assert pod["restartPolicy"] == "Never"  # else the rules are refused
    [jobs] = yaml.safe_load(second)["spec"]["replicatedJobs"]
    assert jobs["template"]["spec"]["completionMode"] == "Indexed"
    assert f'"$code" -eq {training.EXIT_STOPPED} ' in "".join(SHELL)
