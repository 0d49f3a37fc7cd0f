"""What runs over a mesh: axis names, the global mean, and losses on global arrays.

Inside `jax.shard_map` every value knows over which mesh axes it varies. jaxcl relies on
that knowledge for its gradients, so it refuses contexts that do not track it.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

AxisName = str | tuple[str, ...]

# Keywords that hold a row per example in every loss, whatever its signature says.
_WITH_VALID = frozenset(
    ("valid", "groups", "hard_negatives", "hard_negatives_valid", "guide")
)
# Those whose rows no `valid` masks.
_BEYOND_VALID = frozenset(
    (
        "negatives",
        "negative_labels",
        "candidates",
        "teacher_candidates",
        "candidates_valid",
    )
)
_ROW_KEYWORDS = _WITH_VALID | _BEYOND_VALID


def axis_names(axis_name: AxisName | None) -> tuple[str, ...]:
    """Returns the mesh axes that an `axis_name` argument stands for.

    Args:
      axis_name: None, one name or several names.

    Returns:
      A tuple of names, empty for None.

    Raises:
      TypeError: if `axis_name` is neither None, nor a string, nor a tuple of strings.
      ValueError: if an axis is not bound, or its values are not tracked.

    >>> axis_names(None)
    ()
    """
    if axis_name is None:
        return ()
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
        raise TypeError(
            f"axis_name must be None, a string or a tuple of strings, got {axis_name!r}"
        )
    for name in names:
        try:
            position = lax.axis_index(name)
        except NameError as error:
            raise ValueError(
                f"axis_name {name!r} is not bound here: call this inside jax.shard_map "
                "over that mesh axis, or wrap the loss in jaxcl.sharded"
            ) from error
        if name not in varying_axes(position):
            raise ValueError(
                f"axis_name {name!r} comes from shard_map(check_vma=False) or "
                "vmap(axis_name=...), where gradients can be silently scaled by the "
                "number of devices; use jax.shard_map with check_vma=True"
            )
    return names


def position(axis_name: AxisName | None) -> jax.Array | int:
    """Returns the position of this device along the named mesh axes.

    Args:
      axis_name: mesh axes over which rows are sharded; None on one device.

    Returns:
      An integer; 0 for None.

    Raises:
      ValueError: as `axis_names`.

    >>> position(None)
    0
    """
    names = axis_names(axis_name)
    return lax.axis_index(names).astype(int) if names else 0


def size(axis_name: AxisName | None) -> int:
    """Returns the number of devices along the named mesh axes.

    Args:
      axis_name: mesh axes over which rows are sharded; None on one device.

    Returns:
      A Python integer; 1 for None.

    Raises:
      ValueError: as `axis_names`.

    >>> size(None)
    1
    """
    names = axis_names(axis_name)
    return lax.axis_size(names) if names else 1


def varying_axes(x: Any) -> frozenset[str]:
    """Returns the mesh axes over which the leaves of a pytree vary.

    Args:
      x: a pytree of arrays or numbers.

    Returns:
      The union of the leaves' varying axes; empty outside `shard_map`.
    """
    types = (jax.typeof(leaf).manual_axis_type for leaf in jax.tree.leaves(x))
    return frozenset().union(*(t.varying for t in types))


def cast_varying(x: Any, axes: frozenset[str]) -> Any:
    """Marks every leaf of a pytree as varying over `axes`.

    The transpose of this cast is the sum over devices that the gradient of a replicated
    value needs.

    Args:
      x: a pytree of arrays.
      axes: mesh axes.

    Returns:
      The pytree with the same values.
    """

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - varying_axes(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, x)


def all_rows(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Collects the rows of all devices.

    Args:
      x: rows of this device [n, ...].
      axis_name: mesh axes over which the rows are sharded; None on one device.

    Returns:
      The rows of the global array [devices * n, ...].

    Raises:
      ValueError: as `axis_names`.
    """
    names = axis_names(axis_name)
    if not names:
        return x
    return lax.all_gather(cast_varying(x, frozenset(names)), names, tiled=True)


def own_rows(x: jax.Array, n: int, axis_name: AxisName | None) -> jax.Array:
    """Takes this device's share of a global array.

    Args:
      x: the whole array [m, ...], m >= devices * n.
      n: the number of rows of each device.
      axis_name: mesh axes over which the rows are sharded; None on one device.

    Returns:
      The n rows at this device's position.

    Raises:
      ValueError: as `axis_names`.
    """
    return lax.dynamic_slice_in_dim(x, position(axis_name) * n, n)


def total(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Adds up what the devices hold.

    Args:
      x: an array of this device, of any shape.
      axis_name: mesh axes over which rows are sharded; None on one device.

    Returns:
      The sum over devices, on each of them. What is the same on all devices counts once
      for each.

    Raises:
      ValueError: as `axis_names`.

    >>> print(total(jnp.ones(2), None))
    [1. 1.]
    """
    names = axis_names(axis_name)
    return lax.psum(cast_varying(x, frozenset(names)), names) if names else x


def mean(
    loss: jax.Array,
    valid: jax.Array | None = None,
    axis_name: AxisName | None = None,
) -> jax.Array:
    """Averages a loss over what is valid, on all devices.

    Args:
      loss: one value per anchor, [n] or [b, v].
      valid: which rows count, [n] or [b]; or an array of the shape of `loss`. None
        counts all.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      A scalar of the loss's dtype; 0 where nothing is valid.

    Raises:
      TypeError: if `loss` is not floating or `valid` not boolean.
      ValueError: if the shape of `valid` is not a prefix of the loss's.

    >>> print(mean(jnp.array([1.0, 5.0, 3.0]), jnp.array([True, False, True])))
    2.0
    """
    if not _is_array(loss):
        raise TypeError(f"loss must be a floating array, got {type(loss).__name__}")
    if not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(f"loss must be a floating array, got {jnp.result_type(loss)}")
    loss = jnp.asarray(loss)
    if valid is None:
        keep = jnp.ones(loss.shape, bool)
    else:
        if not _is_array(valid):
            raise TypeError(
                f"valid must be a boolean array, got {type(valid).__name__}"
            )
        if valid.dtype != bool:
            raise TypeError(f"valid must be a boolean array, got dtype {valid.dtype}")
        if valid.shape != loss.shape[: valid.ndim]:
            raise ValueError(
                f"valid must have the leading axes of loss {loss.shape}, "
                f"got {valid.shape}"
            )
        ones = (1,) * (loss.ndim - valid.ndim)
        keep = jnp.broadcast_to(valid.reshape(valid.shape + ones), loss.shape)
    # A loss that is the same on all devices counts once for each of them, above and
    # below the line.
    top = total(jnp.where(keep, loss, 0).sum(), axis_name)
    count = total(keep.sum().astype(loss.dtype), axis_name)
    return top / jnp.maximum(count, 1)


def data_parallel(
    axis_name: str = "data",
) -> tuple[jax.sharding.Mesh, jax.NamedSharding, jax.NamedSharding]:
    """A mesh of all devices, for batches split by rows.

    Args:
      axis_name: of the one mesh axis.

    Returns:
      (mesh, rows, whole): the mesh, with an axis of type Auto over the devices of all
      processes; the sharding of a batch, by its first axis; and that of a state, which
      every device holds whole.

    >>> mesh, rows, whole = data_parallel()
    >>> print(mesh.axis_names, rows.spec, whole.spec)
    ('data',) P('data',) P()
    """
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), (axis_name,), axis_types=auto)
    rows = jax.NamedSharding(mesh, jax.P(axis_name))
    return mesh, rows, jax.NamedSharding(mesh, jax.P())


def sharded(
    loss_fn: Callable[..., Any],
    mesh: jax.sharding.Mesh,
    axis_name: AxisName = "data",
    *,
    rows: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Turns a loss with an `axis_name` argument into one on global arrays.

    What is split by rows over the mesh axes, for any function alike:

    - arrays given by position;
    - arrays given by a keyword that could have been given by position, such as the
      `labels` of `def loss(z, labels, *, temperature, axis_name=None)`;
    - the keywords `valid`, `groups`, `negatives`, `negative_labels`, `hard_negatives`,
      `hard_negatives_valid`, `guide` (all arrays of a tuple alike), `candidates`,
      `teacher_candidates` and `candidates_valid`, and those named in `rows`.

    Every other keyword goes whole to each device, and so does a scalar. What a
    `functools.partial` holds counts as given in the call: `partial(loss, valid=keep)`
    has its mask split. What a lambda or an inner function closes over stays whole. What
    is given is resharded as needed.

    Args:
      loss_fn: a loss of this library, or any function that takes `axis_name`, or a
        `functools.partial` of one.
      mesh: the devices; axes of type Auto or Explicit.
      axis_name: mesh axes over which rows are split.
      rows: further keywords that hold a row per example.

    Returns:
      A function of global arrays. A result that varies between devices has one row per
      row of the first argument and is sharded like it. One that does not, such as a
      mean or a covariance over all rows, is replicated.

    Raises:
      TypeError: if rows is not a tuple of names.
      ValueError: if the mesh lacks an axis, the function takes no argument of a name in
        rows, or, when called, if a number of rows is not divisible by the number of
        devices.

    >>> from jaxcl import losses
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> print(sharded(losses.nt_xent, mesh)(jnp.ones((4, 2, 3))).shape)
    (4, 2)
    """
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    for name in names:
        if name not in mesh.axis_names:
            raise ValueError(
                f"axis_name {name!r} is not an axis of the mesh {mesh.axis_names}"
            )
    devices = 1
    for name in names:
        devices *= mesh.shape[name]
    by_rows, whole = jax.P(names), jax.P()
    loss_fn, held_args, held_kwargs = _taken_apart(loss_fn)
    row_keywords = _row_keywords(loss_fn, rows)

    def out_spec(result: Any) -> jax.P:
        return by_rows if jnp.ndim(result) and varying_axes(result) else whole

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = (*held_args, *args), {**held_kwargs, **kwargs}
        # What is not an array (a string, None, a kernel's static part) is closed over.
        paths, structure = jax.tree_util.tree_flatten_with_path((args, kwargs))
        leaves = [leaf for _, leaf in paths]
        dynamic = [_is_array(leaf) for leaf in leaves]
        arrays, specs = [], []
        for path, leaf in paths:
            if not _is_array(leaf):
                continue
            array, name = jnp.asarray(leaf), _name(path)
            split = array.ndim > 0 and (isinstance(name, int) or name in row_keywords)
            if split and array.shape[0] % devices:
                raise ValueError(
                    f"rows of {_said(name)} must be divisible by the {devices} devices "
                    f"of {names}, got an array of shape {array.shape}; pad it"
                    + (" and mask the padding with valid" * (name not in _BEYOND_VALID))
                )
            arrays.append(array)
            specs.append(by_rows if split else whole)
        arrays = [
            _reshard(x, jax.NamedSharding(mesh, s))
            for x, s in zip(arrays, specs, strict=True)
        ]

        def local(*arrays: jax.Array) -> Any:
            given = iter(arrays)
            merged = [
                next(given) if d else leaf
                for leaf, d in zip(leaves, dynamic, strict=True)
            ]
            local_args, local_kwargs = jax.tree.unflatten(structure, merged)
            return loss_fn(*local_args, axis_name=axis_name, **local_kwargs)

        out_specs: list[Any] = []

        def probe(*arrays: jax.Array) -> tuple[()]:
            out_specs.append(jax.tree.map(out_spec, local(*arrays)))
            return ()

        run = functools.partial(jax.shard_map, mesh=mesh, in_specs=tuple(specs))
        jax.eval_shape(run(probe, out_specs=()), *arrays)
        return run(local, out_specs=out_specs[0])(*arrays)

    return call


def _taken_apart(
    loss_fn: Callable[..., Any],
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The function inside of partials, and the arguments that they hold."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(loss_fn, functools.partial):
        args, kwargs = (*loss_fn.args, *args), {**loss_fn.keywords, **kwargs}
        loss_fn = loss_fn.func
    kwargs.pop("axis_name", None)  # given by `sharded`
    return loss_fn, args, kwargs


def _row_keywords(loss_fn: Callable[..., Any], rows: tuple[str, ...]) -> frozenset[str]:
    """Which keywords of a function are split by rows."""
    if isinstance(rows, str) or not all(isinstance(name, str) for name in rows):
        raise TypeError(f"rows must be a tuple of argument names, got {rows!r}")
    try:
        parameters = inspect.signature(loss_fn).parameters.values()
    except (TypeError, ValueError):  # such as some builtins: nothing is known
        return _ROW_KEYWORDS.union(rows)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        known = [p.name for p in parameters]
        for name in rows:
            if name not in known:
                raise ValueError(
                    f"rows must name arguments of the function, {', '.join(known)}, "
                    f"got {name!r}"
                )
    by_position = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    return _ROW_KEYWORDS.union(rows, by_position)


def _name(path: tuple[Any, ...]) -> int | str:
    """What the caller calls an argument: its position or its keyword."""
    kind, which = path[0].idx, path[1]
    return which.idx if kind == 0 else which.key


def _said(name: int | str) -> str:
    return f"argument {name}" if isinstance(name, int) else name


def _is_array(x: Any) -> bool:
    # A NumPy scalar may be static, such as a power: it is closed over.
    return isinstance(x, jax.Array | np.ndarray) or (
        hasattr(x, "__array__") and not isinstance(x, np.generic)
    )


def _reshard(x: jax.Array, sharding: jax.NamedSharding) -> jax.Array:
    if isinstance(x, jax.core.Tracer):
        explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
        if explicit:
            return jax.sharding.reshard(x, sharding)
        return lax.with_sharding_constraint(x, sharding)
    return jax.device_put(x, sharding)
