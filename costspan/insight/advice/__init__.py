"""Advice: what would cost less, from what a ledger shows, with the arithmetic to check it by.

`advise` gives it, `saved_by` says what advice that was followed has saved since. docs/advice.md has the categories.
"""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from costspan.insight.advice.evidence import Evidence
from costspan.insight.advice.model import MONTH, URGENCY, Advice, Category, Savings, Step, Thresholds
from costspan.insight.advice.rules import RULES, Case
from costspan.insight.advice.taken import Saved, saved_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Engine

    from costspan_pricing import PriceBook

__all__ = [
    "MONTH", "URGENCY", "Advice", "Category", "Saved", "Savings", "Step", "Thresholds", "advise", "saved_by",
    "together",
]  # fmt: skip


def advise(
    engine: Engine,
    start: int,
    end: int,
    *,
    book: PriceBook,
    at_ns: int | None = None,
    thresholds: Thresholds | None = None,
    candidates: Iterable[str] = (),
    providers: Iterable[str] = (),
    unhurried: Iterable[str] = (),
) -> list[Advice]:
    """The advice that the calls between ``start`` and ``end`` (unix seconds) bear out, what saves most first.

    book, at_ns: the prices, and the instant whose prices count (unix nanoseconds, by default now); calls after it do
        not.
    candidates: models, provider/model, that are good enough; without any, smaller models of the same family are
        suggested for a trial.
    providers: providers to compare with, besides those that the ledger has calls of.
    unhurried: tasks whose answers nobody waits for, whatever the priority of their calls.

    Empty where there were calls on less than three days, or too few. Savings do not add up where advice
    `excludes` other advice: see `together`.
    """
    limits = thresholds or Thresholds()
    when = time.time_ns() if at_ns is None else at_ns
    # Of what is still to come nothing is known; hours without calls are known to be such.
    evidence = Evidence(engine, start, min(end, -(-when // 10**9)))
    if evidence.days <= 0 or sum(map(bool, evidence.daily())) < limits.days or evidence.total.calls < limits.calls:
        return []
    case = Case(evidence, book, when, limits, tuple(candidates), tuple(providers), frozenset(unhurried))
    found = {one.id: one for rule in RULES for one in rule(case) if one is not None}
    advice = sorted(found.values(), key=lambda one: (-_saving(one), one.id))
    return [
        replace(one, excludes=tuple(other.id for other in advice if other is not one and _overlap(one, other)))
        for one in advice
    ]


def together(advice: Sequence[Advice]) -> Decimal:
    """USD a month that all of it saves at least: of advice that excludes each other, what saves more."""
    chosen: list[Advice] = []
    for one in sorted(advice, key=lambda one: (-_saving(one), one.id)):
        if one.savings is not None and not any(other.id in one.excludes for other in chosen):
            chosen.append(one)
    return sum((_saving(one) for one in chosen), Decimal(0))


def _saving(advice: Advice) -> Decimal:
    return Decimal(0) if advice.savings is None else advice.savings.expected


def _overlap(one: Advice, other: Advice) -> bool:
    """Whether both may be about the same calls. What calls a subject does not name, it has all of."""
    if one.savings is None or other.savings is None:
        return False
    ours, theirs = one.subject, other.subject
    # `tier` and `task` that are not said are values of their own: an advice is about those calls alone.
    for name in ("provider", "model", "task", "tier"):
        if ours.get(name, "") != theirs.get(name, ""):
            return False
    return not ("prefix" in ours and "prefix" in theirs and ours["prefix"] != theirs["prefix"])
