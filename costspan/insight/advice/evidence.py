"""What a ledger shows of a stretch of time, read so that a million calls take about a second.

Costs and tokens by provider, model and task come from the hourly totals, exact. What only calls tell (priority, waste,
outliers) is read from every k-th hour where there are many of them, and weighted up to the totals. The prompts that are
repeated most there are read in full, and of the prefixes that are most frequent there the latest calls.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from decimal import Decimal
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from costspan.insight.figures import HOUR, Figures, Sums, at_edges, hours_of, within
from costspan_pricing import METERS
from costspan_processor.ledger.schema import calls, records, spenders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Engine

    from costspan_pricing import RateCard

READ_AT_MOST: Final = 6_000
"""Rows of calls that the sample has, at about; prefixes, repeated prompts and conversations have half of it each."""
_PREFIXES: Final = 20
_REPEATED: Final = 200
_CONVERSATIONS: Final = 50
_NS: Final = 10**9
_DAY: Final = 86_400


class Kind(NamedTuple):
    """What advice tells calls apart by; the empty text is "not said"."""

    provider: str
    model: str
    task: str
    tier: str


class Call(NamedTuple):
    """What of a call is looked at."""

    id: str
    started: float
    """Unix seconds."""
    kind: Kind
    priority: str
    input_tokens: int
    output_tokens: int
    usage: Mapping[str, int]
    """Disjoint, by meter: tokens alone."""
    cost: int
    """Picodollars; 0 where it has no figure."""
    cost_prompt: int
    """Of input, cache reads and cache writes."""
    wasted: str
    """The type of its error, or "aborted"; the empty text if it ended well."""
    prompt: str
    prefix: str
    prefix_share: float
    conversation: str


_IN_ORDER: Final = attrgetter("started", "id")

_COLUMNS: Final = tuple(
    calls.c[name]
    for name in (
        "id", "started", "provider", "model", "task", "tier", "priority", "input_tokens", "output_tokens",
        "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "usage", "cost", "cost_input",
        "cost_cache_read", "cost_cache_write", "error_type", "aborted", "prompt", "prefix", "prefix_share",
        "conversation",
    )
)  # fmt: skip


def _call(row: Sequence[Any]) -> Call:
    (
        id_, started, provider, model, task, tier, priority, sent, answered, read, written, reasoning, said, cost,
        cost_input, cost_read, cost_written, error, aborted, prompt, prefix, share, conversation,
    ) = row  # fmt: skip
    usage: dict[str, int] = {}
    if written and said:  # how long writes are kept stands there alone
        meters = json.loads(said)
        usage = {meter: int(meters[meter]) for meter in meters if meter in METERS and METERS[meter].unit == "token"}
    return Call(
        id_,
        started / _NS,
        Kind(provider or "", model or "", task or "", tier or ""),
        priority or "",
        sent or 0,
        answered or 0,
        usage or _disjoint(sent, read, written, answered, reasoning),
        cost or 0,
        (cost_input or 0) + (cost_read or 0) + (cost_written or 0),
        error or ("aborted" if aborted else ""),
        prompt or "",
        prefix or "",
        (share or 0) / 1000,
        conversation or "",
    )


def _disjoint(
    sent: int | None, read: int | None, written: int | None, answered: int | None, reasoning: int | None
) -> dict[str, int]:
    found = {
        "input": max(0, (sent or 0) - (read or 0) - (written or 0)),
        "cache_read": read or 0,
        "cache_write_5m": written or 0,
        "output": max(0, (answered or 0) - (reasoning or 0)),
        "output_reasoning": reasoning or 0,
    }
    return {meter: tokens for meter, tokens in found.items() if tokens}


def usage_of(sums: Sums) -> dict[str, int]:
    """Tokens by meter, disjoint. Totals do not tell how long cache writes are kept: five minutes are taken."""
    return _disjoint(
        sums.input_tokens, sums.cache_read_tokens, sums.cache_write_tokens, sums.output_tokens, sums.reasoning_tokens
    )


def priced(card: RateCard, usage: Mapping[str, float], prompt: float) -> Decimal | None:
    """USD of tokens at the rates of a card for prompts of so many tokens; None if one of them has no rate.

    Cache tokens of a model that has no price for them are plain input, as they would be there.
    """
    rates, total = card.rates(math.floor(prompt)), Decimal(0)
    for meter, tokens in usage.items():
        cached = METERS[meter].component in {"cache_read", "cache_write"}
        rate = rates.get(meter) or (rates.get("input") if cached else None)
        if rate is None:
            if card.free:
                continue
            return None
        total += Decimal(rate.numerator) * Decimal(tokens) / rate.denominator
    return total.scaleb(-12)


class Evidence:
    """Reads the stretch from ``start`` to ``end`` (unix seconds) of a ledger, each thing once."""

    def __init__(self, engine: Engine, start: int, end: int) -> None:
        self._engine = engine
        self.figures = Figures(engine)
        known = self.figures.known()
        self.start = start if known is None else max(start, known[0])
        self.end = max(self.start, end)
        self.days = Decimal(self.end - self.start) / _DAY
        """Days of the stretch since the ledger's first call."""

    @cached_property
    def totals(self) -> dict[tuple[Kind, str], Sums]:
        """By kind and operation."""
        found = self.figures.sums(self.start, self.end, ("provider", "model", "task", "tier", "operation"))
        return {(Kind(*values[:4]), values[4]): sums for values, sums in found.items()}

    @cached_property
    def by_kind(self) -> dict[Kind, Sums]:
        """What answered with tokens of text: embeddings, images and speech are another matter."""
        found: dict[Kind, Sums] = {}
        for (kind, operation), sums in self.totals.items():
            if operation in _TEXT and sums.output_tokens:
                found[kind] = found.get(kind, Sums()) + sums
        return found

    @cached_property
    def total(self) -> Sums:
        """All calls of the stretch."""
        return sum(self.totals.values(), Sums())

    @cached_property
    def by_hour(self) -> dict[Kind, dict[int, int]]:
        """Picodollars by whole hours since 1970."""
        found: dict[Kind, dict[int, int]] = defaultdict(dict)
        names = ("hour", "provider", "model", "task", "tier")
        for (hour, *values), spent in self.figures.spent(self.start, self.end, names).items():
            found[Kind(*values)][int(hour)] = spent.cost
        return found

    def daily(self, kinds: Sequence[Kind] | None = None) -> list[float]:
        """USD of each whole day of 24 hours, counted back from the end; of all calls without ``kinds``."""
        last, first = -(-self.end // HOUR), self.start // HOUR
        days = [0.0] * ((last - first) // 24)
        for kind, costs in self.by_hour.items():
            if kinds is None or kind in kinds:
                for hour, cost in costs.items():
                    day = (last - 1 - hour) // 24
                    if day < len(days):
                        days[day] += cost / 10**12
        return days

    @cached_property
    def sample(self) -> list[Call]:
        """All calls where they are few, else those of every k-th hour."""
        first, last = self.start // HOUR, -(-self.end // HOUR)
        step = max(1, -(-self.total.calls // READ_AT_MOST))
        # In time with neither the day nor the week, so that each hour of both has its turn.
        while step > 1 and math.gcd(step, 168) > 1:
            step += 1
        if step == 1:
            return sorted(self._read(*within(self.start, self.end)), key=_IN_ORDER)
        return sorted(self._in_hours(range(first, last, step)), key=_IN_ORDER)

    @cached_property
    def sampled(self) -> dict[Kind, list[Call]]:
        """The sample by kind."""
        found: dict[Kind, list[Call]] = defaultdict(list)
        for call in self.sample:
            found[call.kind].append(call)
        return found

    def weight(self, kind: Kind) -> Decimal:
        """How many calls one of the sample stands for."""
        read = len(self.sampled[kind])
        total = sum(sums.calls for (other, _), sums in self.totals.items() if other == kind)
        return Decimal(total) / read if read else Decimal(0)

    @cached_property
    def prefixes(self) -> dict[str, tuple[int, list[Call]]]:
        """The prefixes that are most frequent, by the sample: how many calls each had, and the latest in order."""
        seen = Counter(call.prefix for call in self.sample if call.prefix)
        found = {}
        for prefix, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:_PREFIXES]:
            count = self._count(prefix)
            if count > 1:
                found[prefix] = count, self._latest(prefix, READ_AT_MOST // 2 // _PREFIXES)
        return found

    def _count(self, prefix: str) -> int:
        """How many calls have a prefix."""
        c = records.c  # of the view of both, SQLite would read each row
        its = c.prefix == prefix, *at_edges(self.start, self.end, records)
        with self._engine.connect() as connection:
            counts = [select(func.count()).where(c.hour.in_(some), *its) for some in _some(self._hours)]
            return sum(connection.execute(count).scalar_one() for count in counts)

    def _latest(self, prefix: str, most: int) -> list[Call]:
        """The latest calls with a prefix, at most so many, in order. Looks at a few hours first, and then at more."""
        found: list[Call] = []
        hours, size = self._hours, 8
        while hours and len(found) < most:
            found += self._in_hours(hours[-size:], calls.c.prefix == prefix, latest=most)
            hours, size = hours[:-size], 4 * size
        return sorted(found, key=_IN_ORDER)[-most:]

    @cached_property
    def repeated(self) -> list[list[Call]]:
        """The calls of each of the prompts that were sent most, by the sample, in order."""
        seen = Counter(call.prompt for call in self.sample if call.prompt)
        room, chosen = READ_AT_MOST // 2, []
        for prompt, count in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:_REPEATED]:
            all_of_them = count * self.total.calls // len(self.sample)
            if count > 1 and all_of_them <= room:
                chosen.append(prompt)
                room -= all_of_them
        found: dict[str, list[Call]] = defaultdict(list)
        its = self._in_hours(self._hours, calls.c.prompt.in_(chosen), latest=READ_AT_MOST) if chosen else []
        for call in sorted(its, key=_IN_ORDER):
            found[call.prompt].append(call)
        return list(found.values())

    def conversations(self, turns: int) -> list[list[Call]]:
        """The dearest of the conversations with more calls than this, each in order."""
        c = spenders.c
        cost, count = func.sum(c.cost // 10**6), func.sum(c.calls)
        query = (
            select(c.value, count)
            .where(c.kind == "conversation", c.hour >= self.start // HOUR, c.hour < -(-self.end // HOUR))
            .group_by(c.value)
            .having(count > turns)
            .order_by(cost.desc(), c.value)
            .limit(_CONVERSATIONS)
        )
        found, room = [], READ_AT_MOST // 2
        with self._engine.connect() as connection:
            longest = [(str(value), int(length)) for value, length in connection.execute(query)]
        for value, length in longest:
            if length <= room:
                its = hours_of("conversation", value, self.start, self.end), calls.c.conversation == value
                talk = sorted(self._read(*its, *self._edges), key=_IN_ORDER)
                room -= length
                # Totals are of whole hours: some of the calls, or all, may be outside.
                if len(talk) > turns:
                    found.append(talk)
        return found

    def users(self) -> tuple[int, int, Decimal]:
        """How many users there were, on how many days together, and what they cost in USD."""
        c = spenders.c
        hourly = (
            select(c.value, (c.hour // 24).label("day"), (c.cost // 10**6).label("micro"))
            .where(c.kind == "user", c.hour >= self.start // HOUR, c.hour < -(-self.end // HOUR))
            .subquery()
        )
        micro = func.sum(hourly.c.micro).label("micro")
        active = select(hourly.c.value, micro).group_by(hourly.c.value, hourly.c.day).subquery()
        counted = select(func.count(active.c.value.distinct()), func.count(), func.sum(active.c.micro))
        with self._engine.connect() as connection:
            users, days, cost = connection.execute(counted).one()
        return int(users), int(days), Decimal(int(cost or 0)).scaleb(-6)

    @cached_property
    def _hours(self) -> list[int]:
        """Hours with calls."""
        return sorted({hour for costs in self.by_hour.values() for hour in costs})

    @cached_property
    def _edges(self) -> list[ColumnElement[bool]]:
        return at_edges(self.start, self.end)

    def _in_hours(
        self, chosen: Sequence[int], *conditions: ColumnElement[bool], latest: int | None = None
    ) -> list[Call]:
        """The calls of hours, as indexes have them; of every few hours at most the ``latest`` so many."""
        found: list[Call] = []
        for some in _some(chosen):
            found += self._read(calls.c.hour.in_(some), *conditions, *self._edges, latest=latest)
        return found

    def _read(self, *conditions: ColumnElement[bool], latest: int | None = None) -> list[Call]:
        query = select(*_COLUMNS).where(*conditions)
        if latest is not None:
            query = query.order_by(calls.c.started.desc(), calls.c.id.desc()).limit(latest)
        with self._engine.connect() as connection:
            return [_call(row) for row in connection.execute(query)]


_TEXT: Final = frozenset({"chat", "text_completion", "generate_content"})


def _some(hours: Sequence[int]) -> Iterator[Sequence[int]]:
    """A few at a time: databases bound what one question may list."""
    for first in range(0, len(hours), 500):
        yield hours[first : first + 500]
