"""One table of all losses with their oracles, for the tests that run over all of them.

A case's `loss(arrays, parameters, **options)` and `oracle(arrays, parameters, valid)`
take the same dictionaries. The loss is differentiated by `arrays`, which hold one row
per example, and by `parameters`, numbers. `constants` are added to the arrays of both:
labels, or a target graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import kernels, losses
from tests import oracles

ROWS = 6  # examples; with two views 12 anchors, which no tile of 5 divides
WIDTH = 4


NONE: dict[str, np.ndarray] = {}


class Case(NamedTuple):
    name: str
    loss: Callable[..., Any]
    oracle: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    parameters: dict[str, float]
    constants: dict[str, np.ndarray] = NONE
    softmax: bool = True  # whether it has one, and positives beside it


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
QUEUE = random(ROWS, WIDTH, seed=4)
QUEUE_LABELS = np.array([7, -1, 9, 3, 3, -1])
TARGET = np.abs(random(ROWS, ROWS, seed=6))
TARGET[TARGET < 0.5] = 0
TARGET[4] = 0  # a node without edges

# A second embedding, in which some are closer to an anchor than its positive.
GUIDE = random(ROWS, 3, seed=10)
GUIDE_OF_Y = GUIDE + random(ROWS, 3, seed=11)


def take(constants, order):
    """The constants of the rows in a new order; some have several blocks of rows."""
    rows = min(map(len, constants.values()), default=0)

    def taken(x):
        if x.shape == (rows, rows):
            return x[order][:, order]
        blocks = x.reshape(-1, rows, *x.shape[1:])[:, order]
        return blocks.reshape(-1, *x.shape[1:])

    return {name: taken(x) for name, x in constants.items()}


def numbers(case, dtype):
    """The arrays, parameters and constants of a case as JAX arrays of one dtype."""

    def cast(x):
        x = np.asarray(x)
        return jnp.asarray(x, dtype if x.dtype == np.float64 else None)

    return jax.tree.map(cast, (case.arrays, case.parameters, case.constants))


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
    "power_three": (
        lambda p: kernels.exponential(3, p["temperature"]),
        lambda p: oracles.exponential(3, p["temperature"]),
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
            kernels.exponential(4, p["first"], normalize=True),
            kernels.laplacian(p["second"]),
            weights=(0.5, 1.5),
        ),
        lambda p: oracles.concatenation_sum(
            oracles.exponential(4, p["first"], normalize=False),
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


def _guided_case(name, loss, kernel, z, guide, **options):
    make, log_kernel, parameters = KERNELS[kernel]

    def limit(own):
        return 0.9 * own

    def run(a, p, **o):
        return loss(a["z"], kernel=make(p), guide=a["guide"], guide_limit=limit, **o)

    def oracle(a, p, valid):
        return oracles.views(
            a["z"], log_kernel(p), valid=valid, guide=a["guide"], limit=limit, **options
        )

    return Case(name, run, oracle, {"z": z}, parameters, {"guide": guide})


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
        lambda a, p, **o: losses.sup_con(a["z"], a["labels"], **p, **o),
        lambda a, p, valid: oracles.sup_con(
            a["z"], a["labels"], oracles.cosine(**p), valid=valid
        ),
        {"z": X},
        TEMPERATURE,
        {"labels": LABELS},
    ),
    Case(
        "sup_con_inside_with_a_queue",
        lambda a, p, **o: losses.sup_con(
            a["z"],
            a["labels"],
            negatives=a["queue"],
            negative_labels=a["queue_labels"],
            mean_inside=True,
            **p,
            **o,
        ),
        lambda a, p, valid: oracles.sup_con(
            a["z"],
            a["labels"],
            oracles.cosine(**p),
            valid=valid,
            queue=a["queue"],
            queue_labels=a["queue_labels"],
            mean_inside=True,
        ),
        {"z": X, "queue": QUEUE},
        TEMPERATURE,
        {"labels": LABELS, "queue_labels": QUEUE_LABELS},
    ),
    Case(
        "sup_con_with_a_queue_of_nobody",
        lambda a, p, **o: losses.sup_con(
            a["z"],
            a["labels"],
            negatives=a["queue"],
            kernel=kernels.exponential(2.5, **p),
            **o,
        ),
        lambda a, p, valid: oracles.sup_con(
            a["z"],
            a["labels"],
            oracles.exponential(2.5, **p),
            valid=valid,
            queue=a["queue"],
        ),
        {"z": X, "queue": QUEUE},
        TEMPERATURE,
        # Numbers of rows, of the batch and of the queue, among them.
        {"labels": np.array([7, 8, 7, 0, 8, 11])},
    ),
    Case(
        "sincere",
        lambda a, p, **o: losses.sincere(a["z"], a["labels"], **p, **o),
        lambda a, p, valid: oracles.sincere(
            a["z"], a["labels"], oracles.cosine(**p), valid=valid
        ),
        {"z": X},
        TEMPERATURE,
        {"labels": LABELS},
    ),
    Case(
        "sincere_with_a_queue",
        lambda a, p, **o: losses.sincere(
            a["z"],
            a["labels"],
            negatives=a["queue"],
            negative_labels=a["queue_labels"],
            kernel=kernels.laplacian(**p),
            **o,
        ),
        lambda a, p, valid: oracles.sincere(
            a["z"],
            a["labels"],
            oracles.exponential(1, **p),
            valid=valid,
            queue=a["queue"],
            queue_labels=a["queue_labels"],
        ),
        {"z": X, "queue": QUEUE},
        TEMPERATURE,
        {"labels": LABELS, "queue_labels": QUEUE_LABELS},
    ),
    Case(
        "uni_cl_inside",
        lambda a, p, **o: losses.uni_cl(
            a["x"],
            a["y"],
            a["labels"],
            kernel=kernels.gaussian(**p),
            mean_inside=True,
            **o,
        ),
        lambda a, p, valid: oracles.uni_cl(
            a["x"],
            a["y"],
            a["labels"],
            oracles.exponential(2, **p),
            valid=valid,
            mean_inside=True,
        ),
        {"x": X, "y": Y},
        TEMPERATURE,
        {"labels": LABELS},
    ),
    Case(
        "uni_cl",
        lambda a, p, **o: losses.uni_cl(a["x"], a["y"], a["labels"], **p, **o),
        lambda a, p, valid: oracles.uni_cl(
            a["x"], a["y"], a["labels"], oracles.cosine(**p), valid=valid
        ),
        {"x": X, "y": Y},
        TEMPERATURE,
        {"labels": LABELS},
    ),
    Case(
        "nt_xent_with_groups",
        lambda a, p, **o: losses.nt_xent(a["z"], groups=a["groups"], **p, **o),
        lambda a, p, valid: oracles.views(
            a["z"], oracles.cosine(**p), valid=valid, groups=a["groups"]
        ),
        {"z": TWO},
        TEMPERATURE,
        {"groups": LABELS},
    ),
    Case(
        "clip_with_groups",
        lambda a, p, **o: losses.clip(a["x"], a["y"], groups=a["groups"], **p, **o),
        lambda a, p, valid: oracles.clip(
            a["x"], a["y"], oracles.cosine(**p), valid=valid, groups=a["groups"]
        ),
        {"x": X, "y": Y},
        TEMPERATURE,
        {"groups": LABELS},
    ),
    Case(
        "info_nce_with_groups_and_further_keys",
        lambda a, p, **o: losses.info_nce(
            a["x"], a["y"], negatives=a["queue"], groups=a["groups"], **p, **o
        ),
        lambda a, p, valid: oracles.info_nce(
            a["x"],
            a["y"],
            oracles.cosine(**p),
            negatives=a["queue"],
            valid=valid,
            groups=a["groups"],
        ),
        {
            "x": X,
            "y": np.concatenate([Y, random(ROWS, WIDTH, seed=5)]),
            "queue": random(ROWS, WIDTH, seed=4),
        },
        TEMPERATURE,
        # Numbers that rows of further keys and of the queue have as well.
        {"groups": np.array([7, 0, 7, 13, 0, 2])},
    ),
    Case(
        "siglip",
        lambda a, p, **o: losses.siglip(a["x"], a["y"], **p, **o),
        lambda a, p, valid: oracles.siglip(
            a["x"],
            a["y"],
            oracles.cosine(p["temperature"]),
            bias=p["bias"],
            valid=valid,
        ),
        {"x": X, "y": Y},
        {"temperature": 0.3, "bias": -1.5},
        softmax=False,
    ),
    *[
        Case(
            f"debiased_nt_xent_{name}",
            lambda a, p, **o: losses.debiased_nt_xent(a["z"], **p, **o),
            lambda a, p, valid: oracles.debiased(
                a["z"], oracles.cosine(p["temperature"]), valid=valid, **p
            ),
            {"z": z},
            {"temperature": 0.5, "prior": prior, "hardness": 0.7},
        )
        for name, z, prior in (("mild", THREE, 0.05), ("at_its_floor", TWO, 0.3))
    ],
    Case(
        "spectral_contrastive",
        lambda a, p, **o: losses.spectral_contrastive(a["z"], **o),
        lambda a, p, valid: oracles.spectral_contrastive(a["z"], valid=valid),
        {"z": THREE},
        {},
        softmax=False,
    ),
    Case(
        "dhel",
        lambda a, p, **o: losses.dhel(a["z"], **p, **o),
        lambda a, p, valid: oracles.dhel(a["z"], oracles.cosine(**p), valid=valid),
        {"z": TWO},
        TEMPERATURE,
    ),
    Case(
        "is_info_nce",
        lambda a, p, **o: losses.is_info_nce(a["z1"], a["z2"], a["z3"], **p, **o),
        lambda a, p, valid: oracles.is_info_nce(
            a["z1"], a["z2"], a["z3"], oracles.cosine(**p), valid=valid
        ),
        {"z1": X, "z2": Y, "z3": similar(X, seed=2)},
        TEMPERATURE,
    ),
    Case(
        "kcl",
        lambda a, p, **o: losses.kcl(
            a["z"],
            kernel=kernels.gaussian(p["temperature"], normalize=False),
            weight=p["weight"],
            **o,
        ),
        lambda a, p, valid: oracles.kcl(
            a["z"],
            oracles.exponential(2, p["temperature"], normalize=False),
            weight=p["weight"],
            valid=valid,
        ),
        {"z": TWO},
        {"temperature": 3.0, "weight": 5.0},
        softmax=False,
    ),
    *[
        Case(
            f"f_micl_{divergence}",
            lambda a, p, divergence=divergence, **o: losses.f_micl(
                a["z"], divergence=divergence, **p, **o
            ),
            lambda a, p, valid, divergence=divergence: oracles.f_micl(
                a["z"], divergence=divergence, valid=valid, **p
            ),
            {"z": TWO},
            {"bandwidth": 0.8, "weight": 1.3},
            softmax=False,
        )
        for divergence in oracles.F_DIVERGENCES
    ],
    Case(
        "uniformity",
        lambda a, p, **o: losses.uniformity(a["z"], **p, **o),
        lambda a, p, valid: oracles.uniformity(a["z"], valid=valid, **p),
        {"z": X},
        {"t": 1.5},
    ),
    Case(
        "graph_cross_entropy",
        lambda a, p, **o: losses.graph_cross_entropy(
            a["z"], a["target"], kernel=kernels.laplacian(**p), **o
        ),
        lambda a, p, valid: oracles.graph_cross_entropy(
            a["z"], a["target"], oracles.exponential(1, **p), valid=valid
        ),
        {"z": X},
        TEMPERATURE,
        {"target": TARGET},
    ),
    Case(
        "similarity_distillation",
        lambda a, p, **o: losses.similarity_distillation(
            a["z"], a["teacher"], teacher_temperature=0.4, **p, **o
        ),
        lambda a, p, valid: oracles.distillation(
            a["z"], a["teacher"], oracles.cosine(**p), oracles.cosine(0.4), valid=valid
        ),
        {"z": X},
        TEMPERATURE,
        {"teacher": random(ROWS, 3, seed=7)},
    ),
    Case(
        "similarity_distillation_of_two_sets",
        lambda a, p, **o: losses.similarity_distillation(
            a["x"],
            a["teacher"],
            candidates=a["y"],
            teacher_candidates=a["teacher_of_y"],
            candidates_valid=o.get("valid"),
            teacher_temperature=0.4,
            **p,
            **o,
        ),
        lambda a, p, valid: oracles.distillation_of_two_sets(
            a["x"],
            a["teacher"],
            a["y"],
            a["teacher_of_y"],
            oracles.cosine(**p),
            oracles.cosine(0.4),
            valid=valid,
            others_valid=valid,
        ),
        {"x": X, "y": Y},
        TEMPERATURE,
        {
            "teacher": random(ROWS, 3, seed=7),
            "teacher_of_y": random(ROWS, 3, seed=8),
        },
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
    Case(
        "info_nce_decoupled",
        lambda a, p, **o: losses.info_nce(
            a["x"],
            a["y"],
            negatives=a["queue"],
            groups=a["groups"],
            decoupled=True,
            **p,
            **o,
        ),
        lambda a, p, valid: oracles.info_nce(
            a["x"],
            a["y"],
            oracles.cosine(**p),
            negatives=a["queue"],
            valid=valid,
            groups=a["groups"],
            decoupled=True,
        ),
        {"x": X, "y": Y, "queue": random(2 * ROWS, WIDTH, seed=4)},
        TEMPERATURE,
        {"groups": LABELS},
    ),
    Case(
        "info_nce_with_hard_negatives_and_a_guide",
        lambda a, p, **o: losses.info_nce(
            a["x"],
            a["y"],
            negatives=a["queue"],
            hard_negatives=a["hard"],
            hard_negatives_valid=a["exist"],
            guide=tuple(a[f"guide_of_{name}"] for name in ("x", "y", "queue", "hard")),
            guide_limit=lambda own: own - 0.1,
            **p,
            **o,
        ),
        lambda a, p, valid: oracles.info_nce(
            a["x"],
            a["y"],
            oracles.cosine(**p),
            negatives=a["queue"],
            hard=a["hard"],
            exist=a["exist"],
            valid=valid,
            guide=[a[f"guide_of_{name}"] for name in ("x", "y", "queue", "hard")],
            limit=lambda own: own - 0.1,
        ),
        {
            "x": X,
            "y": Y,
            "queue": random(2 * ROWS, WIDTH, seed=4),
            "hard": random(ROWS, 3, WIDTH, seed=8),
        },
        TEMPERATURE,
        {
            "exist": random(ROWS, 3, seed=9) < 0.7,
            "guide_of_x": GUIDE,
            "guide_of_y": GUIDE_OF_Y,
            "guide_of_queue": random(2 * ROWS, 3, seed=12),
            "guide_of_hard": random(ROWS, 3, 3, seed=13),
        },
    ),
    Case(
        "clip_with_hard_negatives_a_kernel_and_a_guide",
        lambda a, p, **o: losses.clip(
            a["x"],
            a["y"],
            hard_negatives=a["hard"],
            kernel=kernels.laplacian(p["temperature"]),
            guide=tuple(a[f"guide_of_{name}"] for name in ("x", "y", "hard")),
            groups=a["groups"],
            **o,
        ),
        lambda a, p, valid: oracles.clip(
            a["x"],
            a["y"],
            oracles.exponential(1, p["temperature"]),
            hard=a["hard"],
            valid=valid,
            guide=[a[f"guide_of_{name}"] for name in ("x", "y", "hard")],
            limit=lambda own: own,
            groups=a["groups"],
        ),
        {"x": X, "y": Y, "hard": random(ROWS, 2, WIDTH, seed=8)},
        TEMPERATURE,
        {
            "groups": LABELS,
            "guide_of_x": GUIDE,
            "guide_of_y": GUIDE_OF_Y,
            "guide_of_hard": random(ROWS, 2, 3, seed=13),
        },
    ),
    _guided_case(
        "kernel_info_nce_with_a_guide",
        losses.kernel_info_nce,
        "laplacian",
        TWO,
        np.stack([GUIDE, GUIDE_OF_Y], axis=1),
    ),
    _guided_case(
        "dcl_with_a_kernel_and_a_guide",
        losses.dcl,
        "gaussian",
        THREE,
        np.stack([GUIDE, GUIDE_OF_Y, GUIDE + 0.3], axis=1),
        decoupled=True,
    ),
    Case(
        "siglip_with_a_kernel",
        lambda a, p, **o: losses.siglip(
            a["x"],
            a["y"],
            kernel=kernels.laplacian(p["temperature"]),
            bias=p["bias"],
            **o,
        ),
        lambda a, p, valid: oracles.siglip(
            a["x"],
            a["y"],
            oracles.exponential(1, p["temperature"]),
            bias=p["bias"],
            valid=valid,
        ),
        {"x": X, "y": Y},
        {"temperature": 0.5, "bias": 1.5},
        softmax=False,
    ),
    _sc_case("constant"),
    _sc_case("full"),
    _sc_case("official"),
]

BY_NAME = {case.name: case for case in CASES}

# One of each kind: the others differ in a kernel, a divergence, a mask or a score,
# which have tests of their own.
REPEATED = {
    "sincere",
    "similarity_distillation",
    "info_nce_with_groups_and_further_keys",
    "is_info_nce",
    "nt_xent_of_three_views",
    "nt_xent_with_groups",
    "clip_with_groups",
    "info_nce",
    "debiased_nt_xent_mild",
    "sup_con_with_a_queue_of_nobody",
    "sincere_with_a_queue",
    "uni_cl_inside",
    "sc_full",
    "sc_official",
    "siglip_with_a_kernel",
    "dcl_with_a_kernel_and_a_guide",
    "kernel_info_nce_with_a_guide",
    "clip_with_hard_negatives_a_kernel_and_a_guide",
    *(f"kernel_info_nce_{name}" for name in KERNELS if name != "arc_cosine_0"),
    *(f"f_micl_{name}" for name in oracles.F_DIVERGENCES if name != "chi2"),
}
KINDS = [case for case in CASES if case.name not in REPEATED]

# Of one array, of one with labels, of two, and with further keys.
FEW = [
    BY_NAME[name] for name in ("nt_xent", "sup_con", "clip", "info_nce_with_a_queue")
]


def over(cases, ordinary=tuple(KINDS)):
    """Runs a test over cases, of which those that are not ordinary are slow."""
    names = {case.name for case in ordinary}

    def parameter(case):
        marks = () if case.name in names else pytest.mark.slow
        return pytest.param(case, id=case.name, marks=marks)

    return pytest.mark.parametrize("case", [parameter(case) for case in cases])
