"""`costspan doctor`: what it says of an environment and of a program, and a remedy for every fault."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import costspan
from costspan import startup
from costspan.doctor import others, prices, sdks, telemetry
from costspan.doctor import program as program_module
from costspan_processor import compat
from tests.door.program import environment

DOCTOR = """
import sys
from costspan import startup
kept = sys.argv.pop(1).split(",")
for name in set(startup.PROVIDERS) - set(kept):
    del startup.PROVIDERS[name]
from costspan.cli import main
main()
"""
"""The command, for the providers alone that its first argument names: importing every SDK takes its time."""


class Done(NamedTuple):
    """How a doctor ended."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def problem(self, level: str, about: str, what: str) -> str:
        """The remedy of the one problem that says ``what``, a pattern."""
        found = [p for p in self.report["problems"] if (p["level"], p["about"]) == (level, about)]
        fitting = [p for p in found if re.search(what, p["what"])]
        assert len(fitting) == 1, (what, found)
        assert fitting[0]["why"]
        return str(fitting[0]["remedy"])


def doctor(*arguments: str, only: str = "", path: Path | None = None, **variables: str) -> Done:
    """The doctor in a process of its own. `path` stands first among the places that it imports from."""
    env = environment(COLUMNS="80", **variables)
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(path), env["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", DOCTOR, only, "doctor", *arguments],
        capture_output=True, text=True, env=env, check=False, timeout=110,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def nobody() -> str:
    """An address of this machine at which nobody listens."""
    with closing(socket.socket()) as there:
        there.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{there.getsockname()[1]}"


@pytest.fixture
def somebody() -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as there:
        yield f"127.0.0.1:{there.getsockname()[1]}"


def package(
    folder: Path, name: str, version: str, code: str = "", *, metadata: str = "", entry_points: str = ""
) -> None:
    """An installed distribution of a package that is one file."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(textwrap.dedent(code), encoding="utf-8")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}", "utf-8")
    (info / "entry_points.txt").write_text(entry_points, "utf-8")


# ------------------------------------------------------------------ the whole


@pytest.mark.timeout(300)
def test_the_command_as_users_call_it_fits_a_terminal_and_finds_nothing_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "costspan", "doctor"],
        capture_output=True, text=True, env=environment(COLUMNS="80"), check=False, timeout=290,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for title in ("Provider SDKs", "Other instrumentation", "OpenTelemetry", "Where it goes", "Prices", "Settings"):
        assert title in lines
    assert re.search(r"^ ✓ openai \S+ +\d+ methods patched", done.stdout, re.MULTILINE)


def test_nothing_is_wrong_without_any_sdk_and_without_any_variable() -> None:
    done = doctor("--json")
    report = done.report
    assert (done.status, report["status"], report["problems"], report["sdks"]) == (0, "fine", [], [])
    assert report["spans"] == report["metrics"] == {"origin": None, "exporters": []}
    assert report["opentelemetry"]["ending_spans"] == compat.way()
    assert {setting["origin"] for setting in report["settings"]} == {"default"}
    assert report["prices"]["layers"] == [{"layer": "bundled", "origin": "the package", "error": None}]
    assert report["program"] is None


def test_colours_are_for_terminals_alone() -> None:
    assert "\x1b[" not in doctor(OTEL_TRACES_EXPORTER="acme").out
    assert "\x1b[1;31mfault" in doctor(OTEL_TRACES_EXPORTER="acme", FORCE_COLOR="1").out


def test_whoever_reads_may_leave() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", DOCTOR, "", "doctor"],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False, timeout=110,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")


def test_a_section_that_fails_is_a_fault_and_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from costspan.doctor import report

    monkeypatch.setattr(startup, "PROVIDERS", {})

    def broken(_: Mapping[str, str]) -> Any:
        raise RuntimeError("no eyes")

    monkeypatch.setattr(prices, "look_at_prices", broken)
    found = report.examine()
    assert found.status == "faults"
    assert found.facts["settings"]
    assert [(p.about, "RuntimeError: no eyes" in p.what) for p in found.problems if p.level == "fault"] == [
        ("prices", True)
    ]


# ------------------------------------------------------------------ SDKs


def test_an_sdk_that_is_not_installed_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(startup.PROVIDERS["costspan-openai"], requires="nonsuch-sdk>=1")
    monkeypatch.setattr(startup, "PROVIDERS", {"costspan-openai": absent})
    facts, problems = sdks.look({})
    assert [(fact["package"], fact["version"], fact["tested"]) for fact in facts] == [("nonsuch-sdk", None, None)]
    assert problems == []


def test_what_the_installed_sdk_has_is_patched() -> None:
    done = doctor("--json", only="costspan-openai,costspan-anthropic")
    sdk, other = done.report["sdks"]
    assert (done.status, sdk["tested"], sdk["errors"]) == (0, True, [])
    # The newest anthropic makes spans of its own, which would count each call twice.
    assert (sdk["own_spans"], other["own_spans"]) == (False, int(other["version"].partition(".")[0]) >= 2)
    (create,) = [call for call in sdk["calls"] if call["name"] == "chat.completions.create"]
    assert create == {
        "name": "chat.completions.create",
        "operation": "chat",
        "sync": True,
        "async": True,
        "raw": True,
        "stream": True,
        "unpatched": [],
        "lacking": None,
    }


def test_an_old_version_is_told_from_a_tested_one_and_says_what_it_lacks(tmp_path: Path) -> None:
    package(tmp_path, "voyageai", "0.1", "print('an SDK may print what it likes')")
    (tmp_path / "voyageai" / "client.py").write_text("class Client:\n    def embed(self): ...\n")
    done = doctor("--json", only="costspan-voyage", path=tmp_path)
    assert done.status == 0
    assert done.problem("warning", "sdks", r"^voyageai 0\.1 is not among") == "pip install 'voyageai>=0.2.4'"
    calls = {call["name"]: call for call in done.report["sdks"][0]["calls"]}
    assert calls["Client.embed"]["sync"]
    assert calls["Client.rerank"]["lacking"] == "voyageai.client has no Client.rerank"
    assert calls["Embedding.create"]["lacking"] == "it has no voyageai.api_resources.embedding"
    assert "this version lacks Client.contextualized_embed, Client.multimodal_embed, Client.rerank," in " ".join(
        doctor(only="costspan-voyage", path=tmp_path).out.split()
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('licence expired')", "RuntimeError: licence expired"),
        ("import nonsuch_dependency", "No module named 'nonsuch_dependency'"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("import os; os._exit(3)", r"ended Python \(status 3\)"),
    ],
)
def test_an_sdk_that_cannot_be_imported_is_a_fault_and_hides_no_other(tmp_path: Path, code: str, said: str) -> None:
    package(tmp_path, "voyageai", "0.5", code)
    done = doctor("--json", only="costspan-voyage,costspan-ollama", path=tmp_path)
    assert done.status == 1
    assert "pip install --force-reinstall voyageai" in done.problem("fault", "sdks", said)
    assert {sdk["package"]: bool(sdks.patched(sdk["calls"])) for sdk in done.report["sdks"]} == {
        "voyageai": False,
        "ollama": True,
    }


def test_an_sdk_that_never_comes_back_from_its_import_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "voyageai", "0.5", "import time; time.sleep(100)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sdks, "_SECONDS", 5)
    began = time.monotonic()
    (answer,) = sdks._probed(["costspan-voyage"])
    assert answer["errors"] == ["its import did not come to an end"]
    assert time.monotonic() - began < 60


def test_an_sdk_of_which_nothing_is_known_is_a_fault(tmp_path: Path) -> None:
    package(tmp_path, "voyageai", "9.0")
    done = doctor("--json", only="costspan-voyage", path=tmp_path)
    assert done.status == 1
    assert "costspan.record()" in done.problem("fault", "sdks", r"^voyageai 9\.0 has none of the methods")


def test_instrumentors_that_are_left_out_or_misspelt() -> None:
    names = "costspan-ollama, costspan-oppenai"
    done = doctor("--json", only="costspan-ollama", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=names)
    assert done.status == 0
    assert "take costspan-ollama" in done.problem("warning", "sdks", "^ollama is left out")
    assert "The names are costspan-ollama" in done.problem("warning", "sdks", "'costspan-oppenai', which is no")


# ------------------------------------------------------------------ other instrumentation


def rival(folder: Path, name: str, module: str, *, author: str = "", of: str = "ollama") -> None:
    package(
        folder,
        name,
        "1.2",
        metadata=f"Author-email: {author}\nProvides-Extra: instruments\nRequires-Dist: {of}; extra == 'instruments'\n",
        entry_points=f"[opentelemetry_instrumentor]\n{of.partition('<')[0]} = {module}:Instrumentor\n",
    )


def test_two_who_see_the_same_calls(tmp_path: Path) -> None:
    rival(tmp_path, "their_ollama", "opentelemetry.instrumentation.ollama", author="someone@traceloop.com")
    rival(tmp_path, "their_flask", "opentelemetry.instrumentation.flask", of="flask")
    done = doctor("--json", only="costspan-ollama", path=tmp_path)
    (found,) = [fact for fact in done.report["instrumentations"] if fact["instrumentor"]]
    assert (found["package"], found["maker"], found["of"]) == ("their_ollama", "OpenLLMetry", ["ollama"])
    assert (found["framework"], found["spans"]) == (False, "priced")
    remedy = done.problem("warning", "instrumentations", "^ollama is instrumented by costspan and by their_ollama$")
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=ollama or =costspan-ollama" in remedy
    # Where a program was looked into, it says who counts.
    seen = program(tmp_path, "import costspan; costspan.init()", only="costspan-ollama", path=tmp_path)
    assert seen.report["problems"] == []
    off = doctor("--json", only="costspan-ollama", path=tmp_path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="ollama")
    assert not [p for p in off.report["problems"] if p["about"] == "instrumentations"]


def test_one_that_wants_another_version_instruments_nothing(tmp_path: Path) -> None:
    rival(tmp_path, "their_ollama", "acme.ollama", of="ollama<0.1")
    done = doctor("--json", only="costspan-ollama", path=tmp_path)
    (found,) = [fact for fact in done.report["instrumentations"] if fact["instrumentor"]]
    assert found["active"].startswith("instruments nothing: it wants ollama<0.1")
    assert done.report["status"] == "fine"


def test_calls_that_only_spans_nobody_reads_stand_for_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival(tmp_path, "their_ollama", "acme.ollama")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(others, "_spans", lambda maker, scope: "not read")
    sdk = {"package": "ollama", "instrumentor": "costspan-ollama", "switched_off": True}
    _, problems = others.look({}, [sdk])
    (problem,) = problems
    assert (problem.level, problem.what) == (
        "fault",
        "calls of ollama are seen by their_ollama alone, whose spans costspan cannot read",
    )


def test_whether_spans_are_read_is_tried() -> None:
    assert others._read("opentelemetry.instrumentation.openai.v1", tuple(others._CONVENTIONS.items()))
    assert not others._read("acme", (("gen_ai.operation.name", "chat"), ("acme.tokens", 5)))


# ------------------------------------------------------------------ OpenTelemetry, and where it goes


def test_what_variables_make_of_opentelemetry(tmp_path: Path) -> None:
    rival(tmp_path, "their_ollama", "acme.ollama")
    done = doctor(
        "--json",
        only="costspan-ollama",
        path=tmp_path,
        OTEL_SDK_DISABLED="true",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.1",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="12",
        OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"),
    )
    assert done.status == 1
    # What the doctor tries for itself does not depend on them.
    assert done.report["opentelemetry"]["ending_spans"] == compat.way()
    assert done.report["instrumentations"][0]["spans"] == "priced"
    assert "unset OTEL_SDK_DISABLED" in done.problem("warning", "opentelemetry", "^OTEL_SDK_DISABLED=true")
    assert "sample in the collector" in done.problem("warning", "opentelemetry", "TRACES_SAMPLER=.* drops spans")
    assert "default is 128" in done.problem("warning", "opentelemetry", "COUNT_LIMIT=12 leaves little room")
    assert "opentelemetry-configuration" in done.problem("fault", "opentelemetry", "^OTEL_CONFIG_FILE is set")


def test_a_sampler_is_no_matter_where_costspan_alone_sees_the_calls() -> None:
    assert doctor("--json", OTEL_TRACES_SAMPLER="always_off").report["opentelemetry"]["sampler_drops"]
    assert telemetry.look({"OTEL_TRACES_SAMPLER": "always_off"}, others=False)[1] == []
    assert len(telemetry.look({"OTEL_TRACES_SAMPLER": "always_off"}, others=True)[1]) == 1


def test_an_opentelemetry_that_is_too_old_or_lets_nobody_price_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "requires", lambda _: ["opentelemetry-sdk>=99", "nonsuch; os_name == 'zx'"])
    monkeypatch.setattr(compat, "way", lambda: "exporter")
    problems = telemetry.look({}, others=False)[1]
    assert [(p.level, p.remedy) for p in problems if "needs opentelemetry-sdk>=99" in p.what] == [
        ("fault", "pip install 'opentelemetry-sdk>=99'")
    ]
    assert [p.level for p in problems if "EnrichingExporter" in p.remedy] == ["fault"]
    assert len(problems) == 2


def test_a_configuration_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda _: object())
    variables = {"OTEL_CONFIG_FILE": str(tmp_path / "otel.yaml"), "OTEL_TRACES_EXPORTER": "console"}
    (problem,) = telemetry.look(variables, others=False)[1]
    assert problem.remedy == "Name a file that exists, or unset it."
    assert telemetry.send(variables)[0]["spans"]["origin"] == "OTEL_TRACES_EXPORTER"
    (tmp_path / "otel.yaml").touch()
    assert telemetry.look(variables, others=False)[1] == []
    assert telemetry.send(variables)[0]["spans"] == {"origin": "OTEL_CONFIG_FILE", "exporters": []}


def test_an_endpoint_where_somebody_listens(somebody: str) -> None:
    done = doctor("--json", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{somebody}")
    assert (done.status, done.report["problems"]) == (0, [])
    (exporter,) = done.report["spans"]["exporters"]
    assert (exporter["name"], exporter["protocol"], exporter["reachable"]) == ("otlp", "grpc", True)
    assert done.report["metrics"]["origin"] == "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_an_endpoint_where_nobody_listens_is_one_fault(nobody: str) -> None:
    done = doctor("--json", OTEL_EXPORTER_OTLP_ENDPOINT=nobody)
    assert done.status == 1
    assert "Start the collector" in done.problem("fault", "spans", f"at {nobody}, where spans and metrics are sent")
    assert len(done.report["problems"]) == 1
    assert "nobody answers" in doctor(OTEL_EXPORTER_OTLP_ENDPOINT=nobody).out


def test_exporters_that_are_not_there() -> None:
    done = doctor("--json", OTEL_TRACES_EXPORTER="consol", OTEL_METRICS_EXPORTER="none, acme")
    assert done.status == 1
    assert "OTEL_TRACES_EXPORTER to otlp" in done.problem("fault", "spans", "'consol', .*did you mean 'console'")
    assert "Install the exporter" in done.problem("fault", "metrics", "OTEL_METRICS_EXPORTER names 'acme'")
    assert [exporter["name"] for exporter in done.report["metrics"]["exporters"]] == ["acme"]


def test_the_extra_of_an_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "entry_points", lambda **_: [])
    (problem,) = telemetry.send({"OTEL_METRICS_EXPORTER": "prometheus"})[1]
    assert problem.remedy == "pip install 'costspan[prometheus]'"


def test_spans_without_metrics() -> None:
    done = doctor("--json", OTEL_TRACES_EXPORTER="console")
    assert done.status == 0
    assert "OTEL_METRICS_EXPORTER" in done.problem("warning", "metrics", "spans leave the process, and metrics do not")
    assert doctor("--json", OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="none").report["problems"] == []


@pytest.mark.parametrize(
    ("exporter", "attributes", "warned"),
    [
        ("otlp", "team=a, service.instance.id=pod-1", True),
        ("otlp", "service.instance.id=,service.name=a", False),
        ("prometheus", "service.instance.id=pod-1", False),
        ("console", "service.instance.id=pod-1", False),
    ],
)
def test_processes_that_push_under_one_id(exporter: str, attributes: str, warned: bool) -> None:
    found = telemetry.send({"OTEL_METRICS_EXPORTER": exporter, "OTEL_RESOURCE_ATTRIBUTES": attributes})[1]
    said = [problem for problem in found if problem.what.startswith("service.instance.id is pod-1")]
    assert [problem.level for problem in said] == (["warning"] if warned else [])


@pytest.mark.parametrize(
    ("variables", "level", "what", "remedy"),
    [
        ({"_ENDPOINT": "localhost:1"}, "fault", "http:// is missing", "Set OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:1"),
        ({"_ENDPOINT": "http://:x"}, "fault", "no host and port", "http://HOST:PORT"),
        ({"_ENDPOINT": "http://localhost:4317"}, "warning", "by custom the port of grpc", "grpc, or use port 4318"),
        ({"_ENDPOINT": "http://localhost:1", "_PROTOCOL": "http/json"}, "warning", "'http/json'", "http/protobuf"),
        ({"_TRACES_ENDPOINT": "http://localhost:1"}, "warning", "has no path", "=http://localhost:1/v1/traces"),
    ],
)  # fmt: skip
def test_endpoints_that_are_written_wrongly(variables: dict[str, str], level: str, what: str, remedy: str) -> None:
    environ = {"_PROTOCOL": "http/protobuf", **variables, "OTEL_METRICS_EXPORTER": "none"}
    named = {f"OTEL_EXPORTER_OTLP{name}" if name.startswith("_") else name: text for name, text in environ.items()}
    found = [p for p in telemetry.send(named)[1] if what in p.what]
    assert [(p.level, p.about) for p in found] == [(level, "spans")]
    assert remedy in found[0].remedy


def test_behind_a_proxy_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{nobody}", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    facts, problems = telemetry.send(variables)
    assert (facts["spans"]["exporters"][0]["reachable"], problems) == (None, [])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert telemetry.send(variables)[0]["spans"]["exporters"][0]["reachable"] is False


# ------------------------------------------------------------------ prices and settings


def test_layers_of_prices_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text("{}")
    good = json.dumps({"openai/mine": {"input": "1", "output": "2"}})
    done = doctor(
        "--json",
        COSTSPAN_PRICE_FOLDER=str(tmp_path),
        COSTSPAN_PRICE_FILE=str(tmp_path / "none.json"),
        COSTSPAN_PRICES=good,
        COSTSPAN_MODEL_NAMES="azure/a=gpt-4.1,azure/b=nonsuch",
    )
    assert done.status == 1
    layers = {layer["layer"]: layer["error"] is None for layer in done.report["prices"]["layers"]}
    assert layers == {"bundled": True, "downloaded": False, "file": False, "environment": True, "names": False}
    assert "costspan prices update" in done.problem("fault", "prices", r"book\.json")
    assert "costspan prices check" in done.problem("fault", "prices", r"none\.json cannot be read")
    assert "COSTSPAN_MODEL_NAMES" in done.problem("fault", "prices", "'azure/b'")


def test_prices_in_a_variable_that_are_none() -> None:
    done = doctor("--json", COSTSPAN_PRICES="{openai")
    assert done.problem("fault", "prices", "COSTSPAN_PRICES is no JSON") == "Correct COSTSPAN_PRICES, or unset it."


def test_an_old_book() -> None:
    facts, problems = prices.look_at_prices({})
    assert problems == []
    later = time.time() + (46 - facts["age_days"]) * 86_400
    facts, (problem,) = prices.look_at_prices({}, later)
    assert (facts["age_days"], problem.level) == (46, "warning")
    assert "costspan prices update" in problem.remedy


def test_settings_have_their_origin_and_nonsense_is_named() -> None:
    done = doctor(
        "--json",
        COSTSPAN_MAX_LABEL_VALUES="50",
        COSTSPAN_STREAM_USAGE="maybe",
        COSTSPAN_GENAI_METRICS="latest",
        COSTSPAN_ENABLED="off",
        COSTSPAN_DIMENSIONS="team,costspan.tag.tenant",
        COSTSPAN_PRICE_FIEL="x",
    )
    assert done.status == 1
    settings = {setting["setting"]: (setting["value"], setting["origin"]) for setting in done.report["settings"]}
    assert settings["max_label_values"] == (50, "environment")
    assert settings["stream_usage"] == (True, "default")
    assert settings["dimensions"] == (["team", "costspan.tag.tenant"], "environment")
    assert "true or false" in done.problem("fault", "settings", "^COSTSPAN_STREAM_USAGE=maybe is not")
    assert "current or next or off" in done.problem("fault", "settings", "GENAI_METRICS=latest is not")
    assert "unset COSTSPAN_ENABLED" in done.problem("warning", "settings", "switches costspan off")
    assert "costspan.team" in done.problem("warning", "settings", "'team', which no call is booked on")
    assert "Correct its name" in done.problem("warning", "settings", "PRICE_FIEL; did you mean 'COSTSPAN_PRICE_FILE'")
    assert len(done.report["problems"]) == 5
    assert done.err == ""


# ------------------------------------------------------------------ a program


GPT = '{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4.1", '
GPT += '"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 500}'
RECORD = "costspan.record('openai', 'gpt-4.1', {'prompt_tokens': 1000, 'completion_tokens': 500}, 'openai.chat')\n"


def program(folder: Path, code: str, *command: str, **options: Any) -> Done:
    """The doctor of a program, which does not look at SDKs beside it."""
    (folder / "app.py").write_text(textwrap.dedent(code), encoding="utf-8")
    before = command or (sys.executable,)
    return doctor("--json", "--", *before, str(folder / "app.py"), **options)


def process_of(done: Done) -> dict[str, Any]:
    (process,) = done.report["program"]["processes"]
    found: dict[str, Any] = process
    return found


def test_a_program_in_which_all_is_well(tmp_path: Path) -> None:
    code = f"""
    import sys
    import costspan
    costspan.init(budgets=[costspan.Budget("all", limit=3, scope={{"team": "a"}}, policy="block")])
    import ollama
    {RECORD}
    print("its output")
    sys.exit(4)
    """
    done = program(tmp_path, code, OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="none")
    assert (done.status, done.report["status"], done.report["program"]["exit_status"]) == (0, "fine", 4)
    assert "its output" in done.err, "standard output is the report's"
    process = process_of(done)
    assert process["started"]["where"] == "at app.py:4"
    assert process["started"]["spans"]["exporters"] == ["ConsoleSpanExporter"]
    assert process["started"]["budgets"] == [
        {"name": "all", "limit": "3", "period": "month", "policy": "block", "scope": {"costspan.team": "a"}}
    ]
    assert [(sdk["package"], sdk["patched"], sdk["unpatched"]) for sdk in process["sdks"]] == [("ollama", 4, [])]
    assert process["summary"]["total"]["cost"] == "0.006"
    assert process["scopes"] == {"costspan": {"spans": 1, "priced": 1, "rollups": 0}}


def test_the_output_of_a_program_is_its_own_where_people_read_the_report(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("print('its output'); import costspan; costspan.init()")
    done = doctor("--", sys.executable, str(tmp_path / "app.py"))
    assert done.out.startswith("its output\ncostspan ")
    assert "costspan           started at app.py:1" in done.out
    assert done.err == ""


def test_a_program_that_never_starts_costspan(tmp_path: Path) -> None:
    done = program(tmp_path, "import ollama")
    assert done.status == 1
    assert "Call costspan.init() at its start" in done.problem("fault", "program", "never started costspan")
    assert process_of(done)["sdks"][0]["unpatched"]


def test_one_that_costspan_run_or_opentelemetry_starts(tmp_path: Path) -> None:
    done = program(tmp_path, "import ollama", sys.executable, "-m", "costspan", "run", "--", sys.executable)
    assert (done.status, process_of(done)["started"]["where"]) == (0, "by costspan run")
    tool = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    if not Path(tool).exists():
        pytest.skip("opentelemetry-instrument is not beside this Python")
    done = program(tmp_path, "import ollama", tool, sys.executable)
    assert (done.status, process_of(done)["started"]["where"]) == (0, "before the program's first line")
    assert process_of(done)["sdks"][0]["patched"] == 4


def test_a_provider_that_comes_too_late(tmp_path: Path) -> None:
    code = """
    import costspan
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    costspan.init()
    trace.set_tracer_provider(TracerProvider())
    metrics.set_meter_provider(MeterProvider())
    """
    done = program(tmp_path, code)
    assert done.status == 1
    what = r"TracerProvider \(app\.py:7\) was refused: init\(\) \(at app\.py:6\) came first"
    assert "after the program has set its providers" in done.problem("fault", "program", what)
    assert done.problem("fault", "program", r"MeterProvider \(app\.py:8\)")
    *before, init, first, second = textwrap.dedent(code).strip().splitlines()
    assert program(tmp_path, "\n".join([*before, first, second, init])).report["problems"] == []


def test_calls_that_are_counted_twice(tmp_path: Path) -> None:
    code = f"""
    import costspan
    from opentelemetry import trace
    costspan.init()
    theirs = trace.get_tracer("opentelemetry.instrumentation.openai.v1")
    def priced(name="chat"):
        return theirs.start_as_current_span(name, attributes={GPT})
    with priced(), trace.get_tracer("app").start_as_current_span("between"):
        {RECORD}
    with priced():
        pass
    with theirs.start_as_current_span("plain"):
        {RECORD}
    """
    process = process_of(program(tmp_path, code))
    assert process["scopes"]["opentelemetry.instrumentation.openai.v1"]["spans"] == 3
    # The processor decides which of the two spans of the first call counts; the doctor says how often it did.
    twice = process["twice"]
    assert process["summary"]["total"]["calls"] == 3 + sum(pair["calls"] for pair in twice)
    assert [pair["scopes"] for pair in twice] in ([], [["opentelemetry.instrumentation.openai.v1", "costspan"]])


def test_one_response_of_which_two_make_spans_side_by_side(tmp_path: Path) -> None:
    spans = GPT.removesuffix("}") + ', "gen_ai.response.id": "r1"}'
    code = f"""
    import costspan
    from opentelemetry import trace
    costspan.init()
    for scope in ("openinference.instrumentation.openai", "opentelemetry.instrumentation.openai.v1"):
        trace.get_tracer(scope).start_span("chat", attributes={spans}).end()
    """
    process = process_of(program(tmp_path, code))
    priced = sum(scope["priced"] for scope in process["scopes"].values())
    assert priced == 1 + sum(twice["calls"] for twice in process["twice"])


def test_a_tracer_of_another_provider_that_drops_spans_and_a_budget_that_cannot_block(tmp_path: Path) -> None:
    code = f"""
    import costspan
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    sampler = ParentBased(TraceIdRatioBased(0.5))
    aside = TracerProvider(sampler=sampler).get_tracer("opentelemetry.instrumentation.langchain")
    trace.set_tracer_provider(TracerProvider(sampler=sampler))
    web = trace.get_tracer("opentelemetry.instrumentation.flask")
    other = trace.get_tracer("openinference.instrumentation.openai")
    costspan.init(budgets=[costspan.Budget("strict", limit=3, policy="block")])
    with other.start_as_current_span("chat", attributes={GPT}):
        pass
    """
    done = program(tmp_path, code)
    assert done.status == 0
    what = (
        r"langchain was made before costspan\.init\(\) and drops spans \(ParentBased\{root:TraceIdRatioBased\{0\.5\}\)"
    )
    assert "Call costspan.init() before" in done.problem("warning", "program", what)
    # What the sampler of our own provider drops is counted all the same.
    assert "Let costspan instrument" in done.problem(
        "warning", "program", "^1 call seen by other .* strict should block"
    )
    assert len(done.report["problems"]) == 2
    assert {tracer["scope"] for tracer in process_of(done)["tracers"]} == {
        "opentelemetry.instrumentation.langchain",
        "openinference.instrumentation.openai",
    }


def test_calls_without_a_price_and_errors_of_costspan_itself(tmp_path: Path) -> None:
    code = """
    import costspan
    costspan.init()
    from costspan import startup
    startup._processing.observer.failed("response", ValueError("odd answer"))
    for provider, model in (("openai", "nonsuch"), ("acme", "large")):
        costspan.record(provider, model, {"prompt_tokens": 1, "completion_tokens": 1}, "openai.chat")
    """
    done = program(tmp_path, code)
    assert done.status == 1
    assert "report it" in done.problem("fault", "program", r"failed in response \(1 x\): ValueError: odd answer")
    assert "COSTSPAN_MODEL_NAMES=openai/nonsuch=" in done.problem("warning", "program", "openai/nonsuch not priced")
    assert "acme/large" in done.problem("warning", "program", "acme/large not priced.*: unknown_provider")


def test_methods_that_somebody_has_put_back(tmp_path: Path) -> None:
    code = """
    import costspan
    import ollama
    import wrapt
    from ollama._client import Client
    before = Client.chat
    costspan.init()
    Client.chat = before
    # Who patches on top of it does no harm.
    wrapt.wrap_function_wrapper(Client, "embed", lambda wrapped, _, args, kwargs: wrapped(*args, **kwargs))
    """
    done = program(tmp_path, code)
    assert "replaces them after costspan.init()" in done.problem("fault", "program", r"not patched: Client\.chat$")


def test_an_sdk_whose_calls_nobody_saw(tmp_path: Path) -> None:
    done = program(tmp_path, "import costspan; costspan.init(); import ollama")
    assert done.status == 0
    assert "plain HTTP" in done.problem("warning", "program", "^ollama was imported, and no call was seen")


def test_what_was_counted_before_a_shutdown_is_told(tmp_path: Path) -> None:
    done = program(tmp_path, f"import costspan; costspan.init(); import ollama\n{RECORD}costspan.shutdown()")
    process = process_of(done)
    assert (done.report["status"], process["summary"]["total"]["calls"]) == ("fine", 1)
    assert process["sdks"][0]["patched"] == 4


def test_children_are_looked_into(tmp_path: Path) -> None:
    code = f"""
    import multiprocessing, subprocess, sys
    import costspan
    def work():
        {RECORD}
    if __name__ == "__main__":
        costspan.init()
        for how in ("fork", "spawn"):
            child = multiprocessing.get_context(how).Process(target=work)
            child.start()
            child.join()
        subprocess.run([sys.executable, "-c", "import ollama"])
    """
    done = program(tmp_path, code)
    assert done.status == 1
    counted = [p["summary"]["total"]["calls"] for p in done.report["program"]["processes"] if p["started"]]
    assert sorted(counted) == [0, 1], "the parent and its fork"
    assert "spawned" in done.problem(
        "fault", "program", r"called costspan\.record\(\) 1 x where costspan was not started"
    )
    assert "every process imports" in done.problem("fault", "program", "never started costspan, and imported ollama")


def test_a_program_that_is_killed_tells_what_it_knew(tmp_path: Path) -> None:
    code = f"""
    import os, signal
    import costspan
    costspan.init()
    {RECORD}
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = program(tmp_path, code)
    assert done.report["program"]["exit_status"] == 128 + 9
    assert process_of(done)["started"]["where"] == "at app.py:4"


def test_a_python_that_cannot_be_looked_into(tmp_path: Path) -> None:
    done = program(tmp_path, "import costspan", sys.executable, "-I")
    assert done.status == 1
    assert "PYTHONPATH" in done.problem("fault", "program", "^no Python process of the program")


def test_a_command_that_cannot_be_run() -> None:
    done = doctor("--", "nonsuch-command")
    assert (done.status, done.out) == (127, "")
    assert done.err == "costspan doctor: 'nonsuch-command' cannot be run (No such file or directory)\n"


def test_what_a_process_may_tell_besides() -> None:
    process: dict[str, Any] = {
        "pid": 1,
        "command": ["app.py"],
        "costspan": "0.0.1",
        "started": {"where": "at app.py:1", "budgets": []},
        "sdks": [],
        "recorded_in_vain": 0,
        "calls": {"own": 2, "others": 1},
        "errors": {},
        "providers_set": [],
        "tracers": [],
        "twice": [{"scopes": ["theirs", "costspan"], "calls": 2}],
        "summary": {"unpriced": [], "total": {"calls": 3}},
    }
    found = list(program_module._judged({"processes": [process], "unseen": []}))
    assert [(p.level, p.what) for p in found] == [
        ("warning", f"the program uses costspan 0.0.1, this is {costspan.__version__}"),
        ("fault", "2 calls counted twice, by spans of theirs and costspan"),
    ]
    assert "python -m costspan doctor" in found[0].remedy
    assert "Switch one of the two off" in found[1].remedy
