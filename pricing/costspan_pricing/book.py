"""The price book: which rates hold for a provider's model at an instant."""

from __future__ import annotations

from os.path import dirname, join
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing.card import Rate, RateCard, parse_rate
from costspan_pricing.cost import Cost
from costspan_pricing.meters import METERS
from costspan_pricing.shelf import ANY, History, Library, Match, OwnPrices, Period, folded, in_usd
from costspan_pricing.timeline import ALWAYS, BookError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal
    from pathlib import Path

    from costspan_pricing.usage import Usage

# Not pathlib, whose import takes longer than reading a price.
DATA: Final = join(dirname(__file__), "data")  # noqa: PTH118, PTH120
"""The folder of the price files."""

_REMEMBERED: Final = 10_000
"""Names that are remembered before all are forgotten: more means that names are made up as calls are made."""


_Found = tuple[int, RateCard, History, bool]
"""What is remembered of a name: since when its newest card holds, the card, all cards, and whether it holds by now."""


class PriceBook:
    """Prices of every model the book knows, with their history. Immutable, and safe to share between threads.

    `bundled` is the book that comes with the package. Importing it or making it reads no price file: each provider's is
    read when its first model is asked for. The ``with_`` methods lay further prices over a book and return a new one.
    """

    def __init__(
        self,
        library: Library,
        own: Mapping[str, Mapping[str, OwnPrices]] | None = None,
        names: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        """Not for users, who take `bundled` and lay their prices over it."""
        self._library = library
        self._own = own or {}
        self._named = names or {}
        self._seen: dict[tuple[str, str, str | None, str | None], _Found | None] = {}

    @classmethod
    def bundled(cls) -> PriceBook:
        """The book of this package: prices converted from genai-prices under our own dated corrections."""
        global _bundled  # noqa: PLW0603  one book a process; making a second one twice in a race does no harm
        if _bundled is None:
            _bundled = cls(Library(DATA))
        return _bundled

    @property
    def version(self) -> str:
        """The version of the data: a date such as 2026.11.23, and what was laid over it."""
        return self._library.version

    @property
    def dated(self) -> int:
        """When the newest figure of the book was checked, in unix seconds."""
        return self._library.dated

    def cost(
        self,
        provider: str,
        model: str,
        usage: Usage,
        at_ns: int | None = None,
        tier: str | None = None,
        geo: str | None = None,
    ) -> Cost:
        """What a usage cost at an instant (unix nanoseconds, by default now); its status says why if there is none."""
        # As `card` finds it: the call alone would be a tenth of the time.
        try:
            found = self._seen[provider, model, tier, geo]
        except KeyError:
            found = self._find(provider, model, tier, geo)
        if found is not None:
            if found[3] if at_ns is None else at_ns >= found[0]:
                return found[1].cost(usage)
            card = found[2].at(time_ns() if at_ns is None else at_ns)
            if card is not None:
                return card.cost(usage)
        return Cost.unpriced("unknown_model" if self.knows(provider) else "unknown_provider")

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

        The instant is one that never comes where rates depend on the hour. ``None`` if the book does not know the
        model. The cards of a book never change: changed prices are another book.
        """
        key = provider, model, tier, geo
        found = self._seen[key] if key in self._seen else self._find(*key)
        return None if found is None else found[:2]

    def knows(self, provider: str) -> bool:
        """Whether the book has this provider at all: tells an unknown model from an unknown provider."""
        return folded(provider) in self._own or self._library.canonical(provider) is not None

    def match(self, provider: str, model: str) -> Match | None:
        """Which model of the book a raw name means, and by which rule; ``None`` if the book does not know it."""
        provider, model = self._library.routed(provider, model)
        named = self._named.get((provider, folded(model)))
        if named is not None:
            prefix, slash, rest = named.partition("/")
            canonical = self._library.canonical(prefix) if slash else None
            provider, model = (provider, named) if canonical is None else (canonical, rest)
        own = self._own.get(provider, {})
        shelf = self._library.shelf(provider)
        found = shelf.find(model) if shelf is not None else None
        if (found is None or found.rule == "fallback") and folded(model) in own:
            return Match(provider, folded(model), "own")
        if found is None and ANY in (own := own or self._own.get(ANY, {})):
            return Match(provider, ANY, "fallback")
        return found

    def canonical(self, provider: str) -> str:
        """The book's name of a provider, or the name as it is looked up if the book does not know it."""
        return self._library.canonical(provider) or folded(provider)

    @property
    def providers(self) -> tuple[str, ...]:
        """The book's names of all providers, in order."""
        return tuple(sorted({*self._library.providers, *self._own} - {ANY}))

    def models(self, provider: str) -> tuple[str, ...]:
        """The book's names of a provider's models, in order."""
        canonical = self._library.canonical(provider)
        shelf = None if canonical is None else self._library.shelf(canonical)
        own = self._own.get(canonical or folded(provider), {})
        return tuple(sorted({*(() if shelf is None else shelf.models), *own} - {ANY}))

    def periods(self, provider: str, model: str, tier: str | None = None, geo: str | None = None) -> tuple[Period, ...]:
        """The whole history of a model, in order; empty if the book does not know it."""
        match = self.match(provider, model)
        history = None if match is None else self._history(match, model, tier, geo)
        return () if history is None else history.periods

    def aliases(self, provider: str) -> tuple[str, ...]:
        """Every name that a provider goes by, in small letters and in order; none of a provider of your own."""
        canonical = self._library.canonical(provider)
        return () if canonical is None else tuple(sorted(self._library.aliases(canonical)))

    @property
    def names(self) -> Mapping[tuple[str, str], str]:
        """Names of your own, each with its provider, and the model that it means."""
        return dict(self._named)

    def files(self, provider: str) -> tuple[Mapping[str, Any], ...]:
        """The price files of a provider as they are written, the lowest layer first; none of a provider of your own."""
        canonical = self._library.canonical(provider)
        shelf = None if canonical is None else self._library.shelf(canonical)
        return () if shelf is None else tuple(shelf.layers)

    def written(self, match: Match) -> tuple[Mapping[str, Any], ...]:
        """The periods of a matched model as the files write them, put together over all layers, in order.

        Each has its ends as ``from_ns`` and ``to_ns`` (unix nanoseconds) and its ``layer``. Prices of your own that
        hold whatever the date are not in them: `periods` has those too.
        """
        shelf = self._library.shelf(match.provider)
        return () if shelf is None or match.rule in {"own", "free"} else tuple(shelf.timeline(match.model))

    def own(self, match: Match, raw: str) -> OwnPrices | None:
        """Prices of your own that hold for a matched model whatever the date, and the layer that they are of.

        ``raw`` is the name that was matched: one may be given for it alone.
        """
        mine = self._own.get(match.provider) or self._own.get(ANY, {})
        return mine.get(folded(raw)) or mine.get(folded(match.model))

    def with_file(self, path: str | Path, layer: str = "user") -> PriceBook:
        """A book with the prices of a file over this one's; the form is that of ``data/schema/prices-v1.schema.json``.

        Raises `BookError` that names the file, provider, model, period and field of what is wrong in it.
        """
        from costspan_pricing.check import load

        return PriceBook(self._library.over(layer, in_usd(load(path))), self._own, self._named)

    def with_prices(self, prices: Mapping[str, Mapping[str, str | float | Decimal]], layer: str = "code") -> PriceBook:
        """A book with prices of your own over this one's.

        ``prices`` maps "provider/model" to meter to USD per million units:
        ``{"openai/gpt-4.1": {"input": "1.80", "output": "7.20"}}``. A price given here is what that meter costs,
        whatever the date, the service tier, the region and the length of the prompt; what is not given stays as the
        book has it. The model ``*`` stands for every model that the book does not have, the provider ``*`` for every
        provider; such costs are ``estimated``, with the flag ``fallback_price``. ``layer`` is what costs name as the
        origin. Raises `BookError` for an unknown meter or a price that is not a number.
        """
        own = {provider: dict(models) for provider, models in self._own.items()}
        for name, rates in prices.items():
            provider, slash, model = name.partition("/")
            if not (provider and slash and model):
                raise BookError(f"{name!r}: prices are named provider/model")
            mine = own.setdefault(self._library.canonical(provider) or folded(provider), {})
            before = mine[folded(model)].rates if folded(model) in mine else {}
            given = {meter: _own_rate(name, meter, price) for meter, price in rates.items()}
            mine[folded(model)] = OwnPrices({**before, **given}, layer)
        return PriceBook(self._library, own, self._named)

    def with_names(self, names: Mapping[str, str]) -> PriceBook:
        """A book that knows what your own names mean: deployments, inference profiles, models behind a gateway.

        ``{"azure/prod-chat": "gpt-4o", "aws.bedrock/arn:...": "anthropic.claude-sonnet-4-5"}``; a model of another
        provider has its name before it, ``openai/gpt-4o``. Raises `BookError` for a target that the book does not know.
        """
        known = dict(self._named)
        for name, model in names.items():
            provider, slash, raw = name.partition("/")
            if not (provider and slash and raw and model):
                raise BookError(f"{name!r}: names are given as provider/name and the model that they mean")
            known[self._library.canonical(provider) or folded(provider), folded(raw)] = model
        book = PriceBook(self._library, self._own, known)
        for name in names:
            provider, _, raw = name.partition("/")
            if book.match(provider, raw) is None:
                raise BookError(f"{name!r} is said to mean {names[name]!r}, which the book does not know")
        return book

    def _find(self, provider: str, model: str, tier: str | None, geo: str | None) -> _Found | None:
        match = self.match(provider, model)
        history = None if match is None else self._history(match, model, tier, geo)
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        found = None if history is None else (*history.newest, history, history.newest[0] <= time_ns())
        self._seen[provider, model, tier, geo] = found
        return found

    def _history(self, match: Match, raw: str, tier: str | None, geo: str | None) -> History | None:
        own = self.own(match, raw)
        shelf = self._library.shelf(match.provider)
        if shelf is not None and match.rule != "own" and (match.model != ANY or own is None):
            return shelf.history(match, tier or "", geo or "", own, self.version)
        if own is None:
            return None
        card = RateCard(
            provider=match.provider,
            model=match.model,
            tier=tier or "standard",
            rates=own.rates,
            flags=("fallback_price",) if match.model == ANY else (),
            book=self.version,
            layer=own.layer,
        )
        return History([(*ALWAYS, card)])


_bundled: PriceBook | None = None


def _own_rate(model: str, meter: str, price: object) -> Rate:
    from decimal import Decimal

    if meter not in METERS:
        raise BookError(f"{model}: unknown meter {meter!r}; known are {', '.join(METERS)}")
    # repr of a float is the shortest decimal that means it: 0.1 is one tenth, as its writer meant.
    number = isinstance(price, (int, float, Decimal)) and not isinstance(price, bool)
    text = format(Decimal(str(price)), "f") if number else str(price)
    try:
        written: dict[str, Any] = {"usd": text, "per": 1_000_000}
        return parse_rate(meter, written)
    except ValueError:
        raise BookError(f"{model}, {meter}: a price is USD per million, such as '2.50', not {price!r}") from None
