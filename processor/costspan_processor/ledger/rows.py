"""A priced call -> its record and its series, and what that adds to the totals.

Off the hot path: the writer's thread makes records of what was kept.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span

from costspan_pricing import METERS, PICO
from costspan_processor.attribution import KEYS
from costspan_processor.conventions import RESPONSE_ID, Plain
from costspan_processor.ledger.schema import (
    ATTRIBUTION,
    MEASURES,
    SERIES,
    SPENDERS,
    UNPRICED,
    calls,
    records,
    series_id,
)
from costspan_processor.translation import in_convention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from costspan_pricing import Cost, RateCard, Usage
    from costspan_processor.attribution import Attribution
    from costspan_processor.conventions import Kind
    from costspan_processor.enrich import Priced

Row = tuple[Any, ...]
"""Of whatever table, in the order of its columns."""

COLUMNS: Final = tuple(calls.columns.keys())
PLACE: Final[Mapping[str, int]] = {name: place for place, name in enumerate(COLUMNS)}
"""Where in a row of `calls` a column stands."""
IN_RECORD: Final[Mapping[str, int]] = {name: place for place, name in enumerate(records.columns.keys())}
"""Where in a row of `records`."""
_WIDTH: Final = len(IN_RECORD)

AT_MOST: Final = 10**18
"""No figure of a call is larger, in any unit: what is larger is no figure ($1 million, a billion billion tokens)."""

PROMPT: Final = "costspan.prompt.hash"
PREFIX: Final = "costspan.prompt.prefix_hash"
PREFIX_SHARE: Final = "costspan.prompt.prefix_share"

_HOUR_NS: Final = 3_600 * 10**9
_FOREVER: Final = float("inf")
_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
_TAG: Final = "costspan.tag."
_KEYS: Final = tuple(KEYS[name] for name in (*SPENDERS, "message", *(n for n in ATTRIBUTION if n not in SPENDERS)))
_OWN: Final = len(SPENDERS) + 1
"""How many of these are a record's."""
_ASKED: Final = frozenset(_KEYS)
_UNSAID: Final = (None,) * len(_KEYS)
_NOBODY: Final = ((None,) * (_OWN + 1), _UNSAID[_OWN:])
_KEPT_AT_MOST: Final = 1_024
_NO_SERVICE: Final = "unknown_service"


class Kept(NamedTuple):
    """A call as the hot path keeps it: nothing is worked out there."""

    priced: Priced | Plain
    who: Attribution | None
    at: int
    """Unix ns."""
    duration: float | None
    """Seconds."""
    first_chunk: float | None
    context: Context | None
    """The one of its span, if our instrumentation made that; `span` else."""
    attributes: Mapping[str, Any]
    span: Span | SpanContext | None = None
    """What others made; of a span that came from another process, its ids."""
    scope: str = ""
    """The library that made the span, and the attributes of its resource."""
    resource: Mapping[str, Any] | None = None


_Written = tuple[str, str, str, int]
"""Of a meter: what its usage has before the quantity, what its line has before that and after it, and the rate."""


@dataclass(slots=True)
class Batch:
    """Calls to be written."""

    values: list[Any] = field(default_factory=list)
    """Of their records, one after the other: a row for each would be one more thing for Python's collector to visit."""
    series: dict[Row, int] = field(default_factory=dict)
    """The series that records name: by their values, their ids."""

    def __len__(self) -> int:
        """How many calls."""
        return len(self.values) // _WIDTH

    def column(self, name: str) -> list[Any]:
        """A column of the records."""
        return self.values[IN_RECORD[name] :: _WIDTH]

    @property
    def keys(self) -> list[tuple[int, str]]:
        """What each record is known by: its hour and its id."""
        return list(zip(self.column("hour"), self.column("id"), strict=True))

    def take(self, places: Iterable[int]) -> Batch:
        """Some of the calls, by their places."""
        values = self.values
        return Batch([one for at in places for one in values[at * _WIDTH : (at + 1) * _WIDTH]], self.series)

    def remove(self, count: int) -> None:
        """Leave out the first so many calls."""
        del self.values[: count * _WIDTH]


class Rows:
    """Makes records, and remembers what they have in common."""

    def __init__(self, writer: str, service: str | None, own_ids: bool = True) -> None:
        """`own_ids`: whether the tracer makes ids of its own for spans that nobody records."""
        self._own_ids = own_ids
        self._writer = writer
        # Not the one that applications seed, and another one in a forked child.
        self._draw = random.Random().getrandbits  # noqa: S311
        self._service = _service(service)
        # By identity, with the object itself: so long as it is kept, no other one has its identity.
        self._kinds: dict[int, tuple[Kind, Row]] = {}
        self._blocks: dict[int, tuple[Attribution, tuple[Row, Row]]] = {}
        self._sheets: dict[tuple[RateCard, int], dict[str, _Written]] = {}

    def record(self, kept: Kept | tuple[Any, ...], sequence: int, series: dict[Row, int]) -> Row:
        """The record of a call, whose series is in `series` then; all fields of a `Kept` are there.

        Raises ValueError for figures that cannot be.
        """
        priced, who, at, duration, first_chunk, context, attributes, span, scope, resource = kept
        reading = priced.reading
        kind = reading.kind
        service = self._service
        ours = span is None
        if not ours:
            attributes = {**attributes, **in_convention(attributes, scope, resource)}
            if resource is not None:
                service = _service(resource.get("service.name"))
        get = attributes.get
        if span is None and context is not None:
            span = get_current_span(context)
        trace_id, span_id = (None, None) if span is None else self._ids(span)
        response_id = get(RESPONSE_ID)
        share = get(PREFIX_SHARE)
        known = self._kinds.get(id(kind))
        if known is None:
            known = self._kind(kind)
        figures, prices = (
            self._of_plain(priced, attributes) if isinstance(priced, Plain) else _of_any(priced, attributes)
        )
        spenders, named = self._attribution(who, attributes, ours)
        shared = (service, *known[1], *named, priced.status, *prices)
        return (
            series.get(shared) or _named(shared, series),
            f"{self._draw(128):032x}" if span_id is None else f"{trace_id}:{span_id}",
            self._writer,
            sequence,
            trace_id,
            span_id,
            None if response_id is None else str(response_id),
            at,
            at // _HOUR_NS,
            None if duration is None else _nanoseconds(duration),
            None if first_chunk is None else _nanoseconds(first_chunk),
            *spenders,
            *figures,
            _text(get(PROMPT)),
            _text(get(PREFIX)),
            round(share * 1000) if isinstance(share, float) else share if type(share) is int else None,
        )

    def _kind(self, kind: Kind) -> tuple[Kind, Row]:
        """The columns from `provider` to `aborted`, kept: they are the same for all calls of a kind."""
        port = kind.server_port
        if len(self._kinds) >= _KEPT_AT_MOST:
            self._kinds.clear()
        found = self._kinds[id(kind)] = (
            kind,
            (
                kind.provider,
                kind.response_model or kind.request_model,
                kind.request_model,
                kind.response_model,
                kind.operation,
                kind.tier,
                kind.geo,
                kind.server_address if port is None else f"{kind.server_address or ''}:{port}",
                kind.error_type,
                kind.aborted,
            ),
        )
        return found

    def _attribution(self, who: Attribution | None, attributes: Mapping[str, Any], ours: bool) -> tuple[Row, Row]:
        """Whom the call is for: the columns from `user` to `tags`, and those from `agent` to `priority`.

        They are the same for all calls of a block.
        """
        if not ours or not _ASKED.isdisjoint(attributes):
            return _attribution(who, attributes, own=ours)
        if who is None:
            return _NOBODY
        found = self._blocks.get(id(who))
        if found is None:
            if len(self._blocks) >= _KEPT_AT_MOST:
                self._blocks.clear()
            found = self._blocks[id(who)] = who, _attribution(who, {}, own=True)
        return found[1]

    def _ids(self, span: Span | SpanContext) -> tuple[str | None, str | None]:
        """The ids of a call by its span, in hex. The span that is there may be the one around the call."""
        context = span if isinstance(span, SpanContext) else span.get_span_context()
        if not context.is_valid:
            return None, None
        # A tracer that makes no spans hands on what it has found, whose id is not the call's.
        own = type(span) is not NonRecordingSpan or (
            self._own_ids and not context.is_remote and not context.trace_flags.sampled
        )
        return f"{context.trace_id:032x}", f"{context.span_id:016x}" if own else None

    def _of_plain(self, priced: Plain, attributes: Mapping[str, Any]) -> tuple[Row, Row]:
        """What `_of_any` says, of a call of text alone, without the objects of a cost."""
        prompt, cached, output, reasoning = priced.plain
        total, sent, read, received, saved = priced.quote
        card = priced.card
        if prompt > AT_MOST or output > AT_MOST or total > AT_MOST:
            raise ValueError(f"no call costs {total} picodollars for {prompt} and {output} tokens")
        sheet = self._sheet(card, prompt)
        usage, lines = [], []
        for meter, quantity in (
            ("input", prompt - cached), ("cache_read", cached), ("output", output - reasoning),
            ("output_reasoning", reasoning),
        ):  # fmt: skip
            if quantity:
                name, head, tail, rate = sheet[meter]
                usage.append(f"{name}{quantity}")
                lines.append(f"{head}{quantity}{tail}{quantity * rate}]")
        return (
            prompt,
            cached or _said(cached, _CACHE_READ, attributes),
            None,
            priced.output_tokens,
            reasoning or _said(reasoning, _REASONING, attributes),
            f"{{{', '.join(usage)}}}",
            total,
            sent if prompt != cached else None,
            received if output else None,
            read if cached else None,
            None,
            None,
            saved,
            0,
            f"[{', '.join(lines)}]",
            None,
        ), ("estimated" if priced.kind.estimated else None, "local", card.book, card.layer, card.source)

    def _sheet(self, card: RateCard, prompt: int) -> Mapping[str, _Written]:
        """How a card's meters are written, for a prompt of this length."""
        limits = card.limits
        longer = sum(prompt > limit for limit in limits) if limits else 0
        found = self._sheets.get((card, longer))
        if found is None:
            if len(self._sheets) >= _KEPT_AT_MOST:
                self._sheets.clear()
            rates = card.rates(prompt)
            found = self._sheets[card, longer] = {}
            for meter in ("input", "cache_read", "output", "output_reasoning"):
                if meter in rates:
                    rate = rates[meter]
                    usd = (Decimal(rate.numerator * rate.per) / PICO).normalize()
                    head = f"[{json.dumps(card.model)}, {json.dumps(meter)}, "
                    found[meter] = f'"{meter}": ', head, f', "{usd:f}", {rate.per}, ', rate.numerator
        return found


def _of_any(priced: Priced, attributes: Mapping[str, Any]) -> tuple[Row, Row]:
    """The columns from `input_tokens` to `cost_book`, and those from `flags` to `price_source`."""
    cost, reading = priced.cost, priced.reading
    tokens, usage = reading.tokens, reading.usage
    local = cost.local
    components = priced.components
    reasoning = sum(part.quantities.get("output_reasoning", 0) for part in _usages(reading))
    flags = [*cost.flags]
    if usage is not None and usage.inconsistent and "inconsistent" not in flags:
        flags.append("inconsistent")
    flags += [name for name, held in (("guessed", reading.guessed), ("estimated", reading.kind.estimated)) if held]
    figures = (
        _count(reading.input_tokens),
        _said(tokens.get("cache_read"), _CACHE_READ, attributes),
        _said(tokens.get("cache_write"), _CACHE_WRITE, attributes),
        _count(reading.output_tokens),
        _said(reasoning, _REASONING, attributes),
    )
    amounts = (
        priced.total,
        components.get("input"),
        components.get("output"),
        components.get("cache_read"),
        components.get("cache_write"),
        components.get("other"),
        priced.saved,
        priced.write_premium,
    )
    book_total = None if local is None else local.total
    if any(abs(figure) > AT_MOST for figure in (*figures, *amounts, book_total) if figure is not None):
        raise ValueError(f"no call costs {priced.total} picodollars for {reading.input_tokens} tokens")
    return (
        *figures,
        _usage_text(reading),
        *amounts,
        lines_text(cost),
        book_total,
    ), (
        " ".join(flags) or None,
        None if priced.total is None else cost.source,
        cost.book or None,
        cost.layer or None,
        cost.period_source or None,
    )


def _usages(reading: Any) -> list[Usage]:
    return [*([] if reading.usage is None else [reading.usage]), *(part for _, part in reading.parts)]


def _usage_text(reading: Any) -> str | None:
    if not _usages(reading):
        return None
    said: dict[str, Any] = {} if reading.usage is None else _natural(reading.usage)
    if reading.parts:
        said["parts"] = [{"model": model, "usage": _natural(part)} for model, part in reading.parts]
    return json.dumps(said)


def _natural(usage: Usage) -> dict[str, float]:
    """Quantities in the meters' units: 95.5 seconds. No money is made from these."""
    scales = ((meter, quantity, METERS[meter].scale if meter in METERS else 1) for meter, quantity in _in(usage))
    return {
        meter: quantity // scale if quantity % scale == 0 else quantity / scale for meter, quantity, scale in scales
    }


def _in(usage: Usage) -> Sequence[tuple[str, int]]:
    return tuple(usage.quantities.items())


def lines_text(cost: Cost) -> str | None:
    """The lines of a cost as the column has them: quantities that are no whole number, and rates, as decimal text."""
    lines = [
        [line.model, line.meter, _number(line.quantity), None if line.rate is None else f"{line.rate:f}", *line[4:]]
        for line in cost.lines
    ]
    return json.dumps(lines) if lines else None


def _number(quantity: int | Decimal) -> int | str:
    if isinstance(quantity, Decimal) and quantity % 1:
        return f"{quantity.normalize():f}"
    return int(quantity)


def _said(tokens: int | None, key: str, attributes: Mapping[str, Any]) -> int | None:
    """None where nobody has said that there were none."""
    return tokens or (0 if key in attributes else None)


def _count(value: object) -> int | None:
    return value if type(value) is int else None


def _nanoseconds(seconds: float) -> int | None:
    return round(seconds * 1e9) if 0 <= seconds < _FOREVER else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _service(name: object) -> str | None:
    """The service's name; None for what OpenTelemetry puts there if nobody has said one."""
    return None if name is None or str(name).startswith(_NO_SERVICE) else str(name)


def _attribution(who: Attribution | None, attributes: Mapping[str, Any], *, own: bool) -> tuple[Row, Row]:
    """Whom the call is for, and its tags. Its span carries the same: the block's own, if we made the span."""
    told = _UNSAID if who is None else tuple(map(who.attributes.get, _KEYS))
    said = tuple(map(attributes.get, _KEYS))
    first, second = (told, said) if own else (said, told)
    values = [_text(other if one is None else one) for one, other in zip(first, second, strict=True)]
    tags: dict[str, str] = {}
    for source in (attributes if not own else {}, who.attributes if who is not None else {}):
        for key, value in source.items():
            if key.startswith(_TAG):
                tags.setdefault(key[len(_TAG) :], str(value))
    return (*values[:_OWN], json.dumps(tags, sort_keys=True) if tags else None), tuple(values[_OWN:])


# ---------------------------------------------------------------------- rows of `calls`


def batch_of(rows: Iterable[Row]) -> Batch:
    """What rows of `calls` are made of."""
    batch = Batch()
    size = len(COLUMNS) - len(SERIES)
    for row in rows:
        batch.values += (batch.series.get(row[size:]) or _named(row[size:], batch.series), *row[:size])
    return batch


def rows_of(batch: Batch) -> list[Row]:
    """The rows of `calls` that a batch makes."""
    shared = {id_: values for values, id_ in batch.series.items()}
    values = batch.values
    return [(*values[at + 1 : at + _WIDTH], *shared[values[at]]) for at in range(0, len(values), _WIDTH)]


def _named(shared: Row, series: dict[Row, int]) -> int:
    one = series[shared] = series_id(shared)
    return one


# ---------------------------------------------------------------------- what they add to totals


_SUMMED: Final = tuple(name for name in MEASURES if name in IN_RECORD and name not in {"cost", "duration"})
_AT_WASTED: Final = MEASURES.index("wasted") - MEASURES.index("cost") - 1
_outcome_of: Final[Callable[[Row], Row]] = itemgetter(*map(SERIES.index, ("status", "error_type", "aborted")))


def measures(columns: Sequence[Sequence[int | None]], places: Sequence[int], shared: Row) -> Row:
    """What calls of a series add to each of `MEASURES`, as `schema.measured` says it in SQL.

    `columns` are the figures of a batch (`figures`), `places` those of the calls.
    """
    status, error_type, aborted = _outcome_of(shared)
    failed = status == "no_usage" and error_type is not None
    unpriced = status in UNPRICED and not failed
    number = len(places)
    # Whatever is not known adds nothing.
    if number == 1:
        (at,) = places
        timed = +(columns[0][at] is not None)
        duration, cost, *sums = [column[at] or 0 for column in columns]
    else:
        of = itemgetter(*places)
        timed = number - of(columns[0]).count(None)
        duration, cost, *sums = [sum(filter(None, of(column))) for column in columns]
    sums.insert(_AT_WASTED, cost if aborted or error_type is not None else 0)
    return (number, number * failed, number * aborted, number * unpriced, cost, *sums, duration, timed)


def figures(batch: Batch) -> list[list[int | None]]:
    """The columns that are summed."""
    return [batch.column(name) for name in ("duration", "cost", *_SUMMED)]


class Totals(NamedTuple):
    """What calls add to the tables of totals, as rows of these, in the order of their keys."""

    hours: list[Row]
    spenders: list[Row]


def totals(batch: Batch) -> Totals:
    """What calls add to totals."""
    alike: dict[Row, list[int]] = defaultdict(list)
    for place, key in enumerate(zip(*map(batch.column, ("series", "hour", *SPENDERS)), strict=True)):
        alike[key].append(place)
    shared = {id_: values for values, id_ in batch.series.items()}
    columns = figures(batch)
    hours: dict[Row, list[Row]] = {}
    spenders: dict[Row, list[Row]] = {}
    for (series, hour, *who), places in alike.items():
        sums = measures(columns, places, shared[series])
        hours.setdefault((hour, series), []).append(sums)
        for kind, value in zip(SPENDERS, who, strict=True):
            if value is not None:
                spenders.setdefault((hour, kind, value), []).append(sums)
    return Totals(_summed(hours), _summed(spenders))


def _summed(by: dict[Row, list[Row]]) -> list[Row]:
    return [(*key, *(one[0] if len(one) == 1 else map(sum, zip(*one, strict=True)))) for key, one in sorted(by.items())]
