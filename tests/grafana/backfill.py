"""Samples of the past in a Prometheus, and what the recording rules make of them."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.grafana.prometheus import binary, serve
from tests.grafana.rules import RECORDING, inlined, needed, read, rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RUNNING = "costspan:rules:running"


class Scrapes:
    """Lines of OpenMetrics by family. `History` would do, at four times the time."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    def add(self, family: str, kind: str, head: str, at: int, value: float) -> None:
        self.lines.setdefault(family, [f"# TYPE {family} {kind}\n"]).append(f"{head} {value} {at}\n")

    def blocks(self, data: Path) -> None:
        """Into the data directory, in blocks of weeks: promtool reads its input once for each block."""
        data.mkdir(exist_ok=True)
        file = data.with_suffix(".openmetrics")
        with file.open("w", encoding="utf-8") as out:
            for lines in self.lines.values():
                out.writelines(lines)
            out.write("# EOF\n")
        command = [binary("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=486h", "openmetrics"]
        subprocess.run([*command, "--quiet", str(file), str(data)], check=True, capture_output=True, text=True)
        file.unlink()


def head(name: str, labels: Mapping[str, str]) -> str:
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


def over_time(names: Iterable[str]) -> list[str]:
    """Recorded series that rules of these names read over a range or at another time, each after those it reads."""
    text = {(rule.get("alert") or rule["record"]): rule["expr"] for group in needed(names) for rule in group["rules"]}
    found = {name for expr in text.values() for name in read(expr) if re.search(rf"{name}(\[| offset)", expr)} - {
        "costspan:rules:running"
    }
    return [rule["record"] for rule in rules(RECORDING) if rule["record"] in found]


def record(data: Path, times: range, names: Iterable[str]) -> None:
    """Add what the recording rules of these names give at these times; what they read over time must be among them.

    A rule sees what the rules before it have recorded, so those that read each other go one server after another.
    """
    kept = {*names, RUNNING}
    waiting = {rule["record"]: rule["expr"] for rule in rules(RECORDING) if rule["record"] in kept - {RUNNING}}
    running = Scrapes()
    for at in times:
        running.add(RUNNING, "unknown", RUNNING, at, 1)
    running.blocks(data)
    while waiting:
        whole = {name: inlined(expr, keep=kept) for name, expr in waiting.items()}
        ready = {name: expr for name, expr in whole.items() if not read(expr) & {*waiting}}
        recorded = Scrapes()
        with serve(data) as prometheus:
            for name, expr in ready.items():
                for series in prometheus.range(expr, times[0], times[-1], times.step):
                    labels = {key: value for key, value in series["metric"].items() if key != "__name__"}
                    for at, value in series["values"]:
                        recorded.add(name, "unknown", head(name, labels), int(at), float(value))
        recorded.blocks(data)
        waiting = {name: expr for name, expr in waiting.items() if name not in ready}
