"""Days of the demo's fleet in a real Prometheus, with the recordings of the shipped rules: what dashboards are held to.

What really happened is asked of the fleet: `fleet.spent()`, `fleet.since(midnight)`, `fleet.calls()`.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from costspan.demo import month
from costspan.demo.fleet import Clock, Fleet, Process, Story, budgets
from costspan.grafana.export import shipped
from costspan_pricing import PriceBook
from costspan_processor.attribution import dollars
from costspan_processor.budgets.memory import MemoryStore
from tests.grafana.prometheus import Prometheus, binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider


class Told(NamedTuple):
    """A fleet that has lived, and the Prometheus that has seen it."""

    prometheus: Prometheus
    fleet: Fleet

    def spent_since(self, begin: datetime) -> Decimal:
        """USD since a midnight, or since the start if that came later."""
        return dollars(self.fleet.since(int(begin.timestamp())).total())

    def spent_by(self, what: str) -> dict[str, Decimal]:
        """USD since the start by `job`, `provider`, `model` or `team`, without what cost nothing."""
        found: dict[str, int] = {}
        for key, pico in self.fleet.spent().items():
            name = key[("job", "provider", "model", "team").index(what)]
            found[name] = found.get(name, 0) + pico
        return {name: dollars(pico) for name, pico in found.items() if pico}


def midnight(year: int, month_: int, day: int) -> datetime:
    return datetime(year, month_, day, tzinfo=UTC)


@contextlib.contextmanager
def lived(story: Story, folder: Path, *, fine: int = 5400, middle: int = 5400, recorded: bool = True) -> Iterator[Told]:
    """The story in a Prometheus that scrapes nothing; the last `fine` seconds with a scrape a minute."""
    fleet = Fleet(story)
    parts = month.grid(story.start, story.end, fine=fine, middle=middle)
    with month.Prometheus(folder / "data", program=binary("prometheus")) as server:
        month.make(fleet, parts, server, month.rules(shipped()) if recorded else [])
        yield Told(Prometheus(server.port), fleet)


def process(story: Story, meters: MeterProvider, clock: Clock) -> Process:
    """One process of the shop on a MeterProvider, with the fleet's budgets for itself."""
    book = PriceBook.bundled()
    resource = {"service.name": "shop", "service.instance.id": "shop-a"}
    return Process("shop", "shop-a", clock, meters, resource, budgets(story, book), MemoryStore(clock), book)
