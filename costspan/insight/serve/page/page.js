// The page: asks the API with the key that the tab holds, and draws what it says. Data becomes text, never markup.
"use strict";

const BASE = "api/v1/cost/"; // relative, so that the page works under any path that it is mounted at
const EVERY = 30_000;
const KEPT = "costspan.key";
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
let key = null;
let mayWrite = false;
let timer = 0;
let busy = false;
let series = null; // what the chart shows
let chosen = -1;
const unfolded = new Set(); // suggestions

// ---------------------------------------------------------------- words and figures

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function shape(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// As the command line has it: six decimals under a cent, four under a dollar, else two; a dash is "not known".
function usd(text) {
  if (text === null || text === undefined) return "—";
  const amount = Number(text);
  const size = Math.abs(amount);
  const sign = amount < 0 ? "-" : "";
  if (size === 0) return "$0.00";
  if (size < 0.000001) return `<$0.000001`;
  for (const [places, under] of [[6, 0.01], [4, 1], [2, Infinity]]) {
    const shown = size.toFixed(places);
    if (Number(shown) < under) return sign + "$" + grouped(shown);
  }
  return "—";
}

function grouped(shown) {
  const [whole, part] = shown.split(".");
  const separated = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part === undefined ? separated : `${separated}.${part}`;
}

function axisUsd(amount, step) {
  const places = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  return "$" + grouped(amount.toFixed(places));
}

function share(part) {
  if (part === null || part === undefined) return "—";
  if (part > 0 && part < 0.005) return "<1 %";
  return (part < 1 && part >= 0.995 ? "99.9" : String(Math.round(part * 100))) + " %";
}

const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

// Days and times are the server's: what it says of a moment is shown, not what this machine's clock makes of it.
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
function dayOf(iso, weekday = false) {
  const [year, month, day] = iso.slice(0, 10).split("-").map(Number);
  const name = weekday ? `${WEEKDAYS[new Date(Date.UTC(year, month - 1, day)).getUTCDay()]}, ` : "";
  return `${name}${MONTHS[month - 1]} ${day}`;
}
const momentOf = (iso) => `${dayOf(iso)}, ${iso.slice(11, 16)}`;

// ---------------------------------------------------------------- the API

class Trouble extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, method = "GET") {
  let answer;
  try {
    answer = await fetch(new URL(BASE + path, document.baseURI), {
      method, headers: { Authorization: `Bearer ${key}` }, cache: "no-store", redirect: "error",
    });
  } catch {
    throw new Trouble(0, "The server does not answer.");
  }
  let said = null;
  try {
    said = await answer.json();
  } catch {
    throw new Trouble(answer.status, `The server answered with ${answer.status} and nothing that can be read.`);
  }
  if (!answer.ok) {
    const wait = answer.headers.get("Retry-After");
    throw new Trouble(answer.status, `${said.detail ?? answer.status}${wait ? `; again in ${wait} s` : ""}`);
  }
  return said;
}

async function refresh() {
  if (!key || busy) return;
  busy = true;
  clearTimeout(timer);
  $("refresh").disabled = true;
  const asking = key;
  try {
    const [who, metrics, trend, budgets, alerts] = await Promise.all([
      ask("key"), ask("metrics?limit=8"), ask("trend?period=30d&each=day&horizon=0"), ask("budgets"),
      ask("alerts?acknowledged=false&limit=50"),
    ]);
    const suggestions = await ask("suggestions?limit=8").catch((trouble) => {
      if (trouble.status === 404) return null;
      throw trouble;
    });
    if (asking !== key) return;
    mayWrite = who.scope === "write";
    draw(metrics, trend, budgets, alerts, suggestions);
    trouble("");
  } catch (problem) {
    if (!(problem instanceof Trouble)) throw problem;
    if (asking === key) failed(problem);
  } finally {
    busy = false;
    $("refresh").disabled = false;
    clearTimeout(timer);
    if (key) timer = setTimeout(tick, EVERY);
  }
}

function tick() {
  // A tab that nobody looks at asks for nothing; it is brought up to date when somebody does.
  if (document.hidden) timer = setTimeout(tick, EVERY);
  else refresh();
}

function failed(problem) {
  if (problem.status === 401) {
    leave("This key is not known. It may have been removed, or the server was started anew.");
    return;
  }
  const old = $("figures").hidden ? "" : " What is shown is from before.";
  trouble(`${problem.message}${old} Trying again by itself.`);
}

function trouble(text) {
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

// ---------------------------------------------------------------- the key

function enter(secret) {
  key = secret;
  sessionStorage.setItem(KEPT, secret);
  $("key").hidden = true;
  $("tools").hidden = false;
  $("state").textContent = "Asking…";
  refresh();
}

function leave(why = "") {
  key = null;
  clearTimeout(timer);
  sessionStorage.removeItem(KEPT);
  for (const id of ["figures", "empty", "tools"]) $(id).hidden = true;
  trouble("");
  $("state").textContent = "";
  $("refused").textContent = why;
  $("key").hidden = false;
  $("secret").value = "";
  $("secret").focus();
}

// ---------------------------------------------------------------- drawing

function draw(metrics, trend, budgets, alerts, suggestions) {
  $("state").textContent = `As of ${momentOf(metrics.at)}${metrics.at.slice(16, 19)} (${metrics.zone})`;
  const empty = !metrics.calls_known;
  const anything = !empty || budgets.budgets.length > 0 || alerts.alerts.length > 0;
  $("empty").hidden = !empty;
  $("figures").hidden = !anything;
  if (!anything) return;
  for (const id of ["now", "days", "top"]) $(id).hidden = empty;
  if (!empty) {
    cards(metrics);
    days(trend, metrics);
    for (const [id, what] of [["by_model", "model"], ["by_feature", "feature"], ["by_user", "user"]]) {
      put(id, metrics[id].length ? spenders(metrics[id], what) : quiet(...unsaid(what)));
    }
  }
  put("budgets", budgets.budgets.length ? el("ul", { class: "list" }, ...budgets.budgets.map(budget))
    : quiet("No budgets yet. To be warned at $20 a month: ", "costspan budgets set all --limit 20"));
  put("alerts", alerts.alerts.length ? el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Open alerts" },
    el("ul", { class: "list" }, ...alerts.alerts.map(alert)),
    alerts.more ? quiet(`${count(alerts.more, "more alert")} not listed.`) : null)
    : quiet("Nothing waits to be seen to."));
  $("advice").hidden = suggestions === null;
  if (suggestions !== null) {
    put("suggestions", suggestions.suggestions.length
      ? el("ul", { class: "list" }, ...suggestions.suggestions.map(suggestion))
      : quiet(suggestions.note || "Nothing to suggest."));
  }
}

function put(id, node) {
  const place = $(id);
  // Whoever has come to a button by keyboard stays there.
  const held = place.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const at = place.querySelector(".scroll")?.scrollTop ?? 0;
  place.replaceChildren(node);
  if (held) place.querySelector(`[data-id="${CSS.escape(held)}"]`)?.focus();
  if (place.querySelector(".scroll")) place.querySelector(".scroll").scrollTop = at;
}

const quiet = (text, code) => el("p", { class: "quiet" }, text, code ? el("code", {}, code) : null);
const unsaid = (what) => what === "model" ? ["No calls this month yet."]
  : [`No call says its ${what}. Mark them with `, `with costspan.track(${what}="...")`];

function card(what, figure, ...more) {
  return el("div", { class: "card" }, el("p", { class: "what" }, what), el("p", { class: "figure" }, figure),
    ...more.filter(Boolean).map((line) => el("p", { class: "more" }, line)));
}

function cards(metrics) {
  const { today, week, month, projected } = metrics;
  const range = projected.low === null ? "" : `${usd(projected.low)} to ${usd(projected.high)} in 8 of 10 cases`;
  $("cards").replaceChildren(
    card("Today", usd(today.cost), count(today.calls, "call")),
    card("This week", usd(week.cost), count(week.calls, "call")),
    card("This month", usd(month.cost), count(month.calls, "call"),
      projected.expected === null ? `No projection: ${projected.note}` : `Projected: ${usd(projected.expected)}`, range),
    card("Cache hit rate, this month", share(metrics.cache_hit_rate), "of input tokens", `${usd(month.saved)} saved`),
  );
  const notes = [month.note && `This month, ${month.note}.`,
    metrics.missing && `${count(metrics.missing, "call")} never reached the ledger.`].filter(Boolean);
  $("note").textContent = notes.join(" ");
  $("note").hidden = !notes.length;
}

function spenders(groups, what) {
  const most = Math.max(...groups.map((group) => group.share ?? 0));
  return el("table", { "aria-label": `Cost by ${what}, dearest first` },
    el("tbody", {}, ...groups.map((group) => {
      const title = [count(group.calls, "call"), group.note].filter(Boolean).join("; ");
      return el("tr", { title }, el("th", { class: "name", scope: "row" }, group.name, meter(most ? (group.share ?? 0) / most : 0)),
        el("td", { class: "money" }, usd(group.cost)), el("td", { class: "share" }, share(group.share)));
    })));
}

function meter(part, status = "") {
  const inside = el("div");
  inside.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  return el("div", { class: `meter ${status}`, "aria-hidden": "true" }, part > 0 ? inside : null);
}

const STATUS = { ok: "✓ ok", warning: "▲ warning", exceeded: "✕ exceeded", unknown: "? unknown" };

// What users call the attribute: costspan.team is team, user.id is user, gen_ai.provider.name is provider.
const plainly = (name) => name.replace(/^(costspan\.tag|costspan|gen_ai)\./, "").replace(/^(request|response)\./, "").replace(/\.(id|name)$/, "");

function budget(one) {
  const money = one.spent === null ? `— of ${usd(one.limit)}` : `${usd(one.spent)} of ${usd(one.limit)} · ${share(one.used)}`;
  const scope = Object.entries(one.scope).map(([name, value]) => `${plainly(name)} ${value}`).join(", ");
  const rest = [one.period, one.per && `each ${plainly(one.per)}`, scope, `policy ${one.policy}`,
    one.remaining !== null && `${usd(one.remaining)} left`].filter(Boolean).join(" · ");
  return el("li", {},
    el("div", { class: "line" }, el("span", { class: "name" }, one.name), el("span", { class: "money" }, money)),
    meter(one.used ?? 0, one.status),
    el("div", { class: "line" }, el("span", { class: "quiet" }, rest),
      el("span", { class: `mark ${one.status}` }, STATUS[one.status])),
    one.note ? el("p", { class: "quiet" }, one.note) : null);
}

const SEVERITY = { info: "● info", warning: "▲ warning", critical: "✕ critical" };

function alert(one) {
  const said = el("p", {}, el("span", { class: `mark ${one.severity}` }, SEVERITY[one.severity]), ` ${one.message}`);
  const button = mayWrite ? el("button", { type: "button", "data-id": one.id, onclick: () => acknowledge(one.id, button),
    "aria-label": `Acknowledge: ${one.message}` }, "Acknowledge") : null;
  return el("li", { class: "alert" }, el("div", {}, said, el("p", { class: "quiet" }, momentOf(one.at))), button);
}

async function act(path, button) {
  button.disabled = true;
  try {
    await ask(path, "POST");
    await refresh();
  } catch (problem) {
    if (!(problem instanceof Trouble)) throw problem;
    button.disabled = false;
    failed(problem);
  }
}

const acknowledge = (id, button) => act(`alerts/${encodeURIComponent(id)}/acknowledge`, button);

function how(one) {
  const steps = one.steps.map((step) => el("li", {}, `${step.what}: ${step.how} = ${step.result} ${step.unit}`));
  const more = el("details", { open: unfolded.has(one.id) ? "" : null },
    el("summary", { "data-id": `${one.id} how` }, "How, and why so much"),
    el("ul", {}, ...one.actions.map((action) => el("li", {}, action))), el("ol", { class: "quiet" }, ...steps),
    one.assumes ? el("p", { class: "quiet" }, `Assumed: ${one.assumes}`) : null);
  // What was unfolded stays so when the page is drawn anew.
  more.addEventListener("toggle", () => unfolded[more.open ? "add" : "delete"](one.id));
  return more;
}

function suggestion(one) {
  const low = one.savings_low, high = one.savings_high;
  const range = low === null || high === null || low === high ? usd(one.savings) : `${usd(low)} to ${usd(high)}`;
  const take = el("button", { type: "button", "data-id": `${one.id} take`, "aria-label": `Done: ${one.title}`,
    onclick: () => act(`suggestions/${encodeURIComponent(one.id)}/take`, take) }, "Done");
  const drop = el("button", { type: "button", "data-id": `${one.id} dismiss`, "aria-label": `Dismiss: ${one.title}`,
    onclick: () => act(`suggestions/${encodeURIComponent(one.id)}/dismiss`, drop) }, "Dismiss");
  return el("li", { class: "alert" }, el("div", {},
    el("p", {}, el("b", {}, one.title)),
    el("p", { class: "quiet" }, [one.savings === null ? "" : `saves ${range} a month`, `${one.priority} priority`,
      one.effort && `effort ${one.effort}`, one.taken ? "done" : ""].filter(Boolean).join(" · ")),
    how(one)),
  mayWrite && !one.taken ? el("div", { class: "tools" }, take, drop) : null);
}

// ---------------------------------------------------------------- the chart

function days(trend, metrics) {
  series = trend.points.map((point) => ({ ...point, amount: Number(point.cost) }));
  const today = metrics.at.slice(0, 10);
  for (const point of series) point.running = point.start.slice(0, 10) === today;
  const arrows = { rising: "rising", falling: "falling", flat: "no trend" };
  const slope = trend.trend.slope === null ? "" : ` by ${usd(trend.trend.slope)} a day`;
  const word = arrows[trend.trend.direction];
  const direction = word ? `${word}${word === "no trend" ? "" : slope} over ${count(trend.trend.days, "day")}` : trend.trend.note;
  $("days-said").textContent = `${usd(trend.total.cost)} in ${count(trend.total.calls, "call")}; ${direction}. Today is still running.`;
  chart();
}

function ticks(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.999);
  const found = [0];
  while (found[found.length - 1] < most * 0.999999) found.push(found.length * step);
  return found;
}

function chart() {
  const place = $("chart");
  place.querySelector("svg")?.remove();
  const width = place.clientWidth, height = place.clientHeight;
  if (!series || !width) return;
  const marks = ticks(Math.max(...series.map((point) => point.amount)));
  const top = marks[marks.length - 1], step = marks[1];
  const spent = series.some((point) => point.amount);
  const labels = marks.map((mark) => (mark === 0 ? "$0" : spent ? axisUsd(mark, step) : ""));
  const left = 12 + 7 * Math.max(...labels.map((label) => label.length)), bottom = height - 24, high = 10;
  const y = (amount) => bottom - (amount / top) * (bottom - high);
  const slot = (width - left) / series.length, bar = Math.max(2, Math.min(28, slot * 0.7));
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  marks.forEach((mark, number) => {
    svg.append(shape("line", { class: number ? "grid" : "base", x1: left, x2: width, y1: y(mark), y2: y(mark) }));
    svg.append(shape("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, labels[number]));
  });
  svg.append(shape("rect", { class: "at", id: "at", x: 0, y: high, width: slot, height: bottom - high, visibility: "hidden" }));
  const every = Math.ceil(64 / slot);
  series.forEach((point, number) => {
    const x = left + slot * number + (slot - bar) / 2, tall = bottom - y(point.amount);
    if (tall > 0) {
      const round = Math.min(3, bar / 2, tall);
      svg.append(shape("path", { class: point.running ? "bar running" : "bar",
        d: `M${x} ${bottom}V${bottom - tall + round}q0 ${-round} ${round} ${-round}h${bar - 2 * round}q${round} 0 ${round} ${round}V${bottom}z` }));
    }
    // Counted from today backwards, so that today always has its label.
    if ((series.length - 1 - number) % every === 0 && left + slot * number + slot / 2 > left + 16) {
      const end = number === series.length - 1 && slot < 40;
      svg.append(shape("text", { x: end ? width : left + slot * number + slot / 2, y: height - 6,
        "text-anchor": end ? "end" : "middle" }, dayOf(point.start)));
    }
  });
  place.prepend(svg);
  place.onpointermove = (event) => {
    const number = Math.floor((event.clientX - place.getBoundingClientRect().left - left) / slot);
    point(number, left, slot, width);
  };
  place.onpointerleave = () => point(-1);
  place.onblur = () => point(-1);
  place.onkeydown = (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -series.length, End: series.length };
    if (event.key === "Escape") point(-1);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const from = chosen < 0 ? (moves[event.key] < 0 ? series.length : -1) : chosen;
    point(Math.max(0, Math.min(series.length - 1, from + moves[event.key])), left, slot, width, true);
  };
  point(-1);
}

function point(number, left, slot, width, aloud = false) {
  const tip = $("tip"), at = $("at");
  const one = series?.[number];
  chosen = one ? number : -1;
  tip.hidden = !one;
  at?.setAttribute("visibility", one ? "visible" : "hidden");
  if (!one) return;
  const day = `${dayOf(one.start, true)}${one.running ? " (so far)" : ""}`;
  tip.replaceChildren(el("b", {}, usd(one.cost)), `${day} · ${count(one.calls, "call")}`);
  at.setAttribute("x", left + slot * number);
  const middle = left + slot * (number + 0.5), half = tip.offsetWidth / 2;
  tip.style.left = `${Math.max(0, Math.min(width - 2 * half, middle - half))}px`;
  if (aloud) $("days-live").textContent = `${day}: ${usd(one.cost)}, ${count(one.calls, "call")}`;
}

// ---------------------------------------------------------------- start

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const secret = $("secret").value.trim();
  // What no header can carry is no key.
  if (/^[\x21-\x7e]+$/.test(secret)) enter(secret);
  else $("refused").textContent = "A key has letters, digits and signs only, such as csk_…";
});
$("refresh").addEventListener("click", refresh);
$("leave").addEventListener("click", () => leave());
document.addEventListener("visibilitychange", () => { if (!document.hidden && key) refresh(); });
new ResizeObserver(chart).observe($("chart"));

// `costspan serve` prints an address with a key behind the #, which browsers keep to themselves.
const handed = new URLSearchParams(location.hash.slice(1)).get("key");
if (handed) history.replaceState(null, "", location.pathname + location.search);
const kept = handed || sessionStorage.getItem(KEPT);
if (kept) enter(kept);
else leave();
