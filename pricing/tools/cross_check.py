"""Hold the price book against LiteLLM's table and genai-prices: every figure that differs must be explained.

    python pricing/tools/cross_check.py                     # what is wrong, by provider; exit 1 if anything is
    python pricing/tools/cross_check.py --provider aws      # one provider
    python pricing/tools/cross_check.py --all               # also what is explained, and models that only LiteLLM has
    python pricing/tools/cross_check.py --json              # all of it, for a program

A tool for development. Nothing at run time needs LiteLLM, and nothing here imports it: its table is one file of its
package, which is downloaded once and kept under ~/.cache.

Two rules:

* A difference from LiteLLM is mended, or explained in `explained_differences.json` with its figures, the reason and the
  page that says so. An explanation that fits no difference any more is an error too.
* Where LiteLLM and genai-prices agree on a model's input and output, the book agrees too. No explanation counts.

What LiteLLM lists as zero is no evidence, since that is also how it writes what it does not know. Figures are compared
as of the day of the table: at each prompt length that LiteLLM prices, in each service tier and region.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_pricing.book import PriceBook
from costspan_pricing.meters import METERS
from costspan_pricing.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LITELLM: Final = "1.110.2"
"""The release whose table we are held against. A newer one brings new differences, so it is raised on purpose."""

MADE: Final = datetime(2026, 11, 27, 12, tzinfo=UTC)
"""When that table was current: a weekday at noon UTC, outside the peak hours of every provider that has some."""

PEAK: Final = MADE.replace(hour=2)
"""Within the peak hours of that day, whose rates LiteLLM takes for the base where it lists off-peak ones."""

EXPLAINED: Final = Path(__file__).parent / "explained_differences.json"
TABLE: Final = "model_prices_and_context_window_backup.json"

_METERS: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "output_reasoning",
    "cache_read_input_token_cost": "cache_read",
    "input_cost_per_token_cache_hit": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "input_cost_per_video_token": "input_video",
    "cache_read_input_audio_token_cost": "cache_read_audio",
    "cache_read_input_image_token_cost": "cache_read_image",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
    "output_cost_per_video_token": "output_video",
    "citation_cost_per_token": "output_citation",
    "input_cost_per_character": "characters",
    "ocr_cost_per_page": "pages",
    "annotation_cost_per_page": "annotated_pages",
    "input_cost_per_text_message": "messages",
    "input_cost_per_request": "requests",
    "google_maps_grounding_cost_per_query": "maps_prompts",
}
"""Fields of LiteLLM's that mean one meter, whatever the model does."""

_BY_MODE: Final = {
    ("input_cost_per_second", "audio_transcription"): "audio_seconds",
    ("input_cost_per_second", "realtime"): "audio_seconds",
    ("output_cost_per_second", "audio_speech"): "output_audio_seconds",
    ("output_cost_per_second", "video_generation"): "video_seconds",
    ("output_cost_per_image", "image_generation"): "images",
    ("output_cost_per_image", "image_edit"): "images",
    ("input_cost_per_query", "rerank"): "rerank_searches",
    ("input_cost_per_query", "search"): "requests",
}
"""Fields of LiteLLM's that mean one thing or another by what the model does."""

_FIELD: Final = re.compile(
    r"(?P<base>.+?)(?:_above_(?P<over>\d+)k_tokens)?(?:_(?P<tier>batches|flex|priority|ultrafast|balanced|decisions))?"
)

_TIERS: Final = {"batches": "batch"}

_ALTERNATIVES: Final = {"web_searches": ("web_searches", "grounded_prompts")}
"""Meters of ours that one field of LiteLLM's may mean: Google billed grounded prompts before it billed searches."""

_PROVIDERS: Final = {
    "azure_text": "azure",
    "bedrock_mantle": "bedrock",
    "cohere_chat": "cohere",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
}
"""LiteLLM's providers that are another way to the same one."""

_NO_MODEL: Final = re.compile(r"(?:^|/)\d+-x-\d+/|-steps/|-month-commitment/|^(?:together-ai|fireworks-ai)-")
"""Rows that are no model: sizes of an image, provisioned throughput, bands of parameters."""

_AREAS: Final = {
    "azure": re.compile(r"(eu|us|apac|us-gov|global)(?:-standard)?/"),
    "bedrock": re.compile(r"([a-z]{2}(?:-gov)?-[a-z]+-\d)/"),
}
"""The part of a row's name that names a region; what follows is the model."""

_DATA_ZONES: Final = {"eu": "data_zone_eu", "us": "data_zone_us", "apac": "data_zone_apac"}
"""LiteLLM's words for Azure's deployment types where ours differ."""


class Meant(NamedTuple):
    """What a figure is the price of: a meter in a service tier, for prompts over a length, in a region, at an hour."""

    meter: str
    tier: str = ""
    over: int = 0
    geo: str = ""
    when: str = ""

    def __str__(self) -> str:
        """As the list of explanations writes it: ``batch input >200000 in eu``."""
        length = f">{self.over}" if self.over else ""
        place = f"in {self.geo}" if self.geo else ""
        return " ".join(part for part in (self.tier, self.meter, length, place, self.when) if part)


class Difference(NamedTuple):
    """A figure that the book does not share: ``ours`` is ``None`` where the book has none at all.

    Figures are USD for as many units as the registry of meters says; ``model`` is the name as the provider knows it.
    """

    provider: str
    model: str
    meant: str
    ours: Decimal | None
    theirs: Decimal


@dataclass
class Report:
    """What the comparison found, by the book's names of providers."""

    agreed: Counter[str] = field(default_factory=Counter)
    """How many figures are the same."""
    differences: dict[Difference, str] = field(default_factory=dict)
    """Figures that differ, with the row of LiteLLM's where that was seen first."""
    unknown: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Rows of models that the book does not have."""
    shared: set[tuple[str, str]] = field(default_factory=set)
    """Provider and name of the models that cost the same at LiteLLM and genai-prices."""
    outvoted: dict[Difference, str] = field(default_factory=dict)
    """Figures of the book that differ from what those two agree on, with the row of LiteLLM's."""


class Explanation(NamedTuple):
    """Why figures differ, and which. Each form is bounded, so that a new error is not taken for an old difference.

    ``pairs`` names model, what is meant, our figure and theirs. Instead of it, ``models`` and ``meant`` may be patterns
    if either their figure is ours times ``ratio``, or the book has none at all, in at most ``gaps`` places.
    """

    provider: str
    reason: str
    pairs: Mapping[tuple[str, str], tuple[Decimal | None, Decimal]]
    models: Sequence[str]
    meant: Sequence[str]
    ratio: Fraction | None
    gaps: int | None

    def fits(self, found: Difference) -> bool:
        """Whether this is about a difference; how many it may be about is for `explain` to count."""
        if found.provider != self.provider:
            return False
        if self.pairs:
            return self.pairs.get((found.model, found.meant)) == (found.ours, found.theirs)
        if not (_like(found.model, self.models) and _like(found.meant, self.meant)):
            return False
        if self.ratio is None:
            return found.ours is None
        return found.ours is not None and _rounded(Fraction(found.ours) * self.ratio, found.theirs)


@dataclass
class Verdict:
    """What the list of explanations says of a report."""

    reasons: dict[Difference, str] = field(default_factory=dict)
    unexplained: list[Difference] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    """Explanations, or parts of them, that fit no difference; and those that fit more than they may."""


class ExplanationError(ValueError):
    """An entry of the list of explanations that cannot be used; the message names it."""


def table(file: Path | None = None) -> dict[str, dict[str, Any]]:
    """LiteLLM's table: from ``file``, else from the cache, else out of the package, which is downloaded for it.

    Raises ``OSError`` where it cannot be had, ``ValueError`` where it is no table.
    """
    file = file or _cached()
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    if not isinstance(rows, dict) or not all(isinstance(entry, dict) for entry in rows.values()):
        raise ValueError(f"{file} is not a table of LiteLLM's, which has a row for each model")
    return rows


def _cached() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "costspan" / "litellm"
    kept = folder / f"{LITELLM}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            # One file of 3 MB is wanted: the package is unpacked, with none of its 60 dependencies, and never run.
            install = ["uv", "pip", "install", "-q", "-p", sys.executable, "--no-deps", "--target", scratch]
            done = subprocess.run([*install, f"litellm=={LITELLM}"], capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise OSError(f"litellm {LITELLM} cannot be downloaded: {done.stderr.strip()}")
            (Path(scratch) / "litellm" / TABLE).replace(kept)
    return kept


def compare(rows: Mapping[str, Mapping[str, Any]], book: PriceBook | None = None) -> Report:
    """Hold the book against every row of LiteLLM's whose provider it knows, and against genai-prices beside it."""
    book = book or PriceBook.bundled()
    report = Report()
    for row, entry in rows.items():
        provider, model, geo = _name(row, entry)
        figures = {meant._replace(geo=meant.geo or geo): price for meant, price in _figures(entry)}
        # A gateway without prices of its own says nothing of those of the providers behind it.
        if not figures or not book.models(provider) or _NO_MODEL.search(row):
            continue
        ours = _Prices(book, provider, model)
        if not geo:
            _vote(report, row, ours, figures)
        if not ours.known:
            report.unknown[ours.provider].append(row)
            continue
        for meant, price in figures.items():
            mine = ours.of(meant)
            theirs = _usd(price, meant.meter)
            if mine is not None and _same(mine, price, meant.meter):
                report.agreed[ours.provider] += 1
            else:
                report.differences.setdefault(Difference(ours.provider, model, str(meant), mine, theirs), row)
    return report


def explanations(file: Path = EXPLAINED) -> list[Explanation]:
    """The list of explanations. Raises `ExplanationError` that names the entry which says too little or too much."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return [_explanation(entry, f"{file.name}, explanation {number}") for number, entry in enumerate(entries, 1)]


def _explanation(entry: Mapping[str, Any], where: str) -> Explanation:
    always = {"provider", "reason", "source", "checked"}
    forms = {"differences"}, {"models", "meant", "ratio"}, {"models", "meant", "gaps"}
    if set(entry) not in [always | form for form in forms]:
        raise ExplanationError(f"{where}: has {', '.join(entry)}; wanted are {', '.join(sorted(always))} and one form")
    if not entry["reason"].strip() or not entry["source"].startswith("https://"):
        raise ExplanationError(f"{where}: wants a reason, and the page that gives it as its source")
    try:
        date.fromisoformat(entry["checked"])
        pairs = {
            (model, meant): (None if ours is None else _plain(Decimal(ours)), _plain(Decimal(theirs)))
            for model, figures in entry.get("differences", {}).items()
            for meant, (ours, theirs) in figures.items()
        }
        ratio = Fraction(entry["ratio"]) if "ratio" in entry else None
        gaps = int(entry["gaps"]) if "gaps" in entry else None
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise ExplanationError(f"{where}: {error}") from None
    if "differences" in entry and not pairs:
        raise ExplanationError(f"{where}: lists no difference")
    patterns = entry.get("models", ()), entry.get("meant", ())
    return Explanation(entry["provider"], entry["reason"], pairs, *patterns, ratio, gaps)


def explain(found: Iterable[Difference], known: Iterable[Explanation]) -> Verdict:
    """Hold differences against the list of explanations, which must fit all of them and nothing else."""
    verdict = Verdict()
    known = list(known)
    used: list[list[Difference]] = [[] for _ in known]
    for difference in found:
        fitting = [number for number, explanation in enumerate(known) if explanation.fits(difference)]
        for number in fitting:
            used[number].append(difference)
        if fitting:
            verdict.reasons[difference] = known[fitting[0]].reason
        else:
            verdict.unexplained.append(difference)
    for explanation, differences in zip(known, used, strict=True):
        about = f"{explanation.provider}: {explanation.reason}"
        seen = {(difference.model, difference.meant) for difference in differences}
        verdict.stale += [
            f"{about} ({model}, {meant})" for model, meant in explanation.pairs if (model, meant) not in seen
        ]
        if not seen and not explanation.pairs:
            verdict.stale.append(about)
        if explanation.gaps is not None and len(differences) > explanation.gaps:
            verdict.stale.append(f"{about} (fits {len(differences)} gaps, of at most {explanation.gaps})")
    return verdict


def _like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _rounded(ours: Fraction, theirs: Decimal) -> bool:
    """Whether two figures are the same when one is rounded to three decimals, as price lists do."""
    return abs(ours - Fraction(theirs)) <= min(Fraction(1, 2000), Fraction(theirs) / 20)


def _name(row: str, entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """Provider, model and region of a row; the model as its provider calls it."""
    theirs = str(entry.get("litellm_provider"))
    provider = _PROVIDERS.get(theirs) or theirs.removesuffix("_converse")
    if provider.startswith(("vertex_ai-", "fireworks_ai-")):  # -anthropic_models, -embedding-models
        provider = provider.partition("-")[0]
    prefix, slash, rest = row.partition("/")
    model = rest if slash and prefix.replace("-", "_") in {theirs, provider} else row
    model = model.removeprefix("invoke/")  # LiteLLM's word for an API of Bedrock
    area = _AREAS[provider].match(model) if provider in _AREAS else None
    if area is None:
        return provider, model, ""
    return provider, model[area.end() :], _DATA_ZONES.get(area[1], area[1])


def _figures(entry: Mapping[str, Any]) -> Iterator[tuple[Meant, Decimal]]:
    """The prices of a row that have a meter of ours, in USD a unit."""
    off_peak = entry.get("off_peak_pricing")
    plain = dict(_fields(entry, str(entry.get("mode"))))
    for position, tier in enumerate(entry.get("tiered_pricing", ())):
        start = int(tier["range"][0]) if "range" in tier else 0
        if start or not position:
            plain |= {meant._replace(over=start): price for meant, price in _fields(tier, "")}
    if off_peak:
        yield from ((meant._replace(when="off peak"), price) for meant, price in _fields(off_peak, ""))
        plain = {meant._replace(when="peak"): price for meant, price in plain.items()}
    yield from plain.items()
    for factor, geo, tier in _factors(entry):
        yield from (
            (meant._replace(geo=geo, tier=tier), price * factor)
            for meant, price in plain.items()
            if meant.meter in {"input", "output", "cache_read"} and not meant.tier and not meant.over
        )
    sizes = entry.get("search_context_cost_per_query") or {}
    if len(set(sizes.values())) == 1 and (price := _decimal(next(iter(sizes.values())))):
        yield Meant("web_searches"), price


def _fields(entry: Mapping[str, Any], mode: str) -> Iterator[tuple[Meant, Decimal]]:
    for name, value in entry.items():
        if "cost" not in name or not (price := _decimal(value)):
            continue
        parts = _FIELD.fullmatch(name)
        if parts is None:
            continue
        meter = _METERS.get(parts["base"]) or _BY_MODE.get((parts["base"], mode))
        if meter is not None:
            tier = parts["tier"] or ""
            yield Meant(meter, _TIERS.get(tier, tier), int(parts["over"] or 0) * 1000), price


def _factors(entry: Mapping[str, Any]) -> Iterator[tuple[Decimal, str, str]]:
    """What the row multiplies its prices by, in which region and service tier."""
    special = entry.get("provider_specific_entry") or {}
    for value, geo, tier in (
        (entry.get("regional_processing_uplift_multiplier_eu"), "eu", ""),
        (entry.get("regional_processing_uplift_multiplier_us"), "us", ""),
        (entry.get("regional_endpoint_uplift_multiplier"), "us-east5", ""),
        (special.get("us"), "us", ""),
        (special.get("fast"), "", "fast"),
    ):
        if value:
            yield Decimal(repr(value)), geo, tier


def _decimal(value: object) -> Decimal | None:
    """A price that is one: not a word, not nothing, and not the zero that stands for an unknown one."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Decimal(repr(value)) if number and value else None


class _Prices:
    """What the book says that a model costs on the day of LiteLLM's table."""

    def __init__(self, book: PriceBook, provider: str, model: str) -> None:
        self._book = book
        self._asked = provider
        self.model = model
        card = book.card(provider, model, _ns(MADE))
        self.known = card is not None
        self.provider = card.provider if card else _book_id(book, provider)
        self._lists: dict[tuple[Any, ...], dict[str, Decimal]] = {}

    def of(self, meant: Meant) -> Decimal | None:
        """USD for as many units as the registry says, or ``None``."""
        rates = self._rates(*meant[1:])
        names = _ALTERNATIVES.get(meant.meter, (meant.meter,))
        return next((rates[name] for name in names if name in rates), None)

    def _rates(self, tier: str, over: int, geo: str, when: str) -> dict[str, Decimal]:
        key = tier, over, geo, when
        if key not in self._lists:
            card = self._book.card(self._asked, self.model, _ns(_at(when)), tier or None, geo or None)
            # Asked as a call would ask: one of everything, behind a prompt of that length.
            usage = Usage(dict.fromkeys(METERS, 1) | {"input": over + 1})
            lines = card.cost(usage).lines if card is not None and "tier_unpriced" not in card.flags else ()
            self._lists[key] = {
                line.meter: _plain(line.rate * METERS[line.meter].per / line.per)
                for line in lines
                if line.rate is not None
            }
        return self._lists[key]


def _book_id(book: PriceBook, provider: str) -> str:
    return book._library.canonical(provider) or provider


def _at(when: str) -> datetime:
    return PEAK if when == "peak" else MADE


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def _usd(price: Decimal, meter: str) -> Decimal:
    """USD a unit as USD for as many as the registry says, without the noise of a float."""
    return _plain(price * METERS[meter].per)


def _plain(figure: Decimal) -> Decimal:
    """A figure to nine decimals and without trailing zeros, as it is compared and written."""
    figure = figure.quantize(Decimal("1e-9")).normalize()
    return figure.quantize(Decimal(1)) if figure == figure.to_integral_value() else figure


def _same(ours: Decimal, price: Decimal, meter: str) -> bool:
    """Whether a price of ours is LiteLLM's ``price`` of one unit."""
    if _usd(price, meter) == ours:
        return True
    # A price per hour has no end as one per second: LiteLLM writes the first digits.
    digits = len(price.normalize().as_tuple().digits)
    return (
        METERS[meter].unit == "second"
        and digits >= 3
        and f"{ours / METERS[meter].per:.{digits}g}" == f"{price:.{digits}g}"
    )


def _vote(report: Report, row: str, ours: _Prices, figures: Mapping[Meant, Decimal]) -> None:
    """Where LiteLLM and genai-prices agree on input and output, the book must."""
    for when in {meant.when for meant in figures}:
        base = {meant: figures[meant] for meter in ("input", "output") if (meant := Meant(meter, when=when)) in figures}
        wanted = {meant.meter: _usd(price, meant.meter) for meant, price in base.items()}
        if not wanted or wanted != _genai_prices(ours.provider, ours.model, _at(when)):
            continue
        report.shared.add((ours.provider, ours.model))
        for meant in base:
            mine = ours.of(meant) if ours.known else None
            if mine != wanted[meant.meter]:
                found = Difference(ours.provider, ours.model, str(meant), mine, wanted[meant.meter])
                report.outvoted.setdefault(found, row)


def _genai_prices(provider: str, model: str, at: datetime) -> dict[str, Decimal]:
    """What input and output cost there; empty where the model is not known, and without what costs nothing."""
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import TieredPrices

    try:
        prices = get_snapshot().find_provider_model(model, None, provider, None)[1].get_prices(at)
    except LookupError:
        return {}
    listed = {"input": prices.input_mtok, "output": prices.output_mtok}
    base = {meter: price.base if isinstance(price, TieredPrices) else price for meter, price in listed.items()}
    return {meter: _plain(price) for meter, price in base.items() if price}


def main() -> None:
    """Compare, and exit with 1 if anything is unexplained, outvoted or stale, with 2 if nothing could be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", help="the book's name of one provider")
    parser.add_argument("--all", action="store_true", help="also what is explained, and models that only LiteLLM has")
    parser.add_argument("--json", action="store_true", help="everything, for a program")
    parser.add_argument("--table", type=Path, metavar="FILE", help="another table of LiteLLM's than the pinned one")
    arguments = parser.parse_args()
    try:
        report = compare(table(arguments.table))
        known = explanations()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if arguments.provider:
        report = only(report, arguments.provider)
        known = [explanation for explanation in known if explanation.provider == arguments.provider]
    verdict = explain(report.differences, known)
    if arguments.json:
        print(json.dumps(as_json(report, verdict), indent=1))
    else:
        print(as_text(report, verdict, everything=arguments.all))
    sys.exit(bool(verdict.unexplained or verdict.stale or report.outvoted))


def only(report: Report, provider: str) -> Report:
    """The part of a report that is about one provider."""
    return Report(
        agreed=Counter({provider: report.agreed[provider]}),
        differences={found: row for found, row in report.differences.items() if found.provider == provider},
        unknown={provider: report.unknown.get(provider, [])},
        shared={model for model in report.shared if model[0] == provider},
        outvoted={found: row for found, row in report.outvoted.items() if found.provider == provider},
    )


def as_json(report: Report, verdict: Verdict) -> dict[str, Any]:
    """Everything that was found, with figures as strings."""

    def written(found: Difference) -> dict[str, Any]:
        ours = None if found.ours is None else format(found.ours, "f")
        return {**found._asdict(), "ours": ours, "theirs": format(found.theirs, "f")}

    return {
        "litellm": LITELLM,
        "agreed": dict(report.agreed),
        "differences": [
            {**written(found), "row": row, "reason": verdict.reasons.get(found)}
            for found, row in report.differences.items()
        ],
        "stale": verdict.stale,
        "shared": dict(Counter(provider for provider, _ in report.shared)),
        "outvoted": [written(found) for found in report.outvoted],
        "unknown": {provider: rows for provider, rows in report.unknown.items() if rows},
    }


def as_text(report: Report, verdict: Verdict, *, everything: bool = False) -> str:
    """The report to read: a table of differences for each provider, then what the two rules say."""
    lines: list[str] = []
    for provider in sorted({*report.agreed, *report.unknown, *(found.provider for found in report.differences)}):
        mine = [found for found in report.differences if found.provider == provider]
        wrong = [found for found in mine if found not in verdict.reasons]
        lines.append(
            f"{provider}: {report.agreed[provider]} figures agree, {len(mine) - len(wrong)} differ and are explained, "
            f"{len(wrong)} are not; {len(report.unknown.get(provider, []))} models are not in the book"
        )
        for found in mine if everything else wrong:
            reason = f"  {verdict.reasons[found]}" if found in verdict.reasons else ""
            lines.append(f"  {_line(found)}{reason}")
        if everything:
            lines += [f"  {row}: not in the book" for row in report.unknown.get(provider, [])]
    lines += [f"no longer true: {text}" for text in verdict.stale]
    lines += [f"both others agree: {found.provider}  {_line(found)}" for found in report.outvoted]
    shared, outvoted = len(report.shared), len({found[:2] for found in report.outvoted})
    lines.append(f"{shared} models cost the same at genai-prices and LiteLLM; the book agrees on {shared - outvoted}")
    return "\n".join(lines)


def _line(found: Difference) -> str:
    ours = "none" if found.ours is None else format(found.ours, "f")
    return f"{found.model:<44} {found.meant:<32} ours {ours:<10} LiteLLM {found.theirs:f}"


if __name__ == "__main__":
    main()
