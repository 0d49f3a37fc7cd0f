"""When coordinates count as Gaussian: said here, for the report and for experiments."""

from scipy import stats

from jaxcl import diagnostics

AD_LIMIT = diagnostics.ANDERSON_DARLING_LIMIT  # the 5 % point of the statistic
DP_LIMIT = 0.05  # the smallest p that passes
SHARE = 0.85  # of the coordinates that shall pass; 0.95 do if Gaussian


def coordinates_pass(
    *,
    ad_mean: float,
    ad_pass: float,
    dp_mean: float,
    dp_pass: float,
    needed: float = SHARE,
) -> bool:
    """Whether both averages pass, and enough of the coordinates in both tests.

    The paper states no rule for its verdict; this one is ours.

    Args:
      ad_mean: mean over coordinates of Anderson-Darling's statistic.
      ad_pass: share of coordinates in which it is below `AD_LIMIT`.
      dp_mean: mean over coordinates of D'Agostino and Pearson's p.
      dp_pass: share of coordinates in which it is above `DP_LIMIT`.
      needed: the share that is enough.

    Returns:
      True if they cannot be told from a Gaussian's.

    >>> coordinates_pass(ad_mean=0.385, ad_pass=0.95, dp_mean=0.5, dp_pass=0.95)
    True
    """
    averages = ad_mean < AD_LIMIT and dp_mean > DP_LIMIT
    return bool(averages and min(ad_pass, dp_pass) >= needed)


def needed_share(d: int) -> float:
    """Share of d independent columns that Gaussian data reach in 99 of 100 cases.

    At most `SHARE`: among few coordinates chance alone can reject more.
    """
    return min(SHARE, float(stats.binom.ppf(0.01, d, 0.95)) / d)
