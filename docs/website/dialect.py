"""What Markdown and docstrings of this repository need beside plain Markdown.

Formulas between dollars become MathML when a page is built: no script, no network.
Examples of docstrings (`>>>`) become blocks of code, and a comparison at the beginning
of a line (`> 0`) is no quotation. In tables numbers stay beside their units.
"""

import re
import xml.etree.ElementTree as etree
from typing import Any

import latex2mathml.converter
import markdown
from markdown.blockprocessors import BlockProcessor
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

# As GitHub has it: no space inside of the dollars, and no digit after them.
INLINE = r"(?<![\\$\w])\$(?=[^\s$])([^$\n]*[^\s$\\])\$(?![\w$])"
FUNCTION = re.compile(r"(\\(?:log|exp|cos|tr))\s+(?=[A-Za-z])")
# A raised prime is too small to see in most fonts: its sign is raised by itself.
PRIME = re.compile(r"<msup>(<mi>\w</mi>)<mi>&#x02032;</mi></msup>")
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
# In a row of a table: what a number is counted in, and its interval, stay beside it.
UNIT = re.compile(
    r"(?<=\d) (?=(?:s|ms|MiB|GiB|%)(?=[ ,;)*|]))|(?<=\d) (?=± \d)|(?<=±) (?=\d)"
)
COMPARISON = re.compile(r"^(>=? ?\d)")
BLOCK = re.compile(r"^\$\$\s*(.+?)\s*\$\$$", re.DOTALL)


def rendered(formula: str, display: str) -> etree.Element:
    """The MathML of a formula in LaTeX.

    Args:
      formula: LaTeX, without dollars.
      display: "inline" or "block".

    Returns:
      The element `math`, with the LaTeX as its alternative text.
    """
    # Between a function and a letter LaTeX has a space, and the converter none.
    spaced = FUNCTION.sub(r"\1\\,", formula)
    text = latex2mathml.converter.convert(spaced, display=display)
    text = PRIME.sub(r'<mrow>\1<mo lspace="0" rspace="0">&#x02032;</mo></mrow>', text)
    # In HTML `math` needs no namespace.
    element = etree.fromstring(text.replace(f' xmlns="{NAMESPACE}"', ""))
    element.set("alttext", formula)
    return element


class Inline(InlineProcessor):
    """Formulas inside of a line, $x$."""

    def handleMatch(self, m: re.Match[str], data: str) -> Any:
        return rendered(m.group(1), "inline"), m.start(0), m.end(0)


class Block(BlockProcessor):
    """Formulas that are a paragraph, $$ x $$."""

    def test(self, parent: etree.Element, block: str) -> bool:
        return BLOCK.match(block.strip()) is not None

    def run(self, parent: etree.Element, blocks: list[str]) -> None:
        found = BLOCK.match(blocks.pop(0).strip())
        assert found is not None
        box = etree.SubElement(parent, "div", {"class": "formula"})
        box.append(rendered(" ".join(found.group(1).split()), "block"))


class Lines(Preprocessor):
    """Examples as blocks of code, comparisons as text, numbers with their units."""

    def run(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        inside = False
        for line in lines:
            if not inside and line.startswith(">>> "):
                out.append("```pycon")
                inside = True
            elif inside and not line.strip():
                out.append("```")
                inside = False
            if not inside:
                line = COMPARISON.sub(r"\\\1", line)
                line = UNIT.sub("\u00a0", line) if line.startswith("|") else line
            out.append(line)
        return [*out, "```"] if inside else out


class Dialect(markdown.Extension):
    """All of the above."""

    def extendMarkdown(self, md: markdown.Markdown) -> None:
        # After code (190), before backslashes are read as escapes (180).
        md.inlinePatterns.register(Inline(INLINE, md), "formula", 185)
        # Before blocks of code are found (25).
        md.preprocessors.register(Lines(md), "lines", 40)
        md.parser.blockprocessors.register(Block(md.parser), "formula", 95)


def makeExtension(**options: Any) -> Dialect:
    """What Markdown asks an extension for."""
    return Dialect(**options)
