"""Budgets as an application has them: from its code, a file, the environment, and one store for many processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.door.program import START, output, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instrumentation.loopback import Loopback

FILE = """
[[budgets]]
name = "all"
limit = 0.02
policy = "block"

[[budgets]]
name = "cheap"
limit = 0.02
policy = "downgrade"

[[routing.paths.openai]]
above = 0.5
model = "openai/gpt-4.1"

[[routing.paths.openai]]
above = 0.0
model = "openai/gpt-4.1-mini"
"""

SPENDING = """
import costspan
made = 0
try:
    while True:
        call(max_tokens=500)
        made += 1
except costspan.BudgetExceeded as error:
    print(made, error.budget, error.reason)
"""


def file_with(folder: Path, text: str = FILE) -> str:
    (folder / "costspan.toml").write_text(text)
    return str(folder / "costspan.toml")


def test_a_file_holds_and_a_call_gets_a_cheaper_model_of_its_provider(provider: Loopback, tmp_path: Path) -> None:
    code = """
    import costspan
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    spans = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    costspan.init(tracer_provider=traces)
    for _ in range(3):
        call(max_tokens=500)
    last = spans.get_finished_spans()[-1]
    print({key: value for key, value in last.attributes.items() if "budget" in key and "util" not in key})
    print(last.name, last.attributes["costspan.cost.status"])
    """
    told = output(code, provider.url, COSTSPAN_CONFIG=file_with(tmp_path)).splitlines()
    assert [request["model"] for request in provider.requests] == ["gpt-4.1", "gpt-4.1", "gpt-4.1-mini"]
    assert told[0] == str(
        {
            "costspan.budget.asked_model": "gpt-4.1",
            "costspan.budget.reason": "40 % of the budget left, path openai",
            "costspan.budget.decision": "downgraded",
            "costspan.budget.status": "warning",
            "costspan.budget.name": "all",
            "costspan.budget.remaining": 0.002,
        }
    )
    assert told[1] == "chat gpt-4.1-mini priced"


def test_a_file_in_the_working_directory_is_found_and_read_again_when_it_changes(
    provider: Loopback, tmp_path: Path
) -> None:
    file_with(tmp_path, '[[budgets]]\nname = "all"\nlimit = 0.000001\npolicy = "block"\n')
    code = f"""
    import os, pathlib, time
    os.chdir({str(tmp_path)!r})
    import costspan
    costspan.init()
    refused = 0
    try:
        call()
    except costspan.BudgetExceeded:
        refused += 1
    pathlib.Path("costspan.toml").write_text('[[budgets]]\\nname = "all"\\nlimit = 5\\npolicy = "block"\\n')
    deadline = time.monotonic() + 30
    while refused and time.monotonic() < deadline:
        try:
            call()
            break
        except costspan.BudgetExceeded:
            time.sleep(0.1)
    print(costspan.check("openai/gpt-4.1").remaining.normalize())
    """
    assert output(code, provider.url) == "4.994\n"


def test_what_is_wrong_with_the_file_or_a_variable_is_said_and_the_application_runs(
    provider: Loopback, tmp_path: Path
) -> None:
    wrong = file_with(tmp_path, '[[budgets]]\nname = "all"\nlimit = "lots"\n')
    code = "import costspan; costspan.init(); call(); print(costspan.summary()['total']['calls'])"
    done = run(
        code,
        provider.url,
        COSTSPAN_CONFIG=wrong,
        COSTSPAN_BUDGETS='[{"name": "b", "limitt": 1}]',
        COSTSPAN_BUDGET_STORE="postgres://me:secret@there/db",
        COSTSPAN_NOTIFY="nonsense",
    )
    assert done.stdout == "1\n", done.stderr
    said = done.stderr
    assert "costspan.toml: budgets[0] 'all': limit must be an amount in USD, not 'lots'" in said
    assert "COSTSPAN_BUDGETS: [0] 'b': unknown field 'limitt'" in said
    assert "no store of budgets is called 'postgres:'" in said
    assert "Apprise does not understand" in said
    assert "secret" not in said


def test_code_wins_over_the_environment_and_that_over_the_file(provider: Loopback, tmp_path: Path) -> None:
    environment = json.dumps([{"name": "all", "limit": "0.05"}, {"name": "more", "limit": "0.06"}])
    code = """
    import costspan
    costspan.init(budgets=[costspan.Budget("more", limit="0.07")])
    from costspan import startup
    print([(budget.name, str(budget.limit)) for budget in startup._processing.guard.budgets])
    """
    told = output(code, provider.url, COSTSPAN_CONFIG=file_with(tmp_path), COSTSPAN_BUDGETS=environment)
    assert told == "[('all', '0.05'), ('cheap', '0.02'), ('more', '0.07')]\n"


def test_processes_share_a_budget_in_a_file_and_what_one_spent_last_is_written_as_it_ends(
    provider: Loopback, tmp_path: Path
) -> None:
    file = file_with(tmp_path)

    def run_one(code: str) -> str:
        store = f"sqlite:///{tmp_path}/budgets.db"
        return output(code, provider.url, before=START, COSTSPAN_CONFIG=file, COSTSPAN_BUDGET_STORE=store)

    assert run_one("call(max_tokens=500); call(max_tokens=500)") == ""
    assert run_one(SPENDING) == "2 all limit\n"
    assert run_one(SPENDING) == "0 all limit\n"


def test_an_event_loop_is_served_too(provider: Loopback, tmp_path: Path) -> None:
    code = """
    import asyncio
    import costspan
    costspan.init(budgets=[costspan.Budget("all", limit="0.02", policy="block")])
    client = openai.AsyncOpenAI(base_url=client.base_url, api_key="k", max_retries=0)
    async def ask():
        return await client.chat.completions.create(
            model="gpt-4.1", max_tokens=500, messages=[{"role": "user", "content": "hi"}]
        )
    async def main():
        said = await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
        print(sorted(type(one).__name__ for one in said))
    asyncio.run(main())
    """
    told = output(code, provider.url, COSTSPAN_BUDGET_STORE=f"sqlite:///{tmp_path}/budgets.db")
    assert told == str(["BudgetExceeded"] * 4 + ["ChatCompletion"] * 4) + "\n", "four estimates of $0.004 fit"


def test_a_block_of_code_has_a_limit_of_its_own(provider: Loopback) -> None:
    code = """
    import costspan
    costspan.init()
    @costspan.budget("agent run", limit="0.011")
    def agent():
        try:
            while True:
                call(max_tokens=500)
        except costspan.BudgetExceeded as error:
            print(error)
    agent()
    with costspan.budget("outer", limit=1) as spent:
        agent()
        print(spent.cost, spent.remaining.normalize())
    """
    said = (
        "budget 'agent run' would be exceeded: $0.006 spent and $0 held of $0.011, this call may cost $0.004002; "
        "until the block ends\n"
    )
    told = output(code, provider.url)
    assert told == said.replace("$0.006 spent", "$0.012 spent") * 2 + "0.012000000000 0.988\n"


def test_a_question_before_the_call(provider: Loopback, tmp_path: Path) -> None:
    code = """
    import costspan
    print(costspan.check("openai/gpt-4.1").reason)
    costspan.init()
    for tokens in (100, 10_000):
        said = costspan.check("openai/gpt-4.1", input_tokens=tokens, max_tokens=500, team="search")
        print(said.allowed, said.decision, said.budget, said.asked.normalize(), said.remaining.normalize())
    try:
        costspan.check("gpt-4.1")
    except ValueError as error:
        print(error)
    """
    assert output(code, provider.url, COSTSPAN_CONFIG=file_with(tmp_path)).splitlines() == [
        "costspan.init() has not been called",
        "True allowed all 0.0042 0.02",
        "False refused all 0.024 0.02",
        "model is a provider and a model, such as 'openai/gpt-4.1', not 'gpt-4.1'",
    ]


def test_the_model_to_choose_before_there_is_a_client(provider: Loopback, tmp_path: Path) -> None:
    routing = (
        FILE
        + """
[routing.tasks]
chat = { quality = "standard", sensitivity = "low" }

[routing.matrix]
basic = { low = "openai/gpt-4.1-mini", medium = "openai/gpt-4.1-mini", high = "openai/gpt-4.1-mini" }
standard = { low = "openai/gpt-4.1", medium = "openai/gpt-4.1-mini", high = "openai/gpt-4.1-mini" }
high = { low = "openai/gpt-4.1", medium = "openai/gpt-4.1", high = "openai/gpt-4.1-mini" }
best = { low = "openai/gpt-4.1", medium = "openai/gpt-4.1", high = "openai/gpt-4.1" }
"""
    )
    code = """
    import costspan
    try:
        costspan.route("chat")
    except RuntimeError as error:
        print(error)
    costspan.init()
    print(tuple(costspan.route("chat")))
    for _ in range(2):
        call(max_tokens=500)
    print(tuple(costspan.route("chat")))
    try:
        costspan.route("dance")
    except ValueError as error:
        print(error)
    """
    assert output(code, provider.url, COSTSPAN_CONFIG=file_with(tmp_path, routing)).splitlines() == [
        "there is no routing: put [routing] into costspan.toml (docs/budgets.md) and call costspan.init()",
        "('openai', 'gpt-4.1', 'chat: quality standard, sensitivity low')",
        "('openai', 'gpt-4.1-mini', '40 % of the budget left, path openai')",
        "task must be one of chat, not 'dance'",
    ]


def test_events_reach_the_application_and_people(provider: Loopback, tmp_path: Path) -> None:
    from tests.instrumentation.loopback import Answer, serve

    with serve() as people:
        people.answer = Answer({})
        code = """
        import costspan
        costspan.init(
            budgets=[costspan.Budget("all", limit="0.006", thresholds=(50, 100))],
            on_budget_event=lambda event: print(event.type, event.threshold, event.overage),
        )
        call()
        costspan.shutdown()
        """
        told = output(code, provider.url, COSTSPAN_NOTIFY=people.url.replace("http://", "json://"))
        assert told == "threshold 50 0E-9\nexceeded 100 0E-9\nburning_fast None 0E-9\n"[: len(told)]
        assert [request["type"] for request in people.requests] == ["info", "failure"]
        assert people.requests[1]["title"] == "critical: budget 'all'"
