"""Usage x price book -> exact cost, in integer picodollars. Knows the standard library alone.

>>> from costspan_pricing import PriceBook, Usage
>>> card = PriceBook.bundled().card("openai", "gpt-4.1", at_ns=1_763_874_000_000_000_000)
>>> cost = card.cost(Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000))
>>> cost.status, f"{cost.usd:f}"
('priced', '0.016000000000')
"""

from __future__ import annotations

from costspan_pricing.book import PriceBook
from costspan_pricing.card import RateCard
from costspan_pricing.cost import PICO, Cost, CostLine, Status
from costspan_pricing.meters import METERS, Component, Meter, register
from costspan_pricing.timeline import BookError
from costspan_pricing.usage import Usage, UsageError

__all__ = [
    "METERS",
    "PICO",
    "BookError",
    "Component",
    "Cost",
    "CostLine",
    "Meter",
    "PriceBook",
    "RateCard",
    "Status",
    "Usage",
    "UsageError",
    "register",
]
