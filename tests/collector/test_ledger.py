"""A collector with a ledger: the calls of every language as rows, each once, whoever sends its span how often."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.schema import calls, events, writers
from costspan_processor.ledger.store import open_ledger
from tests.collector.servers import Sink, collector, post
from tests.collector.test_service import call, dollars

if TYPE_CHECKING:
    from pathlib import Path

PICO = 10**12


def rows(file: Path, *columns: Any) -> list[dict[str, Any]]:
    """What a ledger has, once it is seen to hold."""
    ledger = open_ledger(str(file))
    try:
        assert verify(ledger).holds
        with ledger.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(*columns)).mappings()]
    finally:
        ledger.close()


def test_a_call_is_a_row_with_what_its_span_says(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    request = call(7, **{"costspan.team": "search", "gen_ai.conversation.id": "talk", "gen_ai.response.id": "answer-7"})
    service = request.resource_spans[0].resource.attributes.add(key="service.name")
    service.value.string_value = "shop"
    with Sink() as sink:
        with collector(
            tmp_path, f"http://127.0.0.1:{sink.http}", environment={"COSTSPAN_LEDGER": str(file)}
        ) as running:
            assert post(f"{running.url}/v1/traces", request.SerializeToString())[0] == 200
        (span,) = sink.spans()
    (row,) = rows(file, calls)
    assert row["cost"] == round((dollars(span) or 0) * PICO) == 2_800 * 10**6
    told = ("id", "service", "provider", "model", "team", "conversation", "response_id", "input_tokens", "duration")
    assert [row[name] for name in told] == [
        f"{7:032x}:{7:016x}", "shop", "openai", "gpt-4.1", "search", "talk", "answer-7", 1000, 10**9,
    ]  # fmt: skip


def test_a_call_is_in_it_once_whoever_is_sent_it_how_often(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    environment = {"COSTSPAN_LEDGER": str(file)}
    with Sink() as sink:
        for _ in range(2):  # the second has never heard of what the first was sent
            with collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment=environment) as running:
                for number in (1, 2, 1):
                    body = call(number).SerializeToString()
                    assert post(f"{running.url}/v1/traces", body)[0] == 200
        assert [dollars(span) for span in sink.spans()] == [0.0028] * 6
    assert len(rows(file, calls.c.id)) == 2
    counted = rows(file, writers.c.written, writers.c.known, writers.c.dropped, writers.c.lost)
    assert [tuple(one.values()) for one in counted] == [(2, 0, 0, 0), (0, 2, 0, 0)]


def test_what_carries_no_cost_of_its_own_is_no_row(tmp_path: Path) -> None:
    """A span that repeats another's call, and one that its own process has priced: that keeps its own ledger."""
    file = tmp_path / "ledger.db"
    request = call(1)
    spans = request.resource_spans[0].scope_spans[0].spans
    repeated, priced = spans.add(), spans.add()
    repeated.CopyFrom(spans[0])
    repeated.span_id, spans[0].parent_span_id = (2).to_bytes(8, "big"), (2).to_bytes(8, "big")
    priced.CopyFrom(call(3, **{"costspan.cost.status": "priced"}).resource_spans[0].scope_spans[0].spans[0])
    with (
        Sink() as sink,
        collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment={"COSTSPAN_LEDGER": str(file)}) as running,
    ):
        assert post(f"{running.url}/v1/traces", request.SerializeToString())[0] == 200
    assert [row["span_id"] for row in rows(file, calls.c.span_id)] == [f"{1:016x}"]


def test_events_of_budgets_are_in_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    environment = {
        "COSTSPAN_LEDGER": str(file),
        "COSTSPAN_BUDGETS": json.dumps([{"name": "all", "limit": "0.003", "period": "year"}]),
    }
    with Sink() as sink, collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment=environment) as running:
        assert post(f"{running.url}/v1/traces", call(1).SerializeToString())[0] == 200
    assert {row["budget"] for row in rows(file, events.c.budget)} == {"all"}
    assert len(rows(file, calls.c.id)) == 1
