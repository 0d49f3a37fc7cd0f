"""What the numbers mean, each by a stated rule, and all of them summed up."""

import numpy as np
from scipy import stats

from jaxcl.report import results, rules, tests, words
from jaxcl.report.results import Check


def judge(found: results.Numbers) -> list[Check]:
    """What the numbers of the report mean, by stated rules.

    Args:
      found: all that was measured.

    Returns:
      A check for each question.
    """
    joint, d = found.joint, found.columns.tested
    return [
        _columns("Coordinates", found.coordinates, _tails(found.per_coordinate)),
        _columns("Random directions", found.directions, ""),
        _norms(found),
        _thin_shell(found, d),
        _centered(found.mean),
        _isotropic(found.covariance, d, found),
        Check("Joint tests", joint.passed, joint.rule, joint.found, joint.means),
    ]


def of_joint_tests(joint: tests.Joint) -> results.Joint:
    """What tests of several directions at once mean, and why others are missing."""
    reasons = words.missing(joint)
    told = []
    if joint.tests:
        told.append(", ".join(words.of_test(*named) for named in joint.tests.items()))
    if reasons:
        told.append("not computed: " + "; ".join(reasons))
    means = {
        True: "Taken together, directions cannot be told from a Gaussian's.",
        False: "Taken together, directions differ from a Gaussian's: "
        f"{joint.num_samples} rows tell.",
        None: "Nothing is known about directions taken together.",
    }[joint.passed]
    rule = f"p > {joint.level:.3g}"
    if len(joint.tests) > 1:
        rule = f"all {rule}, which is 0.05 shared among {len(joint.tests)} tests"
    return results.Joint(
        passed=joint.passed,
        tests=joint.tests,
        num_samples=joint.num_samples,
        not_computed=reasons,
        rule=rule if joint.tests else "none",
        found="; ".join(told),
        means=means,
    )


def _tails(per_coordinate: list[results.Coordinate]) -> str:
    """How coordinates that fail differ from a Gaussian's."""
    tails = np.median([c.excess_kurtosis for c in per_coordinate])
    skewed = np.median([abs(c.skewness) for c in per_coordinate])
    weight = "heavier tails" if tails > 0 else "lighter tails"
    return (
        f" The median coordinate has an excess kurtosis of {tails:.2g}"
        + (f" ({weight})" if abs(tails) > 0.1 else "")
        + f" and a skewness of {skewed:.2g} in size; a Gaussian has 0, 0."
    )


def _columns(name: str, x: results.Normality, differs: str) -> Check:
    """Of coordinates or random directions, each tested by itself."""
    what = "Coordinate by coordinate" if name == "Coordinates" else "Along them"
    passed = tests.passes(x)
    return Check(
        name=name,
        passed=passed,
        rule=f"mean AD < {rules.AD_LIMIT}, mean p of DP > {rules.DP_LIMIT}, and each "
        f"test passed by {100 * x.needed_pass:.0f} % (Gaussian: 0.385, 0.50, 95 %)",
        found=f"{x.num_tested} on {x.num_samples} rows: "
        f"AD {x.ad_mean:.3g}, {100 * x.ad_pass:.1f} % pass; "
        f"DP p {x.dp_mean:.2g}, {100 * x.dp_pass:.1f} % pass",
        means=f"{what} they cannot be told from a Gaussian by this many rows."
        if passed
        else f"{what} they are not Gaussian.{differs}",
    )


def _norms(found: results.Numbers) -> Check:
    norms, n = found.norms, found.rows.used
    gaussian = norms.cv_gaussian_of_this_covariance
    if found.normalized or gaussian is None:
        return Check(
            name="Norms",
            passed=None,
            rule="not asked of normalized rows",
            found=f"CV of the norms in the file {norms.cv:.3g}",
            means="Normalizing removes the norms; nothing about them counts here.",
        )
    ratio = norms.cv / gaussian
    # Of fewer than 31 rows the norms of one Gaussian sample in 200 spread even less.
    smallest = min(2 / 3, float(np.sqrt(stats.chi2.ppf(0.005, n - 1) / n)))
    passed = smallest <= ratio <= 1.5
    wide = "more" if ratio > 1 else "less"
    return Check(
        name="Norms",
        passed=passed,
        rule=f"CV (standard deviation over mean) {smallest:.2f} to 1.5 times that of a "
        "Gaussian with the same mean and covariance",
        found=f"CV {norms.cv:.3g}, that Gaussian {gaussian:.3g}, ratio {ratio:.2f}",
        means="Norms spread as those of a Gaussian with this covariance do."
        if passed
        else f"Norms spread {wide} than those of a Gaussian with this covariance.",
    )


def _thin_shell(found: results.Numbers, d: int) -> Check:
    norms = found.norms
    shell = norms.cv_isotropic_gaussian
    means = {
        True: "The rows lie on a shell as thin as theory asks."
        if d >= 16
        else "CV as of a Gaussian; in so few dimensions no shell is thin.",
        False: "Norms vary too much for a thin shell.",
        None: "Norms before normalizing, for information only.",
    }
    passed = None if found.normalized else norms.cv <= 2 * shell
    return Check(
        name="Thin shell",
        passed=passed,
        rule=f"CV at most twice that of an isotropic Gaussian in {d} dimensions, "
        f"{shell:.4g} (1/sqrt(2d) = {norms.cv_thin_shell_approximation:.4g})",
        found=f"CV {norms.cv:.3g}, {norms.cv / shell:.2f} times as much",
        means=means[passed],
    )


def _centered(mean: results.Mean) -> Check:
    share, p = mean.share_beyond_chance, mean.p_if_centered
    passed = share <= 0.1 or p >= 0.01
    return Check(
        name="Centered",
        passed=passed,
        rule="at most 10 % of the mean squared norm is the mean's, beyond what few "
        "rows give by chance; or p >= 0.01 that all of it is chance",
        found=f"{100 * share:.2f} % beyond chance, p {p:.2g}",
        means="The embeddings lie around the origin."
        if passed
        else "The embeddings lie to one side of the origin: cosines are raised, and "
        "norms and cosines say less about their shape.",
    )


def _isotropic(of: results.Covariance, d: int, found: results.Numbers) -> Check:
    passed, n = of.participation >= 0.8 * d, found.rows.used
    alike = "All directions are used alike"
    if n <= d:
        alike += f", as far as {n:,} rows tell: too few to see them one by one"
    condition = "infinite" if of.condition is None else f"{of.condition:.3g}"
    error = f"standard error about {of.participation_std_if_isotropic:.2g}"
    if of.outlying_rows:
        error = "of the rows as they are, since some lie far out"
    if of.rank_of_sample < min(d, found.coordinates.num_samples - 1):
        condition += f"; {of.rank_of_sample} directions vary by more than rounding"
    return Check(
        name="Isotropic",
        passed=passed,
        rule="participation (tr S)^2 / tr(S^2) of the covariance S at least 80 % of "
        f"the {d} dimensions, estimated without the bias of few rows",
        found=f"participation {of.participation:.4g} of {d} ({error}); of these rows "
        f"the largest eigenvalue has {100 * of.largest_share:.3g} % of the variance, "
        f"condition {condition}",
        means=f"{alike}."
        if passed
        else "Directions are used unevenly, as if there were "
        f"{of.participation:.0f} of {d}.",
    )


def sum_up(checks: list[Check], found: results.Numbers) -> results.Verdict:
    """What all checks say together, and what else explains it."""
    failed = [c.name for c in checks if c.passed is False]
    asked = [c.name for c in checks if c.passed is not None]
    single = [n for n in asked if n in ("Coordinates", "Random directions", "Norms")]
    around = [n for n in asked if n in ("Thin shell", "Centered", "Isotropic")]
    first, second = ([n for n in names if n in failed] for names in (single, around))
    seen = "single directions and norms tell"
    if "Norms" not in asked:
        seen = "single directions of normalized rows tell"
    if first:
        headline = "Not Gaussian. Failed: " + ", ".join(first + second).lower() + "."
    elif second:
        headline = (
            f"Gaussian as far as {seen}, but not an isotropic Gaussian around 0. "
            f"Failed: {', '.join(second).lower()}."
        )
    else:
        headline = (
            f"Gaussian as far as {seen}, and isotropic around 0, as InfoNCE is said to "
            "make embeddings."
        )
    if "Joint tests" in failed and not first:
        headline += " Joint tests of all directions at once do see a difference."
    headline = " ".join([headline, *words.reasons(found)])
    return results.Verdict(
        gaussian=not first,
        isotropic_gaussian=not first and not second,
        headline=headline,
        rule=f"Called Gaussian where {words.listed(single)} pass, and isotropic where "
        f"{words.listed(around)} pass too. Joint tests are reported separately: with "
        "thousands of rows they see differences that do not matter.",
    )
