"""`costspan prices`: the commands as they are typed, with the book of the package and files of one's own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request

import pytest

from costspan import download
from costspan.book import price_book
from costspan.cli import main
from costspan.explain import of_lines
from costspan.price import Pricer, instant
from costspan.settings import load
from costspan_pricing import PriceBook
from costspan_pricing.check import LARGEST, SCHEMA

VECTORS = sorted((Path(__file__).parents[1] / "vectors").glob("*.jsonl"))
AT = "2026-11-23T05:00:00Z"

ACME: dict[str, Any] = {
    "aliases": ["acme.ai"],
    "fees": [{"rates": {"web_searches": "10"}}],
    "multipliers": [{"id": "zone", "geo": ["eu"], "factor": "1.1", "scope": "tokens", "models": ["acme-large"]}],
    "models": {
        "acme-large": {
            "names": ["acme-large-latest"],
            "versions_of": ["acme-large"],
            "released": "2026-01-15",
            "fallback": {"output_reasoning": "output"},
            "periods": [
                {"to": "2026-10-01", "rates": {"input": "3", "output": "12"}, "source": "https://acme.example/old"},
                {
                    "from": "2026-10-01",
                    "rates": {"input": "2.50", "cache_read": "0.25", "output": "10"},
                    "context_tiers": [{"over": 200000, "rates": {"input": "5", "cache_read": "0.5", "output": "15"}}],
                    "tiers": {"batch": {"rates": {"input": "1.25", "output": "5"}}},
                    "windows": [
                        {
                            "name": "night",
                            "tz": "Europe/Berlin",
                            "days": "mon-fri",
                            "spans": [["22:00", "06:00"]],
                            "rates": {"input": "1", "output": "4"},
                        }
                    ],
                    "source": "https://acme.example/pricing",
                    "checked": "2026-11-28",
                },
            ],
        },
        "acme-ears": {"periods": [{"rates": {"audio_seconds": {"usd": "0.006", "per": 60, "minimum": "10"}}}]},
        "acme-gift": {"periods": [{"free": True}]},
        "acme-gone": {
            "periods": [
                {"to": "2026-01-01", "rates": {"input": "1"}},
                {"from": "2026-01-01", "unpriced": "retired"},
            ]
        },
    },
}


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Costspan = Callable[..., Done]


@pytest.fixture
def costspan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Costspan:
    """`costspan prices ...`, through the console script's own function, for a user with nothing configured."""
    for name in [name for name in os.environ if name.startswith("COSTSPAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COSTSPAN_PRICE_FOLDER", str(tmp_path / "downloaded"))

    def run(*arguments: str | Path, given: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["costspan", "prices", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, error)

    return run


def written(folder: Path, document: dict[str, Any], name: str = "prices.json") -> Path:
    file = folder / name
    file.write_text(json.dumps({"schema_version": 1, **document}), encoding="utf-8")
    return file


@pytest.fixture
def acme(costspan: Costspan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Costspan:
    """The same, for a user who has Acme's prices in a file."""
    monkeypatch.setenv("COSTSPAN_PRICE_FILE", str(written(tmp_path, {"providers": {"acme": ACME}})))
    return costspan


# ------------------------------------------------------------------ list


def test_list_has_the_models_with_the_prices_of_an_instant(acme: Costspan) -> None:
    done = acme("list", "acme.ai", "--at", AT)
    assert done.status == 0
    heading, line, *models, note = done.out.splitlines()
    assert heading.split() == ["model", "input", "cache", "read", "output", "other", "prices", "since", "source"]
    assert set(line) == {"─"}
    assert [" ".join(model.split()) for model in models] == [
        "acme-ears — — — audio_seconds 0.006 / 60, web_searches 10 / 1,000 always",
        "acme-gift free free free web_searches 10 / 1,000 always",
        "acme-large 2.5 0.25 10 web_searches 10 / 1,000, night hours 2026-10-01 https://acme.example/pricing",
    ]
    assert note.startswith(f"3 models at {AT} · USD per million tokens · book ")
    past = acme("list", "acme", "--at", "2025-12-31", "--json").json
    assert {row["model"]: row["rates"].get("input") for row in past} == {
        "acme-ears": None,
        "acme-gift": None,
        "acme-gone": {"usd": "1", "per": 1_000_000},
        "acme-large": {"usd": "3", "per": 1_000_000},
    }


def test_list_can_be_asked_for_names_and_for_what_is_free(acme: Costspan) -> None:
    [large] = acme("list", "acme", "--match", "Large-Latest", "--json", "--at", AT).json
    assert large == {
        "provider": "acme",
        "model": "acme-large",
        "free": False,
        "rates": {
            "input": {"usd": "2.5", "per": 1_000_000},
            "cache_read": {"usd": "0.25", "per": 1_000_000},
            "output": {"usd": "10", "per": 1_000_000},
            "output_reasoning": {"usd": "10", "per": 1_000_000},
            "web_searches": {"usd": "10", "per": 1000},
        },
        "from": "2026-10-01T00:00:00Z",
        "to": None,
        "windows": ["night"],
        "layer": "user",
        "source": "https://acme.example/pricing",
    }
    assert [row["model"] for row in acme("list", "acme", "--free", "--json").json] == ["acme-gift"]
    free = {f"{row['provider']}/{row['model']}" for row in acme("list", "--free", "--json").json}
    assert {"acme/acme-gift", "ollama/*"} <= free


def test_list_of_all_has_every_provider_of_the_book(costspan: Costspan) -> None:
    rows = costspan("list", "--json").json
    book = PriceBook.bundled()
    assert {name for name in book.providers if book.models(name)} <= {row["provider"] for row in rows}
    assert len(rows) >= 2300
    assert all(row["rates"] or row["free"] for row in rows)


def test_a_provider_that_is_not_there_is_said_with_what_is_near(costspan: Costspan) -> None:
    done = costspan("list", "opneai")
    assert (done.status, done.out) == (1, "")
    assert done.error == "costspan prices list: the book knows no provider 'opneai'; did you mean 'openai'?\n"


# ------------------------------------------------------------------ show


def test_show_has_the_names_and_the_prices_over_time(acme: Costspan) -> None:
    out = acme("show", "acme.ai/ACME-large-20260905").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "acme/acme-large"
    assert "names acme-large-latest" in lines
    assert "versions of acme-large" in lines
    assert "released 2026-01-15" in lines
    assert "billed as output_reasoning as output" in lines
    assert "fees web_searches 10 / 1,000" in lines
    assert "factor zone: 1.1 x prices of tokens in eu" in lines
    newest, oldest = (
        lines.index("from 2026-10-01 on · user · checked 2026-11-28"),
        lines.index("until 2026-10-01 · user"),
    )
    assert lines[newest + 1] == "https://acme.example/pricing"
    assert lines[newest + 2] == "input / M cache read / M output / M"
    assert lines[newest + 4 : newest + 8] == [
        "standard 2.50 0.25 10",
        "over 200,000 tokens 5 0.5 15",
        "batch 1.25 5",
        "night: mon-fri 22:00–06:00 Europe/Berlin 1 4",
    ]
    assert newest < oldest


def test_show_at_an_instant_has_that_period_alone(acme: Costspan) -> None:
    [period] = acme("show", "acme/acme-large", "--at", "2026-09-30T23:59:59Z", "--json").json["periods"]
    assert period == {
        "from": None,
        "to": "2026-10-01T00:00:00Z",
        "rates": {"input": "3", "output": "12"},
        "source": "https://acme.example/old",
        "layer": "user",
    }


def test_show_tells_own_prices_gaps_and_free_models(acme: Costspan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_PRICES", '{"acme/acme-large": {"input": "2"}}')
    assert "own prices   input 2 / M (environment), whatever the date" in acme("show", "acme/acme-large").out
    assert "no price: retired" in acme("show", "acme/acme-gone").out
    assert "free: the provider charges nothing for such models" in acme("show", "ollama/whatever").out


def test_show_of_what_is_not_there(acme: Costspan) -> None:
    done = acme("show", "acme/acme-lagre")
    assert done.status == 1
    assert done.error.startswith(
        "costspan prices show: the book knows no model 'acme-lagre' of acme; did you mean 'acme-large'?"
    )
    assert acme("show", "acme-large").status == 2


# ------------------------------------------------------------------ diff


def changed_acme() -> dict[str, Any]:
    new = json.loads(json.dumps(ACME))
    del new["models"]["acme-gift"]
    new["models"]["acme-new"] = {"periods": [{"rates": {"input": "1"}}]}
    new["models"]["acme-large"]["periods"][1]["rates"] |= {"input": "2.500", "output": "8"}
    new["models"]["acme-large"]["periods"][1]["tiers"]["flex"] = {"rates": {"input": "1"}}
    new["models"]["acme-ears"]["periods"][0]["rates"]["audio_seconds"]["usd"] = "0.009"
    new["multipliers"][0]["factor"] = "1.2"
    new["fees"][0]["rates"]["web_searches"] = "8"
    return new  # type: ignore[no-any-return]


def test_diff_of_two_files_has_models_and_prices_by_time_tier_and_meter(costspan: Costspan, tmp_path: Path) -> None:
    old = written(tmp_path, {"providers": {"acme": ACME}}, "old.json")
    new = written(tmp_path, {"providers": {"acme": changed_acme()}}, "new.json")
    found = costspan("diff", old, new, "--json").json
    assert (found["added"], found["removed"]) == (["acme/acme-new"], ["acme/acme-gift"])
    autumn = {"provider": "acme", "model": "acme-large", "from": "2026-10-01T00:00:00Z", "to": None}
    assert [change for change in found["changed"] if change["model"] == "acme-large"] == [
        {**autumn, "for": "standard", "meter": "output", "old": "10", "new": "8", "percent": -20.0},
        {**autumn, "for": "flex", "meter": "input", "old": None, "new": "1", "percent": None},
    ]
    others = [(c["model"], c["for"], c["meter"], c["percent"]) for c in found["changed"] if c["model"] != "acme-large"]
    assert others == [
        (None, "standard", "web_searches", -20.0),
        (None, "factor", "zone", None),
        ("acme-ears", "standard", "audio_seconds", 50.0),
    ]
    out = [" ".join(line.split()) for line in costspan("diff", old, new).out.splitlines()]
    assert "added acme/acme-new" in out
    assert "acme/acme-large 2026-10-01 standard output 10 8 -20 %" in out
    assert out[-1] == "1 added, 1 removed, 5 prices changed"
    assert costspan("diff", old, old).out == "no difference\n"


def test_diff_with_the_bundled_book_shows_what_a_file_changes_in_it(costspan: Costspan, tmp_path: Path) -> None:
    half = {"from": "2026-01-01", "extends": True, "rates": {"input": "1"}}
    mine = {"openai": {"models": {"gpt-4.1": {"periods": [half]}}}, "acme": ACME}
    found = costspan("diff", "bundled", written(tmp_path, {"providers": mine}), "--json").json
    assert found["removed"] == []
    assert found["added"] == [f"acme/{model}" for model in sorted(ACME["models"])]
    [change] = [change for change in found["changed"] if change["provider"] == "openai"]
    assert (change["model"], change["from"], change["meter"]) == ("gpt-4.1", "2026-01-01T00:00:00Z", "input")
    assert (change["old"], change["new"], change["percent"]) == ("2", "1", -50.0)


def test_diff_of_a_file_that_is_bad(costspan: Costspan, tmp_path: Path) -> None:
    done = costspan("diff", "bundled", written(tmp_path, {"providers": {"acme": {"models": 3}}}))
    assert done.status == 2
    assert "acme, models: is a number, not an object" in done.error


# ------------------------------------------------------------------ check


def test_check_says_where_something_is_wrong(costspan: Costspan, tmp_path: Path) -> None:
    period = {"from": "2026-05-01", "rates": {"input": 2.5, "outptu": "1"}}
    bad = written(tmp_path, {"providers": {"openai": {"models": {"gpt-4.1": {"periods": [period]}}}}}, "bad.json")
    torn = tmp_path / "torn.json"
    torn.write_text('{"schema_version": 1,\n "providers": {')
    done = costspan("check", bad, torn, tmp_path / "none.json")
    assert done.out.splitlines() == [
        f'{bad}: openai/gpt-4.1, period from 2026-05-01, rates.input: is the number 2.5; a price is a string: "2.5"',
        f'{bad}: openai/gpt-4.1, period from 2026-05-01, rates.outptu: unknown meter; did you mean "output"?',
        f"{torn}: line 2, column 16: not JSON: Expecting property name enclosed in double quotes",
        f"{tmp_path}/none.json: cannot be read: No such file or directory. Name a file of prices in JSON",
    ]
    assert (done.status, done.error) == (1, "costspan prices check: 4 problems in 3 files\n")
    found = costspan("check", bad, "--json").json
    assert found["files"] == [str(bad)]
    assert found["problems"][1] == {
        "file": str(bad),
        "provider": "openai",
        "model": "gpt-4.1",
        "period": "2026-05-01",
        "field": "rates.outptu",
        "message": 'unknown meter; did you mean "output"?',
    }


def test_check_alone_looks_at_the_package_and_at_what_is_configured(
    acme: Costspan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = acme("check")
    assert (done.status, done.error) == (0, ""), done.out
    assert done.out.endswith("files: nothing is wrong\n")
    written(tmp_path, {"providers": {"acme": {"models": {"m": {"periods": []}}}}})
    monkeypatch.setenv("COSTSPAN_PRICES", "{")
    done = acme("check")
    assert done.status == 1
    own, environment = done.out.splitlines()
    assert own == f"{tmp_path}/prices.json: acme/m, periods: is empty: leave it out"
    assert environment.startswith("settings: COSTSPAN_PRICES is no JSON")


# ------------------------------------------------------------------ explain


def test_explain_says_how_a_usage_comes_to_its_price(acme: Costspan) -> None:
    usage = ("--input", "300000", "--cache-read", "100000", "--output", "1000", "--reasoning", "400", "--geo", "eu")
    done = acme("explain", "acme.ai", "acme-large-20260905", *usage, "--at", AT)
    assert done.status == 0
    assert [" ".join(line.split()) for line in done.out.splitlines()] == [
        "acme.ai acme-large-20260905",
        "at 2026-11-23T05:00:00Z",
        "model acme/acme-large (a listed name with a version behind it)",
        "prices from 2026-10-01 on",
        f"layer user, book {price_book(load({})).version}, checked 2026-11-28",
        "source https://acme.example/pricing",
        "prompt over 200,000 tokens: the prices of long prompts",
        "factor zone: 1.1 x prices of tokens in eu (it is in the rates below)",
        "meter quantity rate per USD",
        "─" * len(done.out.splitlines()[9]),
        "input 200,000 5.5 1,000,000 1.1",
        "cache_read 100,000 0.55 1,000,000 0.055",
        "output 600 16.5 1,000,000 0.0099",
        "output_reasoning 400 16.5 1,000,000 0.0066",
        "total 1.1715 USD, priced",
        "",
    ]


def explained(done: Done) -> tuple[dict[str, Any], dict[str, Any]]:
    """An explanation, and its only part."""
    explanation = done.json
    [part] = explanation["parts"]
    return explanation, part


def test_explain_names_the_window_the_tier_and_what_was_not_priced(acme: Costspan) -> None:
    night = acme("explain", "acme/acme-large", "--input", "1000", "--at", "2026-11-24T02:00:00Z", "--json")
    explanation, part = explained(night)
    assert (explanation["usd"], part["window"]) == ("0.001", "night: mon-fri 22:00–06:00 Europe/Berlin")
    _, part = explained(acme("explain", "acme/acme-large", "--input", "1000", "--tier", "batch", "--at", AT, "--json"))
    assert (part["tier"], part["served_tier"], part["lines"][0]["rate"]) == ("batch", "batch", "1.25")
    flex = acme("explain", "acme/acme-large", "--input", "1000", "--tier", "flex", "--use", "pages=3", "--at", AT)
    assert "tier    standard (asked: flex)" in flex.out
    assert "tier_unpriced: the book has no prices for that tier: standard ones stand in" in flex.out
    assert "unpriced:pages: pages has no price, and is not in the total" in flex.out
    ears, part = explained(acme("explain", "acme", "acme-ears", "--use", "audio_seconds=2.5", "--json"))
    assert (ears["usd"], part["lines"][0]["quantity"]) == ("0.001", 10)


def test_explain_says_why_there_is_no_figure(acme: Costspan) -> None:
    for arguments, why in [
        (("acme", "acme-lagre"), "the book knows no model 'acme-lagre' of acme; did you mean 'acme-large'?"),
        (("acmee", "acme-large"), "the book knows no provider 'acmee'; did you mean 'acme'?"),
        (("acme", "acme-gone"), "acme/acme-gone has no price at that time: retired"),
    ]:
        done = acme("explain", *arguments, "--input", "1")
        assert done.status == 1
        assert why in done.out
        assert "no figure: unknown_" in done.out


def test_explain_reads_lines_as_costspan_price_does(acme: Costspan, tmp_path: Path) -> None:
    line = {"id": 7, "provider": "acme", "model": "acme-large", "usage_format": "openai.chat", "at": AT}
    lines = [
        json.dumps({**line, "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}),
        "",
        json.dumps({**line, "usage": {"prompt_tokens": 1000, "cost": 0.5}}),
    ]
    done = acme("explain", "--json", given="\n".join(lines))
    first, second = map(json.loads, done.out.splitlines())
    assert (first["id"], first["usd"], first["parts"][0]["usd"]) == (7, "0.0075", "0.0075")
    assert (second["usd"], second["reported"], second["parts"][0]["usd"]) == ("0.5", "0.5", "0.0025")
    file = tmp_path / "usage.jsonl"
    file.write_text(f"{lines[0]}\n{{}}\n")
    done = acme("explain", file)
    assert "total 0.0075 USD, priced" in done.out
    assert done.status == 1
    assert done.error.startswith(f"costspan prices explain: {file}, line 2: usage_format is missing")


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_explain_gives_the_figure_of_costspan_price_and_its_lines_add_up(file: Path) -> None:
    book = PriceBook.bundled()
    pricer = Pricer(instant(AT), book)
    prices = [pricer.price(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    with file.open("rb") as source:
        explanations = list(of_lines(source, book, instant(AT)))
    assert len(explanations) == len(prices) > 3
    for price, explanation in zip(prices, explanations, strict=True):
        assert (explanation["usd"], explanation["status"]) == (price["usd"], price["status"])
        lines = [line for part in explanation["parts"] for line in part.get("lines", ())]
        assert lines == price["lines"]
        if price["source"] == "local" and price["usd"] is not None:
            assert sum(Decimal(line["usd"] or 0) for line in lines) == Decimal(price["usd"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("openai", "gpt-4.1"), "give a usage of openai/gpt-4.1, such as --input 1000"),
        (("openai", "--input", "1"), "name a provider and a model"),
        (("-", "--tier", "batch"), "a line of usage says its own tier"),
        (("openai/gpt-4.1", "--use", "web_serches=1"), "--use web_serches=1: unknown meter; did you mean 'web_sear"),
        (("openai/gpt-4.1", "--use", "pages"), "--use pages: write a meter and its quantity"),
        (("openai/gpt-4.1", "--use", "images=0.5"), "images must be a whole number"),
        (("openai/gpt-4.1", "--input", "1", "--at", "today"), "--at: 'today' is no instant"),
        (("openai/gpt-4.1", "--input", "-1"), "Invalid value for '--input'"),
        (("none.jsonl",), "none.jsonl cannot be read"),
    ],
)
def test_explain_of_what_makes_no_sense(costspan: Costspan, arguments: tuple[str, ...], problem: str) -> None:
    done = costspan("explain", *arguments)
    assert (done.status, done.out) == (2, "")
    assert problem in done.error
    assert done.error.count("\n") == 1


# ------------------------------------------------------------------ update


class Server(ThreadingHTTPServer):
    """Price books over HTTP: path -> headers and content, or the status of an error."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def serve(self, path: str, content: bytes = b"", status: int = 200, **headers: str) -> str:
        self.answers[path] = status, headers, content
        return self.url + path


class Handler(BaseHTTPRequestHandler):
    """Answers what the server was told to."""

    server: Server

    def do_GET(self) -> None:
        status, headers, content = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(content)
            while self.path == "/endless":
                self.wfile.write(b" " * 65536)
        except OSError:
            pass

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def book(version: str, usd: str = "1") -> bytes:
    periods = [{"rates": {"input": usd}, "source": "https://acme.example/pricing"}]
    providers = {"acme": [{"layer": "bundled", "models": {"acme-large": {"periods": periods}}}]}
    document = {"schema_version": 1, "book_version": version, "dated": "2026-11-28", "providers": providers}
    return json.dumps(document).encode()


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def test_update_takes_a_book_that_programs_then_use_and_keeps_the_one_before(
    costspan: Costspan, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "downloaded"
    first, second = book("2099.01.01"), book("2099.01.02", "2")
    done = costspan("update", "--from", server.serve("/1.json", first))
    assert (done.status, done.error) == (0, "")
    assert done.out == (
        f"book 2099.01.01: 1 model of 1 provider, now in {folder}/book.json\n"
        f"sha256 {hashlib.sha256(first).hexdigest()}\n"
    )
    done = costspan("update", "--from", server.serve("/2.json", second), "--json")
    assert done.json == {
        "outcome": "stored",
        "version": "2099.01.02",
        "before": "2099.01.01",
        "sha256": hashlib.sha256(second).hexdigest(),
        "size": len(second),
        "providers": 1,
        "models": 1,
        "path": f"{folder}/book.json",
    }
    assert files(folder) == {"book.json": second, "book.previous.json": first}
    assert stat.S_IMODE((folder / "book.json").stat().st_mode) == 0o644
    card = price_book(load({})).card("acme", "acme-large", instant(AT))
    assert card is not None
    assert (card.layer, card.book, str(card.rate("input"))) == ("downloaded", "2099.01.02", "2")


def test_update_takes_a_file_too_and_says_when_there_is_nothing_to_do(costspan: Costspan, tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    file.write_bytes(book("2099.01.01"))
    assert costspan("update", "--from", file).status == 0
    before = files(tmp_path / "downloaded")
    done = costspan("update", "--from", file)
    assert (done.status, "already" in done.out) == (0, True)
    assert files(tmp_path / "downloaded") == before


def test_update_with_check_only_changes_nothing(costspan: Costspan, server: Server, tmp_path: Path) -> None:
    done = costspan("update", "--from", server.serve("/1.json", book("2099.01.01")), "--check-only")
    assert (done.status, "good; nothing is changed" in done.out) == (0, True)
    assert files(tmp_path / "downloaded") == {}


NEWER = book("2099.01.02")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (book("2099.01.01"), "is the book 2099.01.01, older than 2099.01.02 in "),
        (book("2020.01.01"), "is the book 2020.01.01, older than "),
        (book("2099.01.02", "3"), "both call themselves 2099.01.02"),
        (book("2099.01.03", "-3"), 'acme/acme-large, period from the beginning, rates.input: is negative: "-3"'),
        (json.dumps({"schema_version": 1, "providers": {"acme": ACME}}).encode(), "has no book_version"),
        (book("2099.01.03").replace(b'"dated"', b'"comment"'), "has no dated"),
        (NEWER[:-20], "not JSON"),
        (b"<!doctype html>", "is a web page or XML: a file of prices is JSON. Is it the address of the raw file?"),
        (b"\0" * 100, "is binary"),
        (b"", "is empty"),
    ],
)
def test_a_book_that_is_older_or_bad_is_refused_and_the_last_one_stays(
    costspan: Costspan, server: Server, tmp_path: Path, content: bytes, problem: str
) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "book.json").write_bytes(NEWER)
    url = server.serve("/book.json", content)
    done = costspan("update", "--from", url)
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(f"costspan prices update: {url}")
    assert problem in done.error
    assert files(folder) == {"book.json": NEWER}


def test_an_older_book_than_that_of_the_package_is_refused(costspan: Costspan, server: Server, tmp_path: Path) -> None:
    done = costspan("update", "--from", server.serve("/old.json", book("2020.01.01")))
    bundled = PriceBook.bundled().version
    assert done.status == 1
    assert f"is the book 2020.01.01, older than {bundled} that came with the package" in done.error
    assert files(tmp_path / "downloaded") == {}


def test_a_book_that_cannot_be_used_is_replaced_and_not_kept(
    costspan: Costspan, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "book.json").write_bytes(b"torn")
    (folder / "book.previous.json").write_bytes(NEWER)
    assert costspan("update", "--from", server.serve("/1.json", book("2099.01.03"))).status == 0
    assert files(folder) == {"book.json": book("2099.01.03"), "book.previous.json": NEWER}


def test_a_pinned_hash_must_be_met(costspan: Costspan, server: Server, tmp_path: Path) -> None:
    content = book("2099.01.01")
    url = server.serve("/1.json", content)
    done = costspan("update", "--from", url, "--sha256", "0" * 64)
    assert done.status == 1
    assert f"has the sha256 {hashlib.sha256(content).hexdigest()}, not 000" in done.error
    assert files(tmp_path / "downloaded") == {}
    assert costspan("update", "--from", url, "--sha256", "abc").status == 2
    assert costspan("update", "--from", url, "--sha256", hashlib.sha256(content).hexdigest().upper()).status == 0


def test_a_download_has_a_bound(costspan: Costspan, server: Server) -> None:
    for url in (
        server.serve("/told", Content_Length=str(LARGEST + 1)),
        server.serve("/endless"),
    ):
        done = costspan("update", "--from", url)
        assert (done.status, f"{url} has more than 20 MB" in done.error) == (1, True)


def test_a_download_that_breaks_off_is_not_taken(costspan: Costspan, server: Server, tmp_path: Path) -> None:
    content = book("2099.01.01")
    done = costspan("update", "--from", server.serve("/1.json", content, Content_Length=str(len(content) + 1)))
    assert (done.status, "broke off after" in done.error) == (1, True)
    assert files(tmp_path / "downloaded") == {}


def test_a_server_that_is_silent_is_given_up(
    costspan: Costspan, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SILENCE", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda _self: threading.Event().wait(2))
    done = costspan("update", "--from", f"{server.url}/1.json")
    assert done.status == 1
    assert "sent nothing for" in done.error
    assert done.error.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("http://example.com/book.json", "is not read: give a file, an https:// address, or an http:// one of this"),
        ("ftp://127.0.0.1/book.json", "is not read"),
        ("file:///etc/passwd", "is not read"),
        ("https:///book.json", "is not read"),
        ("http://[::1/book.json", "is no address"),
        ("http://127.0.0.1:1/book.json", "cannot be reached: Connection refused"),
        ("http://127.0.0.1:port/book.json", "cannot be read"),
        ("{server}/missing.json", "answered 404 Not Found"),
        ("{server}/away", "http://example.com/book.json is not read"),
        ("{server}/inside", "leads on in a circle, or to where nothing is read from"),
        ("{server}/loop", "leads on in a circle"),
        ("none.json", "none.json cannot be read: No such file or directory"),
    ],
)
def test_a_source_that_is_not_read(costspan: Costspan, server: Server, source: str, problem: str) -> None:
    server.serve("/away", status=302, Location="http://example.com/book.json")
    server.serve("/inside", status=302, Location="file:///etc/passwd")
    server.serve("/loop", status=302, Location="/loop")
    done = costspan("update", "--from", source.format(server=server.url))
    assert (done.status, done.out) == (1, "")
    assert problem in done.error
    assert done.error.count("\n") == 1


def test_a_redirect_on_the_same_footing_is_followed(costspan: Costspan, server: Server) -> None:
    server.serve("/new.json", book("2099.01.01"))
    assert costspan("update", "--from", server.serve("/latest", status=302, Location="/new.json")).status == 0


def test_the_network_does_not_lead_onto_this_machine() -> None:
    follow = download._Redirects().redirect_request
    request = Request("https://example.com/book.json")
    with pytest.raises(download.UpdateError, match=r"leads to http://127\.0\.0\.1/x, on this machine"):
        follow(request, None, 302, "Found", {}, "http://127.0.0.1/x")
    assert follow(request, None, 302, "Found", {}, "https://example.org/x") is not None


def test_a_place_that_cannot_be_written(
    costspan: Costspan, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSTSPAN_PRICE_FOLDER", str(tmp_path / "file" / "prices"))
    done = costspan("update", "--from", server.serve("/1.json", book("2099.01.01")))
    assert (done.status, "cannot be written: Not a directory" in done.error) == (1, True)


def test_dying_half_way_leaves_the_last_book_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "book.json").write_bytes(NEWER)
    (tmp_path / "new.json").write_bytes(book("2099.01.03"))
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(download.UpdateError, match="No space left on device"):
        download.update(str(tmp_path / "new.json"), tmp_path, "2026.01.01")
    assert set(files(tmp_path)) == {"book.json", "new.json"}
    assert (tmp_path / "book.json").read_bytes() == NEWER


def test_progress_tells_how_much_has_come(server: Server) -> None:
    content = book("2099.01.01").ljust(300_000)
    told: list[tuple[int, int | None]] = []
    url = server.serve("/1.json", content, Content_Length=str(len(content)))
    assert download.fetch(url, lambda done, of: told.append((done, of))) == content
    assert told[-1] == (300_000, 300_000)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 2


# ------------------------------------------------------------------ the documentation

EXAMPLE = re.compile(r"<!-- prices -->\n```sh\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


def test_the_examples_of_the_guide_show_what_is_printed(
    costspan: Costspan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {"from": "2026-05-01", "rates": {"input": 1.8, "outptu": "7.20"}}
    tiers = {"batch": {"rates": {"input": "0.9"}}}
    contract = {"from": "2026-05-01", "extends": True, "rates": {"input": "1.8"}, "tiers": tiers}
    for name, period in (("prices.json", wrong), ("contract.json", contract)):
        written(tmp_path, {"providers": {"openai": {"models": {"gpt-4.1": {"periods": [period]}}}}}, name)
    guide = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    examples = EXAMPLE.findall(guide)
    assert len(examples) == 3
    for command, shown in examples:
        name, group, *arguments = shlex.split(command)
        assert (name, group) == ("costspan", "prices")
        # The version is that of the day on which the guide was written.
        book = re.sub(r"book \d{4}\.\d\d\.\d\d", f"book {PriceBook.bundled().version}", shown)
        assert costspan(*arguments).out.strip() == book.strip()


# ------------------------------------------------------------------ all of them


def test_schema_prints_the_schema(costspan: Costspan) -> None:
    assert costspan("schema").out == SCHEMA.read_text(encoding="utf-8")


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "costspan", "prices", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_configured_file_that_is_bad_is_said_in_one_line(
    costspan: Costspan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COSTSPAN_PRICE_FILE", str(written(tmp_path, {"providers": {"acme": {"modles": {}}}})))
    done = costspan("list")
    assert (done.status, done.out) == (2, "")
    assert 'acme, modles: unknown key; did you mean "models"?' in done.error
    assert done.error.count("\n") == 1
