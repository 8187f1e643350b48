"""What other libraries' spans say, as they really made them, and the dollars that they must give.

A case is one call (or several) and all spans that one library, or a stack of them, made of it: `emit.py` made the
fixtures. Together they cost what the call did; where a library leaves out what the price depends on (`lost`), the cost
is what the span still tells, and is marked as an estimate. `real_usd` is then what the call cost in truth.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan_pricing import PriceBook
from costspan_processor import CostSpanProcessor, enrich
from costspan_processor.translation import in_convention

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOK = PriceBook.bundled()
FIXTURES = Path(__file__).parent / "fixtures"
AT = 1_795_824_000_000_000_000
"""2026-11-28: the day whose prices the fixtures have."""


def read_cases() -> Iterator[Any]:
    for file in sorted(FIXTURES.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        for case in told["cases"]:
            yield pytest.param({**case, "resource": told.get("resource", {})}, id=f"{file.stem}-{case['name']}")


CASES = list(read_cases())


def priced(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The case's spans, made again and ended in the order in which they ended."""
    provider, exporter = TracerProvider(resource=Resource(case["resource"])), InMemorySpanExporter()
    provider.add_span_processor(CostSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made: dict[int, Any] = {}

    def start(index: int) -> Any:
        told = case["spans"][index]
        if index not in made:
            parent = told["parent"]
            context = None if parent is None else trace.set_span_in_context(start(parent))
            tracer = provider.get_tracer(told["scope"]["name"], told["scope"]["version"])
            made[index] = tracer.start_span(told["name"], context, attributes=told["attributes"], start_time=AT)
        return made[index]

    for index in range(len(case["spans"])):
        start(index)
    for index in range(len(case["spans"])):
        made[index].end(AT + 10**9)
    return [dict(span.attributes or {}) for span in exporter.get_finished_spans()]


@pytest.mark.parametrize("case", CASES)
def test_the_spans_of_a_call_cost_what_it_did(case: dict[str, Any]) -> None:
    spans = priced(case)
    money = [Decimal(str(span["costspan.cost.total"])) for span in spans if "costspan.cost.total" in span]
    total = sum(money) if money else None
    # Of what is lost to us the library itself may have known the price (LiteLLM's spans carry it).
    known = [case["usd"], *([case["real_usd"]] if "lost" in case else [])]
    assert total in {None if usd is None else Decimal(usd) for usd in known}
    # An account of the same again, in whatever words, is none.
    assert all("costspan.cost.total" not in span for span in spans if span.get("costspan.rollup"))


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].get("lost") and case.values[0]["usd"]])
def test_what_a_library_leaves_out_is_never_silent(case: dict[str, Any]) -> None:
    statuses = {span["costspan.cost.status"] for span in priced(case) if "costspan.cost.total" in span}
    assert statuses <= {"estimated", "partial"}


@pytest.mark.parametrize(
    "case",
    [
        "langfuse-openai-written-chat",
        "langsmith-openai-audio-chat",
        "langsmith-openai-chat",
        "litellm-openai-audio-chat",
        "litellm-openai-priority",
        "litellm-openai-written-chat",
        "logfire-anthropic-searched-chat",
        "mlflow-openai-chat",
        "pydantic-ai-gemini-heard-chat",
        "xai-sdk-xai-chat",
        "xai-sdk-xai-searched-chat",
    ],
)
def test_what_a_library_tells_is_no_estimate(case: str) -> None:
    spans = priced(next(known.values[0] for known in CASES if known.id == case))
    assert {span["costspan.cost.status"] for span in spans if "costspan.cost.total" in span} == {"priced"}


@pytest.mark.parametrize("case", CASES)
def test_a_span_in_the_conventions_words_is_read_as_it_is(case: dict[str, Any]) -> None:
    for span in case["spans"]:
        once = in_convention(span["attributes"], span["scope"]["name"], case["resource"])
        # A count of 0 says nothing.
        assert {key: said for key, said in in_convention(once, "costspan").items() if said != 0} == {
            key: said for key, said in once.items() if said != 0
        }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "odd", [None, -1, "12", True, 10**9], ids=["as it is", "negative", "text", "no number", "huge"]
)
def test_a_span_costs_the_same_when_its_like_has_been_seen_before(case: dict[str, Any], odd: object) -> None:
    for span in case["spans"]:
        told, scope = span["attributes"], span["scope"]["name"]
        first, *_, last = [enrich(told, AT, BOOK, scope, case["resource"]) for _ in range(3)]
        assert first == last
        # One with a count that is another, or none: whatever is made of it is made from its words and not from memory.
        for key in [key for key, value in told.items() if odd is not None and type(value) is int]:
            other = {**told, key: odd}
            words = in_convention(other, scope, case["resource"])
            assert enrich(other, AT, BOOK, scope, case["resource"]) == enrich(words, AT, BOOK)


ASKED = {
    "openinference.span.kind": "LLM",
    "llm.provider": "openai",
    "llm.model_name": "gpt-4.1-2025-04-14",
    "llm.token_count.prompt": 1000,
    "llm.token_count.completion": 200,
    "llm.token_count.total": 1200,
}
OPENINFERENCE = "openinference.instrumentation.openai"
OFFICIAL = "opentelemetry.instrumentation.genai."
ANSWERED = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 200,
}
SONNET = {"gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5"}
SEARCHES = {"llm.tools.0.tool.json_schema": '{"type":"web_search","search_context_size":null}'}
GROUNDS = {"llm.tools.0.tool.json_schema": '{"google_search": {}}'}
DEFINES = {"gen_ai.tool.definitions": '[{"code_execution": {}}]'}
BY_OPENAI = {"gen_ai.openai.api_base": "https://api.openai.com/v1/"}
REQUESTED = "gen_ai.request.model"
MISTRALS = "mistral_ai.operation.id"
OPENLLMETRY_GOOGLE = "opentelemetry.instrumentation.google_generativeai"
OPENLLMETRY = "opentelemetry.instrumentation.openai.v1"
SPOKEN_TO = {"ai.prompt.messages": "[]", "gen_ai.response.model": "gpt-4.1"}
SERVED = {"ai.response.providerMetadata": '{"openai":{"serviceTier":"default"}}'}
FUNCTIONS_OF_VERCEL = {"ai.prompt.tools": ['{"type":"function","name":"web_search","inputSchema":{}}']}
TOOLS_OF_VERCEL = {"ai.prompt.tools": ['{"type":"provider","name":"web_search","id":"openai.web_search"}']}
FUNCTION = {"llm.tools.0.tool.json_schema": '{"type":"function","function":{"name":"web_search"}}'}


@pytest.mark.parametrize(
    ("scope", "told", "status"),
    [
        pytest.param(OPENINFERENCE, ASKED, "priced", id="no tools were offered"),
        pytest.param(OPENINFERENCE, ASKED | FUNCTION, "priced", id="the application's own tool"),
        pytest.param(OPENINFERENCE, ASKED | SEARCHES, "estimated", id="the provider's tool"),
        pytest.param(OPENINFERENCE, ASKED | GROUNDS, "estimated", id="another provider's tool"),
        pytest.param(OPENLLMETRY, ANSWERED | BY_OPENAI, "priced", id="nothing was defined"),
        pytest.param(OPENLLMETRY, ANSWERED | BY_OPENAI | DEFINES, "estimated", id="defined"),
        pytest.param(OPENLLMETRY, ANSWERED, "estimated", id="only functions would be shown"),
        pytest.param(f"{OFFICIAL}openai", ANSWERED | {"openai.api.type": "chat_completions"}, "priced", id="no tools"),
        pytest.param(f"{OFFICIAL}openai", ANSWERED | {"openai.api.type": "responses"}, "estimated", id="not shown"),
        pytest.param(f"{OFFICIAL}anthropic", ANSWERED | SONNET, "estimated", id="not shown either"),
        pytest.param("ai", ANSWERED | SERVED | SPOKEN_TO | FUNCTIONS_OF_VERCEL, "priced", id="Vercel's functions"),
        pytest.param("ai", ANSWERED | SERVED | SPOKEN_TO | TOOLS_OF_VERCEL, "estimated", id="Vercel's others"),
        pytest.param("ai", ANSWERED | SERVED, "estimated", id="Vercel was told to keep the prompt to itself"),
        pytest.param("ai", ANSWERED | SPOKEN_TO, "estimated", id="nor does it say which tier"),
        pytest.param("com.anthropic.sdk.python", ANSWERED | SONNET, "estimated", id="nor by the SDK itself"),
    ],
)
def test_tools_of_the_providers_own_that_nobody_tells_of_make_an_estimate(scope: str, told: Any, status: str) -> None:
    for _ in range(2):
        assert enrich(told, AT, BOOK, scope)["costspan.cost.status"] == status


def test_reasoning_that_only_the_total_has_room_for_is_beside_the_output() -> None:
    grok = {"llm.provider": "xai", "llm.model_name": "grok-3-mini", "llm.token_count.prompt": 12}
    thought = {"llm.token_count.completion": 1, "llm.token_count.completion_details.reasoning": 228}
    beside = in_convention({**ASKED, **grok, **thought, "llm.token_count.total": 241}, OPENINFERENCE)
    inside = in_convention({**ASKED, **grok, **thought, "llm.token_count.total": 13}, OPENINFERENCE)
    assert (beside["gen_ai.usage.output_tokens"], inside["gen_ai.usage.output_tokens"]) == (229, 1)


def test_a_model_that_bears_its_makers_name_is_not_openais_own() -> None:
    told = {key: value for key, value in ASKED.items() if key != "llm.provider"} | {"llm.system": "openai"}
    gateway = enrich({**told, "llm.model_name": "openai/gpt-4.1"}, AT, BOOK, OPENINFERENCE)
    assert gateway.get("costspan.usage.guessed")
    assert "costspan.usage.guessed" not in enrich(told, AT, BOOK, OPENINFERENCE)


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("api.deepseek.com", "deepseek"),
        ("acme.openai.azure.com", "azure.ai.openai"),
        ("localhost", "openai"),
    ],
)
def test_the_host_tells_whose_model_an_openai_client_has_called(host: str, provider: str) -> None:
    told = in_convention(ANSWERED | {"server.address": host}, f"{OFFICIAL}openai")
    assert told["gen_ai.provider.name"] == provider
    base = {"gen_ai.openai.api_base": f"https://{host}/v1/"}
    told = in_convention(ANSWERED | base, "opentelemetry.instrumentation.openai.v1")
    assert (told["gen_ai.provider.name"], told["server.address"]) == (provider, host)


def test_an_address_that_is_none_names_nobody() -> None:
    told = in_convention(
        ANSWERED | {"gen_ai.openai.api_base": "https://[::/v1"}, "opentelemetry.instrumentation.openai.v1"
    )
    assert told["gen_ai.provider.name"] == "openai"


@pytest.mark.parametrize(
    ("scope", "provider", "model", "status"),
    [
        pytest.param(OPENLLMETRY, "openai", "gpt-4.1", "priced", id="hears nothing, and writes for the price of input"),
        pytest.param(OPENLLMETRY, "openai", "gpt-audio-mini", "estimated", id="audio has its price"),
        pytest.param(OPENLLMETRY, "openai", "gpt-5.6-sol", "estimated", id="cache writes have their price"),
        pytest.param(OPENLLMETRY_GOOGLE, "gcp.gen_ai", "gemini-2.5-flash", "estimated", id="audio is dearer"),
        pytest.param(OPENLLMETRY_GOOGLE, "gcp.gen_ai", "gemini-2.5-pro", "priced", id="audio costs as much as text"),
    ],
)
def test_what_is_not_told_makes_an_estimate_where_the_model_has_a_price_for_it(
    scope: str, provider: str, model: str, status: str
) -> None:
    told = {**ANSWERED, **BY_OPENAI, "gen_ai.provider.name": provider, "gen_ai.request.model": model}
    for _ in range(2):
        assert enrich(told, AT, BOOK, scope)["costspan.cost.status"] == status


def test_cache_writes_that_are_told_are_no_estimate() -> None:
    told = ANSWERED | BY_OPENAI | {"gen_ai.request.model": "gpt-5.6-sol", "gen_ai.usage.cache_write.input_tokens": 500}
    assert enrich(told, AT, BOOK, OPENLLMETRY)["costspan.cost.status"] == "priced"


@pytest.mark.parametrize(
    ("asked", "answered", "guessed"),
    [
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", False),
        ("gpt-4.1-mini", "kimi-k2", True),
        ("gemini-2.0-flash-exp:free", "grok-4", True),
        ("gemini-flash-latest", "gemini-2.5-flash", False),
        ("my-deployment", "gpt-4.1", False),
        ("claude-sonnet-4-5", "anthropic.claude-sonnet-4-5-20250929-v1:0", False),
    ],
)
def test_an_answer_of_another_makers_model_is_a_gateways(asked: str, answered: str, guessed: bool) -> None:
    told = in_convention({**ANSWERED, REQUESTED: asked, "gen_ai.response.model": answered}, OPENLLMETRY)
    assert told.get("costspan.usage.guessed", False) is guessed


def test_that_ollama_costs_nothing_is_a_guess_where_nobody_tells_whose_machine_it_ran_on() -> None:
    told = ANSWERED | {"gen_ai.provider.name": "Ollama", REQUESTED: "gpt-oss:20b"}
    scope = "opentelemetry.instrumentation.ollama"
    unknown, known = (enrich(span, AT, BOOK, scope) for span in (told, told | {"server.address": "localhost"}))
    assert (unknown["costspan.cost.status"], known["costspan.cost.status"]) == ("free", "free")
    assert ("costspan.usage.guessed" in unknown, "costspan.usage.guessed" in known) == (True, False)


def test_reasoning_of_xai_is_beside_the_output_even_where_the_total_alone_tells() -> None:
    host: dict[str, Any] = {"gen_ai.openai.api_base": "https://api.x.ai/v1/", REQUESTED: "grok-3-mini"}
    streamed = {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 1, "gen_ai.usage.total_tokens": 303}
    assert in_convention({**ANSWERED, **host, **streamed}, OPENLLMETRY)["gen_ai.usage.output_tokens"] == 291


def test_mistrals_sdk_says_which_of_its_calls_are_some() -> None:
    told: dict[str, Any] = {"gen_ai.provider.name": "mistral_ai", REQUESTED: "mistral-medium-latest"}
    told |= {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.output_tokens": 63}
    chat = enrich({**told, MISTRALS: "chat_completion_v1_chat_completions_post"}, AT, BOOK, "mistralai_sdk_tracer")
    assert chat["costspan.cost.status"] == "estimated"  # of what was read from the cache its version 1 says nothing
    assert enrich({**told, MISTRALS: "list_models_v1_models_get"}, AT, BOOK, "mistralai_sdk_tracer") == {}
