"""What budgets may cost a call, in instructions. A bare SDK span with a dozen attributes is about 180,000 of them."""

from __future__ import annotations

import os

import pytest

from tests.bench.instructions import available, instructions
from tests.bench.test_processor import SETUP

pytestmark = pytest.mark.skipif(
    not available() and os.environ.get("CI") != "true", reason="counting instructions needs valgrind"
)

BUDGETS = """
from costspan_processor.budgets import Budget, Guard
from costspan_processor.budgets.store import Settlement
guard = Guard([Budget("all", "1000000", policy="block")], book)
def characters(): return 4000
line, = guard.present()
def reserve_and_settle():
    key = guard.new_key()
    guard._accounts.reserve(key, 1000, (line.normal,))
    guard._accounts.settle(Settlement(key, 900, (line.normal.claim,)))
def call():
    guard.settle(guard.admit(CHAT, None, characters), priced)
"""


@pytest.mark.parametrize(("statement", "most"), [("reserve_and_settle()", 60_000), ("call()", 130_000)])
def test_a_budget_in_memory(statement: str, most: int) -> None:
    """The accounts alone; and all of it: which budgets, estimate, accounts, thresholds, attributes of the span."""
    assert instructions(statement, SETUP + BUDGETS, 1000) <= most


def test_without_a_budget_the_guard_is_hardly_there() -> None:
    call = "observer.before(CHAT, unasked); observer.after(None, CHAT, AT, 1.2, None, None)"
    added = instructions(call, SETUP, 300) - instructions(call, SETUP + "observer.guard = None\n", 300)
    # Two runs of the same differ by some hundreds.
    assert added <= 1_000
