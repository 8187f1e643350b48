"""What the calls of a process have cost, as one plain dictionary.

`summarise()` makes it from the rows of the processor's table; `costspan.summary()`, `costspan run` and the demo all
show this one, and `to_json()` writes it.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, TypedDict

from costspan_pricing import PICO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from costspan_processor.metrics import Totals

NOT_PRICED = ("unknown_model", "unknown_provider", "no_usage", "invalid_usage", "partial")
"""The values of `costspan.cost.status` that leave something out of the sum."""

NO_FEATURE = "(none)"
"""Stands in `by_feature` for calls that were booked on no feature."""


class Tokens(TypedDict):
    """Tokens. `input` contains `cache_read` and `cache_write`; `output` contains reasoning."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    total: int


class Line(TypedDict):
    """The figures of one group of calls."""

    calls: int
    failed: int
    """Calls that ended in an error and used nothing: they cost nothing."""
    unpriced: int
    """Calls that have no figure, or only part of one: `cost` is too low by what they cost."""
    cost: Decimal
    """USD, exact."""
    tokens: Tokens
    cache_hit_rate: float | None
    """Share of the input tokens that was read from a cache; None without input tokens."""
    saved: Decimal
    """USD saved by cache reads against the input rate."""
    write_premium: Decimal
    """USD paid for cache writes above the input rate."""


class ProviderLine(Line):
    """A provider's figures, and the same by operation."""

    operations: dict[str, Line]


class Efficiency(TypedDict):
    """Ratios over all calls; None where there is nothing to divide by."""

    cost_per_1k_tokens: Decimal | None
    """USD, to twelve places."""
    tokens_per_call: float | None
    input_output_ratio: float | None
    latency: float | None
    """Mean seconds per call, over the calls whose duration is known."""


class Unpriced(TypedDict):
    """Calls whose price is not known, or not all of it, and why."""

    provider: str
    model: str
    status: str
    calls: int


class Summary(TypedDict):
    """What was spent, by provider, operation, model and feature; the dearest group first.

    Models are named `provider/model`, by the model that answered, else the one that was asked for.
    """

    total: Line
    by_provider: dict[str, ProviderLine]
    by_operation: dict[str, Line]
    by_model: dict[str, Line]
    by_feature: dict[str, Line]
    efficiency: Efficiency
    statuses: dict[str, int]
    """Calls by `costspan.cost.status`."""
    unpriced: list[Unpriced]


def summarise(rows: Iterable[Totals]) -> Summary:
    """The summary of the rows of a table (or of several: rows of child processes can be added to our own).

    >>> summarise([])["total"]["cost"], summarise([])["efficiency"]["tokens_per_call"]
    (Decimal('0'), None)
    """
    rows = list(rows)
    total = _line(rows)
    return Summary(
        total=total,
        by_provider={
            provider: ProviderLine(**_line(group), operations=_by(group, lambda row: row.operation))
            for provider, group in _grouped(rows, _provider)
        },
        by_operation=_by(rows, lambda row: row.operation),
        by_model=_by(rows, lambda row: f"{_provider(row)}/{_model(row)}"),
        by_feature=_by(rows, lambda row: row.dimensions.get("costspan.feature", NO_FEATURE)),
        efficiency=_efficiency(total, rows),
        statuses=_statuses(rows),
        unpriced=_unpriced(rows),
    )


def to_json(summary: Summary) -> str:
    """The summary as JSON; USD are decimal strings without exponent.

    >>> json.loads(to_json(summarise([])))["total"]["cost"]
    '0'
    """
    return json.dumps(summary, indent=2, default=_plain)


def _plain(amount: object) -> str:
    if not isinstance(amount, Decimal):
        raise TypeError(f"{amount!r} has no place in a summary")
    return format(amount.normalize(), "f")


def _provider(row: Totals) -> str:
    return row.provider or "unknown"


def _model(row: Totals) -> str:
    return row.response_model or row.request_model or "unknown"


def _dollars(pico: int) -> Decimal:
    return Decimal(pico) / PICO


def _grouped(rows: Sequence[Totals], key: Callable[[Totals], str]) -> list[tuple[str, list[Totals]]]:
    groups: dict[str, list[Totals]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)

    def dearest_first(group: tuple[str, list[Totals]]) -> tuple[int, str]:
        return -sum(sum(row.cost.values()) for row in group[1]), group[0]

    return sorted(groups.items(), key=dearest_first)


def _by(rows: Sequence[Totals], key: Callable[[Totals], str]) -> dict[str, Line]:
    return {name: _line(group) for name, group in _grouped(rows, key)}


def _line(rows: Sequence[Totals]) -> Line:
    def tokens(component: str) -> int:
        return sum(row.tokens.get(component, 0) for row in rows)

    read, write, output = tokens("cache_read"), tokens("cache_write"), tokens("output")
    prompt = tokens("input") + read + write
    return Line(
        calls=sum(sum(row.calls.values()) for row in rows),
        failed=sum(row.failed for row in rows),
        unpriced=sum(row.calls.get(status, 0) for row in rows for status in NOT_PRICED) - sum(r.failed for r in rows),
        cost=_dollars(sum(sum(row.cost.values()) for row in rows)),
        tokens=Tokens(input=prompt, cache_read=read, cache_write=write, output=output, total=prompt + output),
        cache_hit_rate=read / prompt if prompt else None,
        saved=_dollars(sum(row.saved for row in rows)),
        write_premium=_dollars(sum(row.write_premium for row in rows)),
    )


def _efficiency(total: Line, rows: Sequence[Totals]) -> Efficiency:
    tokens = total["tokens"]
    timed = sum(row.timed for row in rows)
    per_1k = round(total["cost"] * 1000 / tokens["total"], 12) if tokens["total"] else None
    return Efficiency(
        cost_per_1k_tokens=per_1k,
        tokens_per_call=tokens["total"] / total["calls"] if total["calls"] else None,
        input_output_ratio=tokens["input"] / tokens["output"] if tokens["output"] else None,
        latency=sum(row.latency_ns for row in rows) / timed / 1e9 if timed else None,
    )


def _statuses(rows: Sequence[Totals]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        for status, calls in row.calls.items():
            counts[status] = counts.get(status, 0) + calls
    return counts


def _unpriced(rows: Sequence[Totals]) -> list[Unpriced]:
    counts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        for status in NOT_PRICED:
            calls = row.calls.get(status, 0) - (row.failed if status == "no_usage" else 0)
            if calls:
                key = (_provider(row), _model(row), status)
                counts[key] = counts.get(key, 0) + calls
    return [
        Unpriced(provider=provider, model=model, status=status, calls=calls)
        for (provider, model, status), calls in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
