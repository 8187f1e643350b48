"""Google: batches when they are done."""

from __future__ import annotations

import json
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, get, known, total
from costspan_instrumentation.providers.google.content import response
from costspan_instrumentation.providers.google.requests import short_name

_LONG = 200_000
"""Longer prompts have prices of their own, so that a sum of shorter ones must not look like one."""

_SEARCHES = {semconv.GROUNDED_PROMPTS, semconv.WEB_SEARCHES, semconv.MAPS_PROMPTS}


def _batch(job: Any) -> Attributes:
    """A batch that is done: what its answers used counts the first time that somebody looks.

    Of a batch whose answers are in a file the usage is not known.
    """
    model = short_name(get(job, "model"))
    attributes = known({semconv.RESPONSE_ID: get(job, "name"), semconv.REQUEST_MODEL: model})
    answers = get(job, "dest")
    generated = [_usage(response(one)) for one in _made(get(answers, "inlined_responses"))]
    embedded = [
        {semconv.INPUT_TOKENS: get(one, "token_count")}
        for one in _made(get(answers, "inlined_embed_content_responses"))
    ]
    sums = _sum([known(used) for used in (*generated, *embedded)])
    if not sums:
        return attributes
    attributes |= {
        semconv.OPERATION: semconv.EMBEDDINGS if embedded else semconv.GENERATE_CONTENT,
        semconv.RESPONSE_MODEL: model,
        semconv.SERVICE_TIER: "batch",
    }
    # Searches are the batch's own, and shared out with nobody.
    shares = _shares([{key: count for key, count in used.items() if key not in _SEARCHES} for used in generated])
    if len(shares) > 1:
        attributes[semconv.USAGE_BY_MODEL] = json.dumps([{"model": model, **share} for share in shares])
    return attributes | sums


def _made(answers: Any) -> list[Any]:
    return [made for one in answers or () if (made := get(one, "response")) is not None]


def _usage(attributes: Attributes) -> Attributes:
    return {key: value for key, value in attributes.items() if key.startswith(("gen_ai.usage.", "costspan.usage."))}


def _sum(used: list[Attributes]) -> Attributes:
    sums: Attributes = {}
    for one in used:
        for key, count in one.items():
            sums[key] = total(sums.get(key), count)
    return sums


def _shares(used: list[Attributes]) -> list[Attributes]:
    """The usages, summed up as far as a sum costs what its parts do."""
    groups: list[tuple[int, list[Attributes]]] = []
    long: list[Attributes] = []
    for one in used:
        tokens = one.get(semconv.INPUT_TOKENS)
        if not isinstance(tokens, int) or tokens > _LONG:
            long.append(one)
        elif groups and groups[-1][0] + tokens <= _LONG:
            groups[-1] = (groups[-1][0] + tokens, [*groups[-1][1], one])
        else:
            groups.append((tokens, [one]))
    return [_sum(group) for group in (*(group for _, group in groups), long) if group]


def _nothing(_: Any) -> Attributes:
    return {}


GET = Endpoint("google.genai.batches", "Batches.get", semconv.FETCH_RESPONSE, _nothing, _batch, fetch=True)
