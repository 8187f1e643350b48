"""costspan: the price of every LLM call, while it happens, in OpenTelemetry; and a stop before the budget breaks.

    import costspan

    costspan.init()

From here on the calls of the provider SDKs make spans with exact costs and metrics that add them up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costspan._version import __version__
from costspan.settings import Settings
from costspan.startup import flush, init, record, reset, shutdown
from costspan.tracking import track
from costspan_pricing import Cost
from costspan_processor import Budget, BudgetExceeded, CostSpanProcessor

if TYPE_CHECKING:
    from costspan.summaries import Summary

__all__ = [
    "Budget",
    "BudgetExceeded",
    "Cost",
    "CostSpanProcessor",
    "Settings",
    "__version__",
    "flush",
    "init",
    "record",
    "reset",
    "shutdown",
    "summary",
    "track",
]


def summary() -> Summary:
    """What this process has spent since `init()` or `reset()`: in total, by provider, operation, model and feature."""
    from costspan import startup
    from costspan.summaries import summarise

    return summarise(startup.rows())
