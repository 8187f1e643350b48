"""The shipped rule files, and what each rule needs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

GRAFANA: Final = Path(__file__).parents[2] / "grafana"
RECORDING: Final = GRAFANA / "prometheus" / "recording_rules.yml"
THRESHOLDS: Final = GRAFANA / "prometheus" / "thresholds.yml"
ALERTS: Final = GRAFANA / "prometheus" / "alerts.yml"
FILES: Final = (RECORDING, THRESHOLDS, ALERTS)

_RECORDED: Final = re.compile(r"costspan:\w[\w:]*")


@lru_cache
def groups(*files: Path) -> list[dict[str, Any]]:
    return [group for file in files for group in yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)["groups"]]


def rules(*files: Path) -> list[dict[str, Any]]:
    return [rule for group in groups(*files) for rule in group["rules"]]


def read(text: str) -> set[str]:
    """Recorded series that an expression or annotation reads, without those that only a user records."""
    return {name for name in _RECORDED.findall(text) if not name.startswith("costspan:override:")}


def needed(names: Iterable[str]) -> list[dict[str, Any]]:
    """The groups with only the rules of these names (alerts or recorded series) and whatever they read, in order."""
    wanted = {*names}
    everything = rules(*FILES)
    while True:
        more = {
            name
            for rule in everything
            if (rule.get("alert") or rule["record"]) in wanted
            for name in read(rule["expr"] + str(rule.get("annotations", "")))
        }
        if more <= wanted:
            break
        wanted |= more
    kept = []
    for group in groups(*FILES):
        chosen = [rule for rule in group["rules"] if (rule.get("alert") or rule["record"]) in wanted]
        if chosen:
            kept.append({**group, "rules": chosen})
    return kept


def inlined(expr: str, *, keep: Iterable[str] = ()) -> str:
    """The expression with recorded series replaced by what they record, except those in `keep`.

    It gives the same, unless a series is read over a range or at another time: those must be kept, and recorded.
    """
    recorded = {rule["record"]: rule["expr"] for rule in rules(RECORDING, THRESHOLDS)}

    def put(found: re.Match[str]) -> str:
        name = found[0]
        if name in keep or name not in recorded:
            return name
        return f"({_RECORDED.sub(put, recorded[name])})"

    return _RECORDED.sub(put, expr)
