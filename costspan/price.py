"""`costspan price`: JSON lines of usage in, JSON lines of cost out.

A line costs what the same call costs on a span: the readers are the instrumentation's, the price is the processor's.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from costspan.startup import read_usage
from costspan_pricing import PICO, BookError, PriceBook
from costspan_processor import conventions
from costspan_processor.enrich import assess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costspan_pricing import CostLine
    from costspan_processor.conventions import Plain
    from costspan_processor.enrich import Priced

CONTEXT: Final = (
    "server_address", "region", "deployment_type", "response_model", "requested_service_tier",
    "response_service_tier", "inference_geo", "speed", "override",
)  # fmt: skip
"""The facts of a call that a line may add under `context`."""

_EVERYWHERE = {"global", "not_available"}
_DEPLOYMENTS = {
    "global": "", "globalstandard": "", "globalbatch": "",
    "datazone": "data_zone", "datazonestandard": "data_zone", "datazonebatch": "data_zone",
    "regional": "regional", "regionalstandard": "regional", "standard": "regional",
}  # fmt: skip
"""Azure's kinds of deployment, in small letters alone -> the word under which the book has their prices."""
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT_AT_MOST = 1024
_CHUNK = 1 << 16
_encode = json.JSONEncoder(check_circular=False).encode


class LineError(ValueError):
    """A line that cannot be read; the message says what is wrong in it, and what would be right."""


def instant(text: object) -> int:
    """An RFC 3339 instant as unix nanoseconds; a date alone is its midnight in UTC.

    >>> instant("2026-11-23T06:00:00.5+01:00"), instant("2026-11-23") == instant("2026-11-23T00:00:00Z")
    (1795410000500000000, True)
    """
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        raise LineError(f"{text!r} is no instant such as 2026-11-23T05:00:00Z or 2026-11-23T06:00:00+01:00")
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        raise LineError(f"{text!r} is no instant: {error}") from None


class Pricer:
    """Prices lines. `at` is the instant (unix nanoseconds) of lines that do not name theirs."""

    def __init__(self, at: int, book: PriceBook | None = None) -> None:
        self._at = at
        self._book = book or PriceBook.bundled()
        self._instants: dict[str, int] = {}
        self._books: dict[str, PriceBook] = {}

    def price(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one line, ready for JSON. Raises `LineError`."""
        priced, _, _ = self.assess(line)
        reading, cost = priced.reading, priced.cost
        flags = list(cost.flags)
        if reading.usage is not None and reading.usage.inconsistent and "inconsistent" not in flags:
            flags.append("inconsistent")
        return {
            "id": line.get("id"),
            "usd": _usd(priced.total),
            "status": priced.status,
            "reason": priced.status if priced.total is None else None,
            "flags": flags,
            "source": cost.source,
            "period_source": cost.period_source or None,
            "book": cost.book or None,
            "lines": [_line(part) for part in cost.lines],
        }

    def assess(self, line: Mapping[str, Any]) -> tuple[Priced | Plain, int, PriceBook]:
        """One line with its price, the instant (unix nanoseconds) and the book that it is of. Raises `LineError`."""
        context = _object(line, "context") or {}
        for key in context:
            if key not in CONTEXT:
                raise LineError(f"context.{key} is not known; known are {', '.join(CONTEXT)}")
        attributes = span_attributes(line, context)
        if not (attributes.get(conventions.PROVIDER) or attributes.get("gen_ai.system")):
            raise LineError("provider is missing, such as openai")
        if not (attributes.get(conventions.REQUEST_MODEL) or attributes.get(conventions.RESPONSE_MODEL)):
            raise LineError("model is missing, such as gpt-4.1")
        reading = conventions.read(attributes)
        if reading is None:
            raise LineError(f"usage of {attributes[conventions.OPERATION]!r} carries no bill of its own")
        at, book = self._instant(line), self._with_own(_object(context, "override", "context."))
        return assess(reading, at, book), at, book

    def _instant(self, line: Mapping[str, Any]) -> int:
        text = line.get("at")
        if text is None:
            return self._at
        if (known := self._instants.get(text) if isinstance(text, str) else None) is not None:
            return known
        try:
            at = instant(text)
        except LineError as error:
            raise LineError(f"at: {error}") from None
        if len(self._instants) >= _KEPT_AT_MOST:
            self._instants.clear()
        self._instants[text] = at
        return at

    def _with_own(self, override: Mapping[str, Any] | None) -> PriceBook:
        if not override:
            return self._book
        key = _encode(override)
        book = self._books.get(key)
        if book is None:
            for model, rates in override.items():
                if not isinstance(rates, dict):
                    raise LineError(f"context.override: {model}: prices are an object of meter and USD per million")
            try:
                book = self._book.with_prices(override)
            except BookError as error:
                raise LineError(f"context.override: {error}") from None
            if len(self._books) >= _KEPT_AT_MOST:
                self._books.clear()
            self._books[key] = book
        return book


def price_lines(source: BinaryIO, out: BinaryIO, pricer: Pricer) -> tuple[int, int]:
    """Prices every line of `source` onto `out`; returns how many lines there were and how many had an error.

    What has arrived is answered at once, so that it works in the middle of a pipe.
    """
    count = bad = 0
    for chunk in _chunks(source):
        answers = []
        for raw in chunk:
            count += 1
            text: Any = None
            try:
                text = parse(raw, first=count == 1)
                if text is None:
                    continue
                answers.append(_encode(pricer.price(text)))
            except LineError as error:
                bad += 1
                name = text.get("id") if isinstance(text, dict) else None
                answers.append(_encode({"id": name, "line": count, "error": str(error)}))
        if answers:
            out.write("\n".join([*answers, ""]).encode())
            out.flush()
    return count, bad


def _chunks(source: BinaryIO) -> Iterator[list[bytes]]:
    """Whole lines, as many as have come."""
    read = getattr(source, "read1", source.read)
    rest: list[bytes] = []
    while block := read(_CHUNK):
        *whole, last = block.split(b"\n")
        if whole:
            whole[0] = b"".join([*rest, whole[0]])
            rest = []
            yield whole
        rest.append(last)
    if last := b"".join(rest):
        yield [last]


def parse(raw: bytes, *, first: bool) -> dict[str, Any] | None:
    """One line of usage; None if it is blank. ``first`` may begin with a byte order mark. Raises `LineError`."""
    try:
        text = raw.decode("utf-8-sig" if first else "utf-8").strip()
        if not text:
            return None
        line = json.loads(text)
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise LineError(f"not JSON that can be read: {error}") from None
    if not isinstance(line, dict):
        raise LineError("not a JSON object; a line is {provider, model, usage_format, usage, ...}")
    return line


def _object(source: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any] | None:
    value = source.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise LineError(f"{where}{key} must be an object, not {_encode(value):.40}")


def _word(source: Mapping[str, Any], key: str, where: str = "") -> str | None:
    value = source.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise LineError(f"{where}{key} must be text, not {_encode(value):.40}")


def span_attributes(line: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a span of this call would have. Raises `LineError`."""
    usage_format = _word(line, "usage_format")
    if usage_format is None:
        raise LineError("usage_format is missing, such as openai.chat, anthropic.messages or google.generate_content")
    if "usage" not in line:
        raise LineError(f"usage is missing: the provider's usage object, in the form of {usage_format}")
    usage = _object(line, "usage")
    try:
        attributes = read_usage(usage or {}, usage_format)
    except ValueError as error:
        raise LineError(str(error)) from None
    except Exception as error:  # noqa: BLE001  the readers trust the shape that a provider documents
        raise LineError(f"usage does not have the form of {usage_format}: {type(error).__name__}: {error}") from None
    provider, model = _word(line, "provider"), _word(line, "model")
    if provider is not None:
        attributes.setdefault(conventions.PROVIDER, provider)
    if model is not None:
        attributes.setdefault(conventions.REQUEST_MODEL, model)
    attributes.setdefault(conventions.OPERATION, "chat")
    if context:
        _add_facts(attributes, context)
    _add_tier(attributes, _word(line, "tier"), context)
    return attributes


def _add_facts(attributes: dict[str, Any], context: Mapping[str, Any]) -> None:
    if model := _word(context, "response_model", "context."):
        attributes[conventions.RESPONSE_MODEL] = model
    if address := _word(context, "server_address", "context."):
        attributes.setdefault(conventions.SERVER_ADDRESS, address)
    for key in ("inference_geo", "region"):
        geo = _word(context, key, "context.")
        if geo and geo not in _EVERYWHERE:
            attributes.setdefault(conventions.GEO, geo)
    deployment = _word(context, "deployment_type", "context.")
    if deployment is None:
        return
    kind = re.sub(r"[\W_]", "", deployment).lower()
    if kind not in _DEPLOYMENTS:
        raise LineError(
            f"context.deployment_type {deployment!r} has no price a call; global, data_zone and regional ones have"
        )
    if _DEPLOYMENTS[kind]:
        attributes[conventions.GEO] = _DEPLOYMENTS[kind]
    if kind.endswith("batch"):
        attributes.setdefault(conventions.SERVICE_TIER, "batch")


def _add_tier(attributes: dict[str, Any], tier: str | None, context: Mapping[str, Any]) -> None:
    """What was served: the line's tier if it names a special one, else what the usage says, then the context."""
    asked = _word(context, "requested_service_tier", "context.")
    served = _word(context, "response_service_tier", "context.")
    special = tier not in {None, "standard", "default"}
    if special and (served is None or tier == "batch"):
        # No response says that it was part of a batch.
        attributes[conventions.SERVICE_TIER] = tier
        return
    if _word(context, "speed", "context.") == "fast":
        attributes.setdefault(conventions.SERVICE_TIER, "fast")
    if served is not None:
        attributes.setdefault("openai.response.service_tier", served)
    if asked is not None:
        attributes.setdefault("openai.request.service_tier", asked)


def _usd(pico: int | None) -> str | None:
    """Picodollars as a plain decimal of USD: twelve places are all there are.

    >>> _usd(100_000), _usd(16 * 10**9), _usd(2 * 10**12), _usd(0), _usd(None)
    ('0.0000001', '0.016', '2', '0', None)
    """
    if pico is None:
        return None
    whole, part = divmod(abs(pico), PICO)
    sign = "-" if pico < 0 else ""
    return f"{sign}{whole}.{part:012d}".rstrip("0").rstrip(".") if part else f"{sign}{whole}"


def _line(line: CostLine) -> dict[str, Any]:
    quantity = line.quantity
    if isinstance(quantity, Decimal):
        quantity = int(quantity) if quantity == quantity.to_integral_value() else float(quantity)  # type: ignore[assignment]
    return {
        "model": line.model,
        "meter": line.meter,
        "quantity": quantity,
        "rate": None if line.rate is None else _plain(line.rate),
        "per": line.per,
        "usd": _usd(line.pico),
    }


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
