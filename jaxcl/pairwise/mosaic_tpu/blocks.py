"""What Pallas kernels for TPU can compute, and how many pairs they hold at a time."""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.pairwise.mosaic_tpu.body import LANES, Form, node_floats, size

# Bytes of a chip's memory (VMEM) that one kernel may ask for: of newer chips, and of
# those that have 16 MiB. The count below leaves room for what the compiler adds.
MEMORY = 100 * 2**20
SMALL_MEMORY = 15 * 2**20
SMALL_CHIPS = ("TPU v2", "TPU v3", "TPU v4")
COUNTED = 0.7

# Primitives that Mosaic compiles (jax 0.10, libtpu 0.0.42), on tiles and on numbers.
COMPILED = frozenset(
    """
    abs add add_any and atan2 broadcast_in_dim ceil clamp concatenate
    convert_element_type copy cos custom_jvp_call custom_vjp_call div eq erf exp exp2
    floor ge gt integer_pow is_finite jit le log log1p logistic lt max min mul ne neg
    not or pjit pow reduce_sum reshape round rsqrt select_n sin slice sqrt square
    squeeze stop_gradient sub tanh transpose xor
    """.split()  # noqa: SIM905
)


class Largest(NamedTuple):
    """Blocks of one kind of kernel.

    Attributes:
      bm: rows of a block.
      bn: columns of a block.
      fast: rows at a time on the fast path.
      careful: rows at a time on the careful path.
    """

    bm: int
    bn: int
    fast: int
    careful: int


# Chosen by the bundles of final schedules for v5e and v6e, which `experiments.pods`
# counts: for scores of at most so many operations on each pair, and of more.
LIGHT = 12
TABLE = {
    ("forward", True): Largest(1024, 1024, 512, 256),
    ("forward", False): Largest(1024, 1024, 256, 128),
    ("rows", True): Largest(1024, 1024, 512, 256),
    ("rows", False): Largest(1024, 1024, 256, 128),
    ("both", True): Largest(1024, 1024, 512, 256),
    ("both", False): Largest(1024, 1024, 256, 128),
}


class Sizes(NamedTuple):
    """How rows and columns are cut into blocks.

    Attributes:
      bm: rows of a block.
      row_blocks: number of blocks of rows.
      bn: columns of a block.
      column_blocks: number of blocks of columns.
      strip: rows at a time, on the fast path and on the careful one.
    """

    bm: int
    row_blocks: int
    bn: int
    column_blocks: int
    strip: tuple[int, int]

    @property
    def rows(self) -> int:
        """Number of rows, padded."""
        return self.bm * self.row_blocks

    @property
    def columns(self) -> int:
        """Number of columns, padded."""
        return self.bn * self.column_blocks


def kind_of(form: Form, *, backward: bool) -> str:
    """Tells kernels apart: "forward", "rows" or "both".

    Args:
      form: of a block of pairs.
      backward: whether gradients are computed.

    Returns:
      The kind; "both" also gives columns their gradients.
    """
    if not backward:
        return "forward"
    return "both" if form.columns else "rows"


def entry(form: Form, *, backward: bool) -> tuple[str, bool]:
    """Tells which entry of the table holds for a kernel.

    Args:
      form: of a block of pairs.
      backward: whether gradients are computed.

    Returns:
      Its kind, and whether scores take few operations.
    """
    return kind_of(form, backward=backward), operations(form) <= LIGHT


def sizes(
    block: Any, form: Form, *, backward: bool, largest: Largest | None = None
) -> Sizes:
    """Chooses how a block of pairs is cut.

    Args:
      block: the pairs, a `mosaic_tpu.Block`.
      form: of the block.
      backward: whether gradients are computed.
      largest: sizes to use instead of the table's.

    Returns:
      The largest sizes of the table, halved until a block fits the chip's memory.

    Raises:
      ValueError: if none fits.
    """
    kind = kind_of(form, backward=backward)
    if largest is None:
        largest = TABLE[entry(form, backward=backward)]
    while largest.bm >= LANES:
        found = _cut_both(block, largest, apart=kind == "both")
        if _bytes(block, form, found, kind) <= COUNTED * memory():
            return found
        wide = largest.bn > largest.bm
        largest = largest._replace(
            bm=largest.bm if wide else largest.bm // 2,
            bn=largest.bn // 2 if wide else largest.bn,
        )
    raise ValueError("vectors are too wide, or columns too many, for a chip's memory")


def memory() -> int:
    """Bytes of a chip's memory that a kernel may ask for.

    Returns:
      Those of the chips of the mesh that a program is written for, else of the chips
      here. Where nothing is known, as when compiling for a chip elsewhere without a
      mesh, what every chip has.
    """
    chip = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    if chip is None and jax.default_backend() == "tpu":
        chip = jax.devices()[0]
    kind = getattr(chip, "device_kind", "")
    known = kind.startswith("TPU") and not kind.startswith(SMALL_CHIPS)
    return MEMORY if known else SMALL_MEMORY


def _cut_both(block: Any, largest: Largest, *, apart: bool) -> Sizes:
    bm, bn, *strip = largest
    n, m = (len(side.nodes.index) for side in (block.rows, block.columns))
    strips = strip[0], strip[1]
    # What is read and written block by block must not come back before it has arrived.
    if block.schedule == "triangular":
        edge = _cut(n, min(bm, bn), 6 if apart else 1)
        return Sizes(*edge, *edge, strips)
    return Sizes(*_cut(n, bm, 1), *_cut(m, bn, 3 if apart else 1), strips)


def _cut(n: int, largest: int, several: int) -> tuple[int, int]:
    """Cuts n into blocks of a multiple of 128: one, or at least so many."""
    count = -(-n // largest)
    if count > 1:
        count = max(count, several)

        def padded(count: int) -> int:
            return _multiple(-(-n // count)) * count

        # One or two more where that pads less.
        count = min(range(count, count + 3), key=lambda c: (padded(c), c))
    size = _multiple(-(-n // count))
    count = -(-n // size)
    if 1 < count < several:
        size, count = _multiple(n), 1
    return size, count


def _multiple(n: int) -> int:
    return -(-n // LANES) * LANES


def _bytes(block: Any, form: Form, sizes: Sizes, kind: str) -> int:
    """About how much of a chip's memory a kernel takes."""
    bm, bn = sizes.bm, sizes.bn
    total = 0
    for vectors in block.rows.vectors:
        rows = vectors.rows
        width = _multiple(rows.shape[1])
        total += 2 * (bm + bn) * width * rows.dtype.itemsize
        if kind != "forward":
            total += 2 * bm * width * 4
        if kind == "both":
            total += 4 * bn * width * 4
    outputs = sum(len(task.outputs) for task in form.tasks)
    rows = (
        node_floats(form, 1) + 3 + 3 * outputs + form.rest[1].num_leaves + size(form, 1)
    )
    total += rows * bm * LANES * 4
    resident = size(form, 0) if kind == "forward" else form.rest[0].num_leaves
    if kind != "rows":
        total += 2 * max(resident, 1) * sizes.columns * 8 * 4
    strip = min(max(sizes.strip), bm) * bn * 4
    leaves = sum(rest.num_leaves for rest in form.rest)
    return total + strip * (3 + len(form.factors) + leaves)


def operations(form: Form) -> int:
    """Counts the operations of the scores of a pair.

    Args:
      form: of a block of pairs.

    Returns:
      How many primitives they bind.
    """
    return sum(1 for _ in _equations(program(form)))


def program(form: Form, *, backward: bool = False) -> Any:
    """Traces the scores of a block.

    Args:
      form: of the block.
      backward: whether to differentiate them.

    Returns:
      Their jaxpr.
    """
    tile = jax.ShapeDtypeStruct((8, LANES), jnp.float32)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    column, row = (
        jax.tree.unflatten(rest, [tile] * rest.num_leaves) for rest in form.rest
    )
    products = [tile] * len(form.factors)
    theta: list[Any] = [number] * form.leaves
    if not backward:
        return jax.make_jaxpr(form.scores)(theta, products, row, column).jaxpr

    def pulled(theta: Any, *given: Any) -> Any:
        spread = [
            jnp.full((1, LANES), value) if k in form.used else value
            for k, value in enumerate(theta)
        ]
        scores, pull = jax.vjp(form.scores, spread, *given)
        return pull(scores)

    return jax.make_jaxpr(pulled)(theta, products, row, column).jaxpr


def _equations(jaxpr: Any) -> Any:
    for equation in jaxpr.eqns:
        inner = [
            getattr(value, "jaxpr", value)
            for name, value in equation.params.items()
            if name in ("jaxpr", "call_jaxpr")
        ]
        for each in inner:
            yield from _equations(each)
        if not inner:
            yield equation


def missing(form: Form) -> Collection[str]:
    """Names what Mosaic cannot compile of the scores and their derivatives.

    Args:
      form: of a block of pairs.

    Returns:
      Names of primitives.
    """
    programs = (program(form), program(form, backward=True))
    names = {e.primitive.name for each in programs for e in _equations(each)}
    return sorted(names - COMPILED)
