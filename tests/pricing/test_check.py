"""What is wrong with a price file is said with its place; the published JSON Schema refuses nothing else."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from costspan.book import price_book
from costspan.settings import Settings
from costspan_pricing import BookError, PriceBook, meters
from costspan_pricing.book import DATA as FOLDER
from costspan_pricing.check import LARGEST, MOST, SCHEMA, check, decoded, load, parse
from costspan_pricing.shelf import Library, in_usd

DATA = Path(FOLDER)

BOOK: dict[str, Any] = {
    "$schema": "prices-v1.schema.json",
    "schema_version": 1,
    "book_version": "2026.11.28",
    "dated": "2026-11-28",
    "comment": "A book of one's own that says nearly everything that can be said.",
    "currency": {
        "code": "EUR",
        "usd": [{"rate": "1.08", "source": "the bank"}, {"from": "2026-07-01T00:00:00Z", "rate": "1.1"}],
    },
    "providers": {
        "openai": {
            "models": {
                "gpt-4.1": {
                    "names": ["our-best"],
                    "periods": [
                        {"to": "2026-05-01", "rates": {"input": "1.80", "output": "7.20"}},
                        {
                            "from": "2026-05-01",
                            "rates": {"input": "1.60", "cache_read": "0.40", "output": "6.40"},
                            "context_tiers": [
                                {"over": 200000, "cmp": "gte", "rates": {"input": "3"}, "applies_to": "whole_request"},
                                {"over": 500000, "rates": {"input": "4", "output": "20"}},
                            ],
                            "tiers": {
                                "batch": {
                                    "rates": {"input": "0.80", "output": "3.20"},
                                    "context_tiers": [{"over": 200000, "rates": {"input": "1.5"}}],
                                }
                            },
                            "source": "contract of April 2026, page 3",
                        },
                        {"extends": True, "from": "2026-06-01", "rates": {"cache_read": "0.35"}, "observed": True},
                    ],
                },
                "*": {"periods": [{"rates": {"input": "5", "output": "15"}}]},
            },
            "multipliers": [{"id": "deal", "factor": "0.93", "scope": "all", "to": "2027-01-01T00:00:00+01:00"}],
        },
        "house": [
            {
                "aliases": ["in-house"],
                "prefixes": {"eu.": ["", "europe."]},
                "suffixes": {":fast": ""},
                "routes": {"openai/": "openai"},
                "inherits": ["openai"],
                "fallback": {"output_reasoning": "output"},
                "fees": [{"rates": {"web_searches": {"usd": "8", "per": 1000}}}],
                "multipliers": [
                    {
                        "id": "region",
                        "geo": ["*", ""],
                        "factor": "1.1",
                        "scope": "tokens",
                        "models": ["llama*", "ears"],
                        "released_from": "2026-01-01",
                        "from": "2026-02-01",
                    }
                ],
                "models": {
                    "llama": {
                        "versions_of": ["llama"],
                        "released": "2026-02-05",
                        "fallback": {"input_image": "input"},
                        "periods": [
                            {"to": "2026-02-01", "unpriced": "it ran on a machine that nobody paid for"},
                            {
                                "from": "2026-02-01",
                                "rates": {"compute_seconds": "2.29", "input": "0"},
                                "fallback": {"cache_read": "input"},
                                "windows": [
                                    {
                                        "name": "night",
                                        "tz": "Europe/Berlin",
                                        "days": "mon-fri,sun",
                                        "spans": [["22:00", "06:00"], ["12:00", "12:30"]],
                                        "rates": {"compute_seconds": "1.10"},
                                    },
                                    {
                                        "name": "weekend",
                                        "tz": "Europe/Berlin",
                                        "days": "sat",
                                        "spans": [["06:00", "24:00"]],
                                        "tiers": {"batch": {"rates": {"compute_seconds": "0.9"}}},
                                    },
                                ],
                            },
                        ],
                    }
                },
            },
            {
                "free": [":test"],
                "source": "our own",
                "models": {
                    "ears": {
                        "periods": [
                            {"rates": {"audio_seconds": {"usd": "0.111", "per": 3600, "minimum": "10"}}, "free": False}
                        ]
                    },
                    "store": {
                        "periods": [
                            {
                                "rates": {
                                    "storage_gb_months": {
                                        "usd": "0.02",
                                        "allowance": {"quantity": "100", "period": "month"},
                                    }
                                }
                            }
                        ]
                    },
                },
            },
        ],
        "ollama": {"free": True, "models": {"llava": {"periods": [{"free": True, "checked": "2026-11-28"}]}}},
        "gateway": {"routes": True},
    },
}

PACKAGED: dict[str, Any] = {
    "schema_version": 1,
    "layer": "bundled",
    "provider": "acme",
    "checked": "2026-11-28",
    "from": {"name": "genai-prices", "version": "0.2.3", "licence": "MIT"},
    "fees": [{"rates": {"web_searches": "10"}, "source": "https://acme.example/pricing"}],
    "multipliers": [
        {"id": "eu", "geo": ["eu"], "factor": "1.1", "scope": "tokens", "source": "https://acme.example/eu"}
    ],
    "models": {
        "acme-1": {
            "periods": [
                {"to": "2026-01-01", "rates": {"input": "3"}, "source": "https://acme.example/pricing"},
                {"from": "2026-01-01", "to": "2026-02-01", "unpriced": "closed for repairs"},
                {"from": "2026-02-01", "rates": {"input": "2"}, "source": "https://acme.example/pricing"},
            ]
        }
    },
}

FILES = sorted(file for file in (*DATA.glob("*.json"), *DATA.glob("overlay/*.json")) if file.name != "index.json")
VOCABULARY: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(VOCABULARY)


def said(document: Any) -> list[str]:
    return [str(problem) for problem in check(document, "f")]


# ------------------------------------------------------------------ files that are good


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_data_of_the_package_is_good_by_check_and_by_schema(file: Path) -> None:
    assert check(decoded(file.read_bytes(), "f"), "f") == []
    document = json.loads(file.read_bytes())
    VALIDATOR.validate(document)
    assert document["provider"] == file.stem


@pytest.mark.parametrize("document", [BOOK, PACKAGED], ids=["book", "packaged"])
def test_all_that_can_be_said_is_good_by_check_and_by_schema(document: dict[str, Any]) -> None:
    assert said(document) == []
    VALIDATOR.validate(document)


def test_a_file_of_one_provider_is_a_book_of_that_one(tmp_path: Path) -> None:
    file = tmp_path / "acme.json"
    file.write_text(json.dumps(PACKAGED), encoding="utf-8")
    assert load(file) == {"schema_version": 1, "providers": {"acme": PACKAGED}}
    card = PriceBook.bundled().with_file(file).card("acme", "acme-1", 0)
    assert card is not None


# ------------------------------------------------------------------ files that are not


def changed(change: Callable[[dict[str, Any]], object], document: dict[str, Any] = BOOK) -> bytes:
    """A file that is good but for one change."""
    changed = copy.deepcopy(document)
    change(changed)
    return json.dumps(changed).encode()


def model(document: dict[str, Any]) -> dict[str, Any]:
    return document["providers"]["openai"]["models"]["gpt-4.1"]  # type: ignore[no-any-return]


def period(document: dict[str, Any]) -> dict[str, Any]:
    return model(document)["periods"][1]  # type: ignore[no-any-return]


def window(document: dict[str, Any]) -> dict[str, Any]:
    return document["providers"]["house"][0]["models"]["llama"]["periods"][1]["windows"][0]  # type: ignore[no-any-return]


OF = "openai/gpt-4.1, period from 2026-05-01, "
NIGHT = "house/llama, period from 2026-02-01, "

MALFORMED: dict[str, tuple[bytes, str]] = {
    "wrong type": (changed(lambda d: period(d).update(rates="2.50")), f"{OF}rates: is text, not an object"),
    "number": (
        changed(lambda d: period(d)["rates"].update(input=2.50)),
        f'{OF}rates.input: is the number 2.5; a price is a string: "2.5"',
    ),
    "negative": (changed(lambda d: period(d)["rates"].update(input="-1")), f'{OF}rates.input: is negative: "-1"'),
    "no decimal": (
        changed(lambda d: period(d)["rates"].update(input="2,50")),
        f'{OF}rates.input: is "2,50"; a price is digits, with a point',
    ),
    "overlapping periods": (
        changed(lambda d: model(d)["periods"][0].update(to="2026-05-02")),
        f"{OF}from: overlaps the period from the beginning",
    ),
    "unknown meter": (
        changed(lambda d: period(d)["rates"].update(inptu="1")),
        f'{OF}rates.inptu: unknown meter; did you mean "input"?',
    ),
    "bad date": (
        changed(lambda d: period(d).update({"from": "2026-02-30"})),
        'openai/gpt-4.1, period from 2026-02-30, from: "2026-02-30" is no instant such as',
    ),
    "to before from": (
        changed(lambda d: period(d).update(to="2026-04-01")),
        f'{OF}to: "2026-04-01" is not after from, "2026-05-01"',
    ),
    "bad zone": (
        changed(lambda d: window(d).update(tz="Europe/Berln")),
        f'{NIGHT}windows[0].tz: no time zone is known as "Europe/Berln"; did you mean "Europe/Berlin"?',
    ),
    "bad days": (
        changed(lambda d: window(d).update(days="monday")),
        f'{NIGHT}windows[0].days: is "monday"; days are such as mon-fri',
    ),
    "bad hours": (
        changed(lambda d: window(d).update(spans=[["9:00", "12:00"]])),
        f'{NIGHT}windows[0].spans[0]: "9:00" is no time of day such as 09:00',
    ),
    "overlapping windows": (
        changed(lambda d: window(d).update(days="mon-sat")),
        f"{NIGHT}windows[1].spans: some of their hours are those of windows[0] too",
    ),
    "hours without length": (
        changed(lambda d: window(d).update(spans=[["09:00", "09:00"]])),
        f"{NIGHT}windows[0].spans[0]: ends when it begins",
    ),
    "overlapping spans": (
        changed(lambda d: window(d).update(spans=[["09:00", "12:00"], ["11:00", "13:00"]])),
        f"{NIGHT}windows[0].spans: two of them overlap",
    ),
    "window without a difference": (
        changed(lambda d: window(d).pop("rates")),
        f"{NIGHT}windows[0]: has neither rates nor tiers",
    ),
    "duplicate alias": (
        changed(lambda d: d["providers"]["house"][0].update(aliases=["OpenAI"])),
        'house, aliases: "openai" is a name of the provider "openai" already',
    ),
    "duplicate name": (
        changed(lambda d: d["providers"]["openai"]["models"].update({"gpt-4.2": {"names": [" Our-Best"[1:]]}})),
        'openai/gpt-4.2, names: "our-best" is a name of the model "gpt-4.1" already',
    ),
    "name twice": (
        changed(lambda d: model(d).update(names=["ours", "Ours"])),
        'openai/gpt-4.1, names[1]: "Ours" stands there twice',
    ),
    "duplicate key": (
        json.dumps(BOOK).replace('"input": "1.80"', '"input": "1.80", "input": "1.90"').encode(),
        "openai/gpt-4.1, period from the beginning, rates.input: the key stands there twice",
    ),
    "unknown key": (
        changed(lambda d: period(d).update(tier={})),
        f'{OF}tier: unknown key; did you mean "tiers"?',
    ),
    "same threshold": (
        changed(lambda d: period(d)["context_tiers"][1].update(over=200000)),
        f"{OF}context_tiers[1].over: is 200000, and so is that of context_tiers[0]",
    ),
    "empty tiers": (changed(lambda d: period(d).update(tiers={})), f"{OF}tiers: is empty: leave it out"),
    "circle of fallbacks": (
        changed(lambda d: model(d).update(fallback={"output": "output_reasoning", "output_reasoning": "output"})),
        "openai/gpt-4.1, fallback: goes in a circle: output -> output_reasoning -> output",
    ),
    "circle with the file's fallback": (
        changed(lambda d: d["providers"]["house"][0]["models"]["llama"]["fallback"].update(output="output_reasoning")),
        "house/llama, fallback: goes in a circle with that of the file: output_reasoning -> output -> output_reasoning",
    ),
    "circle with the model's fallback": (
        changed(
            lambda d: d["providers"]["house"][0]["models"]["llama"]["periods"][1]["fallback"].update(
                input="input_image", cache_read="input"
            )
        ),
        "house/llama, period from 2026-02-01, fallback: goes in a circle with that of the model: input_image -> input",
    ),
    "fallback to no meter": (
        changed(lambda d: model(d).update(fallback={"output": "text"})),
        'openai/gpt-4.1, fallback.output: "text" is an unknown meter',
    ),
    "factor of nothing": (
        changed(lambda d: d["providers"]["openai"]["multipliers"][0].update(factor="0")),
        "openai, multipliers[0].factor: is zero",
    ),
    "bad scope": (
        changed(lambda d: d["providers"]["openai"]["multipliers"][0].pop("scope")),
        "openai, multipliers[0].scope: is missing",
    ),
    "bad allowance": (
        changed(
            lambda d: d["providers"]["house"][1]["models"]["store"]["periods"][0]["rates"]["storage_gb_months"][
                "allowance"
            ].update(period="week")
        ),
        'house/store, period from the beginning, rates.storage_gb_months.allowance.period: is "week"; it is "month"',
    ),
    "no rate of exchange": (
        changed(lambda d: d["currency"]["usd"].pop(0)),
        "openai/gpt-4.1, period from the beginning, from: is before the first rate of currency.usd",
    ),
    "rates of exchange in disorder": (
        changed(lambda d: d["currency"]["usd"].append({"from": "2026-06-01", "rate": "1.2"})),
        "currency.usd[2].from: stands after a later one",
    ),
    "another provider's file": (
        changed(lambda d: d["providers"]["openai"].update(provider="anthropic")),
        'openai, provider: is "anthropic", but stands under "openai"',
    ),
    "route without a slash": (
        changed(lambda d: d["providers"]["house"][0].update(routes={"openai": "openai"})),
        "house, [0].routes.openai: is what stands before a model's name, with its slash",
    ),
    "price of whatever in the package": (
        changed(lambda d: d["models"].update({"*": d["models"]["acme-1"]}), PACKAGED),
        "acme/*: the price of models that the book does not know belongs into a file of your own",
    ),
    "star in a name": (
        changed(lambda d: model(d).update(names=["gpt-4*"])),
        'openai/gpt-4.1, names[0]: "gpt-4*": a star stands for nothing here',
    ),
    "no source": (
        changed(lambda d: d["models"]["acme-1"]["periods"][0].pop("source"), PACKAGED),
        "acme/acme-1, period from the beginning, source: is missing",
    ),
    "gap": (
        changed(lambda d: d["models"]["acme-1"]["periods"].pop(1), PACKAGED),
        "acme/acme-1, period from 2026-02-01, from: leaves a gap after the period from the beginning",
    ),
    "later schema": (changed(lambda d: d.update(schema_version=2)), "schema_version: is 2, and this costspan reads 1"),
    "list": (b"[]", "is a list, not an object"),
    "no providers": (b'{"schema_version": 1}', "has neither providers nor a provider"),
    "empty": (b" \n", "is empty"),
    "50 MB": (b" " * 50_000_000, "has more than 20 MB"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "is binary"),
    "compressed": (b"\x1f\x8b\x08\0", "is compressed: unpack it"),
    "UTF-16": ("{}".encode("utf-16"), "is text in UTF-16"),
    "not UTF-8": (b'{\n"a": "\xff"}', ", line 2: not UTF-8"),
    "not JSON": (b'{\n "schema_version": 1,\n}', ", line 3, column 1: not JSON"),
    "web page": (b"<!doctype html>", "is a web page"),
    "nested too deep": (b'{"a":' * 100_000, "is nested too deep"),
    "number of thousands of digits": (b'{"schema_version": ' + b"1" * 5000 + b"}", ": not JSON that can be read"),
}
"""What may be wrong with a file -> one, and what must be said of it."""


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_with_its_place_and_the_book_stays_in_force(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, what = MALFORMED[name]
    file = tmp_path / "prices.json"
    file.write_bytes(content)
    with pytest.raises(BookError) as refused:
        load(file)
    message = str(refused.value)
    assert message.startswith(str(file))
    assert what in message
    assert "\n" not in message
    with caplog.at_level(logging.ERROR, "costspan"):
        book = price_book(replace(Settings(), price_file=str(file), price_folder=str(tmp_path)))
    assert book is PriceBook.bundled()
    assert [what in record.getMessage() for record in caplog.records] == [True]


def test_every_problem_is_found_not_only_the_first() -> None:
    document = copy.deepcopy(BOOK)
    period(document)["rates"] = {"input": 1, "outptu": "2"}
    period(document)["source"] = 7
    document["providers"]["house"][0]["models"]["llama"]["released"] = "soon"
    assert said(document) == [
        f'f: {OF}rates.input: is the number 1; a price is a string: "1"',
        f'f: {OF}rates.outptu: unknown meter; did you mean "output"?',
        f"f: {OF}source: is a number, not text",
        'f: house/llama, released: "soon" is no day such as 2026-11-28',
    ]
    problem = check(document, "f")[1]
    assert problem._asdict() == {
        "file": "f",
        "provider": "openai",
        "model": "gpt-4.1",
        "period": "2026-05-01",
        "field": "rates.outptu",
        "message": 'unknown meter; did you mean "output"?',
    }


def test_a_message_has_the_first_problems_and_the_number_of_the_others() -> None:
    document = {"schema_version": 1, "provider": "p", "models": {f"m{n}": {"periods": []} for n in range(10)}}
    with pytest.raises(BookError, match=r"p/m0, periods: is empty.*p/m2, .*; and 7 more; see there$") as refused:
        parse(json.dumps(document).encode(), "f", "; see there")
    assert "m3" not in str(refused.value)


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed() -> None:
    [message] = said({"schema_version": 1, "provider": "p", "models": {"a\x1b[2J\n\ud800" + "b" * 1000: 1}})
    assert message.isprintable()
    assert len(message) < 300


def test_a_file_of_another_kind_is_not_read_to_its_end() -> None:
    assert len(said({"schema_version": 1, "provider": "p", "models": {str(n): 0 for n in range(100_000)}})) == MOST


def test_a_large_file_is_no_way_to_keep_a_program_busy() -> None:
    zone = {"name": "w", "spans": [["00:00", "24:00"]] * 3_000, "rates": {"input": "1"}}
    wide = {
        "names": [f"n{number}" for number in range(50_000)],
        "periods": [{"rates": {"input": "1"}, "windows": [zone]}],
    }
    started = time.process_time()
    assert len(said({"schema_version": 1, "provider": "p", "models": {"m": wide}})) == 1
    assert time.process_time() - started < 20


def test_a_file_that_never_ends_is_not_read_to_its_end() -> None:
    tracemalloc.start()
    with pytest.raises(BookError, match="/dev/zero has more than 20 MB"):
        load("/dev/zero")
    assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST
    tracemalloc.stop()


@pytest.mark.parametrize("path", ["", "missing.json", "with\0nul"])
def test_a_file_that_is_none(path: str, tmp_path: Path) -> None:
    with pytest.raises(BookError, match="cannot be read"):
        load(f"{tmp_path}/{path}")


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert decoded(b"\xef\xbb\xbf{}", "f") == {}


def test_a_user_need_not_name_a_source_but_may_in_words() -> None:
    period = {"rates": {"input": "1"}}
    document = {"schema_version": 1, "provider": "p", "models": {"m": {"periods": [period]}}}
    assert said(document) == []
    assert said({**document, "models": {"m": {"periods": [{**period, "source": "the contract"}]}}}) == []
    assert said({**document, "layer": "overlay"}) == [
        "f: p/m, period from the beginning, source: is missing: name the page where it is published"
    ]


def test_periods_of_a_layer_above_may_leave_gaps_which_what_is_below_fills() -> None:
    overlay = {**copy.deepcopy(PACKAGED), "layer": "overlay"}
    overlay["models"]["acme-1"]["periods"].pop(1)
    assert said(overlay) == []


def test_windows_of_two_zones_are_held_against_each_other_in_winter_and_summer() -> None:
    def windows(*given: tuple[str, str, str], days: tuple[str, ...] = ()) -> list[str]:
        listed = [{"name": "w", "tz": tz, "spans": [[start, end]], "rates": {"input": "1"}} for tz, start, end in given]
        listed = [{**window, "days": when} for window, when in zip(listed, days or ["mon-sun"] * 9, strict=False)]
        period = {"rates": {"input": "2"}, "windows": listed}
        return said({"schema_version": 1, "provider": "p", "models": {"m": {"periods": [period]}}})

    assert windows(("UTC", "08:00", "09:00"), ("Europe/Berlin", "10:00", "11:00")) != [], "in summer"
    assert windows(("UTC", "08:00", "09:00"), ("Europe/Berlin", "09:00", "10:00")) != [], "in winter"
    assert windows(("UTC", "08:00", "09:00"), ("Europe/Berlin", "11:00", "12:00")) == []
    sunday_night = ("UTC", "23:00", "01:00"), ("UTC", "00:30", "02:00")
    assert windows(*sunday_night, days=("sun", "mon")) != [], "over the end of the week"
    assert windows(*sunday_night, days=("sun", "tue")) == []
    within = windows(("UTC", "00:00", "12:00"), ("UTC", "01:00", "02:00"), ("UTC", "03:00", "04:00"))
    assert [problem.partition(" too")[0][-10:] for problem in within] == ["windows[0]", "windows[0]"]


# ------------------------------------------------------------------ the schema


def test_the_schema_has_every_meter_with_the_units_of_its_prices() -> None:
    # A fresh copy of the registry: other tests register meters of their own.
    spec = importlib.util.spec_from_file_location("fresh_meters", meters.__file__)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    listed = VOCABULARY["$defs"]["rates"]["properties"]
    assert list(listed) == list(fresh.METERS)
    assert VOCABULARY["$defs"]["meter"]["enum"] == list(fresh.METERS)
    for meter in fresh.METERS.values():
        units = f"USD per {meter.per:,} " if meter.per > 1 else f"USD per {meter.unit.replace('_', '-')}:"
        assert listed[meter.id]["description"].startswith(units), meter.id


def test_the_schema_explains_every_field() -> None:
    def undescribed(schema: Any, path: str = "") -> Iterator[str]:
        for name, field in (schema.get("properties") or {}).items() if isinstance(schema, dict) else ():
            target = field
            while "description" not in target and "$ref" in target:
                target = VOCABULARY["$defs"][target["$ref"].rpartition("/")[2]]
            if "description" not in target and field.keys() - {"items", "additionalProperties"}:
                yield f"{path}.{name}"
            yield from undescribed(field, f"{path}.{name}")

    for name, definition in VOCABULARY["$defs"].items():
        assert list(undescribed(definition, name)) == []


TEXTS = ["1.5", "-1", "1e3", "2026-11-28", "2026-13-01", "gt", "batch", "input", "output", "mon-fri", "*", "UTC"]
PARTS = [[], {}, [["09:00", "12:00"]], {"usd": "1"}, {"input": "output"}, {"input": "1"}, ["a", "a"], [{}]]


def test_the_guide_explains_every_field_of_the_schema() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "contributing-prices.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", guide)) | set(re.findall(r'"(\w+)":', guide))

    def fields(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from schema.get("properties", {})
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from fields(part)

    assert set(fields(VOCABULARY["$defs"])) - set(meters.METERS) - {"$schema"} <= explained


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 400000), st.floats(), st.text(max_size=8), st.sampled_from(TEXTS),
    st.sampled_from(PARTS),
)  # fmt: skip
KEYS = st.sampled_from(
    ["rates", "from", "to", "extends", "free", "unpriced", "source", "tiers", "windows", "context_tiers", "fallback",
     "input", "over", "geo", "models", "names", "*", "Input", "per", "usd", "layer", "comment", "providers", "provider"]
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*way, key)
        yield from places(part, (*way, key))


def at(document: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        document = document[key]
    return document


@pytest.mark.parametrize("wrong", [None, True, 7, -1, -0.5, "wrong *", [], {}, ["\t"], {"wrong": 1}], ids=json.dumps)
def test_a_wrong_value_anywhere_that_the_schema_refuses_is_said_with_its_field(wrong: Any) -> None:
    found = 0
    for good in (BOOK, PACKAGED):
        for way in places(good):
            document = copy.deepcopy(good)
            at(document, way[:-1])[way[-1]] = copy.deepcopy(wrong)
            problems = said(document)
            key = next(key for key in reversed(way) if isinstance(key, str))
            # Of an object, what is wrong in it or missing from it is said instead.
            if problems and (isinstance(wrong, dict) or any(key in problem for problem in problems)):
                found += 1
            else:
                assert VALIDATOR.is_valid(document), f"{way}: {problems}"
    assert found > 100


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good document with something changed, anywhere: to what stands elsewhere under that key, or to nonsense."""
    document = copy.deepcopy(draw(st.sampled_from([BOOK, PACKAGED])))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        ways = list(places(document))
        assume(ways)
        *way, last = draw(st.sampled_from(ways))
        parent = at(document, tuple(way))
        alike = [at(document, other) for other in ways if other[-1] == last and other[:-1] != tuple(way)]
        match draw(st.sampled_from(["alike", "alike", "replace", "remove", "add", "rename"])):
            case "alike" if alike:
                parent[last] = copy.deepcopy(draw(st.sampled_from(alike)))
            case "alike" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(KEYS)] = copy.deepcopy(draw(VALUES))
            case "rename" if isinstance(parent, dict):
                parent[draw(KEYS)] = parent.pop(last)
            case _:
                parent[last] = copy.deepcopy(draw(VALUES))
    return document


@given(mutated())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_schema_refuses_check_refuses_and_what_check_accepts_the_book_can_use(document: Any) -> None:
    problems = check(document, "f")
    if problems:
        assert all(str(problem).isprintable() for problem in problems)
        return
    if not VALIDATOR.is_valid(document):
        error = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(document))
        pytest.fail(f"only the schema refuses {list(error.absolute_path)}: {error.message}")
    whole = document if "providers" in document else {"providers": {document["provider"]: document}}
    book = PriceBook(Library(DATA).over("user", in_usd(whole)))
    for provider, files in whole["providers"].items():
        for file in files if isinstance(files, list) else [files]:
            for name in (*file.get("models", ()), "nothing that is listed"):
                for tier, geo in ((None, None), ("batch", "eu")):
                    book.periods(provider, name, tier, geo)
                    book.card(provider, name, 1_795_800_000 * 10**9, tier, geo)


@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)))
def test_whatever_is_in_a_file_check_says_so_and_does_not_fail(document: Any) -> None:
    assert check(document, "f") != [] or not list(VALIDATOR.iter_errors(document))
