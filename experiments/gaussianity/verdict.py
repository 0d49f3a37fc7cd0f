"""What the numbers mean, each by a stated rule, and all of them summed up."""

from typing import Any

import numpy as np
from scipy import stats

from experiments.gaussianity import samples

Check = dict[str, Any]  # name, passed (None: not asked), rule, found, means


def judge(found: dict[str, Any]) -> list[Check]:
    """What the numbers of the report mean, by stated rules.

    Args:
      found: the report's results, without checks and verdict.

    Returns:
      Dictionaries of name, passed (None: not asked), rule, found and means.
    """
    together = found["joint"]
    return [
        _columns("Coordinates", found["coordinates"], _tails(found["per_coordinate"])),
        _columns("Random directions", found["directions"], ""),
        _norms(found["norms"], found["rows"]["used"]),
        _thin_shell(found["norms"], found["columns"]["tested"]),
        _centered(found["mean"]),
        _isotropic(found["covariance"], found["columns"], found["rows"]),
        {"name": "Joint tests"}
        | {key: together[key] for key in ("passed", "rule", "found", "means")},
    ]


def _tails(per_coordinate: list[dict[str, Any]]) -> str:
    """How coordinates that fail differ from a Gaussian's."""
    tails = np.median([c["excess_kurtosis"] for c in per_coordinate])
    skewed = np.median([abs(c["skewness"]) for c in per_coordinate])
    weight = "heavier tails" if tails > 0 else "lighter tails"
    return (
        f" The median coordinate has an excess kurtosis of {tails:.2g}"
        + (f" ({weight})" if abs(tails) > 0.1 else "")
        + f" and a skewness of {skewed:.2g} in size; a Gaussian has 0, 0."
    )


def _columns(name: str, x: dict[str, Any], differs: str) -> Check:
    """Of coordinates or random directions, each tested by itself."""
    what = "Coordinate by coordinate" if name == "Coordinates" else "Along them"
    passed = (
        x["ad_mean"] < samples.AD_LIMIT
        and x["dp_mean"] > samples.DP_LIMIT
        and min(x["ad_pass"], x["dp_pass"]) >= x["needed_pass"]
    )
    return {
        "name": name,
        "passed": passed,
        "rule": f"mean AD < {samples.AD_LIMIT}, mean p of DP > {samples.DP_LIMIT}, and "
        f"each test passed by {100 * x['needed_pass']:.0f} % (Gaussian: 0.385, 0.50, "
        "95 %)",
        "found": f"{x['num_tested']} on {x['num_samples']} rows: "
        f"AD {x['ad_mean']:.3g}, {100 * x['ad_pass']:.1f} % pass; "
        f"DP p {x['dp_mean']:.2g}, {100 * x['dp_pass']:.1f} % pass",
        "means": f"{what} they cannot be told from a Gaussian by this many rows."
        if passed
        else f"{what} they are not Gaussian.{differs}",
    }


def _norms(norms: dict[str, Any], n: int) -> Check:
    cv, gaussian = norms["cv"], norms["cv_gaussian_of_this_covariance"]
    if gaussian is None:
        return {
            "name": "Norms",
            "passed": None,
            "rule": "not asked of normalized rows",
            "found": f"CV of the norms in the file {cv:.3g}",
            "means": "Normalizing removes the norms; nothing about them counts here.",
        }
    ratio = cv / gaussian
    # Of fewer than 31 rows the norms of one Gaussian sample in 200 spread even less.
    least = min(2 / 3, float(np.sqrt(stats.chi2.ppf(0.005, n - 1) / n)))
    passed = least <= ratio <= 1.5
    wide = "more" if ratio > 1 else "less"
    return {
        "name": "Norms",
        "passed": passed,
        "rule": f"CV (standard deviation over mean) {least:.2f} to 1.5 times that of a "
        "Gaussian with the same mean and covariance",
        "found": f"CV {cv:.3g}, that Gaussian {gaussian:.3g}, ratio {ratio:.2f}",
        "means": "Norms spread as those of a Gaussian with this covariance do."
        if passed
        else f"Norms spread {wide} than those of a Gaussian with this covariance.",
    }


def _thin_shell(norms: dict[str, Any], d: int) -> Check:
    cv, shell = norms["cv"], norms["cv_isotropic_gaussian"]
    thin = cv <= 2 * shell
    means = {
        True: "The rows lie on a shell as thin as theory asks."
        if d >= 16
        else "CV as of a Gaussian; in so few dimensions no shell is thin.",
        False: "Norms vary too much for a thin shell.",
        None: "Norms before normalizing, told for what they are.",
    }
    passed = None if norms["cv_gaussian_of_this_covariance"] is None else thin
    return {
        "name": "Thin shell",
        "passed": passed,
        "rule": f"CV at most twice that of an isotropic Gaussian in {d} dimensions, "
        f"{shell:.4g} (1/sqrt(2d) = {norms['cv_thin_shell_approximation']:.4g})",
        "found": f"CV {cv:.3g}, {cv / shell:.2f} times as much",
        "means": means[passed],
    }


def _centered(mean: dict[str, Any]) -> Check:
    share, p = mean["share_beyond_chance"], mean["p_if_centered"]
    passed = share <= 0.1 or p >= 0.01
    return {
        "name": "Centered",
        "passed": passed,
        "rule": "at most 10 % of the mean squared norm is the mean's, beyond what few "
        "rows give by chance; or p >= 0.01 that all of it is chance",
        "found": f"{100 * share:.2f} % beyond chance, p {p:.2g}",
        "means": "The embeddings lie around the origin."
        if passed
        else "The embeddings lie to one side of the origin: cosines are raised, and "
        "norms and cosines say less about their shape.",
    }


def _isotropic(
    cov: dict[str, Any], columns: dict[str, Any], rows: dict[str, Any]
) -> Check:
    d, n = columns["tested"], rows["used"]
    passed = cov["participation"] >= 0.8 * d
    scatter = cov["participation_std_if_isotropic"]
    alike = "All directions are used alike"
    if n <= d:
        alike += f", as far as {n:,} rows tell: too few to see them one by one"
    condition = "infinite" if cov["condition"] is None else f"{cov['condition']:.3g}"
    return {
        "name": "Isotropic",
        "passed": passed,
        "rule": "participation (tr S)^2 / tr(S^2) of the covariance S at least 80 % of "
        f"the {d} dimensions, estimated without the bias of few rows",
        "found": f"participation {cov['participation']:.4g} of {d} (standard error "
        f"about {scatter:.2g}); of these rows the largest eigenvalue has "
        f"{100 * cov['largest_share']:.2g} % of the variance, condition {condition}",
        "means": f"{alike}."
        if passed
        else "Directions are used unevenly, as if there were "
        f"{cov['participation']:.0f} of {d}.",
    }


def verdict(checks: list[Check]) -> dict[str, Any]:
    """Sums the checks up.

    Returns:
      gaussian, isotropic_gaussian, headline and rule.
    """
    failed = [c["name"] for c in checks if c["passed"] is False]
    asked = [c["name"] for c in checks if c["passed"] is not None]
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
    return {
        "gaussian": not first,
        "isotropic_gaussian": not first and not second,
        "headline": headline,
        "rule": f"Gaussian: {_listed(single)} pass. Isotropic: {_listed(around)} pass "
        "too. Joint tests are told beside: with thousands of rows they see differences "
        "that do not matter.",
    }


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]).lower()
