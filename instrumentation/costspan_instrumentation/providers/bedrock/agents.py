"""Agents and knowledge bases: calls in which Bedrock itself calls models.

What those used is told in the traces of an agent's answer, where the application asked for them, and nowhere else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, known, total

from .counts import converse_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def invoke(kwargs: Mapping[str, Any]) -> Attributes:
    """A question to an agent; one that is made for the call alone has a model of the caller's choice."""
    return {**known({semconv.REQUEST_MODEL: kwargs.get("foundationModel")}), semconv.REQUEST_STREAM: True}


def generate(kwargs: Mapping[str, Any]) -> Attributes:
    """A question to be answered from a knowledge base, or from documents that come with it."""
    config = fields_of(kwargs.get("retrieveAndGenerateConfiguration"))
    sources = config.get("knowledgeBaseConfiguration") or config.get("externalSourcesConfiguration")
    return known({semconv.REQUEST_MODEL: get(sources, "modelArn")})


def generate_stream(kwargs: Mapping[str, Any]) -> Attributes:
    """The same, streamed."""
    return {**generate(kwargs), semconv.REQUEST_STREAM: True}


def untold(_answer: Any) -> Attributes:
    """An answer that says nothing of usage."""
    return {}


def chunk(message: Any, seen: Seen) -> None:
    """An event of an agent's answer. Each trace of a model's work adds what it used."""
    # Bedrock's own prompts are many times the question, so that an estimate by what is seen would be none.
    seen.final = True
    if message.headers.get(":event-type") == "trace":
        for steps in fields_of(json.loads(message.payload).get("trace")).values():
            _step(fields_of(steps), seen)


def _step(step: Mapping[str, Any], seen: Seen) -> None:
    """A step of the agent. Its other parts sum up what models used, and are not counted beside them."""
    if seen.notes is None:
        seen.notes = {}, {}
    models, by_model = seen.notes
    if asked := step.get("modelInvocationInput"):
        models[get(asked, "traceId")] = get(asked, "foundationModel")
    answer = step.get("modelInvocationOutput")
    usage = converse_usage(get(get(answer, "metadata"), "usage"))
    if not usage:
        return
    model = models.get(get(answer, "traceId"))
    share = by_model.setdefault(model, {})
    for key, count in usage.items():
        share[key] = total(share.get(key), count)
        seen.attributes[key] = total(seen.attributes.get(key), count)
    if len(by_model) == 1:
        seen.attributes |= known({semconv.RESPONSE_MODEL: model})
    else:
        seen.attributes.pop(semconv.RESPONSE_MODEL, None)
        seen.attributes[semconv.USAGE_BY_MODEL] = json.dumps([{"model": m, **told} for m, told in by_model.items()])
