"""A request's spans get their prices: which tell of calls, which of those are counted, what budgets are charged.

A client that got no answer sends again. What a span was the first time it is the second; it is counted the first time
alone, as far as this process remembers, and charged once, since a store of budgets remembers `trace:span`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from costspan_processor.attribution import Attribution
from costspan_processor.collector import wire
from costspan_processor.conventions import RESPONSE_ID, ROLLUP, STATUS, Plain
from costspan_processor.enrich import assess, describe
from costspan_processor.once import Once, Told, counts_of
from costspan_processor.translation import in_convention, says_nothing
from costspan_processor.translation import told as told_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue

    from costspan_processor.budgets.guard import Charge
    from costspan_processor.observer import CostObserver

Outcome = Literal["priced", "unpriced", "rollup", "settled", "repeated"]
"""What became of a span that tells of a call: it has a figure, or none; another span carries its cost; whoever made it
had priced it; it had been sent before."""

_REMEMBERED: Final = 131_072
"""Spans that are remembered: those of three seconds, on a core that has nothing but calls to do."""
_LATELY: Final = 4096
_GROUPS_AT_MOST: Final = 4096


class _Call:
    """A span that tells of a call, and where it stands in its request."""

    __slots__ = ("charge", "index", "inside", "new", "resource", "scope", "span")

    def __init__(self, inside: Any, index: int, span: wire.Span, scope: str, resource: Mapping[str, Any]) -> None:
        self.inside = inside
        self.index = index
        self.span = span
        self.scope = scope
        self.resource = resource
        self.new: dict[str, AttributeValue] = {}
        self.charge: Charge | None = None


class Pricer:
    """Prices requests, counts their calls in the observer's table and charges them to its guard's budgets.

    `proposal` adds `gen_ai.usage.cost.*`, which the conventions want to see from whoever makes a span alone. For one
    event loop.
    """

    def __init__(self, observer: CostObserver, *, proposal: bool = False) -> None:
        self._observer = observer
        self._proposal = proposal
        self._once = Once(_REMEMBERED, _LATELY)
        self._decided: dict[bytes, bool] = {}
        """By trace and span: whether another span carries its cost."""
        self._groups: dict[tuple[str | None, ...], Attribution | None] = {}
        self.spans = 0
        """Spans so far, those that tell of no call among them."""
        self.outcomes: Final[dict[Outcome, int]] = {}

    async def price(self, body: bytes) -> bytes:
        """An `ExportTraceServiceRequest` with its calls priced, once what they cost is safely charged.

        The very same bytes where there is nothing to add. Raises `wire.DecodeError` for what is no such request.
        """
        request = wire.open_request(body)
        calls, links = self._calls_in(request)
        # A span that contains another ends later, whatever the order in which they were sent.
        calls.sort(key=lambda call: (call.span.end, -call.span.start))
        for call in calls:
            links.pop(call.span.span_id, None)
        self._once.pass_by(links)
        if not calls:
            return body
        for call in calls:
            try:
                self._decide(call, links)
            except Exception as error:  # noqa: BLE001  a span of any content must get through
                self._observer.failed("collector.price", error)
        charged = [call for call in calls if call.charge is not None]
        if charged:
            guard = self._observer.guard
            assert guard is not None
            told = await guard.acharge([call.charge for call in charged if call.charge is not None])
            for call, new in zip(charged, told, strict=True):
                call.new.update(new)
        for call in calls:
            if call.new:
                call.inside[call.index] = call.span.with_attributes(call.new)
        priced: bytes = request.SerializeToString()
        return priced

    def _calls_in(self, request: Any) -> tuple[list[_Call], dict[bytes, bytes]]:
        """The spans that tell of calls, and the ids of all spans with those of what is above them."""
        calls: list[_Call] = []
        links: dict[bytes, bytes] = {}
        for of_resource in request.resource_spans:
            resource = None
            for of_scope in of_resource.scope_spans:
                scope = None
                inside = of_scope.spans
                spans = list(inside)
                self.spans += len(spans)
                links.update(wire.links(spans))
                for index, raw in enumerate(spans):
                    if not wire.may_tell_of_a_call(raw):
                        continue
                    span = wire.Span(raw)
                    if says_nothing(span.attributes):
                        continue
                    if resource is None:
                        resource = wire.resource_of(of_resource.resource)
                    if scope is None:
                        scope = wire.scope_of(of_scope.scope)
                    calls.append(_Call(inside, index, span, scope, resource))
        return calls, links

    def _decide(self, call: _Call, links: dict[bytes, bytes]) -> None:
        """Find out what a span is to be given; count it if it is to be counted."""
        span, scope, resource = call.span, call.scope, call.resource
        attributes = span.attributes
        told = Told(span.span_id, span.parent_id, scope, span.start, span.end or span.start, id(resource))
        contains = self._once.ends(span.span_id, span.parent_id, links)
        if STATUS in attributes:
            self._once.counted(told, attributes.get(RESPONSE_ID), counts_of(attributes), links)
            self._note("settled")
            return
        # An agent's usage is its calls', unless nobody has seen those.
        reading, response_id = told_by(attributes, scope, resource, aggregate=not contains)
        if reading is None:
            return
        key = span.trace_id + span.span_id
        counts = reading.input_tokens, reading.output_tokens
        rollup = known = self._decided.get(key)
        if rollup is None:
            rollup = contains or self._once.repeats(told, response_id, counts)
            self._decided[key] = rollup
            if len(self._decided) > _REMEMBERED:
                del self._decided[next(iter(self._decided))]
        if rollup:
            call.new = {ROLLUP: True}
            self._note("rollup")
            return
        if known is None and (isinstance(reading, Plain) or reading.usage is not None or reading.problem is not None):
            self._once.counted(told, response_id, counts, links)
        seconds = max(0, span.end - span.start) / 1e9 if span.end else None
        observer = self._observer
        priced = assess(reading, span.start, observer.book, seconds)
        call.new = describe(priced, self._proposal)
        who = self._group(attributes, resource)
        if known is None:
            observer.count(priced, who, seconds, own=False)
            self._note("unpriced" if priced.total is None else "priced")
        else:
            self._note("repeated")
        guard = observer.guard
        if guard is not None and guard.budgets:
            name = f"{span.trace_id.hex()}:{span.span_id.hex()}"
            everything = {**resource, **attributes, **in_convention(attributes, scope, resource)}
            ended = span.end or span.start
            call.charge = guard.charge_for(name, everything, who, priced, ended / 1e9 if ended else None)

    def _group(self, attributes: Mapping[str, Any], resource: Mapping[str, Any]) -> Attribution | None:
        """Whom a call is for, as far as counters tell."""
        keys = self._observer.table.dimensions
        values = tuple([attributes.get(key) or resource.get(key) for key in keys])
        if not any(values):
            return None
        try:
            return self._groups[values]
        except (KeyError, TypeError):
            made = Attribution({key: str(value) for key, value in zip(keys, values, strict=True) if value})
            if len(self._groups) >= _GROUPS_AT_MOST:
                self._groups.clear()
            with suppress(TypeError):  # a map where a name belongs
                self._groups[values] = made
            return made

    def _note(self, outcome: Outcome) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
