"""Text from outside, such as names of files and classes, as it may be shown."""

import contextlib
import sys
import typing
import unicodedata

# Persian and many emoji are spelled with them; neither changes what stands around it.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


class _Terminal:
    """Standard error, which may be closed, or gone before the work ends."""

    muted = False  # in all processes of a run but the first

    def write(self, text: str) -> None:
        if self.muted:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(sys.stderr, name)


TERMINAL: typing.Any = _Terminal()  # where bars go, and lines that they make room for


def printable(text: object) -> str:
    r"""One line that a terminal, a page and a UTF-8 file can hold.

    Letters, digits, signs and spaces stay. Control characters, ends of lines, marks
    that turn the direction of writing, unassigned and private characters, and what an
    undecodable file name holds are escaped as in Python.

    Args:
      text: the text, or what `str` makes text of.

    Returns:
      The line. Whoever writes HTML, Markdown or mathematics escapes what is special
      there.

    >>> print(printable("a\nb\x1b[2J\u202etxt"))
    a\nb\x1b[2J\u202etxt
    """
    return "".join(
        letter if _shown(letter) else escaped(letter) for letter in str(text)
    )


def escaped(letter: str) -> str:
    r"""A character by its number, as Python writes it.

    >>> print(escaped("\N{SNOWMAN}"))
    \u2603
    """
    return ascii(letter)[1:-1]


def _shown(letter: str) -> bool:
    spaces = unicodedata.category(letter) == "Zs"
    return letter.isprintable() or spaces or letter in _JOINERS
