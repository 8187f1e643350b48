"""The shipped rule files, and what their recording rules make of a history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.grafana.prometheus import History, load, serve

if TYPE_CHECKING:
    from tests.grafana.fleet import Story

GRAFANA: Final = Path(__file__).parents[2] / "grafana"
RECORDING: Final = GRAFANA / "prometheus" / "recording_rules.yml"
ALERTS: Final = GRAFANA / "prometheus" / "alerts.yml"


def rules(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def record(data: Path, start: int, end: int) -> None:
    """Evaluate the recording rules over the blocks in `data`, once a minute as Prometheus does, and add what they give.

    Rules see what the rules before them have recorded, so each is evaluated by a server of its own. What only the end
    is asked of (today, the hour, the month) is evaluated for the last ten minutes alone.
    """
    for rule in rules(RECORDING):
        name, expr = rule["record"], rule["expr"]
        if name == "costspan:rules:running":
            continue
        first = start if name == "costspan:cost_USD:delta1m" else end - 600
        recorded = History()
        with serve(data) as prometheus:
            for series in prometheus.range(expr, first, end):
                labels = {key: value for key, value in series["metric"].items() if key != "__name__"}
                for at, value in series["values"]:
                    recorded.add(name, "unknown", name, labels, int(at), float(value))
        load(recorded, data)


def blocks(story: Story, minutes: int, data: Path) -> None:
    """A data directory with the story, and the recordings of it."""
    load(story.history, data)
    record(data, story.end - minutes * 60, story.end)
