"""Whether the detective finds 24 hidden preparations, by the answers of other code than ours.

    PYTHONPATH=. .venv/bin/python bench/detective.py [--only NAME]

Exit code 1 unless 22 are found, or shown to be equivalent to what is found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from convoy.tables import plain_console
from export.adoption.detective.report import difference
from export.console import table
from tests.export.adoption.detective.hidden import HIDDEN, find, verdict, write_pictures

NEEDED = 22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="part of the names")
    only = parser.parse_args().only
    shown = table(
        "reference", "verdict", "in place of", numbers=("settings", "seconds", "off by", "at most")
    )
    solved = 0
    with tempfile.TemporaryDirectory() as root:
        pictures = Path(root, "pictures")
        write_pictures(pictures)
        for number, hidden in enumerate(HIDDEN):
            if only not in hidden.name:
                continue
            start_s = time.monotonic()
            findings, _ = find(hidden, pictures, Path(root, str(number)))
            outcome = verdict(hidden, findings)
            solved += outcome in ("found", "equivalent")
            other = difference(findings.best, hidden.setting) if hidden.setting else "not ours"
            shown.add_row(
                hidden.name,
                outcome,
                other,
                str(findings.tried),
                f"{time.monotonic() - start_s:.0f}",
                f"{findings.differences.mean():.1e}",
                f"{findings.differences.max():.1e}",
            )
            print(f"{hidden.name}: {outcome}", file=sys.stderr)
    plain_console().print(shown)
    print(f"{solved} of {len(HIDDEN)} found, or shown to be equivalent")
    raise SystemExit(0 if only or solved >= NEEDED else 1)


if __name__ == "__main__":
    main()
