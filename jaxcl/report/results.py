"""What a report says, as it is in `results.json`: plain numbers and sentences."""

import math
from typing import Any, NamedTuple


class Rows(NamedTuple):
    """How many rows there are, and what became of them.

    Attributes:
      in_file: all.
      not_finite: with a NaN or an infinity; left out.
      first_not_finite: places of up to five of them, counted from 0.
      without_direction: zero rows that were to be normalized; left out.
      used: all others. Norms, mean and covariance are theirs.
      sampled: those of them, drawn at random, that cosines see.
    """

    in_file: int
    not_finite: int
    first_not_finite: list[int]
    without_direction: int
    used: int
    sampled: int


class Columns(NamedTuple):
    """How many columns there are, and how many vary.

    Attributes:
      in_file: all.
      left_out: constant ones.
      first_left_out: places of up to five of them, counted from 0.
      tested: the others.
    """

    in_file: int
    left_out: int
    first_left_out: list[int]
    tested: int


class Norms(NamedTuple):
    """Of the rows as they are in the file, and what they would be in d dimensions.

    Attributes:
      mean: of the norms.
      std: standard deviation of the norms.
      min: smallest.
      max: largest.
      cv: std divided by mean.
      cv_isotropic_gaussian: of an isotropic Gaussian in d dimensions.
      cv_thin_shell_approximation: 1 / sqrt(2 d).
      cv_gaussian_of_this_covariance: of a Gaussian of the rows' mean and covariance;
        None where rows are normalized.
    """

    mean: float
    std: float
    min: float
    max: float
    cv: float
    cv_isotropic_gaussian: float
    cv_thin_shell_approximation: float
    cv_gaussian_of_this_covariance: float | None


class Mean(NamedTuple):
    """Of all rows.

    Attributes:
      norm: of the mean row.
      share_of_mean_square: its square over the mean square norm.
      share_beyond_chance: the same, less what few rows give by chance.
      p_if_centered: chance of so long a mean, or a longer one, of rows around 0.
    """

    norm: float
    share_of_mean_square: float
    share_beyond_chance: float
    p_if_centered: float


class RowShare(NamedTuple):
    """A row: its place in the file, and its share of the squared distances from the
    mean that make up the variance.
    """

    row: int
    share: float


class Covariance(NamedTuple):
    """Of all rows.

    Attributes:
      trace: sum of the eigenvalues; not finite where float64 cannot hold it.
      largest_share: of the largest one in the trace.
      condition: largest over smallest; None where the smallest is 0 to rounding.
      participation: tr(S)^2 / tr(S^2), at most d, without the bias of few rows; where
        rows lie far out, with it: of the rows as they are.
      participation_std_if_isotropic: its standard error, of isotropic Gaussian rows.
      rank_of_sample: directions in which the rows tested vary by more than rounding.
      effective_rank_of_sample: exp of the entropy of the singular values of the sample.
      rows: those of the largest shares of the variance, up to five.
      outlying_rows: how many have more than Gaussian rows would; counted up to 100.
      share_of_outlying_rows: of the variance.
      share_of_largest_gaussian_row: what the largest of as many Gaussian rows stays
        below in 99 of 100 cases.
    """

    trace: float
    largest_share: float
    condition: float | None
    participation: float
    participation_std_if_isotropic: float
    rank_of_sample: int
    effective_rank_of_sample: float
    rows: list[RowShare]
    outlying_rows: int
    share_of_outlying_rows: float
    share_of_largest_gaussian_row: float


class Hints(NamedTuple):
    """What makes embeddings look other than they are; no test depends on it.

    Attributes:
      copies: rows that are equal to one before, of all that are used.
      copies_explain: whether different rows alone pass the tests that all fail; None:
        nothing fails, or there are few copies.
      zero_rows: of all that are used.
      level_rows: others that hold one value in all columns.
      others_of_one_norm: whether all rows but zero ones have the same.
      columns_of_few_values: fewer than 50 among the different rows tested, and none
        that repeats as below.
      columns_repeating: whose smallest value, largest value or 0 is in more than 1 % of
        the different rows tested.
      repeated_share: of the rows with that value, in the median of these columns.
      repeated_zero: whether it is 0 in all of them.
      maybe_transposed: whether there are more than four times as many columns as rows.
    """

    copies: int
    copies_explain: bool | None
    zero_rows: int
    others_of_one_norm: bool
    level_rows: int
    columns_of_few_values: int
    columns_repeating: int
    repeated_share: float
    repeated_zero: bool
    maybe_transposed: bool


class Normality(NamedTuple):
    """Anderson-Darling's and D'Agostino and Pearson's tests of several columns.

    Attributes:
      num_samples: rows tested.
      num_tested: columns.
      ad_mean: mean statistic of Anderson-Darling.
      ad_pass: share of columns that pass it.
      dp_mean: mean p of D'Agostino and Pearson.
      dp_pass: share of columns that pass it.
      needed_pass: share that must pass; Gaussian data reach it in 99 of 100 cases.
    """

    num_samples: int
    num_tested: int
    ad_mean: float
    ad_pass: float
    dp_mean: float
    dp_pass: float
    needed_pass: float


class JointTest(NamedTuple):
    """A test of several directions at once.

    Attributes:
      directions: their number.
      statistic: of the test.
      p: chance of such a statistic, or a stranger one, of Gaussian rows.
    """

    directions: int
    statistic: float
    p: float


class Joint(NamedTuple):
    """Tests of several directions at once, and what they mean.

    Attributes:
      passed: whether all do; None: not computed.
      tests: by name.
      num_samples: rows tested.
      not_computed: why tests are missing, as sentences.
      rule: by which they pass.
      found: the tests in words.
      means: what follows.
    """

    passed: bool | None
    tests: dict[str, JointTest]
    num_samples: int
    not_computed: list[str]
    rule: str
    found: str
    means: str


class Pairs(NamedTuple):
    """Cosines of some pairs of rows: how many, their mean and standard deviation."""

    pairs: int
    mean: float
    std: float


class Cosines(NamedTuple):
    """Of pairs of rows.

    Attributes:
      reference_std: standard deviation if directions are uniform, 1 / sqrt(d).
      negatives_are_all_pairs: since there are no labels.
      negative: of rows that do not belong together.
      positive: of rows that do, where labels or pairs say so.
    """

    reference_std: float
    negatives_are_all_pairs: bool
    negative: Pairs
    positive: Pairs | None


class OutOfDistribution(NamedTuple):
    """How well scores tell other embeddings from held-out rows.

    Attributes:
      auroc: by name of the score; None where it could not be computed.
      not_computed: why not, as sentences by name of the score.
      chance_std: standard deviation of the AUROC of two samples of one law.
      num_fitted: rows that the scores were fitted on.
      num_held_out: other rows of the file.
      num_other: rows from outside.
    """

    auroc: dict[str, float | None]
    not_computed: dict[str, str]
    chance_std: float
    num_fitted: int
    num_held_out: int
    num_other: int


class Coordinate(NamedTuple):
    """One column: its place in the file, its moments, its tests.

    Attributes:
      column: place in the file, counted from 0.
      mean: of all rows.
      std: standard deviation of all rows.
      skewness: of all rows.
      excess_kurtosis: of all rows; 0 if Gaussian.
      ad: statistic of Anderson-Darling, of the rows tested.
      dp_p: p of D'Agostino and Pearson.
    """

    column: int
    mean: float
    std: float
    skewness: float
    excess_kurtosis: float
    ad: float
    dp_p: float


class Numbers(NamedTuple):
    """All that was measured, before it is judged."""

    file: str
    shape: tuple[int, int]
    dtype: str
    normalized: bool
    rows: Rows
    columns: Columns
    norms: Norms
    mean: Mean
    covariance: Covariance
    coordinates: Normality
    directions: Normality
    joint: Joint
    cosines: Cosines
    ood: OutOfDistribution | None
    hints: Hints
    notes: list[str]
    per_coordinate: list[Coordinate]


class Check(NamedTuple):
    """One question with a stated rule, and the answer.

    Attributes:
      name: of what is asked.
      passed: the answer; None: not asked.
      rule: when it passes.
      found: the numbers it was decided by.
      means: what follows, as a sentence.
    """

    name: str
    passed: bool | None
    rule: str
    found: str
    means: str


class Verdict(NamedTuple):
    """All checks summed up.

    Attributes:
      gaussian: whether coordinates, random directions and norms pass.
      isotropic_gaussian: whether thin shell, centered and isotropic pass too.
      headline: the same in a sentence.
      rule: by which it was decided.
    """

    gaussian: bool
    isotropic_gaussian: bool
    headline: str
    rule: str


class How(NamedTuple):
    """How a report was computed: the command, settings, versions, when, how long."""

    command: str
    settings: dict[str, Any]
    versions: dict[str, str]
    date: str
    seconds: float


class Results(NamedTuple):
    """A report: what was measured, what it means, how it was computed."""

    numbers: Numbers
    checks: list[Check]
    verdict: Verdict
    how: How

    def as_json(self) -> dict[str, Any]:
        """As dictionaries, lists, numbers and text, the measured numbers on top."""
        judged = {key: plain(value) for key, value in self._asdict().items()}
        return judged.pop("numbers") | judged


def plain(value: Any) -> Any:
    """The same in dictionaries in place of named tuples; None for what is no number."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither NaN nor infinity
    return value
