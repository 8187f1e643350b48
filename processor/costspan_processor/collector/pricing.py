"""A request's spans get their prices: which tell of calls, which of those are counted, what budgets are charged.

A client that got no answer sends again. What a span was the first time it is the second; it is counted the first time
alone, as far as this process remembers, and charged once, since a store of budgets remembers `trace:span`.

Nearly every call is one of text alone, from a library that always says the same in the same order. What its attributes
are is then worked out once (`_Shape`), and what the names among them mean, once for each model and team (`_Names`): of
such a span the counts and the response's id alone are read. Every other span is read as a whole, to the same effect.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from costspan_processor.attribution import Attribution
from costspan_processor.collector import wire
from costspan_processor.conventions import RESPONSE_ID, ROLLUP, STATUS, Plain
from costspan_processor.dialects import INPUT, OUTPUT
from costspan_processor.enrich import PLACES, assess, card_of, describe, dollars
from costspan_processor.once import Once, counts_of, forget_half
from costspan_processor.translation import in_convention, says_nothing, translation
from costspan_processor.translation import told as told_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import RateCard
    from costspan_processor.budgets.guard import Charge
    from costspan_processor.conventions import Kind, Reading
    from costspan_processor.observer import CostObserver
    from costspan_processor.translation import Known, Translation

Outcome = Literal["priced", "unpriced", "rollup", "settled", "repeated"]
"""What became of a span that tells of a call: it has a figure, or none; another span carries its cost; whoever made it
had priced it; it had been sent before."""

_REMEMBERED: Final = 131_072
"""Spans that are remembered: those of three seconds, on a core that has nothing but calls to do."""
_LATELY: Final = 4096

_PLACES_AT_MOST: Final = 1024
_SHAPES_AT_MOST: Final = 1024
_NAMES_AT_MOST: Final = 4096
_PLACE_BYTES: Final = 8192
_SHAPE_KEYS: Final = 128
_NAMES_BYTES: Final = 2048
"""What is larger is worked out anew each time: what is remembered has a bound, whatever is sent."""


class _Place:
    """A resource and a scope: where spans come from."""

    __slots__ = ("process", "resource", "scope", "small", "tells")

    def __init__(self, parts: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> None:
        of_resource, of_scope = parts
        self.tells = False
        """Whether a call came from it in the latest request: most likely, one is in the next."""
        self.resource: Final = wire.resource_of(of_resource)
        self.scope: Final = wire.scope_of(of_scope)
        self.process: Final = hash(of_resource)
        self.small: Final = _is_small(parts)


def _is_small(parts: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> bool:
    return sum(map(len, chain(*parts))) <= _PLACE_BYTES


def _tells(of_scope: bytes) -> bool:
    """Whether a span in one of the `scope_spans` may tell of a call."""
    try:
        return not says_nothing(wire.names_in(of_scope))
    except wire.DecodeError:
        return wire.may_tell_of_a_call(of_scope)


class _Shape:
    """Spans of a place with the same attributes in the same order: what is where in them."""

    __slots__ = (
        "heads", "keys", "names", "others", "place", "received", "response_id", "rest", "sent", "settled",
        "silent", "translate",
    )  # fmt: skip

    def __init__(self, place: _Place, keys: tuple[str | None, ...], dimensions: tuple[str, ...]) -> None:
        self.place: Final = place
        where = {name: at for at, name in enumerate(keys) if name is not None}
        self.keys: Final = where.keys()
        usual = len(where) == len(keys)
        self.silent: Final = usual and says_nothing(dict.fromkeys(where))
        """Whether such a span tells of no call."""
        self.translate: Translation | None = None
        """Puts such spans into the conventions' words; None: each must be read as a whole."""
        self.settled: list[int] = []
        """The places of all that is read of a span that has its price."""
        if self.silent or not usual or not _is_kept((place, keys)):
            return
        if STATUS in where:
            self.settled = [where[name] for name in (STATUS, RESPONSE_ID, INPUT, OUTPUT) if name in where]
            return
        translate = translation(dict.fromkeys(where), place.scope, place.resource)
        if not translate.plain:
            return
        self.translate = translate
        naming = {*translate.naming, *dimensions}
        named = [at for name, at in where.items() if name in naming]
        rest = [(name, at) for name, at in where.items() if name not in naming]
        self.names: Final = _getter(named)
        """Takes out the attributes that tell all but counts and ids."""
        self.rest: Final = _getter([at for _, at in rest])
        self.heads: Final = [wire.head_of(name) for name, _ in rest]
        """What the others begin with, in a span that is of this shape indeed."""
        ends = {name: (at, len(wire.head_of(name))) for name, at in where.items()}
        self.sent, self.received = ends[translate.sent], ends[translate.received]
        """Where they are, and how long their names are."""
        others = translate.cached, translate.written, translate.reasoning, translate.total
        self.others: Final = [(place, *ends[name]) for place, name in enumerate(others) if name]
        """Further counts: which, and the same of them."""
        self.response_id: Final = ends.get(translate.answer)


def _is_kept(key: tuple[_Place, tuple[str | None, ...]]) -> bool:
    place, keys = key
    return place.small and len(keys) <= _SHAPE_KEYS


def _getter(places: list[int]) -> Callable[[list[bytes]], tuple[bytes, ...]]:
    return itemgetter(*places) if len(places) > 1 else lambda pieces: tuple([pieces[at] for at in places])


class _Names:
    """Spans of a shape that say the same but for their counts and ids: what that is."""

    __slots__ = ("attributes", "card", "counted", "known", "templates", "who")

    def __init__(self, attributes: Mapping[str, Any], who: Attribution | None) -> None:
        self.attributes: Final = attributes
        self.who: Final = who
        self.known: Known | None = None
        """How to read their counts."""
        self.card: RateCard | None = None
        """The rates that the templates are of."""
        self.templates: dict[
            tuple[bool, bool, bool], tuple[Callable[[list[float]], bytes], Callable[..., Any]] | None
        ] = {}
        """What they get, and what of a quote is in that, by whether it has input, cache reads and output."""
        self.counted: list[tuple[int, ...]] = []
        """Calls of the request under way, for `Table.count_all`."""


class _Call:
    """A span that tells of a call, and where it stands in its request."""

    __slots__ = (
        "attributes", "counts", "end", "index", "inside", "key", "names", "new", "parent_id", "raw",
        "response_id", "shape", "span_id", "start",
    )  # fmt: skip

    key: bytes
    """Trace and span."""
    attributes: dict[str, Any]
    """Of one that has been read as a whole, or has its price."""
    names: _Names
    """Of any other, as are `counts`."""
    counts: tuple[Kind, int, int, int, int] | None
    """As `plain_counts` has them."""
    response_id: object
    new: Mapping[str, AttributeValue]

    def __init__(self, inside: Any, index: int, raw: bytes, span: Any, shape: _Shape) -> None:
        self.inside = inside
        self.index = index
        self.raw = raw
        self.shape = shape
        self.span_id: bytes = span.span_id
        self.parent_id: bytes = span.parent_span_id
        self.key = span.trace_id + self.span_id
        self.start: int = span.start
        self.end: int = span.end
        self.counts = None
        self.response_id = None


class Pricer:
    """Prices requests, counts their calls in the observer's table and charges them to its guard's budgets.

    `proposal` adds `gen_ai.usage.cost.*`, which the conventions want to see from whoever makes a span alone. For one
    event loop.
    """

    def __init__(self, observer: CostObserver, *, proposal: bool = False) -> None:
        self._observer = observer
        self._proposal = proposal
        self._dimensions: Final = observer.table.dimensions
        self._once = Once(_REMEMBERED, _LATELY)
        self._decided: dict[bytes, bool] = {}
        """By trace and span: whether another span carries its cost."""
        self._places = wire.Memo(_Place, _PLACES_AT_MOST, _is_small)
        self._shapes = wire.Memo(self._shape, _SHAPES_AT_MOST, _is_kept)
        self._names = wire.Memo(self._named, _NAMES_AT_MOST, lambda key: sum(map(len, key[1])) <= _NAMES_BYTES)
        self._guesses: dict[tuple[_Place, int], _Shape] = {}
        """The shape that a span of a place with so many attributes had last."""
        # Of the request under way.
        self._counting: list[_Names] = []
        self._charged: list[tuple[_Call, Charge]] = []
        self.spans = 0
        """Spans so far, those that tell of no call among them."""
        self.outcomes: Final[dict[Outcome, int]] = {}

    async def price(self, body: bytes) -> bytes:
        """An `ExportTraceServiceRequest` with its calls priced, once what they cost is safely charged.

        The very same bytes where there is nothing to add. Raises `wire.DecodeError` for what is no such request.
        """
        request = wire.open_request(body)
        calls, others, opened = self._calls_in(request)
        links = wire.links(others)
        self._once.pass_by(links)
        if not calls:
            return body
        # A span that contains another ends later, whatever the order in which they were sent.
        calls.sort(key=_start, reverse=True)
        calls.sort(key=_end)
        for call in calls:
            try:
                if call.counts is None:
                    self._decide(call, links)
                else:
                    self._decide_of_text(call, links)
            except Exception as error:  # noqa: BLE001  a span of any content must get through
                self._observer.failed("collector.price", error)
        self._count()
        charged, self._charged = self._charged, []
        if charged:
            guard = self._observer.guard
            assert guard is not None
            told = await guard.acharge([charge for _, charge in charged])
            for (call, _), new in zip(charged, told, strict=True):
                self._add(call, {**call.new, **new})
        for scopes, at, of_scope in opened:
            scopes[at] = of_scope.SerializeToString()
        priced: bytes = request.SerializeToString()
        return priced

    def _calls_in(self, request: Any) -> tuple[list[_Call], list[bytes], list[tuple[Any, int, Any]]]:
        """The spans that tell of calls; all others; what of the request was opened, and where it belongs."""
        calls: list[_Call] = []
        others: list[bytes] = []
        opened: list[tuple[Any, int, Any]] = []
        for of_resource in request.resource_spans:
            scopes = of_resource.scope_spans
            for at, whole in enumerate(scopes[:]):
                of_scope = wire.open_scope(whole)
                inside = of_scope.spans
                raws = inside[:]
                self.spans += len(raws)
                place = self._places[tuple(of_resource.resource), tuple(of_scope.scope)]
                if not place.tells and not _tells(whole):
                    others += raws
                    continue
                opened.append((scopes, at, of_scope))
                before = len(calls)
                for index, (raw, span) in enumerate(zip(raws, wire.open_spans(whole).spans, strict=True)):
                    call = self._call(place, inside, index, raw, span)
                    if call is None:
                        others.append(raw)
                    else:
                        calls.append(call)
                place.tells = len(calls) > before
        return calls, others, opened

    def _call(self, place: _Place, inside: Any, index: int, raw: bytes, span: Any) -> _Call | None:
        """What a span tells of a call; None if it tells of none."""
        pieces: list[bytes] = span.attributes[:]
        shape = self._guesses.get((place, len(pieces)))
        names = None
        if shape is not None:
            names = self._names.get((shape, shape.names(pieces)))
            if names is None or not all(map(_begins_with, shape.rest(pieces), shape.heads)):
                shape = names = None
        if shape is None:
            if len(pieces) > wire.ATTRIBUTES_AT_MOST or not wire.may_tell_of_a_call(raw):
                return None
            shape = self._shapes[place, wire.keys_of(pieces)]
            if shape.silent:
                return None
            if shape.translate is not None:
                names = self._names[shape, shape.names(pieces)]
                self._guesses[place, len(pieces)] = shape
        call = _Call(inside, index, raw, span, shape)
        if names is not None and shape.translate is not None:
            known = names.known
            if known is None:
                known = names.known = shape.translate.of_text(names.attributes)
            if known is not None:
                counts = known.counts(*_counts_in(pieces, shape))
                if counts is not None:
                    call.names, call.counts = names, counts
                    if shape.response_id is not None:
                        at, size = shape.response_id
                        call.response_id = wire.text_of(pieces[at], size)
                    return call
        if shape.settled:
            call.attributes = wire.attributes_of([pieces[at] for at in shape.settled])
            return call
        call.attributes = wire.attributes_of(pieces)
        return None if says_nothing(call.attributes) else call

    def _shape(self, key: tuple[_Place, tuple[str | None, ...]]) -> _Shape:
        if len(self._shapes) >= _SHAPES_AT_MOST:
            # They are about to be forgotten, and with them what goes by them.
            self._names.clear()
            self._guesses.clear()
        return _Shape(*key, self._dimensions)

    def _named(self, key: tuple[_Shape, tuple[bytes, ...]]) -> _Names:
        shape, pieces = key
        attributes = wire.attributes_of(pieces)
        return _Names(attributes, self._who(attributes, shape.place))

    def _who(self, attributes: Mapping[str, Any], place: _Place) -> Attribution | None:
        """Whom a call is for, as far as counters tell."""
        told = {key: attributes.get(key) or place.resource.get(key) for key in self._dimensions}
        found = {key: str(value) for key, value in told.items() if value}
        return Attribution(found) if found else None

    def _decide(self, call: _Call, links: dict[bytes, bytes]) -> None:
        """Find out what a span is to be given; count it if it is to be counted."""
        place, attributes = call.shape.place, call.attributes
        contains = self._once.ends(call.span_id, call.parent_id, links)
        if STATUS in attributes:
            end = call.end or call.start
            told = call.span_id, call.parent_id, place.scope, call.start, end, place.process
            self._once.counted(told, attributes.get(RESPONSE_ID), counts_of(attributes), links)
            self._note("settled")
            return
        # An agent's usage is its calls', unless nobody has seen those.
        reading, call.response_id = told_by(attributes, place.scope, place.resource, aggregate=not contains)
        if reading is None:
            return
        used = isinstance(reading, Plain) or reading.usage is not None or reading.problem is not None
        rollup, known = self._is_rollup(
            call, (reading.input_tokens, reading.output_tokens), contains, links if used else None
        )
        if rollup:
            self._add(call, _ROLLUP)
            self._note("rollup")
        else:
            self._price(call, reading, self._who(attributes, place), known)

    def _decide_of_text(self, call: _Call, links: dict[bytes, bytes]) -> None:
        """`_decide` for a call whose names are known: to the same effect, with none of the steps that it needs not."""
        names, counts = call.names, call.counts
        assert counts is not None
        kind, sent, cached, received, reasoned = counts
        contains = call.span_id in self._once.above and self._once.ends(call.span_id, call.parent_id, links)
        rollup, known = self._is_rollup(call, (sent, received), contains, links)
        if rollup:
            self._add(call, _ROLLUP)
            self._note("rollup")
            return
        start, end = call.start, call.end
        card = card_of(kind, start, self._observer.book)
        quote = None if card is None else card.quote(sent, cached, received, reasoned)
        if card is None or quote is None or (self._observer.guard is not None and self._observer.guard.budgets):
            self._price(call, _plain(counts), names.who, known)
            return
        if names.card is not card:
            names.card, names.templates = card, {}
        _, for_input, for_reads, for_output, _ = quote
        variant = for_input > 0, for_reads > 0, for_output > 0
        try:
            template = names.templates[variant]
        except KeyError:
            template = names.templates[variant] = self._template(call, counts, card, quote)
        if template is None:
            self._price(call, _plain(counts), names.who, known)
            return
        fill, take = template
        call.inside[call.index] = call.raw + fill(list(map(dollars, take(quote))))
        if known:
            self._note("repeated")
        else:
            if not names.counted:
                self._counting.append(names)
            names.counted.append((*quote, sent, cached, received, end - start if end > start else 0, 1 if end else 0))

    def _template(
        self,
        call: _Call,
        counts: tuple[Kind, int, int, int, int],
        card: RateCard,
        quote: tuple[int, int, int, int, int],
    ) -> tuple[Callable[[list[float]], bytes], Callable[..., Any]] | None:
        """How to write the price of calls like this one: None if a span of them has attributes of the names already."""
        plain = _plain(counts)
        plain.card, plain.quote = card, quote
        new = describe(plain, self._proposal)
        if not new.keys().isdisjoint(call.shape.keys):
            return None
        places = [PLACES[key] for key, value in new.items() if isinstance(value, float)]
        return wire.Template(new).fill, _getter(places)

    def _is_rollup(
        self, call: _Call, counts: tuple[int | None, int | None], contains: bool, links: dict[bytes, bytes] | None
    ) -> tuple[bool, bool]:
        """Whether another span carries a call's cost, and whether that was known before.

        With `links`, it is noted that this one carries it.
        """
        decided, key, once = self._decided, call.key, self._once
        rollup = decided.get(key)
        if rollup is not None:
            return rollup, True
        place, start = call.shape.place, call.start
        told = call.span_id, call.parent_id, place.scope, start, call.end or start, place.process
        if links is None:
            rollup = contains or once.repeats(told, call.response_id, counts)
        else:
            rollup = contains or not once.takes(told, call.response_id, counts, links)
        decided[key] = rollup
        if len(decided) > _REMEMBERED:
            forget_half(decided)
        return rollup, False

    def _price(self, call: _Call, reading: Reading | Plain, who: Attribution | None, known: bool) -> None:
        observer, place, end = self._observer, call.shape.place, call.end
        seconds = max(0, end - call.start) / 1e9 if end else None
        priced = assess(reading, call.start, observer.book, seconds)
        call.new = describe(priced, self._proposal)
        self._add(call, call.new)
        if known:
            self._note("repeated")
        else:
            observer.count(priced, who, seconds, own=False)
            self._note("unpriced" if priced.total is None else "priced")
        guard = observer.guard
        if guard is not None and guard.budgets:
            attributes = wire.attributes_of(wire.open_span(call.raw).attributes[:])
            trace_id = call.key.removesuffix(call.span_id)
            name = f"{trace_id.hex()}:{call.span_id.hex()}"
            everything = {**place.resource, **attributes, **in_convention(attributes, place.scope, place.resource)}
            ended = end or call.start
            charge = guard.charge_for(name, everything, who, priced, ended / 1e9 if ended else None)
            if charge is not None:
                self._charged.append((call, charge))

    def _add(self, call: _Call, new: Mapping[str, AttributeValue]) -> None:
        old = call.attributes if call.counts is None else call.shape.keys
        call.inside[call.index] = wire.with_attributes(call.raw, old, new)

    def _count(self) -> None:
        """Count the calls whose prices `_decide_of_text` has written."""
        table = self._observer.table
        counting, self._counting = self._counting, []
        for names in counting:
            calls, names.counted = names.counted, []
            known, who = names.known, names.who
            assert known is not None
            assert known.kind is not None
            try:
                route = table.route(known.kind, None if who is None else who.values(table.dimensions))
                table.count_all(route, "estimated" if known.kind.estimated else "priced", calls)
                self._note("priced", len(calls))
            except Exception as error:  # noqa: BLE001  as above
                self._observer.failed("collector.count", error)

    def _note(self, outcome: Outcome, calls: int = 1) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + calls


def _counts_in(pieces: list[bytes], shape: _Shape) -> tuple[Any, Any, Any, Any, Any, Any]:
    """What `Known.counts` wants."""
    small = wire.small_counts.get
    (at, size), (beside, its_size) = shape.sent, shape.received
    if (sent := small(pieces[at][size:])) is None:
        sent = wire.value_of(pieces[at])
    if (received := small(pieces[beside][its_size:])) is None:
        received = wire.value_of(pieces[beside])
    others: list[Any] = [0, 0, 0, 0]
    for place, at, size in shape.others:
        if (count := small(pieces[at][size:])) is None:
            count = wire.value_of(pieces[at])
        others[place] = count
    cached, written, reasoning, total = others
    return sent, received, cached, written, reasoning, total


def _plain(counts: tuple[Kind, int, int, int, int]) -> Plain:
    plain = Plain()
    plain.kind, sent, cached, received, reasoned = counts
    plain.plain = sent, cached, received, reasoned
    plain.output_tokens = received
    return plain


_ROLLUP: Final[Mapping[str, AttributeValue]] = {ROLLUP: True}
_begins_with: Final = bytes.startswith
_start: Final = attrgetter("start")
_end: Final = attrgetter("end")
