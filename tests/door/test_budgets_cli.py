"""`costspan budgets`: the commands as they are typed, on a file and on a store that a real program has spent from."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from costspan import rates
from costspan.cli import main
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.budgets.store import Claim
from tests.door.program import environment, output
from tests.processor.budgets.server import free_port

YEAR = time.gmtime().tm_year
FILE = """
[[budgets]]
name = "everything"
limit = 500
period = "year"

[[budgets]]
name = "search"
limit = 0.02
period = "year"
policy = "block"
scope = { team = "search" }
thresholds = [80, 100]

[[budgets]]
name = "users"
limit = 0.01
period = "year"
per = "user"
thresholds = [50, 100]
"""

SPENDING = """
import costspan
costspan.init()
for user in ("ada", "bob", "ada", "eve/x y"):
    costspan.record("openai", "gpt-4.1", {"prompt_tokens": 1000, "completion_tokens": 500}, "openai.chat",
                    user=user, team="search")
costspan.shutdown()
"""
"""Four calls of $0.006."""


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Of the output, without the blanks that lay it out, and without empty ones."""
        return [" ".join(line.split()) for line in self.out.splitlines() if line.strip(" ─")]


Budgets = Callable[..., Done]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a user who has nothing else."""
    for name in [name for name in os.environ if name.startswith("COSTSPAN_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "costspan.toml"
    path.write_text(FILE)
    monkeypatch.setenv("COSTSPAN_CONFIG", str(path))
    return path


@pytest.fixture
def budgets(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Budgets:
    """`costspan budgets ...`, through the console script's own function."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["costspan", "budgets", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, error)

    rates._console.cache_clear()
    return run


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a program has spent from, and which nobody changes."""
    folder = tmp_path_factory.mktemp("spent")
    (folder / "costspan.toml").write_text(FILE)
    output(
        SPENDING,
        COSTSPAN_CONFIG=str(folder / "costspan.toml"),
        COSTSPAN_BUDGET_STORE=f"sqlite:///{folder}/budgets.db",
    )
    return folder / "budgets.db"


@pytest.fixture
def store(spent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    copy = tmp_path / "budgets.db"
    for part in spent.parent.glob("budgets.db*"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    monkeypatch.setenv("COSTSPAN_BUDGET_STORE", f"sqlite:///{copy}")
    return copy


class TestList:
    def test_shows_what_is_spent_of_each(self, budgets: Budgets, store: Path) -> None:
        done = budgets("list")
        assert (done.status, done.error) == (0, "")
        assert done.lines == [
            "Budget Period Used Spent Held Limit Policy Until",
            f"everything {YEAR} 0 % $0.0240 $500.00 warn {YEAR + 1}-01-01 00:00 UTC",
            f"search {YEAR} ━━━━━━━━━━━━━━━━━━━━ 120 % $0.0240 $0.0200 block {YEAR + 1}-01-01 00:00 UTC",
            f"users, each user.id {YEAR} — — — $0.0100 warn {YEAR + 1}-01-01 00:00 UTC",
        ]

    def test_is_json_for_programs(self, budgets: Budgets, store: Path) -> None:
        done = budgets("list", "--json")
        assert done.status == 0
        everything, search, users = done.json
        assert search == {
            "name": "search",
            "period": f"{YEAR}",
            "start": f"{YEAR}-01-01T00:00:00Z",
            "end": f"{YEAR + 1}-01-01T00:00:00Z",
            "policy": "block",
            "limit": "0.02",
            "soft_limit": None,
            "per": None,
            "spent": "0.024",
            "held": "0",
            "unsettled": "0",
            "remaining": "0",
        }
        assert (everything["spent"], everything["remaining"]) == ("0.024", "499.976")
        assert (users["per"], users["spent"]) == ("user.id", None)

    def test_says_that_memory_is_seen_by_its_process_alone(self, budgets: Budgets) -> None:
        done = budgets("list")
        assert (done.status, done.error) == (
            0,
            "each process keeps its own in memory: set COSTSPAN_BUDGET_STORE to see here what they spend\n",
        )
        assert f"everything {YEAR} — — — $500.00 warn {YEAR + 1}-01-01 00:00 UTC" in done.lines

    def test_says_how_to_make_the_first_one(self, budgets: Budgets, file: Path) -> None:
        file.unlink()
        done = budgets("list")
        assert (done.status, done.out) == (0, "")
        assert done.error == f"there are no budgets: write some into {file} with `costspan budgets set`\n"

    def test_shows_what_calls_under_way_hold(self, budgets: Budgets, store: Path) -> None:
        SQLiteStore(store).reserve("call", 5_000_000, [Claim(f"everything:{YEAR}")], 600)
        assert (
            f"everything {YEAR} 0 % $0.0240 $0.005000 $500.00 warn {YEAR + 1}-01-01 00:00 UTC" in budgets("list").lines
        )


class TestShow:
    def test_has_the_rules_the_money_and_what_happened(self, budgets: Budgets, store: Path) -> None:
        done = budgets("show", "search")
        assert (done.status, done.error) == (0, "")
        assert done.lines[:6] == [
            "name search",
            "limit 0.02",
            "scope costspan.team = search",
            "period year",
            "thresholds 80, 100",
            "policy block",
        ]
        assert done.lines[7:9] == [
            f"search {YEAR} ━━━━━━━━━━━━━━━━━━━━ 120 % $0.0240 $0.0200 block {YEAR + 1}-01-01 00:00 UTC",
            "0 calls under way",
        ]
        assert [line.partition(" UTC ")[2] or line for line in done.lines[9:]] == [
            "critical search exceeded 100 %: $0.0240 of $0.0200",
            f"search:{YEAR}:exceeded:100:0.02",
            "raise the limit, wait for the next period, or find what spent it: costspan budgets show 'search'",
            "warning search threshold 80 %: $0.0240 of $0.0200",
            f"search:{YEAR}:threshold:80:0.02",
            "look at what spends it: costspan budgets show 'search'",
        ]

    def test_has_who_spends_it_those_who_spent_most_first(self, budgets: Budgets, store: Path) -> None:
        done = budgets("show", "users")
        at = done.lines.index("user.id Used Spent Held")
        assert done.lines[at + 1 : at + 4] == [
            "ada ━━━━━━━━━━━━━━━━━━━━ 120 % $0.0120",
            "bob ━━━━━━━━━━━━ 60 % $0.006000",
            "eve/x y ━━━━━━━━━━━━ 60 % $0.006000",
        ]
        assert budgets("show", "users", "--json").json["values"] == {
            "ada": "0.012",
            "bob": "0.006",
            "eve/x y": "0.006",
        }

    def test_is_json_for_programs(self, budgets: Budgets, store: Path) -> None:
        shown = budgets("show", "search", "--json").json
        assert shown["budget"] == {
            "name": "search",
            "limit": "0.02",
            "scope": {"costspan.team": "search"},
            "period": "year",
            "thresholds": [80, 100],
            "policy": "block",
        }
        assert [state["spent"] for state in shown["periods"]] == ["0.024"]
        exceeded, threshold = shown["events"]
        assert exceeded == {
            "id": f"search:{YEAR}:exceeded:100:0.02",
            "type": "exceeded",
            "severity": "critical",
            "budget": "search",
            "period": f"{YEAR}",
            "threshold": 100,
            "limit": "0.02",
            "current": "0.024",
            "remaining": "0",
            "overage": "0.004",
            "advice": (
                "raise the limit, wait for the next period, or find what spent it: costspan budgets show 'search'"
            ),
            "at": exceeded["at"],
            "value": None,
            "reason": None,
            "acknowledged_by": None,
        }
        assert (threshold["threshold"], threshold["severity"]) == (80, "warning")

    @pytest.mark.parametrize(
        ("name", "account"), [("search", f"search:{YEAR}"), ("users", f"users:{YEAR}/ada")], ids=["whole", "one value"]
    )
    def test_counts_the_calls_under_way_and_those_that_never_ended(
        self, name: str, account: str, budgets: Budgets, store: Path
    ) -> None:
        kept = SQLiteStore(store)
        kept.reserve("under way", 1_000_000, [Claim(account)], 600)
        kept.reserve("died", 2_000_000, [Claim(account)], -1)
        shown = budgets("show", name, "--json").json
        assert (shown["under_way"], shown["never_settled"]) == (1, 1)
        lines = budgets("show", name).lines
        assert "1 call under way" in lines
        assert "1 call never said what they cost, charged at the estimate: $0.002000" in lines

    def test_of_a_month_has_its_day_too_by_either_name(self, budgets: Budgets, file: Path, store: Path) -> None:
        """Events name the day, and say to look here."""
        assert budgets("set", "all", "--limit", "30", "--daily-limit", "even").status == 0
        named = [budgets("show", name, "--json").json for name in ("all", "all (daily)")]
        assert named[0] == named[1]
        assert [state["name"] for state in named[0]["periods"]] == ["all", "all (daily)"]

    def test_of_a_window_counts_what_is_held_in_its_older_parts(
        self, budgets: Budgets, file: Path, store: Path
    ) -> None:
        assert budgets("set", "window", "--limit", "1", "--period", "24h").status == 0
        from costspan_processor.budgets.periods import window_at

        older = window_at("24h", time.time())[3]
        SQLiteStore(store).reserve("call", 1_000_000, [Claim(f"window:{older.id}")], 600)
        assert budgets("show", "window", "--json").json["under_way"] == 1


class TestEvents:
    def test_are_the_news_the_newest_first_and_what_to_do(self, budgets: Budgets, store: Path) -> None:
        done = budgets("events", "--json")
        assert done.status == 0
        ids = [event["id"] for event in done.json]
        assert sorted(ids) == sorted(
            f"{name}:{mark}"
            for name, marks in {
                f"search:{YEAR}": ("threshold:80:0.02", "exceeded:100:0.02"),
                f"users:{YEAR}:ada": ("threshold:50:0.01", "exceeded:100:0.01"),
                f"users:{YEAR}:bob": ("threshold:50:0.01",),
                f"users:{YEAR}:eve/x y": ("threshold:50:0.01",),
            }.items()
            for mark in marks
        )
        times = [event["at"] for event in done.json]
        assert times == sorted(times, reverse=True)
        lines = [line.partition(" UTC ")[2] or line for line in budgets("events").lines]
        assert "critical users of ada exceeded 100 %: $0.0120 of $0.0100" in lines
        assert set(ids) <= set(lines)

    def test_that_somebody_has_seen_to_are_hidden(self, budgets: Budgets, store: Path) -> None:
        exceeded = f"search:{YEAR}:exceeded:100:0.02"
        done = budgets("ack", exceeded, "--by", "ada")
        assert (done.status, done.out) == (0, "1 acknowledged by ada\n")
        assert exceeded not in {event["id"] for event in budgets("events", "--json").json}
        everything = {event["id"]: event["acknowledged_by"] for event in budgets("events", "--all", "--json").json}
        assert everything.pop(exceeded) == "ada"
        assert set(everything.values()) == {None}
        assert "(seen to by ada)" in budgets("events", "--all").out

    def test_can_all_be_seen_to_at_once(self, budgets: Budgets, store: Path) -> None:
        assert budgets("ack", "all", "--by", "ada").out == "6 acknowledged by ada\n"
        done = budgets("events")
        assert (done.status, done.out, done.error) == (0, "", "nothing new; 6 are acknowledged: --all shows them\n")
        assert budgets("ack", "all", "--by", "bob").out == "0 acknowledged by bob\n"

    def test_are_seen_to_by_the_user_of_the_machine(
        self, budgets: Budgets, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOGNAME", "grace")
        assert budgets("ack", "all").out == "6 acknowledged by grace\n"

    def test_there_may_be_none(self, budgets: Budgets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COSTSPAN_BUDGET_STORE", f"sqlite:///{tmp_path}/new.db")
        assert budgets("events") == (0, "", "nothing has happened\n")
        assert budgets("events", "--json").json == []


class TestChanges:
    def test_set_makes_a_budget_and_changes_it(self, budgets: Budgets, file: Path) -> None:
        done = budgets("set", "night", "--limit", "5", "--scope", "team=ops", "--scope", "model=gpt-4.1")
        assert done == (0, f"{file}: budget 'night' is set\n", "")
        more = ("--policy", "block", "--soft-limit", "4", "--daily-limit", "even", "--zone", "Europe/Berlin")
        assert budgets("set", "night", *more, "--normal-percent", "90", "--on-store-error", "deny").status == 0
        written = {one["name"]: one for one in tomllib.loads(file.read_text())["budgets"]}
        assert list(written) == ["everything", "search", "users", "night"]
        assert written["night"] == {
            "name": "night",
            "limit": "5",
            "scope": {"team": "ops", "model": "gpt-4.1"},
            "policy": "block",
            "soft_limit": "4",
            "daily_limit": "even",
            "zone": "Europe/Berlin",
            "normal_percent": 90,
            "on_store_error": "deny",
        }
        assert written["search"]["scope"] == {"team": "search"}, "the others are as they were"

    def test_set_makes_the_file(self, budgets: Budgets, file: Path) -> None:
        file.unlink()
        assert budgets("set", "all", "--limit", "5", "--period", "7d", "--per", "user").status == 0
        assert budgets("show", "all", "--json").json["budget"] == {
            "name": "all", "limit": "5", "period": "7d", "per": "user.id",
        }  # fmt: skip

    def test_remove_takes_it_out(self, budgets: Budgets, file: Path, store: Path) -> None:
        done = budgets("remove", "search")
        assert done == (0, f"{file}: budget 'search' is removed; what it has spent stays in the store\n", "")
        assert [one["name"] for one in budgets("list", "--json").json] == ["everything", "users"]


class TestErrors:
    """One line each, which says what and where; status 2 for bad input, 1 for a store that is away."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("show serch", "there is no budget 'serch'; did you mean 'search'?"),
            ("show xyz", "there is no budget 'xyz'; there are 'everything', 'search', 'users'"),
            ("remove serch", "there is no budget 'serch'"),
            ("set search", "say what to set, such as --limit 20"),
            ("set search --limit lots", "budgets[1] 'search': limit must be an amount in USD, not 'lots'"),
            ("set search --limit -1", "limit must be an amount in USD above 0, not '-1'"),
            ("set new --policy block", "budgets[3] 'new': limit is missing"),
            ("set search --policy stop", "policy must be"),
            ("set search --period fortnight", "period must be hour, day, week, month, year or a window"),
            ("set search --zone Mars/Base", "zone must be an IANA time zone"),
            ("set search --soft-limit 1", "soft_limit must be at most the limit of 0.02, not '1'"),
            ("set search --daily-limit even", "daily_limit must be left out, unless the period is 'month'"),
            ("set search --normal-percent 0", "normal_percent must be a whole percentage from 1 to 100, not 0"),
            ("set search --on-store-error wait", "on_store_error must be"),
            ("set search --scope team", "--scope is a name and a value, such as team=search, not 'team'"),
            ("ack nonsense --by me", "there is no event 'nonsense'; `costspan budgets events` lists them"),
        ],
    )
    def test_bad_values(self, arguments: str, said: str, budgets: Budgets, file: Path) -> None:
        done = budgets(*arguments.split())
        assert (done.status, done.out) == (2, "")
        (line,) = done.error.splitlines()
        assert line.startswith(f"costspan budgets {arguments.split(maxsplit=1)[0]}: ")
        assert said in line
        assert file.read_text() == FILE, "and nothing is written"

    @pytest.mark.parametrize("command", ["list", "show search", "events", "ack all", "set search --limit 1"])
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (b"[[budgets]\n", "costspan.toml: line 1, column "),
            (b"\xff\xfe", "must be UTF-8"),
            (b'[[budgets]]\nname = "a"\nlimit = 1\nlimitt = 2\n', "budgets[0] 'a': unknown field 'limitt'"),
        ],
        ids=["no TOML", "no text", "an unknown field"],
    )
    def test_a_broken_file(self, text: bytes, said: str, command: str, budgets: Budgets, file: Path) -> None:
        file.write_bytes(text)
        done = budgets(*command.split())
        assert (done.status, done.out) == (2, "")
        (line,) = done.error.splitlines()
        assert said in line
        assert file.read_bytes() == text

    def test_a_file_that_cannot_be_one(self, budgets: Budgets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COSTSPAN_CONFIG", str(tmp_path / "missing" / "costspan.toml"))
        for command in ("set all --limit 1", "remove all"):
            done = budgets(*command.split())
            assert done.status == 2
            assert "cannot be changed: No such file or directory" in done.error
            assert len(done.error.splitlines()) == 1

    def test_wrong_budgets_in_the_environment(self, budgets: Budgets, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COSTSPAN_BUDGETS", '[{"name": "x"}]')
        done = budgets("list")
        assert (done.status, done.error) == (2, "costspan budgets list: COSTSPAN_BUDGETS: [0] 'x': limit is missing\n")

    @pytest.mark.parametrize("command", ["list", "list --json", "show search", "events", "ack all --by me"])
    def test_a_store_that_is_away(self, command: str, budgets: Budgets, monkeypatch: pytest.MonkeyPatch) -> None:
        port = free_port()
        monkeypatch.setenv("COSTSPAN_BUDGET_STORE", f"redis://me:secret@127.0.0.1:{port}")
        done = budgets(*command.split())
        assert (done.status, done.out) == (1, "")
        (line,) = done.error.splitlines()
        assert f"127.0.0.1:{port}" in line
        assert "secret" not in line

    @pytest.mark.parametrize("command", ["list", "show search", "events", "ack all --by me"])
    def test_a_store_that_is_none(
        self, command: str, budgets: Budgets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "text.db").write_text("no database, but a text of some length")
        for url, status, said in (
            ("postgres://me:secret@there/db", 2, "no store of budgets is called 'postgres:': use memory:, sqlite:///"),
            (f"sqlite:///{tmp_path}/text.db", 1, "file is not a database: move the file away, or bring back a copy"),
            (f"sqlite:///{tmp_path}/missing/x.db", 1, "there is no such folder: make it"),
        ):
            monkeypatch.setenv("COSTSPAN_BUDGET_STORE", url)
            done = budgets(*command.split())
            assert (done.status, done.out) == (status, "")
            (line,) = done.error.splitlines()
            assert said in line
            assert "secret" not in line

    def test_a_user_without_a_name_is_asked_for_one(
        self, budgets: Budgets, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a container whose user is a number."""
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
        done = budgets("ack", "all")
        assert (done.status, done.error) == (2, "costspan budgets ack: say who has seen to it: --by NAME\n")


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("command", ["list", "show search", "show users", "events"])
def test_a_terminal_shows_every_amount_whole(
    command: str, width: int, file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FILE + '[[budgets]]\nname = "one whose name is rather long, for this or that reason"\nlimit = 1\n')
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    env = environment(COSTSPAN_CONFIG=str(file), COSTSPAN_BUDGET_STORE=f"sqlite:///{store}", TERM="xterm")
    env.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "costspan", "budgets", *command.split()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert process.wait(30) == 0, shown
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "$0.0200" in text or "$0.0100" in text
    if command == "list":
        assert ("━" in text) == (width == 160), "a narrow one has no room for bars"
