"""What an encoder has learned: probes of a run's frozen representations, and pictures.

python -m experiments.linear_probe runs/simclr

The same as `jaxcl probe runs/simclr`, for those who run the repository.
"""

from jaxcl import _cli
from jaxcl.tools import probe

if __name__ == "__main__":
    _cli.run(probe.main, probe.Settings, prog="python -m experiments.linear_probe")
