"""Periods of time and what holds in them: splitting, patching and replacing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALWAYS: Final = (-(2**63), 2**63)
"""First and last instant of an open period, in unix nanoseconds."""


def nanoseconds(instant: str) -> int:
    """An RFC 3339 instant or a date (midnight UTC) as unix nanoseconds.

    >>> nanoseconds("2025-06-10T00:00:00Z") == nanoseconds("2025-06-10")
    True
    """
    moment = datetime.fromisoformat(instant)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9


def spans(periods: Iterable[Mapping[str, Any]], layer: str, where: str) -> list[dict[str, Any]]:
    """The periods of one layer, with their ends as nanoseconds and the layer's name in each.

    Raises ``ValueError`` if one ends before it begins or two overlap; those that only extend may, and hold in order.
    """
    ready = [
        {
            **period,
            "layer": layer,
            "from_ns": nanoseconds(period["from"]) if period.get("from") else ALWAYS[0],
            "to_ns": nanoseconds(period["to"]) if period.get("to") else ALWAYS[1],
        }
        for period in periods
    ]
    end = ALWAYS[0]
    for period in sorted(ready, key=lambda period: int(period["from_ns"])):
        if period["to_ns"] <= period["from_ns"] or (not period.get("extends") and period["from_ns"] < end):
            raise ValueError(f"{where}: the period from {period.get('from')} overlaps another or ends too early")
        if not period.get("extends"):
            end = period["to_ns"]
    return ready


def layered(lower: list[dict[str, Any]], upper: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Periods of an upper layer laid over those of a lower one.

    An upper period replaces what is below it, or with ``extends`` changes only what it names; what it does not cover in
    time stays as it was.
    """
    for period in upper:
        start, end = period["from_ns"], period["to_ns"]
        below: list[dict[str, Any]] = []
        for old in lower:
            if old["from_ns"] < start:
                below.append({**old, "to_ns": min(old["to_ns"], start)})
            if period.get("extends") and old["from_ns"] < end and old["to_ns"] > start:
                below.append(_patched(old, period))
            if old["to_ns"] > end:
                below.append({**old, "from_ns": max(old["from_ns"], end)})
        if not period.get("extends"):
            below.append(period)
        lower = sorted(below, key=lambda span: int(span["from_ns"]))
    return lower


def _patched(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    new = _overlaid(old, patch)
    new["from_ns"] = max(old["from_ns"], patch["from_ns"])
    new["to_ns"] = min(old["to_ns"], patch["to_ns"])
    new["layer"] = patch["layer"]
    new["source"] = patch.get("source") or old.get("source", "")
    if patch.get("fallback"):
        new["fallback"] = {**old.get("fallback", {}), **patch["fallback"]}
    if patch.get("tiers"):
        tiers = dict(old.get("tiers", {}))
        for name, tier in patch["tiers"].items():
            tiers[name] = _overlaid(tiers.get(name, {}), tier)
        new["tiers"] = tiers
    return new


def _overlaid(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Rates and context tiers of a patch over old ones; context tiers meet by their threshold."""
    new = {**old, "rates": {**old.get("rates", {}), **patch.get("rates", {})}}
    if patch.get("context_tiers"):
        tiers = {tier["over"]: tier for tier in old.get("context_tiers", ())}
        for tier in patch["context_tiers"]:
            below = tiers.get(tier["over"], {"rates": {}})
            tiers[tier["over"]] = {**below, **tier, "rates": {**below["rates"], **tier["rates"]}}
        new["context_tiers"] = list(tiers.values())
    return new
