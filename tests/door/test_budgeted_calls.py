"""Calls of the real SDK clients over real HTTP: what budgets hold and are charged, and what the server gets."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from contextlib import contextmanager
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan.demo.provider import DemoProvider
from costspan_instrumentation.engine import Engine
from costspan_instrumentation.provider import Endpoint, Provider
from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_instrumentation.providers.google import GOOGLE
from costspan_instrumentation.providers.ollama import OLLAMA
from costspan_instrumentation.providers.openai import OPENAI
from costspan_pricing import PriceBook
from costspan_processor import Budget, BudgetExceeded, Processing
from costspan_processor.budgets import Guard
from costspan_processor.budgets.routing import Routing
from costspan_processor.budgets.store import Claim
from tests.door.conftest import USAGE
from tests.door.program import output
from tests.instrumentation import test_ollama
from tests.instrumentation.loopback import Answer, Loopback, chat, chunks, response
from tests.instrumentation.replies import Refusal, replying

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

ASK: Any = [{"role": "user", "content": "Say something about bridges!"}]
"""28 characters, 7 tokens: $0.000014 at the $2 a million of gpt-4.1."""
PROMPT = Decimal("0.000014")
HELD = PROMPT + Decimal("0.0008")
"""And up to 100 tokens of answer at $8."""
SPENT = Decimal("0.006")
NOTHING = Decimal(0)
CHAT: Any = {"model": "gpt-4.1", "max_tokens": 100, "messages": ASK}
PROVIDERS = (OPENAI, ANTHROPIC, GOOGLE, OLLAMA)


class Program:
    """An application: its SDKs are patched, and it has budgets."""

    def __init__(self, engine: Engine, *budgets: Budget, routing: Mapping[str, Any] | None = None) -> None:
        self.engine = engine
        self.spans = InMemorySpanExporter()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        book = PriceBook.bundled().with_prices(
            {
                "ollama/large": {"input": "2", "output": "8"},
                "ollama/small": {"input": "1", "output": "4"},
                "openai/large-vectors": {"input": "2", "output": "0"},
                "openai/small-vectors": {"input": "1", "output": "0"},
            }
        )
        paths = None if routing is None else Routing.read(routing, "costspan.toml").check(book, time.time())
        self.processing = Processing(
            traces,
            MeterProvider(shutdown_on_exit=False),
            book=book,
            guard=lambda resource, failed: Guard(budgets, book, routing=paths, failed=failed),
        )
        self.processing.start()
        engine.start(traces.get_tracer("test"), self.processing.observer)

    def balance(self, name: str = "all") -> tuple[Decimal, Decimal]:
        """USD spent and held."""
        guard = self.processing.guard
        (account,) = [line.subject.account for line in guard.present() if line.subject.budget == name]
        spent, held, _ = guard.store.read([Claim(account)]).balances[account]
        return Decimal(spent).scaleb(-9), Decimal(held).scaleb(-9)

    async def settled(self) -> Decimal:
        """USD spent of the budget `all`, when all calls have ended, those too of streams that nobody has any more."""
        deadline = time.monotonic() + 10
        while True:
            gc.collect()
            self.engine.drain()
            spent, held = self.balance()
            if not held or time.monotonic() > deadline:
                break
            # What is left of an asynchronous stream is closed by the loop.
            await asyncio.sleep(0.01)
        assert held == 0
        assert self.processing.guard.store.holds() == []
        return spent

    def told(self) -> Any:
        """The attributes of the only span."""
        (span,) = self.spans.get_finished_spans()
        return span.attributes


@contextmanager
def program(*budgets: Budget, routing: Mapping[str, Any] | None = None) -> Iterator[Program]:
    engine = Engine()
    running = Program(engine, *(budgets or (Budget("all", "1", policy="block", period="year"),)), routing=routing)
    for provider in PROVIDERS:
        engine.instrument(provider)
    try:
        yield running
    finally:
        for provider in PROVIDERS:
            engine.uninstrument(provider)
        running.processing.shutdown()


@pytest.fixture
def app() -> Iterator[Program]:
    """With one budget, `all`, of a dollar."""
    with program() as running:
        yield running


def client(server: Any, is_async: bool = False, **more: Any) -> Any:
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    return kind(base_url=f"{server.url}/v1", api_key="k", **{"max_retries": 0, **more})


async def finished(result: Any, is_async: bool) -> Any:
    """The result of a call, awaited if its client is asynchronous."""
    return await result if is_async else result


async def some(stream: Any, is_async: bool, most: int = 1000) -> None:
    """Read so many chunks of a stream of either kind."""
    if is_async:
        async for _ in stream:
            most -= 1
            if not most:
                return
    else:
        for _ in stream:
            most -= 1
            if not most:
                return


# ---------------------------------------------------------------------- one call


@both
async def test_a_call_holds_its_estimate_and_then_pays_what_it_cost(
    app: Program, provider: Loopback, is_async: bool
) -> None:
    seen = []

    def reply(path: str, body: Any) -> Any:
        seen.append(app.balance())
        return chat(USAGE)

    with replying(reply) as server:
        await finished(client(server, is_async).chat.completions.create(**CHAT), is_async)
    assert seen == [(NOTHING, HELD)]
    assert await app.settled() == SPENT


@both
async def test_a_refused_call_does_not_reach_the_provider(provider: Loopback, is_async: bool) -> None:
    with program(Budget("all", HELD - PROMPT, policy="block", period="year")) as app:
        with pytest.raises(BudgetExceeded) as caught:
            await finished(client(provider, is_async).chat.completions.create(**CHAT), is_async)
        assert caught.value.asked == HELD
        assert await app.settled() == 0
        assert app.told()["costspan.budget.status"] == "refused"
    assert provider.requests == []


@both
async def test_a_call_that_the_provider_refuses_costs_nothing(app: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer({"error": {"message": "no"}}, status=400)
    with pytest.raises(openai.BadRequestError):
        await finished(client(provider, is_async).chat.completions.create(**CHAT), is_async)
    assert await app.settled() == 0
    assert len(provider.requests) == 1


@both
async def test_a_call_that_nobody_answers_in_time_pays_for_its_prompt(
    app: Program, provider: Loopback, is_async: bool
) -> None:
    provider.answer.delay = 1.5
    with pytest.raises(openai.APITimeoutError):
        await finished(client(provider, is_async, timeout=0.2).chat.completions.create(**CHAT), is_async)
    assert await app.settled() == PROMPT


async def test_so_does_one_that_is_cancelled(app: Program, provider: Loopback) -> None:
    provider.answer.delay = 1.5
    task = asyncio.create_task(client(provider, is_async=True).chat.completions.create(**CHAT))
    while not provider.requests:  # noqa: ASYNC110  the server is on another thread
        await asyncio.sleep(0.01)
    assert app.balance() == (NOTHING, HELD)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await app.settled() == PROMPT


@both
async def test_all_retries_inside_the_sdk_have_one_hold(app: Program, is_async: bool) -> None:
    seen = []

    def reply(path: str, body: Any) -> Any:
        seen.append((*app.balance(), len(app.processing.guard.store.holds())))
        return chat(USAGE) if len(seen) == 3 else Refusal(500, {"error": {"message": "try again"}})

    with replying(reply) as server:
        await finished(client(server, is_async, max_retries=3).chat.completions.create(**CHAT), is_async)
    assert seen == [(NOTHING, HELD, 1)] * 3
    assert await app.settled() == SPENT
    assert len(app.spans.get_finished_spans()) == 1


@both
async def test_an_answer_without_usage_pays_the_estimate_of_its_text(
    app: Program, provider: Loopback, is_async: bool
) -> None:
    provider.answer = Answer(chat(None))
    await finished(client(provider, is_async).chat.completions.create(**CHAT), is_async)
    assert await app.settled() == HELD


@both
async def test_embeddings_hold_their_input_alone(app: Program, is_async: bool) -> None:
    """$0.02 a million."""
    seen = []

    def reply(path: str, body: Any) -> Any:
        seen.append(app.balance())
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 50, "total_tokens": 50}
        return {"object": "list", "model": "text-embedding-3-small", "data": [vector], "usage": usage}

    with replying(reply) as server:
        call = client(server, is_async).embeddings.create(model="text-embedding-3-small", input="x" * 400)
        await finished(call, is_async)
    assert seen == [(NOTHING, Decimal("0.000002"))]
    assert await app.settled() == Decimal("0.000001")


@both
async def test_a_raw_response_pays_too(app: Program, provider: Loopback, is_async: bool) -> None:
    raw = await finished(client(provider, is_async).chat.completions.with_raw_response.create(**CHAT), is_async)
    assert raw.parse().usage.total_tokens == 1500
    assert await app.settled() == SPENT


@both
async def test_a_raw_response_that_nobody_parses_pays_too(app: Program, provider: Loopback, is_async: bool) -> None:
    await finished(client(provider, is_async).chat.completions.with_raw_response.create(**CHAT), is_async)
    assert await app.settled() == SPENT


@both
async def test_responses(app: Program, provider: Loopback, is_async: bool) -> None:
    usage = {
        "input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    provider.answer = Answer(response(usage=usage))
    await finished(client(provider, is_async).responses.create(model="gpt-4.1", input="bridges"), is_async)
    assert await app.settled() == SPENT


# ---------------------------------------------------------------------- streams


@both
async def test_a_stream_holds_until_it_ends(app: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer(events=chunks("They ", "carry ", "us.", usage=USAGE))
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, **asked), is_async)
    assert app.balance() == (NOTHING, HELD)
    await some(stream, is_async, 2)
    assert app.balance() == (NOTHING, HELD)
    await some(stream, is_async)
    assert app.balance() == (SPENT, NOTHING), "at once: nobody has to drop it"
    assert await app.settled() == SPENT


def written(characters: int) -> Decimal:
    """What the prompt costs, and so many characters of answer."""
    return PROMPT + Decimal(-(-characters // 4)) * 8 / 10**6


@both
async def test_a_stream_that_is_closed_pays_what_has_come(app: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer(events=chunks(*["bridge! "] * 50, usage=USAGE))
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, stream=True), is_async)
    await some(stream, is_async, 10)
    await finished(stream.close(), is_async)
    spent, held = app.balance()
    assert held == 0
    assert written(80) <= spent <= HELD
    assert spent == Decimal(str(app.told()["costspan.cost.total"])), "what its span says"


@both
async def test_a_stream_that_is_dropped_pays_what_has_come(app: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer(events=chunks(*["bridge! "] * 50, usage=USAGE))
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, stream=True), is_async)
    await some(stream, is_async, 10)
    del stream
    spent = await app.settled()
    assert written(80) <= spent <= HELD


@both
async def test_a_stream_that_nobody_reads_pays_for_its_prompt_at_least(
    app: Program, provider: Loopback, is_async: bool
) -> None:
    provider.answer = Answer(events=chunks("They ", "carry ", "us.", usage=USAGE))
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, stream=True), is_async)
    assert app.balance() == (NOTHING, HELD)
    del stream
    spent = await app.settled()
    assert PROMPT <= spent <= HELD


@both
async def test_a_stream_whose_connection_breaks_pays_what_has_come(
    app: Program, provider: Loopback, is_async: bool
) -> None:
    provider.answer = Answer(events=chunks(*["bridge! "] * 50, usage=USAGE), cut=20)
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, stream=True), is_async)
    with pytest.raises(Exception, match=r"peer closed|incomplete|closed|Connection"):
        await some(stream, is_async)
    spent = await app.settled()
    assert written(8 * 20) <= spent <= HELD


@both
async def test_a_raw_stream_pays_when_it_is_read(app: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer(events=chunks("They ", "carry ", "us.", usage=USAGE))
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    completions = client(provider, is_async).chat.completions
    raw = await finished(completions.with_raw_response.create(**CHAT, **asked), is_async)
    await some(raw.parse(), is_async)
    assert await app.settled() == SPENT


# ---------------------------------------------------------------------- several providers


@both
async def test_providers_have_budgets_of_their_own_and_one_together(is_async: bool) -> None:
    names = {"openai": "openai", "anthropic": "anthropic", "google": "gcp.gemini"}
    budgets = [Budget(name, "1", {"provider": scope}, "year", policy="block") for name, scope in names.items()]
    with DemoProvider({}) as server, program(*budgets, Budget("all", "3", period="year")) as app:
        await finished(client(server, is_async).chat.completions.create(**CHAT), is_async)
        claude = (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)(base_url=server.url, api_key="k")
        await finished(claude.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=ASK), is_async)
        keep = genai.Client(api_key="k", http_options={"base_url": server.url})
        gemini: Any = keep.aio if is_async else keep
        await finished(gemini.models.generate_content(model="gemini-2.5-flash", contents="bridges"), is_async)
        costs = {
            name: sum(
                Decimal(str((span.attributes or {})["costspan.cost.total"]))
                for span in app.spans.get_finished_spans()
                if (span.attributes or {})["gen_ai.provider.name"] == scope
            )
            for name, scope in names.items()
        }
        assert all(cost > 0 for cost in costs.values())
        for name, cost in costs.items():
            spent, held = app.balance(name)
            assert (round(spent, 9), held) == (round(Decimal(cost), 9), NOTHING)
        assert await app.settled() == sum(app.balance(name)[0] for name in names)


async def test_many_tasks_at_once_stop_at_the_limit(provider: Loopback) -> None:
    with program(Budget("all", 3 * SPENT, policy="block", period="year")) as app:
        asking = client(provider, is_async=True)
        provider.answer.delay = 0.2
        big = {**CHAT, "max_tokens": 748}
        said = await asyncio.gather(*(asking.chat.completions.create(**big) for _ in range(10)), return_exceptions=True)
        assert sorted({type(one).__name__ for one in said}) == ["BudgetExceeded", "ChatCompletion"]
        assert len(provider.requests) == 3 == sum(isinstance(one, openai.types.chat.ChatCompletion) for one in said)
        assert await app.settled() == 3 * SPENT


# ---------------------------------------------------------------------- a cheaper model


PATHS = {
    "paths": {
        "openai": [{"above": 0.5, "model": "openai/gpt-4.1"}, {"above": 0.0, "model": "openai/gpt-4.1-mini"}],
        "claude": [
            {"above": 0.5, "model": "anthropic/claude-sonnet-4-6"},
            {"above": 0.0, "model": "anthropic/claude-haiku-4-5"},
        ],
        "own": [{"above": 0.5, "model": "ollama/large"}, {"above": 0.0, "model": "ollama/small"}],
        "vectors": [
            {"above": 0.5, "model": "openai/large-vectors"},
            {"above": 0.0, "model": "openai/small-vectors"},
        ],
    }
}


@pytest.fixture
def poor() -> Iterator[Program]:
    """All but all of its dollar is spent, so that calls get a cheaper model where they can."""
    with program(Budget("all", "1", policy="downgrade", period="year"), routing=PATHS) as app:
        guard = app.processing.guard
        (line,) = guard.present()
        guard.store.reserve("spent", 900_000_000, [line.normal.claim], 600)
        yield app


@both
async def test_another_model_takes_the_place_of_the_one_named(
    poor: Program, provider: Loopback, is_async: bool
) -> None:
    await finished(client(provider, is_async).chat.completions.create(**CHAT), is_async)
    assert provider.requests == [{**CHAT, "model": "gpt-4.1-mini"}]
    told = poor.told()
    assert (told["gen_ai.request.model"], told["costspan.budget.asked_model"]) == ("gpt-4.1-mini", "gpt-4.1")
    assert poor.balance()[1] == Decimal("0.9"), "and what it held is settled"


@both
async def test_of_a_stream_too(poor: Program, provider: Loopback, is_async: bool) -> None:
    provider.answer = Answer(events=chunks("They ", "carry ", "us.", usage=USAGE))
    stream = await finished(client(provider, is_async).chat.completions.create(**CHAT, stream=True), is_async)
    await some(stream, is_async)
    assert [request["model"] for request in provider.requests] == ["gpt-4.1-mini"]
    assert poor.balance()[1] == Decimal("0.9")


@pytest.mark.parametrize("by_position", [True, False], ids=["by position", "by keyword"])
def test_where_the_model_was_given_it_is_replaced(
    poor: Program, by_position: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an SDK of our own: none of those here whose calls get another model takes it by position."""
    asked = []

    def ask(model: str, messages: Any, **more: Any) -> dict[str, Any]:
        asked.append((model, messages, more))
        return {"model": model}

    sdk = ModuleType("toy_sdk")
    sdk.ask = ask  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_sdk", sdk)
    usage = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100}
    endpoint = Endpoint(
        "toy_sdk",
        "ask",
        "chat",
        lambda arguments: {"gen_ai.request.model": arguments["model"], "gen_ai.provider.name": "ollama"},
        lambda answer: {"gen_ai.response.model": answer["model"], **usage},
        positional=("model", "messages"),
    )
    toy = Provider(name="toy", requires="toy", base_url=lambda _: None, endpoints=(endpoint,))
    poor.engine.instrument(toy)
    try:
        answer = sdk.ask("large", ASK, top_p=1) if by_position else sdk.ask(model="large", messages=ASK, top_p=1)
    finally:
        poor.engine.uninstrument(toy)
    assert answer == {"model": "small"}
    assert asked == [("small", ASK, {"top_p": 1})]
    assert poor.balance() == (Decimal("0.0014"), Decimal("0.9")), "1,000 tokens at $1 and 100 at $4 a million"


@both
async def test_a_call_whose_arguments_are_looked_through_keeps_its_model(poor: Program, is_async: bool) -> None:
    """Ollama's are, to tell its own cloud from a local server."""
    with replying(test_ollama.reply) as server:
        asking: Any = (ollama.AsyncClient if is_async else ollama.Client)(host=server.url)
        await finished(asking.chat("large", ASK), is_async)
    assert [body["model"] for _, body, _ in server.requests] == ["large"]
    assert poor.balance() == (Decimal("0.000538"), Decimal("0.9")), "17 tokens at $2 and 63 at $8 a million"


@both
async def test_a_call_that_was_built_before_keeps_its_model(poor: Program, is_async: bool) -> None:
    """`messages.stream()` has made its request when the budgets are asked, as it is entered."""
    ask: Any = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": ASK}
    with DemoProvider({}) as server:
        claude: Any = (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)(base_url=server.url, api_key="k")
        if is_async:
            async with claude.messages.stream(**ask) as stream:
                final = await stream.get_final_message()
        else:
            with claude.messages.stream(**ask) as stream:
                final = stream.get_final_message()
        made = await finished(claude.messages.create(**ask), is_async)
    assert final.model.startswith("claude-sonnet-4-6")
    assert made.model.startswith("claude-haiku-4-5"), "where it can be, it is replaced"
    asked, replaced = poor.spans.get_finished_spans()
    assert "costspan.budget.asked_model" not in (asked.attributes or {})
    assert "costspan.budget.asked_model" in (replaced.attributes or {})
    spent, held = poor.balance()
    assert held == Decimal("0.9")
    assert spent > 0


@both
async def test_embeddings_keep_their_model(poor: Program, is_async: bool) -> None:
    """Vectors of another model would be of no use beside those that there are."""

    def reply(path: str, body: Any) -> Any:
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 100, "total_tokens": 100}
        return {"object": "list", "model": body["model"], "data": [vector], "usage": usage}

    with replying(reply) as server:
        await finished(client(server, is_async).embeddings.create(model="large-vectors", input="x"), is_async)
    assert [body["model"] for _, body, _ in server.requests] == ["large-vectors"]
    assert poor.balance() == (Decimal("0.0002"), Decimal("0.9"))


# ---------------------------------------------------------------------- the end of a program


TELLING = """
import os
def tell(event):
    os.write(1, (event.id + chr(10)).encode())
costspan.init(budgets=[costspan.Budget("all", limit="0.006", period="year")], on_budget_event=tell)
"""


@pytest.mark.parametrize("end", ["", "costspan.shutdown()"], ids=["by itself", "after shutdown"])
@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/budgets.db"], ids=["memory", "file"])
def test_what_the_last_call_has_reached_is_told_before_a_program_ends_or_by_the_next_one(
    store: str, end: str, provider: Loopback, tmp_path: Any
) -> None:
    kept = store.format(tmp_path)
    told = output(f"import costspan\n{TELLING}\ncall()\n{end}\n", provider.url, COSTSPAN_BUDGET_STORE=kept).split()
    if store != "memory:":
        told += output(
            f"import costspan\n{TELLING}\ncall()\ncostspan.shutdown()\n", provider.url, COSTSPAN_BUDGET_STORE=kept
        ).split()
    year = time.gmtime().tm_year
    reached = {f"all:{year}:threshold:{percent}:0.006" for percent in (50, 75, 80, 90)} | {
        f"all:{year}:exceeded:100:0.006"
    }
    assert sorted(told) == sorted(reached)
