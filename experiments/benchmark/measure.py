"""Measures forms of a loss, interleaved."""

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import losses, peers
from experiments.benchmark.settings import Settings


def prepare(form: str, name: str, arrays: list[np.ndarray], s: Settings) -> peers.Run:
    """Makes a form of a loss ready to run; `NotRun` says why it should not."""
    n = arrays[0].size // s.width
    holds_all = form in ("dense", "lightly", "open_clip", "metric_learning")
    if holds_all and s.dense_limit is not None and n > s.dense_limit:
        raise losses.NotRun(f"not run above n = {s.dense_limit:,} (--dense_limit)")
    if form == "optax" and n > s.optax_limit:
        raise losses.NotRun(f"not run above n = {s.optax_limit:,} (--optax_limit)")
    if form == "jaxcl":
        ours = losses.LOSSES[name].ours
        return peers.jax_run(lambda *z: ours(*z, tile=s.tile).mean(), arrays, s.dtype)
    if form == "optax":
        return peers.jax_run(peers.optax_nt_xent, arrays, s.dtype)
    if form in peers.PEERS:
        return peers.torch_run(peers.torch_loss(form, name, n), arrays, s.dtype)
    by_hand = {
        "dense": functools.partial(losses.dense, name),
        "scan": functools.partial(losses.scan, name, s.block),
    }
    return peers.jax_run(by_hand[form], arrays, s.dtype)


def measure(name: str, n: int, s: Settings, forms: Sequence[str]) -> dict[str, Any]:
    """Measures forms of one loss at one size, interleaved."""
    arrays = losses.make_inputs(name, n, s.width)
    runs: dict[str, peers.Run] = {}
    results: dict[str, Any] = {}
    row: dict[str, Any] = {}
    for form in forms:
        if form in peers.PEERS and name not in peers.PEERS[form].losses:
            continue
        # Ours may run out of memory; another package may fail in any way, and the
        # rest is still worth measuring.
        ours = (losses.NotRun, MemoryError, jax.errors.JaxRuntimeError)
        try:
            run = prepare(form, name, arrays, s)
            results[form] = run.fetch(run.run())
            runs[form] = run
        except Exception as error:
            if form not in peers.PEERS and not isinstance(error, ours):
                raise
            row[form] = {"why_not": reason(error)}
    accelerated = jax.default_backend() != "cpu"
    if s.matmul_limit == "yes" or (s.matmul_limit == "auto" and accelerated):
        x = arrays[0].reshape(-1, s.width)
        shapes = [x, np.ascontiguousarray(x[:8192].T)]
        with contextlib.suppress(losses.NotRun, jax.errors.JaxRuntimeError):
            product = peers.jax_run(jnp.matmul, shapes, s.dtype, gradient=False)
            product.run()
            runs["product"] = product
    seconds: dict[str, list[float]] = {form: [] for form in runs}
    previous = None
    for _ in range(s.repeats):
        for form, run in runs.items():
            # Other packages leave gigabytes to give back, or threads that still spin:
            # a second of untimed runs keeps that out of the next time.
            rest = time.perf_counter() + (previous in peers.PEERS)
            while time.perf_counter() < rest:
                run.run()
            previous = form
            began = time.perf_counter()
            run.run()
            seconds[form].append(time.perf_counter() - began)
    flops = None
    if "product" in runs:
        flops = 2 * n * min(n, 8192) * s.width / float(np.median(seconds["product"]))
        del runs["product"]
    useful = losses.LOSSES[name].products * 2 * n * n * s.width
    for form, run in runs.items():
        taken = float(np.median(seconds[form]))
        peak = run.peak_bytes()
        row[form] = {
            "seconds": taken,
            "mib": None if peak is None else peak / 2**20,
            "of_product_limit": None if flops is None else useful / taken / flops,
            **differences(results[form], results.get("dense")),
        }
    return {"loss": name, "n": n, "product_flops_per_second": flops, "forms": row}


def reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if "out of memory" in text.lower() or "RESOURCE_EXHAUSTED" in text:
        return "out of memory"
    if isinstance(error, losses.NotRun):
        return text
    return f"{type(error).__name__}: {text}"[:200]


def differences(result: Any, exact: Any) -> dict[str, float | None]:
    """Relative differences of value and gradients from those of the dense form."""
    if exact is None:
        return {"value_difference": None, "gradient_difference": None}
    gradients = [
        [np.asarray(g, np.float32) for g in each] for each in (result[1], exact[1])
    ]
    return {
        "value_difference": abs(float(result[0]) / float(exact[0]) - 1),
        "gradient_difference": max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(*gradients, strict=True)
        ),
    }
