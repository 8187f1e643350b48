"""Google Gen AI: everything that the Gemini API and Vertex AI bill, through the `google-genai` SDK."""

from __future__ import annotations

from costspan_instrumentation.provider import Provider
from costspan_instrumentation.providers.google import content, embeddings
from costspan_instrumentation.providers.google.embeddings import embeddings_usage
from costspan_instrumentation.providers.google.requests import base_url, identify
from costspan_instrumentation.providers.google.usage import content_usage

__all__ = ["GOOGLE", "content_usage", "embeddings_usage"]

GOOGLE = Provider(
    name="gcp.gemini",
    requires="google-genai>=1.30",
    endpoints=(content.GENERATE, content.STREAM, embeddings.EMBED, embeddings.EMBED_ALONE),
    base_url=base_url,
    identify=identify,
    usage_formats={"google.generate_content": content_usage, "google.embed_content": embeddings_usage},
)
