"""A row says of a call what pricing said, to the picodollar, and totals hold what rows add up to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert, select

from costspan_pricing import PriceBook
from costspan_processor.attribution import Attribution, attributes_of
from costspan_processor.conventions import Plain, read
from costspan_processor.enrich import assess
from costspan_processor.ledger.rows import COLUMNS, Batch, Kept, Row, Rows, batch_of, figures, measures, rows_of, totals
from costspan_processor.ledger.schema import COMPONENTS, MEASURES, calls, measured

BOOK = PriceBook.bundled()
AT = 1_795_435_200_123_456_789
HOUR = AT // (3_600 * 10**9)


def made(attributes: dict[str, Any], sequence: int = 1, **given: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS, row(attributes, sequence, **given), strict=True))


def row(attributes: dict[str, Any], sequence: int = 1, **given: Any) -> Row:
    reading = read(attributes)
    assert reading is not None
    priced = assess(reading, AT, BOOK, given.get("duration"))
    said = {"who": None, "duration": 1.25, "first_chunk": None, "context": None}
    kept = Kept(priced=priced, at=AT, attributes=attributes, **{**said, **given})
    batch = Batch()
    batch.values += Rows("writer", "shop").record(kept, sequence, batch.series)
    (found,) = rows_of(batch)
    return found


def call(model: str = "openai/gpt-4.1", **counts: Any) -> dict[str, Any]:
    provider, _, name = model.partition("/")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "gen_ai.response.id": "answer-1",
        **{key.replace("__", "."): value for key, value in counts.items()},
    }


def test_a_call_of_text_alone() -> None:
    attributes = call(
        gen_ai__usage__input_tokens=1_000,
        gen_ai__usage__cache_read__input_tokens=400,
        gen_ai__usage__output_tokens=50,
        server__address="api.openai.com",
        server__port=443,
    )
    who = Attribution(attributes_of(team="search", user="u-1", message="m-7", tenant="acme"))
    found = made(attributes, who=who)
    assert {name: value for name, value in found.items() if value is not None and len(name) and name != "id"} == {
        "writer": "writer",
        "sequence": 1,
        "response_id": "answer-1",
        "started": AT,
        "hour": HOUR,
        "duration": 1_250_000_000,
        "service": "shop",
        "provider": "openai",
        "model": "gpt-4.1",
        "request_model": "gpt-4.1",
        "operation": "chat",
        "server": "api.openai.com:443",
        "user": "u-1",
        "team": "search",
        "message": "m-7",
        "tags": '{"tenant": "acme"}',
        "status": "priced",
        "aborted": False,
        "input_tokens": 1_000,
        "cache_read_tokens": 400,
        "output_tokens": 50,
        "usage": '{"input": 600, "cache_read": 400, "output": 50}',
        "cost": 1_800_000_000,
        "cost_input": 1_200_000_000,
        "cost_cache_read": 200_000_000,
        "cost_output": 400_000_000,
        "saved": 600_000_000,
        "write_premium": 0,
        "lines": '[["gpt-4.1", "input", 600, "2", 1000000, 1200000000], '
        '["gpt-4.1", "cache_read", 400, "0.5", 1000000, 200000000], '
        '["gpt-4.1", "output", 50, "8", 1000000, 400000000]]',
        "source": "local",
        "book": BOOK.version,
        "layer": found["layer"],
        "price_source": found["price_source"],
    }


def test_what_is_not_known_is_not_zero() -> None:
    found = made(call("openai/nobody-knows-it", gen_ai__usage__input_tokens=10), duration=None)
    assert found["status"] == "unknown_model"
    assert [found[name] for name in ("cost", "cost_input", "duration", "output_tokens", "book", "source", "user")] == (
        [None] * 7
    )


def test_a_providers_own_figure_wins_and_the_books_stays_beside_it() -> None:
    found = made(call(gen_ai__usage__input_tokens=1_000, costspan__usage__reported_cost=0.5))
    assert (found["cost"], found["cost_other"], found["source"]) == (5 * 10**11, 5 * 10**11, "provider")
    assert found["cost_book"] == 2_000_000_000 == sum(line[5] for line in json.loads(found["lines"]))


def test_parts_of_other_models_are_told_apart() -> None:
    part = {"model": "claude-haiku-4-5", "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}
    found = made(
        call(
            "anthropic/claude-sonnet-4-5",
            gen_ai__usage__input_tokens=1_000,
            gen_ai__usage__output_tokens=20,
            costspan__usage__iterations=json.dumps([part]),
        )
    )
    said = json.loads(found["usage"])
    assert said["input"] == 1_000
    assert said["parts"] == [{"model": "claude-haiku-4-5", "usage": {"input": 100, "output": 10}}]
    assert {line[0] for line in json.loads(found["lines"])} == {"claude-sonnet-4-5", "claude-haiku-4-5"}


def test_fingerprints_of_the_prompt_go_with_it() -> None:
    found = made(
        {
            **call(gen_ai__usage__input_tokens=10),
            "costspan.prompt.hash": "abc",
            "costspan.prompt.prefix_hash": "def",
            "costspan.prompt.prefix_share": 0.875,
        }
    )
    assert (found["prompt"], found["prefix"], found["prefix_share"]) == ("abc", "def", 875)


def test_figures_that_cannot_be_make_no_row() -> None:
    with pytest.raises(ValueError, match="no call costs"):
        made(call(gen_ai__usage__input_tokens=10**25))


# ---------------------------------------------------------------------- laws

COUNTS = {
    "gen_ai.usage.input_tokens": st.integers(0, 3_000_000),
    "gen_ai.usage.output_tokens": st.integers(0, 200_000),
    "gen_ai.usage.cache_read.input_tokens": st.integers(0, 1_000_000),
    "gen_ai.usage.cache_write.input_tokens": st.integers(0, 100_000),
    "costspan.usage.cache_write_1h": st.integers(0, 100_000),
    "gen_ai.usage.reasoning.output_tokens": st.integers(0, 100_000),
    "gen_ai.usage.audio.input_tokens": st.integers(0, 10_000),
    "costspan.usage.web_searches": st.integers(0, 9),
    "costspan.usage.audio_seconds": st.floats(0, 9_999, allow_nan=False),
    "costspan.usage.reported_cost": st.decimals(0, 100, places=12).map(str),
    "costspan.usage.estimated": st.booleans(),
}
MODELS = (
    "openai/gpt-4.1", "openai/gpt-4o-audio-preview", "openai/whisper-1", "anthropic/claude-sonnet-4-5",
    "ollama/llama3.1", "google.gemini/gemini-2.5-pro", "groq/whisper-large-v3", "openai/nobody-knows-it", "acme/large",
)  # fmt: skip
USAGES = st.fixed_dictionaries({}, optional=COUNTS)
ERRORS = st.sampled_from([{}, {"error.type": "Timeout"}, {"costspan.stream.aborted": True}])
WHO = st.fixed_dictionaries({}, optional={name: st.sampled_from("ab") for name in ("team", "user", "session")})
DRAWN = st.tuples(st.sampled_from(MODELS), USAGES, ERRORS, WHO)


def drawn(model: str, usage: dict[str, Any], more: dict[str, Any], who: dict[str, str], sequence: int = 1) -> Row:
    return row({**call(model), **usage, **more}, sequence, who=Attribution(attributes_of(**who)))


@given(DRAWN)
@settings(max_examples=150, deadline=None)
def test_the_parts_of_a_row_are_its_cost(one: Any) -> None:
    found = dict(zip(COLUMNS, drawn(*one), strict=True))
    components = [found[f"cost_{name}"] for name in COMPONENTS]
    lines = [line[5] for line in json.loads(found["lines"] or "[]") if line[5] is not None]
    if found["cost"] is None:
        assert components == [None] * 5
        assert not lines
        return
    assert sum(part or 0 for part in components) == found["cost"]
    assert sum(lines) == (found["cost"] if found["source"] == "local" else found["cost_book"] or 0)


@given(DRAWN)
@settings(max_examples=100, deadline=None)
def test_the_row_of_a_call_of_text_alone_is_what_any_call_has(one: Any) -> None:
    """The quick way to a row, which nearly every call takes, against the one through the objects of its cost."""
    model, usage, more, _ = one
    attributes = {**call(model), **usage, **more}
    reading = read(attributes)
    assert reading is not None
    priced = assess(reading, AT, BOOK, 1.25)
    if not isinstance(priced, Plain):
        return
    found = dict(zip(COLUMNS, drawn(*one), strict=True))
    cost = priced.card.cost(priced.usage)
    assert found["cost"] == cost.total
    assert {name: found[f"cost_{name}"] for name in cost.components} == cost.components
    assert json.loads(found["usage"]) == dict(priced.usage.quantities)
    assert json.loads(found["lines"]) == [
        [line.model, line.meter, line.quantity, f"{line.rate:f}", line.per, line.pico] for line in cost.lines
    ]


@given(st.lists(DRAWN, min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_totals_are_what_the_schema_says_in_sql(some: list[Any]) -> None:
    rows = [drawn(model, usage, more, who, number) for number, (model, usage, more, who) in enumerate(some)]
    engine = create_engine("sqlite://")
    calls.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(calls), [dict(zip(COLUMNS, row, strict=True)) for row in rows])
        said = connection.execute(select(*(measured()[name] for name in MEASURES)).order_by(calls.c.sequence)).all()
    engine.dispose()
    batch = batch_of(rows)
    assert rows_of(batch) == rows
    shared = {id_: values for values, id_ in batch.series.items()}
    columns = figures(batch)
    made = [measures(columns, [place], shared[id_]) for place, id_ in enumerate(batch.column("series"))]
    assert [tuple(one) for one in said] == made
    hours, spenders = totals(batch)
    assert sum(hour[-len(MEASURES)] for hour in hours) == len(rows)
    told = sum(row[COLUMNS.index(kind)] is not None for row in rows for kind in ("user", "session", "conversation"))
    assert sum(spender[-len(MEASURES)] for spender in spenders) == told
    for place in range(1, len(MEASURES) + 1):
        assert sum(hour[-place] for hour in hours) == sum(one[-place] for one in made)
