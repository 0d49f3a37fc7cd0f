"""The devices of a topology that is not here, for the compiler alone.

v5e:8x8  v5e:16x16  v6e:4x4        chips in a square
v4:4x4x4  v5p:2x2x1                chips in a box
h100:8  h100:16                    GPUs, eight to a host
"""

import math
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from experiments.pods.chips import CHIPS, H100, Chip
from jaxcl import _optional

# One core per chip, as programs see these chips by default.
_CORES = {"v4": "megacore"}

# libtpu shall ask no cloud who it is, and may be loaded by several processes.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def chip(topology: str) -> Chip:
    """The chip of a topology such as "v5e:8x8".

    Raises:
      ValueError: if it is written otherwise or the chip is unknown.
    """
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(
            f"topology must be one of {', '.join(CHIPS)} with a shape, as in "
            f"'v5e:8x8', 'v4:4x4x4' or 'h100:8', got {topology!r}"
        )
    return CHIPS[kind]


def devices(topology: str) -> list[Any]:
    """The devices of a topology, which compile and do not run.

    Args:
      topology: chip and shape; see above.

    Returns:
      One device for each chip.

    Raises:
      ImportError: if the compiler is not installed.
      ValueError: if the topology is unknown to us or to it.
    """
    chip(topology)
    kind, _, shape = topology.partition(":")
    if not getattr(jax.config, "jax_platforms"):  # noqa: B009  mypy does not know it
        jax.config.update("jax_platforms", "cpu")  # nothing runs elsewhere
    if kind == "h100":
        return _gpus(math.prod(map(int, shape.split("x"))))
    _optional.require("libtpu", f"compiling for {topology!r}", "aot")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = {"chip_config_name": _CORES[kind]} if kind in _CORES else {}
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"topology must be one that libtpu knows, got {topology!r}: {error}"
        ) from error
    return list(described.devices)


def _gpus(number: int) -> list[Any]:
    try:
        import jax_plugins.xla_cuda12  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "compiling for a GPU needs jax's CUDA plugin: pip install 'jax[cuda12]'"
        ) from error
    hosts = max(1, number // 8)
    if number > 8 and number % 8:
        raise ValueError(
            f"topology must have up to 8 GPUs or a multiple of 8, got {number}"
        )
    described = topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=f"1x{hosts}x{number // hosts}"
    )
    return list(described.devices)


def mesh(topology: str, shape: str | None, chips: int | None) -> jax.sharding.Mesh:
    """A mesh of the devices of a topology.

    Args:
      topology: chip and shape.
      shape: of the mesh, such as "16x16"; None is one axis.
      chips: how many of the topology's to take; None takes all.

    Returns:
      A mesh with the axis "data", or the axes "x", "y", ... of a shape, of type Auto.

    Raises:
      ImportError, ValueError: as `devices`; or if the numbers do not fit.
    """
    found = devices(topology)
    if chips is not None:
        if chips > len(found):
            raise ValueError(
                f"chips must be at most the {len(found)} of {topology!r}, got {chips}"
            )
        found = found[:chips]
    sizes: tuple[int, ...] = (len(found),)
    names: tuple[str, ...] = ("data",)
    if shape is not None:
        if not re.fullmatch(r"\d+(x\d+){0,2}", shape):
            raise ValueError(f"mesh must be a shape such as '8x8', got {shape!r}")
        sizes = tuple(map(int, shape.split("x")))
        names = ("x", "y", "z")[: len(sizes)]
    if math.prod(sizes) != len(found):
        raise ValueError(f"mesh must have {len(found)} devices, got {shape!r}")
    auto = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.sharding.Mesh(np.array(found).reshape(sizes), names, axis_types=auto)
