"""Text from outside fits on a line, into a table, a message and a UTF-8 file."""

import dataclasses
import sys

import pytest

from jaxcl import _cli, _tables, _text


@dataclasses.dataclass
class Settings:
    name: str = "猫\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("katt 猫 שלום é 1/2 \N{SMILING FACE WITH OPEN MOUTH}", None),
        ("no\N{NO-BREAK SPACE}break", None),
        ("a\u200cb", None),
        ("a\r\n\tb\0", r"a\r\n\tb\x00"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("x\u2028y\ufeff", r"x\u2028y\ufeff"),
        (b"caf\xe9.npy".decode("utf-8", "surrogateescape"), r"caf\udce9.npy"),
    ],
)
def test_only_what_cannot_be_shown_is_escaped(text, shown):
    found = _text.printable(text)
    assert found == (text if shown is None else shown)
    found.encode("utf-8")


def test_cells_neither_end_a_column_nor_a_line():
    table = _tables.markdown(["a|b", "c"], [["x\ny", "|"]])
    assert table.splitlines()[0].count("|") - table.splitlines()[0].count(r"\|") == 3
    assert len(table.splitlines()) == 3


def test_a_message_of_one_line_holds_no_commands_for_the_terminal(capsys):
    with pytest.raises(SystemExit) as stopped, _cli.one_line_errors():
        raise ValueError("no file 'a\x1b[2J\nb'")
    assert stopped.value.code == r"ValueError: no file 'a\x1b[2J b'"


def test_a_terminal_of_few_letters_ends_no_command(tmp_path, monkeypatch):
    with open(tmp_path / "out", "w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        _cli.run(lambda s: print(s.name), Settings(), prog="x", arguments=[])
    assert (tmp_path / "out").read_text() == "\\u732b\\udcff\n"
