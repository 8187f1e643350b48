"""Cohere: batches and embed jobs, whose usage is told when they are asked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, get, known, total
from costspan_instrumentation.providers.cohere.answers import billed_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDED = {"BATCH_STATUS_COMPLETED", "BATCH_STATUS_FAILED", "BATCH_STATUS_CANCELED"}


def _request(_: Mapping[str, Any]) -> Attributes:
    return {}


def _batch_ended(answer: Any) -> bool:
    return get(get(answer, "batch"), "status") in _ENDED


def batch_response(answer: Any) -> Attributes:
    """A batch that has ended: what all of its records used."""
    batch = get(answer, "batch")
    written = total(get(batch, "output_tokens"))
    return known(
        {
            semconv.OPERATION: semconv.CHAT if written else semconv.EMBEDDINGS,
            semconv.REQUEST_MODEL: get(batch, "model"),
            semconv.RESPONSE_ID: get(batch, "id"),
            semconv.INPUT_TOKENS: total(get(batch, "input_tokens")),
            semconv.OUTPUT_TOKENS: written,
            semconv.SERVICE_TIER: "batch",
        }
    )


def _job_ended(job: Any) -> bool:
    return bool(get(job, "status") == "complete")


def job_response(job: Any) -> Attributes:
    """An embed job that is complete: billed as the same texts one by one."""
    return known(
        {
            semconv.OPERATION: semconv.EMBEDDINGS,
            semconv.REQUEST_MODEL: get(job, "model"),
            semconv.RESPONSE_ID: get(job, "job_id"),
            **billed_usage(get(job, "meta")),
        }
    )


BATCHES = (
    Endpoint(
        "cohere.batches.client",
        "BatchesClient.retrieve",
        semconv.FETCH_RESPONSE,
        _request,
        batch_response,
        event=_batch_ended,
        fetch=True,
    ),
    Endpoint(
        "cohere.embed_jobs.client",
        "EmbedJobsClient.get",
        semconv.FETCH_RESPONSE,
        _request,
        job_response,
        event=_job_ended,
        fetch=True,
    ),
)
