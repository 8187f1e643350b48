"""Amazon Bedrock: converse, invoke, agents and rerank, through botocore (boto3) and aiobotocore.

Every service of these SDKs sends its requests through one method, so that one is patched, and the calls to models are
chosen from it by operation and service. What else Bedrock does passes through: it counts tokens for nothing, and of
guardrails and flows an answer does not tell what is billed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Provider, decoded

from . import agents, converse, invoke, others, requests
from .counts import converse_usage, invoke_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODELS = "bedrock-runtime"
_AGENTS = "bedrock-agent-runtime"

_CONVERSE = Endpoint(
    "botocore.client",
    "BaseClient._make_api_call",
    semconv.CHAT,
    requests.converse,
    converse.response,
    content=("system", "messages", "toolConfig"),
)
_INVOKE = replace(
    _CONVERSE,
    request=requests.invoke,
    response=invoke.response,
    billed=others.invoked,
    content=("body",),
    part="body",
)
_START = replace(
    _CONVERSE,
    operation=semconv.GENERATE_CONTENT,
    request=requests.start,
    response=others.started,
    billed=others.filmed,
    content=("modelInput",),
)
_AGENT = replace(
    _CONVERSE,
    request=agents.invoke,
    response=agents.untold,
    chunk=agents.chunk,
    content=("inputText",),
    part="completion",
)
_KNOWLEDGE = replace(_CONVERSE, request=agents.generate, response=agents.untold, content=("input",))
_RERANK = replace(
    _CONVERSE,
    operation=semconv.RERANK,
    request=requests.rerank,
    response=others.ranked,
    billed=others.searched,
    content=("queries", "sources"),
)
OPERATIONS = {
    "Converse": (_MODELS, _CONVERSE),
    "ConverseStream": (
        _MODELS,
        replace(_CONVERSE, request=requests.converse_stream, chunk=converse.chunk, part="stream"),
    ),
    "InvokeModel": (_MODELS, _INVOKE),
    "InvokeModelWithResponseStream": (_MODELS, replace(_INVOKE, request=requests.invoke_stream, chunk=invoke.chunk)),
    "StartAsyncInvoke": (_MODELS, _START),
    "InvokeAgent": (_AGENTS, _AGENT),
    "InvokeInlineAgent": (_AGENTS, _AGENT),
    "RetrieveAndGenerate": (_AGENTS, _KNOWLEDGE),
    "RetrieveAndGenerateStream": (
        _AGENTS,
        replace(_KNOWLEDGE, request=agents.generate_stream, chunk=agents.chunk, part="stream"),
    ),
    "Rerank": (_AGENTS, _RERANK),
}
"""Operation -> the service it belongs to, and the endpoint that it is."""


def _choose(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    found = OPERATIONS.get(arguments["operation_name"])
    # Other services have operations of the same names.
    if found is None or client.meta.service_model.service_name != found[0]:
        return None
    params: Mapping[str, Any] = arguments["api_params"]
    if "body" in params:
        params = {**params, "body": decoded(params["body"])}
    return found[1], params


def _endpoint(module: str, method: str) -> Endpoint:
    return replace(
        _CONVERSE,
        module=module,
        method=method,
        positional=("operation_name", "api_params"),
        only=OPERATIONS.keys(),
        choose=_choose,
    )


BEDROCK = Provider(
    name="aws.bedrock",
    requires="botocore>=1.31.57",
    base_url=lambda client: client.meta.endpoint_url,
    iterator="_event_generator",
    parser="_parse_event",
    usage_formats={"bedrock.converse": converse_usage, "bedrock.invoke_model": invoke_usage},
    endpoints=(
        _endpoint("botocore.client", "BaseClient._make_api_call"),
        _endpoint("aiobotocore.client", "AioBaseClient._make_api_call"),
    ),
)
