"""Measure what must hold: `python -m tests.bars [--full] [--only NAME,...] [--json FILE]`.

`--full` takes the full sizes; without it everything is smaller. Exit status 1 if a bar does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.bars import book, budgets, collector, faults, fleet, insight, ledger, measures, others
from tests.bars.report import Bar

_MODULES = (book, measures, faults, budgets, fleet, collector, insight, ledger)
MEASURES = {name: measure for module in _MODULES for name, measure in module.MEASURES.items()}
BY_NAME = others.MEASURES
"""Measured only when they are named: they install the packages of many others."""

_WORD = {True: "holds", False: "FAILS", None: "skipped"}


def main() -> None:
    """Run what is asked for, print a line a bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.bars", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the full sizes")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {', '.join((*MEASURES, *BY_NAME))}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the bars here too")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name] or list(MEASURES)
    if unknown := set(wanted) - MEASURES.keys() - BY_NAME.keys():
        parser.error(f"no measure is called {', '.join(sorted(unknown))}")

    bars: list[Bar] = []
    _print(("bar", "", "figure", "limit", ""))
    for name in wanted:
        started = time.monotonic()
        try:
            found = list({**MEASURES, **BY_NAME}[name](arguments.full))
        except Exception as error:  # a measure that cannot run is a bar that does not hold
            found = [Bar(name, "-", "-", False, f"{type(error).__name__}: {error}")]
        for bar in found:
            _print((bar.name, _WORD[bar.holds], bar.figure, bar.limit, bar.note))
        bars += found
        print(f"  ({name}: {time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
    if arguments.json:
        told = {"full": arguments.full, "bars": [bar._asdict() for bar in bars]}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    failed = sum(bar.holds is False for bar in bars)
    skipped = sum(bar.holds is None for bar in bars)
    print(f"{len(bars)} bars: {len(bars) - failed - skipped} hold, {failed} fail, {skipped} skipped")
    sys.exit(1 if failed else 0)


def _print(columns: tuple[str, str, str, str, str]) -> None:
    name, word, figure, limit, note = columns
    print(f"{name:<24}{word:<9}{figure:<26}{limit:<12}{note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
