"""The price book as a table that a collector can look things up in: names, and cards of integer picodollars a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing.shelf import ANY, EVERYWHERE
from costspan_pricing.words import did_you_mean
from costspan_processor.enrich import prices_apart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from costspan_pricing import PriceBook, RateCard
    from costspan_pricing.shelf import Match, Period
    from costspan_pricing.timeline import Window

METERS: Final = {
    "input": "i",
    "output": "o",
    "output_reasoning": "q",
    "cache_read": "r",
    "cache_write_5m": "w",
    "cache_write_30m": "t",
    "cache_write_1h": "h",
    "cache_write_12h": "d",
}
"""The meters that a collector can price, and the key of their rate in a card."""

_NOBODY: Final = "costspan no such model"
_ELSEWHERE: Final = "elsewhere"
_DATE: Final = "-20990101"
_INT64: Final = 2**63 - 1


class SelectionError(ValueError):
    """A choice of models that cannot be met; the message says why, and what could be meant."""


class _NoRoomError(Exception):
    """Why a model is left out."""


@dataclass(frozen=True, slots=True)
class Hours:
    """A stretch of the week in minutes of a clock that is `offset` minutes ahead of UTC, as `Window` means it."""

    offset: int
    days: tuple[int, ...]
    start: int
    end: int


@dataclass(slots=True)
class Table:
    """What the statements of a configuration look up."""

    version: str
    """Of the book."""
    providers: dict[str, str] = field(default_factory=dict)
    """Every name that a chosen provider goes by -> the book's."""
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    """Provider -> name of a model, in lower case -> its id."""
    versioned: dict[str, dict[str, str]] = field(default_factory=dict)
    """The same of names that cost the same with a date or a version behind them."""
    anything: dict[str, str] = field(default_factory=dict)
    """Provider -> id of what costs whatever it does not list."""
    endings: dict[str, dict[str, str]] = field(default_factory=dict)
    """Provider -> ending of a name that makes it one of those -> id."""
    beginnings: dict[str, dict[tuple[str, ...], list[str]]] = field(default_factory=dict)
    """Provider -> what a name may begin with instead -> what it then begins with."""
    routes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Gateway -> what stands before the slash in a model's name -> provider."""
    geos: dict[str, dict[str, str]] = field(default_factory=dict)
    """Provider -> region as spans name it -> region as ids have it; `*` is any other."""
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Id, service tier and region between hashes, and whatever tells periods apart -> rates and what they depend on."""
    hours: list[Hours] = field(default_factory=list)
    """The stretches of the week that cards have other rates in, by the number in their key."""
    left_out: list[str] = field(default_factory=list)
    """What was asked for and cannot be priced by a collector: the model, and why."""
    models: list[str] = field(default_factory=list)
    """The ids of what is in the table."""
    oldest: int = 0
    """How many periods back the longest history goes."""
    steps: int = 0
    """How many limits of the prompt's length a card has at most."""
    dated: int = 0
    """When the book was checked (unix nanoseconds): what begins later is not in force yet."""

    @property
    def uneven(self) -> list[str]:
        """The ids whose price is another at another hour, or will be another from a day on that is known."""
        newest = {key: card for key, card in self.cards.items() if "~" not in key}
        return sorted({_id(key) for key, card in newest.items() if "v" in card or card.get("f", 0) > self.dated})

    @property
    def latest(self) -> int:
        """Since when (unix nanoseconds) all others have cost what they cost now."""
        uneven = set(self.uneven)
        return max((card["f"] for key, card in self.cards.items() if "f" in card and _id(key) not in uneven), default=0)

    @property
    def most(self) -> int:
        """Tokens of one kind up to which no sum leaves 64 bits."""
        dearest = max((card[key] for card in self.cards.values() for key in METERS.values() if key in card), default=1)
        return _INT64 // (len(METERS) * max(dearest, 1))


def table(book: PriceBook, models: Sequence[str] = (), providers: Sequence[str] = ()) -> Table:
    """The table of some models (named provider/model) and all models of some providers. Raises `SelectionError`."""
    chosen: dict[tuple[str, str], tuple[Match, str]] = {}
    whole = {book.canonical(provider): provider for provider in providers}
    for name in models:
        match, raw = _model(book, name)
        chosen[match.provider, match.model] = match, raw
    for canonical, provider in whole.items():
        if not book.knows(provider):
            raise SelectionError(f"the book knows no provider {provider!r}{_did_you_mean(provider, book.providers)}")
        for model in dict.fromkeys(m for name in (canonical, *_inherited(book, canonical)) for m in book.models(name)):
            found = book.match(canonical, model)
            if found is not None and found.rule != "fallback":
                chosen[found.provider, found.model] = found, model
    if not chosen and not whole:
        raise SelectionError("nothing is chosen: give --models provider/model,... or --provider NAME")
    made = Table(book.version, dated=book.dated * 10**9)
    for match, raw in chosen.values():
        _add(made, book, match, raw)
    for provider in dict.fromkeys([match.provider for match, _ in chosen.values()] + list(whole)):
        _name(made, book, provider, {match.model for match, _ in chosen.values() if match.provider == provider})
        if provider in whole:
            _add_anything(made, book, provider)
    _route(made, book)
    if not made.cards:
        raise SelectionError(f"nothing of what is chosen has prices by the token: {'; '.join(made.left_out)}")
    return made


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known) or "; `costspan prices list` shows what there is"


def _model(book: PriceBook, name: str) -> tuple[Match, str]:
    provider, slash, raw = name.strip().partition("/")
    if not (slash and provider and raw):
        raise SelectionError(f"{name!r}: models are named provider/model, such as openai/gpt-4.1")
    if not book.knows(provider):
        raise SelectionError(
            f"{name!r}: the book knows no provider {provider!r}{_did_you_mean(provider, book.providers)}"
        )
    match = book.match(provider, raw)
    if match is None or match.rule in {"fallback", "free"}:
        canonical = book.canonical(provider)
        known = [m for other in (canonical, *_inherited(book, canonical)) for m in book.models(other)]
        raise SelectionError(f"the book knows no model {raw!r} of {canonical}{_did_you_mean(raw, known)}")
    return match, raw


def _inherited(book: PriceBook, provider: str) -> list[str]:
    return [other for file in book.files(provider) for other in file.get("inherits", ())]


# ---------------------------------------------------------------------- cards


def _add(made: Table, book: PriceBook, match: Match, raw: str) -> None:
    """A model's cards: of every period, tier, region and length of the prompt."""
    name = f"{match.provider}/{match.model}"
    tiers = {tier for period in book.written(match) for tier in period.get("tiers", {})}
    written = [m for file in book.files(match.provider) for m in file.get("multipliers", ())]
    regions = sorted({str(geo) for m in written for geo in m.get("geo", ())} - {*EVERYWHERE, ANY})
    new: dict[str, dict[str, Any]] = {}
    hours = list(made.hours)
    try:
        plain: dict[tuple[str, str], list[Any]] = {}
        for tier in ("", *sorted(tiers)):
            for geo in ("", *regions, *([ANY] if regions or written else [])):
                periods = book.periods(match.provider, raw, tier, _ELSEWHERE if geo == ANY else geo)
                told = [(p.start, p.end, [_plain(card) for card in (p.card, *p.windows)]) for p in periods]
                if not periods or (tier and all(_is_standard(p) for p in periods)):
                    continue
                plain[tier, geo] = told
                # A collector that finds no card of a region takes the tier's, and without one the region's.
                if told != plain.get((tier, "")) or not geo:
                    new |= _cards(made, hours, f"{name}#{tier}#{geo}", periods)
    except _NoRoomError as error:
        made.left_out.append(f"{name}: {error}")
        return
    if not new:
        made.left_out.append(f"{name}: no prices by the token")
        return
    made.hours = hours
    made.cards |= new
    made.models.append(name)
    if regions or written:
        made.geos[match.provider] = {**dict.fromkeys(sorted(EVERYWHERE), ""), **{geo: geo for geo in (*regions, ANY)}}


def _id(key: str) -> str:
    return key.partition("#")[0]


def _is_standard(period: Period) -> bool:
    return period.card is None or "tier_unpriced" in period.card.flags


def _plain(card: RateCard | None) -> Any:
    if card is None:
        return None
    return card.flags, card.source, [(limit, sorted(card.rates(limit + 1).items())) for limit in (-1, *card.limits)]


def _cards(made: Table, hours: list[Hours], key: str, periods: Sequence[Period]) -> dict[str, dict[str, Any]]:
    """One history as cards: the newest under `key`, each with where to go for what is older, longer or at an hour."""
    segments: list[tuple[int | None, Period | None]] = []
    end: int | None = None
    for number, period in enumerate(periods):
        if period.start is not None and (number == 0 or period.start != end):
            segments.append((end if number else None, None))
        segments.append((period.start, period))
        end = period.end
    if end is not None:
        segments.append((end, None))
    made.oldest = max(made.oldest, len(segments) - 1)
    cards: dict[str, dict[str, Any]] = {}
    for age, (start, held) in enumerate(reversed(segments)):
        name = f"{key}~{age}" if age else key
        card = held.card if held is not None else None
        if held is None or card is None:
            cards[name] = {"g": True}
        else:
            cards |= _lengths(made, name, card)
            for number, (window, inside) in enumerate(held.hours):
                place = _hours(hours, window)
                offset = hours[place].offset
                if cards[name].setdefault("v", offset) != offset:
                    raise _NoRoomError("its hours are told by several clocks")
                cards[name][f"w{place}"] = f"{name}w{number}"
                cards |= _lengths(made, f"{name}w{number}", inside)
        if start is not None and age + 1 < len(segments):
            cards[name] |= {"f": start, "b": f"{key}~{age + 1}"}
    return cards


def _lengths(made: Table, name: str, card: RateCard) -> dict[str, dict[str, Any]]:
    """The card of short prompts and those of longer ones, each leading to the next."""
    limits = card.limits
    made.steps = max(made.steps, len(limits))
    cards: dict[str, dict[str, Any]] = {}
    for step in range(len(limits) + 1):
        this = f"{name}L{step}" if step else name
        cards[this] = _rates(card, limits[step - 1] + 1 if step else 0)
        if step < len(limits):
            cards[this] |= {"n": limits[step], "l": f"{name}L{step + 1}"}
    return cards


def _rates(card: RateCard, prompt: int) -> dict[str, Any]:
    if card.timed:
        raise _NoRoomError("it is paid by the hour of its hardware")
    rates = card.rates(prompt)
    if not card.free and not any(meter in rates for meter in METERS):
        raise _NoRoomError("it has no price by the token")
    ready: dict[str, Any] = {}
    missing: list[str] = []
    for meter, key in METERS.items():
        rate = rates.get(meter)
        if rate is not None and (rate.denominator != 1 or rate.minimum):
            # Such a price is for a collector as if it were not there: what it would round is not the book's figure.
            rate = None
            missing.append(key)
        elif rate is None and not card.free:
            missing.append(key)
        ready[key] = rate.numerator if rate is not None else 0
    if missing:
        ready["x"] = dict.fromkeys(missing, True)
    if card.free:
        ready["z"] = True
    if card.flags:
        ready["e"] = card.flags[0]
    if prices_apart(card, ("input_audio", "output_audio", "audio_seconds")):
        ready["a"] = True
    if prices_apart(card, ("cache_write_5m",)):
        ready["y"] = True
    ready["s"] = card.source
    return ready


def _hours(known: list[Hours], window: Window) -> int:
    """The number of a stretch of the week."""
    offsets = {
        window.zone.utcoffset(datetime(year, month, 1, tzinfo=UTC).astimezone(window.zone))
        for year in range(2023, 2031)
        for month in range(1, 13)
    }
    if len(offsets) != 1:
        raise _NoRoomError("its price depends on the hour of a clock that is put forward and back")
    (offset,) = offsets
    minutes = (offset or timedelta()) // timedelta(minutes=1)
    hours = Hours(minutes, tuple(sorted(window.days)), window.start, window.end)
    if hours not in known:
        known.append(hours)
    return known.index(hours)


# ---------------------------------------------------------------------- names


def _name(made: Table, book: PriceBook, provider: str, models: set[str]) -> None:
    """Every name that spans may call the provider and its models by, as the book itself resolves them."""
    made.providers |= dict.fromkeys(_called(book, provider), provider)
    candidates, versioned = set[str](), set[str]()
    endings: dict[str, str] = {}
    for name in (provider, *_inherited(book, provider)):
        candidates |= set(book.models(name))
        for file in book.files(name):
            for entry in file.get("models", {}).values():
                candidates |= set(entry.get("names", ()))
                versioned |= set(entry.get("versions_of", ()))
    for file in book.files(provider):
        for beginning, instead in file.get("prefixes", {}).items():
            made.beginnings.setdefault(provider, {}).setdefault(tuple(instead), []).append(beginning)
        endings |= file.get("suffixes", {})
    candidates |= {name for (whose, name) in book.names if whose == provider}
    made.listed[provider] = dict(_resolved(book, provider, _spelled(candidates, endings), models, ""))
    made.versioned[provider] = dict(_resolved(book, provider, _spelled(versioned, endings), models, _DATE))


def _called(book: PriceBook, provider: str) -> list[str]:
    """All names of a provider that spans may have, in an order that is always the same."""
    return sorted({provider, *book.aliases(provider)})


def _spelled(names: set[str], endings: Mapping[str, str]) -> set[str]:
    """Names, and how they are written where a provider puts something behind them."""
    lower = {name.strip().lower() for name in names} - {ANY}
    for ending, instead in endings.items():
        lower |= {name.removesuffix(instead) + ending for name in tuple(lower) if name.endswith(instead)}
    return lower


def _resolved(
    book: PriceBook, provider: str, names: set[str], models: set[str], version: str
) -> Iterator[tuple[str, str]]:
    for name in sorted(names):
        match = book.match(provider, name + version)
        if (
            match is None
            or match.rule in {"fallback", "free"}
            or (version and book.match(provider, name + "-x") == match)
        ):
            continue
        if match.provider == provider and match.model in models:
            yield name, f"{match.provider}/{match.model}"
        elif match.provider != provider:
            # A name of one's own for another provider's model.
            yield name, f"{match.provider}/{match.model}"


def _add_anything(made: Table, book: PriceBook, provider: str) -> None:
    """What a provider charges for models that it does not list: a price for all of them, or nothing."""
    match = book.match(provider, _NOBODY)
    if match is not None and match.rule in {"fallback", "free"}:
        before = len(made.models)
        _add(made, book, match._replace(model=ANY), _NOBODY)
        if len(made.models) > before:
            made.anything[provider] = made.models[-1]
    for file in book.files(provider):
        free = file.get("free")
        for ending in free if isinstance(free, list) else ():
            match = book.match(provider, _NOBODY + ending)
            if match is not None and match.rule == "free":
                _add(made, book, match._replace(model=f"*{ending}"), _NOBODY + ending)
                made.endings.setdefault(provider, {})[ending.lower()] = made.models[-1]


def _route(made: Table, book: PriceBook) -> None:
    """Gateways whose models are named provider/model, leading to the providers that are chosen."""
    for gateway in book.providers:
        for file in book.files(gateway):
            routes = file.get("routes")
            if routes is True:
                made.routes.setdefault(gateway, {}).update(made.providers)
            elif routes:
                leads = {prefix.rstrip("/"): made.providers.get(to) for prefix, to in routes.items()}
                made.routes.setdefault(gateway, {}).update({prefix: to for prefix, to in leads.items() if to})
    made.routes = {gateway: leads for gateway, leads in made.routes.items() if leads}
    for gateway in made.routes:
        made.providers |= dict.fromkeys(_called(book, gateway), gateway)
