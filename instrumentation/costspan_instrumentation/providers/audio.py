"""Speech in and out, in OpenAI's protocol, as the SDKs of other providers hand it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, get, known

if TYPE_CHECKING:
    from collections.abc import Mapping


def heard(answer: Any) -> Attributes:
    """The length of the audio, in seconds: told where the application asked for a verbose answer, and only there."""
    return known({semconv.AUDIO_SECONDS: get(answer, "duration")})


def spoken(_answer: Any) -> Attributes:
    """Sound, which says nothing: `characters` tells what is billed."""
    return {}


def sound(_chunk: Any, seen: Seen) -> None:
    """A piece of sound; nothing is left to estimate, since the text was known before it."""
    seen.final = True


def characters(arguments: Mapping[str, Any]) -> Attributes:
    """The length of the text to speak."""
    text = arguments.get("input")
    return {semconv.CHARACTERS: len(text)} if isinstance(text, str) else {}
