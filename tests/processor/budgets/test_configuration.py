"""costspan.toml: what it may say, how mistakes are told, that changes are seen, and that editing loses nothing."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_processor.budgets import configuration
from costspan_processor.budgets.configuration import Configuration, Watched, merged, remove_budget, set_budget
from costspan_processor.budgets.model import FIELDS, Budget
from costspan_processor.budgets.routing import ConfigurationError

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "costspan.toml"

TWO = """\
# Our limits.

# What the search team may spend.
[[budgets]]
name = "search"  # as on the bill
limit = 25       # USD
scope = { team = "search" }
# The team asked for more in May.

# Everybody.
[[budgets]]
name = "all"
limit = 500
thresholds = [
    50,  # early
    100,
]

# --- the rest of the file

# Dear to cheap.
[[routing.paths.openai]]
above = 0
model = "openai/gpt-5.5"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "costspan.toml"
    path.write_text(TWO, encoding="utf-8")
    return path


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        Configuration.of_toml(text, "costspan.toml")
    return refused.value.problems


def names(path: Path) -> list[str]:
    return [budget.name for budget in Configuration.read(path).budgets]


class TestReading:
    def test_the_example(self) -> None:
        found = Configuration.read(EXAMPLE)
        assert found.budgets == (
            Budget(
                "month",
                "500",
                soft_limit="400",
                daily_limit="even",
                period="month",
                zone="Europe/Berlin",
                policy="downgrade",
            ),
            Budget(
                "teams",
                "100",
                per="team",
                period="week",
                zone="Europe/Berlin",
                thresholds=(50, 80, 90, 100),
                policy="block",
            ),
            Budget("answers, last day", "12.50", scope={"team": "search", "feature": "answers"}, period="24h"),
        )
        assert found.routing is not None
        assert list(found.routing.paths) == ["openai", "anthropic", "google", "anywhere"]

    def test_every_field_of_a_budget_can_be_set(self) -> None:
        text = """
            [[budgets]]
            name = "b"
            limit = 0.30
            soft_limit = "0.25"
            daily_limit = 0.1
            scope = { team = "search", "http.route" = "/ask" }
            per = "user"
            period = "month"
            zone = "Asia/Kathmandu"
            thresholds = [10, 20]
            policy = "block"
            normal_percent = 90
            on_store_error = "deny"
        """
        (budget,) = Configuration.of_toml(text, "x").budgets
        assert [name for name in FIELDS if f"{name} = " not in text] == []
        # 0.30 is what was written, not the binary fraction next to it.
        assert (budget.limit, budget.soft_limit, budget.daily_limit) == (
            Decimal("0.30"),
            Decimal("0.25"),
            Decimal("0.1"),
        )
        assert (budget.thresholds, budget.normal_percent, budget.on_store_error) == ((10, 20), 90, "deny")

    @pytest.mark.parametrize("text", ["", "# nothing yet\n", "budgets = []\n"])
    def test_a_file_may_have_nothing(self, text: str) -> None:
        assert Configuration.of_toml(text, "x") == Configuration((), None)

    def test_a_byte_order_mark_is_none_of_the_text(self, file: Path) -> None:
        file.write_text(TWO, encoding="utf-8-sig")
        assert names(file) == ["search", "all"]


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ('limit = "lots"', "limit must be an amount in USD, not 'lots'"),
            ("limit = -1", "limit must be an amount in USD above 0, not -1"),
            ("limit = nan", "limit must be an amount in USD above 0"),
            ("limit = true", "limit must be an amount in USD"),
            ("limit = 2026-11-28", "limit must be an amount in USD"),
            ("limit = [1]", "limit must be a single value, not [1]"),
            ("", "limit is missing"),
            ("limit = 1\nlimits = 2", "unknown field 'limits'; did you mean 'limit'?"),
            ("limit = 1\nqq = 2", "unknown field 'qq'; known are name, limit, scope, period"),
            ("limit = 1\nsoft_limit = 2", "soft_limit must be at most the limit of 1"),
            ('limit = 1\nsoft_limit = "x"', "soft_limit must be an amount in USD, not 'x'"),
            ('limit = 1\nperiod = "day"\ndaily_limit = "even"', "daily_limit must be left out"),
            ('limit = 1\nscope = "search"', "scope must be a table, not 'search'"),
            ('limit = 1\nscope = { team = ["a"] }', "scope.team must be a single value, not ['a']"),
            ("limit = 1\nthresholds = 50", "thresholds must be a list, not 50"),
            ('limit = 1\nthresholds = ["50"]', "thresholds must be whole percentages above 0"),
            ('limit = 1\npolicy = "stop"', "policy must be 'observe' or 'warn' or 'block' or 'downgrade', not 'stop'"),
            ("limit = 1\npolicy = {}", "policy must be a single value, not a table"),
            ('limit = 1\nperiod = "fortnight"', "period must be hour, day, week, month, year or a window such as"),
            ('limit = 1\nzone = "Mars/Olympus"', "zone must be an IANA time zone"),
            ('limit = 1\nper = ""', "per must be the name of something"),
            ("limit = 1\nnormal_percent = 0", "normal_percent must be a whole percentage"),
            ('limit = 1\non_store_error = "panic"', "on_store_error must be 'allow' or 'deny' or 'local'"),
        ],
    )
    def test_a_field_that_makes_no_sense_is_told_with_its_place(self, fields: str, told: str) -> None:
        text = f'[[budgets]]\nname = "all"\nlimit = 1\n[[budgets]]\nname = "search"\n{fields}\n'
        (problem,) = problems(text)
        assert problem.startswith(f"costspan.toml: budgets[1] 'search': {told}")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[[budgets]]\nlimit = 1", "budgets[0]: name is missing"),
            ('[[budgets]]\nname = ""\nlimit = 1', "budgets[0]: name must be a text, not ''"),
            ("[[budgets]]\nname = 7\nlimit = 1", "budgets[0]: name must be a text, not 7"),
            (
                '[[budgets]]\nname = "a"\nlimit = 1\n[[budgets]]\nname = "a"\nlimit = 2',
                "budgets[1] 'a': name must be unique: that of budgets[0] is the same",
            ),
            ("budgets = 1", "budgets: must be a list of budgets, not 1"),
            ("[budgets]\nname = 1", "budgets: must be a list of budgets, not a table"),
            ("budgets = [1]", "budgets[0]: must be a table, not 1"),
            ("[[budget]]", "unknown key 'budget'; did you mean 'budgets'?"),
            ("x = 1", "unknown key 'x'; known are budgets, routing"),
            ("routing = 1", "routing: must be a table, not 1"),
            ("a = 1\nb = = 2", "line 2, column 5: Invalid value"),
            ("a = 1\na = 2", "line 2, column 6: Cannot overwrite a value"),
            ('a = 1\nb = """x', "line 2, column 9: "),
            ("a = " + "[" * 100_000, "cannot be read as TOML: "),
        ],
    )
    def test_a_file_that_makes_no_sense_is_told_with_its_place(self, text: str, told: str) -> None:
        (problem,) = problems(text)
        assert problem.startswith(f"costspan.toml: {told}")

    def test_all_mistakes_are_told_at_once(self) -> None:
        assert problems(
            """
            bugdets = 1
            [[budgets]]
            name = "a"
            limit = "lots"
            period = "fortnight"
            policy = "stop"
            normal_percent = 101
            treshold = 3
            [[budgets]]
            limit = 0
            [routing.paths]
            openai = []
            """
        ) == (
            "costspan.toml: unknown key 'bugdets'; did you mean 'budgets'?",
            "costspan.toml: budgets[0] 'a': unknown field 'treshold'; did you mean 'thresholds'?",
            "costspan.toml: budgets[0] 'a': limit must be an amount in USD, not 'lots'",
            "costspan.toml: budgets[0] 'a': period must be hour, day, week, month, year or a window such as '90m', "
            "'24h', '30d', not 'fortnight'",
            "costspan.toml: budgets[0] 'a': policy must be 'observe' or 'warn' or 'block' or 'downgrade', not 'stop'",
            "costspan.toml: budgets[0] 'a': normal_percent must be a whole percentage from 1 to 100, not 101",
            "costspan.toml: budgets[1]: name is missing",
            "costspan.toml: budgets[1]: limit must be an amount in USD above 0, not 0",
            "costspan.toml: routing.paths.openai: must be a list of steps, each with 'above' and 'model', not []",
        )

    def test_a_file_that_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes(b"# caf\xe9\n")
        for name, told in (
            ("none", "cannot be read: No such file or directory"),
            (".", "cannot be read: Is a directory"),
            ("latin", "must be UTF-8, which byte 5 is not"),
        ):
            with pytest.raises(ConfigurationError) as refused:
                Configuration.read(tmp_path / name)
            assert str(refused.value) == f"{tmp_path / name}: {told}"

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner),
            max_leaves=12,
        )
    )
    def test_whatever_json_says_it_is_read_or_refused_by_name(self, value: Any) -> None:
        try:
            told: tuple[str, ...] = ()
            found = Configuration.of_json(json.dumps(value), "COSTSPAN_BUDGETS")
        except ConfigurationError as error:
            told, found = error.problems, Configuration()
        assert all(problem.startswith("COSTSPAN_BUDGETS: ") for problem in told)
        assert told or len(found.budgets) == len(value)


class TestTheEnvironment:
    def test_budgets_as_json(self) -> None:
        text = '[{"name": "search", "limit": 0.30000000000000000001, "scope": {"team": "search"}, "policy": "block"}]'
        found = Configuration.of_json(text, "COSTSPAN_BUDGETS")
        assert found == Configuration(
            (Budget("search", "0.30000000000000000001", scope={"team": "search"}, policy="block"),)
        )

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "line 1, column 1: Expecting value"),
            ('[\n{"name": }]', "line 2, column 10: Expecting value"),
            ("{}", "must be a list of budgets, not a table"),
            ("[1]", "[0]: must be a table, not 1"),
            ('[{"name": "a"}]', "[0] 'a': limit is missing"),
            ('[{"name": "a", "limit": "x"}]', "[0] 'a': limit must be an amount in USD, not 'x'"),
            ("[" * 100_000, "cannot be read as JSON: "),
        ],
    )
    def test_mistakes_are_told_with_their_place(self, text: str, told: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            Configuration.of_json(text, "COSTSPAN_BUDGETS")
        assert str(refused.value).startswith(f"COSTSPAN_BUDGETS: {told}")


class TestMerging:
    def test_code_wins_over_the_environment_and_that_over_the_file(self) -> None:
        file = [Budget("a", "1"), Budget("b", "1"), Budget("c", "1")]
        environment = [Budget("b", "2"), Budget("c", "2"), Budget("d", "2")]
        code = [Budget("c", "3"), Budget("e", "3")]
        found = merged(file, environment, code)
        assert [(budget.name, int(budget.limit)) for budget in found] == [
            ("a", 1),
            ("b", 2),
            ("c", 3),
            ("d", 2),
            ("e", 3),
        ]

    def test_a_name_is_unique_in_each_of_them(self) -> None:
        with pytest.raises(ValueError, match="two budgets are named 'a': a name must be unique"):
            merged(code=[Budget("a", "1"), Budget("a", "2")])


class TestWatching:
    @staticmethod
    def settle(watched: Watched) -> list[bool]:
        """Two looks: what is still being written does not count."""
        return [watched.changed(), watched.changed()]

    def test_a_change_counts_when_two_looks_have_seen_it(self, file: Path) -> None:
        watched = Watched(file)
        assert [budget.name for budget in watched.configuration.budgets] == ["search", "all"]
        assert self.settle(watched) == [False, False]
        remove_budget(file, "all")
        assert self.settle(watched) == [False, True]
        assert [budget.name for budget in watched.configuration.budgets] == ["search"]
        assert self.settle(watched) == [False, False]

    def test_a_file_that_is_still_being_written_is_left_alone(self, file: Path) -> None:
        watched = Watched(file)
        for length in range(0, len(TWO), 100):
            file.write_text(TWO[:length], encoding="utf-8")
            assert not watched.changed()
        assert (len(watched.configuration.budgets), watched.problem) == (2, "")

    def test_a_broken_version_leaves_the_last_good_one_and_is_told_once(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched = Watched(file)
        good = watched.configuration
        file.write_text("[[budgets]]\n", encoding="utf-8")
        with caplog.at_level(logging.ERROR, "costspan.budgets"):
            assert [watched.changed() for _ in range(5)] == [False] * 5
        assert watched.configuration is good
        assert watched.problem.splitlines() == [
            f"{file}: budgets[0]: name is missing",
            f"{file}: budgets[0]: limit is missing",
        ]
        (record,) = caplog.records
        assert record.getMessage() == f"costspan: the last good configuration stays in force:\n{watched.problem}"
        file.write_text('[[budgets]]\nname = "new"\nlimit = 1\n', encoding="utf-8")
        assert self.settle(watched) == [False, True]
        assert watched.problem == ""

    def test_another_time_stamp_is_no_change(self, file: Path) -> None:
        watched = Watched(file)
        os.utime(file, ns=(1, 1))
        assert self.settle(watched) == [False, False]

    def test_a_file_may_come_and_go(self, tmp_path: Path) -> None:
        path = tmp_path / "costspan.toml"
        watched = Watched(path)
        assert (watched.configuration, watched.problem) == (Configuration(), "")
        path.write_text(TWO, encoding="utf-8")
        assert self.settle(watched) == [False, True]
        path.unlink()
        assert self.settle(watched) == [False, False]
        assert len(watched.configuration.budgets) == 2
        assert watched.problem == f"{path}: cannot be read: No such file or directory"
        path.write_text(TWO, encoding="utf-8")
        assert self.settle(watched) == [False, False]
        assert watched.problem == ""

    def test_a_file_that_is_broken_from_the_start_gives_no_budgets(self, file: Path) -> None:
        file.write_text("x", encoding="utf-8")
        watched = Watched(file)
        assert watched.configuration == Configuration()
        assert "line 1, column 2" in watched.problem

    def test_a_look_costs_a_stat_and_reads_nothing(self, file: Path) -> None:
        watched, before = Watched(file), file.stat()
        with file.open("r+b") as same:
            same.write(b"[" * len(TWO.encode()))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert self.settle(watched) == [False, False]
        assert watched.problem == ""


class TestSetting:
    def test_a_value_changes_and_nothing_else(self, file: Path) -> None:
        set_budget(file, {"name": "search", "limit": Decimal("30.50")})
        assert file.read_text(encoding="utf-8") == TWO.replace("limit = 25       # USD", "limit = 30.50       # USD")

    def test_what_is_set_already_changes_nothing(self, file: Path) -> None:
        set_budget(file, {"name": "all", "limit": 500, "thresholds": (50, 100)})
        assert file.read_text(encoding="utf-8") == TWO

    def test_a_new_field_comes_after_the_others_and_before_the_comments_of_what_follows(self, file: Path) -> None:
        set_budget(file, {"name": "search", "policy": "block"})
        assert file.read_text(encoding="utf-8") == TWO.replace(
            'scope = { team = "search" }\n', 'scope = { team = "search" }\npolicy = "block"\n'
        )

    def test_a_field_is_taken_out_by_none(self, file: Path) -> None:
        set_budget(file, {"name": "search", "scope": None})
        assert file.read_text(encoding="utf-8") == TWO.replace('scope = { team = "search" }\n', "")

    def test_a_scope_is_replaced_as_a_whole(self, file: Path) -> None:
        set_budget(file, {"name": "search", "scope": {"feature": "answers", "http.route": "/ask"}})
        assert 'scope = {feature = "answers", "http.route" = "/ask"}\n' in file.read_text(encoding="utf-8")

    def test_a_new_budget_comes_after_the_last_one(self, file: Path) -> None:
        scope = {"team": "ads"}
        set_budget(file, {"policy": "block", "name": "ads", "scope": scope, "limit": "5", "thresholds": (50, 90)})
        added = (
            '[[budgets]]\nname = "ads"\nlimit = "5"\nscope = {team = "ads"}\nthresholds = [50, 90]\npolicy = "block"\n'
        )
        assert file.read_text(encoding="utf-8") == TWO.replace("    100,\n]\n", f"    100,\n]\n\n{added}")

    def test_the_first_budget_of_a_file(self, tmp_path: Path) -> None:
        for name, before, after in (("none", None, ""), ("empty", "", ""), ("comment", "# ours\n", "# ours\n\n")):
            path = tmp_path / name
            if before is not None:
                path.write_text(before, encoding="utf-8")
            set_budget(path, {"name": "a", "limit": 1})
            assert path.read_text(encoding="utf-8") == f'{after}[[budgets]]\nname = "a"\nlimit = 1\n'

    @pytest.mark.parametrize(
        "text",
        [
            'budgets = [{name = "a", limit = 1}]',
            'budgets = [\n  {name = "a", limit = 1},  # first\n  # second\n  {name = "b", limit = 2}\n]\n',
            '[[budgets]]\nname = "a"\nlimit = 1\n[budgets.scope]\nteam = "x"\n# more\n\n# rest\n[routing]\n',
            '[[budgets]]\nname = "a"\nlimit = 1\nscope.team = "x"\n',
            '[[ "budgets" ]]  # the first\n"name" = "a"\nlimit = 1',
        ],
    )
    def test_however_budgets_are_written(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "costspan.toml"
        path.write_text(text, encoding="utf-8")
        others = {budget.name for budget in Configuration.read(path).budgets} - {"a"}
        set_budget(path, {"name": "a", "limit": 7, "scope": {"team": "y"}})
        set_budget(path, {"name": "new", "limit": 8})
        found = {budget.name: budget for budget in Configuration.read(path).budgets}
        assert found.pop("a") == Budget("a", "7", scope={"team": "y"})
        assert found.pop("new") == Budget("new", "8")
        assert set(found) == others
        written = path.read_text(encoding="utf-8")
        assert [line for line in comments(text) if line not in comments(written)] == []
        remove_budget(path, "a")
        assert set(names(path)) == others | {"new"}

    def test_a_broken_budget_can_be_mended(self, file: Path) -> None:
        file.write_text(TWO.replace("limit = 500", 'limit = "lots"'), encoding="utf-8")
        set_budget(file, {"name": "all", "limit": 500})
        assert file.read_text(encoding="utf-8") == TWO

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"name": "all", "limit": "lots"}, "budgets[1] 'all': limit must be an amount in USD, not 'lots'"),
            ({"name": "new"}, "budgets[2] 'new': limit is missing"),
            ({"name": "all", "limit": None}, "budgets[1] 'all': limit is missing"),
            ({"name": "all", "perid": "day"}, "budgets[1] 'all': unknown field 'perid'; did you mean 'period'?"),
            ({"limit": 1}, "budgets[2]: name is missing"),
            ({"name": 1, "limit": 1}, "budgets[2]: name must be a text, not 1"),
            ({"name": "all", "limit": Decimal("NaN")}, "limit must be something that a TOML file can have, not NaN"),
            ({"name": "all", "per": "\ud800"}, "per must be something that a TOML file can have"),
            ({"name": "all", "per": object()}, "per must be something that a TOML file can have"),
        ],
    )
    def test_a_result_that_could_not_be_read_is_refused(self, file: Path, fields: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            set_budget(file, fields)
        assert str(refused.value).startswith(f"{file}: {told}")
        assert file.read_text(encoding="utf-8") == TWO
        assert list(file.parent.iterdir()) == [file]

    @settings(deadline=None, max_examples=50)  # each syncs a file
    @given(st.text(min_size=1), st.text(min_size=1), st.decimals("0.000001", 10**9, allow_nan=False))
    def test_any_text_and_any_amount_can_be_written(self, name: str, team: str, limit: Decimal) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "costspan.toml")
            path.write_text(TWO, encoding="utf-8")
            set_budget(path, {"name": name, "limit": limit, "scope": {"team": team}})
            found = {budget.name: budget for budget in Configuration.read(path).budgets}
            assert (found[name].limit, found[name].scope["costspan.team"]) == (limit, team)


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.split("\n") if "#" in line]


class TestRemoving:
    def test_a_budget_goes_with_the_comment_above_it_and_the_one_below(self, file: Path) -> None:
        remove_budget(file, "search")
        start, end = TWO.index("# What the search"), TWO.index("# Everybody.")
        assert file.read_text(encoding="utf-8") == TWO[:start] + TWO[end:]

    def test_what_is_about_something_else_stays(self, file: Path) -> None:
        remove_budget(file, "all")
        start, end = TWO.index("# Everybody."), TWO.index("# --- the rest")
        assert file.read_text(encoding="utf-8") == TWO[:start] + TWO[end:]

    def test_a_comment_that_touches_the_next_table_is_about_that(self, file: Path) -> None:
        file.write_text(
            '[[budgets]]\nname = "a"\nlimit = 1\n# b\n[[budgets]]\nname = "b"\nlimit = 1\n', encoding="utf-8"
        )
        remove_budget(file, "a")
        assert file.read_text(encoding="utf-8") == '# b\n[[budgets]]\nname = "b"\nlimit = 1\n'

    def test_the_last_one(self, file: Path) -> None:
        file.write_text('[[budgets]]\nname = "a"\nlimit = 1\n', encoding="utf-8")
        remove_budget(file, "a")
        assert file.read_text(encoding="utf-8") == ""

    def test_one_that_is_not_there(self, file: Path) -> None:
        with pytest.raises(ConfigurationError) as refused:
            remove_budget(file, "serch")
        assert str(refused.value) == f"{file}: there is no budget 'serch'; did you mean 'search'?"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be changed: No such file or directory"):
            remove_budget(tmp_path / "costspan.toml", "a")
        assert list(tmp_path.iterdir()) == []

    def test_where_it_cannot_be_done_without_harm_it_is_not_done(self, file: Path) -> None:
        text = '[[budgets]]\nname = "a"\nlimit = 1\nper = """\n[[budgets]]\n"""\n[[budgets]]\nname = "b"\nlimit = 1\n'
        file.write_text(text, encoding="utf-8")
        with pytest.raises(
            ConfigurationError, match="is written in a way that this edit would harm: change it by hand"
        ):
            remove_budget(file, "b")
        assert file.read_text(encoding="utf-8") == text

    @settings(deadline=None, max_examples=30)  # each step syncs a file
    @given(st.lists(st.sampled_from("abc"), max_size=6), st.data())
    def test_budgets_come_and_go_and_the_rest_stays(self, steps: list[str], data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "costspan.toml")
            path.write_text(TWO, encoding="utf-8")
            expected: dict[str, int] = {}
            for name in steps:
                if name in expected and data.draw(st.booleans()):
                    del expected[name]
                    remove_budget(path, name)
                else:
                    expected[name] = data.draw(st.integers(1, 999))
                    set_budget(path, {"name": name, "limit": expected[name]})
            found = {budget.name: int(budget.limit) for budget in Configuration.read(path).budgets}
            assert found == {"search": 25, "all": 500, **expected}
            lines = iter(path.read_text(encoding="utf-8").split("\n"))
            assert all(line in lines for line in TWO.split("\n") if line), "a line is gone, or at another place"


class TestTheFile:
    def test_lines_of_windows_and_its_mark_stay(self, file: Path) -> None:
        raw = b"\xef\xbb\xbf" + TWO.replace("\n", "\r\n").encode()
        file.write_bytes(raw)
        set_budget(file, {"name": "new", "limit": 1})
        changed = file.read_bytes()
        assert changed.startswith(b"\xef\xbb\xbf# Our limits.\r\n")
        assert changed.count(b"\n") == changed.count(b"\r\n")
        remove_budget(file, "new")
        assert file.read_bytes() == raw

    def test_the_mode_stays(self, file: Path) -> None:
        for mode in (0o600, 0o664):
            file.chmod(mode)
            set_budget(file, {"name": "all", "limit": mode})
            assert stat.S_IMODE(file.stat().st_mode) == mode

    def test_a_link_stays_one(self, file: Path) -> None:
        link = file.with_name("link.toml")
        link.symlink_to(file)
        set_budget(link, {"name": "new", "limit": 1})
        assert link.is_symlink()
        assert names(file) == ["search", "all", "new"]

    def test_nobody_reads_half_a_file(self, file: Path) -> None:
        before = file.open("rb")
        set_budget(file, {"name": "new", "limit": 1})
        with before:
            assert before.read() == TWO.encode()
        assert list(file.parent.iterdir()) == [file]

    def test_processes_that_edit_at_once_lose_nothing(self, file: Path) -> None:
        code = (
            "import sys; from costspan_processor.budgets.configuration import set_budget\n"
            "for number in range(10): set_budget(sys.argv[1], {'name': f'{sys.argv[2]}{number}', 'limit': 1})"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        editors = [subprocess.Popen([sys.executable, "-c", code, str(file), name], env=environment) for name in "abc"]
        assert [editor.wait() for editor in editors] == [0, 0, 0]
        assert set(names(file)) == {"search", "all"} | {f"{name}{number}" for name in "abc" for number in range(10)}

    def test_an_editor_that_died_is_told_and_waited_for_no_longer_than_said(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(configuration, "_EDITING_SECONDS", 0.05)
        left = file.with_name("costspan.toml.new")
        left.touch()
        with pytest.raises(ConfigurationError) as refused:
            set_budget(file, {"name": "all", "limit": 1})
        assert str(refused.value) == (
            f"{left}: somebody else is changing the configuration, or died while doing so: if so, remove this file"
        )
        assert file.read_text(encoding="utf-8") == TWO
        assert left.exists()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be changed: No such file or directory"):
            set_budget(tmp_path / "none" / "costspan.toml", {"name": "a", "limit": 1})
