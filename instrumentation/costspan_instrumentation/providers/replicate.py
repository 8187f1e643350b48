"""Replicate: predictions, which any kind of model makes. One is counted when it is first seen finished.

That may be when it is created, and is mostly later, when the application or the SDK asks for it again. Of output that
is streamed, and of a short one that is handed over before it is finished, nobody tells what it used.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, get, known

if TYPE_CHECKING:
    from collections.abc import Mapping

_OVER = {"succeeded", "failed", "canceled", "aborted"}
_HOME = "https://api.replicate.com"


def usage_of(metrics: Any) -> Attributes:
    """`metrics` of a prediction: tokens of the models that are billed by them, else the time on the hardware.

    >>> usage_of({"predict_time": 2.8, "total_time": 3.1})
    {'costspan.usage.compute_seconds': 2.8}
    >>> usage_of({"predict_time": 2.8, "input_token_count": 12, "output_token_count": 4})
    {'gen_ai.usage.input_tokens': 12, 'gen_ai.usage.output_tokens': 4}
    """
    tokens = known(
        {
            semconv.INPUT_TOKENS: get(metrics, "input_token_count"),
            semconv.OUTPUT_TOKENS: get(metrics, "output_token_count"),
        }
    )
    return tokens or known({semconv.COMPUTE_SECONDS: get(metrics, "predict_time")})


def _name(which: Any) -> str | None:
    """The name of a model or a deployment, as the SDK may be given one; a version has a number instead."""
    if isinstance(which, str):
        return which
    owner, name = which if isinstance(which, tuple) else (get(which, "owner"), get(which, "name"))
    return f"{owner}/{name}" if name else get(which, "id")


def _request(arguments: Mapping[str, Any]) -> Attributes:
    which = next((given for kind in ("model", "version", "deployment") if (given := arguments.get(kind))), None)
    if which is None:
        kind = "model" if "model_name" in arguments else "deployment"
        which = arguments.get(f"{kind}_owner"), arguments.get(f"{kind}_name")
    return known({semconv.REQUEST_MODEL: _name(which)})


def _nothing(_arguments: Mapping[str, Any]) -> Attributes:
    return {}


def _is_over(prediction: Any) -> bool:
    return get(prediction, "status") in _OVER


def _prediction(prediction: Any) -> Attributes:
    told = known(
        {
            semconv.RESPONSE_ID: get(prediction, "id"),
            semconv.RESPONSE_MODEL: get(prediction, "model"),
        }
    )
    return {**told, **usage_of(get(prediction, "metrics"))} if _is_over(prediction) else told


def _base_url(resource: Any) -> object:
    client = resource._client
    url = get(client, "_base_url")
    return url or os.environ.get("REPLICATE_BASE_URL") or _HOME


_CREATE = Endpoint(
    "",
    "create",
    semconv.GENERATE_CONTENT,
    _request,
    _prediction,
    content=("input",),
    kept=True,
    async_method="async_create",
)
_SEEN = replace(_CREATE, request=_nothing, content=(), kept=False, fetch=True, event=_is_over)
_METHODS = (
    # Module and class of version 1 of the SDK, then those of version 2, and the arguments that may come by position.
    ("replicate.prediction", "Predictions", ("version", "input")),
    ("replicate.model", "ModelsPredictions", ("model", "input")),
    ("replicate.deployment", "DeploymentsPredictions", ("deployment", "input")),
    ("replicate.deployment", "DeploymentPredictions", ("input",)),
    ("replicate.resources.predictions", "PredictionsResource", ()),
    ("replicate.resources.models.predictions", "PredictionsResource", ()),
    ("replicate.resources.deployments.predictions", "PredictionsResource", ()),
)

REPLICATE = Provider(
    name="replicate",
    requires="replicate>=1.0",
    base_url=_base_url,
    usage_formats={"replicate.predictions": usage_of},
    endpoints=(
        *(
            replace(_CREATE, module=module, method=f"{owner}.create", positional=positional)
            for module, owner, positional in _METHODS
        ),
        *(
            replace(_SEEN, module=module, method=f"{owner}.{method}", async_method=f"async_{method}")
            for module, owner, _ in _METHODS
            if module in {"replicate.prediction", "replicate.resources.predictions"}
            for method in ("get", "cancel")
        ),
    ),
)
