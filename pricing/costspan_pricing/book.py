"""The price book: which rates hold for a provider's model at an instant."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing.card import Rate, RateCard, parse_rate
from costspan_pricing.meters import METERS
from costspan_pricing.timeline import ALWAYS, layered, nanoseconds, spans

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

DATA: Final = Path(__file__).parent / "data"

_REMEMBERED: Final = 10_000
"""Names that are remembered before all are forgotten: more means that names are made up as calls are made."""

_STANDARD: Final = frozenset(("", "standard", "default", "auto", "on_demand", "standard_only", "unspecified"))

_TIER_ALIASES: Final = {
    "batches": "batch",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
}

_ROUTERS: Final = frozenset(("litellm", "litellm_proxy"))
"""Gateways with no prices of their own: the model's prefix names the provider."""

# What a provider may append to a name of the book when the book says that versions of it cost the same.
_VERSION: Final = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d\d-\d\d|\d\d-\d\d|\d\d-\d{4}|\d{4}|\d{3}|latest)|@default)$")


class BookError(ValueError):
    """Prices that cannot be read; the message names the provider, model, period and field."""


class PriceBook:
    """Prices of every model the book knows, with their history. Immutable, and safe to share between threads.

    `bundled` is the book that comes with the package. Importing it or making it reads no price file: each provider's is
    read when its first model is asked for.
    """

    def __init__(self, library: _Library, own: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None) -> None:
        """Not for users, who take `bundled` and `with_prices`."""
        self._library = library
        self._own = own or {}
        self._seen: dict[tuple[str, str, str | None, str | None], tuple[int, RateCard, _History] | None] = {}

    @classmethod
    def bundled(cls) -> PriceBook:
        """The book of this package: prices converted from genai-prices under our own dated corrections."""
        global _bundled  # noqa: PLW0603  one book a process; making a second one twice in a race does no harm
        if _bundled is None:
            _bundled = cls(_Library(DATA))
        return _bundled

    @property
    def version(self) -> str:
        """The version of the data, a date such as 2026.11.23."""
        return self._library.version

    @property
    def dated(self) -> int:
        """When the newest figure of the book was checked, in unix seconds."""
        return self._library.dated

    def card(
        self, provider: str, model: str, at_ns: int, tier: str | None = None, geo: str | None = None
    ) -> RateCard | None:
        """The rates of a model at an instant (unix nanoseconds), or ``None`` if the book does not know it.

        ``provider`` and ``model`` are taken as spans and responses carry them. ``tier`` is the service tier that was
        served (batch, flex, priority, ...); ``geo`` the region that the provider was asked to stay in (us, eu, ...).
        The second call for the same four is a single dict lookup.
        """
        try:
            found = self._seen[provider, model, tier, geo]
        except KeyError:
            found = self._find(provider, model, tier, geo)
        if found is None:
            return None
        if at_ns >= found[0]:
            return found[1]
        return found[2].at(at_ns)

    def newest(
        self, provider: str, model: str, tier: str | None = None, geo: str | None = None
    ) -> tuple[int, RateCard] | None:
        """The newest rates of a model, and the instant (unix ns) since when they hold: for callers that keep them.

        ``None`` if the book does not know the model. The cards of a book never change: changed prices are another book.
        """
        key = provider, model, tier, geo
        found = self._seen[key] if key in self._seen else self._find(*key)
        return None if found is None else found[:2]

    def knows(self, provider: str) -> bool:
        """Whether the book has this provider at all: tells an unknown model from an unknown provider."""
        folded = _folded(provider)
        return folded in _ROUTERS or folded in self._own or self._library.canonical(provider) is not None

    def with_prices(self, prices: Mapping[str, Mapping[str, str | float | Decimal]]) -> PriceBook:
        """A book with prices of your own over this one's.

        ``prices`` maps "provider/model" to meter to USD per million units:
        ``{"openai/gpt-4.1": {"input": "1.80", "output": "7.20"}}``. A price given here is what that meter costs,
        whatever the date, the service tier, the region and the length of the prompt; what is not given stays as the
        book has it. Raises `BookError` for an unknown meter or a price that is not a number.
        """
        own: dict[str, dict[str, dict[str, str]]] = {
            provider: {model: dict(rates) for model, rates in models.items()} for provider, models in self._own.items()
        }
        for name, rates in prices.items():
            provider, slash, model = name.partition("/")
            if not (provider and slash and model):
                raise BookError(f"{name!r}: prices are named provider/model")
            checked = {meter: _own_price(name, meter, price) for meter, price in rates.items()}
            provider = self._library.canonical(provider) or _folded(provider)
            own.setdefault(provider, {}).setdefault(_folded(model), {}).update(checked)
        return PriceBook(self._library, own)

    def _find(
        self, provider: str, model: str, tier: str | None, geo: str | None
    ) -> tuple[int, RateCard, _History] | None:
        history = self._history(provider, model, _served(tier), (geo or "").lower())
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        found = (history.starts[-1], history.cards[-1], history) if history is not None else None
        self._seen[provider, model, tier, geo] = found
        return found

    def _history(self, provider: str, model: str, tier: str, geo: str) -> _History | None:
        provider, model = self._library.routed(provider, model)
        shelf = self._library.shelf(provider)
        own = self._own.get(provider, {}).get(_folded(model), {})
        name = shelf.find(model) if shelf is not None else None
        if shelf is not None and name is None and self._library.canonical(model.partition("/")[0]):
            name = shelf.find(model.partition("/")[2])  # Vertex serves anthropic/claude-opus-4-1, and lists it itself
        if name is not None and not own:
            own = self._own.get(provider, {}).get(name, {})
        if shelf is None or name is None:
            if not own:
                return None
            own_rates = {meter: parse_rate(meter, _per_million(price)) for meter, price in own.items()}
            card = RateCard(
                provider=provider,
                model=model,
                tier=tier or "standard",
                rates=own_rates,
                book=self.version,
                layer="code",
            )
            return _History((ALWAYS[0],), (ALWAYS[1],), (card,))
        return shelf.history(name, tier, geo, own, self.version)


_bundled: PriceBook | None = None


class _History:
    """The cards of one model in one tier and region, by the instant from which they hold."""

    __slots__ = ("cards", "ends", "starts")

    def __init__(self, starts: tuple[int, ...], ends: tuple[int, ...], cards: tuple[RateCard, ...]) -> None:
        self.starts = starts
        self.ends = ends
        self.cards = cards

    def at(self, at_ns: int) -> RateCard | None:
        position = bisect_right(self.starts, at_ns) - 1
        return self.cards[position] if position >= 0 and at_ns < self.ends[position] else None


class _Library:
    """The price files of a folder: an index, and for each provider a converted file and one of corrections."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: dict[str, Any] | None = None
        self._names: dict[str, str] = {}
        self._shelves: dict[str, _Shelf] = {}

    @property
    def version(self) -> str:
        return str(self._load()["book_version"])

    @property
    def dated(self) -> int:
        return nanoseconds(self._load()["dated"]) // 10**9

    def _load(self) -> dict[str, Any]:
        if self._index is None:
            index = _read(self._folder / "index.json")
            self._names = {
                _folded(alias): provider
                for provider, entry in index["providers"].items()
                for alias in (provider, *entry.get("aliases", ()))
            }
            self._index = index
        return self._index

    def canonical(self, provider: str) -> str | None:
        """The book's name of a provider, or ``None``."""
        self._load()
        return self._names.get(_folded(provider))

    def routed(self, provider: str, model: str) -> tuple[str, str]:
        """Provider and model with a routing prefix taken off: LiteLLM writes openai/gpt-4.1."""
        known = self.canonical(provider)
        prefix, slash, rest = model.partition("/")
        if (
            slash
            and (named := self.canonical(prefix)) is not None
            and (named == known or _folded(provider) in _ROUTERS)
        ):
            return named, rest
        return known or _folded(provider), model

    def shelf(self, provider: str) -> _Shelf | None:
        index = self._load()
        entry = index["providers"].get(provider)
        if entry is None or not entry.get("files"):
            return None
        if provider not in self._shelves:
            layers = [_read(self._folder / file) for file in entry["files"]]
            self._shelves[provider] = _Shelf(provider, layers)
        return self._shelves[provider]


class _Shelf:
    """One provider: its models by every name they go by, and their periods over all layers."""

    def __init__(self, provider: str, layers: list[dict[str, Any]]) -> None:
        self.provider = provider
        self._layers = layers
        self._exact: dict[str, str] = {}
        self._versioned: dict[str, str] = {}
        for layer in layers:
            for model, entry in layer["models"].items():
                self._exact[_folded(model)] = model
                for name in entry.get("names", ()):
                    self._exact[_folded(name)] = model
                for name in entry.get("versions_of", ()):
                    self._versioned[_folded(name)] = model

    def find(self, name: str) -> str | None:
        """The book's model of a raw name: listed as it is, or a listed name with a version behind it."""
        name = _plain(name)
        if (model := self._exact.get(name)) is not None:
            return model
        if (version := _VERSION.search(name)) is not None:
            return self._versioned.get(name[: version.start()])
        return None

    def history(self, model: str, tier: str, geo: str, own: Mapping[str, str], book: str) -> _History:
        facts: dict[str, Any] = {}
        timeline: list[dict[str, Any]] = []
        fallback: dict[str, str] = {}
        multipliers: list[dict[str, Any]] = []
        for layer in self._layers:
            multipliers += layer.get("multipliers", ())
            fallback |= layer.get("fallback", {})
            entry = layer["models"].get(model)
            if entry is not None:
                facts |= entry
                fallback |= entry.get("fallback", {})
                timeline = layered(
                    timeline, spans(entry.get("periods", ()), layer["layer"], f"{self.provider}/{model}")
                )
        fees = [fee for layer in self._layers for fee in layer.get("fees", ())]
        factor = _factor(multipliers, geo, str(facts.get("released", "")))
        overrides = {meter: parse_rate(meter, _per_million(price)) for meter, price in own.items()}
        cards = tuple(self._card(model, period, tier, factor, fallback, fees, overrides, book) for period in timeline)
        return _History(
            tuple(period["from_ns"] for period in timeline), tuple(period["to_ns"] for period in timeline), cards
        )

    def _card(
        self,
        model: str,
        period: Mapping[str, Any],
        tier: str,
        factor: tuple[int, int],
        fallback: Mapping[str, str],
        fees: list[dict[str, Any]],
        overrides: Mapping[str, Rate],
        book: str,
    ) -> RateCard:
        where = f"{self.provider}/{model}"
        rates: dict[str, Any] = {}
        for fee in fees:
            rates |= fee["rates"]
        rates |= period.get("rates", {})
        served: Mapping[str, Any] = period
        flags: tuple[str, ...] = ()
        if tier:
            if tier in period.get("tiers", {}):
                served = period["tiers"][tier]
                rates = _under(rates, served["rates"])
            else:
                flags = ("tier_unpriced",)
        fallback = {**fallback, **period.get("fallback", {})}

        def compiled(prices: Mapping[str, Any]) -> dict[str, Rate]:
            ready: dict[str, Rate] = {}
            for meter, price in prices.items():
                token = meter in METERS and METERS[meter].unit == "token"
                try:
                    ready[meter] = parse_rate(meter, price, factor if token else (1, 1))
                except (ValueError, TypeError, KeyError) as error:
                    raise BookError(f"{where}, period from {period.get('from')}: {error}") from None
            ready |= overrides
            for meter, other in fallback.items():
                if meter not in ready and other in ready:
                    ready[meter] = ready[other]
            return ready

        context_tiers = [
            (
                tiered["over"] - (tiered.get("cmp") == "gte"),
                compiled(_under(rates, tiered["rates"])),
            )
            for tiered in served.get("context_tiers", ())
        ]
        return RateCard(
            provider=self.provider,
            model=model,
            tier="standard" if flags or not tier else tier,
            rates=compiled(rates),
            context_tiers=context_tiers,
            free=bool(period.get("free")),
            flags=flags,
            book=book,
            layer="code" if overrides else period["layer"],
            source=period.get("source", ""),
        )


def _under(fees: Mapping[str, Any], rates: Mapping[str, Any]) -> dict[str, Any]:
    """Rates of a tier over the standard fees: it lists all its token rates, while searches cost the same in it."""
    beneath = {m: p for m, p in fees.items() if m not in METERS or METERS[m].unit != "token"}
    return {**beneath, **rates}


def _factor(multipliers: list[dict[str, Any]], geo: str, released: str) -> tuple[int, int]:
    """The product of the multipliers that apply, as a fraction."""
    numerator, denominator = 1, 1
    for multiplier in multipliers:
        since = multiplier.get("released_from", "")
        if geo in multiplier["geo"] and (not since or released >= since):
            head, _, tail = multiplier["factor"].partition(".")
            numerator *= int(head + tail)
            denominator *= 10 ** len(tail)
    return numerator, denominator


def _served(tier: str | None) -> str:
    """The canonical word of a service tier; empty for the standard one."""
    word = (tier or "").strip().lower().replace("-", "_")
    word = _TIER_ALIASES.get(word, word)
    return "" if word in _STANDARD else word


def _folded(name: str) -> str:
    return name.strip().lower()


def _plain(name: str) -> str:
    """A model name without what surrounds it in some APIs: resource paths, and the owner and suffix of a fine-tune."""
    name = _folded(name)
    if "models/" in name:
        name = name.rpartition("models/")[2]
    if name.startswith("ft:"):
        # ft:<base>:<organisation>:<suffix>:<id>; the price hangs on the base, and never is the base's own.
        return ":".join(name.split(":", 2)[:2])
    base, tuned, _ = name.partition(".ft-")
    return f"ft:{base}" if tuned else name


def _own_price(model: str, meter: str, price: object) -> str:
    if meter not in METERS:
        raise BookError(f"{model}: unknown meter {meter!r}; known are {', '.join(METERS)}")
    # repr of a float is the shortest decimal that means it: 0.1 is one tenth, as its writer meant.
    text = price if isinstance(price, str) else format(_exact(price), "f")
    try:
        parse_rate(meter, _per_million(text))
    except ValueError:
        raise BookError(f"{model}, {meter}: a price is USD per million, such as '2.50', not {price!r}") from None
    return text


def _exact(price: object) -> Decimal:
    from decimal import Decimal

    number = isinstance(price, (int, float, Decimal)) and not isinstance(price, bool)
    return Decimal(str(price)) if number else Decimal("NaN")


def _per_million(price: str) -> dict[str, Any]:
    return {"usd": price, "per": 1_000_000}


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
