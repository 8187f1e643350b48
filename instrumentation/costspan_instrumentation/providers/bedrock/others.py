"""Videos that are made in the background, ranking, and what is billed by the request alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, known

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOCUMENTS_A_SEARCH = 100
_SECONDS_A_SHOT = 6


def invoked(kwargs: Mapping[str, Any]) -> Attributes:
    """Documents that are ranked, and images that are embedded: the model's answer does not count them."""
    body = fields_of(kwargs.get("body"))
    if "documents" in body and "query" in body:
        return _searches([body["query"]], body["documents"])
    image = body.get("inputImage") or get(body.get("singleEmbeddingParams"), "image")
    kind = "image" if image else body.get("inputType")
    return {_EMBEDDED[kind]: 1} if kind in _EMBEDDED else {}


_EMBEDDED = {"image": semconv.IMAGES, "text": semconv.REQUESTS}


def searched(kwargs: Mapping[str, Any]) -> Attributes:
    """Queries to rank sources for."""
    return _searches(kwargs.get("queries"), kwargs.get("sources"))


def _searches(queries: Any, documents: Any) -> Attributes:
    """Bedrock bills a query anew for every hundred documents."""
    return {semconv.RERANK_SEARCHES: len(queries) * max(1, math.ceil(len(documents) / _DOCUMENTS_A_SEARCH))}


def ranked(_answer: Any) -> Attributes:
    """Scores: nothing that counts."""
    return {}


def filmed(kwargs: Mapping[str, Any]) -> Attributes:
    """Seconds of the video asked for; Nova Reel bills by them, and makes shots of one length."""
    asked = fields_of(kwargs.get("modelInput"))
    seconds = get(asked.get("videoGenerationConfig"), "durationSeconds")
    shots = get(asked.get("multiShotManualParams"), "shots")
    return known({semconv.VIDEO_SECONDS: len(shots) * _SECONDS_A_SHOT if shots else seconds})


def started(answer: Any) -> Attributes:
    """The name of the work that was begun."""
    return known({semconv.RESPONSE_ID: get(answer, "invocationArn")})
