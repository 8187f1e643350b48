"""The bundled data: that it is whole, that every name leads where it should, what clouds and gateways charge."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costspan_pricing import Cost, PriceBook, Usage
from costspan_pricing.book import DATA as FOLDER

DATA = Path(FOLDER)

NOW = "2026-11-23T05:00:00Z"
BOOK = PriceBook.bundled()
INDEX: dict[str, dict[str, Any]] = json.loads((DATA / "index.json").read_text(encoding="utf-8"))["providers"]


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def price(name: str, at: str = NOW, tier: str | None = None, geo: str | None = None, **used: Any) -> Cost:
    provider, _, model = name.partition("/")
    card = BOOK.card(provider, model, instant(at), tier, geo)
    assert card is not None, f"{provider} has no {model}"
    return card.cost(Usage.from_inclusive(**used))


def layers(provider: str) -> list[dict[str, Any]]:
    return [json.loads((DATA / file).read_text(encoding="utf-8")) for file in INDEX[provider]["files"]]


def test_the_book_is_as_large_as_it_says() -> None:
    converted = [name for name, entry in INDEX.items() if f"{name}.json" in entry["files"] and name != "huggingface"]
    assert len(converted) >= 45
    assert sum(len(layers(name)[0]["models"]) for name in converted) >= 2_300


def test_the_index_lists_every_file_and_every_alias() -> None:
    listed = {file for entry in INDEX.values() for file in entry["files"]}
    there = {path.relative_to(DATA).as_posix() for path in (*DATA.glob("*.json"), *DATA.glob("overlay/*.json"))}
    assert listed == there - {"index.json"}, "run pricing/tools/convert_genai_prices.py --index"
    for provider, entry in INDEX.items():
        told = {alias for layer in layers(provider) for alias in layer.get("aliases", ())} - {provider}
        assert set(entry["aliases"]) == told, f"{provider}: run pricing/tools/convert_genai_prices.py --index"


def test_no_name_of_a_provider_leads_to_two() -> None:
    names = Counter(name for provider, entry in INDEX.items() for name in (provider, *entry["aliases"]))
    assert [name for name, times in names.items() if times > 1] == []
    for provider, entry in INDEX.items():
        assert {BOOK._library.canonical(name) for name in (provider, *entry["aliases"])} == {provider}


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("anthropic", "anthropic claude anthropic.messages"),
        ("aws", "aws.bedrock bedrock bedrock_converse amazon-bedrock aws_bedrock"),
        ("azure", "azure.ai.openai az.ai.openai azure.ai.inference az.ai.inference azure_openai azure_ai"),
        ("cohere", "cohere cohere_chat"),
        ("deepseek", "deepseek DeepSeek deepseek.chat"),
        ("fireworks", "fireworks_ai fireworks-ai fireworks"),
        ("github-copilot", "github_copilot"),
        ("google", "gcp.gemini gcp.vertex_ai gcp.gen_ai gemini vertex_ai google-gla google-vertex google_vertexai"),
        ("groq", "groq Groq"),
        ("huggingface", "huggingface hugging_face"),
        ("litellm", "litellm litellm_proxy portkey vercel_ai_gateway"),
        ("mistral", "mistral_ai mistralai mistral.chat"),
        ("moonshotai", "moonshot_ai moonshot"),
        ("openai", "openai openai.responses text-completion-openai OpenAI"),
        ("perplexity", "perplexity perplexity_ai"),
        ("together", "together_ai together togetherai"),
        ("voyageai", "voyage voyageai voyage_ai"),
        ("watsonx", "ibm.watsonx.ai"),
        ("x-ai", "x_ai xai x-ai grok"),
        ("zai", "zai z_ai z.ai"),
    ],
)  # fmt: skip
def test_names_in_the_wild(provider: str, names: str) -> None:
    assert {name: BOOK._library.canonical(name) for name in names.split()} == dict.fromkeys(names.split(), provider)


@pytest.mark.parametrize("provider", INDEX)
def test_every_name_leads_to_its_model(provider: str) -> None:
    owners: dict[str, str] = {}
    for layer in layers(provider):
        mine: dict[str, str] = {}
        for model, entry in layer.get("models", {}).items():
            for name in {model.lower(), *entry.get("names", ())}:
                assert mine.setdefault(name, model) == model, f"{provider}: {name} is said of {mine[name]} and {model}"
        owners |= mine
    # What the API calls perplexity/sonar is LiteLLM's name of plain `sonar` too, and is read as that.
    ambiguous = {"perplexity/sonar"}
    for name, model in owners.items():
        match = BOOK.match(provider, name)
        assert match is not None, f"{provider} lists {name} and does not find it"
        assert match.model == model or name in ambiguous, f"{provider}: {name} leads to {match.model}, not to {model}"


@pytest.mark.parametrize(
    ("usd", "name", "call"),
    [
        # Bedrock: the global profile at the base price, regions 10 % above it from Claude 4.5 on, GovCloud 20 %.
        ("0.054", "aws.bedrock/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
         {"input": 17_000, "cache_read": 5_000, "cache_write": 2_000, "output": 1_000}),
        ("0.0594", "aws.bedrock/arn:aws:bedrock:eu-central-1:123456789012:inference-profile/"
         "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
         {"input": 17_000, "cache_read": 5_000, "cache_write": 2_000, "output": 1_000}),
        ("0.495", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 100_000, "output": 10_000}),
        ("0.495", "bedrock/jp.anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 100_000, "output": 10_000}),
        ("0.2475", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
         {"input": 100_000, "output": 10_000, "tier": "batch"}),
        ("0.54", "bedrock/us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 100_000, "output": 10_000}),
        ("0.022", "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0", {"input": 10_000, "cache_write_1h": 10_000}),
        ("1.3200066", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 200_001}),
        ("18", "bedrock/apac.anthropic.claude-3-5-sonnet-20241022-v2:0", {"input": 1_000_000, "output": 1_000_000}),
        ("32", "bedrock/anthropic.claude-v2:1:200k", {"input": 1_000_000, "output": 1_000_000}),
        ("3.2", "bedrock/anthropic.claude-instant-v1", {"input": 1_000_000, "output": 1_000_000}),
        ("0.0024", "bedrock/amazon.nova-pro-v1:0", {"input": 1_000, "output": 500}),
        ("0.0024", "bedrock/amazon.nova-pro-v1:0:300k", {"input": 1_000, "output": 500}),
        ("0.00315", "bedrock/eu.amazon.nova-pro-v1:0", {"input": 1_000, "output": 500}),
        ("0.0042", "bedrock/amazon.nova-pro-v1:0", {"input": 1_000, "output": 500, "tier": "priority"}),
        ("0.003", "bedrock/us.amazon.nova-pro-v1:0", {"input": 1_000, "output": 500, "tier": "optimized"}),
        ("0.02", "bedrock/amazon.titan-embed-text-v2:0", {"input": 1_000_000}),
        ("0.12", "bedrock/global.cohere.embed-v4:0", {"input": 1_000_000}),
        ("0.01", "bedrock/amazon.titan-image-generator-v2:0", {"extra": {"images": 1}}),
        ("0.012", "bedrock/amazon.titan-image-generator-v2:0", {"extra": {"images": 1}, "tier": "premium"}),
        ("0.4", "bedrock/amazon.nova-reel-v1:1", {"extra": {"video_seconds": 5}}),
        ("0.002", "bedrock/cohere.rerank-v3-5:0", {"extra": {"rerank_searches": 1}}),
        ("1.75", "bedrock/meta.llama2-13b-chat-v1", {"input": 1_000_000, "output": 1_000_000}),
        ("1.44", "bedrock/us.meta.llama3-3-70b-instruct-v1:0", {"input": 1_000_000, "output": 1_000_000}),
        ("0.36", "bedrock/minimax.minimax-m2.5", {"input": 1_000_000, "geo": "eu-central-1"}),
        ("1.1968", "bedrock/us.openai.gpt-5.6-sol", {"input": 272_000}),
        ("2.3936088", "bedrock/us.openai.gpt-5.6-sol", {"input": 272_001}),
        # Azure: OpenAI's models at their global price, 10 % more in a data zone or a region.
        ("0.0075", "azure/gpt-4o-2024-08-06", {"input": 1_000, "output": 500}),
        ("0.00825", "azure.ai.openai/gpt-4o-2024-08-06", {"input": 1_000, "output": 500, "geo": "data_zone"}),
        ("0.00825", "azure.ai.openai/gpt-4o-2024-08-06", {"input": 1_000, "output": 500, "geo": "regional"}),
        ("0.0024", "azure/gpt-6-sol", {"input": 1_000, "geo": "data_zone_eu"}),
        ("0.03", "azure/gpt-4", {"input": 1_000, "geo": "regional"}),
        ("2", "azure/gpt-35-turbo", {"input": 1_000_000, "output": 1_000_000}),
        ("0.00055", "azure/o3-mini", {"input": 1_000, "tier": "batch"}),
        ("0.13", "azure/text-embedding-3-large", {"input": 1_000_000}),
        ("6.75", "azure.ai.inference/DeepSeek-R1", {"input": 1_000_000, "output": 1_000_000}),
        ("1.42", "azure.ai.inference/Llama-3.3-70B-Instruct", {"input": 1_000_000, "output": 1_000_000}),
        ("0.045", "azure/claude-sonnet-4-5", {"input": 10_000, "output": 1_000}),
        # Vertex AI: a regional endpoint costs 10 % more from Claude 4.5 on, the global one and older models do not.
        ("0.045", "gcp.vertex_ai/claude-sonnet-4-5@20250929", {"input": 10_000, "output": 1_000}),
        ("0.0495", "gcp.vertex_ai/claude-sonnet-4-5@20250929", {"input": 10_000, "output": 1_000, "geo": "us-east5"}),
        ("0.045", "gcp.vertex_ai/claude-sonnet-4-5@20250929", {"input": 10_000, "output": 1_000, "geo": "global"}),
        ("0.045", "gcp.vertex_ai/claude-sonnet-4@20250514", {"input": 10_000, "output": 1_000, "geo": "europe-west1"}),
        ("0.022", "vertex_ai/claude-haiku-4-5@20251001", {"input": 10_000, "cache_write_1h": 10_000, "geo": "eu"}),
        ("0.0225", "vertex_ai/claude-sonnet-4-6@default", {"input": 10_000, "output": 1_000, "tier": "batch"}),
        ("1.44", "vertex_ai/publishers/meta/models/llama-3.3-70b-instruct-maas",
         {"input": 1_000_000, "output": 1_000_000}),
        ("0.8", "vertex_ai/mistral-medium-3@001", {"input": 2_000_000}),
        ("0.1", "vertex_ai/text-embedding-005", {"input": 1_000_000}),
        ("0.08", "google/imagen-4.0-generate-001", {"extra": {"images": 2}}),
        ("3.2", "google/veo-3.1-generate-preview", {"extra": {"video_seconds": 8}}),
        ("6", "google/veo-3.0-generate-001", {"extra": {"video_seconds": 8}, "at": "2025-08-01T00:00:00Z"}),
        ("0.025", "google/gemini-2.5-flash", {"extra": {"maps_prompts": 1}}),
        # Gateways.
        ("0.0105", "openrouter/anthropic/claude-sonnet-4", {"input": 1_000, "output": 500}),
        ("12.5", "openrouter/openai/gpt-4o:nitro", {"input": 1_000_000, "output": 1_000_000}),
        ("0.669", "huggingface/deepseek-ai/DeepSeek-V3.2:novita", {"input": 1_000_000, "output": 1_000_000}),
        ("0.006", "litellm/openai/gpt-4.1", {"input": 1_000, "output": 500}),
        ("0.006", "litellm/gpt-4.1", {"input": 1_000, "output": 500}),
        ("0.66", "litellm/bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"input": 200_000}),
        ("0.045", "litellm/vertex_ai/claude-sonnet-4-5@20250929", {"input": 10_000, "output": 1_000}),
        ("0.006", "cloudflare/openai/gpt-4.1", {"input": 1_000, "output": 500}),
        ("0.0051", "cloudflare/@cf/openai/whisper-large-v3-turbo", {"extra": {"audio_seconds": 600}}),
        ("30", "databricks/databricks-claude-opus-4-5", {"input": 1_000_000, "output": 1_000_000}),
        ("0.0195", "perplexity/sonar-pro", {"input": 2_000, "output": 500, "extra": {"requests": 1}}),
        ("5.4", "github_copilot/claude-sonnet-5", {"input": 200_000, "output": 500_000}),
    ],
)  # fmt: skip
def test_known_bills(usd: str, name: str, call: dict[str, Any]) -> None:
    cost = price(name, **call)
    assert (cost.usd, cost.status) == (Decimal(usd), "priced")


@pytest.mark.parametrize(
    "name",
    [
        "openrouter/deepseek/deepseek-r1:free",
        "openrouter/nobody/has-listed-this:free",
        "github-copilot/gpt-4.1",
        "openai/omni-moderation-latest",
        "ollama/llama3.1:8b",
        "litellm/ollama/llama3.1:8b",
    ],
)
def test_what_is_free_is_known_to_be(name: str) -> None:
    cost = price(name, input=5_000, output=700)
    assert (cost.total, cost.status) == (0, "free")


@pytest.mark.parametrize(
    "name",
    [
        # Nothing that is merely longer or newer than a listed name, in any provider's way of writing names.
        "bedrock/anthropic.claude-opus-9",
        "bedrock/amazon.nova-ultra-v1:0",
        "bedrock/anthropic.claude-sonnet-4-5-max-v1:0",
        "bedrock/zai.glm-5.3",  # sold through inference profiles alone
        "bedrock/arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
        "azure/prod-chat",
        "azure/gpt-4o-turbo-ultra",
        "azure/deepseek-chat",  # DeepSeek's own name, with hours that Azure does not have
        "vertex_ai/claude-opus-9@20270101",
        "vertex_ai/meta/llama-9-maas",
        "openrouter/openai/gpt-4o:weird",
        "openrouter/openai/gpt-4o-ultra",
        "openrouter/google/lyria-3-pro-preview",  # listed, and nobody says at what price
        "huggingface/deepseek-ai/DeepSeek-V3.2",  # the router chooses the host, and so the price
        "huggingface/deepseek-ai/DeepSeek-V3.2:nobody",
        "cerebras/qwen-3-coder-480b-ultra",
        "litellm/openai/gpt-99-hyper",
        "litellm/gpt-99-hyper",
        "litellm/acme/gpt-4.1",
        "cloudflare/@cf/acme/model",
        "databricks/databricks-claude-opus-9",
        "github-copilot/gpt-4",
        "perplexity/sonar-ultra",
    ],
)
def test_what_nobody_lists_has_no_price(name: str) -> None:
    provider, _, model = name.partition("/")
    assert BOOK.knows(provider)
    assert BOOK.card(provider, model, instant(NOW)) is None


def test_a_tier_that_a_cloud_has_no_price_for_is_an_estimate() -> None:
    cost = price("bedrock/amazon.nova-lite-v1:0", tier="reserved", input=1_000_000)
    assert (cost.usd, cost.status, cost.flags) == (Decimal("0.06"), "estimated", ("tier_unpriced",))


def test_what_a_free_provider_sells_in_its_cloud_has_no_price() -> None:
    assert price("ollama/gpt-oss:120b-cloud", tier="standard", input=1).status == "free"
    assert BOOK.card("ollama", "gpt-oss:120b-cloud", instant(NOW), "cloud") is None


def test_searches_are_not_part_of_a_regional_premium() -> None:
    cost = price("vertex_ai/claude-sonnet-4-5", geo="us-east5", input=10_000, extra={"web_searches": 3})
    assert cost.usd == Decimal("0.033") + 3 * Decimal("0.01")
