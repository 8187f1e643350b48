"""Just enough of PromQL to rename a label, and to say how far back a query looks.

Grafana's variables may stand in it. It must be valid: what is not is passed on as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DURATION: Final = r"(?:[0-9]+(?:ms|[smhdwy]))+"
_TOKEN: Final = re.compile(
    rf"""
      (?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<variable>\$\w+|\$\{{[^}}]*\}})
    | (?P<duration>{_DURATION}(?![\w.]))
    | (?P<number>[0-9.][\w.]*)
    | (?P<name>[A-Za-z_][\w:]*)
    | (?P<sign>=~|!~|!=|==|<=|>=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_MATCHES: Final = frozenset({"=", "!=", "=~", "!~"})
_LISTS: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_LABEL_ARGUMENTS: Final[Mapping[str, frozenset[int]]] = {
    "count_values": frozenset({0}),
    "label_replace": frozenset({1, 3}),
    "label_join": frozenset({1, *range(3, 20)}),
    "sort_by_label": frozenset(range(1, 20)),
    "sort_by_label_desc": frozenset(range(1, 20)),
}
"""Functions that take names of labels as strings, and at which positions."""


def _tokens(expr: str) -> list[tuple[str, str]]:
    return [(found.lastgroup or "", found[0]) for found in _TOKEN.finditer(expr)]


def seconds(duration: str) -> float:
    """The length of a duration as Prometheus writes it.

    >>> seconds("1d12h"), seconds("250ms")
    (129600.0, 0.25)
    """
    parts: list[tuple[str, str]] = re.findall(r"([0-9]+)(ms|[smhdwy])", duration)
    return sum(int(count) * _SECONDS[unit] for count, unit in parts)


def renamed(expr: str, old: str, new: str) -> str:
    """The expression with one label under another name, wherever it is a label and nowhere else.

    >>> renamed('sum by (job) (job:calls:sum{job=~"job"}) * on (job) x{kind="job"}', "job", "service")
    'sum by (service) (job:calls:sum{service=~"job"}) * on (service) x{kind="job"}'
    """
    tokens = _tokens(expr)
    solid = [number for number, (kind, _) in enumerate(tokens) if kind != "space"]
    out = [text for _, text in tokens]
    # What each open bracket is of: a list of labels, the matchers of a selector, or a call and its present argument.
    inside: list[tuple[str, int]] = []
    for place, number in enumerate(solid):
        kind, text = tokens[number]
        before = tokens[solid[place - 1]][1] if place else ""
        after = tokens[solid[place + 1]][1] if place + 1 < len(solid) else ""
        where, argument = inside[-1] if inside else ("", 0)
        if text in {"(", "{", "["} and kind == "sign":
            inside.append((before if text == "(" else text, 0))
        elif text in {")", "}", "]"} and kind == "sign" and inside:
            inside.pop()
        elif text == "," and inside:
            inside[-1] = (where, argument + 1)
        elif kind == "name" and text == old:
            # Grafana's label_values(metric, label) names its label last.
            named = where == "label_values" and after == ")"
            if named or where in _LISTS or (where == "{" and after in _MATCHES):
                out[number] = new
        elif (
            kind == "string"
            and text[1:-1] == old
            and ((where == "{" and after in _MATCHES) or argument in _LABEL_ARGUMENTS.get(where, ()))
        ):
            out[number] = f"{text[0]}{new}{text[0]}"
    return "".join(out)


def renamed_in_template(text: str, old: str, new: str) -> str:
    """A template of an alert or of a legend with one label under another name, in the queries that stand in it too.

    >>> renamed_in_template('{{ $labels.job }} {{job}} {{ printf "x{job=%q}" $labels.job | query }}', "job", "app")
    '{{ $labels.app }} {{app}} {{ printf "x{app=%q}" $labels.app | query }}'
    """
    name = re.escape(old)
    lists = "|".join(_LISTS)
    text = re.sub(rf"(\$labels\.|\.Labels\.|\.labels\.){name}\b", rf"\g<1>{new}", text)
    text = re.sub(rf"(\{{\{{\s*){name}(\s*\}}\}})", rf"\g<1>{new}\2", text)
    text = re.sub(rf"([{{,]\s*){name}(\s*(?:=~|!~|!=|=))", rf"\g<1>{new}\2", text)
    return re.sub(
        rf"\b((?:{lists})\s*\()([^()]*)\)",
        lambda found: found[1] + re.sub(rf"(?<![\w:]){name}(?![\w:])", new, found[2]) + ")",
        text,
    )


def lookback(expr: str, variables: Mapping[str, float] | None = None) -> float:
    """Seconds before its evaluation of the oldest sample that the expression can read.

    variables: how long Grafana's variables are that stand for durations, by name without `$`.

    >>> lookback("rate(x[5m])"), lookback("max_over_time(sum(rate(x[5m] offset 1d))[1w:1h]) / x offset 2w")
    (300.0, 1209600.0)
    >>> lookback("increase(x[$__range])", {"__range": 86400})
    86400.0
    """
    solid = iter([token for token in _tokens(expr) if token[0] != "space"])
    return _lookback(solid, variables or {}, "")


def _lookback(tokens: Iterator[tuple[str, str]], variables: Mapping[str, float], closing: str) -> float:
    oldest = last = 0.0
    for kind, text in tokens:
        if kind == "sign" and text == closing:
            break
        if kind == "sign" and text == "(":
            last = _lookback(tokens, variables, ")")
        elif kind == "sign" and text == "{":
            for other, end in tokens:
                if other == "sign" and end == "}":
                    break
        elif kind == "sign" and text == "[":
            last += _range(tokens, variables)
        elif kind == "name" and text == "offset":
            last += _offset(tokens, variables)
        elif kind == "name":
            last = 0.0
        oldest = max(oldest, last)
    return oldest


def _range(tokens: Iterator[tuple[str, str]], variables: Mapping[str, float]) -> float:
    """What stands in brackets: a range, or that of a subquery before its step."""
    length: float | None = None
    for kind, text in tokens:
        if kind == "sign" and text == "]":
            break
        if length is None:
            length = _length(kind, text, variables)
    return length or 0.0


def _offset(tokens: Iterator[tuple[str, str]], variables: Mapping[str, float]) -> float:
    for kind, text in tokens:
        if text == "-":
            return -_length(*next(tokens, ("", "")), variables)
        if text != "+":
            return _length(kind, text, variables)
    return 0.0


def _length(kind: str, text: str, variables: Mapping[str, float]) -> float:
    if kind == "variable":
        return variables.get(text.strip("${}").partition(":")[0], 0.0)
    return seconds(text) if kind == "duration" else 0.0
