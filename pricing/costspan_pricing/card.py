"""Rates made ready for use: everything that can be decided before the call is decided here."""

from __future__ import annotations

from math import gcd
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from costspan_pricing.cost import PICO, PLAIN, Cost, CostLine, Note, composed
from costspan_pricing.meters import METERS, Meter
from costspan_pricing.usage import HOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from costspan_pricing.cost import Status
    from costspan_pricing.usage import Usage


class Rate(NamedTuple):
    """Picodollars per step of a meter's scale, as a reduced fraction, and how many units the price is quoted for.

    ``minimum`` is the least that is billed of a call that uses any, ``allowance`` what a month has free of charge; both
    in the meter's scale. A call cannot know what is left of an allowance, so it costs the list price.
    """

    numerator: int
    denominator: int
    per: int
    minimum: int = 0
    allowance: int = 0

    def pico(self, quantity: int) -> int:
        """The price of a quantity: multiplied first, divided once, half-even."""
        return _divided(max(quantity, self.minimum if quantity else 0) * self.numerator, self.denominator)


class Sheet:
    """The rates that hold for one call: of one period, service tier, region and context tier.

    The slots named like meters are their picodollars per token, for the hot path; ``None`` where there is no rate, or
    one that is no whole number.
    """

    __slots__ = ("cache_read", "cache_write_5m", "card", "input", "output", "output_reasoning", "rates")

    def __init__(self, card: RateCard, rates: Mapping[str, Rate]) -> None:
        self.card = card
        self.rates = dict(rates)
        self.input, self.cache_read, self.cache_write_5m, self.output, self.output_reasoning = (
            rates[meter].numerator
            if meter in rates and rates[meter].denominator == 1 and not rates[meter].minimum
            else None
            for meter in HOT
        )

    def pico(self, meter: str, quantity: int) -> int | None:
        """The price of a quantity in picodollars; ``None`` without a rate."""
        rate = self.rates.get(meter)
        if rate is None:
            return 0 if self.card.free else None
        return rate.pico(quantity)

    def lines(self, usage: Mapping[str, int]) -> tuple[CostLine, ...]:
        """One line a meter, in the order of the registry."""
        order = {meter: position for position, meter in enumerate(METERS)}
        return tuple(
            self._line(meter, usage[meter]) for meter in sorted(usage, key=lambda m: (order.get(m, len(order)), m))
        )

    def _line(self, meter: str, quantity: int) -> CostLine:
        from decimal import Decimal

        known = _meter(meter)
        rate = self.rates.get(meter)
        billed = max(quantity, rate.minimum) if rate is not None and quantity else quantity
        units = billed if known.scale == 1 else Decimal(billed) / known.scale
        if rate is None:
            price = Decimal(0) if self.card.free else None
            return CostLine(self.card.model, meter, units, price, known.per, 0 if self.card.free else None)
        price = Decimal(rate.numerator * known.scale * rate.per) / (rate.denominator * PICO)
        price = price.quantize(Decimal(1)) if price == price.to_integral_value() else price.normalize()
        return CostLine(self.card.model, meter, units, price, rate.per, self.pico(meter, quantity))

    def against_input(self, usage: Mapping[str, int], component: str) -> int:
        """Picodollars that the tokens of a component would have cost more as plain input of the same modality."""
        difference = 0
        for meter, quantity in usage.items():
            if _meter(meter).component == component:
                modality = meter.rpartition("_")[2]
                plain = self.pico(f"input_{modality}" if f"input_{modality}" in METERS else "input", quantity)
                actual = self.pico(meter, quantity)
                if plain is not None and actual is not None:
                    difference += plain - actual
        return difference


class RateCard:
    """The prices of one model at one time, in one service tier and region; compiled once, then used for every call.

    ``model`` is the book's name of the model, ``layer`` and ``source`` tell where the figures come from, ``book`` is
    the version of the book. ``tier`` is the service tier whose rates these are ("standard" if the book has none for the
    one asked, and then ``flags`` holds ``tier_unpriced``). ``multipliers`` are the ids of those that are in the rates,
    ``window`` the name of the hours of the week that they hold in, if they do so at certain hours only.
    """

    __slots__ = (
        "_base",
        "_long",
        "_over",
        "_unusual",
        "book",
        "flags",
        "free",
        "layer",
        "limits",
        "model",
        "multipliers",
        "provider",
        "source",
        "tier",
        "timed",
        "window",
    )

    def __init__(
        self,
        *,
        provider: str,
        model: str,
        tier: str,
        rates: Mapping[str, Rate],
        context_tiers: Sequence[tuple[int, Mapping[str, Rate]]] = (),
        free: bool = False,
        flags: tuple[str, ...] = (),
        book: str = "",
        layer: str = "",
        source: str = "",
        multipliers: tuple[str, ...] = (),
        window: str = "",
    ) -> None:
        """``context_tiers`` are (limit, rates) in any order: the rates hold for prompts longer than the limit."""
        self.provider = provider
        self.model = model
        self.tier = tier
        self.free = free
        self.flags = flags
        self.book = book
        self.layer = layer
        self.source = source
        self.multipliers = multipliers
        self.window = window
        self.timed = "compute_seconds" in rates
        """Whether the time that a call takes costs money: a model on hardware paid by the hour."""
        self._base = Sheet(self, rates)
        self._long = tuple((limit, Sheet(self, tiered)) for limit, tiered in sorted(context_tiers, reverse=True))
        self.limits = tuple(limit for limit, _ in reversed(self._long))
        """The lengths of prompts, in tokens, above which other rates hold, from the shortest on."""
        self._over: int | None = self._long[-1][0] if self._long else None
        self._unusual = free or bool(flags) or self.timed

    def cost(self, usage: Usage) -> Cost:
        """The exact price of a usage. An empty usage costs 0; whether that is the truth, the caller knows."""
        if usage._rest or usage._inconsistent or self._unusual:
            return self._by_line(usage)
        sheet = self._base
        over = self._over
        if over is not None and usage._prompt > over:
            sheet = self._sheet(usage._prompt)
        cost = Cost()
        cost._cache_write = cost._other = None
        try:
            if quantity := usage._input:
                total = cost._input = quantity * sheet.input  # type: ignore[operator]  # None raises, see below
            else:
                total = 0
                cost._input = None
            if quantity := usage._cache_read:
                cost._cache_read = pico = quantity * sheet.cache_read  # type: ignore[operator]
                total += pico
            else:
                cost._cache_read = None
            if quantity := usage._cache_write_5m:
                cost._cache_write = pico = quantity * sheet.cache_write_5m  # type: ignore[operator]
                total += pico
            if quantity := usage._output:
                cost._output = pico = quantity * sheet.output  # type: ignore[operator]
                total += pico
            else:
                cost._output = None
            if quantity := usage._output_reasoning:
                pico = quantity * sheet.output_reasoning  # type: ignore[operator]
                cost._output = (cost._output or 0) + pico
                total += pico
        except TypeError:
            return self._by_line(usage)
        cost._total = total
        cost._usage = usage
        cost._sheet = sheet
        cost._note = PLAIN
        return cost

    def quote(self, prompt: int, cache_read: int, output: int, reasoning: int) -> tuple[int, int, int, int, int] | None:
        """The price of a call of text alone, for the hot path: what `cost` says, without its objects.

        Counts are inclusive: ``cache_read`` is part of ``prompt``, ``reasoning`` of ``output``; the caller has seen to
        it that none is negative or larger than its whole. Returns picodollars: total, input, cache reads, output, and
        what the cache reads saved. ``None`` where anything is unusual (a free model, a missing rate), and `cost` tells.
        """
        if self._unusual:
            return None
        sheet = self._base
        over = self._over
        if over is not None and prompt > over:
            sheet = self._sheet(prompt)
        sent = read = received = saved = 0
        try:
            if prompt != cache_read:
                sent = (prompt - cache_read) * sheet.input  # type: ignore[operator]  # None raises, see below
            if cache_read:
                read = cache_read * sheet.cache_read  # type: ignore[operator]
                saved = cache_read * sheet.input - read  # type: ignore[operator]
            if output:
                received = (output - reasoning) * sheet.output  # type: ignore[operator]
                if reasoning:
                    received += reasoning * sheet.output_reasoning  # type: ignore[operator]
        except TypeError:
            return None
        return sent + read + received, sent, read, received, saved

    def rates(self, prompt: int = 0) -> Mapping[str, Rate]:
        """Meter to rate, for a prompt of so many tokens."""
        return MappingProxyType(self._sheet(prompt).rates)

    def rate(self, meter: str) -> Decimal | None:
        """USD per ``METERS[meter].per`` units for a short prompt, or ``None``."""
        return self._base._line(meter, 0).rate

    def _sheet(self, prompt: int) -> Sheet:
        return next((sheet for limit, sheet in self._long if prompt > limit), self._base)

    def _by_line(self, usage: Usage) -> Cost:
        """Any usage at all: other meters, fractions of a picodollar, missing rates, free models, flags."""
        sheet = self._sheet(usage._prompt)
        components: dict[str, int] = {}
        missing: list[str] = []
        for meter, quantity in usage.quantities.items():
            pico = sheet.pico(meter, quantity)
            if pico is None:
                missing.append(f"unpriced:{meter}")
            else:
                component = _meter(meter).component
                components[component] = components.get(component, 0) + pico
        flags = (*self.flags, *(("inconsistent",) if usage.inconsistent else ()), *missing)
        total: int | None = sum(components.values())
        if missing:
            status: Status = "partial"
            total = total if components else None
        else:
            status = "free" if self.free and not total else "estimated" if self.flags else "priced"
        return composed(total, components, Note(status, flags), usage, sheet)

    def __repr__(self) -> str:
        return f"<RateCard {self.provider}/{self.model} {self.tier} ({self.layer} {self.book})>"


def parse_rate(meter: str, price: str | Mapping[str, Any], factor: tuple[int, int] = (1, 1)) -> Rate:
    """A price as the book writes it, "0.075" or {"usd": "0.006", "per": 60}, times ``factor``, as a `Rate`.

    Raises ``ValueError`` for anything but plain decimal strings that are not negative.
    """
    known = _meter(meter)
    written: Mapping[str, Any] = {"usd": price} if isinstance(price, str) else price
    per = int(written.get("per", known.per))
    usd, digits = _fraction(meter, written["usd"])
    numerator = usd * PICO * factor[0]
    denominator = digits * per * known.scale * factor[1]
    shared = gcd(numerator, denominator)
    minimum, allowance = (
        amount * known.scale // parts
        for amount, parts in (
            _fraction(meter, written.get("minimum", "0")),
            _fraction(meter, written.get("allowance", _NO_ALLOWANCE)["quantity"]),
        )
    )
    return Rate(numerator // shared, denominator // shared, per, minimum, allowance)


_NO_ALLOWANCE = {"quantity": "0"}


def _fraction(meter: str, text: object) -> tuple[int, int]:
    """A decimal string as numerator and denominator: read as a float it is wrong before anything is computed."""
    head, _, tail = str(text).partition(".")
    if not (head + tail).isdigit() or not (head + tail).isascii():
        raise ValueError(f"{meter}: a price is a decimal string such as '0.075', not {text!r}")
    return int(head + tail), 10 ** len(tail)


def _meter(name: str) -> Meter:
    return METERS.get(name) or Meter(name, "unit", per=1)


def _divided(numerator: int, denominator: int) -> int:
    """Integer division, rounded half-even."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient & 1))
