"""The ledgers that tests are made on add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from costspan_processor.ledger.schema import COMPONENTS, calls, hours, spenders
from tests.insight.ledgers import ledger

if TYPE_CHECKING:
    from pathlib import Path


def test_a_ledger_holds_its_calls_and_totals_that_equal_them(tmp_path: Path) -> None:
    engine = ledger(
        tmp_path / "ledger.db",
        [
            {},
            {"at": "2026-11-03 10:00", "user": "ann", "cache_write_tokens": 800, "cache_write_1h": 800},
            {"at": "2026-11-03 10:30", "user": "ann", "cache_read_tokens": 800, "aborted": True},
            {"at": "2026-11-03 11:00", "error_type": "Timeout", "input_tokens": None, "output_tokens": None},
            {"at": "2026-11-03 11:01", "model": "nobody-has-this-one"},
        ],
    )
    with engine.connect() as connection:
        sums = [func.sum(calls.c.cost), func.sum(calls.c.saved), func.sum(calls.c.input_tokens), func.count()]
        of_calls = connection.execute(select(*sums)).one()
        of_hours = connection.execute(
            select(*(func.sum(hours.c[name]) for name in ("cost", "saved", "input_tokens", "calls")))
        ).one()
        assert tuple(of_calls) == tuple(of_hours)
        # 0.006; 200 input, 800 written for an hour and 200 output; the same with 800 read.
        assert of_calls[0] == 6_000_000_000 + (600 + 4_800 + 3_000) * 10**6 + (600 + 240 + 3_000) * 10**6
        assert connection.execute(select(func.sum(hours.c.failed), func.sum(hours.c.unpriced))).one() == (1, 1)
        assert connection.execute(select(spenders.c.value, spenders.c.calls)).all() == [("ann", 2)]
        parts = [func.coalesce(func.sum(calls.c[f"cost_{name}"]), 0) for name in COMPONENTS]
        assert sum(connection.execute(select(*parts)).one()) == of_calls[0]
        statuses = connection.execute(select(calls.c.status).order_by(calls.c.started)).scalars().all()
        assert statuses == ["priced", "priced", "priced", "no_usage", "unknown_model"]
