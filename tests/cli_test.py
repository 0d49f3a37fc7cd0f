"""A command ends with one line and an exit code, whatever a user does."""

import dataclasses
import sys

import pytest

from jaxcl import _cli, _optional


@dataclasses.dataclass(frozen=True)
class Settings:
    """Adds one up.

    And more about it.
    """

    num_steps: int = 3
    """How many."""


@dataclasses.dataclass(frozen=True)
class Search:
    """Looks for the best."""

    seed: int = 0


def run(*arguments, main=None, settings=Settings, **options):
    asked = []
    _cli.run(
        main or asked.append, settings, prog="adds", arguments=arguments, **options
    )
    return asked[0] if asked else None


COMMANDS = {
    "add": Settings,
    "more": (Settings(9), None, "Adds nine up."),
    "search": (Search, lambda s: pytest.fail(f"searched with {s.seed}")),
}


def test_flags_are_those_of_the_settings(monkeypatch):
    assert run() == Settings()
    assert run("--num_steps", "5") == run("--num-steps=5") == Settings(5)
    assert run(settings=Settings(7)) == Settings(7)
    monkeypatch.setattr(sys, "argv", ["adds", "--num_steps", "8"])
    asked = []
    _cli.run(asked.append, Settings, prog="adds")
    assert asked == [Settings(8)]


@pytest.mark.parametrize(
    "error",
    [ValueError, TypeError, FileNotFoundError, ImportError, FloatingPointError],
)
def test_an_expected_error_is_one_line_and_status_1(error, monkeypatch):
    def main(s):
        raise error("no\nsuch thing")

    with pytest.raises(SystemExit) as end:
        run(main=main)
    assert end.value.code == f"{error.__name__}: no such thing"  # printed, status 1
    monkeypatch.setenv("JAXCL_TRACEBACK", "1")
    with pytest.raises(error):
        run(main=main)


def test_a_bug_keeps_its_traceback():
    def main(s):
        raise KeyError("z")

    with pytest.raises(KeyError):
        run(main=main)


def test_control_c_is_one_line_and_status_130(capsys):
    def main(s):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run(main=main, stopped="stopped; the same command resumes")
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "stopped; the same command resumes"


def test_a_script_may_end_with_a_code_of_its_own():
    with pytest.raises(SystemExit) as end:
        run(main=lambda s: sys.exit(75))
    assert end.value.code == 75


def test_a_missing_parser_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(SystemExit, match=r"needs tyro.*pip install 'jaxcl\[tools\]'$"):
        run()


def test_each_command_has_its_settings_and_its_main():
    assert run("add", "--num_steps", "1", settings=COMMANDS) == Settings(1)
    assert run("more", settings=COMMANDS) == Settings(9)
    with pytest.raises(pytest.fail.Exception, match="searched with 4"):
        run("search", "--seed", "4", settings=COMMANDS)


def test_a_command_may_be_meant_where_none_is_named(capsys):
    for given in ((), ("--num_steps", "9")):
        assert run(*given, settings=COMMANDS, default="more") == Settings(9)
    with pytest.raises(SystemExit) as end:
        run("--num_steps", "9", settings=COMMANDS)
    assert end.value.code == 2
    assert "there is no command '--num_steps'" in capsys.readouterr().err


def test_a_misspelled_command_is_guessed(capsys):
    with pytest.raises(SystemExit):
        _cli.choose({"report": "A page.", "probe": "Numbers."}, ["reprot"], prog="x")
    assert "no command 'reprot'; did you mean 'report'?" in capsys.readouterr().err


def test_help_has_a_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as end:
        run("--help", settings=COMMANDS, default="add")
    assert end.value.code == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "add Adds one up. (if none is named)" in said
    assert "more Adds nine up." in said
    assert "search Looks for the best." in said


@pytest.mark.parametrize("given", [(), ("ad",)])
def test_a_command_that_is_not_there_is_answered_with_the_list(given, capsys):
    with pytest.raises(SystemExit) as end:
        run(*given, settings=COMMANDS)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert "Looks for the best." in printed.err
    assert not printed.out


def test_a_wrong_flag_is_answered_with_those_of_its_own_command(capsys):
    with pytest.raises(SystemExit) as end:
        run("search", "--num_steps", "3", settings=COMMANDS)
    assert end.value.code == 2
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert "adds search --help" in said
    assert "--num_steps INT" not in said


def test_a_package_that_is_there_and_broken_is_not_called_missing(
    tmp_path, monkeypatch
):
    (tmp_path / "broken_package.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"could not be imported \(No module named 'no_such_package'"
    ):
        _optional.require("broken_package", "a wish", "train")
