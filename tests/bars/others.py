"""The same exchange through our instrumentation and through others': what their spans cost beside ours."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.bars.report import CACHE, SHARED, Bar, environment, none_of, on_path, skipped, without_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class _Other(NamedTuple):
    """Another instrumentation: its packages, those of the SDKs that it patches, and the code that switches it on."""

    name: str
    packages: tuple[str, ...]
    sdks: tuple[str, ...]
    code: str


_EACH = """
import importlib
for module, name in {pairs}:
    getattr(importlib.import_module({prefix!r} + module), name)().instrument({options})
"""

_OTHERS: Final = (
    _Other(
        "official",
        tuple(
            f"opentelemetry-instrumentation-{name}"
            for name in ("genai-openai", "genai-anthropic", "genai-bedrock", "google-genai")
        ),
        ("openai", "anthropic", "boto3", "google-genai<3"),
        _EACH.format(
            pairs=(
                ("genai.openai", "OpenAIInstrumentor"),
                ("genai.anthropic", "AnthropicInstrumentor"),
                ("genai.bedrock", "BedrockInstrumentor"),
                ("google_genai", "GoogleGenAiSdkInstrumentor"),
            ),
            prefix="opentelemetry.instrumentation.",
            options="skip_dep_check=True",
        ),
    ),
    _Other(
        "openllmetry",
        tuple(
            f"opentelemetry-instrumentation-{name}"
            for name in (
                "openai", "anthropic", "bedrock", "google-generativeai", "mistralai", "cohere", "groq", "ollama",
                "together", "voyageai",
            )
        ),
        (
            "openai", "anthropic", "boto3", "google-genai", "mistralai<2", "cohere<6", "groq", "ollama", "together<2",
            "voyageai",
        ),
        _EACH.format(
            pairs=(
                ("openai", "OpenAIInstrumentor"),
                ("anthropic", "AnthropicInstrumentor"),
                ("bedrock", "BedrockInstrumentor"),
                ("google_generativeai", "GoogleGenerativeAiInstrumentor"),
                ("mistralai", "MistralAiInstrumentor"),
                ("cohere", "CohereInstrumentor"),
                ("groq", "GroqInstrumentor"),
                ("ollama", "OllamaInstrumentor"),
                ("together", "TogetherAiInstrumentor"),
                ("voyageai", "VoyageAIInstrumentor"),
            ),
            prefix="opentelemetry.instrumentation.",
            options="",
        ),
    ),
    _Other(
        "openinference",
        tuple(
            f"openinference-instrumentation-{name}"
            for name in ("openai", "anthropic", "bedrock", "google-genai", "mistralai", "groq")
        ),
        ("openai", "anthropic", "boto3", "google-genai", "mistralai", "groq"),
        _EACH.format(
            pairs=(
                ("openai", "OpenAIInstrumentor"),
                ("anthropic", "AnthropicInstrumentor"),
                ("google_genai", "GoogleGenAIInstrumentor"),
                ("bedrock", "BedrockInstrumentor"),
                ("mistralai", "MistralAIInstrumentor"),
                ("groq", "GroqInstrumentor"),
            ),
            prefix="openinference.instrumentation.",
            options="",
        ),
    ),
)  # fmt: skip

_PRICED_BY_US = """
from costspan import CostSpanProcessor
tracer_provider.add_span_processor(CostSpanProcessor())
"""
_OURS = "import costspan; costspan.init(tracer_provider=tracer_provider)"


class _Seen(NamedTuple):
    """What the spans of one exchange cost, in picodollars; `statuses` are theirs, in the order in which they ended."""

    pico: int | None
    statuses: tuple[str, ...]
    marked: bool
    """Whether something on a span says that the figure is no more than an estimate, or that there is none."""


_NOTHING: Final = _Seen(None, (), True)


def others(_full: bool) -> Iterator[Bar]:
    """Every recorded exchange that another instrumentation sees costs what it costs through ours."""
    names = tuple(f"others.{other.name}" for other in _OTHERS)
    driver = SHARED / "tools" / "conformance"
    exchanges = os.environ.get("COSTSPAN_EXCHANGES", str(SHARED / "recorded" / "exchanges")).split(os.pathsep)[0]
    if not driver.is_dir() or not Path(exchanges).is_dir():
        yield from skipped(names, "no conformance driver or no recorded exchanges beside this checkout")
    elif shutil.which("uv") is None:
        yield from without_program(names, "uv")
    else:
        for other in _OTHERS:
            yield from _compared(other, driver, exchanges)


def _compared(other: _Other, driver: Path, exchanges: str) -> Iterator[Bar]:
    needed = (*other.packages, *other.sdks, "opentelemetry-sdk", "opentelemetry-exporter-otlp")
    python = environment(CACHE / "others" / other.name, *needed)
    ours, theirs = (_run(python, code, driver, exchanges) for code in (_OURS, other.code + _PRICED_BY_US))
    # What has no price in the book even in part leaves no figure to compare with: what the model is not sold with.
    both = [exchange for exchange in theirs if _is_whole(ours.get(exchange, _NOTHING))]
    different = [exchange for exchange in both if ours[exchange].pico != theirs[exchange].pico]
    # Where usage was dropped and the span says so, the figures cannot agree.
    whole = [exchange for exchange in both if not theirs[exchange].marked]
    silent = [exchange for exchange in different if exchange in set(whole)]
    share = 100 * (len(whole) - len(silent)) / len(whole) if whole else 0.0
    why = Counter(" + ".join(theirs[exchange].statuses) for exchange in different if exchange not in set(silent))
    note = ", ".join(f"{count} {statuses}" for statuses, count in why.most_common())
    yield Bar(f"others.{other.name}", f"{share:.4g} % of {len(whole)}", ">= 95 %", share >= 95, f"{note} differ too")
    said = [f"{exchange}: {theirs[exchange].pico} for {ours[exchange].pico}" for exchange in silent]
    yield none_of(f"others.{other.name}.silent", said, f"{len(both)} exchanges", "that differ and do not say so")


def _is_whole(seen: _Seen) -> bool:
    return seen.pico is not None and "partial" not in seen.statuses


def _run(python: str, code: str, driver: Path, exchanges: str) -> Mapping[str, _Seen]:
    """Exchange -> what its GenAI spans cost; exchanges that nobody made such a span for are left out."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.gz"
        subprocess.run(
            [
                *(python, "-m", "conformance", "--exchanges", exchanges, "--instrument", code),
                *("--record", str(record)),
            ],
            check=True,
            capture_output=True,
            env=on_path(driver),
            timeout=1800,
        )
        with gzip.open(record, "rt", encoding="utf-8") as file:
            recorded = json.load(file)
    if recorded["info"]["notes"]:
        raise RuntimeError(f"{python}: {recorded['info']['notes']}")
    spans: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for call in recorded["raw"]:
        for span in call["inst"].get("spans") or ():
            if "costspan.cost.status" in span["attributes"]:
                spans[call["key"][0]].append(span["attributes"])
    return {exchange: _seen(found) for exchange, found in spans.items()}


def _seen(spans: list[Mapping[str, Any]]) -> _Seen:
    totals = [span["costspan.cost.total"] for span in spans if "costspan.cost.total" in span]
    statuses = tuple(span["costspan.cost.status"] for span in spans)
    silent = all(status in {"priced", "free"} for status in statuses)
    marks = any(span.get("costspan.usage.guessed") or span.get("costspan.usage.inconsistent") for span in spans)
    return _Seen(round(sum(totals) * 10**12) if totals else None, statuses, marks or not silent)


MEASURES: Final[Mapping[str, Callable[[bool], Iterator[Bar]]]] = {"others": others}
"""Name for `--only` -> what measures it."""
