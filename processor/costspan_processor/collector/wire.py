"""OTLP traces as bytes: spans are taken apart only where they tell of a call, and attributes are appended to them.

Python touching protobuf objects costs far more than protobuf itself, so a private schema with OTLP's field numbers
leaves sub-messages as `bytes`: both have wire type 2. What the schema does not name is kept as it came. Strings are
bytes too: text that is no UTF-8 is whoever's business who stores it.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.util.types import AttributeValue

__all__ = ["DecodeError", "Span", "appended", "attributes_of", "links", "open_request", "resource_of", "scope_of"]

_FIELD = descriptor_pb2.FieldDescriptorProto
_BYTES: Final = _FIELD.TYPE_BYTES
_NAMES: Final = {"bool": _FIELD.TYPE_BOOL, "int": _FIELD.TYPE_INT64, "double": _FIELD.TYPE_DOUBLE, "fixed64": 6}

_SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "Request": {"resource_spans": (1, "*ResourceSpans")},
    # One message given in several pieces is one message: none of the pieces may be lost.
    "ResourceSpans": {"resource": (1, "*"), "scope_spans": (2, "*ScopeSpans")},
    "ScopeSpans": {"scope": (1, "*"), "spans": (2, "*")},
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
"""Message -> field -> number and type: `*` repeated, `|` one of, then a name, or nothing for bytes."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="costspan/wire.proto", package="costspan.wire", syntax="proto3")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            word = kind.lstrip("*|")
            made = message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL,
                type=_FIELD.TYPE_MESSAGE if word in _SCHEMA else _NAMES.get(word, _BYTES),
            )
            if word in _SCHEMA:
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


_of: Final = _messages()
_request: Final = _of["Request"].FromString
_span: Final = _of["Span"].FromString
_key_value: Final = _of["KeyValue"].FromString
_resource: Final = _of["Resource"].FromString
_scope: Final = _of["Scope"].FromString

open_request: Final = _request
"""A request's bytes as a message with `resource_spans`, those with `resource` and `scope_spans`, those with `scope` and
`spans`, which are bytes. Raises DecodeError."""


def may_tell_of_a_call(raw: bytes) -> bool:
    """False for a span that certainly tells of no call to a model: most are seen by this alone."""
    # Each name by which a dialect knows a call contains one of these, nearly every one the first.
    return (
        b"ai." in raw
        or b"llm." in raw
        or b"token" in raw
        or b"usage" in raw
        or b".model" in raw
        or b"service_tier" in raw
    )


ATTRIBUTES_AT_MOST: Final = 1024
"""A span with more is not looked at."""

_START, _END, _ATTRIBUTE, _FLAGS = 0x39, 0x41, 0x4A, 0x85
_SIZED: Final = frozenset({0x2A, 0x5A, 0x6A, 0x7A})
"""The tags of a span's name, events, links and status."""
_NUMBERS: Final = frozenset({0x30, 0x50, 0x60, 0x70})
"""Of its kind, and of how many attributes, events and links were dropped."""
_TIMES: Final = struct.Struct("<QxQ").unpack_from
"""Start and end, which stand side by side."""


class Span:
    """A span that has been taken apart."""

    __slots__ = ("attributes", "end", "parent_id", "raw", "span_id", "start", "trace_id")

    attributes: Mapping[str, Any]
    start: int
    """Unix nanoseconds, as `end`; 0 if the span does not say."""

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw
        if not self._walk(raw):
            message = _span(raw)
            self.trace_id, self.span_id, self.parent_id = message.trace_id, message.span_id, message.parent_span_id
            self.start, self.end = message.start, message.end
            few = len(message.attributes) <= ATTRIBUTES_AT_MOST
            self.attributes = attributes_of(message.attributes) if few else {}

    def _walk(self, raw: bytes) -> bool:
        """Take apart a span whose fields stand in the order that libraries write them in; False if they do not.

        Several times as fast as an object of protobuf with a bytes object for each attribute. Whatever is unusual is
        left to protobuf, malformed lengths too.
        """
        size = len(raw)
        if size < 64 or raw[:2] != b"\x0a\x10" or raw[18:20] != b"\x12\x08":
            return False
        at, parent_id = 28, b""
        if raw[at] == 0x22:
            if raw[at + 1] != 8:
                return False
            parent_id = raw[30:38]
            at = 38
        known = _known
        attributes: dict[str, Any] = {}
        start = end = before = 0
        try:
            while at < size:
                tag = raw[at]
                if tag < before:
                    return False
                before = tag
                if tag == _ATTRIBUTE:
                    length = raw[at + 1]
                    at += 2
                    if length > 127:
                        length, at = _varint(raw, at - 1)
                    stop = at + length
                    attribute = raw[at:stop]
                    try:
                        key, value = known[attribute]
                    except KeyError:
                        if stop > size:
                            return False
                        key, value = _attribute(attribute)
                    attributes[key] = value
                    at = stop
                elif tag == _START:
                    if raw[at + 9] != _END:
                        return False
                    start, end = _TIMES(raw, at + 1)
                    at += 18
                elif tag in _SIZED:
                    length, at = _varint(raw, at + 1)
                    at += length
                elif tag in _NUMBERS:
                    _, at = _varint(raw, at + 1)
                elif tag == _FLAGS and raw[at + 1] == 1:
                    at += 6
                else:
                    return False
        except (IndexError, struct.error):
            return False
        if at != size or len(attributes) > ATTRIBUTES_AT_MOST:
            return False
        self.trace_id, self.span_id, self.parent_id = raw[2:18], raw[20:28], parent_id
        self.start, self.end, self.attributes = start, end, attributes
        return True

    def with_attributes(self, new: Mapping[str, AttributeValue]) -> bytes:
        """The span with `new` in the place of its attributes of the same names, and what is new of it at the end."""
        if new.keys().isdisjoint(self.attributes):
            return self.raw + appended(new)
        message = _span(self.raw)
        kept = [raw for raw in message.attributes if _attribute(raw)[0] not in new]
        del message.attributes[:]
        message.attributes.extend(kept)
        whole: bytes = message.SerializeToString()
        return whole + appended(new)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number that stands at `at`, and where it ends."""
    value = shift = 0
    while (more := raw[at]) > 127:
        value |= (more & 127) << shift
        shift += 7
        at += 1
    return value | more << shift, at + 1


def links(spans: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The ids of spans and of those above them, which is empty for a root."""
    for raw in spans:
        # As every library writes it: trace id, span id, then the parent unless there is a trace state or none.
        if raw[18:20] == b"\x12\x08" and raw[:2] == b"\x0a\x10":
            if raw[28:30] == b"\x22\x08":
                yield raw[20:28], raw[30:38]
                continue
            if raw[28:29] != b"\x1a":
                yield raw[20:28], b""
                continue
        message = _span(raw)
        yield message.span_id, message.parent_span_id


_KNOWN_AT_MOST: Final = 32_768
_KNOWN_BYTES: Final = 128
_known: dict[bytes, tuple[str, Any]] = {}
"""Attributes by their bytes: names, models and small counts come again and again."""
_names: dict[bytes, str] = {}
"""Their names by the bytes that an attribute begins with."""


def attributes_of(raws: Iterable[bytes]) -> dict[str, Any]:
    """Attributes by name, values as the OpenTelemetry SDK has them; a map is a dict."""
    found = {}
    known = _known
    for raw in raws:
        try:
            key, value = known[raw]
        except KeyError:
            key, value = _attribute(raw)
        found[key] = value
    return found


def _attribute(raw: bytes) -> tuple[str, Any]:
    # Most are a short name and a short text, and ids are never the same: read by eye, since taking protobuf's objects
    # apart costs three times as much. The lengths must add up to the whole, and no two fields can be in it then.
    size = len(raw)
    if 8 <= size <= _KNOWN_BYTES and raw[0] == 0x0A:
        name_ends = 2 + raw[1]
        if (
            name_ends + 4 <= size
            and raw[name_ends] == 0x12
            and raw[name_ends + 1] == size - name_ends - 2
            and raw[name_ends + 2] == 0x0A
            and raw[name_ends + 3] == size - name_ends - 4
        ):
            name = raw[:name_ends]
            key = _names.get(name)
            if key is None:
                if len(_names) >= _KNOWN_AT_MOST:
                    _names.clear()
                key = _names[name] = _text(name[2:])
            pair = key, _text(raw[name_ends + 4 :])
            # Ids are never the same again.
            return pair if key.endswith("id") else _remember(raw, pair)
    message = _key_value(raw)
    return _remember(raw, (_text(message.key), _value(message.value)))


def _remember(raw: bytes, pair: tuple[str, Any]) -> tuple[str, Any]:
    if len(raw) <= _KNOWN_BYTES:
        if len(_known) >= _KNOWN_AT_MOST:
            _known.clear()
        _known[raw] = pair
    return pair


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


_resources: dict[tuple[bytes, ...], dict[str, Any]] = {}
_scopes: dict[tuple[bytes, ...], str] = {}
_PLACES_AT_MOST: Final = 4096


def resource_of(raws: Iterable[bytes]) -> dict[str, Any]:
    """The attributes of a resource, which is the same object for the same bytes. Not to be changed."""
    key = tuple(raws)
    found = _resources.get(key)
    if found is None:
        if len(_resources) >= _PLACES_AT_MOST:
            _resources.clear()
        found = _resources[key] = attributes_of(_resource(b"".join(key)).attributes)
    return found


def scope_of(raws: Iterable[bytes]) -> str:
    """The name of a scope."""
    key = tuple(raws)
    found = _scopes.get(key)
    if found is None:
        if len(_scopes) >= _PLACES_AT_MOST:
            _scopes.clear()
        found = _scopes[key] = _text(_scope(b"".join(key)).name)
    return found


_DOUBLE: Final = struct.Struct("<d").pack
_doubles: dict[str, bytes] = {}
_texts: dict[tuple[str, AttributeValue], bytes] = {}


def appended(new: Mapping[str, AttributeValue]) -> bytes:
    """Attributes as bytes which, behind those of a span, make them attributes of it."""
    parts = []
    for key, value in new.items():
        if type(value) is float:
            try:
                parts.append(_doubles[key])
            except KeyError:
                whole = _record(key, 0.0)
                parts.append(_doubles.setdefault(key, whole[:-8]))
            parts.append(_DOUBLE(value))
        elif type(value) is str:
            try:
                parts.append(_texts[key, value])
            except KeyError:
                whole = _record(key, value)
                if len(_texts) >= _KNOWN_AT_MOST:
                    _texts.clear()
                parts.append(_texts.setdefault((key, value), whole))
        else:
            parts.append(_record(key, value))
    return b"".join(parts)


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
