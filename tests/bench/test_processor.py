"""What the processor may cost, in instructions. A bare SDK span with a dozen attributes is about 180,000 of them."""

from __future__ import annotations

import os

import pytest

from tests.bench.instructions import available, instructions

pytestmark = pytest.mark.skipif(
    not available() and os.environ.get("CI") != "true", reason="counting instructions needs valgrind"
)

SETUP = """
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from costspan_pricing import PriceBook
from costspan_processor import Processing, enrich
from costspan_processor.attribution import attributed, attributes_of

AT = 1_795_435_200_000_000_000
CHAT = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4.1",
    "gen_ai.request.max_tokens": 512, "gen_ai.request.temperature": 0.2, "server.address": "api.openai.com",
    "gen_ai.response.model": "gpt-4.1-2025-04-14", "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ("stop",), "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.cache_read.input_tokens": 500, "gen_ai.usage.output_tokens": 200,
}
tracers = TracerProvider()
processing = Processing(tracers, MeterProvider([InMemoryMetricReader()]))
observer, table, book, processor = processing.observer, processing.table, processing.book, processing.span_processor
observer.after(None, CHAT, AT, 1.2, None, None)
route = next(iter(table._routes.values()))
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
priced = assess(read(CHAT), AT, book)
FOREIGN = {
    "openinference.span.kind": "LLM", "llm.model_name": "gpt-4.1-2025-04-14", "llm.provider": "openai",
    "llm.system": "openai", "llm.invocation_parameters": '{"model": "gpt-4.1", "temperature": 0.2}',
    "llm.token_count.prompt": 1000, "llm.token_count.prompt_details.cache_read": 500, "llm.token_count.completion": 200,
    "llm.token_count.completion_details.reasoning": 0, "llm.token_count.total": 1200,
}
MESSAGES = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.response.model": "claude-sonnet-4-5-20250929", "gen_ai.response.id": "msg_1",
    "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 50, "gen_ai.usage.total_tokens": 150,
    "gen_ai.usage.cache_read.input_tokens": 1000, "gen_ai.usage.cache_creation.input_tokens": 0,
}
http = tracers.get_tracer("http").start_span("GET /", attributes={"http.request.method": "GET", "url.path": "/"})
def unasked(): raise AssertionError("nobody needs the prompt's length without a budget")
"""


@pytest.mark.parametrize(
    ("statement", "most"),
    [
        ("enrich(CHAT, AT, book)", 20_000),
        ("enrich(FOREIGN, AT, book, scope='openinference.instrumentation.openai')", 30_000),
        ("enrich(MESSAGES, AT, book, scope='openlit.otel.tracing')", 25_000),
        ("observer.before(CHAT, unasked)", 3_500),
        # A span that is no call: both hooks together, and the loop around them (200).
        ("processor.on_start(http, None); processor._on_ending(http)", 2_700),
        ("processor.on_start(http, inside)", 4_200),
    ],
)
def test_a_step_stays_within_its_instructions(statement: str, most: int) -> None:
    # Nothing is looked up for a span before anything has been attributed.
    inside = 'inside, _ = attributed(attributes_of(team="search"))\n' if "inside" in statement else ""
    assert instructions(statement, SETUP + inside, 2000) <= most


def test_the_observer_adds_little_to_the_three_records_that_anybody_makes() -> None:
    """The histograms of the conventions are two thirds of it and cannot be had for less through public API."""
    whole = instructions("observer.after(None, CHAT, AT, 1.2, None, None)", SETUP, 300)
    records = instructions("table.record(route, priced, 1.2, None, None)", SETUP, 300)
    assert whole - records <= 100_000
