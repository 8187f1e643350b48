"""The exact price of a call, in integer picodollars."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from costspan_pricing.card import Sheet

PICO: Final = 10**12
"""Picodollars in a US dollar. $1 per million tokens is 1,000,000 picodollars a token."""

Status = Literal[
    "priced", "free", "partial", "estimated", "unknown_model", "unknown_provider", "no_usage", "invalid_usage"
]


class CostLine(NamedTuple):
    """One meter of one model: ``quantity`` units at ``rate`` USD per ``per`` units make ``pico`` picodollars.

    ``rate`` and ``pico`` are ``None`` where the book has no rate for the meter.
    """

    model: str
    meter: str
    quantity: int | Decimal
    rate: Decimal | None
    per: int
    pico: int | None


class Cost:
    """What a call, or several together, cost. Immutable; ``+`` adds.

    ``total`` is in picodollars, and ``None`` unless there is a figure: what is unknown is never zero. ``status`` says
    what the figure is worth:

    ``priced``
        every quantity has its rate;
    ``free``
        the model is free of charge, which is something else than unknown;
    ``partial``
        some quantities have no rate in the book, and ``total`` is the sum of the others;
    ``estimated``
        the figure rests on an assumption that ``flags`` names;
    ``unknown_model``, ``unknown_provider``, ``no_usage``, ``invalid_usage``
        there is no figure, and this is why.

    ``flags`` may hold ``inconsistent`` (the reported counts contradict each other), ``tier_unpriced`` (the book has no
    rates for the service tier, standard ones were used) and ``unpriced:<meter>``.
    """

    __slots__ = ("_components", "_flags", "_local", "_parts", "_sheet", "_source", "_status", "_total", "_usage")

    _total: int | None
    _status: Status
    _flags: tuple[str, ...]
    _source: Literal["local", "provider"]
    _components: dict[str, int]
    _usage: dict[str, int] | None
    _sheet: Sheet | None
    _parts: tuple[Cost, ...]
    _local: Cost | None

    def __init__(  # filled slot by slot: this runs once per call that is priced
        self,
        total: int | None,
        status: Status,
        flags: tuple[str, ...],
        components: dict[str, int],
        usage: dict[str, int] | None = None,
        sheet: Sheet | None = None,
    ) -> None:
        """Not for users: a `RateCard` makes costs, `unpriced` and `reported` the ones without a card."""
        self._total = total
        self._status = status
        self._flags = flags
        self._components = components
        self._usage = usage
        self._sheet = sheet
        self._source = "local"
        self._parts = ()
        self._local = None

    @classmethod
    def unpriced(cls, status: Literal["unknown_model", "unknown_provider", "no_usage", "invalid_usage"]) -> Cost:
        """A cost without a figure, for the reason given."""
        return cls(None, status, (), {})

    @classmethod
    def reported(cls, usd: float | Decimal | str, local: Cost | None = None) -> Cost:
        """The figure that the provider itself sent, in USD; ``local`` is what the book says beside it.

        Rounded half-even to a picodollar. Its components are unknown unless the book agrees to the last digit, so all
        of it is ``other`` then. Raises ``ValueError`` for a figure that is negative or no number.
        """
        from decimal import Decimal, InvalidOperation

        try:
            figure = Decimal(str(usd))
            pico = int((figure * PICO).to_integral_value()) if figure.is_finite() and figure >= 0 else None
        except InvalidOperation:
            pico = None
        if pico is None:
            raise ValueError(f"a reported cost must be a number of USD that is not negative, not {usd!r}")
        cost = cls(pico, "priced", local.flags if local else (), {"other": pico} if pico else {})
        if local is not None and local._total == pico:
            cost._components = local._components
        cost._source = "provider"
        cost._local = local
        return cost

    @property
    def total(self) -> int | None:
        """Picodollars, or ``None`` if there is no figure."""
        return self._total

    @property
    def status(self) -> Status:
        """What the figure is worth."""
        return self._status

    @property
    def flags(self) -> tuple[str, ...]:
        """What to know about the figure beyond its status."""
        return self._flags

    @property
    def components(self) -> Mapping[str, int]:
        """Picodollars by component (input, output, cache_read, cache_write, other); only those that were used."""
        return MappingProxyType(self._components)

    @property
    def source(self) -> Literal["local", "provider"]:
        """Who computed the figure: the price book, or the provider."""
        return self._source

    @property
    def local(self) -> Cost | None:
        """The book's own cost, where the provider's figure stands in for it."""
        return self._local

    @property
    def usd(self) -> Decimal | None:
        """The total in USD, exact."""
        if self._total is None:
            return None
        from decimal import Context, Decimal

        # The default context would round totals of more than 28 digits.
        return Decimal(self._total).scaleb(-12, Context(prec=max(28, len(str(self._total)) + 1)))

    @property
    def lines(self) -> tuple[CostLine, ...]:
        """Every meter with its quantity, rate and amount, in the order of the registry. Computed when asked."""
        if parts := self._parts:
            return tuple(line for part in parts for line in part.lines)
        if (local := self.local) is not None:
            return local.lines
        sheet = self._sheet
        return sheet.lines(self._usage or {}) if sheet is not None else ()

    @property
    def cache_savings(self) -> int:
        """Picodollars saved by reading from the cache: cached tokens x (input rate - cache read rate)."""
        return self._against_input("cache_read")

    @property
    def cache_write_premium(self) -> int:
        """Picodollars that cache writes cost beyond plain input: tokens x (write rate - input rate), never negative."""
        return max(0, -self._against_input("cache_write"))

    @property
    def book(self) -> str:
        """The version of the price book, or the empty string without a card."""
        return self._first("book")

    @property
    def layer(self) -> str:
        """The layer of the book that the period comes from: bundled, overlay, code."""
        return self._first("layer")

    @property
    def period_source(self) -> str:
        """Where the period's figures were published: a URL."""
        return self._first("source")

    @property
    def model(self) -> str:
        """The book's name of the model that was priced; of the first part in a sum."""
        return self._first("model")

    def __add__(self, other: Cost) -> Cost:
        """The sum; a part without a figure makes it ``partial``."""
        if not isinstance(other, Cost):
            return NotImplemented
        totals = [cost._total for cost in (self, other) if cost._total is not None]
        components = dict(self._components)
        for component, pico in other._components.items():
            components[component] = components.get(component, 0) + pico
        added = Cost(
            sum(totals) if totals else None,
            _joint(self._status, other._status, len(totals)),
            tuple(dict.fromkeys(self._flags + other._flags)),
            components,
        )
        added._parts = (*(self._parts or (self,)), *(other._parts or (other,)))
        if self.source == other.source == "provider":
            added._source = "provider"
        return added

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return (self._total, self._status, self._flags, self.lines) == (
            other._total,
            other._status,
            other._flags,
            other.lines,
        )

    def __hash__(self) -> int:
        return hash((self._total, self._status, self._flags))

    def __repr__(self) -> str:
        amount = "no figure" if self._total is None else f"${self.usd:f}"
        return f"<Cost {amount} {self._status}{''.join(' ' + flag for flag in self._flags)}>"

    def _against_input(self, component: str) -> int:
        if parts := self._parts:
            return sum(part._against_input(component) for part in parts)
        if (local := self.local) is not None:
            return local._against_input(component)
        if self._sheet is None or component not in self._components:
            return 0
        return self._sheet.against_input(self._usage or {}, component)

    def _first(self, field: str) -> str:
        if parts := self._parts:
            return next((value for part in parts if (value := part._first(field))), "")
        if (local := self.local) is not None:
            return local._first(field)
        return str(getattr(self._sheet.card, field)) if self._sheet is not None else ""


def _joint(one: Status, other: Status, figures: int) -> Status:
    """The status of a sum: as good as its worst part."""
    if figures == 0:
        return one
    if figures == 1 or "partial" in {one, other}:
        return "partial"
    if "estimated" in {one, other}:
        return "estimated"
    return "free" if one == other == "free" else "priced"
