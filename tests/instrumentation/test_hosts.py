"""The host of a client -> the provider that bills."""

from __future__ import annotations

import pytest

from costspan_instrumentation.hosts import EXACT, SUFFIXES, provider_of
from costspan_instrumentation.providers.litellm.whose import NAMES
from costspan_pricing import PriceBook

# They sell by subscription, by the hour or by contract, or publish no prices: their calls have a usage and no cost.
UNPRICED = {
    "crusoe",
    "featherless-ai",
    "heroku",
    "hyperbolic",
    "nvidia_nim",
    "replicate",
    "scaleway",
    "siliconflow",
    "snowflake",
    "writer",
}


def test_every_provider_of_a_host_has_prices_or_is_known_to_have_none() -> None:
    book = PriceBook.bundled()
    named = {*EXACT.values(), *(name for _, name in SUFFIXES)}
    assert {name for name in named if not book.knows(name)} == UNPRICED


def test_every_provider_that_litellm_calls_otherwise_has_prices() -> None:
    book = PriceBook.bundled()
    assert {name for name in NAMES.values() if not book.knows(name)} == set()


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.deepseek.com", "deepseek"),
        ("api.jina.ai", "jina"),
        ("api.deepinfra.com", "deepinfra"),
        ("ollama.com", "ollama"),
        ("open.bigmodel.cn", "zhipuai"),
        ("acme.openai.azure.com", "azure.ai.openai"),
        ("europe-west4-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("bedrock-mantle.us-east-1.api.aws", "aws.bedrock"),
        ("us-south.ml.cloud.ibm.com", "ibm.watsonx.ai"),
        ("dbc-1.cloud.databricks.com", "databricks"),
        ("dashscope-intl.aliyuncs.com", "alibaba"),
        ("ai-gateway.vercel.sh", "vercel_ai_gateway"),
        # What runs here may be anybody's.
        ("localhost", None),
        ("127.0.0.1", None),
        ("", None),
        # A name that only ends like one is another's.
        ("notollama.com", None),
    ],
)
def test_a_host_tells_who_bills(host: str, provider: str | None) -> None:
    assert provider_of(host) == provider
