"""What Voyage bills -> what the span says, on the real SDK over real HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.voyage import VOYAGE, embeddings_usage

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

VECTOR = [0.25, -0.5]


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param({"total_tokens": 12}, {"gen_ai.usage.input_tokens": 12}, id="text"),
        pytest.param(
            # 2,000,000 pixels are 3,571 of the total's tokens, and are billed as pixels.
            {"text_tokens": 5, "image_pixels": 2_000_000, "total_tokens": 3576},
            {"gen_ai.usage.input_tokens": 5, "costspan.usage.pixels": 2_000_000},
            id="images are billed by the pixel",
        ),
        pytest.param(
            {"text_tokens": 0, "image_pixels": 500, "video_pixels": 1000, "total_tokens": 3},
            {"gen_ai.usage.input_tokens": 0, "costspan.usage.pixels": 1500},
            id="videos too",
        ),
        pytest.param(
            {"text_tokens": 7, "image_pixels": 0, "video_pixels": 0, "total_tokens": 7},
            {"gen_ai.usage.input_tokens": 7},
            id="a multimodal model without images",
        ),
        pytest.param({"total_tokens": -1}, {"gen_ai.usage.input_tokens": -1}, id="what cannot be is passed on"),
        pytest.param({}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert embeddings_usage(usage) == attributes
    assert VOYAGE.usage_formats["voyage.embeddings"] is embeddings_usage


def reply(path: str, body: dict[str, Any]) -> Any:
    if body["model"] == "nonexistent":
        return Refusal(400, {"detail": "Model nonexistent is not supported."})
    if "rerank" in path:
        return {"data": [{"relevance_score": 0.5, "index": 0}], "usage": {"total_tokens": 43}}
    if "contextualized" in path:
        return {"data": [{"data": [{"embedding": VECTOR, "index": 0}], "index": 0}], "usage": {"total_tokens": 9}}
    usage = {"total_tokens": 4}
    if "multimodal" in path:
        usage = {"text_tokens": 5, "image_pixels": 2_000_000, "video_pixels": 0, "total_tokens": 3576}
    return {"data": [{"embedding": VECTOR, "index": 0}], "model": body["model"], "usage": usage}


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("voyageai")
    with watching(VOYAGE) as watched:
        yield watched


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """The address is the module's in versions before 0.3.3, the client's since."""
    voyageai = pytest.importorskip("voyageai")
    with replying(reply) as asked:
        monkeypatch.setattr(voyageai, "api_base", asked.url, raising=False)
        yield asked


def a_client(server: Asked, is_async: bool = False) -> Any:
    voyageai = pytest.importorskip("voyageai")
    kind = voyageai.AsyncClient if is_async else voyageai.Client
    try:
        return kind(api_key="k", max_retries=1, base_url=server.url)
    except TypeError:
        return kind(api_key="k", max_retries=1)


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    result = await finished(client.embed(["Hello"], model="voyage-4", input_type="query"), is_async)
    assert result.total_tokens == 4
    told = watched.one()
    address = told.pop("server.address", None), told.pop("server.port", None)
    assert address[0] in {"127.0.0.1", None}
    assert told == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "voyage",
        "gen_ai.request.model": "voyage-4",
        "gen_ai.usage.input_tokens": 4,
    }


def test_arguments_may_come_by_position(server: Asked, watched: Watched) -> None:
    a_client(server).embed(["Hello"], "voyage-4")
    assert watched.one()["gen_ai.request.model"] == "voyage-4"


def test_the_dimension_that_was_asked_for(server: Asked, watched: Watched) -> None:
    client = a_client(server)
    if "output_dimension" not in inspect.signature(client.embed).parameters:
        pytest.skip("this version has no output_dimension")
    client.embed(["Hello"], model="voyage-4", output_dimension=256)
    assert watched.one()["gen_ai.embeddings.dimension.count"] == 256


@pytest.mark.filterwarnings("ignore:The `model` argument is not specified")
def test_no_model_is_the_one_that_the_sdk_asks_for(server: Asked, watched: Watched) -> None:
    a_client(server).embed(["Hello"])
    assert watched.one()["gen_ai.request.model"] == server.requests[0][1]["model"]


@both
async def test_reranking(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.rerank("capital", ["Paris"], "rerank-2.5"), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "rerank"
    assert told["gen_ai.request.model"] == "rerank-2.5"
    assert told["gen_ai.usage.input_tokens"] == 43


@both
async def test_images_and_text(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    if not hasattr(client, "multimodal_embed"):
        pytest.skip("this version has no multimodal embeddings")
    await finished(client.multimodal_embed([["a cat"]], model="voyage-multimodal-3"), is_async)
    assert watched.usage() == {"input_tokens": 5, "pixels": 2_000_000}


@both
async def test_chunks_in_their_context(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    if not hasattr(client, "contextualized_embed"):
        pytest.skip("this version has no contextualized embeddings")
    await finished(client.contextualized_embed([["a", "b"]], model="voyage-context-3"), is_async)
    assert watched.usage() == {"input_tokens": 9}


@pytest.mark.filterwarnings("ignore:This function will be deprecated")
@both
async def test_the_functions_that_need_no_client(
    server: Asked, watched: Watched, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", "k")
    voyageai = pytest.importorskip("voyageai")
    function = voyageai.aget_embeddings if is_async else voyageai.get_embeddings
    await finished(function(["Hello"], model="voyage-4", base_url=server.url), is_async)
    assert watched.one()["gen_ai.usage.input_tokens"] == 4


@both
async def test_a_refusal_is_raised_and_not_billed(server: Asked, watched: Watched, is_async: bool) -> None:
    voyageai = pytest.importorskip("voyageai")
    with pytest.raises(voyageai.error.InvalidRequestError):
        await finished(a_client(server, is_async).embed(["Hello"], model="nonexistent"), is_async)
    told = watched.one()
    assert told["error.type"] == "InvalidRequestError"
    assert not [key for key in told if ".usage." in key]


def test_a_model_that_runs_in_the_process_is_no_call(
    server: Asked, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the packages that such a model needs, the SDK says so; either way nobody is asked."""
    registry = pytest.importorskip("voyageai.local.model_registry")
    local = next(iter(registry.SUPPORTED_MODELS))
    monkeypatch.setattr("voyageai.client.embed_local", lambda **_: "embedded")
    assert a_client(server).embed(["Hello"], model=local) == "embedded"
    assert (watched.spans(), server.requests) == ([], [])


@pytest.mark.parametrize(
    "exchange", exchanges("voyage.embeddings", "voyage.rerank"), ids=lambda exchange: exchange["id"]
)
def test_recorded(watched: Watched, monkeypatch: pytest.MonkeyPatch, exchange: dict[str, Any]) -> None:
    response, sent = exchange["response"], exchange["request"]["body"]
    status = response["status"]
    voyageai = pytest.importorskip("voyageai")
    with replying(lambda *_: response["body"] if status == 200 else Refusal(status, response["body"])) as server:
        monkeypatch.setattr(voyageai, "api_base", server.url, raising=False)
        client = a_client(server)
        if exchange["api"] == "voyage.rerank":
            client.rerank(sent["query"], sent["documents"], model=sent["model"])
        elif status == 200:
            client.embed(sent["input"], model=sent["model"])
        else:
            with pytest.raises(voyageai.error.VoyageError):
                client.embed(sent["input"], model=sent["model"])
    assert watched.one().get("gen_ai.usage.input_tokens") == (exchange["usage"] or {}).get("total_tokens")
