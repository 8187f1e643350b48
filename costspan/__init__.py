"""costspan: the price of every LLM call, while it happens, in OpenTelemetry; and a stop before the budget breaks.

    import costspan

    costspan.init()

From here on the calls of the provider SDKs make spans with exact costs and metrics that add them up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costspan._version import __version__
from costspan.budgets import budget, check, route
from costspan.middleware import ASGIMiddleware, WSGIMiddleware
from costspan.settings import Settings
from costspan.startup import flush, init, record, reset, shutdown
from costspan.tracking import track
from costspan_pricing import Cost
from costspan_processor import Budget, BudgetExceeded, CostSpanProcessor

if TYPE_CHECKING:
    from datetime import datetime

    from costspan.summaries import Summary
    from costspan_pricing.estimate import Estimator

__all__ = [
    "ASGIMiddleware",
    "Budget",
    "BudgetExceeded",
    "Cost",
    "CostSpanProcessor",
    "Settings",
    "WSGIMiddleware",
    "__version__",
    "budget",
    "check",
    "estimator",
    "flush",
    "init",
    "record",
    "reset",
    "route",
    "shutdown",
    "summary",
    "track",
]


def summary() -> Summary:
    """What this process has spent since `init()` or `reset()`: in total, by provider, operation, model and feature."""
    from costspan import startup
    from costspan.summaries import summarise

    return summarise(startup.rows())


def estimator(*, at: datetime | None = None, tier: str | None = None, geo: str | None = None) -> Estimator:
    """Prices what has not been called yet: `.call()`, `.conversation()`, `.compare()`, `.monthly()`, `.project()`.

    By the prices of `init()`, or before it by those of the environment. at: the instant whose prices hold, by default
    now. tier: the service tier (`batch`, `flex`, ...). geo: the region that the provider is asked to stay in.
    Raises ValueError for an `at` without a time zone.

    >>> estimate = estimator().call("openai/gpt-4.1", input_tokens=10_000, output_tokens=500, max_tokens=1_000)
    >>> estimate.expected.usd < estimate.upper.usd
    True
    """
    from datetime import UTC, datetime, timedelta

    from costspan import startup
    from costspan.book import price_book
    from costspan.settings import load
    from costspan_pricing.estimate import Estimator

    if at is not None and at.tzinfo is None:
        raise ValueError(f"at needs a time zone, such as datetime(2026, 11, 28, tzinfo=UTC), not {at!r}")
    since = (at or datetime.now(UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    processing = startup._processing
    book = price_book(load({})) if processing is None else processing.book
    return Estimator(book, since // timedelta(microseconds=1) * 1000, tier=tier, geo=geo)
