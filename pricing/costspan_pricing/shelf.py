"""Price files on their shelves: which model a raw name means, and which card holds for it when."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from os.path import join
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_pricing.card import Rate, RateCard, parse_rate
from costspan_pricing.meters import METERS
from costspan_pricing.timeline import ALWAYS, BookError, cut, layered, nanoseconds, patched, spans, windows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from costspan_pricing.timeline import Window

ANY: Final = "*"
"""The model that stands for every model which a provider does not list."""

STANDARD: Final = frozenset(("", "standard", "default", "auto", "on_demand", "standard_only", "unspecified"))
"""Words for the standard service tier."""
TIER_ALIASES: Final = {"batches": "batch", "on_demand_flex": "flex", "on_demand_priority": "priority"}
"""Other words for a service tier -> the book's."""

EVERYWHERE: Final = frozenset(("", "global"))
"""Words of a region that name none."""

VERSION: Final = re.compile(
    r"(?:(?:[-@](?:\d{8}|\d{4}-\d\d-\d\d|\d\d-\d\d|\d\d-\d{4}|\d{4}|\d{3}|latest)|@default)(?:-v\d+:\d+(?::\w+)?)?"
    r"|-v\d+:\d+(?::\w+)?|:\d+)$"
)
"""What a provider may append to a name of the book when the book says that versions of it cost the same: a date or a
number, and on Bedrock a revision and a context length (-20250929-v1:0, -v1:0:200k)."""


class Match(NamedTuple):
    """Which model of the book a raw name means, and by which rule.

    ``provider`` and ``model`` are the book's. ``rule`` is one of ``listed`` (the name itself, or one listed beside it),
    ``version``, ``path``, ``prefix``, ``suffix``, ``inherited`` (another provider's model sold here), ``free`` (of a
    provider that charges nothing), ``fallback`` (a price for whatever is not listed) and ``own`` (a price of yours).
    """

    provider: str
    model: str
    rule: str


class OwnPrices(NamedTuple):
    """Prices of a model that hold whatever the date, tier and length of the prompt."""

    rates: Mapping[str, Rate]
    layer: str


class Period(NamedTuple):
    """A stretch of time with its rates: ``start`` included, ``end`` not, in unix nanoseconds; None where it is open."""

    start: int | None
    end: int | None
    card: RateCard | None
    """None in a gap, for which nobody published a price."""
    windows: tuple[RateCard, ...] = ()
    """The cards of hours of the week at which other rates hold; each has a ``window``."""
    hours: tuple[tuple[Window, RateCard], ...] = ()
    """When they hold: the first of them that does."""


class History:
    """The cards of one model in one tier and region, by the instant from which they hold."""

    __slots__ = ("ends", "entries", "newest", "starts")

    newest: tuple[int, RateCard]
    """A card, and the instant from which on it is the one that holds for ever: at no time if it depends on the hour."""

    def __init__(self, periods: Sequence[tuple[int, int, RateCard | Hours | None]]) -> None:
        """``periods`` are (start, end, what holds), in order; None is a gap without a price."""
        self.starts = tuple(start for start, _, _ in periods)
        self.ends = tuple(end for _, end, _ in periods)
        self.entries = tuple(entry for _, _, entry in periods)
        start, end, last = periods[-1]
        if isinstance(last, RateCard) and end == ALWAYS[1]:
            self.newest = start, last
        else:
            known = next(entry for entry in reversed(self.entries) if entry is not None)
            self.newest = ALWAYS[1], known if isinstance(known, RateCard) else known.otherwise

    def at(self, at_ns: int) -> RateCard | None:
        """The card that holds at an instant (unix nanoseconds); None where none does."""
        position = bisect_right(self.starts, at_ns) - 1
        if position < 0 or at_ns >= self.ends[position]:
            return None
        entry = self.entries[position]
        return entry.at(at_ns) if isinstance(entry, Hours) else entry

    @property
    def periods(self) -> tuple[Period, ...]:
        """All of it, in order."""
        return tuple(
            Period(
                None if start == ALWAYS[0] else start,
                None if end == ALWAYS[1] else end,
                entry.otherwise if isinstance(entry, Hours) else entry,
                tuple(dict.fromkeys(card for _, card in entry.cards)) if isinstance(entry, Hours) else (),
                entry.cards if isinstance(entry, Hours) else (),
            )
            for start, end, entry in zip(self.starts, self.ends, self.entries, strict=True)
        )


class Hours:
    """A period whose rates depend on the hour of the week."""

    __slots__ = ("_last", "cards", "otherwise")

    def __init__(self, otherwise: RateCard, cards: Sequence[tuple[Window, RateCard]]) -> None:
        self.otherwise = otherwise
        self.cards = tuple(cards)
        self._last: tuple[int, RateCard] = (-1, otherwise)

    def at(self, at_ns: int) -> RateCard:
        """The card of the hour. The last minute's is kept: calls come in the order of time."""
        minute = at_ns // 60_000_000_000
        known, card = self._last
        if minute != known:
            card = next((card for window, card in self.cards if window.holds(at_ns)), self.otherwise)
            self._last = minute, card
        return card


class Library:
    """All price files: the folder that comes with the package, read a provider at a time, and books laid over it."""

    def __init__(
        self,
        folder: str | PathLike[str],
        documents: Sequence[tuple[str, Mapping[str, Any]]] = (),
        version: str | None = None,
    ) -> None:
        """``documents`` are (name of the layer, book of several providers), the lowest first.

        ``version`` is that of the whole, by default the folder's.
        """
        self.folder = folder
        self.documents = tuple(documents)
        self._index: dict[str, Any] | None = None
        self._names: dict[str, str] = {}
        self._shelves: dict[str, Shelf | None] = {}
        self._version = version

    def over(self, layer: str, document: Mapping[str, Any]) -> Library:
        """The same files, and over them a book of several providers."""
        version = str(document.get("book_version", ""))
        if layer != "downloaded" or not version:
            import hashlib

            # A file may change without anybody giving it another version.
            digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]
            version = f"{self.version}+{layer}.{digest}"
        return Library(self.folder, (*self.documents, (layer, document)), version)

    @property
    def version(self) -> str:
        """The version of the newest book among the layers, and what was laid over it."""
        return self._version or str(self._load()["book_version"])

    @property
    def dated(self) -> int:
        """When the newest figure was checked, in unix seconds."""
        dates = [self._load()["dated"], *(document["dated"] for _, document in self.documents if "dated" in document)]
        return max(map(nanoseconds, dates)) // 10**9

    def _read(self, file: str) -> dict[str, Any]:
        with open(join(self.folder, file), encoding="utf-8") as opened:  # noqa: PTH118, PTH123  see DATA
            found: dict[str, Any] = json.load(opened)
        return found

    def _load(self) -> dict[str, Any]:
        index = self._index
        if index is None:
            index = self._read("index.json")
            names: dict[str, str] = {}
            for provider, entry in index["providers"].items():
                names.update((folded(alias), provider) for alias in (provider, *entry.get("aliases", ())))
            for _, document in self.documents:
                for provider, files in document["providers"].items():
                    known = names.setdefault(folded(provider), provider)
                    for file in _listed(files):
                        names.update((folded(alias), known) for alias in file.get("aliases", ()))
            self._names = names
            self._index = index
        return index

    @property
    def providers(self) -> tuple[str, ...]:
        """The book's names of all providers."""
        self._load()
        return tuple(sorted(set(self._names.values())))

    def canonical(self, provider: str) -> str | None:
        """The book's name of a provider, or ``None``."""
        self._load()
        return self._names.get(folded(provider))

    def aliases(self, provider: str) -> set[str]:
        """All names of a provider of the book."""
        self._load()
        return {alias for alias, known in self._names.items() if known == provider}

    def routed(self, provider: str, model: str) -> tuple[str, str]:
        """Provider and model with a routing prefix taken off: LiteLLM writes openai/gpt-4.1."""
        known = self.canonical(provider)
        prefix, slash, rest = model.partition("/")
        if not slash or known is None:
            return known or folded(provider), model
        shelf = self.shelf(known)
        routes = shelf.routes if shelf is not None else {}
        named = self.canonical(routes.get(f"{folded(prefix)}/", prefix))
        if named is None or not (named == known or ANY in routes or f"{folded(prefix)}/" in routes):
            return known, model
        # Perplexity sells perplexity/sonar beside sonar, at another price.
        whole = named == known and shelf is not None and shelf.lists(model)
        return (known, model) if whole else (named, rest)

    def shelf(self, provider: str) -> Shelf | None:
        """The shelf of a provider of the book."""
        if provider not in self._shelves:
            entry = self._load()["providers"].get(provider, {})
            layers: list[dict[str, Any]] = [self._read(file) for file in entry.get("files", ())]
            for layer, document in self.documents:
                for name, files in document["providers"].items():
                    if self._names.get(folded(name)) == provider:
                        layers += ({**file, "layer": layer} for file in _listed(files))
            self._shelves[provider] = Shelf(provider, layers, self) if layers else None
        return self._shelves[provider]


class Shelf:
    """One provider: its models by every name they go by, and their periods over all layers."""

    def __init__(self, provider: str, layers: list[dict[str, Any]], library: Library) -> None:
        self.provider = provider
        self.layers = layers
        self._library = library
        self._exact: dict[str, str] = {}
        self._versioned: dict[str, str] = {}
        self._prefixes: dict[str, list[str]] = {}
        self._suffixes: dict[str, str] = {}
        self._inherits: list[str] = []
        self._multipliers: list[dict[str, Any]] = []
        self.routes: dict[str, str] = {}
        """Prefix of a model's name -> the provider it leads to; ``*`` is there if the prefix is the provider's name."""
        self.free = False
        """Whether the provider charges nothing."""
        self._free_endings: tuple[str, ...] = ()
        self._free_source = ""
        self._charged_tiers: set[str] = set()
        for layer in layers:
            for model, entry in layer.get("models", {}).items():
                self._exact[folded(model)] = model
                for name in entry.get("names", ()):
                    self._exact[folded(name)] = model
                for name in entry.get("versions_of", ()):
                    self._versioned[folded(name)] = model
            self._prefixes |= layer.get("prefixes", {})
            self._suffixes |= layer.get("suffixes", {})
            self._inherits += (other for other in layer.get("inherits", ()) if other not in self._inherits)
            self._multipliers += layer.get("multipliers", ())
            routes = layer.get("routes", {})
            self.routes |= {ANY: ANY} if routes is True else routes
            if free := layer.get("free"):
                self.free = self.free or free is True
                self._free_endings += () if free is True else tuple(free)
                self._free_source = layer.get("source", "")
            self._charged_tiers |= set(layer.get("charged_tiers", ()))
        self._exact.pop(ANY, None)

    @property
    def models(self) -> tuple[str, ...]:
        """The book's names of the models listed here."""
        return tuple(sorted(set(self._exact.values())))

    def lists(self, raw: str) -> bool:
        """Whether a raw name is listed just as it is, or with a version behind it."""
        return self._listed(folded(raw)) is not None

    def find(self, raw: str) -> Match | None:
        """The model that a raw name means here."""
        for name, rule in self._spellings(raw):
            if (found := self._listed(name)) is not None:
                return Match(self.provider, found[0], found[1] if rule == "listed" else rule)
        for other in self._inherits:
            shelf = self._library.shelf(other)
            for name, _ in self._spellings(raw):
                if shelf is not None and (found := shelf._listed(name)) is not None:
                    return Match(self.provider, found[0], "inherited")
        if folded(raw).endswith(self._free_endings):
            return Match(self.provider, folded(raw), "free")
        if any(ANY in layer.get("models", {}) for layer in self.layers):
            return Match(self.provider, ANY, "fallback")
        return Match(self.provider, folded(raw), "free") if self.free else None

    def _listed(self, name: str) -> tuple[str, str] | None:
        """The model of a name that is listed as it is, or that is a listed name with a version behind it."""
        if (model := self._exact.get(name)) is not None:
            return model, "listed"
        if (version := VERSION.search(name)) is not None:
            model = self._versioned.get(name[: version.start()])
            if model is not None:
                return model, "version"
        return None

    def _spellings(self, raw: str) -> Iterator[tuple[str, str]]:
        """What a raw name may be listed as, the likeliest first, and the rule that says so."""
        name = folded(raw)
        yield name, "listed"
        bare = _bare(name)
        if bare != name:
            yield bare, "path"
        prefix, slash, rest = bare.partition("/")
        names = [bare]
        if slash and self._library.canonical(prefix):
            # Vertex serves anthropic/claude-opus-4-1, and lists it itself.
            names.append(rest)
            yield rest, "path"
        for name in tuple(names):
            for ending in sorted(self._suffixes, key=len, reverse=True):
                if name.endswith(ending):
                    names.append(name[: -len(ending)] + self._suffixes[ending])
                    yield names[-1], "suffix"
        for name in names:
            for beginning in sorted(self._prefixes, key=len, reverse=True):
                if name.startswith(beginning):
                    for replacement in self._prefixes[beginning]:
                        yield replacement + name[len(beginning) :], "prefix"

    def history(self, match: Match, tier: str, geo: str, own: OwnPrices | None, book: str) -> History | None:
        """Every card of a matched model; None if there is no price at any time."""
        tier, geo = _served(tier), geo.lower()
        if match.rule == "free":
            if tier in self._charged_tiers:
                return None
            card = self._free_card(match.model, own, book)
            return History([(*ALWAYS, card)])
        sheaf = self._sheaf(match.model)
        released = str(sheaf.facts.get("released", ""))
        multipliers = [m for m in self._multipliers if _applies(m, match.model, geo, released)]
        instants = [nanoseconds(m[end]) for m in multipliers for end in ("from", "to") if m.get(end)]
        entries: list[tuple[int, int, RateCard | Hours | None]] = []
        for period in cut(sheaf.timeline, instants):
            start, end = period["from_ns"], period["to_ns"]
            if period.get("unpriced"):
                entries.append((start, end, None))
                continue
            held = [m for m in multipliers if _holds(m, start)]
            card = self._card(match, period, tier, held, sheaf, own, book)
            windows: list[tuple[Window, RateCard]] = []
            for written in period.get("windows", ()):
                inside = self._card(
                    match, patched(period, written), tier, held, sheaf, own, book, written.get("name", "window")
                )
                windows += ((window, inside) for window in windows_of(written, self._place(match.model, period)))
            entries.append((start, end, Hours(card, windows) if windows else card))
        return History(entries) if any(entry is not None for _, _, entry in entries) else None

    def timeline(self, model: str) -> list[dict[str, Any]]:
        """The periods of a model over all layers, in order: for those who show them."""
        return self._sheaf(model).timeline

    def _free_card(self, model: str, own: OwnPrices | None, book: str) -> RateCard:
        return RateCard(
            provider=self.provider,
            model=model,
            tier="standard",
            rates={} if own is None else own.rates,
            free=True,
            book=book,
            layer=self.layers[-1]["layer"] if own is None else own.layer,
            source=self._free_source,
        )

    def _place(self, model: str, period: Mapping[str, Any]) -> str:
        return f"{self.provider}/{model}, period from {period.get('from', 'the beginning')}"

    def _sheaf(self, model: str) -> _Sheaf:
        """All that the layers say of a model, on top of what the provider says that it inherits from."""
        sheaf = _Sheaf([], {}, {}, [])
        for other in self._inherits:
            shelf = self._library.shelf(other)
            found = shelf._listed(folded(model)) if shelf is not None else None
            if shelf is not None and found is not None:
                sheaf = shelf._sheaf(found[0])
                break
        timeline, facts, fallback, fees = sheaf
        for layer in self.layers:
            fees = [*fees, *(fee for fee in layer.get("fees", ()) if _meant(fee, model))]
            entry = layer.get("models", {}).get(model)
            if entry is not None:
                fallback = {**fallback, **layer.get("fallback", {}), **entry.get("fallback", {})}
                facts = {**facts, **entry}
                written = [{"free": True, **period} for period in entry.get("periods", ())] if self.free else None
                upper = spans(written or entry.get("periods", ()), layer["layer"], f"{self.provider}/{model}")
                timeline = layered(timeline, upper)
        return _Sheaf(timeline, facts, fallback, fees)

    def _card(
        self,
        match: Match,
        period: Mapping[str, Any],
        tier: str,
        multipliers: Sequence[Mapping[str, Any]],
        sheaf: _Sheaf,
        own: OwnPrices | None,
        book: str,
        window: str = "",
    ) -> RateCard:
        rates: dict[str, Any] = {}
        for fee in sheaf.fees:
            rates |= fee["rates"]
        rates |= period.get("rates", {})
        served: Mapping[str, Any] = period
        flags: tuple[str, ...] = ()
        if tier:
            if tier in period.get("tiers", {}):
                served = period["tiers"][tier]
                rates = _under(rates, served.get("rates", {}))
            elif not period.get("free"):
                flags = ("tier_unpriced",)
        if match.rule == "fallback" and not self.free:
            flags = (*flags, "fallback_price")
        fallback = {**sheaf.fallback, **period.get("fallback", {})}
        own_rates = {} if own is None else own.rates
        tokens, others = _factor(multipliers), _factor([m for m in multipliers if m.get("scope") == "all"])

        def compiled(prices: Mapping[str, Any]) -> dict[str, Rate]:
            ready: dict[str, Rate] = {}
            for meter, price in prices.items():
                try:
                    ready[meter] = parse_rate(meter, price, tokens if _is_token(meter) else others)
                except (ValueError, TypeError, KeyError) as error:
                    raise BookError(f"{self._place(match.model, period)}: {error}") from None
            ready |= own_rates
            for meter, other in fallback.items():
                if meter not in ready and other in ready:
                    ready[meter] = ready[other]
            return ready

        return RateCard(
            provider=self.provider,
            model=match.model,
            tier="standard" if "tier_unpriced" in flags or not tier else tier,
            rates=compiled(rates),
            context_tiers=[
                (longer["over"] - (longer.get("cmp") == "gte"), compiled(_under(rates, longer["rates"])))
                for longer in served.get("context_tiers", ())
            ],
            free=bool(period.get("free")),
            flags=flags,
            book=book,
            layer=own.layer if own is not None else period["layer"],
            source=period.get("source", ""),
            multipliers=tuple(m["id"] for m in multipliers),
            window=window,
        )


class _Sheaf(NamedTuple):
    """What the layers say of one model, put together."""

    timeline: list[dict[str, Any]]
    facts: dict[str, Any]
    fallback: dict[str, str]
    fees: list[dict[str, Any]]


def folded(name: str) -> str:
    """A name as it is looked up: without the space around it, in lower case."""
    return name.strip().lower()


def in_usd(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document whose prices are in another currency as the same in USD: its periods cut where the rate changes.

    The result of a multiplication is exact. Raises ``BookError`` where no rate holds for a period.
    """
    currency = document.get("currency")
    if not isinstance(currency, dict):
        return document
    rates = sorted(currency["usd"], key=lambda rate: nanoseconds(rate["from"]) if rate.get("from") else ALWAYS[0])
    starts = [nanoseconds(rate["from"]) if rate.get("from") else ALWAYS[0] for rate in rates]

    def exchanged(model: str, periods: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        for period in periods:
            start = nanoseconds(period["from"]) if period.get("from") else ALWAYS[0]
            end = nanoseconds(period["to"]) if period.get("to") else ALWAYS[1]
            if bisect_right(starts, start) == 0:
                raise BookError(
                    f"{model}, period from {period.get('from', 'the beginning')}: currency.usd has no rate of "
                    f"{currency['code']} for its first day; the first is from {rates[0].get('from')}"
                )
            for position in range(bisect_right(starts, start) - 1, len(rates)):
                if starts[position] < end:
                    part = _exchanged(period, rates[position]["rate"])
                    if starts[position] > start:
                        part["from"] = rates[position]["from"]
                    if position + 1 < len(rates) and starts[position + 1] < end:
                        part["to"] = rates[position + 1]["from"]
                    yield part

    def file_in_usd(file: Mapping[str, Any]) -> dict[str, Any]:
        models = {
            model: {**entry, "periods": list(exchanged(model, entry["periods"]))} if "periods" in entry else entry
            for model, entry in file.get("models", {}).items()
        }
        fees = [_exchanged(fee, rates[-1]["rate"]) for fee in file.get("fees", ())]
        return {**file, "models": models, "fees": fees}

    providers = {name: [file_in_usd(file) for file in _listed(files)] for name, files in document["providers"].items()}
    return {**{key: value for key, value in document.items() if key != "currency"}, "providers": providers}


def _exchanged(written: Mapping[str, Any], rate: str) -> dict[str, Any]:
    """The same prices times a rate of exchange, wherever they stand."""
    from decimal import Decimal, localcontext

    def price(amount: str) -> str:
        with localcontext() as context:
            context.prec = 60
            return format(Decimal(amount) * Decimal(rate), "f")

    new = dict(written)
    if "rates" in written:
        new["rates"] = {
            meter: price(given) if isinstance(given, str) else {**given, "usd": price(given["usd"])}
            for meter, given in written["rates"].items()
        }
    for key in ("context_tiers", "windows"):
        if key in written:
            new[key] = [_exchanged(part, rate) for part in written[key]]
    if "tiers" in written:
        new["tiers"] = {name: _exchanged(tier, rate) for name, tier in written["tiers"].items()}
    return new


def _listed(files: Mapping[str, Any] | list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return files if isinstance(files, list) else [files]


def _is_token(meter: str) -> bool:
    return meter in METERS and METERS[meter].unit == "token"


def _under(fees: Mapping[str, Any], rates: Mapping[str, Any]) -> dict[str, Any]:
    """Rates of a tier over the standard fees: it lists all its token rates, while searches cost the same in it."""
    return {**{meter: price for meter, price in fees.items() if not _is_token(meter)}, **rates}


def _applies(multiplier: Mapping[str, Any], model: str, geo: str, released: str) -> bool:
    """Whether a multiplier is for this model and this region, whenever."""
    regions = multiplier.get("geo")
    if regions is not None and geo not in regions and (ANY not in regions or geo in EVERYWHERE):
        return False
    since = multiplier.get("released_from", "")
    return _meant(multiplier, model) and (not since or released >= since)


def _meant(written: Mapping[str, Any], model: str) -> bool:
    """Whether what is written holds for this model: for all, if it names none."""
    patterns = written.get("models")
    return patterns is None or any(
        model.startswith(pattern[:-1]) if pattern.endswith(ANY) else model == pattern for pattern in patterns
    )


def _holds(multiplier: Mapping[str, Any], start: int) -> bool:
    """Whether it holds in a period that begins at ``start`` and that none of its own dates divides."""
    since, until = multiplier.get("from"), multiplier.get("to")
    return (not since or nanoseconds(since) <= start) and (not until or start < nanoseconds(until))


def _factor(multipliers: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Their product, as a fraction."""
    numerator, denominator = 1, 1
    for multiplier in multipliers:
        head, _, tail = multiplier["factor"].partition(".")
        numerator *= int(head + tail)
        denominator *= 10 ** len(tail)
    return numerator, denominator


def _served(tier: str) -> str:
    """The canonical word of a service tier; empty for the standard one."""
    word = tier.strip().lower().replace("-", "_")
    word = TIER_ALIASES.get(word, word)
    return "" if word in STANDARD else word


def _bare(name: str) -> str:
    """A model name without what surrounds it in some APIs: resource paths, and the owner and suffix of a fine-tune."""
    if name.startswith("arn:"):
        # arn:aws:bedrock:<region>:<account>:<kind>/<name>; the profile of an application names nothing others know.
        kind, _, last = name.split(":", 5)[-1].partition("/")
        return last if kind in {"foundation-model", "inference-profile"} else name
    if "models/" in name:
        name = name.rpartition("models/")[2]
    if name.startswith("ft:"):
        # ft:<base>:<organisation>:<suffix>:<id>; the price hangs on the base, and never is the base's own.
        return ":".join(name.split(":", 2)[:2])
    base, tuned, _ = name.partition(".ft-")
    return f"ft:{base}" if tuned else name
