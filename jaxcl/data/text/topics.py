"""Sentences that every Python has: those of its own documentation."""

import re

import numpy as np

from jaxcl.data import dataset as dataset_lib

_SHORTEST = 5  # words


def topics() -> dataset_lib.Dataset:
    """The sentences of `pydoc_data.topics`, what `help()` says of the language.

    Paragraphs of prose alone: titles, tables, grammar and examples of code are left
    out, and so are sentences of fewer than five words and those that stand there twice.
    Which sentences there are depends on the version of Python.

    Returns:
      The data set "topics", with texts "sentence" and "group" int32, their topic.
    """
    from pydoc_data import topics as source

    texts: list[str] = []
    of: list[int] = []
    seen: set[str] = set()
    for number, (_, text) in enumerate(sorted(source.topics.items())):
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in _sentences(paragraph):
                if sentence not in seen:
                    seen.add(sentence)
                    texts.append(sentence)
                    of.append(number)
    groups = np.unique(of, return_inverse=True)[1].astype(np.int32)
    columns = {"sentence": np.array(texts, object), "group": groups}
    return dataset_lib.Dataset("topics", columns)


def _sentences(paragraph: str) -> list[str]:
    """Those of one paragraph of prose; none of another one."""
    lines = paragraph.strip("\n").split("\n")
    indented = any(line.startswith("    ") for line in lines)
    if indented or re.search(r"::=|>>>|[*=~^-]{4}|\|", paragraph):
        return []
    text = re.sub(r"[`*]", "", " ".join(paragraph.split()))
    found = re.split(r"(?<=[.!?]) (?=[A-Z(\"])", text)
    prose = re.compile(r"[A-Z(\"].*[.!?:]\)?$")
    return [s for s in found if prose.match(s) and len(s.split()) >= _SHORTEST]
