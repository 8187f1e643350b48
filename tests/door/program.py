"""Runs small programs in fresh interpreters: what costspan does to a process can only be undone by its end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

CALL = """
import openai
def connect():
    global client
    client = openai.OpenAI(base_url={url!r} + "/v1", api_key="k", max_retries=0)
connect()
def call(model="gpt-4.1", **more):
    return client.chat.completions.create(model=model, messages=[{{"role": "user", "content": "hi"}}], **more)
"""


def environment(**more: str) -> dict[str, str]:
    """The environment without OpenTelemetry's and costspan's variables, and with `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "COSTSPAN_"))}
    floors = [str(ROOT), *(str(ROOT / floor) for floor in ("pricing", "instrumentation", "processor"))]
    return {**kept, "PYTHONPATH": os.pathsep.join(floors), **more}


START = "import costspan; costspan.init()\n"


def run(
    code: str, url: str = "", *, before: str = "", command: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `before` and `code`, in which `call()` makes a call to the server at `url`.

    `command` stands before the interpreter, `env` goes into its environment.
    """
    program = (CALL.format(url=url) if url else "") + before + textwrap.dedent(code)
    return subprocess.run(
        [*command, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=90,
        check=False,
    )


def output(code: str, url: str = "", *, before: str = "", command: tuple[str, ...] = (), **env: str) -> str:
    """The standard output of `run`; fails with what went wrong."""
    done = run(code, url, before=before, command=command, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout
