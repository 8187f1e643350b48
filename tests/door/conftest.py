"""A provider on the loopback interface for the programs of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.instrumentation.loopback import Answer, Loopback, chat, serve

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
COST = "0.006"
"""1,000 input tokens of gpt-4.1 at $2 and 500 output tokens at $8 per million."""


@pytest.fixture
def provider() -> Iterator[Loopback]:
    with serve() as server:
        server.answer = Answer(chat(USAGE))
        yield server
