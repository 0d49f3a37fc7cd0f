"""What the synthetic runs say, in sentences that are computed from them."""

import math
from collections.abc import Iterator

from experiments.gaussianity import inputs, measures
from experiments.gaussianity import synthetic_runs as runs_lib
from experiments.gaussianity.synthetic_settings import Settings
from jaxcl import diagnostics


def conclude(
    s: Settings, runs: dict[inputs.Name, dict[str, runs_lib.Trained]]
) -> Iterator[str]:
    """Sentences about what agrees with theory and paper, computed from the runs."""
    for name, of_input in runs.items():
        run = of_input["InfoNCE"]
        before, after = run.first.measures, run.last.measures
        was, became = measures.is_gaussian(before), measures.is_gaussian(after)
        if was and became:
            text = f"Gaussian, but so it was untrained (CLT over {s.size} numbers)"
        elif became:
            text = "training made it Gaussian, as the paper reports"
        elif was:
            text = "Gaussian untrained, and training undid it, unlike in the paper"
        else:
            text = "not Gaussian, untrained or trained, unlike in the paper"
        if "with penalty" in of_input:
            with_it = measures.is_gaussian(of_input["with penalty"].last.measures)
            text += f"; with the penalty {'Gaussian' if with_it else 'not Gaussian'}"
        yield f"{name}: {text}."
        yield (
            f"{name}: cv {before.cv:.3f} -> {after.cv:.3f}, "
            f"{diagnostics.gaussian_norm_cv(s.dimension):.3f} if Gaussian."
        )
        if name == "laplace" and s.encoder == "linear" and s.dimension <= s.size:
            yield from conclude_laplace(s, run)
        else:
            yield (
                f"{name}: alignment {before.alignment:.3f} -> {after.alignment:.3f}, "
                f"standard deviation of negatives {before.negative_std:.3f} -> "
                f"{after.negative_std:.3f}, {s.dimension**-0.5:.3f} if uniform."
            )
        yield from conclude_radius(s, name, of_input)


def conclude_laplace(s: Settings, run: runs_lib.Trained) -> Iterator[str]:
    """What is known in closed form of a linear map of laplace."""
    before, after = run.first.measures, run.last.measures
    n = len(run.last.positives)
    when = f"after {len(run.norm):,} steps, on {n:,} inputs"
    ceiling = inputs.view_correlation(s)
    # What the theory neglects, or four standard errors where there are few inputs.
    within = max(0.02, 4 * float(run.last.positives.std()) / math.sqrt(n))
    agrees = abs(after.alignment - ceiling) < within
    yield (
        f"laplace: alignment {before.alignment:.3f} -> {after.alignment:.3f} {when}; "
        f"theory {ceiling:.3f} +- {within:.3f}: {'agrees' if agrees else 'DISAGREES'}. "
        "The paper's figure shows about 0.97: "
        f"{abs(after.alignment - 0.97):.2f} away."
    )
    cv = inputs.projection_cv(s, s.dimension)
    # A standard deviation of n nearly normal norms scatters by 1 / sqrt(2 n) of itself.
    within = max(0.1, 4 / math.sqrt(2 * n)) * cv
    agrees = abs(after.cv - cv) < within
    yield (
        f"laplace: cv {after.cv:.3f} {when}; of an orthonormal projection {cv:.3f} +- "
        f"{within:.3f}: {'agrees' if agrees else 'DISAGREES'}."
    )


def conclude_radius(
    s: Settings, name: str, of_input: dict[str, runs_lib.Trained]
) -> Iterator[str]:
    """Whether the norm drifts without the penalty and stays with it."""
    target = math.sqrt(s.dimension / (2 * s.lam))
    for kind, run in of_input.items():
        tail = run.norm[-max(1, len(run.norm) // 10) :].mean()
        if kind == "InfoNCE":
            yield (
                f"{name}: without penalty the norm of views goes from "
                f"{run.norm[0]:.2f} to {tail:.2f} after {len(run.norm):,} steps: "
                f"{'it drifts' if tail > 1.05 * run.norm[0] else 'it does NOT grow'}."
            )
        else:
            near = abs(tail / target - 1) < 0.05
            yield (
                f"{name}: with penalty it is {tail:.2f} after {len(run.norm):,} steps, "
                f"{'pinned' if near else 'NOT pinned'} at sqrt(d / (2 lambda)) = "
                f"{target:.2f}."
            )
