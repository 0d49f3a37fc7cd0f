"""Builds the documentation into `site` and checks it: `make docs`."""

import pathlib
import subprocess
import sys

from docs.website import check

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> int:
    """Builds and checks.

    Returns:
      An exit status; 1 for a warning of any part, a dead link or a missing word.
    """
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(built.stdout, end="")
    # --strict does not count what griffe finds in docstrings.
    warned = [line for line in built.stdout.splitlines() if line.startswith("griffe: ")]
    if built.returncode or warned:
        print(f"the site was not built cleanly: {len(warned)} warnings of docstrings")
        return 1
    return min(check.main(ROOT / "site", ROOT / "jaxcl"), 1)


if __name__ == "__main__":
    sys.exit(main())
