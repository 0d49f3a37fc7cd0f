"""How a call is computed: what the caller chose, and what a platform is good at."""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jax import lax

from jaxcl.pairwise import slices


class Plan(NamedTuple):
    """What is static about a call.

    Attributes:
      names: mesh axes over which the nodes are sharded.
      exchange: how candidates travel over them, "gather" or "ring".
      tile: the largest edge of a tile; None is chosen for the platform.
      precision: of products of float32 vectors, as in `jax.lax.dot`.
      impl: "tiled", "mosaic", or "auto" for the kernels where they are known to win.
    """

    names: tuple[str, ...]
    exchange: str
    tile: int | None
    precision: Any
    impl: str = "tiled"


class Form(NamedTuple):
    """What is done differently on another platform.

    Attributes:
      tile: the largest edge of a tile.
      multiple: what edges are rounded up to.
      narrow: whether bfloat16 is multiplied as bfloat16, and not as float32.
      across: whether the gradient of columns is kept with the nodes as its last axis.
      at_once: whether a log-sum-exp finds maximum and sum in one reading of a tile.
      mosaic: whether blocks of pairs are Pallas kernels for TPU: None for tiles,
        "compiled", or "interpreted" where no TPU is.
    """

    tile: int
    multiple: int
    narrow: bool
    across: bool
    at_once: bool = False
    mosaic: str | None = None


# A float32 tile on a CPU is 4 MB; larger ones leave its caches. Elsewhere each tile
# costs a dozen launches, or their like, which larger ones pay less often: figures in
# docs/benchmark. CPU libraries are fastest at products with a transposed result. A GPU
# waits for memory: there tiles are read as seldom as possible.
FORMS = {
    "cpu": Form(tile=1024, multiple=16, narrow=False, across=True),
    "tpu": Form(tile=4096, multiple=128, narrow=True, across=False),
    "gpu": Form(tile=8192, multiple=128, narrow=True, across=False, at_once=True),
}

# Smaller tiles, and a single one, are the same everywhere: nothing is traced twice.
WORTH = 256

# How kernels for TPU run: on a CPU slowly, for tests. Elsewhere tiles take their place.
MOSAIC = {"cpu": "interpreted", "tpu": "compiled"}
# Rows and columns from which on "auto" takes them on TPUs; fewer fit one tile or two.
WINS = 1024


def on_each_platform(
    plan: Plan,
    n: int,
    m: int,
    narrow: bool,
    mosaic: Collection[str],
    run: Callable[..., Any],
    *args: Any,
) -> Any:
    """Computes something in the form of the platform that it is compiled for.

    Which one that is may not be known yet: a program can be compiled for a machine that
    is not here. What does not run there is not compiled.

    Args:
      plan: of the call.
      n: number of rows.
      m: number of columns.
      narrow: whether anything is bfloat16.
      mosaic: platforms on which blocks of pairs are Pallas kernels.
      run: a function of a `Form` and the arguments.
      *args: pytrees of arrays.

    Returns:
      What `run` returns.
    """
    forms = {}
    for platform, form in FORMS.items():
        tile = plan.tile or form.tile
        if max(n, m) <= tile or tile < WORTH:
            form = form._replace(multiple=1, across=FORMS["cpu"].across)
        form = form._replace(tile=min(tile, max(n, m)))
        if form.tile <= FORMS["cpu"].tile and form.multiple == 1:
            form = form._replace(at_once=FORMS["cpu"].at_once)
        if platform in mosaic:
            form = form._replace(mosaic=MOSAIC[platform], narrow=True, across=False)
        forms[platform] = form if narrow else form._replace(narrow=False)
    if len(set(forms.values())) == 1:
        return run(forms["cpu"], *args)
    # GPUs of any make are the default; a platform like them is no branch of its own.
    own = {k: form for k, form in forms.items() if form != forms["gpu"]}
    branches = {k: functools.partial(run, form) for k, form in own.items()}
    default = functools.partial(run, forms["gpu"])
    return lax.platform_dependent(*args, **branches, default=default)


class Cuts(NamedTuple):
    """How rows and columns are cut, and how many columns each row of tiles meets."""

    row: slices.Cut
    column: slices.Cut
    met: int

    def column_of(self, schedule: str, i: Any, k: Any) -> Any:
        """Which slice of columns is the k-th that slice i of rows meets."""
        return (i + k) % self.column.number if schedule == "triangular" else k


def cuts(form: Form, schedule: str, n: int, m: int) -> Cuts:
    """Cuts rows and columns of a block of pairs.

    In "triangular", slice i of N meets i, i + 1, ..., i + N // 2 of the same slices,
    counted around: for an odd N each unordered pair once, in rows of one length.

    Args:
      form: of the platform.
      schedule: "triangular", "both" or "mirrored".
      n: number of rows.
      m: number of columns.

    Returns:
      How they are cut.
    """
    odd = schedule == "triangular"
    row = slices.cut(n, form.tile, form.multiple, odd)
    column = row if odd else slices.cut(m, form.tile, form.multiple)
    return Cuts(row, column, column.number // 2 + 1 if odd else column.number)
