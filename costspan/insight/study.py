"""What follows from figures: trend, forecast, anomalies, efficiency and advice, added to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costspan.insight.figures import Figures
    from costspan_processor.budgets.periods import Period


def study(report: dict[str, Any], figures: Figures, *, today: Period, zone: str, now: float, advice: bool) -> None:
    """Add to a report of a day, week or month what its figures mean."""
