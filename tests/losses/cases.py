"""One table of all losses with their oracles, for the tests that run over all of them.

A case's `loss(arrays, parameters, **options)` and `oracle(arrays, parameters, valid)`
take the same dictionaries; `arrays` hold one row per example and `parameters` numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcl import kernels, losses
from tests import oracles

ROWS = 6  # examples; with two views 12 anchors, which no tile of 5 divides
WIDTH = 4


class Case(NamedTuple):
    name: str
    loss: Callable[..., Any]
    oracle: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    parameters: dict[str, float]
    labels: np.ndarray | None = None


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def similar(z, seed=1):
    """A second view of the rows of z."""
    return z + 0.7 * random(*z.shape, seed=seed)


X = random(ROWS, WIDTH)
Y = similar(X)
TWO = np.stack([X, Y], axis=1)
THREE = np.stack([X, Y, similar(X, seed=2)], axis=1)
LABELS = np.array([3, -1, 3, 3, 7, -1])

KERNELS = {
    "cosine": (
        lambda p: kernels.cosine(p["temperature"]),
        lambda p: oracles.cosine(p["temperature"]),
        {"temperature": 0.3},
    ),
    "dot": (
        lambda p: kernels.dot(p["temperature"]),
        lambda p: oracles.dot(p["temperature"]),
        {"temperature": 2.0},
    ),
    "gaussian": (
        lambda p: kernels.gaussian(p["temperature"]),
        lambda p: oracles.exponential(2, p["temperature"]),
        {"temperature": 0.5},
    ),
    "laplacian": (
        lambda p: kernels.laplacian(p["temperature"]),
        lambda p: oracles.exponential(1, p["temperature"]),
        {"temperature": 0.5},
    ),
    "power_half_of_raw_vectors": (
        lambda p: kernels.exponential(0.5, p["temperature"], normalize=False),
        lambda p: oracles.exponential(0.5, p["temperature"], normalize=False),
        {"temperature": 0.5},
    ),
    "arc_cosine_0": (
        lambda p: kernels.arc_cosine(0, p["scale"]),
        lambda p: oracles.arc_cosine(0, p["scale"]),
        {"scale": 0.8},
    ),
    "arc_cosine_1": (
        lambda p: kernels.arc_cosine(1, p["scale"]),
        lambda p: oracles.arc_cosine(1, p["scale"]),
        {"scale": 0.9},
    ),
    "arc_cosine_2": (
        lambda p: kernels.arc_cosine(2, p["scale"]),
        lambda p: oracles.arc_cosine(2, p["scale"]),
        {"scale": 0.7},
    ),
    "kernel_sum": (
        lambda p: kernels.kernel_sum(
            kernels.gaussian(p["first"]),
            kernels.laplacian(p["second"]),
            kernels.dot(3.0),
            weights=(1.0, p["weight"], 0.4),
        ),
        lambda p: oracles.kernel_sum(
            oracles.exponential(2, p["first"]),
            oracles.exponential(1, p["second"]),
            oracles.dot(3.0),
            weights=(1.0, p["weight"], 0.4),
        ),
        {"first": 0.5, "second": 0.4, "weight": 2.0},
    ),
    "concatenation_sum": (
        lambda p: kernels.concatenation_sum(
            kernels.exponential(2, p["first"], normalize=True),
            kernels.laplacian(p["second"]),
            weights=(0.5, 1.5),
        ),
        lambda p: oracles.concatenation_sum(
            oracles.exponential(2, p["first"], normalize=False),
            oracles.exponential(1, p["second"], normalize=False),
            weights=(0.5, 1.5),
        ),
        {"first": 0.5, "second": 0.4},
    ),
}


def _views_case(name, kernel, z):
    make, oracle, parameters = KERNELS[kernel]
    return Case(
        name,
        lambda a, p, **o: losses.kernel_info_nce(a["z"], kernel=make(p), **o),
        lambda a, p, valid: oracles.views(a["z"], oracle(p), valid=valid),
        {"z": z},
        parameters,
    )


def _sc_case(variant):
    def loss(a, p, **o):
        return losses.sc_info_nce(a["z1"], a["z2"], variant=variant, **p, **o)

    def oracle(a, p, valid, held=None):
        return oracles.sc_info_nce(
            a["z1"],
            a["z2"],
            oracles.cosine(p["temperature"]),
            alpha=p["alpha"],
            beta=p["beta"],
            variant=variant,
            valid=valid,
            held=held,
        )

    parameters = {"temperature": 0.3, "alpha": 0.7, "beta": 0.3}
    return Case(f"sc_{variant}", loss, oracle, {"z1": X, "z2": Y}, parameters)


TEMPERATURE = {"temperature": 0.3}

CASES = [
    Case(
        "nt_xent",
        lambda a, p, **o: losses.nt_xent(a["z"], **p, **o),
        lambda a, p, valid: oracles.views(a["z"], oracles.cosine(**p), valid=valid),
        {"z": TWO},
        TEMPERATURE,
    ),
    Case(
        "nt_xent_of_three_views",
        lambda a, p, **o: losses.nt_xent(a["z"], **p, **o),
        lambda a, p, valid: oracles.views(a["z"], oracles.cosine(**p), valid=valid),
        {"z": THREE},
        TEMPERATURE,
    ),
    *[_views_case(f"kernel_info_nce_{name}", name, TWO) for name in KERNELS],
    Case(
        "dcl",
        lambda a, p, **o: losses.dcl(a["z"], **p, **o),
        lambda a, p, valid: oracles.views(
            a["z"], oracles.cosine(**p), valid=valid, decoupled=True
        ),
        {"z": THREE},
        TEMPERATURE,
    ),
    Case(
        "sup_con",
        lambda a, p, **o: losses.sup_con(a["z"], LABELS, **p, **o),
        lambda a, p, valid: oracles.sup_con(
            a["z"], LABELS, oracles.cosine(**p), valid=valid
        ),
        {"z": X},
        TEMPERATURE,
        LABELS,
    ),
    Case(
        "clip",
        lambda a, p, **o: losses.clip(a["x"], a["y"], **p, **o),
        lambda a, p, valid: oracles.clip(
            a["x"], a["y"], oracles.cosine(**p), valid=valid
        ),
        {"x": X, "y": Y},
        TEMPERATURE,
    ),
    Case(
        "info_nce",
        lambda a, p, **o: losses.info_nce(a["x"], a["y"], **p, **o),
        lambda a, p, valid: oracles.info_nce(
            a["x"], a["y"], oracles.cosine(**p), valid=valid
        ),
        {"x": X, "y": np.concatenate([Y, random(ROWS, WIDTH, seed=5)])},
        TEMPERATURE,
    ),
    Case(
        "info_nce_with_a_queue",
        lambda a, p, **o: losses.info_nce(
            a["x"],
            a["y"],
            negatives=a["queue"],
            kernel=kernels.laplacian(p["temperature"]),
            **o,
        ),
        lambda a, p, valid: oracles.info_nce(
            a["x"],
            a["y"],
            oracles.exponential(1, p["temperature"]),
            negatives=a["queue"],
            valid=valid,
        ),
        {"x": X, "y": Y, "queue": random(2 * ROWS, WIDTH, seed=4)},
        TEMPERATURE,
    ),
    _sc_case("constant"),
    _sc_case("full"),
    _sc_case("official"),
]

BY_NAME = {case.name: case for case in CASES}
