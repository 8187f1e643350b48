"""The exact price of a call, in integer picodollars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from costspan_pricing.card import Sheet
    from costspan_pricing.usage import Usage

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


class Note(NamedTuple):
    """What is unusual about a cost; `PLAIN` when nothing is."""

    status: Status
    flags: tuple[str, ...] = ()
    source: Literal["local", "provider"] = "local"
    parts: tuple[Cost, ...] = ()
    local: Cost | None = None


PLAIN: Final = Note("priced")


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

    # One slot a component, None where it was not used, and everything unusual behind one more: this object is made on
    # every call, and each slot is paid for there.
    __slots__ = ("_cache_read", "_cache_write", "_input", "_note", "_other", "_output", "_sheet", "_total", "_usage")

    _total: int | None
    _input: int | None
    _output: int | None
    _cache_read: int | None
    _cache_write: int | None
    _other: int | None
    _usage: Usage | None
    _sheet: Sheet | None
    _note: Note

    @classmethod
    def unpriced(cls, status: Literal["unknown_model", "unknown_provider", "no_usage", "invalid_usage"]) -> Cost:
        """A cost without a figure, for the reason given."""
        cost = _UNPRICED.get(status)
        if cost is None:
            cost = _UNPRICED[status] = composed(None, {}, Note(status))
        return cost

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
        components = local.components if local is not None and local._total == pico else {"other": pico}
        flags = local.flags if local is not None else ()
        return composed(pico, components, Note("priced", flags, "provider", local=local))

    @property
    def total(self) -> int | None:
        """Picodollars, or ``None`` if there is no figure."""
        return self._total

    @property
    def status(self) -> Status:
        """What the figure is worth."""
        return self._note.status

    @property
    def flags(self) -> tuple[str, ...]:
        """What to know about the figure beyond its status."""
        return self._note.flags

    @property
    def components(self) -> Mapping[str, int]:
        """Picodollars by component (input, output, cache_read, cache_write, other); only those that were used."""
        used: dict[str, int] = {}
        if self._input is not None:
            used["input"] = self._input
        if self._output is not None:
            used["output"] = self._output
        if self._cache_read is not None:
            used["cache_read"] = self._cache_read
        if self._cache_write is not None:
            used["cache_write"] = self._cache_write
        if self._other is not None:
            used["other"] = self._other
        return used

    @property
    def source(self) -> Literal["local", "provider"]:
        """Who computed the figure: the price book, or the provider."""
        return self._note.source

    @property
    def local(self) -> Cost | None:
        """The book's own cost, where the provider's figure stands in for it."""
        return self._note.local

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
        if parts := self._note.parts:
            return tuple(line for part in parts for line in part.lines)
        if (local := self.local) is not None:
            return local.lines
        sheet = self._sheet
        return sheet.lines(self._usage.quantities) if sheet is not None and self._usage is not None else ()

    @property
    def cache_savings(self) -> int:
        """Picodollars saved by reading from the cache: cached tokens x (input rate - cache read rate)."""
        usage, sheet = self._usage, self._sheet
        if self._note is PLAIN and usage is not None and sheet is not None and not usage._rest:
            plain, cached = sheet.input, sheet.cache_read
            if plain is not None and cached is not None:
                return usage._cache_read * (plain - cached)
        return self._against_input("cache_read")

    @property
    def cache_write_premium(self) -> int:
        """Picodollars that cache writes cost beyond plain input: tokens x (write rate - input rate), never negative."""
        usage, sheet = self._usage, self._sheet
        if self._note is PLAIN and usage is not None and sheet is not None and not usage._rest:
            plain, written = sheet.input, sheet.cache_write_5m
            if plain is not None and written is not None:
                return max(0, usage._cache_write_5m * (written - plain))
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
        components = dict(self.components)
        for component, pico in other.components.items():
            components[component] = components.get(component, 0) + pico
        note = Note(
            _joint(self.status, other.status, len(totals)),
            tuple(dict.fromkeys(self.flags + other.flags)),
            "provider" if self.source == other.source == "provider" else "local",
            parts=(*(self._note.parts or (self,)), *(other._note.parts or (other,))),
        )
        return composed(sum(totals) if totals else None, components, note)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return (self._total, self.status, self.flags, self.lines) == (
            other._total,
            other.status,
            other.flags,
            other.lines,
        )

    def __hash__(self) -> int:
        return hash((self._total, self.status, self.flags))

    def __repr__(self) -> str:
        amount = "no figure" if self._total is None else f"${self.usd:f}"
        return f"<Cost {amount} {self.status}{''.join(' ' + flag for flag in self.flags)}>"

    def _against_input(self, component: str) -> int:
        if parts := self._note.parts:
            return sum(part._against_input(component) for part in parts)
        if (local := self.local) is not None:
            return local._against_input(component)
        if self._sheet is None or self._usage is None:
            return 0
        return self._sheet.against_input(self._usage.quantities, component)

    def _first(self, field: str) -> str:
        if parts := self._note.parts:
            return next((value for part in parts if (value := part._first(field))), "")
        if (local := self.local) is not None:
            return local._first(field)
        return str(getattr(self._sheet.card, field)) if self._sheet is not None else ""


_UNPRICED: Final[dict[str, Cost]] = {}


def composed(
    total: int | None,
    components: Mapping[str, int],
    note: Note,
    usage: Usage | None = None,
    sheet: Sheet | None = None,
) -> Cost:
    """A cost from its parts, for everything but the hot path of `RateCard.cost`."""
    cost = Cost()
    cost._total = total
    cost._input = components.get("input")
    cost._output = components.get("output")
    cost._cache_read = components.get("cache_read")
    cost._cache_write = components.get("cache_write")
    cost._other = components.get("other")
    cost._usage = usage
    cost._sheet = sheet
    cost._note = note
    return cost


def _joint(one: Status, other: Status, figures: int) -> Status:
    """The status of a sum: as good as its worst part."""
    if figures == 0:
        return one
    if figures == 1 or "partial" in {one, other}:
        return "partial"
    if "estimated" in {one, other}:
        return "estimated"
    return "free" if one == other == "free" else "priced"
