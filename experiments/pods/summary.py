"""Plans that were made before, side by side, with the command of each."""

import dataclasses
import json
import pathlib
from typing import Any

import tyro

from experiments.pods import report
from jaxcl import _tables


@dataclasses.dataclass(frozen=True)
class Summary:
    """Prints one line for each plan in the directories."""

    directories: tyro.conf.Positional[tuple[str, ...]]
    """Of plans."""


HEAD = ["plan", "problem", "n", "chips", "peak", "estimate", "limit", "encoder"]
HEAD += ["augmentation", "loss", "sum of gradients", "links"]


def main(s: Summary) -> str:
    lines, commands = [], []
    for i, directory in enumerate(s.directories, start=1):
        found = json.loads((pathlib.Path(directory) / "results.json").read_text())
        lines.append([str(i), *line(found)])
        commands.append(f"    {i}  {report.command(found['settings'])}")
    text = _tables.markdown(HEAD, lines) + "\n\n" + "\n".join(commands)
    print(text)
    return text


def line(found: dict[str, Any]) -> list[str]:
    """The cells of a plan, without its number."""
    settings, parts, seconds = found["settings"], found["parts"], found["seconds"]
    total = sum(parts.values())
    name = settings["problem"]
    if name == "simclr":
        name = f"{settings['encoder']}, {settings['size']} px"
    encoder = sum(t for part, t in parts.items() if part.startswith("encoder"))
    summed = [c for c in found["collectives"] if c["part"] == "sum of gradients"]
    return [
        name,
        f"{settings['n']:,}",
        f"{found['chips']} {found['chip']['name']}",
        report.size(found["memory"]["peak"]),
        report.ms(seconds["estimate"]),
        report.ms(seconds["limit"]),
        f"{encoder / total:.1%}",
        f"{parts.get('augmentation', 0.0) / total:.1%}",
        f"{parts.get('loss', 0.0) / total:.1%}",
        report.size(sum(c["bytes"] for c in summed)),
        report.ms(seconds["links"]),
    ]
