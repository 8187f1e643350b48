"""What Hugging Face passes on, and who bills it -> what the span says, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.huggingface import HUGGINGFACE
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = [{"role": "user", "content": "Say something about bridges"}]
MODEL = "deepseek-ai/DeepSeek-R1"
USAGE: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cached_tokens": 0}
WHO: dict[str, Any] = {"id": "oX1", "object": "chat.completion", "created": 1, "model": MODEL, "system_fingerprint": ""}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}
TOKEN: dict[str, Any] = {"id": 1, "logprob": -0.5, "special": False}


def events(*parts: dict[str, Any]) -> str:
    return "".join(f"data:{json.dumps(one)}\n\n" for one in parts)


def reply(path: str, body: dict[str, Any]) -> Any:
    if body.get("model") == "nonexistent":
        return Refusal(404, {"error": "The requested model 'nonexistent' does not exist"})
    if "feature-extraction" in path or ("inputs" in body and "parameters" not in body):
        return [[0.5, 0.25]]
    if "inputs" in body and body.get("stream"):
        details = {"finish_reason": "length", "generated_tokens": 2, "input_length": 5, "seed": None}
        parts = [{"index": n, "token": {**TOKEN, "text": text}} for n, text in enumerate(("They", " carry"))]
        return events(parts[0], {**parts[1], "generated_text": "They carry", "details": details})
    if "inputs" in body:
        prefill = [{**TOKEN, "text": "Bridges"}] if body["parameters"].get("decoder_input_details") else []
        details = {"finish_reason": "length", "generated_tokens": 2, "prefill": prefill, "tokens": [], "seed": None}
        return [{"generated_text": "They carry", "details": details}]
    if body.get("stream"):
        parts = [{"index": 0, "delta": {"role": "assistant", "content": text}} for text in ("They ", "carry.")]
        chunks: list[dict[str, Any]] = [{**WHO, "choices": [part]} for part in parts]
        chunks[-1]["choices"][0]["finish_reason"] = "stop"
        return events(*chunks, {**WHO, "choices": [], "usage": USAGE}) + "data: [DONE]\n\n"
    usage = {"usage": {**USAGE, "estimated_cost": 0.25}} if body.get("model") == "tells-its-cost" else {"usage": USAGE}
    return {**WHO, "choices": [SAYS], **({} if body.get("model") == "silent" else usage)}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("huggingface_hub")
    with watching(HUGGINGFACE) as watched:
        yield watched


def a_client(is_async: bool = False, **more: Any) -> Any:
    import huggingface_hub

    return (huggingface_hub.AsyncInferenceClient if is_async else huggingface_hub.InferenceClient)(**more)


@pytest.fixture
def routed(server: Asked, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The router, and the providers themselves, on this machine."""
    constants = pytest.importorskip("huggingface_hub.constants")
    providers = pytest.importorskip("huggingface_hub.inference._providers")
    common = pytest.importorskip("huggingface_hub.inference._providers._common")
    if not hasattr(common, "HARDCODED_MODEL_INFERENCE_MAPPING"):
        pytest.skip("this version asks the Hub which provider serves what")
    monkeypatch.setattr(constants, "INFERENCE_PROXY_TEMPLATE", f"{server.url}/{{provider}}")
    known = {"hf_model_id": MODEL, "provider_id": MODEL, "status": "live", "task": "conversational"}
    for name in ("together", "fireworks-ai"):
        served = {MODEL: _mapping(name, known)}
        monkeypatch.setitem(common.HARDCODED_MODEL_INFERENCE_MAPPING, name, served)
        monkeypatch.setattr(providers.PROVIDERS[name]["conversational"], "base_url", server.url)
    if hasattr(providers, "CONVERSATIONAL_AUTO_ROUTER"):
        monkeypatch.setattr(providers.CONVERSATIONAL_AUTO_ROUTER, "base_url", server.url)
    return server


def _mapping(provider: str, known: dict[str, str]) -> Any:
    from importlib import import_module

    api: Any = import_module("huggingface_hub.hf_api")

    try:
        return api.InferenceProviderMapping(provider=provider, providerId=known["provider_id"], **known)
    except TypeError:
        wanted = {**known, "providerId": known["provider_id"]}
        return api.InferenceProviderMapping(
            **{key: wanted[key] for key in ("hf_model_id", "providerId", "status", "task")}
        )


# ---------------------------------------------------------------- who bills


@both
async def test_the_router_bills_what_the_chosen_provider_charges(
    routed: Asked, watched: Watched, is_async: bool
) -> None:
    client = a_client(is_async, provider="together", token="hf_x")
    answer = await finished(client.chat_completion(ASK, model=MODEL, max_tokens=9), is_async)
    assert answer.choices[0].message.content == "They carry."
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "huggingface"
    assert told["gen_ai.request.model"] == f"{MODEL}:together"
    assert told["gen_ai.request.max_tokens"] == 9
    assert told["server.address"] == "router.huggingface.co"
    # $3 and $7 a million.
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == pytest.approx(0.003 + 0.0007)


@pytest.mark.parametrize(("provider", "name"), [("together", "together"), ("fireworks-ai", "fireworks")])
def test_a_key_of_the_providers_own_is_billed_by_it(routed: Asked, watched: Watched, provider: str, name: str) -> None:
    a_client(provider=provider, token="tk-x", model=MODEL).chat_completion(ASK)
    told = watched.one()
    assert told["gen_ai.provider.name"] == name
    assert told["gen_ai.request.model"] == MODEL
    assert "server.address" not in told
    if name == "together":
        assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == pytest.approx(0.003 + 0.0007)


def test_where_the_router_chooses_the_price_is_not_known(routed: Asked, watched: Watched) -> None:
    a_client(token="hf_x").chat.completions.create(model=MODEL, messages=ASK)
    told = watched.one()
    assert (told["gen_ai.provider.name"], told["gen_ai.request.model"]) == ("huggingface", MODEL)
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.status"] == "unknown_model"


def test_a_cost_that_the_provider_tells_is_taken_over(routed: Asked, watched: Watched) -> None:
    a_client(token="hf_x").chat_completion(ASK, model="tells-its-cost")
    assert enrich(watched.one(), AT, PriceBook.bundled())["costspan.cost.total"] == 0.25


@pytest.mark.parametrize("in_call", [False, True], ids=["of the client", "of the call"])
def test_a_server_of_ones_own(server: Asked, watched: Watched, in_call: bool) -> None:
    if in_call:
        a_client(token="hf_x").text_generation("bridges", model=server.url)
    else:
        a_client(model=server.url).text_generation("bridges")
    told = watched.one()
    assert told["gen_ai.provider.name"] == "huggingface"
    assert told["server.address"] == "127.0.0.1"
    assert "gen_ai.request.model" not in told


# ---------------------------------------------------------------- calls, on a server of one's own


@both
async def test_chat_stream(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(is_async, base_url=server.url)
    stream = await finished(client.chat_completion(ASK, model=MODEL, stream=True), is_async)
    assert hasattr(stream, "asend" if is_async else "send")
    assert len(await items(stream, is_async)) == 3
    told = watched.one()
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(is_async, base_url=server.url)
    stream = await finished(client.chat_completion(ASK, model=MODEL, stream=True), is_async)
    if is_async:
        await stream.__anext__()
        await stream.aclose()
    else:
        next(stream)
        stream.close()
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 2, "estimated": True}


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    with pytest.raises(Exception, match="404"):
        await finished(a_client(is_async, base_url=server.url).chat_completion(ASK, model="nonexistent"), is_async)
    told = watched.one()
    assert told["error.type"]
    assert not [key for key in told if ".usage." in key]


def test_an_answer_without_usage_is_not_zero(server: Asked, watched: Watched) -> None:
    a_client(base_url=server.url).chat_completion(ASK, model="silent")
    assert watched.usage() == {}


@both
async def test_text_generation_tells_what_its_details_do(server: Asked, watched: Watched, is_async: bool) -> None:
    generate = a_client(is_async, model=server.url).text_generation
    assert await finished(generate("bridges"), is_async) == "They carry"
    assert watched.usage() == {}
    await finished(generate("bridges", details=True, decoder_input_details=True, max_new_tokens=2), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.request.max_tokens"] == 2
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1, 2)


@both
@pytest.mark.parametrize("details", [False, True], ids=["text", "details"])
async def test_a_stream_of_text(server: Asked, watched: Watched, is_async: bool, details: bool) -> None:
    generate = a_client(is_async, model=server.url).text_generation
    stream = await finished(generate("bridges", stream=True, details=details), is_async)
    assert len(await items(stream, is_async)) == 2
    told = {"input_tokens": 5, "output_tokens": 2}
    assert watched.usage() == (told if details else {"input_tokens": 2, "output_tokens": 3, "estimated": True})


@both
async def test_embeddings_tell_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    pytest.importorskip("numpy")
    vectors = await finished(a_client(is_async, model=server.url).feature_extraction("bridges"), is_async)
    assert vectors.shape == (1, 2)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert not [key for key in told if ".usage." in key]


def test_recorded_answers_tell_the_usage_that_was_recorded() -> None:
    for exchange in exchanges("huggingface.chat"):
        usage, body = exchange["usage"], exchange["response"]["body"]
        if usage and isinstance(body, dict):
            told = HUGGINGFACE.endpoints[0].response(body)
            assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
            assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
