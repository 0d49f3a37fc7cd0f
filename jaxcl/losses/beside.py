"""A second embedding beside the first, compared in the same tiles."""

import dataclasses
from typing import Any

import jax

from jaxcl import kernels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beside(kernels.Kernel):
    """Two kernels of two embeddings that stand side by side; its logits are a pair.

    The first `width` numbers are the first embedding. Each is normalized on its own.
    """

    first: kernels.Kernel
    second: kernels.Kernel
    width: int = dataclasses.field(metadata={"static": True})

    @property
    def precision(self) -> Any:
        """The precision that the first kernel asks for."""
        return self.first.precision

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        parts = z[..., : self.width], z[..., self.width :]
        prepared = [
            kernel.prepare(part, kernels.unit(part))
            for kernel, part in zip((self.first, self.second), parts, strict=True)
        ]
        return [vectors for vectors, _ in prepared], [
            numbers for _, numbers in prepared
        ]

    def pair(self, x: Any, y: Any) -> Any:
        return self.first.pair(x[0], y[0]), self.second.pair(x[1], y[1])

    def elementwise(self, products: Any, row: Any, column: Any) -> Any:
        members = zip((self.first, self.second), products, row, column, strict=True)
        return tuple(
            kernel.elementwise(kernels.scaled(kernel, given), *each)
            for kernel, given, *each in members
        )
