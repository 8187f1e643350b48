"""The page of `costspan serve`, in a real browser: what it shows, to whom, and how it looks."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from costspan.insight.serve import app
from costspan.insight.serve.gate import BASE
from costspan.insight.serve.keys import Keys, of_environment
from costspan_processor.ledger.store import open_ledger
from tests.grafana.prometheus import free_ports
from tests.insight.ledgers import ledger
from tests.insight.served import BUDGETS, KEYS, MARKUP, READS, WRITES, chromium, dear, fill, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.insight.served import Server

    Open = Callable[..., Page]

_LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (400, 1600)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        missing = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox to put it in.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("full")
    fill(folder / "ledger.db")
    (folder / "costspan.toml").write_text(BUDGETS)
    with serving(folder, "--rate", "100000") as server:
        yield server


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("empty")
    open_ledger(str(folder / "ledger.db")).close()
    with serving(folder, "--rate", "100000") as server:
        yield server


@pytest.fixture
def look(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end, nothing may have been said on its console that was not expected."""
    said: list[str] = []
    contexts = []

    def opened(server: Server | str, secret: str = "", *, scheme: Any = "light", width: int = 1200) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        url = server if isinstance(server, str) else server.url
        page.goto(f"{url}#key={secret}" if secret else url)
        return page

    yield opened
    for context in contexts:
        context.close()
    # Chromium itself notes each answer that is an error.
    assert [line for line in said if not re.match(r"Failed to load resource: (the server responded|net::)", line)] == []


def _asked(server: Server, path: str) -> Any:
    answer = httpx.get(f"{server.url}{BASE[1:]}/{path}", headers={"Authorization": f"Bearer {WRITES}"}, timeout=30)
    assert answer.status_code == 200
    return answer.json()


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".hidden, .skip")) continue;
    const style = getComputedStyle(node);
    const ink = rgb(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) weak.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return weak;
}"""
"""Texts whose colour is too close to what is behind it (WCAG 2.2, AA)."""


def _sound(page: Page) -> None:
    """Everything can be read, and nothing sticks out at the side."""
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    names = page.evaluate(
        "[...document.querySelectorAll('button, input')].filter((one) => one.checkVisibility())"
        ".map((one) => one.ariaLabel || one.innerText || one.labels?.[0]?.innerText)"
    )
    assert all(names)


# ---------------------------------------------------------------------- what it shows


@pytest.mark.parametrize(("scheme", "width"), _LOOKS)
def test_a_full_ledger_is_drawn_as_the_api_says(look: Open, full: Server, scheme: str, width: int) -> None:
    page = look(full, WRITES, scheme=scheme, width=width)
    expect(page.locator("#cards .card")).to_have_count(4)
    metrics = _asked(full, "metrics")
    cards = page.locator("#cards").inner_text()
    assert f"{metrics['today']['calls']} call" in cards
    assert "Projected: $" in cards
    assert "no price" in page.locator("#note").inner_text(), "what is missing from the month is said"
    assert page.locator("#chart path.bar").count() == 30
    assert page.locator("#chart path.running").count() == 1
    labels = page.locator("#chart text").all_text_contents()
    assert labels[0] == "$0", "the axis begins at nothing"
    assert any(re.fullmatch(r"[A-Z][a-z]{2} \d+", label) for label in labels)
    for what in ("model", "feature", "user"):
        rows = page.locator(f"#by_{what} tbody tr")
        assert rows.count() == min(8, len(metrics[f"by_{what}"]))
        assert rows.first.locator("th").inner_text() == metrics[f"by_{what}"][0]["name"]
    unpriced = page.locator("#by_model tr", has_text="a-model-of-our-own")
    assert unpriced.locator("td").all_inner_texts() == ["—", "—"], "unknown is not zero"
    budgets = page.locator("#budgets").inner_text()
    assert all(name in budgets for name in ("all", "search, a day", "each user", "exceeded"))
    assert page.locator("#alerts li").count() >= 1
    _sound(page)


@pytest.mark.parametrize(("scheme", "width"), _LOOKS)
def test_an_empty_ledger_says_what_to_do(look: Open, empty: Server, scheme: str, width: int) -> None:
    page = look(empty, WRITES, scheme=scheme, width=width)
    expect(page.locator("#empty")).to_be_visible()
    assert "costspan.init(ledger=" in page.locator("#empty").inner_text()
    expect(page.locator("#figures")).to_be_hidden()
    _sound(page)


def test_dark_is_dark_and_light_is_light(look: Open, empty: Server) -> None:
    shades = []
    for scheme in ("light", "dark"):
        page = look(empty, scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades.append(sum(map(int, re.findall(r"\d+", colour))))
    assert shades[0] > 600
    assert shades[1] < 150


def test_what_users_are_called_is_text_and_never_run(look: Open, full: Server) -> None:
    page = look(full, WRITES)
    expect(page.locator("#by_user tbody tr").first).to_be_visible()
    assert page.title() == "costspan"
    assert page.locator("main img").count() == 0
    everyone = [one["name"] for one in _asked(full, "metrics?limit=100")["by_user"]]
    assert MARKUP in everyone


# ---------------------------------------------------------------------- who sees it


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten_when_told(look: Open, full: Server) -> None:
    page = look(full)
    expect(page.locator("#key")).to_be_visible()
    expect(page.locator("#secret")).to_be_focused()
    _sound(page)
    page.keyboard.type("csk_this-is-no-key-of-anybody")
    page.keyboard.press("Enter")
    expect(page.locator("#refused")).to_contain_text("not known")
    expect(page.locator("#figures")).to_be_hidden()
    page.keyboard.type(READS)
    page.keyboard.press("Enter")
    expect(page.locator("#cards .card")).to_have_count(4)
    page.reload()
    expect(page.locator("#cards .card")).to_have_count(4)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget key").click()
    expect(page.locator("#key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.locator("#key")).to_be_visible()


def test_a_key_that_is_handed_over_leaves_the_address(look: Open, full: Server) -> None:
    page = look(full, READS)
    expect(page.locator("#cards .card")).to_have_count(4)
    assert page.url == full.url


def test_alerts_are_acknowledged_by_keyboard_and_by_who_may_write_alone(look: Open, tmp_path: Path) -> None:
    fill(tmp_path / "ledger.db", 2)
    with serving(tmp_path) as server:
        reader = look(server, READS)
        expect(reader.locator("#alerts li")).to_have_count(3)
        assert reader.get_by_role("button", name=re.compile("^Acknowledge")).count() == 0
        page = look(server, WRITES)
        expect(page.locator("#alerts li")).to_have_count(3)
        page.get_by_role("button", name=re.compile("the limit of .* is reached")).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#alerts li")).to_have_count(2)
        assert _asked(server, "alerts?acknowledged=true")["alerts"][0]["acknowledged_by"] == "writer"


def test_suggestions_show_their_arithmetic_and_are_put_aside(look: Open, tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", dear()).dispose()
    with serving(tmp_path) as server:
        page = look(server, WRITES, width=400)
        first = page.locator("#suggestions > ul > li").first
        expect(first).to_contain_text("claude-opus-4-5")
        before = page.locator("#suggestions > ul > li").count()
        first.locator("summary").click()
        assert re.search(r" = [\d.]+ USD", first.locator("ol").inner_text())
        _sound(page)
        first.get_by_role("button", name=re.compile("^Dismiss")).click()
        expect(page.locator("#suggestions > ul > li")).to_have_count(before - 1)


# ---------------------------------------------------------------------- the chart


def test_days_of_the_chart_can_be_pointed_at_and_gone_through_by_keyboard(look: Open, full: Server) -> None:
    page = look(full, WRITES)
    points = _asked(full, "trend?period=30d&each=day&horizon=0")["points"]
    expect(page.locator("#chart path.bar")).to_have_count(30)
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#tip")).to_be_visible()
    assert re.search(r"\$\d", page.locator("#tip").inner_text())
    page.mouse.move(0, 0)
    expect(page.locator("#tip")).to_be_hidden()
    page.locator("#chart").focus()
    page.keyboard.press("End")
    expect(page.locator("#days-live")).to_contain_text("so far")
    page.keyboard.press("ArrowLeft")
    live = page.locator("#days-live").inner_text()
    assert f"{points[-2]['calls']} calls" in live
    shown = re.search(r"\$([\d.]+)", live)
    assert shown is not None
    assert abs(Decimal(shown[1]) - Decimal(points[-2]["cost"])) <= Decimal("0.0001")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


# ---------------------------------------------------------------------- when things go wrong


def test_a_server_that_is_gone_is_said_and_what_was_shown_stays(look: Open, full: Server) -> None:
    page = look(full, WRITES)
    expect(page.locator("#cards .card")).to_have_count(4)
    page.context.set_offline(True)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#trouble")).to_contain_text("does not answer")
    expect(page.locator("#figures")).to_be_visible()
    _sound(page)
    page.context.set_offline(False)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#trouble")).to_be_hidden()


def test_figures_are_brought_up_to_date_by_themselves(look: Open, browser: Browser, full: Server) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    page.goto(f"{full.url}#key={READS}")
    expect(page.locator("#cards .card")).to_have_count(4)
    with page.expect_response(lambda answer: "metrics" in answer.url):
        page.clock.run_for(31_000)
    context.close()


# ---------------------------------------------------------------------- mounted


@contextmanager
def _running(application: Any) -> Iterator[str]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def test_the_page_finds_its_api_wherever_it_is_mounted(
    look: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "ledger.db", 1)
    inner = app(str(tmp_path / "ledger.db"), keys=Keys(of_environment({"COSTSPAN_API_KEYS": KEYS})))
    with _running(Starlette(routes=[Mount("/ops/cost", inner)])) as url:
        page = look(f"{url}/ops/cost", WRITES)
        expect(page.locator("#cards .card")).to_have_count(4)
        assert page.url == f"{url}/ops/cost/"
    inner.close()
