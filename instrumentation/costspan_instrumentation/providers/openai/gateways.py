"""What gateways and hosts that speak OpenAI's protocol add to a usage: their own cost, and what they bill beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, known, total

if TYPE_CHECKING:
    from collections.abc import Mapping


def reported_cost(usage: Mapping[str, Any]) -> Attributes:
    """The cost in USD that a gateway reports itself: OpenRouter's number, Perplexity's object, xAI's 10^-10 ticks.

    Where OpenRouter uses the application's own key, its cost is its fee, and the host's own stands beside it. DeepInfra
    calls its figure an estimate. A cost in ticks of 0 (Azure) tells nothing.

    >>> reported_cost({"cost": {"total_cost": 0.006}}), reported_cost({"cost_in_usd_ticks": 15_000_000})
    ({'costspan.usage.reported_cost': 0.006}, {'costspan.usage.reported_cost': 0.0015})
    >>> reported_cost({"cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.5}})
    {'costspan.usage.reported_cost': 0.75}
    """
    cost = usage.get("cost", usage.get("estimated_cost"))
    if cost is None:
        ticks = usage.get("cost_in_usd_ticks")
        return {semconv.USAGE_REPORTED_COST: ticks / 10**10} if isinstance(ticks, int) and ticks else {}
    if not isinstance(cost, int | float):
        cost = get(cost, "total_cost")
    elif usage.get("is_byok"):
        upstream = get(usage.get("cost_details"), "upstream_inference_cost")
        return {} if upstream is None else {semconv.USAGE_REPORTED_COST: cost + upstream}
    return known({semconv.USAGE_REPORTED_COST: cost})


_TOOL_CALLS = {
    "web_search_calls": semconv.WEB_SEARCHES,
    "x_search_calls": semconv.SOCIAL_SEARCHES,
    "code_interpreter_calls": semconv.CODE_EXECUTIONS,
    "file_search_calls": semconv.FILE_SEARCHES,
    "document_search_calls": semconv.FILE_SEARCHES,
}
_BY_SEARCH_CONTEXT = {
    "low": semconv.REQUESTS,
    "medium": semconv.REQUESTS_MEDIUM_CONTEXT,
    "high": semconv.REQUESTS_HIGH_CONTEXT,
}


def billed_beside(usage: Mapping[str, Any], tokens_out: Any) -> Attributes:
    """What a host bills beside the tokens of text: tools that OpenRouter and xAI run, and Perplexity's searches.

    >>> billed_beside({"search_context_size": "low"}, 5)
    {'costspan.usage.requests': 1}
    """
    beside: Attributes = {semconv.WEB_SEARCHES: get(usage.get("server_tool_use_details"), "web_search_requests")}
    for name, calls in fields_of(usage.get("server_side_tool_usage_details")).items():
        if calls and name in _TOOL_CALLS:
            beside[_TOOL_CALLS[name]] = total(beside.get(_TOOL_CALLS[name]), calls)
    if (size := usage.get("search_context_size")) in _BY_SEARCH_CONTEXT:
        beside[_BY_SEARCH_CONTEXT[size]] = 1
    # Its deep research bills the searches, and what it read and thought, each at a rate of its own.
    if (searches := usage.get("num_search_queries")) is not None:
        beside[semconv.WEB_SEARCHES] = searches
        beside[semconv.OUTPUT_CITATION] = usage.get("citation_tokens")
        if reasoning := usage.get("reasoning_tokens"):
            beside[semconv.REASONING_TOKENS] = reasoning
            beside[semconv.OUTPUT_TOKENS] = total(tokens_out, reasoning)
    return {name: amount for name, amount in beside.items() if amount}
