"""Sentences about what was left out, what was chosen, and what was not computed."""

from collections.abc import Sequence

import numpy as np

from jaxcl.report import comparisons, moments, reading, results, tests
from jaxcl.report import sample as sampling


def of_rows(m: moments.Moments, table: moments.Table) -> list[str]:
    """What the pass over all rows left out."""
    n, used, bad = len(m.usable), len(m.norms), np.flatnonzero(m.not_finite)
    notes = []
    if len(bad):
        notes.append(
            f"{len(bad)} of {n} rows {_verb(bad, 'holds', 'hold')} NaN or infinity and "
            f"{_verb(bad, 'is', 'are')} left out: {_first(bad, 'row')}."
        )
    if no_direction := n - used - len(bad):
        notes.append(
            "1 row is zero, has no direction and is left out."
            if no_direction == 1
            else f"{no_direction} rows are zero, have no direction and are left out."
        )
    constant = np.flatnonzero(m.constant)
    if len(constant):
        are = _verb(constant, "is", "are")
        notes.append(
            f"{len(constant)} of {len(m.constant)} columns {are} constant and {are} "
            f"left out of every test: {_first(constant, 'column')}."
        )
    if table.one_norm:
        notes.append(
            f"All rows have the same norm, {m.norms.mean():.4g}: they are tested as "
            "normalized ones, and there is no picture of norms."
        )
    return notes


def of_sample(sample: sampling.Sample, table: moments.Table) -> list[str]:
    """What the sample left out of the tests."""
    notes = []
    rare = np.flatnonzero(table.kept & ~sample.kept)
    if len(rare):
        notes.append(
            (
                "1 column varies so rarely that it is constant among the rows tested, "
                "and is left out too: "
                if len(rare) == 1
                else f"{len(rare)} columns vary so rarely that they are constant "
                "among the rows tested, and are left out too: "
            )
            + f"{_first(rare, 'column')}."
        )
    if len(sample.tested) < len(sample.z):
        notes.append(
            f"Coordinates of normalized rows are tested on {len(sample.tested)} rows, "
            "about (d + 2)^2 / 3: from twice as many on even a perfectly uniform "
            "sphere is told from a Gaussian."
        )
    return notes


def of_hints(
    m: moments.Moments, sample: sampling.Sample, hints: results.Hints
) -> list[str]:
    """What stands out, and what follows from it."""
    n, notes = len(m.norms), []
    d, tested = sample.tested.shape[1], int(sample.different.sum())
    if hints.copies:
        are = "is an exact copy" if hints.copies == 1 else "are exact copies"
        notes.append(
            f"{hints.copies:,} of {n:,} rows {are} of others: {n - hints.copies:,} are "
            "different."
            + {
                None: "",
                True: " Tests take rows as independent, so that copies alone make "
                f"them fail: {tested:,} different rows pass.",
                False: " Tests take rows as independent, so that copies alone can make "
                f"them fail, but {tested:,} different rows fail as well.",
            }[hints.copies_explain]
        )
    for count, what in (
        (hints.zero_rows, "0 in all columns"),
        (hints.level_rows, "one value in all columns, as if nothing had been computed"),
    ):
        if count:
            rows = "1 row is" if count == 1 else f"{count:,} of {n:,} rows are"
            notes.append(f"{rows} {what}, and among those used.")
    if hints.zero_rows and hints.others_of_one_norm:
        notes.append(
            "All other rows have the same norm: with --normalize the zero ones are "
            "left out, and the others tested as normalized ones."
        )
    if far := moments.outlying(m):
        shares = ", ".join(f"row {x.row} has {100 * x.share:.3g} %" for x in far[:5])
        notes.append(
            f"{_known(far)} of {n:,} rows {'lies' if len(far) == 1 else 'lie'} far "
            f"out: {shares}{', ...' if len(far) > 5 else ''} of the variance (counted "
            "from 0). The largest of as many Gaussian rows would have less than "
            f"{100 * moments.largest_share(m):.3g} %. Mean, covariance and norms tell "
            "of such rows rather than of the others."
        )
    if hints.columns_repeating:
        value = "0" if hints.repeated_zero else "their smallest or largest value or 0"
        notes.append(
            f"{_of(hints.columns_repeating, d, 'column')} {value} again and again, in "
            f"{100 * hints.repeated_share:.3g} % of the rows in the median, as after a "
            "ReLU, clipping or dropout. No Gaussian repeats a value: where that is so "
            "by design, the layer before is what to test."
        )
    if hints.columns_of_few_values:
        notes.append(
            f"{_of(hints.columns_of_few_values, d, 'column')} fewer than 50 different "
            "values: steps as of integers or coarse rounding, which tests of normality "
            "see."
        )
    return notes


def reasons(found: results.Numbers) -> list[str]:
    """What a reader of the verdict has to know before believing it."""
    hints, rows, told = found.hints, found.covariance.rows, []
    if hints.maybe_transposed:
        n, width = found.shape
        told.append(
            f"There are {n:,} rows of {width:,} columns: if each column is an "
            "embedding, transpose the file."
        )
    if found.rows.not_finite > 0.1 * found.rows.in_file:
        told.append(
            f"{found.rows.not_finite:,} of {found.rows.in_file:,} rows hold NaN or "
            "infinity and are left out, perhaps because of what they were: the others "
            "are no random sample then."
        )
    if hints.copies_explain or hints.copies > 0.01 * found.rows.used:
        zero = f" ({hints.zero_rows:,} are 0)" if hints.zero_rows > 1 else ""
        told.append(
            ("The reason is that " if hints.copies_explain else "")
            + f"{hints.copies:,} of {found.rows.used:,} rows{zero} are exact copies of "
            f"others{': different rows alone pass' if hints.copies_explain else ''}."
        )
    far, share = found.covariance.outlying_rows, found.covariance.share_of_outlying_rows
    if far and share > 0.05:
        who = f"Row {rows[0].row} alone has" if far == 1 else f"{far} far rows have"
        told.append(f"{who} {100 * share:.3g} % of the variance.")
    if hints.columns_repeating > found.columns.tested / 2:
        told.append(
            "Most columns repeat one value, in "
            f"{100 * hints.repeated_share:.3g} % of the rows in the median, as after a "
            "ReLU or dropout: no Gaussian does."
        )
    if hints.columns_of_few_values > found.columns.tested / 2:
        told.append(
            "Most columns hold fewer than 50 different values, and tests see the steps."
        )
    return told


def _known(far: Sequence[results.RowShare]) -> str:
    return f"{len(far)}" + (" or more" if len(far) >= 100 else "")


def _of(count: int, d: int, name: str) -> str:
    """Some or all columns, and the verb for what they hold."""
    if count == d:
        return f"All {d:,} {name}s hold"
    return f"{count:,} of {d:,} {name}s {'holds' if count == 1 else 'hold'}"


def of_comparisons(
    files: reading.Files, pairs: comparisons.Pairs, apart: comparisons.Apart
) -> list[str]:
    """What positives and out-of-distribution rows lack."""
    notes = _left_out("pairs", pairs.usable)
    if files.labels is not None and pairs.positive is None:
        notes.append("No two of the sampled rows have one label: no positive pairs.")
    return notes + _left_out("ood", apart.usable)


def _left_out(argument: str, usable: np.ndarray | None) -> list[str]:
    if usable is None or usable.all():
        return []
    bad = np.flatnonzero(~usable)
    are = _verb(bad, "is", "are")
    return [
        f"{len(bad)} of {len(usable)} sampled rows of {argument} {are} not finite, or "
        f"zero, and {are} left out."
    ]


def missing(joint: tests.Joint) -> list[str]:
    """Why joint tests were not computed."""
    n, d = joint.num_samples, joint.dimension
    reasons = {
        "sphere": "rows on a sphere are not jointly Gaussian, whatever the rest",
        "few_rows": f"fewer than 100 rows, {n}, are too few for joint tests",
        "few_rows_for_directions": "a test of all columns at once needs more rows than "
        f"columns, and {n} rows of {d} were tested",
        "singular": "random directions of columns so unlike in size differ by no more "
        "than rounding",
        "no_direction": f"none of the {d} columns varies by more than rounding",
    }
    return [reasons[reason] for reason in joint.missing]


def of_test(name: str, test: results.JointTest) -> str:
    """A joint test in words."""
    if name == "mardia_kurtosis_of_all":
        return (
            f"mardia kurtosis of all {test.directions} directions that vary "
            f"{test.statistic:.2f} standard errors off, p {test.p:.2g}"
        )
    return f"{name.replace('_', ' ')} p {test.p:.2g} ({test.directions} directions)"


def out_of_distribution(
    separation: comparisons.Separation,
) -> results.OutOfDistribution:
    """How well others are told apart, and why a score is missing."""
    n, d, k = separation.num_fitted, separation.dimension, separation.k
    reasons = {
        "gaussian": f"a covariance needs more rows than columns, {n} <= {d}",
        "neighbors": f"k = {k} neighbors of {n} rows",
    }
    auroc = separation.auroc
    return results.OutOfDistribution(
        auroc=auroc,
        not_computed={name: reasons[name] for name in auroc if auroc[name] is None},
        chance_std=separation.chance_std,
        num_fitted=n,
        num_held_out=separation.num_inside,
        num_other=separation.num_outside,
    )


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]).lower()


def _verb(places: np.ndarray, one: str, many: str) -> str:
    return one if len(places) == 1 else many


def _first(places: np.ndarray, name: str) -> str:
    """Names a few of many rows or columns."""
    shown = ", ".join(str(i) for i in places[:5])
    return f"{name} {shown}{', ...' if len(places) > 5 else ''} (counted from 0)"
