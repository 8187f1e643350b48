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
SYSTEM: Final = "gen_ai.system"
_RESPONSE_TIER: Final = "openai.response.service_tier"

ALL: Final = frozenset({"*"})
"""Every provider."""
_NONE: Final[frozenset[str]] = frozenset()

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
    ),
    CACHE_WRITE_1H: (
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
        "gen_ai.usage.ephemeral_1h_input_tokens",
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
}
_REQUEST_TYPE: Final = ("llm.request.type", {**OPERATIONS, "chat": "chat", "rerank": "rerank", "responses": "chat"})


class Dialect(NamedTuple):
    """Where the spans of one library depart from the conventions."""

    name: str
    scopes: tuple[str, ...]
    """Names of the instrumentation scopes; a trailing * is any ending."""
    outside: frozenset[str] = _NONE
    """Providers whose cached tokens this library reports beside the input, not in it."""
    before: str = ""
    """The scope's version since which that is no longer so."""
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
    lost: Mapping[str, str] = {}
    """Provider (* is all) -> what its spans leave out though the price depends on it: such a call is an estimate."""
    services: tuple[str, ...] = ()
    """Names of services (`service.name`) that speak it, whatever the scope."""
    guess: bool = False
    """Whether counts decide, where they can, if cached tokens are in the input."""


TTL: Final = "how long a cache write lives"
_USAGE_OF_ANTHROPIC: Final = {
    "cache_creation.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
    "cache_creation.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
    "service_tier": SERVICE_TIER,
    "server_tool_use.web_search_requests": "costspan.usage.web_searches",
}

_OPENINFERENCE_KINDS: Final = (
    "openinference.span.kind",
    {"LLM": "chat", "EMBEDDING": "embeddings", "RERANKER": "rerank", "AGENT": "invoke_agent"},
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

DIALECTS: Final = (
    Dialect(
        "OpenTelemetry, Bedrock",
        ("opentelemetry.instrumentation.genai.bedrock*", "opentelemetry.instrumentation.botocore.bedrock-runtime*"),
        outside=ALL,
    ),
    Dialect(
        "OpenTelemetry",
        (
            "opentelemetry.instrumentation.genai.*",
            "opentelemetry.instrumentation.openai_v2*",
            "opentelemetry.instrumentation.google_genai*",
            "opentelemetry.util.genai*",
        ),
        lost={"anthropic": TTL},
    ),
    Dialect(
        "Anthropic SDK",
        ("com.anthropic.sdk.*",),
        beside={"anthropic.usage.compaction.input_tokens": INPUT, "anthropic.usage.compaction.output_tokens": OUTPUT},
    ),
    Dialect(
        "OpenLLMetry, Bedrock",
        ("opentelemetry.instrumentation.bedrock",),
        outside=ALL,
        kinds=_REQUEST_TYPE,
        lost={"*": TTL},
    ),
    Dialect(
        "OpenLLMetry, LlamaIndex",
        ("opentelemetry.instrumentation.llamaindex*",),
        outside=frozenset({"anthropic"}),
        kinds=_REQUEST_TYPE,
        lost={"anthropic": TTL},
    ),
    Dialect(
        "OpenLLMetry, Google",
        ("opentelemetry.instrumentation.google_generativeai", "opentelemetry.instrumentation.vertexai"),
        thoughts=ALL,
        kinds=_REQUEST_TYPE,
        lost={"*": "what was read from the cache"},
    ),
    Dialect(
        "OpenLLMetry",
        ("opentelemetry.instrumentation.*", "traceloop.*"),
        kinds=_REQUEST_TYPE,
        lost={"anthropic": TTL, "aws.bedrock": TTL},
    ),
    Dialect(
        "OpenInference, exclusive",
        ("openinference.instrumentation.claude_agent_sdk", "openinference.instrumentation.llama_index"),
        outside=frozenset({"anthropic"}),
        kinds=_OPENINFERENCE_KINDS,
        lost={"anthropic": TTL},
    ),
    Dialect(
        "OpenInference, Bedrock",
        ("openinference.instrumentation.bedrock",),
        kinds=_OPENINFERENCE_KINDS,
        lost={"*": TTL},
        guess=True,
    ),
    Dialect("OpenInference", ("openinference.*",), kinds=_OPENINFERENCE_KINDS, lost={"anthropic": TTL}),
    Dialect("Logfire", ("logfire.*",), inside={"gen_ai.usage.raw": _USAGE_OF_ANTHROPIC}),
    Dialect("Pydantic AI", ("pydantic-ai*", "pydantic_ai*"), lost={"anthropic": TTL}),
    Dialect(
        "OpenLIT",
        ("openlit*",),
        outside=frozenset({"anthropic", "aws.bedrock"}),
        lost={"anthropic": TTL, "aws.bedrock": TTL},
    ),
    Dialect(
        "Vercel AI SDK",
        ("ai",),
        kinds=_VERCEL_KINDS,
        inside={
            "ai.response.providerMetadata": {
                "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": CACHE_WRITE_5M,
                "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": CACHE_WRITE_1H,
                "anthropic.cacheCreationInputTokens": CACHE_WRITE,
            }
        },
        guess=True,
    ),
    Dialect(
        "LangSmith",
        ("langsmith*",),
        kinds=("langsmith.span.kind", {"llm": "chat", "embedding": "embeddings"}),
        inside={
            "gen_ai.usage.input_token_details": {
                "cache_read": CACHE_READ,
                "cache_creation": CACHE_WRITE,
                "ephemeral_5m_input_tokens": CACHE_WRITE_5M,
                "ephemeral_1h_input_tokens": CACHE_WRITE_1H,
                "audio": "gen_ai.usage.audio.input_tokens",
            },
            "gen_ai.usage.output_token_details": {
                "reasoning": REASONING,
                "audio": "gen_ai.usage.audio.output_tokens",
            },
        },
        guess=True,
    ),
    Dialect(
        "Langfuse",
        ("langfuse*",),
        kinds=("langfuse.observation.type", {"generation": "chat", "embedding": "embeddings"}),
        inside={
            "langfuse.observation.usage_details": {
                "input": INPUT,
                "output": OUTPUT,
                "total": TOTAL,
                "input_cached_tokens": CACHE_READ,
                "cache_read_input_tokens": CACHE_READ,
                "input_cache_read": CACHE_READ,
                "input_cache_creation": CACHE_WRITE,
                "cache_creation_input_tokens": CACHE_WRITE,
                "input_cache_creation_5m": CACHE_WRITE_5M,
                "input_cache_creation_1h": CACHE_WRITE_1H,
                "output_reasoning_tokens": REASONING,
                "output_reasoning": REASONING,
            }
        },
        outside=ALL,
        thoughts=ALL,
    ),
    Dialect(
        "MLflow",
        ("mlflow*",),
        encoded=True,
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
    Dialect("Semantic Kernel", ("semantic_kernel*",), lost={"*": "what was read from the cache"}),
    Dialect("Strands", ("strands*",), guess=True, lost={"anthropic": TTL, "aws.bedrock": TTL}),
    Dialect(
        "Claude Code",
        ("com.anthropic.claude_code*",),
        outside=ALL,
        services=("claude-code",),
        keys={
            "model": REQUEST_MODEL,
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "cache_read_tokens": CACHE_READ,
            "cache_creation_tokens": CACHE_WRITE,
        },
        lost={"*": TTL},
    ),
    Dialect(
        "Codex CLI",
        ("codex*",),
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
        lost={"*": "what was read from the cache, and thoughts"},
    ),
    Dialect("LiteLLM", ("litellm*",), lost={"*": "what was read from the cache and written to it"}),
    Dialect(
        "Datadog",
        ("ddtrace*",),
        keys={
            "model_name": REQUEST_MODEL,
            "model_provider": PROVIDER,
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "total_tokens": TOTAL,
            "cache_read_input_tokens": CACHE_READ,
            "cache_write_input_tokens": CACHE_WRITE,
            "ephemeral_5m_input_tokens": CACHE_WRITE_5M,
            "ephemeral_1h_input_tokens": CACHE_WRITE_1H,
            "reasoning_output_tokens": REASONING,
        },
    ),
    Dialect("Sentry", ("sentry*",), lost={"anthropic": TTL}),
    Dialect("AgentOps", ("agentops*",), guess=True, lost={"anthropic": TTL}),
    Dialect("Laminar", ("lmnr*",), guess=True, kinds=("lmnr.span.type", {"LLM": "chat"}), lost={"anthropic": TTL}),
    Dialect("VoltAgent", ("voltagent*",), guess=True),
)
"""Every dialect, the more special scope before the more general one. The first that fits is the one."""
