"""The gauge of list prices: what the models in use cost now, so that dashboards can say what another would have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import Observation

from costspan_processor.conventions import PROVIDER, REQUEST_MODEL, SERVICE_TIER
from costspan_processor.metrics import COMPONENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal

    from costspan_pricing import PriceBook
    from costspan_processor.metrics import Table

_TIERS: Final = ("standard", "batch", "flex", "priority")
_COMPONENTS: Final = {
    "input": "input", "cache_read": "cache_read", "cache_write_5m": "cache_write", "output": "output",
}  # fmt: skip
"""The component that a meter's price is shown as."""
_MOST_MODELS: Final = 100


class ListPrices:
    """What the models that a table has seen cost now: looked up when metrics are collected, kept for an hour."""

    def __init__(self, book: PriceBook, table: Table, clock: Callable[[], float]) -> None:
        self._book = book
        self._table = table
        self._clock = clock
        self._hour = 0
        self._known: dict[tuple[str, str], list[Observation]] = {}

    def observations(self) -> list[Observation]:
        """USD per million tokens, for prompts below any context tier; a tier without prices of its own has none."""
        now = self._clock()
        if int(now // 3600) != self._hour:
            self._hour = int(now // 3600)
            self._known.clear()
        for provider, model in self._table.models():
            if (provider, model) not in self._known and len(self._known) < _MOST_MODELS:
                self._known[provider, model] = list(self._of(provider, model, int(now * 1e9)))
        return [observation for of_model in self._known.values() for observation in of_model]

    def _of(self, provider: str, model: str, at_ns: int) -> Iterator[Observation]:
        standard: dict[str, Decimal] = {}
        for tier in _TIERS:
            card = self._book.card(provider, model, at_ns, tier)
            if card is None:
                continue
            rates = {name: rate for meter, name in _COMPONENTS.items() if (rate := card.rate(meter)) is not None}
            if tier == "standard":
                standard = rates
            # A model without prices of its own for a tier answers with the standard ones.
            elif card.tier != tier or rates == standard:
                continue
            for component, rate in rates.items():
                labels = {PROVIDER: provider, REQUEST_MODEL: model, COMPONENT: component, SERVICE_TIER: tier}
                yield Observation(float(rate), labels)
