"""`costspan run`: what a program's calls have cost, and not a trace of the watching in the program itself."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyte
import pytest

from costspan.demo.provider import DemoProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))},
    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
}
CALL = """
import os, sys, time
import costspan

def call(model="gpt-4.1", times=1):  # 1,000 x $2 + 500 x $8 a million are $0.006
    for _ in range(times):
        costspan.record("openai", model, {"prompt_tokens": 1000, "completion_tokens": 500}, "openai.chat")
"""
ONE = "0.006"


class Run:
    """`costspan run` of a program written for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.json = folder / "summary.json"

    def start(self, program: str, *, command: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        (self.folder / "app.py").write_text(textwrap.dedent(program), encoding="utf-8")
        return subprocess.Popen(
            self.command(*(command or (sys.executable, "app.py"))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**ENVIRONMENT, "TMPDIR": str(self.folder), **environment},
        )

    def command(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "costspan", "run", "--json", str(self.json), "--", *command]

    def __call__(self, program: str, **options: Any) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = self.start(program, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def total(self) -> tuple[int, str]:
        """Calls and USD of the JSON summary."""
        total = json.loads(self.json.read_text(encoding="utf-8"))["total"]
        return total["calls"], total["cost"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield Run(tmp_path)
    assert not list(tmp_path.glob("costspan-run-*")), "the private directory is left behind"


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"the program never made {file.name}"
        time.sleep(0.02)


def test_a_program_with_the_real_client(run: Run) -> None:
    program = """
    import os, sys
    import openai

    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    ask = client.chat.completions.create
    messages = [{"role": "user", "content": "hello"}]
    print("answer:", ask(model="gpt-4.1", messages=messages).choices[0].message.content[:0])
    stream = ask(model="gpt-4.1-mini", messages=messages, stream=True, stream_options={"include_usage": True})
    assert [chunk.usage is not None for chunk in stream][-1]
    ask(model="gpt-unheard-of", messages=messages)
    print("complaint", file=sys.stderr)
    print(sys.argv[2:], sys.path[0] == os.getcwd(), any("_run" in entry for entry in sys.path))
    sys.exit(7)
    """
    with DemoProvider({}) as provider:
        status, out, err = run(program, command=(sys.executable, "app.py", provider.openai, "--json", "x"))
    assert (status, out) == (7, "answer: \n['--json', 'x'] True False\n")
    complaint, _, report = err.partition("\n")
    assert complaint == "complaint"
    summary = json.loads(run.json.read_text(encoding="utf-8"))
    assert summary["statuses"] == {"priced": 2, "unknown_model": 1}
    assert set(summary["by_provider"]["openai"]["operations"]) == {"chat"}
    for shown in ("by provider", "by model", "gpt-4.1-2025-04-14", "gpt-4.1-mini-2025-04-14"):
        assert shown in report
    assert "1 call not priced: openai/gpt-unheard-of (unknown_model)" in report


def test_features_have_their_lines(run: Run) -> None:
    program = f"""{CALL}
with costspan.track(feature="search"):
    call(times=2)
call()
"""
    status, out, err = run(program)
    assert (status, out, run.total) == (0, "", (3, "0.018"))
    features = json.loads(run.json.read_text(encoding="utf-8"))["by_feature"]
    assert {name: line["cost"] for name, line in features.items()} == {"search": "0.012", "(none)": "0.006"}
    assert "by feature" in err


@pytest.mark.parametrize(
    ("ending", "status", "last_words"),
    [
        ("raise RuntimeError('no good')", 1, "RuntimeError: no good"),
        ("sys.exit('farewell')", 1, "farewell"),
        ("time.sleep(0.3); os._exit(5)", 5, ""),
        ("time.sleep(0.3); os.kill(os.getpid(), 9)", 128 + 9, ""),
        ("time.sleep(0.3); os.kill(os.getpid(), 15)", 128 + 15, ""),
        ("time.sleep(0.3); os.execv('/bin/sh', ['sh', '-c', 'exit 6'])", 6, ""),
    ],
)
def test_however_it_ends(run: Run, ending: str, status: int, last_words: str) -> None:
    found, out, err = run(f"{CALL}\ncall(times=20)\n{ending}\n")
    assert (found, out) == (status, "")
    assert run.total == (20, "0.12")
    assert last_words in err
    assert "by provider" in err


def test_children_of_every_kind(run: Run) -> None:
    program = f"""{CALL}
import multiprocessing, subprocess

def of_a_child(times):
    call(times=times)
    subprocess.run([sys.executable, "-c", "import app_lib; app_lib.call()"], check=True)

if __name__ == "__main__":
    call()
    if (child := os.fork()) == 0:
        call(times=10)
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=of_a_child, args=(100,))
        process.start()
        process.join()
        assert process.exitcode == 0
    call()
    killed = "import app_lib, os, time; app_lib.call(times=1000); time.sleep(0.3); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -9
"""
    (run.folder / "app_lib.py").write_text(CALL, encoding="utf-8")
    status, _, err = run(program)
    assert status == 0, err
    # 2 of its own, 10 forked, 2 x (100 + 1 of a grandchild), and those of the child that was killed.
    assert run.total[0] == 2 + 10 + 2 * 101 + 1000


def test_many_threads_lose_nothing(run: Run) -> None:
    program = f"""{CALL}
import threading
threads = [threading.Thread(target=call, kwargs={{"times": 250}}) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    assert run(program)[0] == 0
    assert run.total == (4000, "24")


def test_no_thread_of_ours_stays(run: Run) -> None:
    assert run(f"{CALL}\ncall(times=300)\ntime.sleep(0.3)\nprint(__import__('threading').active_count())")[1] == "1\n"
    assert run.total == (300, "1.8")


WAITING = f"""{CALL}
import signal
call()
def bye(number, _):
    print("signal", number, flush=True)
    call()
    sys.exit(9)
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, bye)
open("ready", "w").close()
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    call()
    time.sleep(0.5)  # a second interrupt would end this
    raise
"""


@pytest.mark.parametrize(
    ("number", "arguments", "status", "said", "calls"),
    [
        (signal.SIGINT, (), 128 + 2, "interrupted\n", 2),
        (signal.SIGTERM, (), 128 + 15, "", 1),
        (signal.SIGTERM, ("handled",), 9, "signal 15\n", 2),
    ],
)
def test_a_signal_to_us_reaches_the_program(
    run: Run, number: int, arguments: tuple[str, ...], status: int, said: str, calls: int
) -> None:
    process = run.start(WAITING, command=(sys.executable, "app.py", *arguments))
    wait_for(run.folder / "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (status, said)
    assert run.total[0] == calls
    assert "by provider" in err


def test_ctrl_c_in_a_terminal_is_one_interrupt(run: Run) -> None:
    (run.folder / "app.py").write_text(WAITING, encoding="utf-8")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(run.folder)
        command = run.command(sys.executable, "app.py")
        os.execve(command[0], command, {**ENVIRONMENT, "TMPDIR": str(run.folder)})
    wait_for(run.folder / "ready")
    os.write(terminal, b"\x03")
    shown = b""
    try:
        while some := os.read(terminal, 65536):
            shown += some
    except OSError:  # the other side is closed
        pass
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 128 + 2
    assert shown.count(b"KeyboardInterrupt") == 1
    assert b"by provider" in shown
    assert run.total[0] == 2


def test_live_keeps_the_cost_on_the_last_line_of_a_terminal(run: Run) -> None:
    program = f"""{CALL}
call(times=2)
for line in range(30):
    print("line", line, flush=True)
while not os.path.exists("seen"):
    time.sleep(0.05)
print("the end", flush=True)
"""
    (run.folder / "app.py").write_text(program, encoding="utf-8")
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
        os.chdir(run.folder)
        command = run.command(sys.executable, "app.py")
        command.insert(command.index("run") + 1, "--live")
        os.execve(command[0], command, {**ENVIRONMENT, "TMPDIR": str(run.folder), "TERM": "xterm-256color"})
    screen = pyte.Screen(60, 12)
    shown = pyte.ByteStream(screen)
    deadline = time.monotonic() + 30
    while "Messages: 2" not in screen.display[-1]:
        assert time.monotonic() < deadline, "\n".join(screen.display)
        shown.feed(os.read(terminal, 65536))
    assert screen.display[-1].rstrip() == "Session Cost: $0.012 | Messages: 2 | Tokens: 3.0k"
    assert "line 29" in "\n".join(screen.display[:-1])  # what the program writes scrolls above it
    (run.folder / "seen").touch()
    with suppress(OSError):  # the other side is closed
        while some := os.read(terminal, 65536):
            shown.feed(some)
    os.waitpid(child, 0)
    os.close(terminal)
    assert "Session Cost" not in "\n".join(screen.display)  # the report has its place
    assert run.total == (2, "0.012")


def test_live_says_nothing_where_there_is_no_terminal(run: Run) -> None:
    command = [sys.executable, "-m", "costspan", "run", "--live", "--", sys.executable, "-c", "print('done')"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, "\x1b" in done.stderr) == (0, "done\n", False)


def test_the_program_s_own_telemetry_stays_as_it_is(run: Run) -> None:
    program = f"""{CALL}
import openai
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")))
trace.set_tracer_provider(provider)
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
with trace.get_tracer("app").start_as_current_span("its own") as own:
    client.chat.completions.create(model="gpt-4.1", messages=[{{"role": "user", "content": "hello"}}])
    assert trace.get_current_span() is own
"""
    with DemoProvider({}) as provider:
        status, out, err = run(program, command=(sys.executable, "app.py", provider.openai))
    assert (status, out) == (0, "its own\n"), err
    assert "Overriding" not in err
    assert run.total[0] == 1


def test_exporters_that_the_environment_names_are_served(run: Run) -> None:
    status, out, err = run(f"{CALL}\ncall()\ncostspan.flush()", OTEL_TRACES_EXPORTER="console")
    assert (status, json.loads(out)["attributes"]["costspan.cost.total"]) == (0, 0.006), err
    assert run.total == (1, ONE)


def test_the_program_s_own_init_counts(run: Run) -> None:
    program = f"""{CALL}
call()
costspan.init(prices={{"openai/own": {{"input": "1", "output": "1"}}}})
costspan.init()
call("own")
costspan.reset()
print(costspan.summary()["total"]["calls"])
"""
    assert run(program)[:2] == (0, "0\n")
    # $0.006 before its init(), and 1,500 tokens at its own $1 a million.
    assert run.total == (2, "0.0075")


def test_a_sitecustomize_that_we_stand_before_still_runs(run: Run) -> None:
    (run.folder / "site").mkdir()
    (run.folder / "site" / "sitecustomize.py").write_text("print('site of', __name__)\n", encoding="utf-8")
    path = os.pathsep.join([str(run.folder / "site"), ENVIRONMENT["PYTHONPATH"]])
    status, out, err = run("import sitecustomize; print(sitecustomize.__file__[-22:])", PYTHONPATH=path)
    # The first one is costspan's own command, which starts under it like any Python.
    assert (status, out.splitlines()[-2:]) == (0, ["site of sitecustomize", "/site/sitecustomize.py"]), err
    assert err == "costspan run: no call to a model was seen\n"


def test_switched_off(run: Run) -> None:
    status, out, err = run("import sys; print('costspan' in sys.modules); sys.exit(4)", COSTSPAN_ENABLED="false")
    assert (status, out) == (4, "False\n")
    assert err == "costspan run: switched off by COSTSPAN_ENABLED; the program runs as it is\n"


def test_a_run_within_a_run_is_part_of_it(run: Run) -> None:
    (run.folder / "inner.py").write_text(CALL + "call()\n", encoding="utf-8")
    program = f"""{CALL}
import subprocess
call()
done = subprocess.run([sys.executable, "-m", "costspan", "run", sys.executable, "inner.py"], stderr=subprocess.PIPE)
sys.exit(b"$0.006" not in done.stderr)
"""
    assert run(program)[0] == 0
    assert run.total == (2, "0.012")


def test_a_python_without_costspan_is_named(run: Run) -> None:
    # The interpreter behind the environment that the tests run in: costspan is installed in one, not in the other.
    python = sys._base_executable  # type: ignore[attr-defined]
    path = str(run.folder / "empty")
    program = "import sys; sys.exit('costspan' in sys.modules)"
    command = ("env", f"PYTHONPATH={Path(__file__).parents[2] / 'costspan' / '_run'}{os.pathsep}{path}")
    status, out, err = run(program, command=(*command, python, "app.py"))
    assert (status, out) == (0, "")
    first, second = err.splitlines()
    assert first == "costspan run: no call to a model was seen"
    assert second.startswith(f"costspan run: {python}: costspan could not start (ModuleNotFoundError")


@pytest.mark.parametrize(
    ("options", "command", "status", "complaint"),
    [
        ([], ["no-such-program"], 127, "costspan run: 'no-such-program' cannot be run (No such file or directory)\n"),
        ([], ["/"], 126, "costspan run: '/' cannot be run (Permission denied)\n"),
        (["--json", "/nowhere/x.json"], ["true"], 2, "costspan run: --json /nowhere/x.json cannot be written: name a"),
    ],
)
def test_what_cannot_be_run(options: list[str], command: list[str], status: int, complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "costspan", "run", *options, "--", *command],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1
