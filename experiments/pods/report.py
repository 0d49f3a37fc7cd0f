"""A plan as Markdown."""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from experiments.pods.settings import Settings
from jaxcl import _tables

MIB, GIB = 2.0**20, 2.0**30


def text(found: dict[str, Any]) -> str:
    """All that was found, in Markdown, and how it was found.

    Args:
      found: by `plan.make`.

    Returns:
      Tables with the command above and what to think of them below.
    """
    chip, gpu = found["chip"], not found["chip"]["clock"]
    named = ", ".join(f"{name} {v}" for name, v in found["versions"].items())
    blocks = [
        f"{found['chips']} x {chip['name']}, one of them; compiled without hardware by "
        f"{named} in {found['compile_cpu_seconds']:.0f} CPU seconds",
        f"    {command(found['settings'])}",
        of_memory(found),
        of_time(found),
        of_parts(found),
        of_collectives(found),
        of_products(found),
        of_buffers(found),
        of_bundles(found),
        "\n".join(f"- {line}" for line in trust(found, gpu)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def command(settings: dict[str, Any]) -> str:
    """The command that makes the same plan."""
    words = ["python", "-m", "experiments.pods"]
    for field in dataclasses.fields(Settings):
        value = settings[field.name]
        if field.name != "directory" and value != field.default:
            words += [f"--{field.name}", str(value)]
    return shlex.join(words)


def size(n: float) -> str:
    return f"{n / GIB:,.2f} GiB" if n >= GIB else f"{n / MIB:,.1f} MiB"


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"


def of_memory(found: dict[str, Any]) -> str:
    memory, whole = found["memory"], found["chip"]["memory"]
    rows = [[name, size(n), f"{n / whole:.1%}"] for name, n in memory.items()]
    return _tables.markdown(["memory", "bytes", "of the chip's"], rows)


def of_time(found: dict[str, Any]) -> str:
    seconds = found["seconds"]
    estimate = seconds["estimate"]
    priced = "compiler's cycles" if "cycles" in found else "roofline of the kernels"
    reached = seconds["limit"] / estimate if estimate else 0.0
    share = f"{reached:.0%} of the limit"
    rows = [
        ["products that are needed, at the chip's peak", ms(seconds["limit"]), "limit"],
        ["products that are computed, at the chip's peak", ms(seconds["products"]), ""],
        [priced, ms(estimate), share],
        ["transfers, at the speed of all links", ms(seconds["links"]), ""],
        ["both, one after the other", ms(estimate + seconds["links"]), "at most"],
    ]
    return _tables.markdown(["time", "estimate", ""], rows)


def of_parts(found: dict[str, Any]) -> str:
    total = sum(found["parts"].values())
    if len(found["parts"]) < 2 or not total:
        return ""
    rows = [[p, ms(t), f"{t / total:.1%}"] for p, t in found["parts"].items() if t]
    return _tables.markdown(["part", "estimate", "of the step"], rows)


def of_collectives(found: dict[str, Any]) -> str:
    rows = [
        [c["kind"], c["part"], c["dtype"], f"{c['number']:,.0f}"]
        + [size(c["bytes"]), size(c["largest"])]
        for c in found["collectives"]
    ]
    head = ["collective", "part", "dtype", "number", "bytes", "largest array"]
    return _tables.markdown(head, rows) if rows else ""


def of_products(found: dict[str, Any]) -> str:
    total = sum(p["flops"] for p in found["products"])
    rows: list[Sequence[object]] = [
        [p["dtype"], p["precision"], f"{p['flops']:.3g}", f"{p['flops'] / total:.0%}"]
        for p in found["products"]
        if total
    ]
    head = ["products of", "precision", "FLOP", "share"]
    return _tables.markdown(head, rows) if rows else ""


def of_buffers(found: dict[str, Any]) -> str:
    rows = [
        [f"{b['dtype']}{b['dims']}", b["part"], f"{b['number']:,}", size(b["bytes"])]
        for b in found["buffers"]
    ]
    return _tables.markdown(["largest arrays", "part", "written", "each"], rows)


def of_bundles(found: dict[str, Any]) -> str:
    rows = []
    for kernel in found["bundles"]:
        steps = kernel["steps"] or 1
        seconds = steps * kernel["body"] / found["chip"]["clock"]
        pieces = ", ".join(f"{n:,}" for n in kernel["pieces"][:3])
        rows.append([kernel["name"], f"{kernel['body']:,}", pieces, steps, ms(seconds)])
    head = ["kernel", "bundles of a grid step", "longest straight pieces", "steps"]
    return _tables.markdown([*head, "at most"], rows) if rows else ""


def trust(found: dict[str, Any], gpu: bool) -> list[str]:
    """How sure these numbers are, in sentences."""
    lines = ["Memory and collectives are those of the program that would run."]
    if gpu:
        lines.append(
            f"{found['kernels']:,.0f} kernels move {size(found['kernel_bytes'])}. "
            "Their time is a formula: 2.5 us to launch, 90 % of the memory's speed, "
            "80 % of the peak of products, none of them at the same time. Nothing was "
            "tuned to a device, as it will be where one is."
        )
    else:
        lines.append(
            f"{found['cycles']:.4g} cycles by the compiler's own estimates, for its "
            "choices rather than for us: stalls are not in them, a separate pass of "
            "exponentials was seen to take a nineteenth of its estimate, and each "
            "small operation has a floor of 1.2 us. Compare estimates with each other; "
            "expect a step between the limit and the last line."
        )
    if found["guessed"]:
        lines.append("A loop does not say how often it runs: its bound was taken.")
    for name, runs in found["custom_calls"].items():
        lines.append(
            f"{name} is a kernel that runs {runs:,.0f} times, which the compiler does "
            "not price: in the plan of a loss all kernels together count as the limit, "
            "in that of a step as nothing; --bundles counts their instructions."
        )
    return lines
