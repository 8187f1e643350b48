"""What Deepgram bills -> what the span says, on the real SDK over real HTTP."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.deepgram import DEEPGRAM, usage_of

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
transcribe = pytest.mark.parametrize("method", ["transcribe_url", "transcribe_file"])

HEARD: dict[str, Any] = {
    "metadata": {
        "request_id": "0199-a",
        "sha256": "ab",
        "created": "2026-11-28T10:00:00.000Z",
        "duration": 12.5,
        "channels": 1,
        "models": ["m1"],
        "model_info": {"m1": {"name": "general-nova-3", "version": "2025-07-31.0", "arch": "nova-3"}},
    },
    "results": {"channels": [{"alternatives": [{"transcript": "They span", "confidence": 0.99, "words": []}]}]},
}
TWO = {"m1": {"name": "general-nova-3"}, "m2": {"name": "general-nova-2"}}
SUMMARY = {"model_uuid": "m3", "input_tokens": 90, "output_tokens": 20}
TOPICS = {"model_uuid": "m4", "input_tokens": 95, "output_tokens": 30}


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        pytest.param({"duration": 3.7}, {"costspan.usage.audio_seconds": 3.7}, id="a recording"),
        pytest.param(
            {"duration": 3.7, "summary_info": SUMMARY, "topics_info": TOPICS, "intents_info": None},
            {
                "costspan.usage.audio_seconds": 3.7,
                "gen_ai.usage.input_tokens": 185,
                "gen_ai.usage.output_tokens": 50,
            },
            id="and questions about it",
        ),
        pytest.param({"duration": 0.0}, {"costspan.usage.audio_seconds": 0.0}, id="silence of no length"),
        pytest.param({"duration": -1}, {"costspan.usage.audio_seconds": -1}, id="what cannot be is passed on"),
        pytest.param({"summary_info": {}}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no metadata"),
    ],
)
def test_usage(metadata: Any, usage: dict[str, Any]) -> None:
    assert usage_of(metadata) == usage
    assert DEEPGRAM.usage_formats["deepgram.transcription"] is usage_of


def reply(path: str, body: dict[str, Any]) -> Any:
    if "nonexistent" in path:
        return Refusal(400, {"err_code": "Bad Request", "err_msg": "No such model", "request_id": "r"})
    if "callback" in path:
        return {"request_id": "0199-c"}
    if "speak" in path:
        return "sound" * 1000
    if "read" in path:
        metadata = {"request_id": "0199-r", "language": "en", "summary_info": SUMMARY, "topics_info": TOPICS}
        return {"metadata": metadata, "results": {"summary": {"text": "Bridges."}}}
    if "multichannel" in path:
        return {**HEARD, "metadata": {**HEARD["metadata"], "model_info": TWO}}
    if "summarize" in path:
        return {**HEARD, "metadata": {**HEARD["metadata"], "summary_info": SUMMARY}}
    return HEARD


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("deepgram")
    with watching(DEEPGRAM) as watched:
        yield watched


def a_client(url: str, is_async: bool = False) -> Any:
    import deepgram
    from deepgram.environment import DeepgramClientEnvironment

    kind = deepgram.AsyncDeepgramClient if is_async else deepgram.DeepgramClient
    # The names of the hosts are others in each version.
    hosts = vars(DeepgramClientEnvironment.PRODUCTION)
    return kind(api_key="k", environment=DeepgramClientEnvironment(**dict.fromkeys(hosts, url)))


def source(method: str) -> dict[str, Any]:
    return {"url": "https://example.com/a.wav"} if method == "transcribe_url" else {"request": b"RIFF"}


async def heard(media: Any, method: str, is_async: bool, **more: Any) -> Any:
    return await finished(getattr(media, method)(**source(method), **more), is_async)


@both
@transcribe
async def test_a_recording_is_billed_by_its_length(
    server: Asked, watched: Watched, method: str, is_async: bool
) -> None:
    media = a_client(server.url, is_async).listen.v1.media
    answer = await heard(media, method, is_async, model="nova-3-general")
    assert answer.results.channels[0].alternatives[0].transcript == "They span"
    (span,) = watched.spans()
    assert span.name == "transcription nova-3-general"
    told = dict(span.attributes or {})
    port = told.pop("server.port")
    assert f"http://{told.pop('server.address')}:{port}" == server.url
    assert told == {
        "gen_ai.operation.name": "transcription",
        "gen_ai.provider.name": "deepgram",
        "gen_ai.request.model": "nova-3-general",
        "gen_ai.response.model": "general-nova-3",
        "gen_ai.response.id": "0199-a",
        "costspan.usage.audio_seconds": 12.5,
    }


@both
@transcribe
async def test_the_raw_client(server: Asked, watched: Watched, method: str, is_async: bool) -> None:
    media = a_client(server.url, is_async).listen.v1.media
    answer = await heard(media.with_raw_response, method, is_async)
    assert answer.data.metadata.duration == 12.5
    told = watched.one()
    assert "gen_ai.request.model" not in told
    assert told["costspan.usage.audio_seconds"] == 12.5


@both
async def test_questions_about_a_recording_cost_tokens(server: Asked, watched: Watched, is_async: bool) -> None:
    media = a_client(server.url, is_async).listen.v1.media
    await heard(media, "transcribe_file", is_async, summarize="v2")
    assert watched.usage() == {"audio_seconds": 12.5, "input_tokens": 90, "output_tokens": 20}


@both
async def test_several_models_are_none(server: Asked, watched: Watched, is_async: bool) -> None:
    media = a_client(server.url, is_async).listen.v1.media
    await heard(media, "transcribe_file", is_async, model="nova-3", multichannel=True)
    told = watched.one()
    assert (told["gen_ai.request.model"], told.get("gen_ai.response.model")) == ("nova-3", None)


@both
async def test_an_answer_that_goes_elsewhere_tells_no_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    media = a_client(server.url, is_async).listen.v1.media
    await heard(media, "transcribe_url", is_async, callback="https://example.com/done")
    told = watched.one()
    assert told["gen_ai.response.id"] == "0199-c"
    assert not [key for key in told if ".usage." in key]


@both
async def test_a_text(server: Asked, watched: Watched, is_async: bool) -> None:
    text = a_client(server.url, is_async).read.v1.text
    await finished(text.analyze(request={"text": "Bridges span"}, summarize=True, topics=True, language="en"), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "generate_content"
    assert told["gen_ai.response.id"] == "0199-r"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (185, 50)


@both
async def test_speech_is_billed_by_its_text(server: Asked, watched: Watched, is_async: bool) -> None:
    audio = a_client(server.url, is_async).speak.v1.audio
    speech = audio.generate(text="They span.", model="aura-2-thalia-en")
    assert server.requests == []
    assert b"".join(await items(speech, is_async)) == b"sound" * 1000
    told = watched.one()
    assert told["gen_ai.operation.name"] == "speech"
    assert told["gen_ai.request.model"] == "aura-2-thalia-en"
    assert {key: told[key] for key in told if ".usage." in key} == {"costspan.usage.characters": 10}


@both
async def test_speech_that_is_not_asked_for_costs_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    a_client(server.url, is_async).speak.v1.audio.generate(text="They span.", model="aura-2-thalia-en")
    gc.collect()
    assert server.requests == []
    assert not [key for span in watched.spans() for key in span.attributes or () if ".usage." in key]


@both
@pytest.mark.parametrize("what", ["speech", "transcription"])
async def test_a_refusal_is_raised_and_not_billed(server: Asked, watched: Watched, what: str, is_async: bool) -> None:
    from deepgram.core.api_error import ApiError

    client = a_client(server.url, is_async)
    if what == "speech":
        asked = items(client.speak.v1.audio.generate(text="They span.", model="nonexistent"), is_async)
    else:
        asked = heard(client.listen.v1.media, "transcribe_file", is_async, model="nonexistent")
    with pytest.raises(ApiError):
        await asked
    told = watched.one()
    assert told["error.type"] == "BadRequestError"
    assert not [key for key in told if ".usage." in key]


@pytest.mark.parametrize("exchange", exchanges("deepgram.transcription"), ids=lambda exchange: exchange["id"])
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    body = exchange["response"]["body"]
    with replying(lambda *_: body) as server:
        a_client(server.url).listen.v1.media.transcribe_file(request=b"RIFF", model="nova-3-general")
    assert watched.usage() == {"audio_seconds": body["metadata"]["duration"]}
