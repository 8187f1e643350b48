"""What Replicate bills -> what the span says, on the real SDK over real HTTP, its versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from costspan_instrumentation.providers.replicate import REPLICATE, usage_of

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

replicate = pytest.importorskip("replicate")

NEW = hasattr(replicate, "AsyncReplicate")
"""Version 2, which has clients of its own for asynchronous calls."""
both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
old = pytest.mark.skipif(NEW, reason="version 2 has no such method")

LLAMA, SDXL = "meta/meta-llama-3-8b-instruct", "stability-ai/sdxl"
VERSION = "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc"
TOKENS = {"predict_time": 1.5, "total_time": 1.6, "input_token_count": 12, "output_token_count": 40}
SECONDS = {"predict_time": 2.75, "total_time": 9.0}


def prediction(status: str, model: str, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    there = "https://api.replicate.com/v1/predictions/p1"
    return {
        "id": "p1",
        "model": model,
        "version": VERSION,
        "status": status,
        "input": {"prompt": "A bridge"},
        "output": None if status == "starting" else ["They ", "carry."],
        "logs": "",
        "error": "Out of memory" if status == "failed" else None,
        "created_at": "2026-11-28T10:00:00.000Z",
        "data_removed": False,
        "urls": {"get": there, "cancel": f"{there}/cancel", "web": there, "stream": f"{there}/stream"},
        **({"metrics": metrics} if metrics is not None else {}),
    }


class Replicate:
    """Plays one prediction: what it says when it is made, and each time that somebody asks for it."""

    def __init__(self) -> None:
        self.created = prediction("starting", SDXL)
        self.later = [prediction("processing", SDXL), prediction("succeeded", SDXL, SECONDS)]

    def reply(self, path: str, _body: dict[str, Any]) -> Any:
        if "nonexistent" in path:
            return Refusal(404, {"title": "Not found", "detail": "No such model", "status": 404})
        if path.endswith("/stream"):
            return "event: output\nid: 1\ndata: They \n\nevent: done\nid: 2\ndata: {}\n\n"
        if path.endswith("/cancel"):
            return prediction("canceled", SDXL, {"predict_time": 0.5})
        if path.endswith("/predictions"):
            return self.created
        return self.later.pop(0) if len(self.later) > 1 else self.later[0]


@pytest.fixture
def plays() -> Replicate:
    return Replicate()


@pytest.fixture
def server(plays: Replicate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.01")
    with replying(plays.reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching(REPLICATE) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False) -> Any:
    if NEW:
        kind = replicate.AsyncReplicate if is_async else replicate.Replicate
        return kind(bearer_token="k", base_url=f"{server.url}/v1", max_retries=0)
    return replicate.Client(api_token="k", base_url=server.url)


def call(of: Any, method: str, is_async: bool) -> Any:
    return getattr(of, method if NEW or not is_async else f"async_{method}")


async def created(client: Any, is_async: bool, model: str = SDXL) -> Any:
    create = call(client.models.predictions, "create", is_async)
    owner, _, name = model.partition("/")
    which: Any = {"model_owner": owner, "model_name": name} if NEW else {"model": model}
    return await finished(create(**which, input={"prompt": "A bridge"}), is_async)


async def asked_for(client: Any, is_async: bool, number: str = "p1") -> Any:
    return await finished(call(client.predictions, "get", is_async)(**numbered(number)), is_async)


def numbered(number: str) -> dict[str, str]:
    return {"prediction_id" if NEW else "id": number}


def told(watched: Watched) -> list[dict[str, Any]]:
    """Operation, response model and usage of each span."""
    return [
        {
            key.removeprefix("gen_ai.usage.").removeprefix("costspan.usage."): value
            for key, value in (span.attributes or {}).items()
            if ".usage." in key or key == "gen_ai.operation.name"
        }
        for span in watched.spans()
    ]


MADE, AGAIN = {"gen_ai.operation.name": "generate_content"}, {"gen_ai.operation.name": "fetch_response"}


@pytest.mark.parametrize(
    ("metrics", "usage"),
    [
        pytest.param(SECONDS, {"costspan.usage.compute_seconds": 2.75}, id="seconds"),
        pytest.param(TOKENS, {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 40}, id="tokens"),
        pytest.param({"predict_time": -1}, {"costspan.usage.compute_seconds": -1}, id="what cannot be is passed on"),
        pytest.param({}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no metrics"),
    ],
)
def test_usage(metrics: Any, usage: dict[str, Any]) -> None:
    assert usage_of(metrics) == usage
    assert REPLICATE.usage_formats["replicate.predictions"] is usage_of


@both
async def test_a_prediction_is_counted_when_it_is_seen_finished(
    server: Asked, watched: Watched, is_async: bool
) -> None:
    client = a_client(server, is_async)
    assert (await created(client, is_async)).status == "starting"
    (span,) = watched.spans()
    assert span.name == f"generate_content {SDXL}"
    attributes = dict(span.attributes or {})
    port = attributes.pop("server.port")
    assert f"http://{attributes.pop('server.address')}:{port}" == server.url
    assert attributes == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "replicate",
        "gen_ai.request.model": SDXL,
        "gen_ai.response.model": SDXL,
        "gen_ai.response.id": "p1",
    }
    assert (await asked_for(client, is_async)).status == "processing"
    assert watched.spans() == []
    assert (await asked_for(client, is_async)).status == "succeeded"
    (span,) = watched.spans()
    assert span.name == f"generate_content {SDXL}"
    assert (span.attributes or {})["costspan.usage.compute_seconds"] == 2.75
    await asked_for(client, is_async)
    assert told(watched) == [AGAIN]


@both
async def test_one_that_is_finished_at_once_is_counted_once(
    server: Asked, watched: Watched, plays: Replicate, is_async: bool
) -> None:
    plays.created = plays.later[0] = prediction("succeeded", LLAMA, TOKENS)
    client = a_client(server, is_async)
    await created(client, is_async, LLAMA)
    await asked_for(client, is_async)
    assert told(watched) == [{**MADE, "input_tokens": 12, "output_tokens": 40}, AGAIN]


@both
async def test_to_wait_is_to_ask_until_it_is_finished(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    made = await created(client, is_async)
    if NEW:
        await finished(client.predictions.wait(made.id), is_async)
    else:
        await finished(call(made, "wait", is_async)(), is_async)
    assert told(watched) == [MADE, {**MADE, "compute_seconds": 2.75}]


@both
@pytest.mark.parametrize("wait", [False, True], ids=["polled", "held"])
async def test_run(server: Asked, watched: Watched, plays: Replicate, wait: bool, is_async: bool) -> None:
    client = a_client(server, is_async)
    assert await finished(
        call(client, "run", is_async)(SDXL, input={"prompt": "A bridge"}, wait=wait, use_file_output=False), is_async
    )
    assert told(watched) == [MADE, {**MADE, "compute_seconds": 2.75}]
    # An answer that was held back until there is output is handed over before the metrics are known.
    plays.created = prediction("processing", SDXL)
    plays.later = [prediction("processing", SDXL), prediction("succeeded", SDXL, SECONDS)]
    await finished(call(client, "run", is_async)(SDXL, input={"prompt": "A bridge"}, wait=True), is_async)
    assert told(watched) == [MADE]


@both
async def test_a_failed_prediction_has_used_its_time(
    server: Asked, watched: Watched, plays: Replicate, is_async: bool
) -> None:
    from replicate.exceptions import ModelError

    plays.later = [prediction("failed", SDXL, {"predict_time": 1.0})]
    client = a_client(server, is_async)
    with pytest.raises(ModelError):
        await finished(call(client, "run", is_async)(SDXL, input={"prompt": "A bridge"}, wait=False), is_async)
    assert told(watched) == [MADE, {**MADE, "compute_seconds": 1.0}]


@both
async def test_a_cancelled_prediction_has_used_its_time(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(call(client.predictions, "cancel", is_async)(**numbered("p1")), is_async)
    assert told(watched) == [{**MADE, "compute_seconds": 0.5}]


@both
async def test_a_version_and_a_deployment(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(call(client.predictions, "create", is_async)(version=VERSION, input={"prompt": "A"}), is_async)
    assert watched.one()["gen_ai.request.model"] == VERSION
    which: Any = {"deployment_owner": "acme", "deployment_name": "d"} if NEW else {"deployment": ("acme", "d")}
    create = call(client.deployments.predictions, "create", is_async)
    await finished(create(**which, input={"prompt": "A"}), is_async)
    attributes = watched.one()
    assert (attributes["gen_ai.request.model"], attributes["gen_ai.response.model"]) == ("acme/d", SDXL)


@old
def test_names_come_in_many_forms(server: Asked, watched: Watched) -> None:
    from replicate.version import Version

    client = a_client(server)
    client.predictions.create(VERSION, {"prompt": "A"})
    assert watched.one()["gen_ai.request.model"] == VERSION
    version = Version(id=VERSION, created_at=datetime(2026, 11, 28, tzinfo=UTC), cog_version="0.9", openapi_schema={})
    client.predictions.create(version=version, input={"prompt": "A"})
    assert watched.one()["gen_ai.request.model"] == VERSION
    # One method of the SDK calls another: that is one call.
    client.predictions.create(model=("stability-ai", "sdxl"), input={"prompt": "A"})
    assert watched.one()["gen_ai.request.model"] == SDXL


@old
@both
async def test_streamed_output_tells_no_usage(
    server: Asked, watched: Watched, plays: Replicate, is_async: bool
) -> None:
    plays.created["urls"]["stream"] = f"{server.url}/stream"
    client = a_client(server, is_async)
    stream = call(client, "stream", is_async)(LLAMA, input={"prompt": "A"})
    said = await items(await finished(stream, is_async), is_async)
    assert str(said[0]) == "They "
    assert told(watched) == [MADE]


@both
async def test_a_refusal_is_raised(server: Asked, watched: Watched, is_async: bool) -> None:
    error = replicate.NotFoundError if NEW else replicate.exceptions.ReplicateError
    with pytest.raises(error):
        await created(a_client(server, is_async), is_async, "acme/nonexistent")
    attributes = watched.one()
    assert attributes["error.type"] == error.__name__
    assert not [key for key in attributes if ".usage." in key]
    with pytest.raises(error):
        await asked_for(a_client(server, is_async), is_async, "nonexistent")
    assert watched.spans() == []


@pytest.mark.parametrize("exchange", exchanges("replicate.predictions"), ids=lambda exchange: exchange["id"])
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    body = exchange["response"]["body"]
    with replying(lambda *_: body) as server:
        assert a_client(server).predictions.get(**numbered(body["id"])).id == body["id"]
    attributes = watched.one()
    assert attributes["gen_ai.response.model"] == exchange["response_model"]
    assert attributes["costspan.usage.compute_seconds"] == exchange["usage"]["predict_time"]
