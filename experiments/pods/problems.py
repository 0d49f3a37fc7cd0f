"""Value and gradient of a loss on a mesh, as a function and the shapes it is given."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxcl
from experiments.pods import dense
from experiments.pods.settings import Settings
from jaxcl import kernels, losses


class Problem(NamedTuple):
    """What is compiled.

    Attributes:
      fn: a function of the arguments.
      arguments: shapes with shardings.
      flops: products of one chip that nobody can do without, in multiplications and
        additions; None: those of the program.
      donated: numbers of the arguments whose memory is given away.
    """

    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    flops: float | None = None
    donated: tuple[int, ...] = ()


class Loss(NamedTuple):
    """A loss, by the arguments that a plan gives it.

    Attributes:
      loss: of the library.
      kernel: makes its kernel of a temperature; None: it takes the temperature itself.
      form: "views" [n / 2, 2, d], "rows" [n, d] with labels, or "pairs", twice [n, d].
      given: further arguments.
    """

    loss: Callable[..., jax.Array]
    form: str
    kernel: Callable[..., kernels.Kernel] | None = None
    given: Mapping[str, Any] = {}

    def products(self, chips: int) -> int:
        """Matrix products n x d x n of value and gradient if no pair is kept.

        Scores forth, scores back, gradient of the rows; and of the columns, where these
        are others. One chip needs half of a symmetric matrix of scores.
        """
        if self.form == "pairs":
            return 4
        return 3 if chips > 1 else 2


def _sum(temperature: Any, **options: Any) -> kernels.Kernel:
    return kernels.kernel_sum(
        kernels.gaussian(temperature, **options),
        kernels.laplacian(temperature, **options),
    )


LOSSES: Mapping[str, Loss] = {
    "nt_xent": Loss(losses.nt_xent, "views"),
    "gaussian": Loss(losses.kernel_info_nce, "views", kernels.gaussian),
    "kernel_sum": Loss(losses.kernel_info_nce, "views", _sum),
    "sup_con": Loss(losses.sup_con, "rows"),
    "clip": Loss(losses.clip, "pairs"),
    "siglip": Loss(losses.siglip, "pairs", given={"bias": -10.0}),
    "sc_info_nce": Loss(losses.sc_info_nce, "pairs"),
}
OPTIONS = ("exchange", "tile", "impl", "precision")


def options(s: Settings, loss: Callable[..., Any]) -> dict[str, Any]:
    """What the settings say to a loss.

    Raises:
      ValueError: if it takes no such option.
    """
    taken = inspect.signature(loss).parameters
    given = {name: getattr(s, name) for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in taken:
            raise ValueError(
                f"{name} must be left out, since {loss.__name__} does not take it, got "
                f"{given[name]!r}"
            )
    return given


def sharded(s: Settings, mesh: jax.sharding.Mesh, name: str) -> Callable[..., Any]:
    """Returns loss(*embeddings, temperature=...), one per anchor, over a mesh."""
    chosen = LOSSES[name]
    if s.impl == "dense":  # the compiler spreads it
        if name not in dense.LOSSES:
            raise ValueError(
                f"impl dense is known of {', '.join(dense.LOSSES)}, got {name}"
            )
        return dense.LOSSES[name]
    given = {**chosen.given, **options(s, chosen.loss)}
    spread = chosen.loss
    if mesh.size > 1:  # one chip needs no exchange, and takes half of symmetric scores
        spread = jaxcl.sharded(chosen.loss, mesh, mesh.axis_names)

    def call(*z: jax.Array, temperature: Any) -> jax.Array:
        # On one chip, too, the program may ask for which it is.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            if chosen.kernel is not None:
                return spread(*z, kernel=chosen.kernel(temperature), **given)
            return spread(*z, temperature=temperature, **given)

    return call


def of_loss(s: Settings, mesh: jax.sharding.Mesh) -> Problem:
    """Value and gradient, by embeddings and temperature, of a mean loss of n rows.

    Args:
      s: settings; their problem is a loss.
      mesh: rows are split over all of its axes.

    Returns:
      The problem.

    Raises:
      ValueError: if n does not fit the mesh, or the loss does not take an option.
    """
    chosen = LOSSES[s.problem]
    shape = {
        "views": (s.n // 2, 2, s.d),
        "rows": (s.n, s.d),
        "pairs": (s.n, s.d),
    }[chosen.form]
    if (s.n % 2 and chosen.form == "views") or shape[0] % mesh.size:
        raise ValueError(
            f"n must be a multiple of {mesh.size} chips"
            f"{' times 2 views' * (chosen.form == 'views')}, got {s.n}"
        )
    put = functools.partial(_spec, mesh)
    z = put(shape, s.dtype, split=True)
    inputs = {
        "views": (z,),
        "rows": (z, put(shape[:1], "int32", split=True)),
        "pairs": (z, z),
    }[chosen.form]
    loss = sharded(s, mesh, s.problem)

    def mean(*arguments: jax.Array) -> jax.Array:
        with jax.named_scope("loss"):
            return loss(*arguments[:-1], temperature=arguments[-1]).mean()

    moving = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]
    fn = jax.value_and_grad(mean, (*moving, len(inputs)))
    flops = chosen.products(mesh.size) * 2.0 * s.n * s.n * s.d / mesh.size
    return Problem(fn, (*inputs, put((), "float32", split=False)), flops)


def _spec(
    mesh: jax.sharding.Mesh, shape: tuple[int, ...], dtype: str, *, split: bool
) -> jax.ShapeDtypeStruct:
    return place(mesh, jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), split=split)


def place(mesh: jax.sharding.Mesh, tree: Any, *, split: bool) -> Any:
    """Shapes of a tree of arrays, split by rows over a mesh or whole everywhere."""
    spec = jax.P(mesh.axis_names) if split else jax.P()
    sharding = jax.NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )
