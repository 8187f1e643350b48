"""A request of spans, from whoever and in whatever order: each call is counted once and charged once."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

from costspan_pricing import PriceBook
from costspan_processor import Budget, Processing
from costspan_processor.budgets.guard import Guard
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.collector import pricing
from costspan_processor.collector.pricing import Pricer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

NOON = 1_795_003_200
"""2026-11-18, 12:00 UTC."""
CALL: Mapping[str, str | int] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "acme",
    "gen_ai.request.model": "large",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
    "costspan.team": "search",
}
MONEY = 0.0028
"""1000 x $2 + 100 x $8, a million each."""
AGENT = {**CALL, "gen_ai.operation.name": "invoke_agent"}
HTTP: Mapping[str, str | int] = {"url.path": "/"}

_ids = itertools.count(1)


class Told:
    """A span of a trace: what it says, and what it is inside."""

    def __init__(
        self,
        scope: str,
        attributes: Mapping[str, str | int],
        inside: Told | None = None,
        *,
        ended: float = NOON,
        service: str = "shop",
    ) -> None:
        self.scope = scope
        self.attributes = attributes
        self.service = service
        self.id = next(_ids).to_bytes(8, "big")
        self.inside = inside
        self.trace: bytes = inside.trace if inside is not None else next(_ids).to_bytes(16, "big")
        depth = 0
        while inside is not None:
            depth, inside = depth + 1, inside.inside
        self.start, self.end = int((ended - 9 + depth) * 1e9), int((ended - depth) * 1e9)


def request(*told: Told) -> bytes:
    """As an SDK sends them: by scope, which says nothing of which ended first."""
    made = ExportTraceServiceRequest()
    for span in told:
        of_resource = made.resource_spans.add()
        of_resource.resource.attributes.add(key="service.name").value.string_value = span.service
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = span.scope
        sent = of_scope.spans.add(
            name=span.scope,
            trace_id=span.trace,
            span_id=span.id,
            parent_span_id=span.inside.id if span.inside else b"",
            start_time_unix_nano=span.start,
            end_time_unix_nano=span.end,
        )
        for key, value in span.attributes.items():
            pair = sent.attributes.add(key=key)
            if isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = value
    return made.SerializeToString()


class Collector:
    """The pricing of a collector, with its counters."""

    def __init__(self, book: PriceBook, **options: Any) -> None:
        self.reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self.reader])
        self.processing = Processing(NoOpTracerProvider(), meters, book=book, **options)
        self.pricer = Pricer(self.processing.observer)

    def send(self, *told: Told) -> dict[str, str | float]:
        """What each span says then, by its scope: dollars, `rollup`, or nothing."""
        answer = ExportTraceServiceRequest.FromString(asyncio.run(self.pricer.price(request(*told))))
        spans = [span for of in answer.resource_spans for scope in of.scope_spans for span in scope.spans]
        return {span.name: _said(span) for span in spans}

    def counted(self) -> float:
        return sum(sum(row.cost.values()) for row in self.processing.table.rows()) / 1e12


def _said(span: Span) -> str | float:
    attributes = {pair.key: pair.value for pair in span.attributes}
    if "costspan.rollup" in attributes:
        return "rollup"
    return attributes["costspan.cost.total"].double_value if "costspan.cost.total" in attributes else ""


@pytest.fixture(scope="session")
def book() -> PriceBook:
    return PriceBook.bundled().with_prices({"acme/large": {"input": "2", "output": "8"}})


@pytest.fixture
def collector(book: PriceBook) -> Collector:
    return Collector(book)


def nested() -> list[Told]:
    """A request to a service, a framework's span in it, an HTTP client's in that, and the SDK's innermost."""
    server = Told("server", HTTP)
    framework = Told("framework", CALL, server)
    client = Told("client", HTTP, framework)
    return [server, framework, client, Told("sdk", CALL, client)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_the_innermost_span_is_the_call_in_whatever_order_a_request_has_them(
    collector: Collector, order: Sequence[int]
) -> None:
    spans = nested()
    said = collector.send(*[spans[place] for place in order])
    assert said == {"server": "", "framework": "rollup", "client": "", "sdk": MONEY}
    assert collector.counted() == pytest.approx(MONEY)


def test_it_is_when_they_come_one_by_one_as_they_end(collector: Collector) -> None:
    said: dict[str, str | float] = {}
    for span in reversed(nested()):
        said |= collector.send(span)
    assert said == {"server": "", "framework": "rollup", "client": "", "sdk": MONEY}


def test_the_money_stays_where_it_was_told_first_when_the_outer_span_comes_before_the_inner(
    collector: Collector,
) -> None:
    said: dict[str, str | float] = {}
    for span in nested():
        said |= collector.send(span)
    assert said == {"server": "", "framework": MONEY, "client": "", "sdk": "rollup"}
    assert collector.counted() == pytest.approx(MONEY)


def test_an_agent_is_the_sum_of_its_calls_unless_nobody_has_seen_them(collector: Collector) -> None:
    agent = Told("agent", AGENT)
    assert collector.send(Told("sdk", CALL, agent)) == {"sdk": MONEY}
    assert collector.send(agent) == {"agent": ""}
    assert collector.send(Told("alone", AGENT, service="another")) == {"alone": MONEY}


def test_the_trace_of_a_long_conversation_is_remembered_by_its_latest_call(
    book: PriceBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trace that is forgotten, nobody would look at the span between agent and call: both would be counted."""
    monkeypatch.setattr(pricing, "_REMEMBERED", 8)
    collector = Collector(book)
    agent = Told("agent", {**AGENT, "gen_ai.usage.input_tokens": 1007})
    earlier, client = Told("client", HTTP, agent), Told("client", HTTP, agent)
    collector.send(Told("sdk", {**CALL, "gen_ai.usage.input_tokens": 7}, earlier))
    for number in range(6):
        collector.send(Told("sdk", {**CALL, "gen_ai.usage.input_tokens": number}))
    collector.send(Told("sdk", CALL, client))
    for number in range(10, 12):
        collector.send(Told("sdk", {**CALL, "gen_ai.usage.input_tokens": number}))
    collector.send(client)
    assert collector.send(agent) == {"agent": ""}


def test_a_call_that_starts_when_the_one_that_it_hangs_on_is_over_is_another(collector: Collector) -> None:
    first = Told("sdk", CALL)
    assert collector.send(first) == {"sdk": MONEY}
    assert collector.send(Told("callback", CALL, first, ended=NOON + 60)) == {"callback": MONEY}


def test_a_span_of_another_trace_with_the_same_id_is_another(collector: Collector) -> None:
    first, parent = Told("sdk", CALL), Told("app", HTTP)
    parent.id = first.id
    assert collector.send(first) == {"sdk": MONEY}
    assert collector.send(Told("sdk", CALL, parent)) == {"sdk": MONEY}


def test_two_processes_that_tell_of_one_response_count_it_once(collector: Collector) -> None:
    answered = {**CALL, "gen_ai.response.id": "chatcmpl-7"}
    assert collector.send(Told("gateway", answered, service="gateway")) == {"gateway": MONEY}
    assert collector.send(Told("sdk", answered)) == {"sdk": "rollup"}


def test_the_same_counts_at_the_same_time_are_one_call_in_one_process_alone(collector: Collector) -> None:
    """A library whose spans are no ancestors of what happens in them."""
    sdk = Told("sdk", CALL, Told("server", HTTP))
    assert collector.send(sdk) == {"sdk": MONEY}
    assert collector.send(Told("framework", CALL, service="another")) == {"framework": MONEY}
    assert collector.send(Told("framework", CALL)) == {"framework": "rollup"}


def test_calls_that_all_used_the_same_are_each_repeated_once(collector: Collector) -> None:
    """As in a load test: a library whose spans are no ancestors of what happens in them, on top of an SDK."""
    for _ in range(3):
        calls = [Told("sdk", CALL, Told("server", HTTP)) for _ in range(40)]
        collector.send(*calls, *[Told("framework", CALL) for _ in calls])
    assert collector.pricer.outcomes == {"priced": 120, "rollup": 120}


def test_what_is_sent_again_is_answered_the_same_and_counted_once(collector: Collector) -> None:
    spans = nested()
    first = collector.send(*spans)
    assert collector.send(*spans) == first
    assert collector.send(*spans[2:]) == {"client": "", "sdk": MONEY}
    assert collector.counted() == pytest.approx(MONEY)
    assert collector.pricer.outcomes == {"priced": 1, "rollup": 2, "repeated": 2}


def test_a_span_that_whoever_made_it_has_priced_is_left_alone(collector: Collector) -> None:
    framework = Told("framework", CALL)
    body = request(Told("costspan", {**CALL, "costspan.cost.status": "priced"}, framework))
    assert asyncio.run(collector.pricer.price(body)) == body
    assert collector.send(framework) == {"framework": "rollup"}
    assert collector.counted() == 0


def test_a_request_without_calls_is_passed_on_as_it_came(collector: Collector) -> None:
    body = request(Told("server", HTTP), Told("client", HTTP))
    assert asyncio.run(collector.pricer.price(body)) is body


def test_counts_that_nobody_says_of_what_are_no_call(collector: Collector) -> None:
    counts = {"llm.token_count.prompt": 1000, "gen_ai.usage.output_tokens": 100}
    # The second time its shape is known.
    for _ in range(3):
        assert collector.send(Told("sdk", counts)) == {"sdk": ""}
    assert collector.pricer.outcomes == {}


def test_counters_have_the_labels_of_the_span_or_of_its_service(collector: Collector) -> None:
    collector.send(Told("sdk", CALL))
    (row,) = collector.processing.table.rows()
    assert (row.provider, row.request_model, dict(row.dimensions)) == ("acme", "large", {"costspan.team": "search"})


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"gen_ai.usage.cache_read.input_tokens": 10},
        {"gen_ai.usage.reasoning.output_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 300},
    ],
    ids=["two counts", "cached", "reasoned"],
)
def test_calls_whose_shape_is_known_count_as_those_that_are_read_as_a_whole(
    book: PriceBook, more: Mapping[str, int]
) -> None:
    known, whole = Collector(book), Collector(book)
    # One whose habits are known: of others, counts beside these two must be looked at in each span.
    sdk = "opentelemetry.instrumentation.openai_v2"
    # No library has such a name, so nobody goes by the names of the attributes.
    unusual = {"a" * 200: 1}
    for number in range(20):
        call = {**CALL, "gen_ai.usage.input_tokens": number * 1000, "gen_ai.usage.output_tokens": number * 40}
        call |= {key: value * number for key, value in more.items()}
        telling = [
            Told(sdk, {**call, "costspan.team": team, "gen_ai.response.id": f"{team}-{number}"}, Told("server", HTTP))
            for team in ("search", "ads")
        ]
        said = known.send(*telling, *[span.inside for span in telling if span.inside])
        for span in telling:
            span.attributes = {**span.attributes, **unusual}
        assert whole.send(*telling, *[span.inside for span in telling if span.inside]) == said
    assert known.processing.table.rows() == whole.processing.table.rows()
    assert known.pricer.outcomes == whole.pricer.outcomes == {"priced": 40}
    assert known.pricer._names
    assert any(shape.recognised for shape in known.pricer._shapes.values())
    assert not whole.pricer._names


def test_what_makes_no_sense_goes_through(collector: Collector) -> None:
    """A number where a library has JSON: its reader fails, and the span is none the worse."""
    odd = Told("langsmith", {**CALL, "metadata.usage_object": 5, "mlflow.chat.tokenUsage": 7})
    assert set(collector.send(odd, Told("sdk", CALL))) == {"langsmith", "sdk"}


# ---------------------------------------------------------------- budgets


def budgeted(book: PriceBook, path: Path, *budgets: Budget) -> tuple[Collector, SQLiteStore]:
    store = SQLiteStore(path / "budgets.db")
    made = Collector(
        book,
        guard=lambda resource, failed: Guard(
            budgets, book, store, resource=resource, failed=failed, journal=path / "journal"
        ),
    )
    return made, store


def spent(store: SQLiteStore, name: str) -> dict[str, Decimal]:
    return {
        account.partition(":")[2]: Decimal(balance.spent).scaleb(-9)
        for account, balance in store.accounts(f"{name}:").items()
    }


def test_a_budget_is_charged_once_by_two_collectors_that_get_the_same_span(book: PriceBook, tmp_path: Path) -> None:
    all_calls = Budget("all", limit=10, period="year", zone="UTC")
    spans = nested()
    one, store = budgeted(book, tmp_path, all_calls)
    other, _ = budgeted(book, tmp_path, all_calls)
    for collector in (one, other, one):
        collector.send(*spans)
    assert spent(store, "all") == {"2026": Decimal("0.0028")}


def test_a_span_is_charged_to_the_period_that_it_ended_in(book: PriceBook, tmp_path: Path) -> None:
    collector, store = budgeted(book, tmp_path, Budget("day", limit=10, period="day", zone="UTC"))
    collector.send(Told("sdk", CALL, ended=NOON))
    assert spent(store, "day") == {"2026-11-18": Decimal("0.0028")}


def test_a_budget_of_a_service_is_charged_for_its_spans(book: PriceBook, tmp_path: Path) -> None:
    scope = {"service": "shop"}
    collector, store = budgeted(book, tmp_path, Budget("shop", limit=10, period="year", zone="UTC", scope=scope))
    collector.send(Told("sdk", CALL), Told("sdk", CALL, service="another"))
    assert spent(store, "shop") == {"2026": Decimal("0.0028")}


def test_what_a_store_that_is_away_has_missed_is_in_the_journal_before_the_request_is_answered(
    book: PriceBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, store = budgeted(book, tmp_path, Budget("all", limit=10, period="year", zone="UTC"))

    def away(*_: object) -> None:
        raise OSError("no route to the store")

    monkeypatch.setattr(store, "settle", away)
    assert collector.send(Told("sdk", CALL)) == {"sdk": MONEY}
    (journal,) = (tmp_path / "journal").glob("*.jsonl")
    assert journal.read_text(encoding="utf-8").count("\n") == 1
