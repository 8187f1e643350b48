"""Bills of the direct providers at the instants that matter: what a model cost then, and when that changed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from costspan_pricing import Cost, PriceBook, Usage

NOW = "2026-11-28T12:00:00Z"
BOOK = PriceBook.bundled()


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def price(
    provider: str, model: str, at: str = NOW, tier: str | None = None, geo: str | None = None, **used: Any
) -> Cost:
    card = BOOK.card(provider, model, instant(at), tier, geo)
    assert card is not None, f"{provider}/{model} has no price at {at}"
    return card.cost(Usage.from_inclusive(**used))


def per_million(provider: str, model: str, meter: str, at: str) -> Decimal:
    """The price of a million tokens of one kind in short prompts, from the bill for one of them."""
    card = BOOK.card(provider, model, instant(at))
    assert card is not None, f"{provider}/{model} has no price at {at}"
    usd = card.cost(Usage({meter: 1})).usd
    assert usd is not None
    return usd * 1_000_000


# --- the price list that the replaced systems had ---------------------------------------------------------------------

IN, OUT, HIT, W5, W1 = "input", "output", "cache_read", "cache_write_5m", "cache_write_1h"


@pytest.mark.parametrize(
    ("provider", "model", "at", "usd"),
    [
        ("anthropic", "claude-opus-4-20250514", NOW, {IN: "15", OUT: "75", W5: "18.75", W1: "30", HIT: "1.5"}),
        ("anthropic", "claude-sonnet-4-20250514", NOW, {IN: "3", OUT: "15", W5: "3.75", W1: "6", HIT: "0.3"}),
        ("anthropic", "claude-3-7-sonnet-20250219", NOW, {IN: "3", OUT: "15", W5: "3.75", W1: "6", HIT: "0.3"}),
        ("anthropic", "claude-3-opus-20240229", NOW, {IN: "15", OUT: "75"}),
        ("anthropic", "claude-3-5-sonnet-20241022", NOW, {IN: "3", OUT: "15"}),
        ("anthropic", "claude-3-haiku-20240307", NOW, {IN: "0.25", OUT: "1.25"}),
        ("google", "gemini-2.5-pro", "2025-07-15T00:00:00Z", {IN: "1.25", OUT: "10", HIT: "0.31"}),
        ("google", "gemini-2.5-flash", "2025-07-15T00:00:00Z", {IN: "0.3", OUT: "2.5", HIT: "0.075"}),
        ("google", "gemini-2.5-flash-lite", "2025-08-01T00:00:00Z", {IN: "0.1", OUT: "0.4", HIT: "0.025"}),
        ("google", "gemini-1.5-flash", "2025-01-18T00:00:00Z", {IN: "0.075", OUT: "0.3"}),
        ("google", "gemini-1.5-flash", "2024-07-01T00:00:00Z", {IN: "0.35", OUT: "1.05"}),
        ("google", "gemini-1.5-pro", "2025-01-18T00:00:00Z", {IN: "1.25", OUT: "5"}),
        ("google", "gemini-2.0-flash", "2025-06-18T00:00:00Z", {IN: "0.1", OUT: "0.4"}),
        ("openai", "gpt-4.1", NOW, {IN: "2", OUT: "8", HIT: "0.5"}),
        ("openai", "gpt-4.1-mini", NOW, {IN: "0.4", OUT: "1.6", HIT: "0.1"}),
        ("openai", "gpt-4.1-nano", NOW, {IN: "0.1", OUT: "0.4", HIT: "0.025"}),
        ("openai", "gpt-4-turbo", NOW, {IN: "10", OUT: "30"}),
        ("openai", "gpt-3.5-turbo", NOW, {IN: "0.5", OUT: "1.5"}),
        ("openai", "text-embedding-3-small", NOW, {IN: "0.02"}),
        ("openai", "gpt-4o", "2025-01-18T00:00:00Z", {IN: "2.5", OUT: "10"}),
        ("openai", "gpt-4o-mini", NOW, {IN: "0.15", OUT: "0.6"}),
        ("openai", "o1", NOW, {IN: "15", OUT: "60"}),
        ("deepseek", "deepseek-chat", "2024-11-01T12:00:00Z", {IN: "0.14", OUT: "0.28", HIT: "0.014"}),
        ("deepseek", "deepseek-coder", "2024-11-01T12:00:00Z", {IN: "0.14", OUT: "0.28", HIT: "0.014"}),
        ("groq", "llama-3.1-70b-versatile", "2024-12-01T00:00:00Z", {IN: "0.59", OUT: "0.79"}),
        ("groq", "llama-3.1-8b-instant", NOW, {IN: "0.05", OUT: "0.08"}),
        ("groq", "mixtral-8x7b-32768", "2024-12-01T00:00:00Z", {IN: "0.24", OUT: "0.24"}),
        ("x-ai", "grok-beta", "2024-11-10T00:00:00Z", {IN: "5", OUT: "15"}),
        ("x-ai", "grok-2-1212", "2025-01-18T00:00:00Z", {IN: "2", OUT: "10"}),
        ("voyageai", "voyage-3", NOW, {IN: "0.06"}),
        ("voyageai", "voyage-3-lite", NOW, {IN: "0.02"}),
        ("jina", "jina-embeddings-v3", "2025-01-18T00:00:00Z", {IN: "0.02"}),
    ],
)
def test_the_price_list_of_the_replaced_systems(provider: str, model: str, at: str, usd: dict[str, str]) -> None:
    assert {meter: per_million(provider, model, meter, at) for meter in usd} == {
        meter: Decimal(amount) for meter, amount in usd.items()
    }


@pytest.mark.parametrize(
    ("usd", "call"),
    [
        ("0.625", {"input": 250_000}),
        ("0.64", {"input": 250_000, "output": 1_000}),
        ("0.4375", {"input": 250_000, "cache_read": 100_000}),
    ],
)
def test_the_price_list_of_the_replaced_systems_above_200k(usd: str, call: dict[str, Any]) -> None:
    assert price("google", "gemini-2.5-pro", "2025-07-15T00:00:00Z", **call).usd == Decimal(usd)


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"])
def test_the_price_list_of_the_replaced_systems_in_batches(model: str) -> None:
    at_once, in_batch = (
        price("openai", model, tier=tier, input=90_000, output=10_000).usd for tier in ("standard", "batch")
    )
    assert in_batch is not None
    assert at_once == in_batch * 2


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        *(("ollama", model) for model in ("llama3.1:8b", "nomic-embed-text", "gpt-oss:20b", "made-up-today:latest")),
        *((server, "qwen3") for server in ("vllm", "lm_studio", "llama_cpp", "llamafile", "localai", "tgi", "sglang")),
        *((server, "qwen3") for server in ("xinference", "gpt4all", "jan", "docker_model_runner", "infinity")),
    ],
)
def test_local_servers_cost_nothing_whatever_they_run(provider: str, model: str) -> None:
    cost = price(provider, model, input=5_000, output=700)
    assert cost.usd == 0
    assert cost.status == "free"


@pytest.mark.parametrize(
    ("gpu", "usd"),
    [("a100-80gb", "2.29"), ("a100-40gb", "1.89"), ("a6000", "0.79"), ("rtx-4090", "0.44"), ("rtx-3090", "0.24")],
)
def test_an_hour_of_a_gpu(gpu: str, usd: str) -> None:
    assert price("compute", gpu, extra={"compute_seconds": 3600}).usd == Decimal(usd)


def test_a_gigabyte_of_hosting_costs_its_list_price_although_some_are_free_each_month() -> None:
    assert price("hosting", "supabase", extra={"storage_gb_months": 100}).usd == Decimal("2.1")
    assert price("hosting", "supabase", extra={"bandwidth_gb": 10}).usd == Decimal("0.9")
    assert price("hosting", "vercel", extra={"bandwidth_gb": 10}).usd == Decimal("1.5")


# --- DeepSeek: by the hour, by the day of the week, by the holiday ----------------------------------------------------

CACHED: dict[str, Any] = {"input": 10_000, "cache_read": 6_000, "output": 1_000}


@pytest.mark.parametrize(
    ("model", "at", "usd"),
    [
        ("deepseek-chat", "2024-11-01T12:00:00Z", "0.000924"),
        # The introductory price of V3 ended at 16:00.
        ("deepseek-chat", "2025-02-08T15:59:59Z", "0.000924"),
        ("deepseek-chat", "2025-02-08T16:00:00Z", "0.0026"),
        ("deepseek-coder", "2025-02-08T16:00:00Z", "0.0026"),
        # Off-peak hours, 16:30 to 00:30 UTC, since 26 February 2025.
        ("deepseek-chat", "2025-02-20T18:00:00Z", "0.0026"),
        ("deepseek-chat", "2025-02-26T16:29:59Z", "0.0026"),
        ("deepseek-chat", "2025-02-26T16:30:00Z", "0.0013"),
        ("deepseek-chat", "2025-03-10T12:00:00Z", "0.0026"),
        ("deepseek-chat", "2025-03-10T16:29:59Z", "0.0026"),
        ("deepseek-chat", "2025-03-10T18:00:00Z", "0.0013"),
        ("deepseek-chat", "2025-03-11T00:29:59Z", "0.0013"),
        ("deepseek-chat", "2025-03-11T00:30:00Z", "0.0026"),
        ("deepseek-chat", "2025-03-11T02:30:00+08:00", "0.0013"),
        ("deepseek-reasoner", "2025-02-01T18:00:00Z", "0.00523"),
        ("deepseek-reasoner", "2025-03-10T12:00:00Z", "0.00523"),
        ("deepseek-reasoner", "2025-03-10T18:00:00Z", "0.0013"),
        # One price for both models, and no off-peak hours any more, from 16:00 on.
        ("deepseek-chat", "2025-09-05T15:59:59Z", "0.0026"),
        ("deepseek-chat", "2025-09-05T16:00:00Z", "0.00434"),
        ("deepseek-reasoner", "2025-09-05T16:00:00Z", "0.00434"),
        ("deepseek-chat", "2025-09-06T18:00:00Z", "0.00434"),
        ("deepseek-chat", "2025-09-28T23:59:59Z", "0.00434"),
        ("deepseek-chat", "2025-09-29T00:00:00Z", "0.001708"),
        ("deepseek-reasoner", "2026-04-23T12:00:00Z", "0.001708"),
        # V4: cached input fell to a tenth two days after the launch; the old names led to Flash.
        ("deepseek-v4-flash", "2026-04-25T12:00:00Z", "0.001008"),
        ("deepseek-v4-flash", "2026-04-26T12:15:00Z", "0.0008568"),
        ("deepseek-chat", "2026-06-01T03:00:00Z", "0.0008568"),
        ("deepseek-reasoner", "2026-06-01T03:00:00Z", "0.0008568"),
        ("deepseek-v4-pro", "2026-04-25T12:00:00Z", "0.01131"),
        ("deepseek-v4-pro", "2026-06-01T03:00:00Z", "0.00263175"),
        # Peak hours since 17 August by Beijing time, at first every day.
        ("deepseek-v4-flash", "2026-08-16T15:59:59Z", "0.0008568"),
        ("deepseek-v4-flash", "2026-08-16T16:00:00Z", "0.001582"),
        ("deepseek-v4-flash", "2026-08-20T02:00:00Z", "0.003164"),
        ("deepseek-v4-flash", "2026-08-22T02:00:00Z", "0.003164"),
        ("deepseek-v4-flash", "2026-08-23T02:00:00Z", "0.001582"),
        ("deepseek-v4-flash", "2026-08-24T02:00:00Z", "0.003164"),
        ("deepseek-v4-pro", "2026-08-24T02:00:00Z", "0.009504"),
        ("deepseek-v4-pro", "2026-08-24T05:00:00Z", "0.004752"),
        # V4.1 Flash from 04:00 UTC on 10 September, under the old names as well; Pro stayed as it was.
        ("deepseek-v4-flash", "2026-09-10T03:59:59Z", "0.003164"),
        ("deepseek-v4-flash", "2026-09-10T04:00:00Z", "0.001218"),
        ("deepseek-v4-flash", "2026-09-10T06:00:00Z", "0.002436"),
        ("deepseek-flash", "2026-09-10T06:00:00Z", "0.002436"),
        ("deepseek-v4-flash-vision-exp", "2026-09-10T06:00:00Z", "0.002436"),
        ("deepseek-v4-pro", "2026-09-15T02:00:00Z", "0.009504"),
        ("deepseek-v4-flash", "2026-11-23T00:59:59Z", "0.001218"),
        ("deepseek-v4-flash", "2026-11-23T01:00:00Z", "0.002436"),
        ("deepseek-v4-flash", "2026-11-23T03:59:59Z", "0.002436"),
        ("deepseek-v4-flash", "2026-11-23T04:00:00Z", "0.001218"),
        ("deepseek-v4-flash", "2026-11-23T09:59:59Z", "0.002436"),
        ("deepseek-v4-flash", "2026-11-23T10:00:00Z", "0.001218"),
        ("deepseek-v4-flash", "2026-11-22T02:00:00Z", "0.001218"),
        # Public holidays of 2026 on working days: a Friday, then Thursday to Wednesday.
        ("deepseek-v4-flash", "2026-09-25T02:00:00Z", "0.001218"),
        ("deepseek-flash", "2026-09-30T02:00:00Z", "0.002436"),
        ("deepseek-flash", "2026-10-01T02:00:00Z", "0.001218"),
        ("deepseek-v4-pro", "2026-10-07T09:00:00Z", "0.004752"),
        ("deepseek-flash", "2026-10-08T01:00:00Z", "0.002436"),
    ],
)
def test_deepseek(model: str, at: str, usd: str) -> None:
    cost = price("deepseek", model, at, **CACHED)
    assert (cost.usd, cost.status) == (Decimal(usd), "priced")


def test_deepseek_bills_searches_since_november_2026() -> None:
    search: dict[str, Any] = {"extra": {"web_searches": 4}}
    assert price("deepseek", "deepseek-flash", "2026-10-31T15:59:59Z", **search).usd == 0
    assert price("deepseek", "deepseek-flash", "2026-10-31T16:00:00Z", **search).usd == Decimal("0.003")


# --- everyone else ----------------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"input": 10_000, "output": 1_000}


@pytest.mark.parametrize(
    ("usd", "provider", "model", "call"),
    [
        # Groq: a minimum of ten seconds; batch is half, and its cache discount is lost; flex costs what on-demand does.
        ("0.000308333333", "groq", "whisper-large-v3", {"extra": {"audio_seconds": 4}}),
        ("0.000308333333", "groq", "whisper-large-v3", {"extra": {"audio_seconds": 10}}),
        ("0.003083333333", "groq", "whisper-large-v3", {"extra": {"audio_seconds": 100}}),
        ("0.000154166667", "groq", "whisper-large-v3", {"extra": {"audio_seconds": 4}, "tier": "batch"}),
        ("0.04", "groq", "whisper-large-v3-turbo", {"extra": {"audio_seconds": 3600}}),
        ("0.02", "groq", "distil-whisper-large-v3-en", {"extra": {"audio_seconds": 3600}}),
        ("0.022", "groq", "canopylabs/orpheus-v1-english", {"extra": {"characters": 1_000}}),
        ("0.05", "groq", "playai-tts", {"extra": {"characters": 1_000}}),
        ("0.00105", "groq", "openai/gpt-oss-120b", {**PLAIN, "tier": "batch"}),
        ("0.00105", "groq", "openai/gpt-oss-120b", {**PLAIN, "cache_read": 5_000, "tier": "batch"}),
        ("0.0021", "groq", "openai/gpt-oss-120b", {**PLAIN, "tier": "flex"}),
        ("0.00225", "groq", "openai/gpt-oss-120b", {**PLAIN, "at": "2025-09-01T00:00:00Z"}),
        ("0.00297", "groq", "mixtral-8x7b-32768", {**PLAIN, "at": "2024-03-01T00:00:00Z"}),
        ("0.00669", "groq", "llama-3.3-70b-versatile", PLAIN),
        # xAI: the threshold itself is long; retired names are billed as Grok 4.3; batch is a fifth off.
        ("0.24999875", "x_ai", "grok-4.3", {"input": 199_999}),
        ("0.5", "x_ai", "grok-4.3", {"input": 200_000}),
        ("0.012", "x_ai", "grok-4.3", {**PLAIN, "tier": "batch"}),
        ("0.383997", "x_ai", "grok-4", {"input": 127_999, "at": "2025-10-01T00:00:00Z"}),
        ("0.768", "x_ai", "grok-4", {"input": 128_000, "at": "2025-10-01T00:00:00Z"}),
        ("0.0512", "x_ai", "grok-4-fast-reasoning", {"input": 128_000, "at": "2025-10-01T00:00:00Z"}),
        ("0.045", "x_ai", "grok-3", {**PLAIN, "at": "2026-05-15T18:59:59Z"}),
        ("0.015", "x_ai", "grok-3", {**PLAIN, "at": "2026-05-15T19:00:00Z"}),
        ("0.0035", "x_ai", "grok-code-fast-1", {**PLAIN, "at": "2025-10-01T00:00:00Z"}),
        ("0.012", "x_ai", "grok-code-fast-1", {**PLAIN, "at": "2026-10-01T00:00:00Z"}),
        ("0.1", "x_ai", "grok-4", {"extra": {"web_searches": 4}, "at": "2025-10-01T00:00:00Z"}),
        ("0.02", "x_ai", "grok-4.3", {"extra": {"web_searches": 4}}),
        ("0.02", "x_ai", "grok-4.3", {"extra": {"social_searches": 4}}),
        ("0.07", "x_ai", "grok-2-image-1212", {"extra": {"images": 1}}),
        # Mistral: where "latest" led, what was cut, pages, speech; batch is half; regions cost a tenth more.
        ("0.104", "mistral", "mistral-large-latest", {**PLAIN, "at": "2024-05-01T00:00:00Z"}),
        ("0.039", "mistral", "mistral-large-latest", {**PLAIN, "at": "2024-08-01T00:00:00Z"}),
        ("0.026", "mistral", "mistral-large-latest", {**PLAIN, "at": "2024-09-17T00:00:00Z"}),
        ("0.006", "mistral", "mistral-large-latest", {**PLAIN, "at": "2025-10-01T00:00:00Z"}),
        ("0.0065", "mistral", "mistral-large-latest", {**PLAIN, "at": "2025-12-02T00:00:00Z"}),
        ("0.0026", "mistral", "mistral-small-latest", {**PLAIN, "at": "2024-10-01T00:00:00Z"}),
        ("0.0013", "mistral", "mistral-small-latest", {**PLAIN, "at": "2025-06-01T00:00:00Z"}),
        ("0.0021", "mistral", "mistral-small-latest", PLAIN),
        ("0.00105", "mistral", "mistral-small-latest", {**PLAIN, "tier": "batch"}),
        ("0.0351", "mistral", "mistral-medium-latest", {**PLAIN, "at": "2024-06-01T00:00:00Z"}),
        ("0.006", "mistral", "mistral-medium-latest", {**PLAIN, "at": "2025-06-01T00:00:00Z"}),
        ("0.0225", "mistral", "mistral-medium-latest", PLAIN),
        ("0.00275", "mistral", "mistral-tiny", PLAIN),
        ("0.0077", "mistral", "open-mixtral-8x7b", PLAIN),
        ("0.013", "mistral", "codestral-2405", {**PLAIN, "at": "2024-06-10T00:00:00Z"}),
        ("0.0026", "mistral", "codestral-2405", {**PLAIN, "at": "2024-10-01T00:00:00Z"}),
        ("0.0039", "mistral", "codestral-latest", PLAIN),
        ("0.00165", "mistral", "open-mistral-nemo", PLAIN),
        ("0.00044", "mistral", "ministral-3b-2410", PLAIN),
        ("0.00231", "mistral", "mistral-small-latest", {**PLAIN, "geo": "eu"}),
        ("0.01", "mistral", "mistral-ocr-2505", {"extra": {"pages": 10}}),
        ("0.04", "mistral", "mistral-ocr-latest", {"extra": {"pages": 10}}),
        ("0.001", "mistral", "mistral-embed", {"input": 10_000}),
        ("0.003", "mistral", "voxtral-mini-2602", {"extra": {"audio_seconds": 60}}),
        ("0.016", "mistral", "voxtral-mini-tts-latest", {"extra": {"characters": 1_000}}),
        # Cohere: the two names that moved in August 2024; reranking by search or by token.
        ("0.0065", "cohere", "command-r", {**PLAIN, "at": "2024-08-29T23:59:59Z"}),
        ("0.0021", "cohere", "command-r", {**PLAIN, "at": "2024-08-30T00:00:00Z"}),
        ("0.045", "cohere", "command-r-plus", {**PLAIN, "at": "2024-05-01T00:00:00Z"}),
        ("0.035", "cohere", "command-a-03-2025", PLAIN),
        ("0.000525", "cohere", "command-r7b-12-2024", PLAIN),
        ("0.0065", "cohere", "c4ai-aya-expanse-32b", PLAIN),
        ("0.006", "cohere", "rerank-v3.5", {"extra": {"rerank_searches": 3}}),
        ("0.0025", "cohere", "rerank-v4.0-pro", {"extra": {"rerank_searches": 1}}),
        ("0.0005", "cohere", "rerank-v5.0-pro", {"input": 10_000}),
        ("0.001", "cohere", "embed-english-v3.0", {"input": 10_000}),
        ("0.0012", "cohere", "embed-v4.0", {"input": 10_000}),
        # Embeddings and rerankers.
        ("0.0005", "voyageai", "rerank-2.5", {"input": 10_000}),
        ("0.0012", "voyageai", "voyage-multimodal-3", {"input": 10_000}),
        ("0.0006", "voyageai", "voyage-multimodal-3", {"extra": {"pixels": 1_000_000}}),
        ("0.000402", "voyageai", "voyage-3.5", {"input": 10_000, "tier": "batch"}),
        ("0.02", "jina", "jina-embeddings-v3", {"input": 1_000_000, "at": "2025-05-05T23:59:59Z"}),
        ("0.05", "jina", "jina-embeddings-v3", {"input": 1_000_000, "at": "2025-05-06T00:00:00Z"}),
        ("0.05", "jina", "jina-reranker-v2-base-multilingual", {"input": 1_000_000}),
        # Others of the direct providers.
        ("0.0024", "ai21", "jamba-mini-1.7", PLAIN),
        ("0.028", "ai21", "jamba-large", PLAIN),
        ("0.001", "zai", "glm-5.3-flash", {**PLAIN, "at": "2026-09-09T15:59:59Z"}),
        ("0.002", "zai", "glm-5.3-flash", {**PLAIN, "at": "2026-09-09T16:00:00Z"}),
        ("0.034", "moonshot_ai", "kimi-k2-turbo-preview", {**PLAIN, "at": "2025-09-01T00:00:00Z"}),
        ("0.022", "cerebras", "qwen-3-coder-480b", PLAIN),
        ("0.0132", "together", "Qwen/Qwen2.5-72B-Instruct-Turbo", PLAIN),
        # OpenAI: names that moved, tools, media, training, models of the first years.
        ("0.065", "openai", "gpt-4o", {**PLAIN, "at": "2024-10-01T23:59:59Z"}),
        ("0.035", "openai", "gpt-4o", {**PLAIN, "at": "2024-10-02T00:00:00Z"}),
        ("0.035", "openai", "gpt-4o-2024-08-06", {**PLAIN, "at": "2024-09-01T00:00:00Z"}),
        ("0.065", "openai", "gpt-4o-2024-05-13", PLAIN),
        ("0.022", "openai", "gpt-3.5-turbo", {**PLAIN, "at": "2023-05-01T00:00:00Z"}),
        ("0.017", "openai", "gpt-3.5-turbo", {**PLAIN, "at": "2024-02-15T23:59:59Z"}),
        ("0.0065", "openai", "gpt-3.5-turbo", {**PLAIN, "at": "2024-02-16T00:00:00Z"}),
        ("0.0065", "openai", "gpt-3.5-turbo-0125", {**PLAIN, "at": "2024-02-01T00:00:00Z"}),
        ("0.22", "openai", "text-davinci-003", PLAIN),
        ("0.72", "openai", "gpt-4-32k", PLAIN),
        ("0.36", "openai", "gpt-4-0314", PLAIN),
        ("0.004", "openai", "text-embedding-ada-002", {"input": 10_000, "at": "2023-06-12T00:00:00Z"}),
        ("0.001", "openai", "text-embedding-ada-002", {"input": 10_000}),
        ("0.136", "openai", "ft:gpt-3.5-turbo-0613:acme::abc", {**PLAIN, "at": "2023-10-01T00:00:00Z"}),
        ("0.036", "openai", "ft:gpt-3.5-turbo-0613:acme::abc", PLAIN),
        ("0.06", "openai", "gpt-4.1", {"extra": {"containers": 2}}),
        ("0.025", "openai", "gpt-4.1", {"extra": {"file_searches": 10}}),
        ("0.025", "openai", "ft:gpt-4.1-2025-04-14:acme::abc", {"extra": {"fine_tuning_tokens": 1_000}}),
        ("1", "openai", "sora-2", {"extra": {"video_seconds": 10}}),
        ("0.12", "openai", "gpt-4o-realtime-preview-2024-10-01",
         {"input": 1_000, "input_audio": 1_000, "output": 1_000}),
        # Anthropic: the prices of the first generation, fast mode with a long prompt, containers.
        ("0.14288", "anthropic", "claude-2.0", {**PLAIN, "at": "2023-11-20T00:00:00Z"}),
        ("0.104", "anthropic", "claude-2.1", PLAIN),
        ("0.02181", "anthropic", "claude-instant-1.2", {**PLAIN, "at": "2023-11-20T00:00:00Z"}),
        ("0.0104", "anthropic", "claude-instant-1.2", PLAIN),
        ("12.22416", "anthropic", "claude-opus-4-6",
         {"input": 200_001, "output": 996, "tier": "fast", "at": "2026-03-01T00:00:00Z"}),
        ("6.14943", "anthropic", "claude-opus-4-6",
         {"input": 200_001, "output": 996, "tier": "fast", "at": "2026-03-13T00:00:00Z"}),
        ("0.1", "anthropic", "claude-opus-4-6", {"extra": {"container_hours": 2}}),
    ],
)  # fmt: skip
def test_known_bills(usd: str, provider: str, model: str, call: dict[str, Any]) -> None:
    cost = price(provider, model, **call)
    assert (cost.usd, cost.status) == (Decimal(usd), "priced")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "dall-e-3"),
        ("openai", "sora-2-pro"),
        ("x-ai", "grok-imagine-video"),
        ("moonshotai", "moonshot-v1-auto"),
    ],
)
def test_what_is_priced_by_something_that_no_usage_tells_has_no_price(provider: str, model: str) -> None:
    assert BOOK.card(provider, model, instant(NOW)) is None


def test_a_system_of_models_has_a_price_for_its_searches_but_none_for_its_tokens() -> None:
    cost = price("groq", "groq/compound", input=1_000, output=100, extra={"web_searches": 2})
    assert (cost.usd, cost.status) == (Decimal("0.01"), "partial")
    assert set(cost.flags) == {"unpriced:input", "unpriced:output"}


def test_every_name_of_a_provider_leads_to_it() -> None:
    for provider in BOOK.providers:
        files = BOOK.files(provider)
        for name in {alias for file in files for alias in file.get("aliases", ())}:
            assert BOOK.files(name) == files, f"{name} is a name of {provider}"
