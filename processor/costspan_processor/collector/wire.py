"""OTLP traces as bytes: spans are taken apart only where they tell of a call, and attributes are appended to them.

Python touching protobuf objects costs far more than protobuf itself, so a private schema with OTLP's field numbers
leaves sub-messages as `bytes`: both have wire type 2. What the schema does not name is kept as it came. Strings are
bytes too: text that is no UTF-8 is whoever's business who stores it.
"""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ahocorasick_rs import BytesAhoCorasick, MatchKind
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from opentelemetry.util.types import AttributeValue

__all__ = [
    "DecodeError", "Layout", "Memo", "Place", "Template", "appended", "attributes_of", "digits_of", "head_of", "inside",
    "integer_of", "keys_of", "links", "may_tell_of_a_call", "names_in", "open_request", "open_scope", "open_span",
    "open_spans", "resource_of", "scope_of", "scope_with", "trace_of", "traces_of", "utf8_of", "value_of",
    "with_attributes",
]  # fmt: skip

_K = TypeVar("_K")
_V = TypeVar("_V")

_FIELD = descriptor_pb2.FieldDescriptorProto
_BYTES: Final = _FIELD.TYPE_BYTES
_NAMES: Final = {"bool": _FIELD.TYPE_BOOL, "int": _FIELD.TYPE_INT64, "double": _FIELD.TYPE_DOUBLE, "fixed64": 6}

_SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "Request": {"resource_spans": (1, "*ResourceSpans")},
    # One message given in several pieces is one message: none of the pieces may be lost.
    "ResourceSpans": {"resource": (1, "*"), "scope_spans": (2, "*")},
    "ScopeSpans": {"scope": (1, "*"), "spans": (2, "*")},
    "Spans": {"spans": (2, "*Span")},
    # One span in many pieces, as far as protobuf can tell: it puts the attributes of all into one map.
    "Merged": {"span": (2, "MergedSpan")},
    "MergedSpan": {"attributes": (9, "*map")},
    "Resource": {"attributes": (1, "*")},
    "Scope": {"name": (1, "")},
    "Span": {
        "trace_id": (1, ""),
        "span_id": (2, ""),
        "parent_span_id": (4, ""),
        "start": (7, "fixed64"),
        "end": (8, "fixed64"),
        "attributes": (9, "*"),
    },
    "KeyValue": {"key": (1, ""), "value": (2, "Value")},
    "Value": {
        "string": (1, "|"),
        "bool": (2, "|bool"),
        "int": (3, "|int"),
        "double": (4, "|double"),
        "array": (5, "|Values"),
        "map": (6, "|KeyValues"),
        "bytes": (7, "|"),
    },
    "Values": {"values": (1, "*Value")},
    "KeyValues": {"values": (1, "*KeyValue")},
}
"""Message -> field -> number and type: `*` repeated, `|` one of, then a name, or nothing for bytes.

`*map` is of bytes by text."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="costspan/wire.proto", package="costspan.wire", syntax="proto3")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            word = kind.lstrip("*|")
            if word == "map":
                entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
                entry.field.add(name="value", number=2, label=_FIELD.LABEL_OPTIONAL, type=_BYTES)
                word = f"{name}.{entry.name}"
            made = message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL,
                type=_NAMES.get(word, _FIELD.TYPE_MESSAGE if word else _BYTES),
            )
            if made.type == _FIELD.TYPE_MESSAGE:
                made.type_name = f".costspan.wire.{word}"
            if kind.startswith("|"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="is")
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"costspan.wire.{name}")) for name in _SCHEMA
    }


class Memo(dict[_K, _V]):
    """What `make` says of a key: forgotten when there are `at_most`, and not kept at all unless the key `fits`."""

    def __init__(self, make: Callable[[_K], _V], at_most: int, fits: Callable[[_K], bool] | None = None) -> None:
        self._make = make
        self._at_most = at_most
        self._fits = fits

    def __missing__(self, key: _K) -> _V:
        made = self._make(key)
        if self._fits is None or self._fits(key):
            if len(self) >= self._at_most:
                self.clear()
            self[key] = made
        return made


_of: Final = _messages()
_key_value: Final = _of["KeyValue"].FromString

open_request: Final = _of["Request"].FromString
"""A request as a message with `resource_spans`, and those with `resource` and `scope_spans`, which are bytes."""
open_scope: Final = _of["ScopeSpans"].FromString
"""One of the `scope_spans` as a message with `scope` and `spans`, which are bytes."""
open_spans: Final = _of["Spans"].FromString
"""One of the `scope_spans` as a message whose `spans` are as `open_span` gives them."""
open_span: Final = _of["Span"].FromString
"""A span as a message with `trace_id`, `span_id`, `parent_span_id`, `start` and `end` (unix nanoseconds, 0 if it does
not say) and `attributes`, which are bytes. These four raise DecodeError."""


_SIGNS: Final = (b"ai.", b"llm.", b"token", b"usage", b".model", b"service_tier")
"""Each name by which a dialect knows a call contains one of these, nearly every one the first."""
# Of any other kind of match it is 25 times as slow: none else uses the processor's vectors.
_signs_in: Final = BytesAhoCorasick(_SIGNS, matchkind=MatchKind.LeftmostFirst).find_matches_as_indexes
_PIECE: Final = 1 << 16
"""Bytes that are searched at once, since all that is found in them is listed."""
_SEAM: Final = max(map(len, _SIGNS)) - 1
"""Bytes of the next piece that belong to a sign which begins in this one."""


def may_tell_of_a_call(raw: bytes) -> bool:
    """False for bytes that certainly hold no span that tells of a call to a model: most are seen by this alone."""
    if len(raw) <= _PIECE:
        return bool(_signs_in(raw))
    whole = memoryview(raw)
    return any(_signs_in(whole[at : at + _PIECE + _SEAM]) for at in range(0, len(raw), _PIECE))


def names_in(scope: bytes) -> Mapping[str, bytes]:
    """All attributes of the spans in one of the `scope_spans`, by name, with one value each. Raises DecodeError."""
    found: Mapping[str, bytes] = _of["Merged"].FromString(scope).span.attributes
    return found


_HEAD: Final = struct.Struct("<2x16s2x8s2x8s")
_HEAD_TAGS: Final = {0: 0x0A, 1: 16, 18: 0x12, 19: 8}
_PARENT, _TRACE_STATE = 0x22, 0x1A


def inside(trace_id: bytes, parent_id: bytes) -> bytes:
    """What a span of a trace is inside, known by the ids of both: nothing, which is empty, if it is a root."""
    return parent_id and trace_id + parent_id


def links(spans: Sequence[bytes]) -> dict[bytes, bytes]:
    """Spans by their traces' ids with their own, and `inside` what each of them is."""
    # Every library writes a trace id, a span id, then the parent's unless there is a trace state or no parent.
    size = _HEAD.size
    heads = b"".join([raw[:size] for raw in spans])
    count = len(spans)
    if not _begin_alike(heads, count, size, _HEAD_TAGS):
        return dict(map(_link, spans))
    found = {trace_id + span_id: trace_id + parent_id for trace_id, span_id, parent_id in _HEAD.iter_unpack(heads)}
    tags, sizes = heads[28::size], heads[29::size]
    if tags.count(_PARENT) != count or sizes.count(8) != count:
        for raw, tag, length in zip(spans, tags, sizes, strict=True):
            if tag != _PARENT or length != 8:
                root = tag not in {_PARENT, _TRACE_STATE}
                span_id, parent_id = (raw[2:18] + raw[20:28], b"") if root else _link(raw)
                found[span_id] = parent_id
    return found


def _link(raw: bytes) -> tuple[bytes, bytes]:
    span = open_span(raw)
    return span.trace_id + span.span_id, inside(span.trace_id, span.parent_span_id)


def traces_of(spans: Sequence[bytes]) -> list[bytes]:
    """Their traces, each as `trace_of` its id: what they begin with, as every library writes them."""
    begun = [raw[:_BEGINNING] for raw in spans]
    if not _begin_alike(b"".join(begun), len(spans), _BEGINNING, dict(enumerate(_TRACE))):
        return [trace_of(open_span(raw).trace_id) for raw in spans]
    return begun


_TRACE: Final = bytes((0x0A, 16))
_BEGINNING: Final = 18
"""Bytes of that with a trace's id."""
trace_of: Final[Callable[[bytes], bytes]] = _TRACE.__add__
"""What a trace is known by, of its id."""


def _begin_alike(heads: bytes, count: int, size: int, tags: Mapping[int, int]) -> bool:
    """Whether the first bytes of so many spans, `size` of each, have the tags where every library writes them."""
    return len(heads) == count * size and all(heads[at::size].count(tag) == count for at, tag in tags.items())


_IDS_AND_TIMES: Final = [1, 2, 4, 7, 8]
_OF_A_ROOT: Final = [1, 2, 7, 8]
"""Numbers of fields, in their order."""
_ATTRIBUTE, _LENGTH_DELIMITED = 9, 2
_FIXED: Final = {1: 8, 5: 4}
"""Bytes by wire type."""

Place = tuple[int, int]
"""Which of a span's attributes, and how many bytes its name and what stands before that take (`head_of`)."""


class Layout(Generic[_V]):
    """Where everything stands in spans of one length that are alike but for ids, times and some attributes' values.

    A span has it if all its other bytes are those of one that had it: tags and lengths are among them, so that protobuf
    could read it in no other way. What else such spans have in common is remembered as `learn` is told.
    """

    __slots__ = ("_cut", "_differ", "_fixed", "_known", "_pick", "_varying")

    def __init__(self, cut: Callable[[bytes], tuple[Any, ...]], fixed: list[int], varying: list[int]) -> None:
        self._cut = cut
        self._fixed = itemgetter(*fixed)
        self._varying = itemgetter(*varying)
        self._differ = [0]
        """In which of what does not vary from span to span one kind of them is seen to differ from another."""
        self._pick: Callable[[tuple[bytes, ...]], Any] = itemgetter(0)
        self._known: dict[Any, tuple[tuple[bytes, ...], _V]] = {}

    @classmethod
    def of(
        cls, raw: bytes, counts: Sequence[Place | None], text: Place | None, ignored: Iterable[Place]
    ) -> Layout[_V] | None:
        """That of a span in which `counts` hold integers and `text` a short text; None is what it has not.

        None for a span whose fields stand in no usual order.
        """
        fields = list(_fields(raw))
        order = [number for number, _, _ in fields if number in _IDS_AND_TIMES]
        wanted: list[tuple[int, int] | None]
        wanted = [(at, end) for number, at, end in fields if number in _IDS_AND_TIMES]
        if order == _OF_A_ROOT:
            wanted.insert(2, None)
        elif order != _IDS_AND_TIMES:
            return None
        pieces = [(at, end) for number, at, end in fields if number == _ATTRIBUTE]
        inner = [*((place, _BEFORE_DIGITS) for place in counts), (text, _BEFORE_TEXT)]
        for place, more in inner:
            wanted.append(None if place is None else (pieces[place[0]][0] + place[1] + more, pieces[place[0]][1]))
        unread = [(pieces[which][0] + size, pieces[which][1]) for which, size in ignored]
        # What is not there is no bytes at the end.
        form, reached, fixed, varying = "<", 0, [], dict.fromkeys(filter(None, wanted), 0)
        number = 0
        for at, end in sorted([*varying, *unread]):
            if at > reached:
                form += f"{at - reached}s"
                fixed.append(number)
                number += 1
            reached = end
            if (at, end) in varying:
                form += "Q" if (at, end) in wanted[3:5] else f"{end - at}s"
                varying[at, end] = number
                number += 1
            else:
                form += f"{end - at}x"
        cut = struct.Struct(f"{form}{len(raw) - reached}s0s")
        if cut.size != len(raw):
            return None
        return cls(cut.unpack, [*fixed, number], [number + 1 if place is None else varying[place] for place in wanted])

    def read(self, raw: bytes) -> tuple[_V, tuple[Any, ...]] | None:
        """What was learned of spans like this one, of as many bytes, and what varies in it.

        That is: the ids of trace, span and parent, start, end, the digits of the counts, and the text in UTF-8;
        what it has not is empty. None if nothing was learned.
        """
        parts = self._cut(raw)
        fixed = self._fixed(parts)
        known = self._known.get(self._pick(fixed))
        return (known[1], self._varying(parts)) if known is not None and known[0] == fixed else None

    def learn(self, raw: bytes, varying: tuple[Any, ...], what: _V) -> bool:
        """Remember `what` of spans like this one; `varying` is what `read` must say of it, else it is not done."""
        parts = self._cut(raw)
        if self._varying(parts) != varying:
            return False
        fixed = self._fixed(parts)
        known = self._known.get(self._pick(fixed))
        if known is not None and known[0] != fixed:
            self._differ.append(
                next(at for at, (one, other) in enumerate(zip(fixed, known[0], strict=True)) if one != other)
            )
            self._pick = pick = itemgetter(*self._differ)
            self._known = {pick(of): (of, told) for of, told in self._known.values()}
        self._known[self._pick(fixed)] = fixed, what
        return True


def _fields(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """The numbers of a message's fields, and where the value of each begins and ends. The message has been parsed."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == _LENGTH_DELIMITED:
            size, at = _varint(raw, at)
        elif tag & 7 == 0:
            size = _varint(raw, at)[1] - at
        else:
            # A group is in nothing that OTLP has.
            size = _FIXED.get(tag & 7, len(raw))
        yield tag >> 3, at, at + size
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The integer that begins there, and where it ends."""
    value = shift = 0
    while raw[at] & 128:
        value |= (raw[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | raw[at] << shift, at + 1


_DOUBLE: Final = struct.Struct("<d")
ATTRIBUTES_AT_MOST: Final = 1024
"""A span with more is not looked at."""


def head_of(name: str) -> bytes:
    """What an attribute of this name, which is one of `keys_of`, begins with."""
    return bytes((_KEY, len(name.encode()))) + name.encode()


def keys_of(pieces: Iterable[bytes]) -> tuple[str | None, ...]:
    """The names of attributes, without a look at their values; None for what is not as every library writes it."""
    return tuple(map(_keys.__getitem__, pieces))


def _key_of(piece: bytes) -> str | None:
    return _names[piece[: piece[1] + 2]] if len(piece) > 1 else None


def _name(head: bytes) -> str | None:
    """The name that an attribute begins with, given as many of its bytes as its second says."""
    if len(head) > 2 and head[0] == _KEY and head[1] == len(head) - 2 <= 127:
        with suppress(UnicodeDecodeError):
            return head[2:].decode()
    return None


def attributes_of(pieces: Iterable[bytes]) -> dict[str, Any]:
    """Attributes by name, values as the OpenTelemetry SDK has them; a map is a dict. Raises DecodeError."""
    return dict(map(_pairs.__getitem__, pieces))


def _pair_of(piece: bytes) -> tuple[str, Any]:
    key = _keys[piece]
    return _text(_key_value(piece).key) if key is None else key, value_of(piece)


_KEY, _VALUE, _STRING, _INT, _FLOAT = 0x0A, 0x12, 0x0A, 0x18, 0x21
_SHORT: Final = 128
"""Lengths below this are one byte."""


def value_of(piece: bytes) -> Any:
    """The value of an attribute. Raises DecodeError."""
    # Most are short texts, and taking protobuf's objects apart costs three times as much. The lengths must add up to
    # the whole: nothing else can be in it then.
    size = len(piece)
    if 6 <= size < _SHORT and piece[0] == _KEY:
        at = piece[1] + 2
        if at + 4 <= size and piece[at] == _VALUE and piece[at + 1] == size - at - 2:
            kind = piece[at + 2]
            if kind == _STRING and piece[at + 3] == size - at - 4:
                return _text(piece[at + 4 :])
            if kind == _FLOAT and size == at + 11:
                number: float = _DOUBLE.unpack_from(piece, at + 3)[0]
                return number
            if kind == _INT and (small := integer_of(piece[at + 3 :])) is not None:
                return small
    return _value(_key_value(piece).value)


def digits_of(piece: bytes, at: int) -> bytes | None:
    """The digits of an attribute that is an integer as every library writes it, and whose name ends at `at`."""
    found = piece[at + _BEFORE_DIGITS :]
    return found if piece[at : at + _BEFORE_DIGITS] == bytes((_VALUE, len(found) + 1, _INT)) else None


def utf8_of(piece: bytes, at: int) -> bytes | None:
    """The same of one that is a short text."""
    found = piece[at + _BEFORE_TEXT :]
    size = len(found)
    usual = size < _SHORT - 2 and piece[at : at + _BEFORE_TEXT] == bytes((_VALUE, size + 2, _STRING, size))
    return found if usual else None


_BEFORE_DIGITS: Final = 3
_BEFORE_TEXT: Final = 4
"""Bytes between a name and a value."""


def integer_of(found: bytes) -> int | None:
    """What up to three digits say, none being 0; else None."""
    size = len(found)
    if size == 2:
        low, high = found[0], found[1]
        return low & 127 | high << 7 if low > 127 >= high else None
    if size == 3:
        low, middle, high = found
        return low & 127 | (middle & 127) << 7 | high << 14 if low > 127 < middle and high < 128 else None
    if size == 1:
        return found[0] if found[0] < 128 else None
    return None if size else 0


def _value(value: Any) -> Any:
    kind = value.WhichOneof("is")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "string":
        return _text(found)
    if kind == "array":
        return tuple(_value(item) for item in found.values)
    if kind == "map":
        return {_text(item.key): _value(item.value) for item in found.values}
    return found


def _text(found: bytes) -> str:
    return found.decode("utf-8", "replace")


def _comes_again(piece: bytes) -> bool:
    return len(piece) <= 64


_names: Final[Memo[bytes, str | None]] = Memo(_name, 4096)
"""Names by the bytes that attributes begin with."""
_keys: Final[Memo[bytes, str | None]] = Memo(_key_of, 32_768, _comes_again)
"""The names of attributes."""
_pairs: Final[Memo[bytes, tuple[str, Any]]] = Memo(_pair_of, 32_768, _comes_again)
"""Attributes read."""


def resource_of(parts: Iterable[bytes]) -> dict[str, Any]:
    """The attributes of a resource."""
    return attributes_of(_of["Resource"].FromString(b"".join(parts)).attributes)


def scope_of(parts: Iterable[bytes]) -> str:
    """The name of a scope."""
    return _text(_of["Scope"].FromString(b"".join(parts)).name)


def scope_with(scope: Any, spans: Iterable[bytes]) -> bytes:
    """What `open_scope` gave as one of the `scope_spans`, with these spans for its own."""
    del scope.spans[:]
    made: bytes = scope.SerializeToString()
    before = map(_before_a_span.__getitem__, map(len, spans))
    return made + b"".join(chain.from_iterable(zip(before, spans, strict=True)))


def _before(size: int) -> bytes:
    digits = []
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes((_SPANS, *digits, size))


_SPANS: Final = 0x12
_before_a_span: Final = Memo(_before, 4096)
"""What stands before a span of so many bytes."""


def with_attributes(raw: bytes, old: Iterable[str], new: Mapping[str, AttributeValue]) -> bytes:
    """A span with `new` in the place of its `old` attributes of the same names, and what is new of it at the end."""
    if not new.keys().isdisjoint(old):
        message = open_span(raw)
        kept = [piece for piece in message.attributes if _text(_key_value(piece).key) not in new]
        del message.attributes[:]
        message.attributes.extend(kept)
        raw = message.SerializeToString()
    return raw + appended(new)


def appended(new: Mapping[str, AttributeValue]) -> bytes:
    """Attributes as bytes which, behind those of a span, make them attributes of it."""
    parts: list[bytes] = []
    for key, value in new.items():
        if type(value) is float:
            parts += _before_a_double[key], _DOUBLE.pack(value)
        elif type(value) is str or type(value) is bool:
            parts.append(_records[key, value])
        else:
            parts.append(_record(key, value))
    return b"".join(parts)


class Template:
    """Attributes of which only the numbers change, as bytes."""

    __slots__ = ("_pack", "_texts")

    def __init__(self, attributes: Mapping[str, AttributeValue]) -> None:
        texts = [b""]
        for key, value in attributes.items():
            if isinstance(value, float):
                texts[-1] += _before_a_double[key]
                texts.append(b"")
            else:
                texts[-1] += _record(key, value)
        self._texts = tuple(map(repeat, texts))
        self._pack = struct.Struct("<" + "d".join(f"{len(text)}s" for text in texts)).pack

    def fill(self, columns: Sequence[Iterable[float]]) -> Iterator[bytes]:
        """The attributes with one number of each column after the other, in the order of the numbers in them."""
        texts = self._texts
        parts: list[Iterable[float | bytes]] = [texts[0]]
        for column, text in zip(columns, texts[1:], strict=True):
            parts += column, text
        return map(self._pack, *parts)


def _record(key: str, value: AttributeValue) -> bytes:
    pair = _of["KeyValue"](key=key.encode())
    if isinstance(value, bool):
        pair.value.bool = value
    elif isinstance(value, int):
        pair.value.int = value
    elif isinstance(value, float):
        pair.value.double = value
    elif isinstance(value, str):
        pair.value.string = value.encode("utf-8", "replace")
    else:
        pair.value.string = json.dumps(value, default=str).encode()
    whole: bytes = _of["Span"](attributes=[pair.SerializeToString()]).SerializeToString()
    return whole


_before_a_double: Final[Memo[str, bytes]] = Memo(lambda key: _record(key, 0.0)[:-8], 4096)
_records: Final[Memo[tuple[str, str | bool], bytes]] = Memo(
    lambda pair: _record(*pair), 16_384, lambda pair: len(str(pair[1])) <= 256
)
