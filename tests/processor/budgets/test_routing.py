"""Routing: which model a call gets when money runs low, read from the example that the documentation shows."""

from __future__ import annotations

import copy
import itertools
import pickle
import time
import tomllib
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_pricing import PriceBook
from costspan_processor.budgets.routing import QUALITIES, SENSITIVITIES, ConfigurationError, Routing

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "costspan.toml"
WRITTEN: dict[str, Any] = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"), parse_float=Decimal)["routing"]
EDGES = ("0.50", "0.30", "0.15", "0.05")
PATHS = [(name, [step["model"] for step in steps]) for name, steps in WRITTEN["paths"].items()]
TASKS = sorted(WRITTEN["tasks"])
JUST = Decimal("0.000001")


@cache
def routing() -> Routing:
    return Routing.read(WRITTEN, "costspan.toml").check(PriceBook.bundled(), time.time())


def changed(place: str, value: Any) -> dict[str, Any]:
    """The example with another value at a place; None takes it out."""
    root = copy.deepcopy(WRITTEN)
    table: Any = root
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        table = table[part]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return root


def problems(written: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        Routing.read(written, "costspan.toml").check(PriceBook.bundled(), time.time())
    return refused.value.problems


class TestTheExample:
    def test_it_has_what_a_start_needs(self) -> None:
        assert len(TASKS) == 7
        assert [(quality, tuple(row)) for quality, row in WRITTEN["matrix"].items()] == [
            (quality, SENSITIVITIES) for quality in QUALITIES
        ]
        assert [tuple(str(step["above"]) for step in steps) for steps in WRITTEN["paths"].values()] == [EDGES] * 4

    def test_emergency_models_cost_next_to_nothing(self) -> None:
        for model in WRITTEN["emergency"]["models"]:
            provider, name = model.split("/", 1)
            card = PriceBook.bundled().card(provider, name, time.time_ns())
            assert card is not None
            assert (card.rate("input") or 0) <= Decimal("0.25")


class TestACallUnderWay:
    """`cheaper`: the client is there already, so the provider stays."""

    @pytest.mark.parametrize(("path", "models"), PATHS[:3])
    @pytest.mark.parametrize("step", range(4))
    def test_each_step_holds_above_its_edge_and_not_at_it(self, path: str, models: list[str], step: int) -> None:
        provider, first = models[0].split("/", 1)
        edge = Decimal(EDGES[step])
        above, at = (routing().cheaper(provider, first, remaining) for remaining in (edge + JUST, edge))
        following = models[min(step + 1, 3)]
        assert (first if above is None else above[0]) == models[step].partition("/")[2]
        assert (first if at is None else at[0]) == following.partition("/")[2]

    @pytest.mark.parametrize(("path", "models"), PATHS[:3])
    @pytest.mark.parametrize("step", range(4))
    def test_nobody_gets_a_dearer_model_than_was_asked_for(self, path: str, models: list[str], step: int) -> None:
        provider, asked = models[step].split("/", 1)
        for remaining in (Decimal(edge) for edge in ("1", *EDGES, "0")):
            given = routing().cheaper(provider, asked, remaining)
            assert given is None or models.index(f"{provider}/{given[0]}") > step

    @settings(deadline=None)  # the first reads price files
    @given(
        st.sampled_from([model for _, models in PATHS for model in models]),
        st.decimals(0, 1, places=4),
        st.booleans(),
    )
    def test_a_cheaper_model_is_cheaper_by_every_rate(self, asked: str, remaining: Decimal, emergency: bool) -> None:
        provider, model = asked.split("/", 1)
        given = routing().cheaper(provider, model, remaining, emergency)
        if given is None:
            return
        book, now = PriceBook.bundled(), time.time_ns()
        before, after = book.card(provider, model, now), book.card(provider, given[0], now)
        assert before is not None
        assert after is not None
        for meter in ("input", "output"):
            old, new = before.rate(meter), after.rate(meter)
            assert old is not None
            assert new is not None
            assert new < old

    def test_a_path_across_providers_gives_only_what_the_client_can_reach(self) -> None:
        mixed = Routing.read({"paths": {"any": WRITTEN["paths"]["anywhere"]}}, "costspan.toml")
        assert mixed.cheaper("openai", "gpt-5.6-terra", 0) is None
        back = copy.deepcopy(WRITTEN["paths"]["anywhere"])
        back[3]["model"] = "openai/gpt-5.6-luna"
        mixed = Routing.read({"paths": {"any": back}}, "costspan.toml")
        assert mixed.cheaper("openai", "gpt-5.6-terra", Decimal("0.16")) is None
        assert mixed.cheaper("openai", "gpt-5.6-terra", Decimal("0.15")) == (
            "gpt-5.6-luna",
            "15 % of the budget left, path any",
        )

    @pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-4o"), ("mistral", "gpt-5.5"), ("", "")])
    def test_a_model_on_no_path_stays(self, provider: str, model: str) -> None:
        assert routing().cheaper(provider, model, 0, emergency=True) is None

    @pytest.mark.parametrize(
        ("provider", "model", "given"),
        [
            ("openai", "gpt-5.5-2026-04-23", "gpt-5.6-luna"),
            ("OpenAI", "GPT-5.5", "gpt-5.6-luna"),
            ("gcp.gemini", "models/gemini-4-argon", "gemini-3.1-flash-lite"),
        ],
    )
    def test_models_are_known_by_all_their_names_in_the_book(self, provider: str, model: str, given: str) -> None:
        found = routing().cheaper(provider, model, 0)
        assert found is not None
        assert found[0] == given
        unchecked = Routing.read(WRITTEN, "costspan.toml").cheaper(provider, model, 0)
        assert (unchecked is not None) == (model == "GPT-5.5")

    def test_names_that_only_a_price_for_anything_covers_are_different_models(self) -> None:
        book = PriceBook.bundled().with_prices({"acme/*": {"input": "1", "output": "1"}})
        steps = [{"above": Decimal(edge), "model": f"acme/{name}"} for edge, name in (("0.5", "large"), ("0", "small"))]
        ours = Routing.read({"paths": {"acme": steps}}, "costspan.toml").check(book, time.time())
        assert ours.cheaper("acme", "Large", 0) == ("small", "0 % of the budget left, path acme")
        assert ours.cheaper("acme", "other", 0) is None

    @pytest.mark.parametrize("step", range(4))
    def test_in_an_emergency_the_providers_emergency_model_is_taken(self, step: int) -> None:
        models = dict(PATHS)["openai"]
        given = routing().cheaper("openai", models[step].partition("/")[2], 1, emergency=True)
        assert given == (("gpt-5.6-luna", "emergency, path openai") if step < 3 else None)

    def test_without_emergency_models_it_is_the_end_of_the_path(self) -> None:
        none = Routing.read(changed("emergency", None), "costspan.toml")
        assert none.cheaper("anthropic", "claude-opus-5-5", 1, emergency=True) == (
            "claude-haiku-5-5",
            "emergency, path anthropic",
        )

    def test_the_preferred_emergency_model_on_the_path_need_not_be_its_last(self) -> None:
        ours = Routing.read(changed("emergency.models", ["anthropic/claude-haiku-4-5"]), "costspan.toml")
        given = ours.cheaper("anthropic", "claude-opus-5-5", 1, emergency=True)
        assert given == ("claude-haiku-4-5", "emergency, path anthropic")


class TestBeforeAClientIsChosen:
    """`route`: any provider will do."""

    @pytest.mark.parametrize(("quality", "sensitivity"), list(itertools.product(QUALITIES, SENSITIVITIES)))
    def test_every_cell_of_the_matrix(self, quality: str, sensitivity: str) -> None:
        task = {"quality": quality, "sensitivity": sensitivity}
        route = Routing.read(changed("tasks.chat", task), "costspan.toml").route("chat")
        assert f"{route.provider}/{route.model}" == WRITTEN["matrix"][quality][sensitivity]
        assert route.reason == f"chat: quality {quality}, sensitivity {sensitivity}"

    @pytest.mark.parametrize("task", TASKS)
    def test_every_task_gets_the_model_of_its_cell(self, task: str) -> None:
        needs = WRITTEN["tasks"][task]
        route = routing().route(task)
        assert f"{route.provider}/{route.model}" == WRITTEN["matrix"][needs["quality"]][needs["sensitivity"]]

    @pytest.mark.parametrize(("complexity", "move"), [("low", -1), ("medium", 0), ("high", 1), (None, 0)])
    @pytest.mark.parametrize("quality", QUALITIES)
    def test_complexity_moves_the_quality(self, complexity: str | None, move: int, quality: str) -> None:
        expected = QUALITIES[min(max(QUALITIES.index(quality) + move, 0), 3)]
        route = routing().route("chat", complexity, quality)
        assert route.reason == f"chat: quality {expected}, sensitivity medium"

    @pytest.mark.parametrize(
        ("task", "urgency", "sensitivity"),
        [
            ("chat", "high", "low"),
            ("chat", "normal", "medium"),
            ("chat", "low", "high"),
            ("code", "high", "low"),
            ("classify", "low", "high"),
            ("classify", "high", "medium"),
        ],
    )
    def test_urgency_moves_the_sensitivity_the_other_way(self, task: str, urgency: str, sensitivity: str) -> None:
        assert routing().route(task, urgency=urgency).reason.endswith(f"sensitivity {sensitivity}")

    @pytest.mark.parametrize(("path", "models"), PATHS)
    @pytest.mark.parametrize("step", range(4))
    def test_a_model_that_is_asked_for_goes_down_its_path_only(self, path: str, models: list[str], step: int) -> None:
        for name, asked in (("first", models[0]), ("last", models[3])):
            task = {"quality": "basic", "sensitivity": "low", "path": path}
            ours = Routing.read(changed("tasks.chat", task), "costspan.toml")
            edge = Decimal(EDGES[step])
            above, at = (ours.route("chat", model=asked, remaining=left)[:2] for left in (edge + JUST, edge))
            if name == "last":
                assert "/".join(above) == "/".join(at) == asked
            else:
                assert "/".join(above) == models[step]
                assert "/".join(at) == models[min(step + 1, 3)]

    def test_a_model_that_is_asked_for_and_on_no_path_is_taken_as_it_is(self) -> None:
        route = routing().route("chat", model="openrouter/openai/gpt-4o", remaining=0, emergency=True)
        assert route == ("openrouter", "openai/gpt-4o", "asked for")

    def test_a_model_that_is_asked_for_leaves_its_path_in_no_emergency(self) -> None:
        route = routing().route("chat", model="anthropic/claude-opus-5-5", emergency=True)
        assert route == ("anthropic", "claude-haiku-5-5", "emergency, path anthropic")

    def test_a_task_goes_down_the_path_of_its_model(self) -> None:
        assert routing().route("translate", remaining=Decimal("0.2"))[:2] == ("anthropic", "claude-haiku-4-5")
        assert routing().route("translate", remaining=Decimal("0.1"))[:2] == ("anthropic", "claude-haiku-5-5")

    @pytest.mark.parametrize(
        ("remaining", "model"),
        [
            ("0.51", "anthropic/claude-sonnet-5-5"),  # the cell's, which is not on the task's path
            ("0.50", "anthropic/claude-sonnet-5-5"),  # the second step costs more
            ("0.31", "anthropic/claude-sonnet-5-5"),
            ("0.30", "google/gemini-3.8-flash"),
            ("0.15", "ollama/llama3.2"),
            ("0", "ollama/llama3.2"),
        ],
    )
    def test_a_task_with_a_path_of_its_own_goes_down_that(self, remaining: str, model: str) -> None:
        route = routing().route("reason", remaining=Decimal(remaining))
        assert f"{route.provider}/{route.model}" == model

    @pytest.mark.parametrize("task", TASKS)
    def test_in_an_emergency_every_task_gets_the_preferred_emergency_model(self, task: str) -> None:
        assert routing().route(task, emergency=True)[:2] == ("ollama", "llama3.2")

    def test_an_emergency_makes_nothing_dearer(self) -> None:
        written = changed("emergency.models", ["anthropic/claude-haiku-4-5", "google/gemini-3.1-flash-lite"])
        ours = Routing.read(written, "costspan.toml").check(PriceBook.bundled(), time.time())
        assert ours.route("reason", urgency="low", emergency=True, quality="best")[:2] == ("ollama", "llama3.2")
        assert ours.route("classify", emergency=True)[:2] == ("ollama", "llama3.2")
        assert ours.route("chat", quality="best", emergency=True)[:2] == ("openai", "gpt-5.6-luna")

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"task": "sing"}, "task must be one of chat, code, summarise, extract, classify, translate, reason, not"),
            ({"quality": "superb"}, "quality must be one of basic, standard, high, best, not 'superb'"),
            ({"complexity": "normal"}, "complexity must be one of low, medium, high, not 'normal'"),
            ({"urgency": "medium"}, "urgency must be one of low, normal, high, not 'medium'"),
            ({"model": "gpt-4.1"}, "model must be 'provider/model', such as 'openai/gpt-4.1', not 'gpt-4.1'"),
            ({"model": "/gpt-4.1"}, "model must be 'provider/model'"),
            ({"task": ["chat"]}, "task must be one of"),
        ],
    )
    def test_unknown_words_are_answered_with_the_known_ones(self, asked: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError) as refused:
            routing().route(**{"task": "chat", **asked})
        assert message in str(refused.value)

    def test_a_routing_without_tasks_routes_nothing(self) -> None:
        ours = Routing.read({"paths": WRITTEN["paths"]}, "costspan.toml")
        with pytest.raises(ValueError, match="task must be one of none: the configuration has none, not 'chat'"):
            ours.route("chat")


class TestEmergency:
    @pytest.mark.parametrize(
        ("soft_limit", "spent", "holds"),
        [
            ("400", "0", False),
            ("400", "380", False),  # 5 % are left, not less
            ("400", "380.01", True),
            ("50", "45", False),  # USD 5 are left, not less
            ("50", "45.01", True),
            ("5", "0", False),
            ("5", "0.01", True),
            ("4", "0", False),  # smaller than the amount: the share alone counts
            ("4", "3.8", False),
            ("4", "3.81", True),
            ("400", "500", True),
        ],
    )
    def test_it_begins_below_either_edge(self, soft_limit: str, spent: str, holds: bool) -> None:
        assert routing().in_emergency(Decimal(soft_limit), Decimal(spent)) is holds

    def test_the_edges_are_defaults(self) -> None:
        ours = Routing.read({"emergency": {"models": ["ollama/llama3.2"]}}, "costspan.toml")
        assert ours.emergency is not None
        assert ours.emergency[1:] == (Decimal("0.05"), Decimal(5))

    def test_they_can_be_set(self) -> None:
        limits = {"models": ["ollama/llama3.2"], "remaining_share": Decimal("0.5"), "remaining_usd": 0}
        ours = Routing.read({"emergency": limits}, "costspan.toml")
        assert [ours.in_emergency(Decimal(10), Decimal(spent)) for spent in ("5", "5.01")] == [False, True]

    def test_there_is_none_without_models_for_it(self) -> None:
        assert not Routing.read({}, "costspan.toml").in_emergency(Decimal(10), Decimal(10))


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (
                "paths.openai",
                [],
                "routing.paths.openai: must be a list of steps, each with 'above' and 'model', not []",
            ),
            ("paths.openai", {}, "routing.paths.openai: must be a list of steps, each with 'above' and 'model'"),
            ("paths.openai.2", "x", "routing.paths.openai[2]: must be a table, not 'x'"),
            ("paths.openai.2.model", None, "routing.paths.openai[2]: lacks model"),
            ("paths.openai.2.abov", 1, "routing.paths.openai[2]: unknown key 'abov'; did you mean 'above'?"),
            ("paths.openai.2.above", 2, "routing.paths.openai[2].above: must be a share from 0 to 1, not 2"),
            ("paths.openai.2.above", "0.15", "routing.paths.openai[2].above: must be a share from 0 to 1, not '0.15'"),
            ("paths.openai.2.above", Decimal("NaN"), "routing.paths.openai[2].above: must be a share from 0 to 1"),
            ("paths.openai.2.above", True, "routing.paths.openai[2].above: must be a share from 0 to 1, not true"),
            (
                "paths.openai.2.above",
                Decimal("0.30"),
                "routing.paths.openai[2].above: must be less than that of the step before, not 0.30",
            ),
            (
                "paths.openai.2.model",
                "gpt-5.6-terra",
                "routing.paths.openai[2].model: must be 'provider/model', such as 'openai/gpt-4.1', not 'gpt-5.6-",
            ),
            ("paths.openai.2.model", 7, "routing.paths.openai[2].model: must be 'provider/model'"),
            (
                "paths.openai.2.model",
                "openai/gpt-5.5",
                "routing.paths.openai[2].model: openai/gpt-5.5 is on this path already",
            ),
            (
                "paths.openai.2.model",
                "openai/gpt-5.6-tera",
                "routing.paths.openai[2].model: the price book has no model 'openai/gpt-5.6-tera'; "
                "did you mean 'gpt-5.6-terra'?",
            ),
            (
                "paths.openai.2.model",
                "opnai/gpt-5.6-terra",
                "routing.paths.openai[2].model: the price book has no provider 'opnai'; did you mean 'openai'?",
            ),
            (
                "paths.openai.2.model",
                "anthropic/claude-fable-5-2",
                "routing.paths.openai[2].model: anthropic/claude-fable-5-2 must cost no more than openai/gpt-5.6-sol "
                "before it: USD 8 against 4 a million input tokens",
            ),
            (
                "paths.openai.2.model",
                "google/gemini-embedding-001",
                "google/gemini-embedding-001 must cost no more than openai/gpt-5.6-sol before it: there is no "
                "price per output token to compare",
            ),
            (
                "matrix.high.low",
                "openai/dall-e-3",
                "routing.matrix.high.low: the price book has no price at present for 'openai/dall-e-3'",
            ),
            ("emergency", [], "routing.emergency: must be a table, not []"),
            ("emergency.model", "x", "routing.emergency: unknown key 'model'; did you mean 'models'?"),
            ("emergency.models", None, "routing.emergency.models: must be a list of 'provider/model'"),
            ("emergency.models", "x/y", "routing.emergency.models: must be a list of 'provider/model'"),
            ("emergency.models.1", "x", "routing.emergency.models[1]: must be 'provider/model'"),
            ("emergency.models.1", "x/y", "routing.emergency.models[1]: the price book has no provider 'x'"),
            ("emergency.remaining_share", -1, "routing.emergency.remaining_share: must be a share from 0 to 1, not -1"),
            (
                "emergency.remaining_usd",
                -1,
                "routing.emergency.remaining_usd: must be an amount in USD, 0 or more, not -1",
            ),
            ("tasks", 1, "routing.tasks: must be a table, not 1"),
            ("tasks.chat", "x", "routing.tasks.chat: must be a table, not 'x'"),
            ("tasks.chat.level", 1, "routing.tasks.chat: unknown key 'level'; known are quality, sensitivity, path"),
            (
                "tasks.chat.quality",
                "bets",
                "routing.tasks.chat.quality: must be one of basic, standard, high, best, not 'bets'; "
                "did you mean 'best'?",
            ),
            (
                "tasks.chat.sensitivity",
                None,
                "routing.tasks.chat.sensitivity: must be one of low, medium, high, not nothing",
            ),
            (
                "tasks.chat.path",
                "open",
                "routing.tasks.chat.path: must be one of openai, anthropic, google, anywhere, not 'open'",
            ),
            ("matrix", None, "routing.matrix: lacks basic, standard, high, best"),
            ("matrix.high", None, "routing.matrix: lacks high"),
            ("matrix.high.low", None, "routing.matrix.high: lacks low"),
            ("matrix.hihg", {}, "routing.matrix: unknown key 'hihg'; did you mean 'high'?"),
            ("matrix.high", 1, "routing.matrix.high: must be a table, not 1"),
            ("matrix.high.low", 1, "routing.matrix.high.low: must be 'provider/model'"),
            (
                "matrix.high.low",
                "openai/gpt-9",
                "routing.matrix.high.low: the price book has no model 'openai/gpt-9'; did you mean 'gpt-",
            ),
            ("path", {}, "routing: unknown key 'path'; did you mean 'paths'?"),
        ],
    )
    def test_each_mistake_is_told_with_its_place_and_what_is_possible(
        self, place: str, value: Any, message: str
    ) -> None:
        told = problems(changed(place, value))
        assert any(f"costspan.toml: {message}" in problem or message in problem for problem in told), told
        assert all(problem.startswith("costspan.toml: routing") for problem in told)

    @pytest.mark.parametrize("written", [None, [], 1, "routing"])
    def test_what_is_no_table_is_told(self, written: Any) -> None:
        assert problems(written)[0].startswith("costspan.toml: routing: must be a table, not ")

    def test_all_mistakes_are_told_at_once(self) -> None:
        written = changed("paths.openai.2.above", 2)
        written["tasks"]["chat"]["quality"] = "superb"
        del written["matrix"]["high"]["low"]
        with pytest.raises(ConfigurationError) as refused:
            Routing.read(written, "costspan.toml")
        assert len(refused.value.problems) == 3
        assert str(refused.value).splitlines() == list(refused.value.problems)
        assert pickle.loads(pickle.dumps(refused.value)).problems == refused.value.problems
