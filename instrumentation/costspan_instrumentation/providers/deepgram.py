"""Deepgram: transcription of recordings, speech, and what models find in a text or a recording."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, fields_of, get, given, known, total

if TYPE_CHECKING:
    from collections.abc import Mapping

_FINDINGS = ("summary_info", "sentiment_info", "topics_info", "intents_info")
"""What tells the tokens of each question that was asked about a text or a recording."""


def _request(arguments: Mapping[str, Any]) -> Attributes:
    return given(arguments, {"model": semconv.REQUEST_MODEL})


def usage_of(metadata: Any) -> Attributes:
    """`metadata` of an answer: the length of the recording, and the tokens of what was asked about it.

    >>> usage_of({"duration": 3.7, "channels": 1})
    {'costspan.usage.audio_seconds': 3.7}
    """
    found = [get(metadata, name) for name in _FINDINGS]
    return known(
        {
            semconv.AUDIO_SECONDS: get(metadata, "duration"),
            semconv.INPUT_TOKENS: total(*(get(one, "input_tokens") for one in found)),
            semconv.OUTPUT_TOKENS: total(*(get(one, "output_tokens") for one in found)),
        }
    )


def _response(answer: Any) -> Attributes:
    """A transcription or an analysis. One that is sent to a callback tells its number and no more."""
    answer = fields_of(answer).get("_data", answer)
    metadata = get(answer, "metadata")
    # The SDK declares that of an analysis one level too deep.
    metadata = get(metadata, "metadata") or metadata
    models = list(fields_of(get(metadata, "model_info")).values())
    named = {
        semconv.RESPONSE_ID: get(metadata, "request_id") or get(answer, "request_id"),
        # Channels of several languages may have models of their own.
        semconv.RESPONSE_MODEL: get(models[0], "name") if len(models) == 1 else None,
    }
    return {**known(named), **usage_of(metadata)}


def _sound(text: Any, _piece: Any, seen: Seen) -> None:
    """A piece of speech: the request, which is sent when the first one is asked for, has been taken."""
    seen.final = True
    if isinstance(text, str):
        seen.attributes[semconv.CHARACTERS] = len(text)


def _spoken(_answer: Any) -> Attributes:
    return {}


def _speak(arguments: Mapping[str, Any], _client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    return replace(_SPEECH, chunk=partial(_sound, arguments.get("text"))), arguments


_SPEECH = Endpoint(
    "deepgram.speak.v1.audio.client",
    "AudioClient.generate",
    semconv.SPEECH,
    _request,
    _spoken,
    content=("text",),
)


def _base_url(client: Any) -> object:
    raw = getattr(client, "_raw_client", client)
    return raw._client_wrapper.get_environment().base


DEEPGRAM = Provider(
    name="deepgram",
    requires="deepgram-sdk>=5",
    base_url=_base_url,
    usage_formats={"deepgram.transcription": usage_of},
    endpoints=(
        # What sends the requests of the clients, and of their `with_raw_response`.
        *(
            Endpoint(
                "deepgram.listen.v1.media.raw_client",
                f"RawMediaClient.{method}",
                semconv.TRANSCRIPTION,
                _request,
                _response,
            )
            for method in ("transcribe_url", "transcribe_file")
        ),
        Endpoint(
            "deepgram.read.v1.text.raw_client",
            "RawTextClient.analyze",
            semconv.GENERATE_CONTENT,
            _request,
            _response,
        ),
        replace(_SPEECH, choose=_speak),
    ),
)
