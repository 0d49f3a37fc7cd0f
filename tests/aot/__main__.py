"""Records what the compiler says today: `python -m tests.aot`, and look at the diff."""

import json

from jaxcl import _files
from tests.aot import programs


def main() -> None:
    known = json.loads(programs.RECORDED.read_text())
    known[programs.version()] = {name: programs.record(name) for name in programs.CASES}
    _files.write_json(programs.RECORDED, known)


if __name__ == "__main__":
    main()
