"""How other libraries' spans say what the GenAI conventions say: data alone, and how to add to it.

A dialect is a row of `DIALECTS`: the scopes whose spans speak it, and where it departs from the conventions. Spellings
that several libraries share stand in `SPELLINGS` once. `translation` reads both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from costspan_processor.conventions import (
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_ID,
    RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVICE_TIER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

INPUT: Final = "gen_ai.usage.input_tokens"
OUTPUT: Final = "gen_ai.usage.output_tokens"
CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
CACHE_WRITE_5M: Final = "costspan.usage.cache_write_5m"
CACHE_WRITE_1H: Final = "costspan.usage.cache_write_1h"
REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
TOTAL: Final = "gen_ai.usage.total_tokens"
UNCACHED: Final = "input beside the cached"
SPOKEN: Final = "output beside the reasoning"
"""Parts that some report where a total belongs."""
SYSTEM: Final = "gen_ai.system"
_RESPONSE_TIER: Final = "openai.response.service_tier"

ALL: Final = frozenset({"*"})
"""Every provider."""
_NONE: Final[frozenset[str]] = frozenset()
_GOOGLE: Final = frozenset({"gemini", "google", "google_genai", "gcp.gemini", "gcp.vertex_ai", "vertexai", "vertex_ai"})

SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    PROVIDER: ("llm.provider", "ai.model.provider", "mlflow.llm.provider", SYSTEM, "llm.system", "llm.vendor"),
    REQUEST_MODEL: (
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "llm.request.model",
        "ai.model.id",
        "mlflow.llm.model",
        "langfuse.observation.model.name",
        "llm.model",
    ),
    RESPONSE_MODEL: ("llm.response.model_name", "llm.response.model", "ai.response.model"),
    SERVER_ADDRESS: ("gen_ai.openai.api_base",),
    RESPONSE_ID: ("ai.response.id", "llm.response.id", "gen_ai.openai.response.id"),
    INPUT: (
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        "usage.prompt_tokens",
    ),
    OUTPUT: (
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "usage.completion_tokens",
    ),
    TOTAL: ("llm.token_count.total", "llm.usage.total_tokens", "ai.usage.totalTokens", "usage.total_tokens"),
    CACHE_READ: (
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.prompt_tokens_details.cached_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
        "llm.usage.cache_read_input_tokens",
    ),
    CACHE_WRITE: (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.input_tokens.cache_write",
        "gen_ai.usage.prompt_tokens_details.cache_creation_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
        "llm.usage.cache_creation_input_tokens",
    ),
    CACHE_WRITE_5M: (
        "anthropic.usage.cache_creation.ephemeral_5m_input_tokens",
        "gen_ai.usage.ephemeral_5m_input_tokens",
        "gen_ai.usage.details.ephemeral_5m_input_tokens",
    ),
    CACHE_WRITE_1H: (
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
        "gen_ai.usage.ephemeral_1h_input_tokens",
        "gen_ai.usage.details.ephemeral_1h_input_tokens",
    ),
    REASONING: (
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.completion_tokens_details.reasoning_tokens",
        "gen_ai.usage.reasoning_output_tokens",
        "llm.token_count.completion_details.reasoning",
        "llm.usage.reasoning_tokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
        "ai.usage.reasoningTokens",
    ),
    "gen_ai.usage.audio.input_tokens": (
        "llm.token_count.prompt_details.audio",
        "gen_ai.usage.details.input_audio_tokens",
    ),
    "gen_ai.usage.audio.output_tokens": (
        "llm.token_count.completion_details.audio",
        "gen_ai.usage.details.output_audio_tokens",
        "gen_ai.usage.completion_tokens_details.audio_tokens",
    ),
    "gen_ai.usage.audio.cache_read.input_tokens": ("gen_ai.usage.details.cache_audio_read_tokens",),
    "costspan.usage.web_searches": ("anthropic.usage.server_tool_use.web_search_requests",),
    SERVICE_TIER: ("anthropic.response.service_tier", "gen_ai.response.service_tier"),
    _RESPONSE_TIER: ("gen_ai.openai.response.service_tier",),
    "openai.request.service_tier": ("gen_ai.openai.request.service_tier",),
}
"""The conventions' name -> what others call it, the best first: some libraries send several."""

OPERATIONS: Final[Mapping[str, str]] = {
    "completion": "text_completion",
    "embedding": "embeddings",
    "llm_call": "chat",
    "responses": "chat",
    "aresponses": "chat",
}
VERCEL_PROVIDERS: Final = {"amazon-bedrock": "aws.bedrock", "google-vertex": "vertex", "azure-openai": "azure"}
"""What the Vercel AI SDK calls a provider -> what others call it."""
CLOUDS: Final = ("aws", "gcp", "az", "azure", "ibm")
"""What stands before a dot in the name of a provider; before any other, the provider stands itself."""
MAKERS_ON_BEDROCK: Final = (
    "anthropic", "amazon", "meta", "mistral", "cohere", "ai21", "deepseek", "writer", "qwen", "openai",
)  # fmt: skip
"""What stands before a dot in the names of Bedrock's models."""

WITHOUT_CACHE: Final = frozenset({"embeddings", "rerank", "moderation"})
"""Operations that read nothing from a cache."""
WITH_TOOLS: Final = frozenset({"chat", "generate_content"})
"""Operations that may be offered tools of the provider's own."""
API: Final = "openai.api.type"
APIS_WITHOUT_TOOLS: Final = frozenset({"chat_completions", "completions"})
"""APIs of OpenAI that offer no tools of its own."""

_REQUEST_TYPE: Final = ("llm.request.type", {**OPERATIONS, "chat": "chat", "rerank": "rerank"})


class Dialect(NamedTuple):
    """Where the spans of one library depart from the conventions."""

    name: str
    scopes: tuple[str, ...]
    """Names of the instrumentation scopes; a trailing * is any ending."""
    signs: tuple[str, ...] = ()
    """Attributes that only its spans have, whatever their scope."""
    outside: frozenset[str] = _NONE
    """Providers whose cached tokens this library reports beside the input, not in it."""
    thoughts: frozenset[str] = _NONE
    """Providers whose reasoning it reports beside the output, or only in the total."""
    kinds: tuple[str, Mapping[str, str]] | None = None
    """The attribute that tells what a span is, and the operations that its values mean; any other is no call."""
    keys: Mapping[str, str] = {}
    """Attributes of its own -> the conventions' names."""
    inside: Mapping[str, Mapping[str, str]] = {}
    """Attributes that hold JSON -> paths in it -> the conventions' names."""
    beside: Mapping[str, str] = {}
    """Attributes whose counts are billed on top -> the count they belong to."""
    encoded: bool = False
    """Whether every attribute is JSON."""
    lost: Mapping[str, tuple[str, ...]] = {}
    """Provider (* is any other) -> what its spans leave out though the price depends on it: such a call is an estimate.

    `TTL`, `CACHE`, `WRITES`, `TIER`, `TOOLS` and `AUDIO` are lost only where a span does not say it and the price
    depends on it, anything else always."""
    shown: tuple[str, ...] = ()
    """Beginnings of the attributes that hold the tools which a call was offered, as JSON, or what tools cost."""
    shown_with: tuple[str, ...] = ()
    """Attributes one of which a span has if those hold the provider's own tools too; if empty, all spans' do."""
    cost: tuple[str, ...] = ()
    """Attributes with the library's own figure of the cost, taken where its spans leave out what ours depends on."""
    ticks: str = ""
    """The attribute with the provider's own figure of the cost, in 10^-10 USD: where it is, nothing is lost."""
    services: tuple[str, ...] = ()
    """Names of services (`service.name`) that speak it, whatever the scope."""
    guess: bool = False
    """Whether counts decide, where they can, if cached tokens are in the input."""


TTL: Final = "how long a cache write lives"
"""Lost where something was written and its lifetime is not on the span."""
CACHE: Final = "what was read from the cache"
"""Lost where the span says nothing of cache reads."""
WRITES: Final = "what was written to the cache"
"""Lost where the span says nothing of cache writes and the model's cost more than other input."""
TOOLS: Final = "what the provider's own tools were used for"
"""Lost where a call may have been offered some (web search and the like), which are billed beside the tokens."""
AUDIO: Final = "how much of it was audio"
"""Lost where the model's audio has a price of its own."""
TIER: Final = "the service tier"
"""Lost where the span says nothing of it."""
_GATEWAYS: Final = {
    "perplexity": ("the fee of a request",),
    "openrouter": ("what the provider itself says that it costs",),
}
"""Lost by all who read the tokens alone."""
_AUDIO_OF_OPENAI: Final = {
    "prompt_tokens_details.audio_tokens": "gen_ai.usage.audio.input_tokens",
    "completion_tokens_details.audio_tokens": "gen_ai.usage.audio.output_tokens",
}
_USAGE_OF_ANTHROPIC: Final = {
    "cache_creation.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
    "cache_creation.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
    "service_tier": SERVICE_TIER,
    "server_tool_use.web_search_requests": "costspan.usage.web_searches",
}

_OFFERED: Final = ("llm.tools.", "llm.invocation_parameters")
_DEFINED: Final = ("gen_ai.tool.definitions",)
_OPENINFERENCE: Final = Dialect(
    "OpenInference",
    ("openinference.*",),
    kinds=(
        "openinference.span.kind",
        {"LLM": "chat", "EMBEDDING": "embeddings", "RERANKER": "rerank", "AGENT": "invoke_agent"},
    ),
    inside={"llm.invocation_parameters": {"service_tier": "openai.request.service_tier"}},
)
_VERCEL_KINDS: Final = (
    "ai.operationId",
    {
        **dict.fromkeys(
            (
                "ai.generateText.doGenerate",
                "ai.streamText.doStream",
                "ai.generateObject.doGenerate",
                "ai.streamObject.doStream",
            ),
            "chat",
        ),
        **dict.fromkeys(("ai.embed.doEmbed", "ai.embedMany.doEmbed"), "embeddings"),
        "ai.rerank.doRerank": "rerank",
        **dict.fromkeys(
            ("ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject", "ai.embed", "ai.embedMany"),
            "invoke_workflow",
        ),
    },
)

_VERCEL_METADATA: Final = {
    "anthropic.usage.cache_read_input_tokens": CACHE_READ,
    "anthropic.usage.cache_creation_input_tokens": CACHE_WRITE,
    "anthropic.cacheCreationInputTokens": CACHE_WRITE,
    "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
    "openai.cachedPromptTokens": CACHE_READ,
    "openai.reasoningTokens": REASONING,
    "openai.serviceTier": _RESPONSE_TIER,
    "anthropic.usage.server_tool_use.web_search_requests": "costspan.usage.web_searches",
}
_VERCEL_LOST: Final = {"anthropic": (TTL, TOOLS), "openai": (TIER, TOOLS, AUDIO), "*": (TOOLS, AUDIO)}

DIALECTS: Final = (
    Dialect(
        "OpenTelemetry, Bedrock",
        ("opentelemetry.instrumentation.genai.bedrock*", "opentelemetry.instrumentation.botocore.bedrock-runtime*"),
        outside=ALL,
        lost={"*": (CACHE,)},
    ),
    Dialect("OpenTelemetry, OpenAI v2", ("opentelemetry.instrumentation.openai_v2*",), lost={"*": (CACHE,)}),
    Dialect(
        "OpenTelemetry",
        (
            "opentelemetry.instrumentation.genai.*",
            "opentelemetry.instrumentation.google_genai*",
            "opentelemetry.util.genai*",
        ),
        lost={"anthropic": (TTL, TOOLS), "*": (TOOLS,), **_GATEWAYS},
    ),
    Dialect(
        "Anthropic SDK",
        ("com.anthropic.sdk.*",),
        lost={"*": (TOOLS,)},
        beside={"anthropic.usage.compaction.input_tokens": INPUT, "anthropic.usage.compaction.output_tokens": OUTPUT},
    ),
    Dialect(
        "xAI SDK",
        ("xai_sdk.*",),
        thoughts=ALL,
        keys={
            "gen_ai.usage.cached_prompt_text_tokens": CACHE_READ,
            "gen_ai.usage.prompt_image_tokens": "gen_ai.usage.image.input_tokens",
        },
        lost={"*": (TIER, TOOLS)},
        ticks="gen_ai.usage.cost_in_usd_ticks",
    ),
    Dialect(
        "OpenLLMetry, Bedrock",
        ("opentelemetry.instrumentation.bedrock",),
        outside=ALL,
        kinds=_REQUEST_TYPE,
        lost={"*": ("the region that a model is called in",)},
    ),
    Dialect(
        "OpenLLMetry, OpenAI",
        ("opentelemetry.instrumentation.openai.*",),
        thoughts=frozenset({"x_ai"}),
        kinds=_REQUEST_TYPE,
        lost={"*": (WRITES, TOOLS, AUDIO), **_GATEWAYS},
        shown=_DEFINED,
        # Of the Responses API it shows functions alone, and tells of no address.
        shown_with=("gen_ai.openai.api_base",),
    ),
    Dialect(
        "OpenLLMetry, LlamaIndex",
        ("opentelemetry.instrumentation.llamaindex*",),
        outside=frozenset({"anthropic"}),
        kinds=_REQUEST_TYPE,
        lost={"anthropic": (TTL,)},
    ),
    Dialect(
        "OpenLLMetry, Google",
        ("opentelemetry.instrumentation.google_generativeai", "opentelemetry.instrumentation.vertexai"),
        thoughts=ALL,
        kinds=_REQUEST_TYPE,
        lost={"*": (TOOLS, AUDIO)},
        shown=_DEFINED,
    ),
    Dialect(
        "OpenLLMetry, LangChain",
        ("opentelemetry.instrumentation.langchain",),
        kinds=_REQUEST_TYPE,
        lost={"*": (CACHE,), "anthropic": ("what was written to the cache, told as 0",)},
    ),
    Dialect(
        "OpenLLMetry",
        (
            *(
                f"opentelemetry.instrumentation.{package}*"
                for package in (
                    "openai",
                    "anthropic",
                    "cohere",
                    "mistralai",
                    "groq",
                    "ollama",
                    "together",
                    "replicate",
                    "watsonx",
                    "alephalpha",
                    "sagemaker",
                    "transformers",
                    "writer",
                    "voyageai",
                    "langchain",
                    "haystack",
                    "crewai",
                    "agno",
                )
            ),
            "traceloop.*",
        ),
        kinds=_REQUEST_TYPE,
        lost={
            "anthropic": (TTL, TOOLS),
            "aws.bedrock": (TTL,),
            "mistral_ai": (CACHE, AUDIO),
            "*": (TOOLS, AUDIO),
            **_GATEWAYS,
        },
        shown=_DEFINED,
    ),
    Dialect(
        "Mistral SDK",
        ("mistralai_sdk_tracer*",),
        kinds=(
            "mistral_ai.operation.id",
            {
                **dict.fromkeys(
                    (
                        "chat_completion_v1_chat_completions_post",
                        "stream_chat",
                        "agents_completion_v1_agents_completions_post",
                        "ocr_v1_ocr_post",
                    ),
                    "chat",
                ),
                **dict.fromkeys(("fim_completion_v1_fim_completions_post", "stream_fim"), "text_completion"),
                "embeddings_v1_embeddings_post": "embeddings",
                **dict.fromkeys(
                    (
                        "moderations_v1_moderations_post",
                        "chat_moderations_v1_chat_moderations_post",
                        "classifications_v1_classifications_post",
                        "chat_classifications_v1_chat_classifications_post",
                    ),
                    "moderation",
                ),
            },
        ),
        keys={"mistral_ai.ocr.usage.pages_processed": "costspan.usage.pages"},
        lost={"*": (CACHE, AUDIO)},
    ),
    _OPENINFERENCE._replace(
        name="OpenInference, Claude Agent SDK",
        scopes=("openinference.instrumentation.claude_agent_sdk",),
        outside=frozenset({"anthropic"}),
        lost={"*": (TTL,)},
    ),
    _OPENINFERENCE._replace(
        name="OpenInference, LlamaIndex",
        scopes=("openinference.instrumentation.llama_index",),
        lost={"anthropic": (TTL,)},
        guess=True,
    ),
    _OPENINFERENCE._replace(
        name="OpenInference, OpenAI Agents",
        scopes=("openinference.instrumentation.openai_agents",),
        lost={"*": (CACHE,)},
    ),
    _OPENINFERENCE._replace(
        name="OpenInference, Bedrock",
        scopes=("openinference.instrumentation.bedrock",),
        lost={"*": (TTL,)},
        guess=True,
    ),
    _OPENINFERENCE._replace(
        name="OpenInference, Google",
        scopes=("openinference.instrumentation.google_genai",),
        lost={"*": (TOOLS,)},
    ),
    _OPENINFERENCE._replace(
        lost={"anthropic": (TTL, TOOLS), "mistralai": (CACHE, TOOLS), "*": (TOOLS,), **_GATEWAYS},
        shown=_OFFERED,
    ),
    Dialect(
        "Logfire",
        ("logfire.*",),
        inside={"gen_ai.usage.raw": {**_USAGE_OF_ANTHROPIC, **_AUDIO_OF_OPENAI}},
        lost={"openai": (TIER, TOOLS)},
        shown=_DEFINED,
    ),
    Dialect(
        "Pydantic AI",
        ("pydantic-ai*", "pydantic_ai*"),
        keys={"gen_ai.usage.details.web_search_requests": "costspan.usage.web_searches"},
        lost={"anthropic": (TTL, TOOLS), "openai": (TIER, TOOLS), "*": (TOOLS,)},
        shown=("model_request_parameters",),
        shown_with=("model_request_parameters",),
        cost=("operation.cost",),
    ),
    Dialect(
        "OpenLIT",
        ("openlit*",),
        outside=frozenset({"anthropic", "aws.bedrock"}),
        thoughts=_GOOGLE,
        lost={"anthropic": (TTL, TOOLS), "aws.bedrock": (TTL,), "*": (TOOLS, AUDIO)},
    ),
    Dialect(
        "Vercel AI SDK 6",
        (),
        signs=(
            "ai.usage.inputTokenDetails.noCacheTokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
        ),
        kinds=_VERCEL_KINDS,
        inside={"ai.response.providerMetadata": _VERCEL_METADATA},
        lost=_VERCEL_LOST,
        shown=("ai.prompt.tools",),
        shown_with=("ai.prompt.messages",),
    ),
    Dialect(
        "Vercel AI SDK 4 and 5",
        ("ai",),
        outside=frozenset({"anthropic"}),
        kinds=_VERCEL_KINDS,
        inside={"ai.response.providerMetadata": _VERCEL_METADATA},
        lost=_VERCEL_LOST,
        shown=("ai.prompt.tools",),
        shown_with=("ai.prompt.messages",),
    ),
    Dialect(
        "Vercel AI SDK 7",
        ("gen_ai",),
        inside={"ai.response.providerMetadata": _VERCEL_METADATA},
        lost=_VERCEL_LOST,
        shown=_DEFINED,
        shown_with=("gen_ai.input.messages",),
    ),
    Dialect(
        "LangSmith",
        ("langsmith*",),
        kinds=("langsmith.span.kind", {"llm": "chat", "embedding": "embeddings"}),
        inside={
            "gen_ai.usage.input_token_details": {
                "cache_read": CACHE_READ,
                "priority_cache_read": CACHE_READ,
                "flex_cache_read": CACHE_READ,
                "cache_creation": CACHE_WRITE,
                "ephemeral_5m_input_tokens": CACHE_WRITE_5M,
                "ephemeral_1h_input_tokens": CACHE_WRITE_1H,
                "audio": "gen_ai.usage.audio.input_tokens",
            },
            "gen_ai.usage.output_token_details": {
                "reasoning": REASONING,
                "priority_reasoning": REASONING,
                "flex_reasoning": REASONING,
                "audio": "gen_ai.usage.audio.output_tokens",
            },
        },
        thoughts=_GOOGLE,
        guess=True,
        lost={
            "anthropic": (TOOLS,),
            "openai": (TIER, TOOLS, WRITES),
            **dict.fromkeys(sorted(_GOOGLE), (TOOLS, AUDIO)),
            "*": (TOOLS,),
        },
        shown=("gen_ai.prompt",),
        shown_with=("gen_ai.prompt",),
    ),
    Dialect(
        "Langfuse",
        ("langfuse*",),
        kinds=("langfuse.observation.type", {"generation": "chat", "embedding": "embeddings"}),
        inside={
            "langfuse.observation.usage_details": {
                "input": UNCACHED,
                "output": SPOKEN,
                "prompt_tokens": INPUT,
                "completion_tokens": OUTPUT,
                "input_tokens": INPUT,
                "output_tokens": OUTPUT,
                "prompt_tokens_details.cached_tokens": CACHE_READ,
                "input_tokens_details.cached_tokens": CACHE_READ,
                "input_cached_tokens": CACHE_READ,
                "cache_read_input_tokens": CACHE_READ,
                "input_cache_read": CACHE_READ,
                "cache_creation_input_tokens": CACHE_WRITE,
                "input_cache_creation": CACHE_WRITE,
                "input_cache_creation_5m": CACHE_WRITE_5M,
                "input_cache_creation_1h": CACHE_WRITE_1H,
                "prompt_tokens_details.cache_write_tokens": CACHE_WRITE,
                "input_tokens_details.cache_write_tokens": CACHE_WRITE,
                **_AUDIO_OF_OPENAI,
                "completion_tokens_details.reasoning_tokens": REASONING,
                "output_tokens_details.reasoning_tokens": REASONING,
                "output_reasoning_tokens": REASONING,
                "output_reasoning": REASONING,
            },
            "langfuse.observation.model.parameters": {"service_tier": "openai.request.service_tier"},
        },
        lost={"anthropic": (TTL, TOOLS), "*": (TOOLS,)},
        shown=("langfuse.observation.input",),
        shown_with=("langfuse.observation.input",),
    ),
    Dialect(
        "MLflow",
        ("mlflow*",),
        encoded=True,
        thoughts=_GOOGLE,
        keys={"service_tier": "openai.request.service_tier"},
        lost={"openai": (WRITES, TOOLS, AUDIO), **dict.fromkeys(sorted(_GOOGLE), (TOOLS, AUDIO)), "*": (TTL, TOOLS)},
        shown=("tools", "mlflow.spanInputs"),
        shown_with=("mlflow.spanInputs",),
        kinds=(
            "mlflow.spanType",
            {
                "CHAT_MODEL": "chat",
                "LLM": "chat",
                "EMBEDDING": "embeddings",
                "RERANKER": "rerank",
                "AGENT": "invoke_agent",
            },
        ),
        inside={
            "mlflow.chat.tokenUsage": {
                "input_tokens": INPUT,
                "output_tokens": OUTPUT,
                "total_tokens": TOTAL,
                "cache_read_input_tokens": CACHE_READ,
                "cache_creation_input_tokens": CACHE_WRITE,
                "cache_creation_input_tokens_above_1hr": CACHE_WRITE_1H,
            }
        },
    ),
    Dialect("Google ADK", ("gcp.vertex.agent*",)),
    Dialect("Semantic Kernel", ("semantic_kernel*",), lost={"*": (CACHE,)}),
    Dialect("Strands", ("strands*",), guess=True, lost={"anthropic": (TTL,), "aws.bedrock": (TTL,)}),
    Dialect(
        "Claude Code",
        ("com.anthropic.claude_code*",),
        signs=("cache_read_tokens", "cache_creation_tokens"),
        services=("claude-code",),
        outside=ALL,
        kinds=("span.type", {"llm_request": "chat"}),
        keys={
            "model": REQUEST_MODEL,
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "cache_read_tokens": CACHE_READ,
            "cache_creation_tokens": CACHE_WRITE,
        },
        lost={"*": (TTL,)},
    ),
    Dialect(
        "Codex CLI",
        ("codex*",),
        signs=("cached_token_count",),
        services=("codex_cli_rs", "codex-cli", "codex"),
        kinds=("event.kind", {"response.completed": "chat"}),
        keys={
            "model": REQUEST_MODEL,
            "input_token_count": INPUT,
            "output_token_count": OUTPUT,
            "cached_token_count": CACHE_READ,
            "reasoning_token_count": REASONING,
        },
    ),
    Dialect(
        "Gemini CLI",
        ("gemini-cli*",),
        thoughts=ALL,
        services=("gemini-cli",),
        keys={
            "model": REQUEST_MODEL,
            "input_token_count": INPUT,
            "output_token_count": OUTPUT,
            "cached_content_token_count": CACHE_READ,
            "thoughts_token_count": REASONING,
            "total_token_count": TOTAL,
        },
        lost={"*": ("what was read from the cache, and thoughts",)},
    ),
    Dialect(
        "LiteLLM",
        ("litellm*",),
        signs=("metadata.usage_object",),
        inside={
            "metadata.usage_object": {
                "prompt_tokens_details.cached_tokens": CACHE_READ,
                "prompt_tokens_details.cache_write_tokens": CACHE_WRITE,
                "prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
                "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
                "completion_tokens_details.reasoning_tokens": REASONING,
                **_AUDIO_OF_OPENAI,
            }
        },
        lost={
            "anthropic": (CACHE, TTL, TOOLS),
            "openai": (TIER, TOOLS, AUDIO),
            "*": (CACHE, TOOLS, AUDIO),
        },
        shown=("gen_ai.cost.tool_usage_cost", "litellm.cost.tool_usage"),
        shown_with=("gen_ai.cost.tool_usage_cost", "litellm.cost.tool_usage"),
        cost=("litellm.cost.total", "gen_ai.cost.total_cost"),
    ),
    Dialect(
        "Datadog",
        ("ddtrace*",),
        signs=("_ml_obs.metrics.input_tokens",),
        kinds=("_ml_obs.meta.span.kind", {"llm": "chat", "embedding": "embeddings"}),
        keys={
            "_ml_obs.meta.model_name": REQUEST_MODEL,
            "_ml_obs.meta.model_provider": PROVIDER,
            "_ml_obs.metrics.input_tokens": INPUT,
            "_ml_obs.metrics.output_tokens": OUTPUT,
            "_ml_obs.metrics.total_tokens": TOTAL,
            "_ml_obs.metrics.cache_read_input_tokens": CACHE_READ,
            "_ml_obs.metrics.cache_write_input_tokens": CACHE_WRITE,
            "_ml_obs.metrics.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
            "_ml_obs.metrics.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
            "_ml_obs.metrics.reasoning_output_tokens": REASONING,
        },
        lost={"anthropic": (TTL,)},
    ),
    Dialect("Sentry", ("sentry*",), signs=("gen_ai.usage.input_tokens.cached",), lost={"anthropic": (TTL,)}),
    Dialect("AgentOps", ("agentops*",), guess=True, lost={"anthropic": (TTL,)}),
    Dialect(
        "Laminar",
        ("lmnr*",),
        signs=("lmnr.span.type",),
        guess=True,
        kinds=("lmnr.span.type", {"LLM": "chat"}),
        lost={"anthropic": (TTL,)},
    ),
    Dialect(
        "VoltAgent",
        ("voltagent*",),
        signs=("usage.prompt_tokens",),
        kinds=("span.type", {"llm": "chat", "agent": "invoke_agent"}),
        lost={"*": (CACHE,)},
        guess=True,
    ),
)
"""Every dialect, the more special scope before the more general one. The first that fits is the one."""
