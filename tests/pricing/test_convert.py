"""The converter of genai-prices: the committed files are what it makes, and what it does with names and history."""

from __future__ import annotations

import importlib.util
import json
import shutil
from datetime import UTC, date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costspan_pricing.book import DATA as FOLDER

DATA = Path(FOLDER)

upstream: Any = pytest.importorskip("genai_prices.types", reason="genai-prices is needed to convert, not to run")

TOOL = Path(__file__).parents[2] / "pricing" / "tools" / "convert_genai_prices.py"
TODAY = date(2026, 12, 1)


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("convert_genai_prices", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


convert: Any = _tool()
PROVIDERS: dict[str, Any] = {provider.id: provider for provider in convert.genai_prices.data.providers}


def model(name: str, match: Any = None, prices: Any = None, **more: Any) -> Any:
    prices = prices if isinstance(prices, list) else upstream.ModelPrice(**(prices or {"input_mtok": Decimal(1)}))
    return upstream.ModelInfo(id=name, match=match or upstream.ClauseEquals(equals=name), prices=prices, **more)


def provider(*models: Any, name: str = "acme") -> Any:
    return upstream.Provider(
        id=name, name=name, api_pattern="x", pricing_urls=["https://acme.test/prices"], models=list(models)
    )


def converted(*models: Any, name: str = "acme") -> dict[str, Any]:
    file: dict[str, Any] = convert.converted(provider(*models, name=name), {}, TODAY)
    return file


def test_converting_again_changes_nothing(tmp_path: Path) -> None:
    made_from = json.loads((DATA / "openai.json").read_text(encoding="utf-8"))["from"]
    if made_from["version"] != convert.importlib.metadata.version("genai-prices"):
        pytest.skip("another genai-prices than the one that the data were converted from")
    again = tmp_path / "data"
    shutil.copytree(DATA, again)
    convert.convert(again, set(PROVIDERS), TODAY)
    for path in DATA.glob("*.json"):
        if path.name == "index.json":
            continue
        assert (again / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), path.name
    index, before = (json.loads((folder / "index.json").read_text(encoding="utf-8")) for folder in (again, DATA))
    assert index["providers"] == before["providers"]
    assert (index["dated"], index["book_version"]) == ("2026-12-01", "2026.12.01")


def test_every_model_of_upstream_is_in_the_book_with_a_price_or_a_reason() -> None:
    for name, listed in PROVIDERS.items():
        models = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["models"]
        assert {one.id for one in listed.models} <= set(models)
        for one, entry in models.items():
            for period in entry["periods"]:
                assert any(period.get(key) for key in ("rates", "free", "unpriced")), f"{name}/{one}"


def test_a_prefix_means_the_name_itself_and_its_dated_versions() -> None:
    beginning = upstream.ClauseStartsWith(starts_with="Acme-1-")
    entry = converted(model("acme-1", upstream.ClauseOr(or_=[beginning, upstream.ClauseEquals(equals="A1")])))["models"]
    assert entry["acme-1"]["names"] == ["a1"]
    assert entry["acme-1"]["versions_of"] == ["acme-1"]


def test_a_regular_expression_is_read_where_it_says_what_names_it_means() -> None:
    names = converted(
        model("a[fast]", upstream.ClauseRegex(regex=r"^a\[fast=true\]$")),
        model("b-1", upstream.ClauseRegex(regex=r"^(acme/)?b-1(-\d{8})?$")),
    )["models"]
    assert names["a[fast]"]["names"] == ["a[fast=true]"]
    assert (names["b-1"]["names"], names["b-1"]["versions_of"]) == (["acme/b-1"], ["acme/b-1", "b-1"])


def test_the_first_model_that_upstream_matches_has_the_name() -> None:
    models = converted(
        model("acme-1-mini", upstream.ClauseContains(contains="acme-1-mini")),
        model("acme-1", upstream.ClauseOr(or_=[upstream.ClauseEquals(equals=n) for n in ("acme-1", "acme-1-mini-x")])),
    )["models"]
    assert "names" not in models["acme-1"]


def test_two_models_that_claim_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"acme: (Twin and twin|twin and Twin) both go by the name twin"):
        converted(model("twin"), model("Twin"))


def test_a_name_that_leads_to_two_providers_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        file: dict[str, Any] = {"provider": name, "aliases": ["shared"], "models": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ValueError, match=r"two\.json: shared is a name of one already"):
        convert.index(tmp_path, TODAY)


def test_bedrock_names_carry_no_region_of_upstreams_making() -> None:
    models = json.loads((DATA / "aws.json").read_text(encoding="utf-8"))["models"]
    sonnet = models["regional.anthropic.claude-sonnet-4-5-20250929-v1:0"]
    assert "anthropic.claude-sonnet-4-5-20250929-v1:0" in sonnet["names"]
    assert not [name for entry in models.values() for name in entry.get("names", ()) if name.startswith(("us.", "eu."))]


@pytest.mark.parametrize(
    ("name", "comment", "expected"),
    [
        ("acme-1:free", None, {"free": True}),
        ("acme-1", "Free of charge, see https://acme.test", {"free": True}),
        ("acme-1", "Included in the subscription.", {"free": True}),
        ("acme-1", None, {"unpriced": "genai-prices has no price of it"}),
        ("acme-1", "No longer listed.", {"unpriced": "genai-prices has no price of it"}),
    ],
)
def test_no_price_is_free_only_where_somebody_says_so(name: str, comment: str | None, expected: dict[str, Any]) -> None:
    nothing = upstream.ModelInfo(
        id=name, match=upstream.ClauseEquals(equals=name), prices=upstream.ModelPrice(), price_comments=comment
    )
    (period,) = converted(nothing)["models"][name]["periods"]
    assert {key: value for key, value in period.items() if key != "source"} == expected


def test_output_that_is_free_costs_zero_and_is_not_unknown() -> None:
    decider = model("acme-decider", price_comments="Input only, https://acme.test/decider. Checked 2026-10-01.")
    (period,) = converted(decider)["models"]["acme-decider"]["periods"]
    assert period == {"rates": {"input": "1", "output": "0"}, "source": "https://acme.test/decider"}


def test_the_day_and_the_page_that_upstream_names() -> None:
    one = model("a", price_comments="See https://acme.test/pricing (checked 2026-10-01, verified on 2026-10-15).")
    (period,) = converted(one)["models"]["a"]["periods"]
    assert (period["source"], period["checked"]) == ("https://acme.test/pricing", "2026-10-15")


def test_hours_of_the_day_with_the_same_prices_are_one_window() -> None:
    def between(start: int, end: int) -> Any:
        hours = upstream.TimeOfDateConstraint(start_time=time(start, tzinfo=UTC), end_time=time(end, tzinfo=UTC))
        return upstream.ConditionalPrice(constraint=hours, prices=upstream.ModelPrice(input_mtok=Decimal(2)))

    always = upstream.ConditionalPrice(prices=upstream.ModelPrice(input_mtok=Decimal(1)))
    (period,) = converted(model("a", prices=[always, between(1, 4), between(6, 10)]))["models"]["a"]["periods"]
    assert period["rates"] == {"input": "1"}
    assert period["windows"] == [
        {"name": "peak", "tz": "UTC", "spans": [["01:00", "04:00"], ["06:00", "10:00"]], "rates": {"input": "2"}}
    ]


def test_fallbacks_stand_once_for_a_file_only_where_no_model_is_priced_otherwise_by_them() -> None:
    chat = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)}
    plain = converted(model("chat", prices=chat), model("talk", prices=chat))
    assert plain["fallback"] == {"output_reasoning": "output", "input_image": "input"}
    assert not any("fallback" in entry for entry in plain["models"].values())
    mixed = converted(model("chat", prices=chat), model("acme-embed"))
    assert mixed["fallback"] == {"output_reasoning": "output"}  # images that are embedded have a price of their own
    assert mixed["models"]["chat"]["fallback"] == {"input_image": "input"}
    assert "fallback" not in mixed["models"]["acme-embed"]


def test_the_router_of_hugging_face_has_the_models_of_all_hosts_under_their_names() -> None:
    files = [converted(model("Org/M"), name=f"huggingface_{host}") for host in ("novita", "nebius")]
    models = convert.of_all_hosts(files)["models"]
    assert {name: entry["names"] for name, entry in models.items()} == {
        "Org/M:nebius": ["nebius/org/m", "org/m:nebius"],
        "Org/M:novita": ["novita/org/m", "org/m:novita"],
    }


# --- history: periods as (from, price), the first without a start -----------------------------------------------------

OLD, NEW = "2026-01-01", "2026-11-15"
RUN, SOON = TODAY.isoformat(), "2027-01-01"


def periods(*starts: tuple[str | None, str]) -> list[dict[str, Any]]:
    ends = [start for start, _ in starts[1:]] + [None]
    return [
        {
            **({"from": f"{start}T00:00:00Z"} if start else {}),
            **({"to": f"{end}T00:00:00Z"} if end else {}),
            "rates": {"input": usd},
        }
        for (start, usd), end in zip(starts, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([(None, "1")], [(None, "1")], [(None, "1")]),
        ([(None, "1")], [(None, "2")], [(None, "1"), (RUN, "2")]),  # changed in place: seen today
        ([(None, "1")], [(None, "1"), (NEW, "2")], [(None, "1"), (NEW, "2")]),  # changed with a date
        ([(None, "1")], [(None, "9"), (NEW, "2")], [(None, "1"), (NEW, "2")]),  # what was, stays as we have it
        ([(None, "1"), (OLD, "2")], [(None, "1"), (OLD, "3")], [(None, "1"), (OLD, "2"), (RUN, "3")]),
        ([(None, "1"), (OLD, "2")], [(None, "2")], [(None, "1"), (OLD, "2")]),  # upstream forgot its history
        ([(None, "1")], [(None, "0"), (NEW, "1")], [(None, "1")]),  # or wrote one that we did not know
        ([(None, "1"), (SOON, "2")], [(None, "1"), (SOON, "3")], [(None, "1"), (SOON, "3")]),  # announced anew
        ([(None, "1"), (SOON, "2")], [(None, "1")], [(None, "1")]),  # or no longer
        ([(None, "1"), (SOON, "2")], [(None, "4"), (SOON, "2")], [(None, "1"), (RUN, "4"), (SOON, "2")]),
        ([(None, "1"), (RUN, "2")], [(None, "3")], [(None, "1"), (RUN, "3")]),  # twice on one day
    ],
)
def test_history_is_kept_and_only_added_to(
    before: list[tuple[str | None, str]], now: list[tuple[str | None, str]], expected: list[tuple[str | None, str]]
) -> None:
    kept = convert.continued(periods(*before), periods(*now), TODAY)
    assert [{key: value for key, value in period.items() if key != "observed"} for period in kept] == periods(*expected)
    assert [period for period in kept if period.get("observed")] == [p for p in kept if RUN in p.get("from", "")]
    assert convert.continued(kept, periods(*now), TODAY) == kept, "a second run of the day changes something"


def test_a_model_that_upstream_dropped_stays_as_it_was() -> None:
    before = converted(model("gone", prices={"input_mtok": Decimal(1), "output_mtok": Decimal(2)}), model("here"))
    after = convert.converted(provider(model("here")), convert._spread(before), TODAY)
    assert convert._spread(after)["gone"] == convert._spread(before)["gone"]
