"""What the synthetic runs say, as a table and in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcl import _tables

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    return _tables.markdown(
        ["loss", "free critic", "encoder", "contrast", "of target"],
        [
            [
                row["loss"],
                f"{row['free_critic_error']:.1e}",
                f"{row['encoder_error']:.1%}",
                f"{row['contrast']:.3f}",
                f"{row['target_contrast']:.3f}",
            ]
            for row in rows
        ],
    )


def conclude(rows: Sequence[Row], steps: int) -> Iterator[str]:
    """Sentences about what agrees with theory, computed from the rows."""
    for row in rows:
        exact = row["alpha"] is None or abs(row["alpha"] - row["beta"] - 1) < 1e-9
        reached = row["free_critic_error"] < 1e-6
        error = row["encoder_error"]
        yield (
            f"{row['loss']}: the free critic "
            f"{'reaches' if reached else 'does not reach'} its target, as theory "
            f"{'says' if reached == exact else 'does NOT say'}; the encoder "
            f"{'comes within 2 %' if error < 0.02 else f'stays {error:.0%} away'}."
        )
    if rows[0]["encoder_error"] > 0.02:
        yield (
            "\nNot even inner products (dot), which theory leaves free, have come near "
            f"their\ntarget: {steps} steps support nothing about the others."
        )
        return
    yield (
        "\nWhere encoders stay away though a free critic does not: views of one state "
        "have cosine 1,\nwhatever the target; inner products (dot) are free of that. "
        "With alpha - beta other than 1\nno probabilities reach the target, and the "
        "logits drift until cosines end them."
    )
