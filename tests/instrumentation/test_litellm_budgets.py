"""LiteLLM over the OpenAI SDK, both of them patched: one hold, one charge.

LiteLLM pins other SDKs, so `.ci/sdk-versions` runs this in an environment of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.providers.litellm import LITELLM
from costspan_instrumentation.providers.openai import OPENAI
from costspan_processor import Budget, BudgetExceeded, Processing
from costspan_processor.budgets.store import Balance, Claim

from .replies import replying
from .test_litellm import ASK, both, litellm, reply, to
from .watched import finished, items

__all__ = ["litellm"]

HELD = 80_000 + 14_000
"""Nanodollars: 26 characters are 7 tokens at $2 a million, and 10 tokens of answer at $8."""
SPENT = (200 * 2 + 1600 // 4 + 100 * 8) * 1000
"""200 tokens, 800 from the cache at $0.50, and 100 of answer."""


class Program:
    def __init__(self, limit: Decimal | str) -> None:
        self.engine = Engine()
        traces = TracerProvider(shutdown_on_exit=False)
        budget = Budget("all", limit, period="year", policy="block")
        self.processing = Processing(traces, MeterProvider(shutdown_on_exit=False), budgets=[budget])
        self.processing.start()
        self.engine.start(traces.get_tracer("test"), self.processing.observer)
        for provider in (LITELLM, OPENAI):
            self.engine.instrument(provider)

    def balance(self) -> Balance:
        guard = self.processing.guard
        (line,) = guard.present()
        account = line.subject.account
        return guard.store.read([Claim(account)]).balances[account]

    async def settled(self) -> Balance:
        """When nothing is held any more."""
        deadline = time.monotonic() + 10
        while self.balance().held and time.monotonic() < deadline:
            self.engine.drain()
            await asyncio.sleep(0.01)
        assert self.processing.guard.store.holds() == []
        return self.balance()

    def end(self) -> None:
        for provider in (LITELLM, OPENAI):
            self.engine.uninstrument(provider)
        self.processing.shutdown()


@pytest.fixture
def app(litellm: Any) -> Iterator[Program]:
    program = Program("1")
    yield program
    program.end()


@both
async def test_one_call_has_one_hold_and_one_charge(app: Program, litellm: Any, is_async: bool) -> None:
    seen = []

    def watched(path: str, body: dict[str, Any]) -> Any:
        seen.append((app.balance(), len(app.processing.guard.store.holds())))
        return reply(path, body)

    with replying(watched) as server:
        call = litellm.acompletion if is_async else litellm.completion
        await finished(call("openai/gpt-4.1", ASK, max_tokens=10, **to(server)), is_async)
    assert seen == [((0, HELD, 0), 1)]
    assert await app.settled() == (SPENT, 0, 0)


@both
async def test_a_stream_too(app: Program, litellm: Any, is_async: bool) -> None:
    with replying(reply) as server:
        call = litellm.acompletion if is_async else litellm.completion
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await finished(call("openai/gpt-4.1", ASK, max_tokens=10, **asked, **to(server)), is_async)
        assert app.balance() == (0, HELD, 0)
        await items(stream, is_async)
    assert await app.settled() == (SPENT, 0, 0)


@both
async def test_a_refusal_is_raised_as_it_is_and_reaches_no_provider(litellm: Any, is_async: bool) -> None:
    program = Program("0.00001")
    try:
        with replying(reply) as server:
            call = litellm.acompletion if is_async else litellm.completion
            with pytest.raises(BudgetExceeded):
                await finished(call("openai/gpt-4.1", ASK, max_tokens=10, **to(server)), is_async)
        assert server.requests == []
        assert await program.settled() == (0, 0, 0)
    finally:
        program.end()
