"""Convert the installed genai-prices package (MIT) to the price files of costspan.

    python pricing/tools/convert_genai_prices.py --all
    python pricing/tools/convert_genai_prices.py openai anthropic google
    python pricing/tools/convert_genai_prices.py --index  # the list of all files, after an edit by hand

A tool for development; nothing at run time needs genai-prices. It writes one JSON file a provider, `index.json` and
the licence notice. Run again, it changes nothing unless upstream did, and never loses history: a model that upstream
dropped stays, what we have of the past stays, and where upstream changed a price in place, the old one is closed at the
day of the run and the new one appended ("observed": true).

What it decides, because the two formats differ:

* A prefix or substring clause becomes the name itself plus dated versions of it. Upstream's `gemini-2.5-pro*` would
  give a later, longer name the price of the shorter one.
* Upstream dates service-tier rates by the day it verified them. They are taken as valid since the model's release;
  where the standard rate changed meanwhile, the tier keeps its proportion to it.
* Upstream prices what a model has no rate for at the rate of the containing unit, audio as text included. Here the few
  fallbacks that providers document are written out, for the whole file where all its models share them, and audio is
  never among them unless the list price says that audio costs what text costs.
* Upstream writes no prices both for a model that is free and for one whose price it does not know. It is free here if
  its name or upstream's comment says so, or if we know it; all others are marked as unpriced.
* Hugging Face's router takes "model:host". Upstream has a provider for each host; `huggingface` is all of them in one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import re
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genai_prices.data
from genai_prices import types as upstream

from costspan_pricing.meters import METERS as BOOK_METERS

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parents[1] / "costspan_pricing" / "data"
ALIASES = Path(__file__).with_name("provider_aliases.json")
PACKAGE = "genai-prices"
URL = "https://github.com/pydantic/genai-prices"

METERS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cache_read_audio",
    "output_audio_mtok": "output_audio",
    "input_image_mtok": "input_image",
    "cache_image_read_mtok": "cache_read_image",
    "output_image_mtok": "output_image",
    "input_video_mtok": "input_video",
    "cache_video_read_mtok": "cache_read_video",
    "output_video_mtok": "output_video",
    "output_reasoning_mtok": "output_reasoning",
    "output_citation_mtok": "output_citation",
    "input_mchars": "characters",
    "audio_hours": "audio_seconds",
    "input_audio_hours": "audio_seconds",
    "output_audio_hours": "output_audio_seconds",
    "input_gpixels": "pixels",
    "input_document_kpages": "pages",
    "input_annotated_document_kpages": "annotated_pages",
    "input_text_messages_kcount": "messages",
    "rerank_searches_kcount": "rerank_searches",
    "web_searches_kcount": "web_searches",
    "social_searches_kcount": "social_searches",
    "storage_searches_kcount": "file_searches",
    "code_executions_kcount": "code_executions",
    "requests_kcount": "requests",
}
"""Upstream's price keys as meters of ours; their quantities are the same, so the figures carry over as they are."""

FREE = {
    ("google", "gemma-3"),
    ("google", "gemma-3n"),
    ("openai", "moderation"),
    ("openrouter", "gemini-2.5-pro-exp-03-25"),
    ("openrouter", "google/gemini-flash-1.5-8b-exp"),
    ("openrouter", "stealth/crouton-alpha"),
}
"""Free, though upstream does not say so in words: it lists them without a price, as it does what it cannot price."""

SAID_FREE = re.compile(r"free of charge|included in the subscription", re.IGNORECASE)
FREE_OUTPUT = re.compile(r"output (?:tokens are |is )?free|input[- ]only", re.IGNORECASE)
CHECKED = re.compile(r"(?:checked|verified)(?: on| against \S+ on)? (20\d\d-\d\d-\d\d)")

CONDITIONS = {"processing", "service_tier", "speed"}
"""Upstream's conditions that are a service tier. Others (which route, which kind of search) no response tells."""

EMBEDS = re.compile(r"embed|bge-|gte-|rerank|ada|babbage|curie|davinci|distilbert|voyage")
"""Models that give no text. Those that read images ask another price for them."""

HOSTS = "huggingface_"
REGIONS = re.compile(r"(?:us|eu|apac|au|jp|in|ca|us-gov)\.")
"""How Bedrock begins a name that stays in a region. The overlay of aws says what these mean, once for all models."""

VERSION = re.compile(r"[-@](?:20\d\d-?)?$")
"""What is left of a version at the end of one of upstream's prefixes."""

GROUNDED_BY_PROMPT = re.compile(r"^gemini-(?:[12]|flash-1|pro-1|live-2)")
LITERAL = r"((?:[^\\^$.*+?()\[\]{}|]|\\[^a-zA-Z])+)"
"""A stretch of a regular expression that means itself."""


def main() -> None:
    """Convert the providers named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", nargs="*")
    parser.add_argument("--all", action="store_true", help="every provider of the installed package")
    parser.add_argument("--index", action="store_true", help="rewrite index.json alone")
    arguments = parser.parse_args()
    if not (arguments.provider or arguments.all or arguments.index):
        parser.error("name a provider, or --all, or --index")
    known = {provider.id for provider in genai_prices.data.providers}
    if missing := set(arguments.provider) - known:
        sys.exit(f"{PACKAGE} has no provider {', '.join(sorted(missing))}")
    try:
        convert(DATA, known if arguments.all else set(arguments.provider), datetime.now(UTC).date())
    except ValueError as error:
        sys.exit(str(error))


def convert(folder: Path, chosen: set[str], today: date) -> None:
    """Write the files of the chosen providers into a folder that may hold earlier ones, and its index.

    Raises ``ValueError`` if two models of a provider, or two providers, claim the same name.
    """
    for provider in genai_prices.data.providers:
        if provider.id in chosen:
            path = folder / f"{provider.id}.json"
            before = _spread(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
            _write(path, converted(provider, before, today))
    if any(name.startswith(HOSTS) for name in chosen):
        files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{HOSTS}*.json"))]
        _write(folder / "huggingface.json", of_all_hosts(files))
    _write(folder / "index.json", index(folder, today))
    if chosen:
        _write_notice(folder)


def converted(provider: upstream.Provider, before: dict[str, Any], today: date) -> dict[str, Any]:
    """A provider's file; ``before`` are the models of the file as it was, each with all its fallbacks."""
    models: dict[str, Any] = {}
    for model in provider.models:
        entry = _model(provider, model)
        if model.id in before:
            entry["periods"] = continued(before[model.id]["periods"], entry["periods"], today)
        models[model.id] = entry
    models |= {name: entry for name, entry in before.items() if name not in models}
    _check_names(provider.id, models)
    return _file(provider.id, models)


def of_all_hosts(files: list[dict[str, Any]]) -> dict[str, Any]:
    """One file for the router from those of its hosts: names carry the host, as calls do."""
    models: dict[str, Any] = {}
    for file in files:
        host = file["provider"].removeprefix(HOSTS)
        for model, entry in _spread(file).items():
            own = f"{model}:{host}"
            # LiteLLM puts the host before the name.
            names = {
                spelling
                for name in (model.lower(), *entry.get("names", ()))
                for spelling in (f"{name}:{host}", f"{host}/{name}")
            }
            models[own] = {**entry, "names": sorted(names - {own})}
    _check_names("huggingface", models)
    return _file("huggingface", models)


def _file(provider: str, models: dict[str, Any]) -> dict[str, Any]:
    aliases = json.loads(ALIASES.read_text(encoding="utf-8")).get(provider, [])
    shared = _shared(models.values())
    for model, entry in models.items():
        own = {meter: other for meter, other in entry.get("fallback", {}).items() if shared.get(meter) != other}
        models[model] = {key: value for key, value in {**entry, "fallback": own}.items() if value}
    file: dict[str, Any] = {
        "schema_version": 1,
        "layer": "bundled",
        "provider": provider,
        "from": {
            "name": PACKAGE,
            "version": importlib.metadata.version(PACKAGE),
            "url": URL,
            "licence": "MIT",
            "sha256": hashlib.sha256(Path(genai_prices.data.__file__).read_bytes()).hexdigest(),
        },
        "aliases": sorted(aliases),
        "fallback": shared,
    }
    return {key: value for key, value in file.items() if value} | {"models": dict(sorted(models.items()))}


def _shared(entries: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The fallbacks that can stand once for the whole file, since no model would be priced otherwise by them."""
    entries = list(entries)
    wanted = [entry.get("fallback", {}) for entry in entries]
    chained = {meter for fallback in wanted for meter in fallback}
    every = dict.fromkeys(pair for fallback in wanted for pair in fallback.items() if pair[1] not in chained)

    def harmless(entry: dict[str, Any], meter: str, other: str) -> bool:
        listed = [set(period["rates"]) for period in entry["periods"] if "rates" in period]
        return entry.get("fallback", {}).get(meter) == other or (
            meter not in entry.get("fallback", {}) and all(meter in rates or other not in rates for rates in listed)
        )

    return {meter: other for meter, other in every if all(harmless(entry, meter, other) for entry in entries)}


def _spread(file: dict[str, Any]) -> dict[str, Any]:
    """The models of a file, each with the fallbacks that the file has for all."""
    shared = file.get("fallback", {})
    return {
        model: {**entry, "fallback": {**shared, **entry.get("fallback", {})}} for model, entry in file["models"].items()
    }


def _check_names(provider: str, models: dict[str, Any]) -> None:
    for kind in ("names", "versions_of"):
        owners: dict[str, str] = {}
        for model, entry in models.items():
            for name in {*entry.get(kind, ()), *([model.lower()] if kind == "names" else ())}:
                if owners.setdefault(name, model) != model:
                    raise ValueError(f"{provider}: {model} and {owners[name]} both go by the name {name}")


def continued(before: list[dict[str, Any]], now: list[dict[str, Any]], today: date) -> list[dict[str, Any]]:
    """History plus what is new: a price changed upstream without a date holds from the day that we saw it.

    What we have of the past stays, whatever upstream says of it now. What is announced is upstream's to change.
    """
    first = f"{today.isoformat()}T00:00:00Z"
    # What an earlier run of today saw is no history yet.
    past = [period for period in before if period.get("from", "") < first]
    begun = [period for period in now if period.get("from", "") <= first]
    announced = now[len(begun) :]
    if not past or not begun or [_prices(p) for p in before] == [_prices(p) for p in now]:
        return now
    last, current = past[-1], begun[-1]
    if _prices(last) == _prices(current):
        dates = {key: last[key] for key in ("from", "observed") if key in last}
        past[-1] = dates | {key: value for key, value in current.items() if key not in {"from", "to", "observed"}}
    else:
        since = [period for period in begun if period.get("from", "") > last.get("from", "")]
        since = since or [{**current, "from": first, "observed": True}]
        past = [*past[:-1], {**last, "to": since[0]["from"]}, *since]
    past[-1].pop("to", None)
    if announced:
        past[-1]["to"] = announced[0]["from"]
    return [*past, *announced]


def _prices(period: dict[str, Any]) -> Any:
    return {key: period.get(key) for key in ("rates", "tiers", "context_tiers", "windows", "free", "unpriced")}


def _model(provider: upstream.Provider, model: upstream.ModelInfo) -> dict[str, Any]:
    names, versions = names_of(provider, model)
    periods = _periods(provider, model)
    source = _source(provider, model)
    entry: dict[str, Any] = {"names": names, "versions_of": versions}
    if "rates" in periods[-1]:
        entry["fallback"] = _fallback(provider.id, model.id, periods[-1]["rates"])
    entry["periods"] = [{**period, "source": source} for period in periods]
    if dates := CHECKED.findall(model.price_comments or ""):
        entry["periods"][-1]["checked"] = max(dates)
    return {key: value for key, value in entry.items() if value}


def names_of(provider: upstream.Provider, model: upstream.ModelInfo) -> tuple[list[str], list[str]]:
    """Exact names, and names that may carry a date, from upstream's clauses, held against its own matching."""
    names: set[str] = {model.id}
    versions: set[str] = set()

    def visit(clause: Any) -> None:
        match clause:
            case upstream.ClauseOr():
                for part in clause.or_:
                    visit(part)
            case upstream.ClauseAnd():
                for part in clause.and_:
                    visit(part)
            case upstream.ClauseEquals():
                names.add(clause.equals)
            case upstream.ClauseEndsWith():
                names.add(clause.ends_with)
            case upstream.ClauseStartsWith() | upstream.ClauseContains():
                text = clause.starts_with if isinstance(clause, upstream.ClauseStartsWith) else clause.contains
                text = VERSION.sub("", re.sub(r"-0$", "", text) if text.startswith("ft:") else text)
                names.add(text)
                # The model's own name is dated too where it is longer than the prefix (gpt-4o-mini-audio[-preview]).
                versions.update({text, *({model.id} if model.is_match(model.id) else ())})
            case upstream.ClauseRegex():
                for text in _alternatives(clause.regex):
                    if exact := re.fullmatch(LITERAL, text):
                        names.add(re.sub(r"\\(.)", r"\1", exact[1]))
                    elif dated := re.match(LITERAL + r"(?:\\d|\[-@\]\\d)", text):
                        versions.add(re.sub(r"\\(.)", r"\1", dated[1]).removesuffix("-"))

    visit(model.match)
    own = model.id.removeprefix(f"{provider.id}/")
    if _found(provider, own) is None:
        names.add(own)  # a name of this provider's is looked up without the provider before it
    if provider.id == "aws":
        # `regional.` is a word of upstream's; AWS writes the same model with its region, or without any.
        bare = model.id.removeprefix("regional.")
        names |= {name for name in (bare, bare.removesuffix(":0")) if _found(provider, name) == model.id}
        names = {name for name in names if not REGIONS.match(name)}
        versions = {name for name in versions if not REGIONS.match(name)}
    # The first model that matches is upstream's answer; a name that leads elsewhere there must not lead here.
    mine = {name.lower() for name in names if _found(provider, name) in {model.id, None}} - {model.id}
    dated = {name.lower() for name in versions if _found(provider, name) in {model.id, None}}
    return sorted(name for name in mine if not name.startswith("/") and not name.endswith((".ft-", "-"))), sorted(dated)


def _alternatives(regex: str) -> list[str]:
    r"""A regular expression without its anchors, once with and once without each optional group.

    >>> _alternatives(r"^(a/)?b-1(-\d{8})?$")
    ['b-1', 'b-1-\\d{8}', 'a/b-1', 'a/b-1-\\d{8}']
    """
    texts = [regex.removeprefix("^").removesuffix("$")]
    while any("(" in text and ")?" in text for text in texts):
        texts = [
            re.sub(r"\(([^()|]*)\)\?", r"\1" if kept else "", text, count=1) for text in texts for kept in (False, True)
        ]
    return texts


def _found(provider: upstream.Provider, name: str) -> str | None:
    found = next((m for m in provider.models if m.is_match(name)), None)
    return found.id if found else None


def _periods(provider: upstream.Provider, model: upstream.ModelInfo) -> list[dict[str, Any]]:
    conditional = model.prices if isinstance(model.prices, list) else [upstream.ConditionalPrice(prices=model.prices)]
    dated = [c for c in conditional if not isinstance(c.constraint, upstream.TimeOfDateConstraint)]
    windows = [c for c in conditional if isinstance(c.constraint, upstream.TimeOfDateConstraint)]
    starts = [
        c.constraint.start_date if isinstance(c.constraint, upstream.StartDateConstraint) else None for c in dated
    ]
    periods: list[dict[str, Any]] = []
    for position, condition in enumerate(dated):
        period: dict[str, Any] = {}
        if starts[position]:
            period["from"] = f"{starts[position]}T00:00:00Z"
        if position + 1 < len(dated):
            period["to"] = f"{starts[position + 1]}T00:00:00Z"
        prices = _keys(condition.prices)
        if prices:
            period |= _rates(provider.id, model.id, prices)
            if FREE_OUTPUT.search(model.price_comments or "") and "output" not in period["rates"]:
                period["rates"]["output"] = "0"
        elif _is_free(provider.id, model):
            period["free"] = True
        else:
            period["unpriced"] = f"{PACKAGE} has no price of it"
        tiers: dict[str, Any] = {}
        for tier in _tiers(model):
            found = _variant(model, tier, dated, position)
            if found is not None:
                rates = _rates(provider.id, model.id, found)
                rates["rates"] = {
                    m: r for m, r in rates["rates"].items() if _token(m) or period.get("rates", {}).get(m) != r
                }
                tiers[tier] = rates
        if tiers:
            period["tiers"] = tiers
        if windows:
            period["windows"] = _windows(provider.id, model.id, windows, prices)
        periods.append(period)
    return periods


def _windows(
    provider: str, model: str, windows: list[upstream.ConditionalPrice], prices: dict[str, Any]
) -> list[dict[str, Any]]:
    """The hours of the day at which other prices hold; those with the same prices are one window."""
    written: dict[str, dict[str, Any]] = {}
    for window in windows:
        limit = window.constraint
        assert isinstance(limit, upstream.TimeOfDateConstraint)
        other = _keys(window.prices)
        before, inside = (Decimal(_at(provider, model, p, 0).get("input", "0")) for p in (prices, prices | other))
        rates = _rates(provider, model, prices | other)
        entry = written.setdefault(
            json.dumps(rates), {"name": "peak" if inside > before else "off_peak", "tz": "UTC", "spans": [], **rates}
        )
        entry["spans"].append([f"{limit.start_time:%H:%M}", f"{limit.end_time:%H:%M}"])
    return list(written.values())


def _is_free(provider: str, model: upstream.ModelInfo) -> bool:
    return (
        model.id.endswith(":free")
        or (provider, model.id) in FREE
        or SAID_FREE.search(model.price_comments or "") is not None
    )


def _keys(prices: upstream.ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in prices.__dict__.items() if value is not None}


def _tier_of(variant: upstream.PriceVariant) -> str | None:
    if len(variant.when) != 1:
        return None
    ((condition, word),) = variant.when.items()
    return None if condition not in CONDITIONS or word in {"default", "standard"} else word


def _tiers(model: upstream.ModelInfo) -> list[str]:
    return list(dict.fromkeys(t for v in model.price_variants or () if (t := _tier_of(v))))


def _variant(
    model: upstream.ModelInfo, tier: str, dated: list[upstream.ConditionalPrice], position: int
) -> dict[str, Any] | None:
    """The full prices of a service tier in a period, carried back to before upstream verified them."""
    earliest = date(1, 1, 1)

    def start(condition: upstream.ConditionalPrice | upstream.PriceVariant) -> date:
        limit = condition.constraint
        return limit.start_date if isinstance(limit, upstream.StartDateConstraint) else earliest

    variants = sorted((v for v in model.price_variants or () if _tier_of(v) == tier), key=start)
    here = start(dated[position])
    prices = _keys(dated[position].prices)
    past = [v for v in variants if start(v) <= here]
    if past:
        return prices | _keys(past[-1].prices)
    variant = variants[0]
    then = _keys([c for c in dated if start(c) <= start(variant)][-1].prices)
    # A meter that had no standard rate yet, or got none since, has nothing to be in proportion to.
    shared = {key: price for key, price in _keys(variant.prices).items() if key in prices and key in then}
    alone = {key: price for key, price in _keys(variant.prices).items() if key not in prices and key not in then}
    return prices | alone | {key: _proportional(prices[key], then[key], price) for key, price in shared.items()}


def _proportional(base: Any, then: Any, tier: Any) -> Any:
    """A tier's price at the time of ``base``, given what it was when the standard price was ``then``."""
    if base == then:
        return tier
    if isinstance(tier, upstream.TieredPrices) and isinstance(base, upstream.TieredPrices):
        return upstream.TieredPrices(
            base=_proportional(base.base, then.base, tier.base),
            tiers=[
                upstream.Tier(start=new.start, price=_proportional(old.price, at.price, new.price))
                for old, at, new in zip(base.tiers, then.tiers, tier.tiers, strict=True)
            ],
        )
    if isinstance(then, upstream.TieredPrices):
        then = then.base
    if isinstance(base, upstream.TieredPrices):
        return upstream.TieredPrices(
            base=base.base * tier / then,  # pyright: ignore[reportOperatorIssue]
            tiers=[upstream.Tier(start=old.start, price=old.price * tier / then) for old in base.tiers],  # pyright: ignore[reportOperatorIssue]
        )
    return base * tier / then


def _rates(provider: str, model: str, prices: dict[str, Any]) -> dict[str, Any]:
    """Rates at every prompt length: the base, and one full list for each threshold."""
    limits = sorted({tier.start for price in prices.values() if hasattr(price, "tiers") for tier in price.tiers})
    listed: dict[str, Any] = {"rates": _at(provider, model, prices, 0)}
    if limits:
        listed["context_tiers"] = [
            {"over": limit, "rates": {m: r for m, r in _at(provider, model, prices, limit).items() if _token(m)}}
            for limit in limits
        ]
    return listed


def _at(provider: str, model: str, prices: dict[str, Any], limit: int) -> dict[str, str]:
    rates: dict[str, str] = {}
    for key, price in prices.items():
        figure = price
        if isinstance(price, upstream.TieredPrices):
            reached = [tier.price for tier in price.tiers if tier.start <= limit]
            figure = reached[-1] if reached else price.base
        meter = METERS[key]
        if meter == "web_searches" and provider == "google" and GROUNDED_BY_PROMPT.match(model):
            meter = "grounded_prompts"  # up to Gemini 2.5 the prompt is billed, from Gemini 3 on each search query
        rates[meter] = plain(figure)
        if key == "cache_write_mtok" and (provider == "openai" or (provider == "aws" and "anthropic" not in model)):
            rates["cache_write_30m"] = rates[meter]  # OpenAI's default lifetime is 30 minutes, upstream has one key
    return rates


def plain(figure: Decimal) -> str:
    """A decimal without exponent and without the noise of a price that went through a float."""
    rounded = figure.quantize(Decimal("1e-9")).normalize()
    return format(rounded, "f")


def _token(meter: str) -> bool:
    return BOOK_METERS[meter].unit == "token"


def _fallback(provider: str, model: str, rates: dict[str, str]) -> dict[str, str]:
    """What a model bills at another meter's rate, as its provider documents it."""
    wanted: dict[str, str] = {}
    if "output" in rates or not EMBEDS.search(model):
        # Every API that reads images counts their tokens into the prompt, at its one input price.
        wanted |= {"output_reasoning": "output", "input_image": "input"}
    if "output" in rates:
        if provider == "openai":
            # OpenAI shows no cached rate where cached tokens cost what others do; writes are free before GPT-5.6.
            wanted |= {"cache_read": "input", "cache_write_5m": "input", "cache_write_30m": "input"}
        if provider == "google":
            wanted["input_video"] = "input"
            if "input_audio" not in rates and not re.search(r"-image|-tts|-live|banana|claude", model):
                wanted["input_audio"] = "input"  # one price for text, image, video and audio
        if "tts" in model:
            wanted["output_audio"] = "output"
        if model.startswith("gpt-image") and "output_image" not in rates:
            wanted["output_image"] = "output"
        wanted |= {"cache_read_image": "cache_read"}
        if provider == "google":
            wanted["cache_read_video"] = "cache_read"
            if "input_audio" not in rates:
                wanted["cache_read_audio"] = "cache_read"
    if provider == "google" and "web_searches" in rates:
        wanted["grounded_prompts"] = "web_searches"
    if provider == "google" and "claude" in model:
        wanted = {"output_reasoning": "output", "input_image": "input"}
    reachable = {*rates, *wanted}
    return {meter: other for meter, other in wanted.items() if meter not in rates and other in reachable}


def _source(provider: upstream.Provider, model: upstream.ModelInfo) -> str:
    """The page that upstream's comment names for the prices, or else the provider's."""
    urls = [url.rstrip(".`") for url in re.findall(r"https://[^\s,;)\"]+", model.price_comments or "")]
    named: list[str] = [url for url in urls if not url.startswith(URL)]
    preferred = "pricing"
    if not named:
        named = list(provider.pricing_urls or [URL])
        # Google has a page for each of its two platforms, and Claude is on one of them.
        preferred = "vertex" if "claude" in model.id else ""
    return next((url for url in named if preferred in url), named[0])


def index(folder: Path, today: date) -> dict[str, Any]:
    """The list of providers with their names and files, lowest layer first.

    Raises ``ValueError`` if a name leads to two providers.
    """
    providers: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for path in sorted(path for path in (*folder.glob("*.json"), *folder.glob("overlay/*.json"))):
        if path.name == "index.json":
            continue
        file = json.loads(path.read_text(encoding="utf-8"))
        name = file["provider"]
        entry = providers.setdefault(name, {"aliases": set(), "files": []})
        entry["files"].append(path.relative_to(folder).as_posix())
        entry["aliases"] |= {*file.get("aliases", ())} - {name}
        for alias in (name, *file.get("aliases", ())):
            if owners.setdefault(alias, name) != name:
                raise ValueError(f"{path.name}: {alias} is a name of {owners[alias]} already")
    return {
        "schema_version": 1,
        "book_version": f"{today:%Y.%m.%d}",
        "dated": today.isoformat(),
        "providers": {
            name: {
                "aliases": sorted(entry["aliases"]),
                "files": sorted(entry["files"], key=lambda file: file.startswith("overlay/")),
            }
            for name, entry in sorted(providers.items())
        },
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One model a line: a change of a price is one line in the diff.
    if "models" in data:
        models = data.pop("models")
        head = json.dumps(data, indent=1, ensure_ascii=False)[:-2]
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in models.items()
        )
        text = f'{head},\n "models": {{\n{lines}\n }}\n}}\n'
    else:
        providers = data.pop("providers")
        head = json.dumps(data, indent=1)[:-2]
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in providers.items())
        text = f'{head},\n "providers": {{\n{lines}\n }}\n}}\n'
    path.write_text(text, encoding="utf-8")


def _write_notice(folder: Path) -> None:
    licence = next(
        (file for file in importlib.metadata.files(PACKAGE) or () if "licenses" in str(file) or "LICENSE" in str(file)),
        None,
    )
    text = licence.read_text() if licence else "MIT License"
    (folder / "NOTICE").write_text(
        "The price files in this folder (not those in overlay/) are converted from genai-prices\n"
        f"{importlib.metadata.version(PACKAGE)}, {URL}, which is under the following licence.\n\n{text}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
