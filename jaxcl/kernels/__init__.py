"""Log-kernels: the similarity s_ij = log k(z_i, z_j) of two embeddings, as pytrees.

A kernel is a frozen dataclass whose float fields (temperatures, weights, scales) are
differentiable leaves and whose other fields are static. It says:

    prepare(z, unit)                     which vectors it compares, and numbers of each
    pair(x, y)                           the logit of two such vectors
    elementwise(products, row, column)   the same logits of a tile, from inner products
    multiplier()                         if it has one, what all products are times

`pair` is the definition and may use differences, which stay exact for close vectors;
`elementwise` is what a tile of one matrix product can afford. Anyone can write one:

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Linear(kernels.Kernel):
        scale: jax.typing.ArrayLike

        def prepare(self, z, unit):
            return z, ()

        def pair(self, x, y):
            return self.scale * jnp.dot(x, y)

        def elementwise(self, products, row, column):
            return self.scale * products

A static field is `dataclasses.field(metadata={"static": True})`. A kernel is symmetric:
`pair(x, y)` equals `pair(y, x)`. Shapes of what the methods return are checked in use;
that both forms say the same, and x and y may be exchanged, is for your own tests:

    assert kernels.disagreement(Linear(2.0), z) < 1e-5  # for some embeddings z [n, d]
"""

from jaxcl.kernels.angular import ARC_COSINE_FLOOR, ArcCosine, arc_cosine
from jaxcl.kernels.base import (
    Kernel,
    accumulator,
    cast_leaves,
    check,
    check_shapes,
    disagreement,
    inverse_norm,
    lengths,
    log_kernel,
    matched,
    matched_views,
    scaled,
    unit,
)
from jaxcl.kernels.radial import (
    Cosine,
    Dot,
    Exponential,
    cosine,
    dot,
    exponential,
    gaussian,
    laplacian,
)
from jaxcl.kernels.sums import (
    ConcatenationSum,
    KernelSum,
    concatenation_sum,
    kernel_sum,
)

__all__ = [
    "ARC_COSINE_FLOOR",
    "ArcCosine",
    "ConcatenationSum",
    "Cosine",
    "Dot",
    "Exponential",
    "Kernel",
    "KernelSum",
    "accumulator",
    "arc_cosine",
    "cast_leaves",
    "check",
    "check_shapes",
    "concatenation_sum",
    "cosine",
    "disagreement",
    "dot",
    "exponential",
    "gaussian",
    "inverse_norm",
    "kernel_sum",
    "laplacian",
    "lengths",
    "log_kernel",
    "matched",
    "matched_views",
    "scaled",
    "unit",
]
