"""Makes the tables and the pictures of docs/RESULTS.md from docs/results/.

    python benchmarks/study_results.py

A table stands between the lines `<!-- study: NAME -->` and `<!-- end of study -->`; the text around
the tables is written by hand and stays. The pictures are docs/pictures/study_*.png.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

from study_parts.pictures import draw_all
from study_parts.results import Results
from study_parts.tables import SECTIONS

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_bytes

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
_SECTION = re.compile(r"(<!-- study: (?P<name>[\w ]+) -->\n).*?(<!-- end of study -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, default=DOCS / "results")
    parser.add_argument("--page", type=pathlib.Path, default=DOCS / "RESULTS.md")
    parser.add_argument("--pictures", type=pathlib.Path, default=DOCS / "pictures")
    args = parser.parse_args()
    try:
        results = Results(args.results)
        write_bytes(args.page, rewritten(args.page.read_text(), results).encode())
        draw_all(results, args.pictures)
    except (UsageError, FailureError) as error:
        print(f"study_results.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def rewritten(page: str, results: Results) -> str:
    """The page with its tables made anew.

    Raises:
        UsageError: it has a section that there is no table for, or lacks one.
    """
    names = [match["name"] for match in _SECTION.finditer(page)]
    if sorted(names) != sorted(SECTIONS):
        raise UsageError(
            f"The page has the sections {', '.join(names) or 'none'}; expected each of "
            f"{', '.join(SECTIONS)} once."
        )
    return _SECTION.sub(
        lambda match: f"{match[1]}\n{SECTIONS[match['name']].text(results)}\n{match[3]}", page
    )


if __name__ == "__main__":
    sys.exit(main())
