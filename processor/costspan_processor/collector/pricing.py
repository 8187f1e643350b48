"""A request's spans get their prices: which tell of calls, which of those are counted, what budgets are charged.

A client that got no answer sends again. What a span was the first time it is the second; it is counted the first time
alone, as far as this process remembers, and charged once, since a store of budgets remembers `trace:span`.

Nearly every call is one of text alone, from a library that always says the same in the same order. What its attributes
are is then worked out once (`_Shape`), and what the names among them mean, once for each model and team (`_Names`): of
such a span the counts and the response's id alone are read. Every other span is read as a whole, to the same effect.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from itertools import accumulate, chain, compress, islice
from operator import add, attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from opentelemetry.trace import SpanContext

from costspan_processor.attribution import Attribution
from costspan_processor.collector import wire
from costspan_processor.collector.apart import Alike, Apart, Taken
from costspan_processor.conventions import RESPONSE_ID, ROLLUP, STATUS, Plain
from costspan_processor.dialects import INPUT, OUTPUT
from costspan_processor.enrich import PLACES, assess, card_of, describe, dollars
from costspan_processor.once import counts_of
from costspan_processor.translation import in_convention, says_nothing, translation
from costspan_processor.translation import told as told_by

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

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
"""Calls that are remembered: those of two seconds, on a core that has nothing but calls to do."""
_LATELY: Final = 4096

_PLACES_AT_MOST: Final = 1024
_SHAPES_AT_MOST: Final = 1024
_NAMES_AT_MOST: Final = 4096
_PLACE_BYTES: Final = 8192
_SHAPE_KEYS: Final = 128
_NAMES_BYTES: Final = 2048
_LAYOUT_BYTES: Final = 2048
_LAYOUTS_OF_A_LENGTH: Final = 4
"""What is larger is worked out anew each time: what is remembered has a bound, whatever is sent."""


_AT_FIRST: Final = 256
_FOR_ONE: Final = 64
"""Of spans of a shape so many layouts are learned at first, then one for so many that were known again."""


class _Place:
    """A resource and a scope: where spans come from."""

    __slots__ = ("layouts", "process", "resource", "scope", "small", "tells")

    def __init__(self, parts: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> None:
        of_resource, of_scope = parts
        self.tells = False
        """Whether a call came from it in the latest request: most likely, one is in the next."""
        self.resource: Final = wire.resource_of(of_resource)
        self.scope: Final = wire.scope_of(of_scope)
        self.process: Final = hash(of_resource)
        self.small: Final = _is_small(parts)
        self.layouts: Final[dict[int, list[wire.Layout[_Names]]]] = {}
        """Of its spans by their length: those that were learned last first."""


def _is_small(parts: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> bool:
    return sum(map(len, chain(*parts))) <= _PLACE_BYTES


def _tells(of_scope: bytes) -> bool:
    """Whether a span in one of the `scope_spans` may tell of a call."""
    if not wire.may_tell_of_a_call(of_scope):
        return False
    try:
        return not says_nothing(wire.names_in(of_scope))
    except wire.DecodeError:
        return True


class _Shape:
    """Spans of a place with the same attributes in the same order: what is where in them."""

    __slots__ = (
        "counts", "heads", "ignored", "keys", "learned", "names", "place", "rates", "recognised", "response_id", "rest",
        "settled", "silent", "translate",
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
        self.learned = 0
        """Layouts that such spans had so far."""
        self.recognised = 0
        """Spans of it whose layout was known."""
        self.rates: Final = wire.Memo(partial(_Rates, self.keys), _NAMES_AT_MOST)
        """By what its names mean."""
        if self.silent or not usual or not _is_kept((place, keys)):
            return
        if STATUS in where:
            self.settled = [where[name] for name in (STATUS, RESPONSE_ID, INPUT, OUTPUT) if name in where]
            return
        translate = translation(dict.fromkeys(where), place.scope, place.resource)
        counted = (
            *(translate.sent, translate.received, translate.cached),
            *(translate.written, translate.reasoning, translate.total),
        )
        naming = {*translate.naming, *dimensions}
        if not translate.plain or not naming.isdisjoint((*counted, translate.answer)):
            return
        self.translate = translate
        named = [at for name, at in where.items() if name in naming]
        places = {name: (at, len(wire.head_of(name))) for name, at in where.items() if name not in naming}
        self.names: Final = _getter(named)
        """Takes out the attributes that tell all but counts and ids."""
        self.rest: Final = _getter([at for at, _ in places.values()])
        self.heads: Final = [wire.head_of(name) for name in places]
        """What the others begin with, in a span that is of this shape indeed."""
        self.counts: Final = [places.pop(name) if name else None for name in counted]
        """Where the counts are that `Known.counts` wants."""
        self.response_id: Final = places.pop(translate.answer, None)
        self.ignored: Final = list(places.values())
        """Where that is which nobody asks for."""


def _is_kept(key: tuple[_Place, tuple[str | None, ...]]) -> bool:
    place, keys = key
    return place.small and len(keys) <= _SHAPE_KEYS


def _getter(places: list[int]) -> Callable[[list[bytes]], tuple[bytes, ...]]:
    return itemgetter(*places) if len(places) > 1 else lambda pieces: tuple([pieces[at] for at in places])


class _Rates:
    """Spans of a shape whose names mean the same: how to read their counts, and how to write what those cost."""

    __slots__ = ("card", "keys", "kind", "known", "templates")

    def __init__(self, keys: Collection[str], known: Known) -> None:
        assert known.kind is not None
        self.keys: Final = keys
        self.known: Final = known
        self.kind: Final[Kind] = known.kind
        self.card: RateCard | None = None
        """The rates that the templates are of."""
        self.templates: dict[_Variant, _Write | None] = {}
        """What they get, and what of a quote is in that."""


class _Names:
    """Spans of a shape that say the same but for their counts and ids: what that is."""

    __slots__ = ("attributes", "rates", "shape", "who")

    def __init__(self, shape: _Shape, attributes: Mapping[str, Any], who: Attribution | None) -> None:
        self.shape: Final = shape
        self.attributes: Final = attributes
        self.who: Final = who
        self.rates: _Rates | None = None
        """None where a span with them may say more than the counts of text."""

    def counts(self, pieces: Sequence[bytes]) -> tuple[Kind, int, int, int, int] | None:
        """Of a span with these attributes; None if it says more than those."""
        if self.rates is None:
            return None
        found = [0 if place is None else wire.value_of(pieces[place[0]]) for place in self.shape.counts]
        return self.rates.known.counts(*found)

    def response_id(self, pieces: Sequence[bytes]) -> str | None:
        """The same span's."""
        place = self.shape.response_id
        found = None if place is None else wire.value_of(pieces[place[0]])
        return found if isinstance(found, str) else None


_Quotes = list[tuple[int, ...]]
"""Columns of what `RateCard.quote` has."""
_Variant = tuple[bool, bool, bool]
"""Whether input, cache reads and output cost anything."""
_Write = tuple["Callable[[Sequence[Iterable[float]]], Iterator[bytes]]", "Callable[..., Any]"]
"""Makes attributes of columns of numbers, and takes those out of the columns of quotes."""
_Text = tuple[bytes, bytes, bytes, int, int, "str | None", int, int, int, int, int]
"""A call of text alone whose names are known, by the million: the columns of `Alike`, then those of `_Texts`."""


class _Scope:
    """Spans of a request that are in one scope, and what they become."""

    __slots__ = ("message", "raws", "whole")

    def __init__(self, whole: bytes) -> None:
        self.whole: Final = whole
        self.message: Final = wire.open_scope(whole)
        self.raws: Final[list[bytes]] = self.message.spans[:]

    def priced(self) -> bytes:
        """It as one of the `scope_spans`."""
        return wire.scope_with(self.message, self.raws)


class _Texts(NamedTuple):
    """Such calls of a scope, of the same rates: what is done to all of them at once costs far less than with each."""

    scope: _Scope
    parts: Sequence[tuple[_Names, int, int]]
    """Those with the same names: from which on, and up to which."""
    alike: Alike
    """What tells them from each other and from others; start and end as they say it."""
    cached: Sequence[int]
    reasoned: Sequence[int]
    places: Sequence[int]
    """Which of the spans of the scope they are."""

    @classmethod
    def of(cls, scope: _Scope, calls: Mapping[_Names, Sequence[_Text]]) -> Iterator[_Texts]:
        """Calls by their names, in groups of the same rates."""
        groups: defaultdict[_Rates | None, list[_Names]] = defaultdict(list)
        for names in calls:
            groups[names.rates].append(names)
        for group in groups.values():
            ends = list(accumulate([len(calls[names]) for names in group], initial=0))
            *columns, cached, reasoned, places = zip(
                *chain.from_iterable([calls[names] for names in group]), strict=True
            )
            of = group[0].shape.place
            alike = Alike(of.process, of.scope, *columns)
            yield cls(scope, list(zip(group, ends, ends[1:], strict=False)), alike, cached, reasoned, places)

    def rows(self) -> list[_Text]:
        """One by one."""
        return list(zip(*self.alike[2:], self.cached, self.reasoned, self.places, strict=True))

    def split(self, which: Sequence[bool]) -> tuple[list[_Texts], list[_Texts]]:
        """Those of which it is so, and the others."""
        rows = self.rows()
        split: tuple[dict[_Names, list[_Text]], dict[_Names, list[_Text]]] = {}, {}
        for names, begin, end in self.parts:
            for row, so in zip(rows[begin:end], which[begin:end], strict=True):
                split[not so].setdefault(names, []).append(row)
        yes, no = split
        return list(_Texts.of(self.scope, yes)), list(_Texts.of(self.scope, no))

    @property
    def rates(self) -> _Rates:
        """Of all of them."""
        rates = self.parts[0][0].rates
        assert rates is not None
        return rates

    def calls(self) -> Iterator[_Call]:
        """One by one."""
        rows = self.rows()
        for names, begin, end in self.parts:
            for row in rows[begin:end]:
                trace_id, span_id, parent_id, start, ended, response_id, *_, place = row
                call = _Call((trace_id, span_id, parent_id), start, ended, self.scope, place, names.shape)
                call.response_id = response_id
                call.text = names, row
                yield call


class _Call:
    """Any span that tells of a call, and where it stands in its request."""

    __slots__ = (
        "attributes", "end", "index", "new", "raw", "response_id", "scope", "shape", "text", "told", "trace_id",
    )  # fmt: skip

    attributes: dict[str, Any]
    """Of one that has been read as a whole, or has its price."""
    new: Mapping[str, AttributeValue]

    def __init__(
        self, ids: tuple[bytes, bytes, bytes], start: int, end: int, scope: _Scope, index: int, shape: _Shape
    ) -> None:
        trace_id, span_id, parent_id = ids
        place = shape.place
        self.trace_id: Final = trace_id
        self.told: Final = (
            *(trace_id + span_id, wire.inside(trace_id, parent_id)),
            *(place.scope, start, end or start, place.process),
        )
        self.end: Final = end
        """0 if it does not say."""
        self.scope: Final = scope
        self.index: Final = index
        self.raw: Final = scope.raws[index]
        self.shape: Final = shape
        self.response_id: object = None
        self.text: tuple[_Names, _Text] | None = None
        """If it is one of text alone."""


class Pricer:
    """Prices requests, counts their calls in the observer's table and charges them to its guard's budgets.

    `proposal` adds `gen_ai.usage.cost.*`, which the conventions want to see from whoever makes a span alone. For one
    event loop.
    """

    def __init__(self, observer: CostObserver, *, proposal: bool = False) -> None:
        self._observer = observer
        self._proposal = proposal
        self._dimensions: Final = observer.table.dimensions
        self._once = Apart(_REMEMBERED, _LATELY)
        self._places = wire.Memo(_Place, _PLACES_AT_MOST, _is_small)
        self._shapes = wire.Memo(self._shape, _SHAPES_AT_MOST, _is_kept)
        self._names = wire.Memo(self._named, _NAMES_AT_MOST, lambda key: sum(map(len, key[1])) <= _NAMES_BYTES)
        self._guesses: dict[tuple[_Place, int], _Shape] = {}
        """The shape that a span of a place with so many attributes had last."""
        self._learned = 0
        """Names in the layouts of all places."""
        self._charged: list[tuple[_Call, Charge]] = []
        """Of the request under way."""
        self.spans = 0
        """Spans so far, those that tell of no call among them."""
        self.outcomes: Final[dict[Outcome, int]] = {}

    async def price(self, body: bytes) -> bytes:
        """An `ExportTraceServiceRequest` with its calls priced, once what they cost is safely charged.

        The very same bytes where there is nothing to add. Raises `wire.DecodeError` for what is no such request.
        """
        request = wire.open_request(body)
        texts, calls, others, opened = self._calls_in(request)
        taken, links = self._come(others, texts, calls)
        if links:
            self._once.pass_by(links)
        if not texts and not calls:
            return body
        guard = self._observer.guard
        # Budgets and a ledger want to know all that a span says.
        whole = self._observer.ledger is not None or (guard is not None and bool(guard.budgets))
        if not calls and not whole:
            texts, related = self._take_apart(texts, taken, links)
            for alike in texts:
                self._price_alike(alike, known=False)
            texts = related
        self._decide_all([*calls, *chain.from_iterable(map(_Texts.calls, texts))], links, whole)
        charged, self._charged = self._charged, []
        if charged:
            assert guard is not None
            told = await guard.acharge([charge for _, charge in charged])
            for (call, _), new in zip(charged, told, strict=True):
                self._add(call, {**call.new, **new})
        for scopes, at, scope in opened:
            scopes[at] = scope.priced()
        priced: bytes = request.SerializeToString()
        return priced

    # ------------------------------------------------------------------ reading

    def _calls_in(self, request: Any) -> tuple[list[_Texts], list[_Call], list[bytes], list[tuple[Any, int, _Scope]]]:
        """The spans that tell of calls; all others; where scopes with calls belong in the request."""
        texts: list[_Texts] = []
        calls: list[_Call] = []
        others: list[bytes] = []
        opened: list[tuple[Any, int, _Scope]] = []
        for of_resource in request.resource_spans:
            scopes = of_resource.scope_spans
            for at, whole in enumerate(scopes[:]):
                scope = _Scope(whole)
                self.spans += len(scope.raws)
                place = self._places[tuple(of_resource.resource), tuple(scope.message.scope)]
                if not place.tells and not _tells(whole):
                    others += scope.raws
                    continue
                before = len(texts) + len(calls)
                self._read(place, scope, texts, calls, others)
                place.tells = len(texts) + len(calls) > before
                if place.tells:
                    opened.append((scopes, at, scope))
        return texts, calls, others, opened

    def _read(self, place: _Place, scope: _Scope, texts: list[_Texts], calls: list[_Call], others: list[bytes]) -> None:
        """Sort the spans of a scope into those three."""
        alike: defaultdict[_Names, list[_Text]] = defaultdict(list)
        layouts = place.layouts
        integer_of = wire.integer_of
        spans: Any = None
        for index, raw in enumerate(scope.raws):
            read = None
            for layout in layouts.get(len(raw), ()):
                if (read := layout.read(raw)) is not None:
                    break
            if read is not None:
                names, varying = read
                names.shape.recognised += 1
                trace_id, span_id, parent_id, start, end, asked, told, reads, writes, thoughts, both, answer = varying
                sent, received = integer_of(asked), integer_of(told)
                counts: Any = None, sent, 0, received, 0
                # The digit of no reads is 0, or left out.
                if sent is None or received is None or reads > b"\0" or writes or thoughts or both:
                    assert names.rates is not None
                    counts = names.rates.known.counts(*map(integer_of, varying[5:11]))
                if counts is not None:
                    _, sent, cached, received, reasoned = counts
                    response_id = str(answer, "utf-8", "replace") if answer else None
                    alike[names].append((
                        trace_id, span_id, parent_id, start, end, response_id, sent, received, cached, reasoned, index,
                    ))  # fmt: skip
                    continue
            if spans is None:
                spans = wire.open_spans(scope.whole).spans
            found = self._call(place, scope, index, spans[index])
            if found is None:
                others.append(raw)
            elif isinstance(found, _Call):
                calls.append(found)
            else:
                names, text = found
                alike[names].append(text)
        texts += _Texts.of(scope, alike)

    def _call(self, place: _Place, scope: _Scope, index: int, span: Any) -> tuple[_Names, _Text] | _Call | None:
        """What a span tells of a call; None if it tells of none."""
        pieces: list[bytes] = span.attributes[:]
        shape = self._guesses.get((place, len(pieces)))
        names = None
        if shape is not None:
            names = self._names.get((shape, shape.names(pieces)))
            if names is None or not all(map(_begins_with, shape.rest(pieces), shape.heads)):
                shape = names = None
        if shape is None:
            if len(pieces) > wire.ATTRIBUTES_AT_MOST or not wire.may_tell_of_a_call(scope.raws[index]):
                return None
            shape = self._shapes[place, wire.keys_of(pieces)]
            if shape.silent:
                return None
            if shape.translate is not None:
                names = self._names[shape, shape.names(pieces)]
                self._guesses[place, len(pieces)] = shape
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
        start, end = span.start, span.end
        if names is not None and shape.translate is not None:
            if names.rates is None:
                known = shape.translate.of_text(names.attributes)
                names.rates = None if known is None or known.kind is None else shape.rates[known]
            counts = names.counts(pieces)
            if counts is not None:
                self._learn(scope.raws[index], names, pieces, (trace_id, span_id, parent_id, start, end))
                _, sent, cached, received, reasoned = counts
                ids = trace_id, span_id, parent_id
                said = names.response_id(pieces), sent, received, cached, reasoned
                return names, (*ids, start, end, *said, index)
        call = _Call((trace_id, span_id, parent_id), start, end, scope, index, shape)
        if shape.settled:
            call.attributes = wire.attributes_of([pieces[at] for at in shape.settled])
            return call
        call.attributes = wire.attributes_of(pieces)
        return None if says_nothing(call.attributes) else call

    def _learn(self, raw: bytes, names: _Names, pieces: list[bytes], ids_and_times: tuple[Any, ...]) -> None:
        """Remember where everything stands in a span, to find it there in the next."""
        shape, size = names.shape, len(raw)
        # Where spans hold texts, no two are alike, and to learn from each is in vain.
        if size > _LAYOUT_BYTES or shape.learned > _AT_FIRST + shape.recognised // _FOR_ONE:
            return
        shape.learned += 1
        self._learned += 1
        if self._learned > _NAMES_AT_MOST:
            self._forget_layouts()
        counts, answer = shape.counts, shape.response_id
        values = [b"" if place is None else wire.digits_of(pieces[place[0]], place[1]) for place in counts]
        values.append(b"" if answer is None else wire.utf8_of(pieces[answer[0]], answer[1]))
        if None in values:
            return
        varying = (*ids_and_times, *values)
        layouts = shape.place.layouts.setdefault(size, [])
        if any(layout.learn(raw, varying, names) for layout in layouts):
            return
        layout: wire.Layout[_Names] | None = wire.Layout.of(raw, counts, answer, shape.ignored)
        # Whatever protobuf has read otherwise is no such span.
        if layout is not None and layout.learn(raw, varying, names):
            layouts.insert(0, layout)
            del layouts[_LAYOUTS_OF_A_LENGTH:]

    def _forget_layouts(self) -> None:
        for place in self._places.values():
            place.layouts.clear()
        self._learned = 0

    def _shape(self, key: tuple[_Place, tuple[str | None, ...]]) -> _Shape:
        if len(self._shapes) >= _SHAPES_AT_MOST:
            # They are about to be forgotten, and with them what goes by them.
            self._names.clear()
            self._guesses.clear()
            self._forget_layouts()
        return _Shape(*key, self._dimensions)

    def _named(self, key: tuple[_Shape, tuple[bytes, ...]]) -> _Names:
        shape, pieces = key
        attributes = wire.attributes_of(pieces)
        return _Names(shape, attributes, self._who(attributes, shape.place))

    def _who(self, attributes: Mapping[str, Any], place: _Place) -> Attribution | None:
        """Whom a call is for, as far as counters tell."""
        told = {key: attributes.get(key) or place.resource.get(key) for key in self._dimensions}
        found = {key: str(value) for key, value in told.items() if value}
        return Attribution(found) if found else None

    # ------------------------------------------------------------------ counting once

    def _come(
        self, others: list[bytes], texts: Sequence[_Texts], calls: Sequence[_Call]
    ) -> tuple[Taken, dict[bytes, bytes]]:
        """What calls are held in, and `wire.links` of spans that tell of none but are in a trace with some."""
        ids = chain([call.trace_id for call in calls], *[some.alike.trace_ids for some in texts])
        traces = dict.fromkeys(map(wire.trace_of, ids))
        begun = wire.traces_of(others)
        taken, near = self._once.come(traces, begun)
        # All others have nothing to do with any call.
        return taken, wire.links([raw for trace, raw in zip(begun, others, strict=True) if trace in near])

    def _take_apart(
        self, texts: list[_Texts], taken: Taken, links: dict[bytes, bytes]
    ) -> tuple[list[_Texts], list[_Texts]]:
        """Calls that have nothing to do with each other, nor with any that came before, as nearly all; and the others.

        Of the first it is noted that each of them carries its cost, in a fraction of the time that asking takes.
        """
        which = self._once.takes_apart(taken, [some.alike for some in texts], links)
        if all(which):
            return texts, []
        each = iter(which)
        split = [some.split(list(islice(each, len(some.places)))) for some in texts]
        apart, related = zip(*split, strict=True)
        return list(chain(*apart)), list(chain(*related))

    def _decide_all(self, calls: list[_Call], links: dict[bytes, bytes], whole: bool) -> None:
        """Find out what each of them is to be given, in the order that they ended, and count those that are to be."""
        # A span that contains another ends later, whatever the order in which they were sent.
        calls.sort(key=_start, reverse=True)
        calls.sort(key=_end)
        groups: defaultdict[tuple[_Names, _Scope, bool], list[_Text]] = defaultdict(list)
        for call in calls:
            try:
                if call.text is None:
                    self._decide(call, links)
                    continue
                names, text = call.text
                *_, sent, received, _, _, _ = text
                contains = self._once.ends(*call.told[:2], links)
                rollup, known = self._once.repeated(call.told, call.response_id, (sent, received), contains, links)
                if rollup:
                    self._add(call, _ROLLUP)
                    self._note("rollup")
                elif whole:
                    self._price(call, _plain(names, text), names.who, known)
                else:
                    groups[names, call.scope, known].append(text)
            except Exception as error:  # noqa: BLE001  a span of any content must get through
                self._observer.failed("collector.price", error)
        for (names, scope, known), rows in groups.items():
            for texts in _Texts.of(scope, {names: rows}):
                self._price_alike(texts, known=known)

    def _decide(self, call: _Call, links: dict[bytes, bytes]) -> None:
        """The same of one that has been read as a whole, or has its price."""
        place, attributes, told = call.shape.place, call.attributes, call.told
        contains = self._once.ends(*told[:2], links)
        if STATUS in attributes:
            self._once.counted(told, attributes.get(RESPONSE_ID), counts_of(attributes), links)
            self._note("settled")
            return
        # An agent's usage is its calls', unless nobody has seen those.
        reading, call.response_id = told_by(attributes, place.scope, place.resource, aggregate=not contains)
        if reading is None:
            return
        used = isinstance(reading, Plain) or reading.usage is not None or reading.problem is not None
        counts = reading.input_tokens, reading.output_tokens
        rollup, known = self._once.repeated(call.told, call.response_id, counts, contains, links if used else None)
        if rollup:
            self._add(call, _ROLLUP)
            self._note("rollup")
        else:
            self._price(call, reading, self._who(attributes, place), known)

    # ------------------------------------------------------------------ prices

    def _price_alike(self, texts: _Texts, *, known: bool) -> None:
        """Give calls their prices, and count them unless they are known already."""
        try:
            quotes = self._write_prices(texts)
        except Exception as error:  # noqa: BLE001  a span of any content must get through
            self._observer.failed("collector.price", error)
            return
        if quotes is None:
            # They are priced one by one.
            for call in texts.calls():
                assert call.text is not None
                try:
                    self._price(call, _plain(*call.text), call.text[0].who, known)
                except Exception as error:  # noqa: BLE001  as above
                    self._observer.failed("collector.price", error)
        elif known:
            self._note("repeated", len(texts.places))
        else:
            try:
                self._count(texts, quotes)
            except Exception as error:  # noqa: BLE001  as above
                self._observer.failed("collector.count", error)

    def _write_prices(self, texts: _Texts) -> _Quotes | None:
        """Give calls their prices; None if any of them is unusual, and then none has got one."""
        rates, raws, alike = texts.rates, texts.scope.raws, texts.alike
        card = card_of(rates.kind, min(alike.starts), self._observer.book)
        newest = rates.kind.newest
        if card is None or newest is None or newest[2] is not card:
            # Some may have begun when other rates held.
            return None
        if rates.card is not card:
            rates.card, rates.templates = card, {}
        quotes: list[Any] = list(map(card.quote, alike.sent, texts.cached, alike.received, texts.reasoned))
        if None in quotes:
            return None
        columns = list(zip(*quotes, strict=True))
        costs = list(zip(*[map(bool, column) for column in columns[1:4]], strict=True))
        written: list[tuple[Sequence[int], Iterator[bytes]]] = []
        for variant in set(costs):
            if variant not in rates.templates:
                rates.templates[variant] = self._template(rates, card, quotes[costs.index(variant)])
            template = rates.templates[variant]
            if template is None:
                return None
            fill, take = template
            chosen = [variant == each for each in costs]
            numbers = [map(dollars, compress(column, chosen)) for column in take(columns)]
            written.append((list(compress(texts.places, chosen)), fill(numbers)))
        for places, added in written:
            for place, raw in zip(places, map(add, [raws[place] for place in places], added), strict=True):
                raws[place] = raw
        return columns

    def _template(self, rates: _Rates, card: RateCard, quote: tuple[int, int, int, int, int]) -> _Write | None:
        """How to write prices like this one: None if such spans have attributes of the new ones already."""
        plain = Plain()
        plain.kind, plain.card, plain.quote = rates.kind, card, quote
        new = describe(plain, self._proposal)
        if not new.keys().isdisjoint(rates.keys):
            return None
        places = [PLACES[key] for key, value in new.items() if isinstance(value, float)]
        return wire.Template(new).fill, _getter(places)

    def _price(self, call: _Call, reading: Reading | Plain, who: Attribution | None, known: bool) -> None:
        observer, place, end = self._observer, call.shape.place, call.end
        start = call.told[3]
        seconds = max(0, end - start) / 1e9 if end else None
        priced = assess(reading, start, observer.book, seconds)
        call.new = describe(priced, self._proposal)
        self._add(call, call.new)
        if known:
            self._note("repeated")
        else:
            observer.count(priced, who, seconds, own=False)
            self._note("unpriced" if priced.total is None else "priced")
        guard, ledger = observer.guard, None if known else observer.ledger
        budgets = guard is not None and bool(guard.budgets)
        if not budgets and ledger is None:
            return
        attributes = wire.attributes_of(wire.open_span(call.raw).attributes[:])
        trace_id, span_id = call.trace_id, call.told[0].removeprefix(call.trace_id)
        if guard is not None and budgets:
            name = f"{trace_id.hex()}:{span_id.hex()}"
            everything = {**place.resource, **attributes, **in_convention(attributes, place.scope, place.resource)}
            ended = end or start
            charge = guard.charge_for(name, everything, who, priced, ended / 1e9 if ended else None)
            if charge is not None:
                self._charged.append((call, charge))
        if ledger is not None:
            span = SpanContext(int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), is_remote=True)
            ledger.keep(priced, who, start, seconds, None, None, attributes, span, place.scope, place.resource)

    def _add(self, call: _Call, new: Mapping[str, AttributeValue]) -> None:
        old = call.attributes if call.text is None else call.shape.keys
        call.scope.raws[call.index] = wire.with_attributes(call.raw, old, new)

    def _count(self, texts: _Texts, quotes: _Quotes) -> None:
        """Count calls whose prices have been written."""
        table, kind, alike = self._observer.table, texts.rates.kind, texts.alike
        status = "estimated" if kind.estimated else "priced"
        for names, begin, end in texts.parts:
            route = table.route(kind, None if names.who is None else names.who.values(table.dimensions))
            starts, ends = alike.starts[begin:end], alike.ends[begin:end]
            tokens = sum(alike.sent[begin:end]), sum(texts.cached[begin:end]), sum(alike.received[begin:end])
            latency = sum([ended - start for start, ended in zip(starts, ends, strict=True) if ended > start])
            sums = [sum(column[begin:end]) for column in quotes]
            timed = sum(map(bool, ends))
            table.count_all(route, status, end - begin, sums, tokens, latency, timed)
            self._note("priced", end - begin)

    def _note(self, outcome: Outcome, calls: int = 1) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + calls


def _plain(names: _Names, text: _Text) -> Plain:
    *_, sent, received, cached, reasoned, _ = text
    plain = Plain()
    assert names.rates is not None
    plain.kind = names.rates.kind
    plain.plain = sent, cached, received, reasoned
    plain.output_tokens = received
    return plain


_ROLLUP: Final[Mapping[str, AttributeValue]] = {ROLLUP: True}
_begins_with: Final = bytes.startswith


def _start(call: _Call) -> int:
    return call.told[3]


_end: Final = attrgetter("end")
