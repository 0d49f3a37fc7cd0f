"""Whether anyone's embeddings are Gaussian: `jaxcl report FILE`.

One pass over the whole file gives norms, mean, covariance and moments in bounded
memory; the tests of normality then see a random sample of its rows.

    results = report.main(report.Settings("z.npy", out="somewhere"))
    results.verdict.gaussian
"""

from jaxcl import _optional

for _package in ("jinja2", "matplotlib", "scipy", "sklearn", "tqdm", "tyro"):
    _optional.require(_package, "jaxcl.report", "tools")

from jaxcl.report.command import Settings, main
from jaxcl.report.results import Check, Results, Verdict
from jaxcl.report.rules import coordinates_pass

__all__ = ["Check", "Results", "Settings", "Verdict", "coordinates_pass", "main"]
