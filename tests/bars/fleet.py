"""A month of the demo's fleet in Prometheus: made in time, and right to the cent."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from costspan.demo import month
from costspan.demo.fleet import DAY, Fleet, Story
from costspan.demo.live import quiet
from costspan.grafana.export import shipped
from tests.bars.report import Bar, at_most, without_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAMES: Final = ("today", "week_to_date", "month_to_date", "by_team")


def fleet(full: bool) -> Iterator[Bar]:
    """Thirty days (three without `--full`) with 200 one-call processes, against what the processor has counted."""
    names = tuple(f"fleet.{name}" for name in (*NAMES, "calls", "seconds"))
    if shutil.which("prometheus") is None:
        yield from without_program(names, "prometheus")
        return
    days = 30 if full else 3
    # Rules that are evaluated every four minutes are evaluated at the end too; scrapes begin with the first call.
    end = int(time.time()) // 240 * 240
    story = Story((end - days * DAY) // 1200 * 1200, end)
    began, used = time.monotonic(), _cpu()
    with quiet(), tempfile.TemporaryDirectory() as folder, month.Prometheus(Path(folder) / "data") as prometheus:
        lived = Fleet(story)
        samples = month.make(lived, month.grid(story.start, end), prometheus, month.rules(shipped()))
        seconds = time.monotonic() - began
        today = datetime.fromtimestamp(end, UTC).replace(hour=0, minute=0, second=0)
        begins = (today, today - timedelta(days=today.weekday()), today.replace(day=1))
        for name, begin in zip(NAMES, begins, strict=False):
            truth = lived.since(int(begin.timestamp())).total() / 1e12
            ((found,),) = ((float(one["value"][1]),) for one in prometheus.query(f"sum(costspan:cost_USD:{name})", end))
            yield at_most(f"fleet.{name}", abs(found - truth), 0.005, ".6f", f"USD beside the truth, {truth:,.2f}")
        teams: dict[str, float] = {}
        for (_, _, _, team), pico in lived.since(int(begins[-1].timestamp())).items():
            teams[team] = teams.get(team, 0.0) + pico / 1e12
        by = prometheus.query("sum by (costspan_team) (costspan:cost_USD:month_to_date)", end)
        shown = {one["metric"].get("costspan_team", ""): float(one["value"][1]) for one in by}
        worst = max(abs(shown.get(team, 0.0) - usd) for team, usd in teams.items())
        yield at_most("fleet.by_team", worst, 0.005, ".6f", f"USD beside the truth, the worst of {len(teams)} teams")
    least = days * 3_000
    note = f"{lived.one_call_processes} of them by processes of one call; {samples:,} samples"
    yield Bar(
        "fleet.calls", f"{lived.calls():,}", f">= {least:,}",
        lived.calls() >= least and lived.one_call_processes == story.one_call_processes, note,
    )  # fmt: skip
    # Of processors, Prometheus' too: other programs of the machine make the clock's longer.
    note = f"of processors, for {days} days; {seconds:.0f} s by the clock"
    yield at_most("fleet.seconds", _cpu() - used, 120 if full else 60, ".0f", note)


def _cpu() -> float:
    """Seconds of processors that this process and its ended children have used."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


MEASURES: Final[Mapping[str, Callable[[bool], Iterator[Bar]]]] = {"fleet": fleet}
"""Name for `--only` -> what measures it."""
