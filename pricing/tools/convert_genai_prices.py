"""Convert the installed genai-prices package (MIT) to the price files of costspan.

    python pricing/tools/convert_genai_prices.py openai anthropic google
    python pricing/tools/convert_genai_prices.py --all

A tool for development; nothing at run time needs genai-prices. It writes one JSON file a provider, `index.json` and
the licence notice. Run again, it never loses history: a model that upstream dropped stays, and where upstream changed
a price in place, the old one is closed at the day of the run and the new one appended ("observed": true).

What it decides, because the two formats differ:

* A prefix or substring clause becomes the name itself plus dated versions of it. Upstream's `gemini-2.5-pro*` would
  give a later, longer name the price of the shorter one.
* Upstream dates service-tier rates by the day it verified them. They are taken as valid since the model's release;
  where the standard rate changed meanwhile, the tier keeps its proportion to it.
* Upstream prices what a model has no rate for at the rate of the containing unit, audio as text included. Here the few
  fallbacks that providers document are written out per model, and audio is never among them unless the list price says
  that audio costs what text costs.
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
from typing import Any

import genai_prices.data
from genai_prices import types as upstream

DATA = Path(__file__).parents[1] / "costspan_pricing" / "data"
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

PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {
        # Deployments of the same models at the same list price; data zones and regional premiums are not known yet.
        "aliases": ["azure", "azure.ai.openai", "azure_openai", "azure.openai", "az.ai.openai", "openai-responses"],
    },
    "anthropic": {"aliases": ["claude"]},
    "google": {
        "aliases": [
            *("gcp.gemini", "gcp.vertex_ai", "gcp.gen_ai", "gemini", "google_gemini", "google-genai", "google_genai"),
            *("vertex_ai", "vertexai", "google_vertex", "google-vertex", "gcp_vertex", "google-gla", "google_ai"),
        ]
    },
}
"""How upstream's providers are called here and by others. One that is not listed keeps its name."""

VERSION = re.compile(r"[-@](?:20\d\d-?)?$")
GROUNDED_BY_PROMPT = re.compile(r"^gemini-(?:[12]|flash-1|pro-1|live-2)")


def main() -> None:
    """Convert the providers named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", nargs="*")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    chosen = [p for p in genai_prices.data.providers if arguments.all or p.id in arguments.provider]
    if missing := set(arguments.provider) - {p.id for p in chosen}:
        sys.exit(f"{PACKAGE} has no provider {', '.join(sorted(missing))}")
    today = datetime.now(UTC).date()
    for provider in chosen:
        path = DATA / f"{provider.id}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
        _write(path, converted(provider, before["models"], today))
    _write(DATA / "index.json", index(today))
    _write_notice()


def converted(provider: upstream.Provider, before: dict[str, Any], today: date) -> dict[str, Any]:
    """A provider's file; ``before`` are the models of the file as it was."""
    models: dict[str, Any] = {}
    default = (provider.pricing_urls or [URL])[0]
    for model in provider.models:
        entry = _model(provider, model, default)
        if entry is None:
            continue
        if model.id in before:
            entry["periods"] = continued(before[model.id]["periods"], entry["periods"], today)
        models[model.id] = entry
    models |= {name: entry for name, entry in before.items() if name not in models}
    return {
        "schema_version": 1,
        "layer": "bundled",
        "provider": provider.id,
        "from": {
            "name": PACKAGE,
            "version": importlib.metadata.version(PACKAGE),
            "url": URL,
            "licence": "MIT",
            "sha256": hashlib.sha256(Path(genai_prices.data.__file__).read_bytes()).hexdigest(),
        },
        "models": dict(sorted(models.items())),
    }


def continued(before: list[dict[str, Any]], now: list[dict[str, Any]], today: date) -> list[dict[str, Any]]:
    """History plus what is new: a price changed upstream without a date holds from the day that we saw it."""
    if [_prices(p) for p in before] == [_prices(p) for p in now]:
        return now
    if len(now) == 1 and not now[0].get("from"):
        first = f"{today.isoformat()}T00:00:00Z"
        return [*before[:-1], {**before[-1], "to": first}, {"from": first, "observed": True, **now[0]}]
    return now


def _prices(period: dict[str, Any]) -> Any:
    return {key: period.get(key) for key in ("rates", "tiers", "context_tiers", "windows")}


def _model(provider: upstream.Provider, model: upstream.ModelInfo, default: str) -> dict[str, Any] | None:
    names, versions = names_of(provider, model)
    periods = _periods(provider, model)
    source = _source(model) or default
    entry: dict[str, Any] = {"names": names, "versions_of": versions}
    if any(period.get("rates") for period in periods):
        entry["fallback"] = _fallback(provider.id, model.id, periods[-1]["rates"])
    entry["periods"] = [{**period, "source": source} for period in periods]
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
                plain = re.match(r"\^((?:[\w-]|\\\.)+?)(?:-\\d|\[-@\]\\d)", clause.regex)
                if plain:
                    versions.add(plain[1].replace("\\.", "."))

    visit(model.match)
    # The first model that matches is upstream's answer; a name that leads elsewhere there must not lead here.
    mine = {name.lower() for name in names if _found(provider, name) in {model.id, None}}
    dated = {name.lower() for name in versions if _found(provider, name) in {model.id, None}}
    return sorted(name for name in mine if name != model.id and not name.endswith((".ft-", "-"))), sorted(dated)


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
        else:
            period["free"] = True
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
            period["windows"] = [
                {
                    "tz": "UTC",
                    "start": f"{w.constraint.start_time:%H:%M}",
                    "end": f"{w.constraint.end_time:%H:%M}",
                    **_rates(provider.id, model.id, prices | _keys(w.prices)),
                }
                for w in windows
                if isinstance(w.constraint, upstream.TimeOfDateConstraint)
            ]
        periods.append(period)
    return periods


def _keys(prices: upstream.ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in prices.__dict__.items() if value is not None}


def _tier_of(variant: upstream.PriceVariant) -> str | None:
    if len(variant.when) != 1:
        return None
    ((_, word),) = variant.when.items()
    return None if word in {"default", "standard"} else word


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
        if key == "cache_write_mtok" and provider == "openai":
            rates["cache_write_30m"] = rates[meter]  # OpenAI's default lifetime is 30 minutes, upstream has one key
    return rates


def plain(figure: Decimal) -> str:
    """A decimal without exponent and without the noise of a price that went through a float."""
    rounded = figure.quantize(Decimal("1e-9")).normalize()
    return format(rounded, "f")


def _token(meter: str) -> bool:
    return meter.startswith(("input", "output", "cache_"))


def _fallback(provider: str, model: str, rates: dict[str, str]) -> dict[str, str]:
    """What a model bills at another meter's rate, as its provider documents it."""
    wanted: dict[str, str] = {}
    if "output" in rates:
        wanted["output_reasoning"] = "output"
        if provider in {"openai", "anthropic", "google"}:
            wanted["input_image"] = "input"
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


def _source(model: upstream.ModelInfo) -> str | None:
    """The page that upstream's comment names for the prices, if it names one."""
    urls = re.findall(r"https?://[^\s,;)]+", model.price_comments or "")
    urls = [url.rstrip(".") for url in urls]
    return next((url for url in urls if "pricing" in url), urls[0] if urls else None)


def index(today: date) -> dict[str, Any]:
    """The list of providers with their names and files, lowest layer first."""
    providers: dict[str, Any] = {}
    for path in sorted({*DATA.glob("*.json"), *DATA.glob("overlay/*.json")}):
        if path.name == "index.json":
            continue
        name = path.stem
        entry = providers.setdefault(name, {"aliases": PROVIDERS.get(name, {}).get("aliases", []), "files": []})
        entry["files"].append(path.relative_to(DATA).as_posix())
    for entry in providers.values():
        entry["files"].sort(key=lambda file: file.startswith("overlay/"))
    return {
        "schema_version": 1,
        "book_version": f"{today:%Y.%m.%d}",
        "dated": today.isoformat(),
        "providers": {name: providers[name] for name in sorted(providers)},
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
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _write_notice() -> None:
    licence = next(
        (file for file in importlib.metadata.files(PACKAGE) or () if "licenses" in str(file) or "LICENSE" in str(file)),
        None,
    )
    text = licence.read_text() if licence else "MIT License"
    (DATA / "NOTICE").write_text(
        "The price files in this folder (not those in overlay/) are converted from genai-prices\n"
        f"{importlib.metadata.version(PACKAGE)}, {URL}, which is under the following licence.\n\n{text}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
