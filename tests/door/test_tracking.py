"""`track`, `record`, `summary`, `reset`: what a block of code has cost, in the forms that people write."""

from __future__ import annotations

from tests.instrumentation.loopback import Loopback

from .program import START, output


def test_a_block_adds_up_its_own_calls_and_blocks_nest(provider: Loopback) -> None:
    code = """
    with costspan.track(team="search") as outer:
        call()
        with costspan.track(feature="answers") as inner:
            call()
    call()
    print(outer.cost.normalize(), outer.calls, outer.tokens, inner.cost.normalize(), inner.calls)
    print(outer.breakdown[("openai", "gpt-4.1-2025-04-14")].calls)
    print({k: v["calls"] for k, v in costspan.summary()["by_feature"].items()})
    """
    told = output(code, provider.url, before=START).splitlines()
    assert told == ["0.012 2 3000 0.006 1", "2", "{'(none)': 2, 'answers': 1}"]


def test_a_decorator_on_every_kind_of_function(provider: Loopback) -> None:
    code = """
    import asyncio
    @costspan.track(feature="plain")
    def plain(): call()
    @costspan.track(feature="coroutine")
    async def coroutine(): call()
    @costspan.track(feature="generator")
    def generator():
        call(); yield 1
        call(); yield 2
    @costspan.track(feature="agenerator")
    async def agenerator():
        call(); yield 1
    async def main():
        await coroutine()
        async with costspan.track(feature="block"): call()
        return [item async for item in agenerator()]
    plain(); print(list(generator()), asyncio.run(main()))
    print(sorted((k, v["calls"]) for k, v in costspan.summary()["by_feature"].items()))
    """
    told = output(code, provider.url, before=START).splitlines()
    assert told[0] == "[1, 2] [1]"
    assert told[1] == "[('agenerator', 1), ('block', 1), ('coroutine', 1), ('generator', 2), ('plain', 1)]"


def test_the_caller_of_a_generator_is_not_inside_its_block(provider: Loopback) -> None:
    code = """
    @costspan.track(feature="inside")
    def generator():
        call(); yield
    for _ in generator():
        call()
    print(sorted((k, v["calls"]) for k, v in costspan.summary()["by_feature"].items()))
    """
    assert output(code, provider.url, before=START) == "[('(none)', 1), ('inside', 1)]\n"


def test_a_call_that_no_patch_saw(provider: Loopback) -> None:
    code = """
    with costspan.track(team="search") as spent:
        cost = costspan.record("anthropic", "claude-sonnet-4-20250514",
            {"input_tokens": 100, "cache_read_input_tokens": 5000, "output_tokens": 200},
            "anthropic.messages", latency=1.5, feature="import")
    costspan.record("anthropic", "claude-sonnet-4-20250514", {"input_tokens": 1}, "anthropic.messages")
    print(cost.usd.normalize(), cost.status, spent.cost.normalize())
    summary = costspan.summary()
    print(summary["by_feature"]["import"]["calls"], summary["efficiency"]["latency"])
    try:
        costspan.record("anthropic", "m", {}, "nosuch")
    except ValueError as error:
        print("nosuch" in str(error), "anthropic.messages" in str(error))
    """
    told = output(code, provider.url, before=START).splitlines()
    # One call did not say how long it took: that is no second less in the mean.
    # 100 x $3 + 5,000 x $0.30 + 200 x $15 per million
    assert told == ["0.0048 priced 0.0048", "1 1.5", "True True"]


def test_reset_begins_again_at_zero_and_the_counters_go_on(provider: Loopback) -> None:
    code = """
    from costspan import startup
    call(); costspan.reset(); call()
    print(costspan.summary()["total"]["calls"], sum(r.calls["priced"] for r in startup._processing.table.rows()))
    """
    assert output(code, provider.url, before=START) == "1 2\n"
