"""Rows for tests, made as a process makes them."""

from __future__ import annotations

from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from costspan_pricing import PriceBook
from costspan_processor.attribution import Attribution, attributes_of
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from costspan_processor.ledger.rows import PLACE, Batch, Kept, Row, Rows, rows_of

BOOK: Final = PriceBook.bundled()
AT: Final = 1_795_435_200_000_000_000
HOUR: Final = AT // (3_600 * 10**9)


def kept(number: int = 0, *, at: int | None = None, input_tokens: int = 1_000, **who: object) -> Kept:
    """A call of a tenth of a cent and more, the `number`-th of its process: each hour has a thousand."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.response.model": "gpt-4.1-2025-04-14",
        "gen_ai.response.id": f"answer-{number}",
        "server.address": "api.openai.com",
        "gen_ai.usage.input_tokens": input_tokens + number % 7,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.output_tokens": number % 11,
    }
    reading = read(attributes)
    assert reading is not None
    started = AT + number * 3_600 * 10**6 if at is None else at
    named = {"team": "search", "user": f"user-{number % 5}", "session": f"session-{number % 20}", **who}
    return Kept(
        assess(reading, started, BOOK), Attribution(attributes_of(**named)), started, 1.5, None, None, attributes,
    )  # fmt: skip


def rows(count: int, writer: str = "writer", first: int = 0, **said: Any) -> list[Row]:
    """Rows whose ids follow from writer and number."""
    make = Rows(writer, "shop")
    found = []
    for number in range(first, first + count):
        one = Batch()
        one.values += make.record(kept(number, **said), number + 1, one.series)
        ((_, *rest),) = rows_of(one)
        found.append((f"{uuid5(NAMESPACE_OID, writer).hex}:{number:016x}", *rest))
    return found


def cost(some: list[Row]) -> int:
    return sum(row[PLACE["cost"]] for row in some)
