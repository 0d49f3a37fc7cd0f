"""Compiles a problem and reads what the compiler says: one dictionary of numbers."""

import collections
import dataclasses
import importlib.metadata
import shutil
import sys
import tempfile
import time
from typing import Any

import jax

import jaxcl
from experiments.pods import (
    bundles,
    hlo,
    loops,
    parts,
    problems,
    roofline,
    scheduled,
    steps,
    topologies,
)
from experiments.pods.chips import Chip
from experiments.pods.settings import Settings


class TooLarge(ValueError):
    """A program does not fit the memory of a chip."""


MOST = 8  # buffers that are listed


def make(s: Settings) -> dict[str, Any]:
    """Compiles what the settings say, and measures it.

    Args:
      s: settings.

    Returns:
      The numbers of `measure`, the settings and the versions; under "text" the program.

    Raises:
      ImportError: if a compiler is missing.
      ValueError: if the settings do not fit each other, or the compiler refuses.
    """
    chip = topologies.chip(s.topology)
    listings = tempfile.mkdtemp() if s.bundles else None
    if listings:
        bundles.dump_to(listings)
    mesh = topologies.mesh(s.topology, s.mesh, s.chips)
    say(f"{mesh.size} x {chip.name}: tracing {s.problem}")
    is_loss = s.problem in problems.LOSSES
    problem = problems.of_loss(s, mesh) if is_loss else steps.of_step(s, mesh)
    began = time.process_time()
    compiled = compile_(problem)
    say(f"compiled in {time.process_time() - began:.0f} CPU seconds")
    text = compiled.as_text()
    found = measure(text, memory(compiled), chip, mesh.size, problem.flops)
    found["compile_cpu_seconds"] = time.process_time() - began
    counted = bundles.bundles(listings) if listings else []
    if listings:
        shutil.rmtree(listings, ignore_errors=True)  # tens of megabytes
    found["bundles"] = [schedule._asdict() for schedule in counted]
    return {
        "settings": dataclasses.asdict(s),
        "chip": chip._asdict(),
        "chips": mesh.size,
        "versions": versions(),
        "text": text,
        **found,
    }


# Without a device nothing is tuned, and the default of a product may not compile: then
# all products are left to cuBLAS, as tuning would have left that one.
UNTUNED = "Couldn't find output tile sizes"
CUBLAS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}


def compile_(problem: problems.Problem) -> Any:
    """The program of a problem.

    Raises:
      TooLarge: if the compiler finds that it does not fit the chip.
    """
    jitted = jax.jit(problem.fn, donate_argnums=problem.donated)
    lowered = jitted.lower(*problem.arguments)
    say("compiling: seconds for a loss, minutes for a step")
    try:
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if UNTUNED not in str(error):
                raise
            say("once more, with all products left to cuBLAS")
            return lowered.compile(compiler_options=CUBLAS)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLarge(f"n must be smaller, or the mesh larger: {error}") from error


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    found = {"jaxcl": jaxcl.__version__, "jax": jax.__version__}
    for name in ("libtpu", "jax-cuda12-plugin"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def memory(compiled: Any) -> dict[str, int]:
    """Bytes of one chip: what comes in, goes out, shares memory, and is set aside."""
    told = compiled.memory_analysis()
    return {
        "arguments": told.argument_size_in_bytes,
        "outputs": told.output_size_in_bytes,
        "aliased": told.alias_size_in_bytes,
        "temporaries": told.temp_size_in_bytes,
        "peak": told.peak_memory_in_bytes,
    }


def measure(
    text: str, of_memory: dict[str, int], chip: Chip, chips: int, flops: float | None
) -> dict[str, Any]:
    """What a scheduled program costs on one chip.

    Args:
      text: of the program.
      of_memory: by `memory`.
      chip: that it is for.
      chips: how many there are.
      flops: products that nobody can do without; None: those of the program.

    Returns:
      Memory, buffers, collectives, products, costs of the parts, and seconds.
    """
    program = hlo.parse(text)
    part = parts.of(program)
    if chip.clock:

        def cost(visit: loops.Visit) -> float:
            return visit.times * scheduled.cycles(visit.op) / chip.clock

    else:

        def cost(visit: loops.Visit) -> float:
            return visit.times * roofline.kernel(program, visit, chip).seconds

    seen = loops.visits(program, cost)
    products: dict[tuple[str, str], float] = collections.defaultdict(float)
    for visit in seen:
        for p in scheduled.products(program, visit):
            products[p.dtype, p.precision] += visit.times * p.flops
    moved = scheduled.collectives(program, seen, part)
    done = sum(products.values())
    computed = sum(n * chip.slower(*key) for key, n in products.items())
    of_parts = scheduled.by_part(seen, cost, part)
    unpriced = _unpriced(seen) if chip.clock else {}
    if unpriced and flops is not None:
        # All that is known of them: they multiply no faster than the chip.
        of_parts["kernels, at the limit"] = flops / chip.flops
    estimate = sum(of_parts.values())
    found: dict[str, Any] = {
        "memory": of_memory,
        "buffers": [b._asdict() for b in scheduled.buffers(seen, part)[:MOST]],
        "collectives": [c._asdict() for c in moved],
        "products": [
            {"dtype": dtype, "precision": precision, "flops": n}
            for (dtype, precision), n in products.items()
        ],
        "parts": of_parts,
        "custom_calls": unpriced,
        "guessed": any(v.guessed for v in seen),
        "seconds": {
            "limit": (done if flops is None else flops) / chip.flops,
            "products": computed / chip.flops,
            "estimate": estimate,
            "links": sum(_transfer(c, chip, chips) for c in moved),
        },
    }
    if chip.clock:
        found["cycles"] = estimate * chip.clock
    else:
        runs = [(v.times, roofline.kernel(program, v, chip)) for v in seen]
        found["kernels"] = sum(times for times, k in runs if k.bytes or k.flops)
        found["kernel_bytes"] = sum(times * k.bytes for times, k in runs)
    return found


def _unpriced(seen: list[loops.Visit]) -> dict[str, float]:
    """Pallas kernels, which the compiler gives no cycles, and how often they run."""
    runs: dict[str, float] = collections.defaultdict(float)
    for visit in seen:
        if "tpu_custom_call" in visit.op.rest and not scheduled.cycles(visit.op):
            runs[visit.op.op_name.split("/")[-1] or visit.op.name] += visit.times
    return dict(runs)


def _transfer(c: scheduled.Collective, chip: Chip, chips: int) -> float:
    """Seconds of a collective if all links of a chip are busy."""
    if c.kind == "collective-permute":
        return c.bytes * chip.neighbors / chip.links  # over one link
    twice = 2 if c.kind == "all-reduce" else 1
    return twice * c.bytes * (chips - 1) / chips / chip.links
