"""What a price file can say, and how books are laid over each other. Each test writes the file that it is about."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costspan_pricing import BookError, Cost, PriceBook, Usage
from costspan_pricing.timeline import nanoseconds

BOOK = PriceBook.bundled()
NOW = "2026-11-23T05:00:00Z"
MILLION = Usage({"input": 1_000_000})


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def over(folder: Path, providers: dict[str, Any], below: PriceBook = BOOK, **document: Any) -> PriceBook:
    file = folder / "prices.json"
    file.write_text(json.dumps({"schema_version": 1, "providers": providers, **document}), encoding="utf-8")
    return below.with_file(file)


def cost(
    book: PriceBook, name: str, when: str = NOW, usage: Usage = MILLION, tier: str | None = None, geo: str | None = None
) -> Cost:
    provider, _, model = name.partition("/")
    return book.cost(provider, model, usage, at(when), tier, geo)


class TestHours:
    @pytest.fixture
    def book(self, tmp_path: Path) -> PriceBook:
        night = {"name": "night", "tz": "Europe/Berlin", "days": "mon-fri", "spans": [["22:00", "06:00"]]}
        noon = {"name": "noon", "spans": [["12:00", "12:30"], ["13:00", "13:30"]], "rates": {"input": "9"}}
        period = {"rates": {"input": "2"}, "windows": [{**night, "rates": {"input": "1"}}, noon]}
        return over(tmp_path, {"acme": {"models": {"m": {"periods": [period]}}}})

    @pytest.mark.parametrize(
        ("when", "usd"),
        [
            ("2026-11-23T21:59:59+01:00", 2),  # a Monday evening
            ("2026-11-23T22:00:00+01:00", 1),
            ("2026-11-24T05:59:59+01:00", 1),
            ("2026-11-24T06:00:00+01:00", 2),
            ("2026-11-28T05:59:59+01:00", 1),  # Saturday morning belongs to Friday's night
            ("2026-11-28T23:00:00+01:00", 2),  # Saturday night does not count
            ("2026-11-30T05:00:00+01:00", 2),  # nor the morning after Sunday
            ("2026-07-06T20:30:00Z", 1),  # summer: 22:30 in Berlin
            ("2026-12-07T20:30:00Z", 2),  # winter: 21:30
            ("2026-11-28T12:29:59Z", 9),
            ("2026-11-28T12:30:00Z", 2),
            ("2026-11-28T13:10:00Z", 9),
        ],
    )
    def test_a_price_of_the_hour_holds_by_the_clock_and_the_weekday_of_its_zone(
        self, book: PriceBook, when: str, usd: int
    ) -> None:
        assert cost(book, "acme/m", when).usd == usd

    def test_the_card_says_at_which_hours_it_holds_and_nobody_may_keep_it(self, book: PriceBook) -> None:
        card = book.card("acme", "m", at("2026-11-23T22:30:00+01:00"))
        assert card is not None
        assert card.window == "night"
        newest = book.newest("acme", "m")
        assert newest is not None
        assert newest[0] > at("2200-01-01T00:00:00Z")


def test_the_least_that_a_call_is_billed(tmp_path: Path) -> None:
    rate = {"usd": "0.36", "per": 3600, "minimum": "10"}
    book = over(tmp_path, {"acme": {"models": {"ears": {"periods": [{"rates": {"audio_seconds": rate}}]}}}})

    def heard(seconds: float) -> Decimal | None:
        return cost(book, "acme/ears", usage=Usage.from_inclusive(extra={"audio_seconds": seconds})).usd

    assert [heard(seconds) for seconds in (0, 0.5, 10, 11)] == [
        0,
        Decimal("0.001"),
        Decimal("0.001"),
        Decimal("0.0011"),
    ]


class TestMultipliers:
    @pytest.fixture
    def book(self, tmp_path: Path) -> PriceBook:
        factors = [
            {"id": "region", "geo": ["*"], "factor": "1.1", "scope": "tokens", "models": ["new*"]},
            {"id": "old", "geo": ["eu"], "factor": "2", "scope": "tokens", "released_from": "2026-01-01"},
            {"id": "deal", "factor": "0.5", "scope": "all", "from": "2026-06-01T00:00:00Z", "models": ["dear"]},
        ]
        rates = {"input": "10", "web_searches": "10"}
        models = {
            "new-1": {"periods": [{"rates": rates}]},
            "dear": {"periods": [{"rates": rates}], "released": "2025-01-01"},
            "young": {"periods": [{"rates": rates}], "released": "2026-01-01"},
        }
        return over(tmp_path, {"acme": {"multipliers": factors, "models": models}})

    @pytest.mark.parametrize(
        ("model", "call", "usd"),
        [
            ("new-1", {"geo": "eu"}, 11),
            ("new-1", {"geo": "us-east5"}, 11),
            ("new-1", {"geo": "global"}, 10),
            ("new-1", {}, 10),
            ("dear", {"geo": "eu", "when": "2026-05-31T23:59:59Z"}, 10),
            ("young", {"geo": "eu"}, 20),
            ("young", {"geo": "us"}, 10),
            ("dear", {"when": "2026-06-01T00:00:00Z"}, 5),
        ],
    )
    def test_they_hold_where_and_when_the_file_says(
        self, book: PriceBook, model: str, call: dict[str, Any], usd: int
    ) -> None:
        assert cost(book, f"acme/{model}", **call).usd == usd

    def test_fees_are_multiplied_only_by_those_that_are_for_all(self, book: PriceBook) -> None:
        searched = Usage({"web_searches": 1000})
        assert cost(book, "acme/new-1", usage=searched, geo="eu").usd == 10
        assert cost(book, "acme/dear", usage=searched).usd == 5

    def test_a_card_names_them(self, book: PriceBook) -> None:
        card = book.card("acme", "dear", at(NOW))
        assert card is not None
        assert card.multipliers == ("deal",)


class TestNames:
    def test_prefixes_and_suffixes_lead_to_listed_names_alone(self, tmp_path: Path) -> None:
        file = {
            "prefixes": {"eu.": ["regional.", ""], "global.": ["global."]},
            "suffixes": {":fast": ""},
            "free": [":free"],
            "models": {
                "regional.big": {"versions_of": ["regional.big"], "periods": [{"rates": {"input": "11"}}]},
                "global.big": {"periods": [{"rates": {"input": "10"}}]},
                "small": {"periods": [{"rates": {"input": "1"}}]},
            },
        }
        book = over(tmp_path, {"acme": file})
        assert [cost(book, f"acme/{name}").usd for name in ("eu.big", "global.big", "eu.small", "small:fast")] == [
            11,
            10,
            1,
            1,
        ]
        assert cost(book, "acme/eu.big-20260101-v1:0").usd == 11
        assert cost(book, "acme/arn:aws:bedrock:eu-west-1:1:inference-profile/eu.big").usd == 11
        for unknown in (
            "eu.bigger",
            "small:slow",
            "eu.big-pro",
            "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x",
        ):
            assert cost(book, f"acme/{unknown}").status == "unknown_model"
        assert (cost(book, "acme/whatever:free").status, cost(book, "acme/whatever:free").usd) == ("free", Decimal(0))

    def test_a_provider_sells_the_models_of_another_at_its_own_factor(self, tmp_path: Path) -> None:
        resale = {
            "inherits": ["openai"],
            "multipliers": [{"id": "margin", "factor": "1.5", "scope": "tokens"}],
            "models": {
                "gpt-4.1": {"names": ["my-deployment"]},
                "gpt-4.1-mini": {"periods": [{"rates": {"input": "7"}}]},
            },
        }
        book = over(tmp_path, {"reseller": resale})
        assert cost(book, "reseller/gpt-4.1-2025-04-14").usd == 3
        assert cost(book, "reseller/my-deployment").usd == 3
        assert cost(book, "reseller/gpt-4.1-mini").usd == Decimal("10.5")
        # What OpenAI adds for a region is OpenAI's.
        assert cost(book, "openai/gpt-5.4-mini", geo="eu").usd == Decimal("0.825")
        assert cost(book, "reseller/gpt-5.4-mini", geo="eu").usd == Decimal("1.125")
        found = book.match("reseller", "gpt-4.1-2025-04-14")
        assert found == ("reseller", "gpt-4.1", "inherited")

    def test_a_name_with_the_providers_own_before_it_is_the_same_unless_it_is_listed_itself(
        self, tmp_path: Path
    ) -> None:
        models = {"big": {"periods": [{"rates": {"input": "1"}}]}, "small": {"periods": [{"rates": {"input": "2"}}]}}
        models["acme/small"] = {"periods": [{"rates": {"input": "3"}}]}
        book = over(tmp_path, {"acme": {"models": models}})
        assert [cost(book, f"acme/{name}").usd for name in ("acme/big", "small", "acme/small")] == [1, 2, 3]

    def test_own_names_mean_what_the_user_says(self) -> None:
        names = {"openai/prod-chat": "gpt-4.1", "acme/gateway-model": "anthropic/claude-haiku-4-5"}
        book = BOOK.with_names(names)
        assert cost(book, "openai/prod-chat").usd == 2
        assert cost(book, "openai/PROD-chat", tier="batch").usd == 1
        assert cost(book, "acme/gateway-model").usd == 1
        with pytest.raises(BookError, match=r"'openai/x'.*'gpt-0'.*does not know"):
            BOOK.with_names({"openai/x": "gpt-0"})
        with pytest.raises(BookError, match="provider/name"):
            BOOK.with_names({"x": "gpt-4.1"})


class TestFree:
    def test_a_local_server_is_free_whatever_it_serves_and_that_is_not_unknown(self, tmp_path: Path) -> None:
        book = over(tmp_path, {"cellar": {"free": True, "aliases": ["basement"]}})
        for name in ("cellar/llama", "basement/anything:70b"):
            assert (cost(book, name).status, cost(book, name).total) == ("free", 0)
        assert cost(book, "attic/llama").status == "unknown_provider"

    def test_its_hardware_may_have_a_price_by_the_hour(self, tmp_path: Path) -> None:
        hourly = {"periods": [{"rates": {"compute_seconds": "3.60"}}]}
        book = over(tmp_path, {"cellar": {"free": True, "models": {"*": hourly}}})
        card = book.card("cellar", "llama", at(NOW))
        assert card is not None
        assert card.timed
        spent = card.cost(Usage({"input": 500}) + Usage.from_inclusive(extra={"compute_seconds": 2}))
        assert (spent.status, spent.usd, spent.flags) == ("priced", Decimal("0.002"), ())
        assert card.cost(Usage({"input": 500})).status == "free"


class TestLayers:
    def test_a_file_replaces_or_patches_and_every_cost_says_so(self, tmp_path: Path) -> None:
        models = {
            "gpt-4.1": {"periods": [{"from": "2026-01-01T00:00:00Z", "extends": True, "rates": {"input": "1.5"}}]},
            "in-house": {"periods": [{"rates": {"input": "4"}}]},
        }
        book = over(tmp_path, {"openai": {"models": models}})
        assert cost(book, "openai/gpt-4.1", "2025-12-31T23:59:59Z").usd == 2
        assert cost(book, "openai/gpt-4.1").usd == Decimal("1.5")
        assert cost(book, "openai/gpt-4.1", usage=Usage({"output": 1_000_000})).usd == 8
        mine = cost(book, "openai/in-house")
        assert (mine.usd, mine.layer) == (Decimal(4), "user")
        assert mine.book.startswith(f"{BOOK.version}+user.")
        assert cost(book, "openai/gpt-4.1", "2025-12-31T23:59:59Z").layer == "bundled"
        assert cost(BOOK, "openai/gpt-4.1").usd == 2

    def test_code_wins_over_the_environment_and_that_over_a_file(self, tmp_path: Path) -> None:
        book = over(tmp_path, {"acme": {"models": {"m": {"periods": [{"rates": {"input": "1", "output": "1"}}]}}}})
        book = book.with_prices({"acme/m": {"input": "2", "cache_read": "2"}}, layer="environment")
        assert (cost(book, "acme/m").usd, cost(book, "acme/m").layer) == (Decimal(2), "environment")
        book = book.with_prices({"acme/m": {"input": "3"}})
        used = Usage({"input": 1_000_000, "output": 1_000_000, "cache_read": 1_000_000})
        assert (cost(book, "acme/m", usage=used).usd, cost(book, "acme/m").layer) == (Decimal(6), "code")

    def test_a_price_for_what_nobody_lists_is_an_estimate(self, tmp_path: Path) -> None:
        book = over(tmp_path, {"openai": {"models": {"*": {"periods": [{"rates": {"input": "5"}}]}}}})
        unlisted = cost(book, "openai/gpt-99")
        assert (unlisted.usd, unlisted.status, unlisted.flags) == (Decimal(5), "estimated", ("fallback_price",))
        assert cost(book, "openai/gpt-4.1").status == "priced"
        anywhere = BOOK.with_prices({"*/*": {"input": "7"}})
        assert (cost(anywhere, "acme/m").usd, cost(anywhere, "acme/m").status) == (Decimal(7), "estimated")
        assert cost(anywhere, "openai/gpt-99").usd == 7
        assert cost(anywhere, "openai/gpt-4.1").usd == 2

    def test_a_marked_gap_has_no_price(self, tmp_path: Path) -> None:
        periods = [
            {"to": "2025-01-01T00:00:00Z", "rates": {"input": "1"}},
            {"from": "2025-01-01T00:00:00Z", "to": "2025-02-01T00:00:00Z", "unpriced": "nobody published one"},
            {"from": "2025-02-01T00:00:00Z", "rates": {"input": "3"}},
        ]
        book = over(tmp_path, {"acme": {"models": {"m": {"periods": periods}}}})
        days = ("2024-12-31T23:59:59Z", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z")
        assert [cost(book, "acme/m", day).usd for day in days] == [1, None, 3]
        assert [period.card is None for period in book.periods("acme", "m")] == [False, True, False]

    def test_prices_in_another_currency_follow_its_rate_of_the_day(self, tmp_path: Path) -> None:
        rates = [{"rate": "1.1"}, {"from": "2026-06-01T00:00:00Z", "rate": "1.2"}]
        tiers = {"batch": {"rates": {"input": "5"}}}
        models = {"m": {"periods": [{"rates": {"input": "10", "images": {"usd": "0.1", "per": 1}}, "tiers": tiers}]}}
        book = over(tmp_path, {"acme": {"models": models}}, currency={"code": "EUR", "usd": rates})
        assert cost(book, "acme/m", "2026-05-31T23:59:59Z").usd == 11
        assert cost(book, "acme/m", "2026-06-01T00:00:00Z").usd == 12
        assert cost(book, "acme/m", tier="batch").usd == 6
        assert cost(book, "acme/m", usage=Usage({"images": 1})).usd == Decimal("0.12")

    def test_a_file_that_is_wrong_changes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(BookError, match=r"prices\.json.*acme.*m.*input"):
            over(tmp_path, {"acme": {"models": {"m": {"periods": [{"rates": {"input": "-1"}}]}}}})
        assert cost(BOOK, "openai/gpt-4.1").usd == 2
        assert not BOOK.knows("acme")


def test_the_library_of_a_book_keeps_what_lies_below(tmp_path: Path) -> None:
    below = over(tmp_path, {"acme": {"models": {"m": {"periods": [{"rates": {"input": "1"}}]}}}})
    above = over(tmp_path, {"acme": {"models": {"n": {"periods": [{"rates": {"input": "2"}}]}}}}, below)
    assert (cost(above, "acme/m").usd, cost(above, "acme/n").usd) == (Decimal(1), Decimal(2))
    assert above.models("acme") == ("m", "n")
    assert cost(below, "acme/n").status == "unknown_model"


def test_dates_of_the_book() -> None:
    assert BOOK.dated >= nanoseconds("2026-11-23") // 10**9


def test_the_file_in_the_guide_means_what_the_guide_says(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "prices.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- price file -->\n```json\n(.*?)```", guide, re.DOTALL)
    assert found is not None
    file = tmp_path / "prices.json"
    file.write_text(found[1], encoding="utf-8")
    book = BOOK.with_file(file)
    assert cost(book, "openai/chat-production").usd == Decimal("1.7"), "15 % off"
    assert cost(book, "openai/chat-production", "2025-12-31T00:00:00Z").usd == 2
    assert cost(book, "openai/gpt-99").usd == Decimal("4.93"), "5 EUR at 1.16, and 15 % off"
    assert cost(book, "gateway/claude-haiku-4-5").usd == 1
    hour = Usage.from_inclusive(extra={"compute_seconds": 3600})
    assert cost(book, "vllm/anything", usage=hour).usd == Decimal("2.6564"), "2.29 EUR"
