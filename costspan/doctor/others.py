"""Other instrumentation in this environment, and who counts the calls that it sees.

Whether spans of somebody else are priced is tried: a span as they make it goes through the span processor.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts

from costspan import startup
from costspan.doctor import Problem
from costspan.doctor.sdks import package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.metadata import Distribution, EntryPoint

ABOUT: Final = "instrumentations"

# ------------------------------------------------------------------ who there is

_CONVENTIONS: Final[Mapping[str, Any]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1",
    "gen_ai.response.model": "gpt-4.1-2025-04-14",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 500,
}
_OPENINFERENCE: Final[Mapping[str, Any]] = {
    "openinference.span.kind": "LLM",
    "llm.system": "openai",
    "llm.model_name": "gpt-4.1-2025-04-14",
    "llm.token_count.prompt": 1000,
    "llm.token_count.completion": 500,
    "llm.token_count.total": 1500,
}
_LANGFUSE: Final[Mapping[str, Any]] = {
    "langfuse.observation.type": "generation",
    "langfuse.observation.model.name": "gpt-4.1-2025-04-14",
    "langfuse.observation.usage_details": '{"input": 1000, "output": 500, "total": 1500}',
}
_MLFLOW: Final[Mapping[str, Any]] = {
    "mlflow.spanType": '"CHAT_MODEL"',
    "mlflow.llm.model": '"gpt-4.1-2025-04-14"',
    "mlflow.llm.provider": '"openai"',
    "mlflow.chat.tokenUsage": '{"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}',
}


class Maker(NamedTuple):
    """Somebody who makes spans of model calls. ``sample`` is the usage on one, as it has been seen to come."""

    label: str
    scope: str
    """Under which their tracers are named: the beginning of it."""
    sample: Mapping[str, Any] = _CONVENTIONS
    how: str = "where the program switches it on"
    framework: bool = False
    """It makes the calls itself, through SDKs; its spans of agents and chains repeat what those used."""


_PACKAGES: Final[Mapping[str, Maker]] = {
    "logfire": Maker("Logfire", "logfire", how="where the program calls logfire.instrument_openai() and the like"),
    "openlit": Maker("OpenLIT", "openlit", how="where the program calls openlit.init()"),
    "traceloop-sdk": Maker("OpenLLMetry", "traceloop", how="where the program calls Traceloop.init()"),
    "langfuse": Maker("Langfuse", "langfuse", _LANGFUSE, "where the program imports its wrappers or @observe"),
    "langsmith": Maker("LangSmith", "langsmith", how="as OpenTelemetry spans with LANGSMITH_OTEL_ENABLED=true"),
    "mlflow": Maker("MLflow", "mlflow", _MLFLOW, "where the program calls mlflow.<library>.autolog()"),
    "mlflow-tracing": Maker("MLflow", "mlflow", _MLFLOW, "where the program calls mlflow.<library>.autolog()"),
    "agentops": Maker("AgentOps", "agentops", how="where the program calls agentops.init()"),
    "lmnr": Maker("Laminar", "lmnr", how="where the program calls Laminar.initialize()"),
    "genai-otel-instrument": Maker("genai-otel-instrument", "genai_otel"),
    "pydantic-ai": Maker("Pydantic AI", "pydantic-ai", how="where agents are instrumented", framework=True),
    "pydantic-ai-slim": Maker("Pydantic AI", "pydantic-ai", how="where agents are instrumented", framework=True),
    "google-adk": Maker("Google ADK", "gcp.vertex.agent", how="always", framework=True),
    "strands-agents": Maker("Strands", "strands", how="always", framework=True),
    "semantic-kernel": Maker("Semantic Kernel", "semantic_kernel", how="with its diagnostics on", framework=True),
}
"""Packages that make spans without an entry point."""

_OFFICIAL: Final = Maker("OpenTelemetry", "opentelemetry.instrumentation.genai")
_OPENLLMETRY: Final = Maker("OpenLLMetry", "opentelemetry.instrumentation")
_OPEN_INFERENCE: Final = Maker("OpenInference", "openinference.instrumentation", _OPENINFERENCE)

_FRAMEWORKS: Final = frozenset(
    ("ag2", "agno", "autogen-agentchat", "beeai-framework", "claude-agent-sdk", "crewai", "dspy", "google-adk",
     "haystack-ai", "instructor", "langchain", "langchain-core", "litellm", "llama-index", "llama-index-core",
     "openai-agents", "portkey-ai", "pydantic-ai", "pydantic-ai-slim", "qwen-agent", "semantic-kernel", "smolagents",
     "strands-agents")
)  # fmt: skip
"""What calls models through SDKs, and has instrumentation of its own."""

BY_ENTRY_POINT: Final = "with opentelemetry-instrument, or where the program switches it on"
"""When an instrumentor is active."""

_SAME: Final = {"boto3": "botocore"}
"""A package that instrumentations name, and the one below it that our table is for."""

_GENAI_SCOPE: Final = re.compile(
    r"gen_?ai|openinference|openai|anthropic|claude|bedrock|gemini|vertex|mistral|cohere|groq|ollama|together|voyage"
    r"|litellm|lang(?:chain|fuse|smith|graph)|llama_?index|traceloop|openlit|logfire|pydantic[-_.]ai|crewai|agno|dspy"
    r"|haystack|smolagents|strands|autogen|semantic_kernel|mlflow|agentops|lmnr",
    re.IGNORECASE,
)


def is_genai(scope: str) -> bool:
    """Whether a tracer of this name is likely to make spans of model calls.

    >>> is_genai("opentelemetry.instrumentation.openai.v1"), is_genai("opentelemetry.instrumentation.requests")
    (True, False)
    """
    return _GENAI_SCOPE.search(scope) is not None


# ------------------------------------------------------------------ what becomes of their spans


@cache
def _read(scope: str, sample: tuple[tuple[str, Any], ...]) -> bool:
    """Whether the span processor prices such a span."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    from costspan_processor import CostSpanProcessor
    from costspan_processor.enrich import TOTAL

    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(CostSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer(scope).start_span("trial", attributes=dict(sample)).end()
    return any(TOTAL in (span.attributes or {}) for span in memory.get_finished_spans())


def _spans(maker: Maker, scope: str) -> str:
    return "priced" if _read(scope, tuple(maker.sample.items())) else "not read"


# ------------------------------------------------------------------ the section


def look(
    environ: Mapping[str, str], sdks: Sequence[Mapping[str, Any]], *, measured: bool = False
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Instrumentation beside ours that is installed; `sdks` is what `sdks.look` has found.

    `measured`: a program was looked into, so that who counts twice need not be guessed.
    """
    disabled = {name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    facts = [fact for found in entry_points(group="opentelemetry_instrumentor") for fact in _entry(found, disabled)]
    for name, maker in _PACKAGES.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        facts.append(
            {
                "package": name,
                "version": installed,
                "maker": maker.label,
                "instrumentor": None,
                "of": [],
                "framework": maker.framework,
                "active": maker.how,
                "spans": _spans(maker, maker.scope),
            }
        )
    facts.sort(key=lambda fact: (fact["framework"], fact["maker"], fact["package"]))
    return facts, [problem for problem in _judged(facts, sdks) if not measured or problem.level == "fault"]


def _entry(entry: EntryPoint, disabled: set[str]) -> Iterator[dict[str, Any]]:
    """What there is to say of an instrumentor; nothing if it is ours, is for no model, or has nothing to instrument."""
    if entry.value.startswith("costspan.") or entry.dist is None:
        return
    targets = _targets(entry.dist)
    ours = {_SAME.get(name, name) for name in targets} & {package(provider) for provider in startup.PROVIDERS.values()}
    if not ours and not targets & _FRAMEWORKS:
        return
    conflict = get_dist_dependency_conflicts(entry.dist)
    installed = [name for name in sorted(targets) if _installed(name)]
    if not installed:
        return
    maker = _maker(entry.dist)
    active = BY_ENTRY_POINT
    if disabled & {entry.name, "*"}:
        active = "left out by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    elif conflict is not None:
        wants = conflict.required or " or ".join(map(str, conflict.required_any or ()))
        active = f"instruments nothing: it wants {str(wants).partition(';')[0].strip()}"
    yield {
        "package": entry.dist.name,
        "version": entry.dist.version,
        "maker": maker.label,
        "instrumentor": entry.name,
        "of": sorted(ours) or installed,
        "framework": not ours,
        "active": active,
        "spans": _spans(maker, entry.module),
    }


def _maker(found: Distribution) -> Maker:
    said = (field for name in ("Author-email", "Project-URL") for field in found.metadata.get_all(name) or ())
    authors = " ".join(said).lower()
    if found.name.lower().startswith("openinference-"):
        return _OPEN_INFERENCE
    if "traceloop" in authors:
        return _OPENLLMETRY
    if "opentelemetry" in authors:
        return _OFFICIAL
    return Maker(found.name, "")


def _targets(found: Distribution) -> set[str]:
    """The packages that an instrumentation is for, by the extra in which it names them."""
    return {
        re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
        for requirement in found.requires or ()
        if "extra" in requirement and "instruments" in requirement
    }


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _judged(facts: Iterable[Mapping[str, Any]], sdks: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    others: dict[str, list[Mapping[str, Any]]] = {}
    for fact in facts:
        if fact["active"] == BY_ENTRY_POINT:
            for sdk in fact["of"]:
                others.setdefault(sdk, []).append(fact)
    for sdk in sdks:
        seeing = others.get(sdk["package"], [])
        names = ", ".join(fact["package"] for fact in seeing)
        if seeing and not sdk["switched_off"]:
            theirs = ",".join(dict.fromkeys(str(fact["instrumentor"]) for fact in seeing))
            yield Problem(
                "warning",
                ABOUT,
                f"{sdk['package']} is instrumented by costspan and by {names}",
                "Where both are active, both make a span of each call, and the call may be counted twice.",
                f"Leave one out: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={theirs} or ={sdk['instrumentor']} under "
                "opentelemetry-instrument, else in the program. `costspan doctor -- COMMAND` shows who counts.",
            )
        elif seeing and not any(fact["spans"] == "priced" for fact in seeing):
            yield Problem(
                "fault",
                ABOUT,
                f"calls of {sdk['package']} are seen by {names} alone, whose spans costspan cannot read",
                "These calls are not priced and not counted.",
                f"Let costspan see them: take {sdk['instrumentor']} out of OTEL_PYTHON_DISABLED_INSTRUMENTATIONS.",
            )
