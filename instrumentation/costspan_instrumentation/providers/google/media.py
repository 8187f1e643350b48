"""Google: pictures (Imagen) and videos (Veo), sold by the piece and by the second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, fields_of, get, known
from costspan_instrumentation.providers.google.answers import body_of
from costspan_instrumentation.providers.google.requests import request

if TYPE_CHECKING:
    from collections.abc import Mapping

# What Veo makes where the request does not say.
_SECONDS = 8


def _images(answer: Any) -> Attributes:
    """The pictures that were made; those that a filter held back are not billed."""
    answer = body_of(answer)
    if isinstance(answer, dict):
        pictures, (data, place) = answer.get("predictions"), ("bytesBase64Encoded", "gcsUri")
    else:
        pictures = [get(one, "image") for one in get(answer, "generated_images") or ()]
        data, place = "image_bytes", "gcs_uri"
    made = sum(1 for picture in pictures or () if get(picture, data) or get(picture, place))
    return known({semconv.IMAGES: made or None})


def _video_billed(arguments: Mapping[str, Any]) -> Attributes:
    """A video is priced when it is begun, by its length: the finished one does not tell how long it is."""
    config = fields_of(arguments.get("config"))
    seconds = config.get("duration_seconds") or config.get("durationSeconds")
    videos = config.get("number_of_videos") or config.get("numberOfVideos") or 1
    attributes: Attributes = {semconv.VIDEO_SECONDS: float(seconds or _SECONDS) * videos}
    return attributes if seconds else {**attributes, semconv.USAGE_ESTIMATED: True}


def _video(operation: Any) -> Attributes:
    return known({semconv.RESPONSE_ID: get(body_of(operation), "name")})


_MODELS = "google.genai.models"

ENDPOINTS = (
    *(
        Endpoint(_MODELS, f"Models.{method}", semconv.IMAGE_GENERATION, request, _images, content=("prompt",))
        for method in ("generate_images", "edit_image", "upscale_image", "recontext_image")
    ),
    Endpoint(
        _MODELS,
        "Models.generate_videos",
        semconv.VIDEO_GENERATION,
        request,
        _video,
        content=("prompt",),
        billed=_video_billed,
    ),
)
