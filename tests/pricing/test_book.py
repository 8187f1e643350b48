"""The bundled book: which price holds for whom, and since when."""

from __future__ import annotations

import threading
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from costspan_pricing import Cost, PriceBook, Usage
from costspan_pricing.timeline import BookError, layered, spans

NOW = "2026-11-23T05:00:00Z"
BOOK = PriceBook.bundled()


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def price(
    provider: str, model: str, at: str = NOW, tier: str | None = None, geo: str | None = None, **used: Any
) -> Cost:
    card = BOOK.card(provider, model, instant(at), tier, geo)
    assert card is not None, f"{provider}/{model} is not in the book"
    return card.cost(Usage.from_inclusive(**used))


@pytest.mark.parametrize(
    ("usd", "provider", "model", "call"),
    [
        # Inclusive counts; prices of the day; half-rate tiers with each provider's own rule for the cache.
        ("0.016", "openai", "gpt-4.1", {"input": 10_000, "cache_read": 8_000, "output": 1_000}),
        ("0.0385", "openai", "gpt-4.1", {"input": 10_000, "cache_read": 4_000, "output": 1_000, "tier": "priority"}),
        ("0.005875", "openai", "gpt-5", {"input": 12_000, "cache_read": 10_000, "output": 800, "tier": "flex"}),
        ("0.01", "openai", "o3", {"input": 4_000, "cache_read": 4_000, "at": "2025-05-01T00:00:00Z"}),
        ("0.002", "openai", "o3", {"input": 4_000, "cache_read": 4_000, "at": "2025-06-10T00:00:00Z"}),
        ("0.68", "openai", "gpt-5.4", {"input": 272_000}),
        ("1.360005", "openai", "gpt-5.4", {"input": 272_001}),
        ("0.044", "openai", "gpt-5.4", {"input": 10_000, "output": 1_000, "geo": "eu"}),
        ("0.006", "openai", "gpt-4.1", {"input": 1_000, "output": 500, "geo": "eu"}),
        ("0.009", "openai", "ft:gpt-4.1-2025-04-14:acme:classifier:abc123", {"input": 1_000, "output": 500}),
        ("0.07365", "openai", "gpt-audio", {"input": 1500, "input_audio": 1000, "output": 800, "output_audio": 600}),
        ("40", "openai", "gpt-4o-audio-preview", {"input": 1_000_000, "input_audio": 1_000_000}),
        ("0.0095", "openai", "whisper-1", {"extra": {"audio_seconds": 95}}),
        ("0.01851", "openai", "tts-1", {"extra": {"characters": 1234}}),
        ("0.000006", "openai", "davinci-002", {"input": 2, "output": 1}),
        ("0.0425", "anthropic", "claude-sonnet-4-5-20250929",
         {"input": 10_000, "output": 1_000, "extra": {"web_searches": 2}, "tier": "batch"}),
        ("1.200006", "anthropic", "claude-sonnet-4-20250514", {"input": 200_001, "at": "2025-10-01T00:00:00Z"}),
        ("0.600003", "anthropic", "claude-sonnet-4-20250514", {"input": 200_001, "at": "2025-08-11T00:00:00Z"}),
        ("2.5375", "anthropic", "claude-opus-4-6", {"input": 250_000, "output": 1_000, "at": "2026-03-12T23:59:59Z"}),
        ("1.275", "anthropic", "claude-opus-4-6", {"input": 250_000, "output": 1_000, "at": "2026-03-13T00:00:00Z"}),
        ("0.0935", "anthropic", "claude-opus-4-6",
         {"input": 30_000, "cache_read": 20_000, "output": 1_000, "geo": "us"}),
        ("0.0165", "anthropic", "claude-3-opus-20240229", {"input": 100, "output": 200}),
        ("0.4825", "google", "gemini-2.5-pro",
         {"input": 250_000, "cache_read": 100_000, "output": 3_000, "at": "2025-07-15T00:00:00Z"}),
        ("0.445", "google", "gemini-2.5-pro", {"input": 250_000, "cache_read": 100_000, "output": 3_000}),
        ("0.00044", "google", "gemini-2.5-flash-lite",
         {"input": 10_000, "cache_read": 8_000, "output": 100, "at": "2025-08-01T00:00:00Z"}),
        ("0.00215", "google", "gemini-2.5-flash",
         {"input": 10_000, "cache_read": 5_000, "output": 1_000, "tier": "batch"}),
        ("0.03655", "google", "gemini-2.5-flash", {"input": 1_000, "output": 500, "extra": {"grounded_prompts": 1}}),
        ("0.000875", "google", "gemini-1.5-flash", {"input": 1_000, "output": 500, "at": "2024-07-01T00:00:00Z"}),
        ("0.000225", "google", "gemini-1.5-flash", {"input": 1_000, "output": 500, "at": "2025-01-18T00:00:00Z"}),
    ],
)  # fmt: skip
def test_known_bills(usd: str, provider: str, model: str, call: dict[str, Any]) -> None:
    cost = price(provider, model, **call)
    assert (cost.usd, cost.status) == (Decimal(usd), "priced")


@pytest.mark.parametrize(
    ("provider", "model", "listed_as"),
    [
        ("openai", "gpt-4.1-2025-04-14", "gpt-4.1"),
        ("OpenAI", " GPT-4.1 ", "gpt-4.1"),
        ("azure.ai.openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("litellm", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("gcp.gemini", "gemini-1.5-pro-002", "gemini-1.5-pro"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", "ft:gpt-4o-mini"),
    ],
)
def test_names_that_mean_a_listed_model(provider: str, model: str, listed_as: str) -> None:
    card = BOOK.card(provider, model, instant(NOW))
    assert card is not None
    assert card.model == listed_as


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4.1-ultra"),
        ("openai", "gpt-99-hyper"),
        ("openai", "ft:gpt-5:acme::1"),
        ("anthropic", "claude-opus-4-5-max"),
        ("anthropic", "claude-opus-9"),
        ("google", "gemini-2.5-pro-ultra"),
        ("google", "gemini-2.9-pro"),
    ],
)
def test_a_longer_or_newer_name_never_takes_the_price_of_a_shorter_one(provider: str, model: str) -> None:
    assert BOOK.card(provider, model, instant(NOW)) is None
    assert BOOK.knows(provider)


def test_an_unknown_provider_is_told_from_an_unknown_model() -> None:
    assert BOOK.card("acme-llm", "gpt-4.1", instant(NOW)) is None
    assert not BOOK.knows("acme-llm")


def test_a_tier_without_rates_is_an_estimate_never_silently_the_standard() -> None:
    cost = price("openai", "gpt-4.1", tier="scale", input=1_000_000)
    assert (cost.usd, cost.status, cost.flags) == (Decimal(2), "estimated", ("tier_unpriced",))
    for standard in ("default", "auto", "standard", "ON_DEMAND", None):
        assert price("openai", "gpt-4.1", tier=standard, input=1).status == "priced"


def test_reasoning_and_images_cost_what_the_data_says_and_audio_is_never_text() -> None:
    assert price("openai", "o3", input=0, output=2_000, reasoning=1_500).usd == Decimal("0.016")
    assert price("google", "gemini-2.5-flash", input=100, input_image=100).usd == Decimal("0.00003")
    assert price("openai", "gpt-4.1", input=100, input_audio=100).status == "partial"


def test_every_cost_says_where_it_comes_from() -> None:
    cost = price("openai", "o3", at="2025-05-01T00:00:00Z", input=1)
    assert (cost.model, cost.layer, cost.book) == ("o3", "overlay", BOOK.version)
    assert cost.period_source.startswith("https://")


def test_own_prices_hold_over_the_book_and_beside_it() -> None:
    mine = BOOK.with_prices({"openai/gpt-4.1": {"input": "1.80"}, "acme/embedder": {"input": 0.02}})
    at = instant(NOW)
    for tier in (None, "batch"):
        card = mine.card("openai", "gpt-4.1-2025-04-14", at, tier)
        assert card is not None
        assert card.cost(Usage({"input": 1_000_000})).usd == Decimal("1.80")
        assert card.layer == "code"
    embedder = mine.card("acme", "embedder", at)
    assert embedder is not None
    assert embedder.cost(Usage({"input": 1_000_000})).usd == Decimal("0.02")
    assert mine.knows("acme")
    assert not BOOK.knows("acme")


@pytest.mark.parametrize(
    "wrong", [{"gpt-4.1": {"input": "1"}}, {"a/b": {"inputs": "1"}}, {"a/b": {"input": "-1"}}, {"a/b": {"input": True}}]
)
def test_own_prices_that_make_no_sense_are_refused_by_name(wrong: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(BookError):
        BOOK.with_prices(wrong)


def test_names_made_up_as_calls_are_made_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costspan_pricing.book._REMEMBERED", 100)
    book = BOOK.with_prices({})
    for number in range(1000):
        book.card("openai", f"invented-{number}", instant(NOW))
    assert len(book._seen) <= 100


def test_threads_share_one_book() -> None:
    book, totals = BOOK.with_prices({}), []

    def work() -> None:
        card = book.card("anthropic", "claude-opus-5", instant(NOW))
        assert card is not None
        totals.append(card.cost(Usage({"input": 7})).total)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [35_000_000] * 16


@pytest.mark.parametrize("provider", BOOK.providers)
def test_every_model_compiles_in_every_tier_and_its_periods_leave_no_gap(provider: str) -> None:
    for model in BOOK.models(provider):
        shelf = BOOK._library.shelf(provider)
        assert shelf is not None
        timeline = shelf.timeline(model)
        if all(period.get("unpriced") for period in timeline):
            continue  # listed to say that nobody publishes its price
        tiers = {tier for period in timeline for tier in period.get("tiers", ())}
        for tier in sorted(tiers | {""}):
            periods = BOOK.periods(provider, model, tier, "us")
            assert periods, f"{provider}/{model} has no price at any time"
            assert periods[-1].end is None, f"{provider}/{model} ends"
            for before, after in pairwise(periods):
                assert before.end == after.start, f"{provider}/{model} has a gap that nobody marked"
            for period in periods:
                for card in (period.card, *period.windows):
                    if card is not None:
                        assert card.source.startswith("https://"), f"{provider}/{model} has no source"
                        assert card.free or card._base.rates, f"{provider}/{model} has no rates"


def test_an_upper_layer_patches_or_replaces_only_its_own_time() -> None:
    lower = spans([{"rates": {"input": "1", "output": "2"}, "source": "a"}], "lower", "x")
    patch = spans(
        [{"from": "2025-01-01", "to": "2025-02-01", "extends": True, "rates": {"input": "5"}, "source": "b"}],
        "upper",
        "x",
    )
    assert [(p["rates"], p["layer"]) for p in layered(lower, patch)] == [
        ({"input": "1", "output": "2"}, "lower"),
        ({"input": "5", "output": "2"}, "upper"),
        ({"input": "1", "output": "2"}, "lower"),
    ]
    replaced = layered(lower, spans([{"from": "2025-01-01", "rates": {"input": "9"}, "source": "c"}], "upper", "x"))
    assert [p["rates"] for p in replaced] == [{"input": "1", "output": "2"}, {"input": "9"}]


def test_periods_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="openai/x"):
        spans([{"from": "2025-01-01"}, {"from": "2025-02-01"}], "lower", "openai/x")
