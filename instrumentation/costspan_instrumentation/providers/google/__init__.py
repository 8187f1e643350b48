"""Google Gen AI: what the Gemini API and Vertex AI bill, through the `google-genai` SDK."""

from __future__ import annotations

from costspan_instrumentation.provider import Provider
from costspan_instrumentation.providers.google import batches, content, embeddings, interactions, media, sessions
from costspan_instrumentation.providers.google.counts import interactions_usage
from costspan_instrumentation.providers.google.embeddings import embeddings_usage
from costspan_instrumentation.providers.google.requests import base_url, identify
from costspan_instrumentation.providers.google.usage import content_usage, live_usage

__all__ = ["GOOGLE", "content_usage", "embeddings_usage", "interactions_usage", "live_usage"]

GOOGLE = Provider(
    name="gcp.gemini",
    requires="google-genai>=1.30",
    base_url=base_url,
    identify=identify,
    # The streams of interactions: of version 3, and before.
    iterator=("generator", "_iterator"),
    endpoints=(
        content.GENERATE,
        content.STREAM,
        embeddings.EMBED,
        embeddings.EMBED_ALONE,
        *interactions.ENDPOINTS,
        *media.ENDPOINTS,
        batches.GET,
        *sessions.ENDPOINTS,
    ),
    usage_formats={
        "google.generate_content": content_usage,
        "google.embed_content": embeddings_usage,
        "google.interactions": interactions_usage,
        "google.live": live_usage,
    },
)
