"""Money meets telemetry: what a call cost becomes span attributes, metrics, running totals and budgets.

`Processing` builds and wires all of it; everything else here is used through it, or on its own by an application
that brings its own instrumentation (`CostSpanProcessor`).
"""

from __future__ import annotations

from costspan_processor.attribution import Attribution, Totals, attribution
from costspan_processor.budgets import Budget, BudgetExceeded, Guard
from costspan_processor.enrich import enrich, price
from costspan_processor.processing import Processing, Settings
from costspan_processor.span_processor import CostSpanProcessor

__all__ = [
    "Attribution",
    "Budget",
    "BudgetExceeded",
    "CostSpanProcessor",
    "Guard",
    "Processing",
    "Settings",
    "Totals",
    "attribution",
    "enrich",
    "price",
]
