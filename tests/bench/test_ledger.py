"""What a ledger may cost a call, in instructions. A bare SDK span with a dozen attributes is about 180,000 of them."""

from __future__ import annotations

import os

import pytest

from tests.bench.instructions import available, instructions
from tests.bench.test_processor import SETUP

pytestmark = pytest.mark.skipif(
    not available() and os.environ.get("CI") != "true", reason="counting instructions needs valgrind"
)

AT_MOST = 10_000
"""The bar is 15,000."""

LEDGER = """
import tempfile
from opentelemetry.trace import set_span_in_context
from costspan_processor.ledger.store import Ledger
from costspan_processor.ledger.writer import LedgerWriter
from pathlib import Path
context = set_span_in_context(tracers.get_tracer("x").start_span("chat"))
inside, _ = attributed(attributes_of(team="search", user="u"))
who = Call(attribution(inside))
folder = Path(tempfile.mkdtemp())
writer = LedgerWriter(Ledger(str(folder / "ledger.db")), folder, waiting=1_000_000)
# What its thread does is not the call's: it is held up, as if the database took its time.
writer._stepping.acquire()
writer.start()
def without(): observer.after(who, CHAT, AT, 1.2, None, context)
def keeps(): observer.after(who, CHAT, AT, 1.2, None, context)
"""
IMPORTS = """
from costspan_processor.attribution import attribution
from costspan_processor.observer import Call
"""


def test_a_ledger_costs_a_call_little() -> None:
    setup = SETUP + IMPORTS + LEDGER
    with_ledger = instructions("keeps()", setup + "observer.ledger = writer\n", 400)
    without = instructions("without()", setup, 400)
    assert with_ledger - without <= AT_MOST
