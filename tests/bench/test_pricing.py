"""What a price costs, in instructions."""

from __future__ import annotations

import os

import pytest

from tests.bench.instructions import available, instructions

SETUP = """
from costspan_pricing import PriceBook, Usage
book = PriceBook.bundled()
now = 1_795_392_000 * 10**9
flat = book.card("openai", "gpt-4.1", now)
tiered = book.card("openai", "gpt-5.4", now)
usage = Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000)
"""

pytestmark = pytest.mark.skipif(not available() and os.environ.get("CI") != "true", reason="valgrind is not installed")


@pytest.mark.parametrize(
    ("stmt", "limit"),
    [
        ("flat.cost(usage)", 5_000),
        ("tiered.cost(usage)", 5_000),
        ('book.card("openai", "gpt-4.1", now, None, None)', 2_500),
        ('book.card("openai", "no-such-model", now, None, None)', 2_500),
        ("Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000)", 7_500),
    ],
)
def test_the_hot_path_stays_within_its_instructions(stmt: str, limit: int) -> None:
    assert instructions(stmt, SETUP, 500) <= limit
