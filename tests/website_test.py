"""What is checked of the built documentation is found where it is wrong."""

import json
import pathlib

import pytest

import jaxcl
from docs.website import check, rooms


def site(folder, pages, items=()):
    for name, body in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<html><body>{body}</body></html>")
    (folder / "search.json").write_text(json.dumps({"items": list(items)}))
    return folder


def test_links_that_lead_somewhere_are_no_faults(tmp_path):
    pages = {
        "index.html": '<h1 id="top">A</h1><a href="b/#x">b</a><a href="#top">top</a>',
        "b/index.html": '<h2 id="x">B</h2><a href="..">a</a><a href="https://a.b/c">c</a>',
    }
    assert list(check.faults(site(tmp_path, pages))) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="gone/">x</a>', "links to gone/, which is not there"),
        ('<a href="#gone">x</a>', "links to #gone, which has no such anchor"),
        ('<img src="gone.png">', "links to gone.png, which is not there"),
        ('<script src="https://cdn.x/y.js"></script>', "fetches https://cdn.x/y.js"),
        ('<link rel="stylesheet" href="//fonts.x/f.css">', "fetches //fonts.x/f.css"),
    ],
)
def test_faults_are_found(tmp_path, body, said):
    (fault,) = check.faults(site(tmp_path, {"index.html": body}))
    assert fault == f"index.html {said}"


def test_a_site_without_pages_is_a_fault(tmp_path):
    assert list(check.faults(tmp_path)) == [f"{tmp_path} has no pages"]


def test_search_finds_titles_before_texts(tmp_path):
    items = [
        {"location": "a/", "title": "Other", "text": "how to resume"},
        {"location": "b/", "title": "Resume a run", "text": ""},
    ]
    folder = site(tmp_path, {"index.html": ""}, items)
    assert check.found(folder, "resume") == ["b/", "a/"]
    assert check.found(folder, "false negatives") == []
    assert check.main(folder) == 2  # neither "temperature" nor "false negatives"


def package(folder):
    """A package with a room that offers a function of a module of the same name."""
    files = {
        "__init__.py": '__all__ = ["shown"]',
        "_hidden.py": "def f(): ...",
        "room/__init__.py": "from p.room import below as below, quiet\n"
        "from p.room.f import f as f",
        "room/f.py": "def f(): ...",
        "room/below.py": "class Kept: ...\ndef _own(): ...",
        "room/quiet.py": "def unseen(): ...",
    }
    for name, text in files.items():
        path = folder / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "p"


def test_public_is_what_rooms_offer(tmp_path):
    public = rooms.public(package(tmp_path))
    assert public == {"p.room": ["f"], "p.room.below": ["Kept"]}


def test_names_that_the_reference_lacks_are_faults(tmp_path):
    pages = {"reference/room/index.html": '<h2 id="p.room.f">f</h2>'}
    folder = site(tmp_path / "site", pages)
    assert check.unshown(folder, package(tmp_path)) == ["p.room.below.Kept"]


def test_what_rooms_offer_is_read_as_python_reads_it():
    public = rooms.public(pathlib.Path(jaxcl.__file__).parent)
    for room in (jaxcl.losses, jaxcl.kernels, jaxcl.graphs, jaxcl.diagnostics):
        assert public[room.__name__] == room.__all__
    assert "train_step" in public["jaxcl.training"]
    assert "restore_latest" in public["jaxcl.training.checkpoints"]


def test_comments_explain_constants():
    griffe = pytest.importorskip("griffe")
    exported = pytest.importorskip("docs.website.exported")
    lines = [
        "import x",
        "# Of both",
        "# kinds.",
        "A = 1",
        "B = 2  # another one",
        "C = 3",
    ]

    def said(name, lineno):
        return exported.comment(griffe.Attribute(name, lineno=lineno), lines)

    assert said("A", 4) == "Of both kinds."
    assert said("B", 5) == "Another one."
    assert said("C", 6) is None


def test_formulas_of_the_table_stand_in_the_reference():
    exported = pytest.importorskip("docs.website.exported")
    found = exported.formulas(exported.TABLE.read_text(encoding="utf-8"))
    public = set(jaxcl.losses.__all__) - {"log_temperature", "learned_temperature"}
    assert set(found) == public
    assert found["nt_xent"].startswith(r"$$\log \sum_{j \ne i}")
    said = exported.with_formula("One line.\n\nArgs:\n  z: rows.", "$$x$$")
    assert said == "One line.\n\n$$x$$\n\nArgs:\n  z: rows."


def rendered(text):
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("latex2mathml")
    return markdown.markdown(
        text, extensions=["fenced_code", "tables", "docs.website.dialect"]
    )


def test_formulas_become_mathml():
    out = rendered(r"Of $s_{ij}$ and 5 $ or `$a$`." + "\n\n$$\n\\log x\n$$\n")
    assert out.count("<math") == 2
    assert "<msub>" in out
    assert "5 $ or <code>$a$</code>" in out
    assert 'class="formula"' in out
    prime = '<mi>f</mi><mo lspace="0" rspace="0">\u2032</mo>'
    assert prime in rendered("Of $f'(x)$.")


def test_numbers_of_tables_stay_beside_their_units():
    out = rendered("| a | b |\n|---|---|\n| 0.5 s | 97.0 ± 0.3 |\n\nIn 5 s.")
    assert "0.5\u00a0s" in out
    assert "97.0\u00a0±\u00a00.3" in out
    assert "In 5 s." in out


def test_examples_are_code_and_comparisons_are_text():
    out = rendered("Text.\n\n>>> print(1)\n1\n\n> 0; a number\n")
    assert "<blockquote>" not in out
    assert "&gt;&gt;&gt; print(1)\n1" in out
    assert "&gt; 0; a number" in out
