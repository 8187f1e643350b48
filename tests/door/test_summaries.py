"""The summary: rows of the counters in, one plain dictionary out."""

from __future__ import annotations

import json
from decimal import Decimal

from costspan.summaries import NO_FEATURE, Summary, summarise, to_json
from costspan_processor.metrics import Totals


def rows() -> list[Totals]:
    """Two chats and an embedding at OpenAI, one message at Anthropic, one call to a model that nobody knows."""
    return [
        Totals(
            "openai", "gpt-4.1", "gpt-4.1-2025-04-14", "chat", {"costspan.feature": "search"}, {"priced": 2},
            # 4,000 x $2 + 16,000 x $0.50 + 1,000 x $8 a million
            {"input": 8_000_000_000, "cache_read": 8_000_000_000, "output": 8_000_000_000},
            {"input": 4_000, "cache_read": 16_000, "output": 1_000}, 24_000_000_000, 0, 3_000_000_000, 2,
        ),
        Totals(
            "openai", "text-embedding-3-small", "text-embedding-3-small", "embeddings", {}, {"priced": 1},
            {"input": 2_000_000}, {"input": 100}, 0, 0, 100_000_000, 1,
        ),
        Totals(
            "anthropic", "claude-sonnet-4-6", "claude-sonnet-4-6", "chat", {"costspan.feature": "search"},
            {"priced": 1}, {"input": 3_000_000_000, "cache_write": 3_750_000_000, "output": 15_000_000_000},
            {"input": 1_000, "cache_write": 1_000, "output": 1_000}, 0, 750_000_000, 0, 0,
        ),
        Totals(
            "openai", "gpt-next", None, "chat", {}, {"unknown_model": 1}, {}, {"input": 10, "output": 10}, 0, 0,
            900_000_000, 1,
        ),
    ]  # fmt: skip


def test_a_call_that_failed_costs_nothing_and_is_not_called_unpriced() -> None:
    failed = rows()[0]._replace(calls={"priced": 2, "no_usage": 3}, failed=2)
    summary = summarise([failed])
    assert (summary["total"]["calls"], summary["total"]["failed"], summary["total"]["unpriced"]) == (5, 2, 1)
    assert summary["unpriced"] == [
        {"provider": "openai", "model": "gpt-4.1-2025-04-14", "status": "no_usage", "calls": 1}
    ]


def test_totals_are_exact() -> None:
    total = summarise(rows())["total"]
    assert total["cost"] == Decimal("0.045752")
    assert (total["calls"], total["unpriced"]) == (5, 1)
    assert total["saved"] == Decimal("0.024")
    assert total["write_premium"] == Decimal("0.00075")
    assert total["tokens"] == {
        "input": 22_110, "cache_read": 16_000, "cache_write": 1_000, "output": 2_010, "total": 24_120,
    }  # fmt: skip
    assert total["cache_hit_rate"] == 16_000 / 22_110


def costs(summary: Summary, *path: str) -> dict[str, str]:
    found: object = summary
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert isinstance(found, dict)
    return {name: str(line["cost"].normalize()) for name, line in found.items()}


def test_groups_come_dearest_first() -> None:
    summary = summarise(rows())
    assert list(costs(summary, "by_provider").items()) == [("openai", "0.024002"), ("anthropic", "0.02175")]
    assert costs(summary, "by_provider", "openai", "operations") == {"chat": "0.024", "embeddings": "0.000002"}
    assert costs(summary, "by_operation") == {"chat": "0.04575", "embeddings": "0.000002"}
    assert costs(summary, "by_model") == {
        "openai/gpt-4.1-2025-04-14": "0.024",
        "anthropic/claude-sonnet-4-6": "0.02175",
        "openai/text-embedding-3-small": "0.000002",
        "openai/gpt-next": "0",
    }
    assert costs(summary, "by_feature") == {"search": "0.04575", NO_FEATURE: "0.000002"}


def test_every_grouping_adds_up_to_the_total() -> None:
    summary = summarise(rows())
    total = summary["total"]
    for lines in (summary["by_operation"], summary["by_model"], summary["by_feature"]):
        assert sum(line["cost"] for line in lines.values()) == total["cost"]
        assert sum(line["calls"] for line in lines.values()) == total["calls"]
    assert sum(line["cost"] for line in summary["by_provider"].values()) == total["cost"]


def test_what_has_no_price_is_listed_with_its_reason() -> None:
    assert summarise(rows())["unpriced"] == [
        {"provider": "openai", "model": "gpt-next", "status": "unknown_model", "calls": 1}
    ]


def test_efficiency() -> None:
    assert summarise(rows())["efficiency"] == {
        "cost_per_1k_tokens": Decimal("0.001896849088"),
        "tokens_per_call": 4_824.0,
        "input_output_ratio": 11.0,
        "latency": 1.0,  # four of the five calls are timed
    }


def test_json_has_decimal_strings_without_exponent() -> None:
    read = json.loads(to_json(summarise(rows())))
    assert read["total"]["cost"] == "0.045752"
    assert read["by_model"]["openai/text-embedding-3-small"]["cost"] == "0.000002"
    assert read["by_provider"]["openai"]["operations"]["embeddings"]["cost"] == "0.000002"


def test_of_nothing_there_is_nothing_to_say() -> None:
    summary = summarise([])
    assert summary["total"]["cost"] == 0
    assert set(summary["efficiency"].values()) == {None}
    assert summary["by_model"] == {}
    assert summary["unpriced"] == []
