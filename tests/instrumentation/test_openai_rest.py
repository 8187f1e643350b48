"""OpenAI beyond chat: images, audio, videos, moderations, batches, sessions and requests by path, on the real SDK."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from costspan_instrumentation.providers.openai import OPENAI, images_usage, transcription_usage

from .recorded import exchanges
from .replies import Asked, Refusal, replying, stream_of
from .watched import Watched, finished, items, watching

openai = pytest.importorskip("openai")

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 1056,
    "total_tokens": 1106,
}
AUDIO_USAGE = {
    "type": "tokens",
    "input_tokens": 37,
    "output_tokens": 145,
    "total_tokens": 182,
    "input_token_details": {"audio_tokens": 36, "text_tokens": 1},
}
CHAT_USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-4.1-2025-04-14",
    "output": [],
    "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
}


def batch(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file_1",
        "completion_window": "24h",
        "created_at": 1,
        "status": status,
        **more,
    }


class Answers:
    """What the server answers, by the end of the path."""

    def __init__(self) -> None:
        self.by_path: dict[str, Any] = {}

    def __call__(self, path: str, _body: dict[str, Any]) -> Any:
        found = [answer for end, answer in self.by_path.items() if path.split("?", maxsplit=1)[0].endswith(end)]
        return found[0] if found else Refusal(404, {"error": {"message": f"nothing at {path}"}})


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def asked(answers: Answers) -> Iterator[Asked]:
    with replying(answers) as asked:
        yield asked


@pytest.fixture
def seen() -> Iterator[Watched]:
    with watching(OPENAI) as watched:
        yield watched


def client(asked: Asked, is_async: bool = False) -> Any:
    make = openai.AsyncOpenAI if is_async else openai.OpenAI
    return make(base_url=f"{asked.url}/v1", api_key="k", max_retries=0)


# ---------------------------------------------------------------- images


@both
async def test_an_image_by_tokens(asked: Asked, answers: Answers, seen: Watched, is_async: bool) -> None:
    answers.by_path["/images/generations"] = {"created": 1, "data": [{"b64_json": ""}], "usage": IMAGE_USAGE}
    await finished(client(asked, is_async).images.generate(model="gpt-image-1", prompt="a bridge"), is_async)
    span = seen.one()
    assert (span["gen_ai.operation.name"], span["gen_ai.request.model"]) == ("image_generation", "gpt-image-1")
    assert {key: span[f"gen_ai.usage.{key}"] for key in ("input_tokens", "output_tokens")} == {
        "input_tokens": 50,
        "output_tokens": 1056,
    }
    assert (span["gen_ai.usage.image.input_tokens"], span["gen_ai.usage.image.output_tokens"]) == (40, 1056)


@both
async def test_images_that_are_sold_by_the_piece(asked: Asked, answers: Answers, seen: Watched, is_async: bool) -> None:
    answers.by_path["/images/edits"] = {"created": 1, "data": [{"url": "u"}, {"url": "v"}]}
    picture = ("a.png", b"\x89PNG", "image/png")
    await finished(client(asked, is_async).images.edit(model="dall-e-2", prompt="p", image=picture, n=2), is_async)
    assert seen.usage() == {"images": 2}


@both
async def test_a_streamed_image(asked: Asked, answers: Answers, seen: Watched, is_async: bool) -> None:
    if not hasattr(openai.types, "ImageGenCompletedEvent"):
        pytest.skip("this version streams no images")
    frame = {"b64_json": "", "created_at": 1, "size": "auto", "quality": "low", "background": "auto"}
    answers.by_path["/images/generations"] = stream_of(
        {"type": "image_generation.partial_image", "partial_image_index": 0, **frame},
        {"type": "image_generation.completed", "usage": IMAGE_USAGE, **frame},
    )
    made = client(asked, is_async).images.generate(model="gpt-image-1", prompt="p", stream=True)
    assert len(await items(await finished(made, is_async), is_async)) == 2
    assert seen.usage()["output_tokens"] == 1056


def test_the_details_of_an_image_decide_what_its_output_is() -> None:
    mixed = {**IMAGE_USAGE, "output_tokens_details": {"image_tokens": 1000, "text_tokens": 56}}
    assert images_usage(mixed)["gen_ai.usage.image.output_tokens"] == 1000


# ---------------------------------------------------------------- audio


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"usage": AUDIO_USAGE}, {"input_tokens": 37, "output_tokens": 145, "audio.input_tokens": 36}),
        ({"usage": {"type": "duration", "seconds": 95}}, {"audio_seconds": 95}),
        ({"duration": 95.5}, {"audio_seconds": 95.5}),
        ({}, {}),
    ],
    ids=["tokens", "seconds", "verbose of earlier versions", "nothing"],
)
def test_a_transcription(asked: Asked, answers: Answers, seen: Watched, told: Any, usage: Any) -> None:
    answers.by_path["/audio/transcriptions"] = {"text": "hello", **told}
    sound = ("a.wav", b"RIFF", "audio/wav")
    asking: dict[str, Any] = {"response_format": "verbose_json"} if "duration" in told else {}
    client(asked).audio.transcriptions.create(model="whisper-1", file=sound, **asking)
    assert seen.usage() == usage


def test_the_older_name_of_a_duration() -> None:
    assert transcription_usage({"audio_seconds": 4}) == {"costspan.usage.audio_seconds": 4}


@both
async def test_speech_costs_its_characters(asked: Asked, answers: Answers, seen: Watched, is_async: bool) -> None:
    answers.by_path["/audio/speech"] = {"not": "audio"}
    spoken = client(asked, is_async).audio.speech.create(model="tts-1", voice="alloy", input="Good morning")
    assert (await finished(spoken, is_async)).content == b'{"not": "audio"}'
    assert seen.usage() == {"characters": 12}


def test_speech_that_was_refused_costs_nothing(asked: Asked, answers: Answers, seen: Watched) -> None:
    answers.by_path["/audio/speech"] = Refusal(429, {"error": {"message": "slow down"}})
    with pytest.raises(openai.RateLimitError):
        client(asked).audio.speech.create(model="tts-1", voice="alloy", input="Good morning")
    span = seen.one()
    assert span["error.type"] == "RateLimitError"
    assert "costspan.usage.characters" not in span


# ---------------------------------------------------------------- moderations and videos


@both
async def test_a_moderation_is_one_request(asked: Asked, answers: Answers, seen: Watched, is_async: bool) -> None:
    answers.by_path["/moderations"] = {"id": "modr-1", "model": "omni-moderation-2024-09-26", "results": []}
    await finished(client(asked, is_async).moderations.create(input="hello"), is_async)
    span = seen.one()
    assert (span["gen_ai.operation.name"], span["costspan.usage.requests"]) == ("moderation", 1)
    assert span["gen_ai.response.model"] == "omni-moderation-2024-09-26"


def test_a_video_is_priced_by_the_seconds_that_were_ordered(asked: Asked, answers: Answers, seen: Watched) -> None:
    if not hasattr(openai.OpenAI, "videos"):
        pytest.skip("this version makes no videos")
    answers.by_path["/videos"] = {
        "id": "video_1",
        "object": "video",
        "model": "sora-2",
        "seconds": "8",
        "status": "queued",
    }
    client(asked).videos.create(model="sora-2", prompt="a bridge", seconds="8")
    assert seen.usage() == {"video_seconds": 8.0}


# ---------------------------------------------------------------- batches


@both
async def test_a_batch_is_counted_once_when_it_is_done(
    asked: Asked, answers: Answers, seen: Watched, is_async: bool
) -> None:
    usage = {
        "input_tokens": 36,
        "output_tokens": 224,
        "total_tokens": 260,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 128},
    }
    batches = client(asked, is_async).batches

    answers.by_path["/batches/batch_1"] = batch("in_progress")
    await finished(batches.retrieve("batch_1"), is_async)
    waiting = seen.one()
    assert waiting["gen_ai.operation.name"] == "fetch_response"
    assert "gen_ai.usage.input_tokens" not in waiting

    answers.by_path["/batches/batch_1"] = batch("completed", usage=usage, model="gpt-5-nano-2025-08-07")
    await finished(batches.retrieve("batch_1"), is_async)
    done = seen.one()
    assert (done["gen_ai.operation.name"], done["costspan.service_tier"]) == ("chat", "batch")
    assert (done["gen_ai.usage.input_tokens"], done["gen_ai.usage.output_tokens"]) == (36, 224)
    assert done["gen_ai.response.model"] == "gpt-5-nano-2025-08-07"

    await finished(batches.retrieve("batch_1"), is_async)
    again = seen.one()
    assert again["gen_ai.operation.name"] == "fetch_response"
    assert not any(key.startswith("gen_ai.usage.") for key in again)


def test_the_output_of_a_batch_is_no_call_and_its_lines_are_read_as_answers_are(
    asked: Asked, answers: Answers, seen: Watched
) -> None:
    recorded = exchanges("openai.batch_output")
    lines = recorded[0]["response"]["body"] if recorded else json.dumps({"response": {"body": RESPONSE}})
    answers.by_path["/files/file_1/content"] = lines
    told = [json.loads(line)["response"]["body"] for line in client(asked).files.content("file_1").text.splitlines()]
    assert seen.spans() == []
    usage = [OPENAI.usage_formats["openai.responses"](answer["usage"]) for answer in told]
    assert [one["gen_ai.usage.output_tokens"] for one in usage] == [answer["usage"]["output_tokens"] for answer in told]


# ---------------------------------------------------------------- requests by path


@both
async def test_a_request_that_names_its_path_itself(
    asked: Asked, answers: Answers, seen: Watched, is_async: bool
) -> None:
    answers.by_path["/chat/completions"] = {"id": "c", "model": "gpt-4.1", "choices": [], "usage": CHAT_USAGE}
    answers.by_path["/files"] = {"id": "file_1"}
    posting = client(asked, is_async)
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}
    await finished(posting.post("/chat/completions", body=body, cast_to=object), is_async)
    span = seen.one()
    assert (span["gen_ai.operation.name"], span["gen_ai.usage.input_tokens"]) == ("chat", 9)
    await finished(posting.post("/files", body={"purpose": "batch"}, cast_to=object), is_async)
    assert seen.spans() == []


# ---------------------------------------------------------------- sessions


@contextmanager
def socket(*events: dict[str, Any]) -> Iterator[str]:
    """A websocket on the loopback interface that sends these events to whoever connects."""
    server_of = pytest.importorskip("websockets.sync.server")

    def serve(connection: Any) -> None:
        for event in events:
            connection.send(json.dumps(event))

    with server_of.serve(serve, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()


DONE = {
    "type": "response.done",
    "event_id": "e",
    "response": {
        "id": "resp_1",
        "object": "realtime.response",
        "status": "completed",
        "output": [],
        "usage": {
            "total_tokens": 330,
            "input_tokens": 200,
            "output_tokens": 130,
            "input_token_details": {
                "text_tokens": 80,
                "audio_tokens": 120,
                "cached_tokens": 64,
                "cached_tokens_details": {"text_tokens": 24, "audio_tokens": 40},
            },
            "output_token_details": {"text_tokens": 30, "audio_tokens": 100},
        },
    },
}


def realtime(url: str, is_async: bool) -> Any:
    made = client(Asked(url), is_async)
    if not hasattr(made, "realtime"):
        pytest.skip("this version has no realtime sessions")
    return made.realtime.connect(model="gpt-realtime")


@both
async def test_each_answer_of_a_session_is_a_call(seen: Watched, is_async: bool) -> None:
    delta = {"type": "response.output_text.delta", "event_id": "d", "delta": "hi"}
    with socket(delta, DONE, delta, DONE) as url:
        if is_async:
            async with realtime(url, is_async) as connection:
                for _ in range(4):
                    await connection.recv()
        else:
            await asyncio.to_thread(_receive, url, 4)
    spans = [dict(span.attributes or {}) for span in seen.spans()]
    assert len(spans) == 2
    usage = {key.removeprefix("gen_ai.usage."): v for key, v in spans[0].items() if key.startswith("gen_ai.usage.")}
    assert usage == {
        "input_tokens": 200,
        "output_tokens": 130,
        "audio.input_tokens": 120,
        "audio.output_tokens": 100,
        "cache_read.input_tokens": 64,
        "audio.cache_read.input_tokens": 40,
    }
    assert (spans[0]["gen_ai.request.model"], spans[0]["gen_ai.operation.name"]) == ("gpt-realtime", "chat")


def _receive(url: str, count: int) -> None:
    with realtime(url, is_async=False) as connection:
        for _ in range(count):
            connection.recv()


@both
async def test_responses_over_a_socket(seen: Watched, is_async: bool) -> None:
    if not hasattr(client(Asked("http://localhost")).responses, "connect"):
        pytest.skip("this version has no sockets for responses")
    whole = {"type": "response.completed", "sequence_number": 2, "response": RESPONSE}
    begun = {"type": "response.created", "sequence_number": 1, "response": {**RESPONSE, "usage": None}}
    with socket(begun, whole) as url:
        if is_async:
            async with client(Asked(url), is_async).responses.connect() as connection:
                for _ in range(2):
                    await connection.recv()
        else:
            await asyncio.to_thread(_respond, url)
    span = seen.one()
    assert (span["gen_ai.request.model"], span["gen_ai.usage.input_tokens"]) == ("gpt-4.1-2025-04-14", 9)


def _respond(url: str) -> None:
    with client(Asked(url)).responses.connect() as connection:
        for _ in range(2):
            connection.recv()
