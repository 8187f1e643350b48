"""The file `costspan.toml`: budgets and routing; read, watched for changes, and edited without losing a comment."""

from __future__ import annotations

import codecs
import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing.words import did_you_mean
from costspan_processor.budgets.model import FIELDS, Budget
from costspan_processor.budgets.routing import ConfigurationError, Routing, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_log = logging.getLogger("costspan.budgets")

_EDITING_SECONDS: Final = 5.0
"""How long one who edits waits for another."""


@dataclass(frozen=True)
class Configuration:
    """What a file or a variable says. All methods raise ConfigurationError, a ValueError, with all that is wrong."""

    budgets: tuple[Budget, ...] = ()
    routing: Routing | None = None

    @classmethod
    def read(cls, path: str | Path) -> Configuration:
        """The configuration of a TOML file: `[[budgets]]`, with the fields of `Budget`, and `[routing]`.

        The models of the routing are still to be checked by a price book.
        """
        return cls.of_toml(_text(Path(path)), str(path))

    @classmethod
    def of_toml(cls, text: str, where: str) -> Configuration:
        """The configuration of a text, which `where` names in errors."""
        return cls._of(_toml(text, where), where)

    @classmethod
    def of_json(cls, text: str, where: str) -> Configuration:
        """Budgets as a list in JSON, as `COSTSPAN_BUDGETS` has them; `where` names it in errors."""
        import json

        try:
            tables = json.loads(text, parse_float=Decimal)
        except json.JSONDecodeError as error:
            raise ConfigurationError([f"{where}: line {error.lineno}, column {error.colno}: {error.msg}"]) from None
        except (ValueError, RecursionError) as error:
            raise ConfigurationError([f"{where}: cannot be read as JSON: {error}"]) from None
        problems: list[str] = []
        budgets = _budgets(tables, f"{where}: ", problems)
        if problems:
            raise ConfigurationError(problems)
        return cls(budgets)

    @classmethod
    def _of(cls, document: Mapping[str, Any], where: str) -> Configuration:
        known = [field.name for field in fields(cls)]
        problems = [
            f"{where}: unknown key {key!r}{did_you_mean(key, known, otherwise=True)}"
            for key in document
            if key not in known
        ]
        budgets = _budgets(document.get("budgets", []), f"{where}: budgets", problems)
        routing = None
        if "routing" in document:
            try:
                routing = Routing.read(document["routing"], where)
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(problems)
        return cls(budgets, routing)


def merged(
    file: Iterable[Budget] = (), environment: Iterable[Budget] = (), code: Iterable[Budget] = ()
) -> tuple[Budget, ...]:
    """The budgets of all three. Of one name, that of the code wins over the environment's, and that over the file's.

    Raises ValueError if one of the three has a name twice.
    """
    found: dict[str, Budget] = {}
    for layer in (file, environment, code):
        budgets = tuple(layer)
        names = [budget.name for budget in budgets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two budgets are named {twice!r}: a name must be unique")
        found.update(zip(names, budgets, strict=True))
    return tuple(found.values())


class Watched:
    """A configuration file that may change, come and go while the program runs. Nothing here raises.

    `configuration` is what is in force: the newest version that could be read; none of a file that is not there yet.
    What is wrong with a newer one is logged once, and kept in `problem`, which is empty when all is well.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.configuration = Configuration()
        self.problem = ""
        self._known = self._seen = self._look()
        if self._known is not None:
            self._read()

    def differs(self) -> bool:
        """Whether the file is not the one that was read, so that `changed` is to be asked. Costs a `stat`."""
        return self._look() != self._known

    def changed(self) -> bool:
        """Whether `configuration` has become another one since the last time that this was asked. Costs a `stat`.

        A version counts once two looks have found the file the same: an editor may still be writing at the first.
        """
        seen = self._look()
        before, self._seen = self._seen, seen
        if seen == self._known or seen != before:
            return False
        self._known = seen
        return self._read()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> bool:
        try:
            configuration = Configuration.read(self.path)
        except ConfigurationError as error:
            self.problem = str(error)
            _log.error("costspan: the last good configuration stays in force:\n%s", error)
            return False
        self.problem = ""
        before, self.configuration = self.configuration, configuration
        return configuration != before


# ---------------------------------------------------------------------- reading


def _text(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), path)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror or error}"]) from None


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path}: must be UTF-8, which byte {error.start} is not"]) from None


def _toml(text: str, where: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        if found is None:
            raise ConfigurationError([f"{where}: cannot be read as TOML: {error}"]) from None
        what, line, column = found.groups()
        if line is None:
            line, column = str(text.count("\n") + 1), str(len(text.rpartition("\n")[2]) + 1)
        raise ConfigurationError([f"{where}: line {line}, column {column}: {what}"]) from None


def _budgets(tables: object, place: str, problems: list[str]) -> tuple[Budget, ...]:
    """The budgets of a list of tables; what is wrong with them is added to `problems`."""
    if not isinstance(tables, list):
        problems.append(f"{place.removesuffix(': ')}: must be a list of budgets, not {shown(tables)}")
        return ()
    budgets: list[Budget] = []
    named: dict[str, int] = {}
    for position, table in enumerate(tables):
        if not isinstance(table, dict):
            problems.append(f"{place}[{position}]: must be a table, not {shown(table)}")
            continue
        name = table.get("name")
        at = f"{place}[{position}] {name!r}" if isinstance(name, str) and name else f"{place}[{position}]"
        budget, wrong = _budget(table)
        if isinstance(name, str) and name and named.setdefault(name, position) != position:
            wrong.append(f"name must be unique: that of budgets[{named[name]}] is the same")
        problems += (f"{at}: {what}" for what in wrong)
        if budget is not None:
            budgets.append(budget)
    return tuple(budgets)


def _budget(table: Mapping[str, Any]) -> tuple[Budget | None, list[str]]:
    """The budget of a table, and what is wrong with it."""
    wrong = [f"unknown field {key!r}{did_you_mean(key, FIELDS, otherwise=True)}" for key in table if key not in FIELDS]
    given: dict[str, Any] = {}
    for field in fields(Budget):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in table:
            value = table[field.name]
            problem = _misfit(field.name, value, default)
            if problem is None:
                given[field.name] = value
            else:
                wrong.append(problem)
        elif default is MISSING:
            wrong.append(f"{field.name} is missing")
    # A field that is refused is taken for a harmless one, so that the others are looked at too.
    while True:
        tried = {"name": "budget", "limit": 10**9, **given}
        try:
            budget = Budget(**tried)
        except ValueError as error:
            what = str(error).removeprefix(f"budget {tried['name']!r}: ")
            wrong.append(what)
            culprit = what.split(maxsplit=1)[0]
            if culprit not in given:
                return None, wrong
            del given[culprit]
        else:
            return (None if wrong else budget), wrong


def _misfit(name: str, value: object, default: object) -> str | None:
    """What is wrong with the kind of a value, by that of the field's default."""
    if name == "name":
        return None if isinstance(value, str) and value else f"name must be a text, not {shown(value)}"
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            return f"{name} must be a table, not {shown(value)}"
        inner = next((key for key, part in value.items() if isinstance(part, (list, Mapping))), None)
        return None if inner is None else f"{name}.{inner} must be a single value, not {shown(value[inner])}"
    if isinstance(default, tuple):
        return None if isinstance(value, list) else f"{name} must be a list, not {shown(value)}"
    return f"{name} must be a single value, not {shown(value)}" if isinstance(value, (list, Mapping)) else None


# ---------------------------------------------------------------------- editing


def set_budget(path: str | Path, given: Mapping[str, Any]) -> None:
    """Write fields of one budget, that of the name in `given`, into a file, which is made if it is not there.

    Fields that are not given stay as they are; None takes one out. All else in the file stays as it is. Raises
    ConfigurationError, and leaves the file alone, if the result could not be read.
    """
    name = given.get("name")
    values = {key: _plain(value, f"{path}: {key}") for key, value in given.items()}

    def edit(text: str, tables: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        position = next((number for number, table in enumerate(tables) if table.get("name") == name), len(tables))
        before = tables[position] if position < len(tables) else {}
        wanted = {key: value for key, value in {**before, **values}.items() if value is not None}
        after = [*tables[:position], wanted, *tables[position + 1 :]]
        return (_with(text, position, before, wanted) if before else _and(text, len(tables), wanted)), after

    _edit(Path(path), edit, may_be_new=True)


def remove_budget(path: str | Path, name: str) -> None:
    """Take a budget out of a file, with the comment right above it. All else in the file stays as it is.

    Raises ConfigurationError, and leaves the file alone, if there is no such budget or the result could not be read.
    """

    def edit(text: str, tables: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        names = [str(table.get("name")) for table in tables]
        if name not in names:
            meant = did_you_mean(name, names, otherwise=True)
            raise ConfigurationError([f"{path}: there is no budget {name!r}{meant}"])
        position = names.index(name)
        return _without(text, position), tables[:position] + tables[position + 1 :]

    _edit(Path(path), edit)


def _edit(
    path: Path,
    edit: Callable[[str, list[dict[str, Any]]], tuple[str, list[dict[str, Any]]]],
    *,
    may_be_new: bool = False,
) -> None:
    """Replace a file by what `edit` makes of its text and its budgets; it returns those that must come of it, too."""
    # What a link points to is replaced, not the link.
    real = path.resolve()
    new = real.with_name(f"{real.name}.new")
    try:
        # The new file is the lock as well: what is read below is what the last one wrote.
        descriptor = _locked(new)
        try:
            with os.fdopen(descriptor, "wb") as file:
                there = real.exists() or not may_be_new
                file.write(_edited(path, real.read_bytes() if there else b"", edit))
                file.flush()
                os.fsync(file.fileno())
            if there:
                new.chmod(stat.S_IMODE(real.stat().st_mode))
            new.replace(real)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        if os.name == "posix":
            folder = os.open(real.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be changed: {error.strerror or error}"]) from None


def _locked(new: Path) -> int:
    """A file that was not there, open to be written: who has it may change the one that it becomes."""
    until = time.monotonic() + _EDITING_SECONDS
    while True:
        try:
            return os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            if time.monotonic() > until:
                why = "somebody else is changing the configuration, or died while doing so: if so, remove this file"
                raise ConfigurationError([f"{new}: {why}"]) from None
        time.sleep(0.01)


def _edited(
    path: Path, raw: bytes, edit: Callable[[str, list[dict[str, Any]]], tuple[str, list[dict[str, Any]]]]
) -> bytes:
    text = _decoded(raw, path)
    windows = "\r\n" in text and text.count("\r\n") == text.count("\n")
    if windows:
        text = text.replace("\r\n", "\n")
    if text and not text.endswith("\n"):
        text += "\n"
    where = str(path)
    before = _toml(text, where)
    tables = before.pop("budgets", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError([f"{where}: budgets: must be a list of budgets, not {shown(tables)}"])
    text, wanted = edit(text, tables)
    try:
        after = _toml(text, where)
    except ConfigurationError:
        after = {}
    if {"budgets": [], **after} != {**before, "budgets": wanted}:
        raise ConfigurationError([f"{where}: is written in a way that this edit would harm: change it by hand"])
    Configuration._of(after, where)
    if windows:
        text = text.replace("\n", "\r\n")
    return (codecs.BOM_UTF8 if raw.startswith(codecs.BOM_UTF8) else b"") + text.encode()


def _plain(value: object, where: str) -> Any:
    """A value as TOML has it, numbers exact."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        number = Decimal(str(value))
        if number.is_finite():
            return number
    if isinstance(value, str) and value == value.encode(errors="ignore").decode():
        return value
    if isinstance(value, Mapping):
        return {str(_plain(str(key), where)): _plain(part, where) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, where) for part in value]
    raise ConfigurationError([f"{where} must be something that a TOML file can have, not {shown(value)}"])


# What is new or gone is a matter of lines: tomlkit takes the comment above a table for a part of the table before.

_BUDGET: Final = re.compile(r"""\s*\[\[\s*(["']?)budgets\1\s*\]\]\s*(#.*)?""")
_OTHER: Final = re.compile(r"""\s*\[(?!\[?\s*(["']?)budgets\1\s*\.)""")


def _with(text: str, position: int, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The text with a budget changed."""
    import tomlkit

    document = tomlkit.parse(text)
    budgets: Any = document["budgets"]
    _fill(budgets[position], before, wanted)
    return tomlkit.dumps(document)


def _fill(table: Any, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    from tomlkit.items import InlineTable

    body = table.value.body
    # Comments after the last field are about what follows: a new field goes before them.
    tail = []
    while body and body[-1][0] is None:
        tail.append(body.pop())
    for key in before:
        if key not in wanted:
            del table[key]
    for key, value in wanted.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not isinstance(table[key], InlineTable):
            _fill(table[key], old, value)
        elif key not in before or old != value:
            table[key] = _item(value)
    body.extend(reversed(tail))


def _item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, Decimal):
        return tomlkit.value(f"{value:f}")
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, part in value.items():
            table[key] = _item(part)
        return table
    return tomlkit.item(value)


def _and(text: str, count: int, wanted: Mapping[str, Any]) -> str:
    """The text with a further budget behind the others."""
    import tomlkit
    from tomlkit.items import AoT

    ordered = sorted(wanted.items(), key=lambda pair: FIELDS.index(pair[0]) if pair[0] in FIELDS else len(FIELDS))
    document = tomlkit.parse(text)
    listed: Any = document.get("budgets")
    if listed is not None and not isinstance(listed, AoT):
        listed.append(_item(dict(ordered)))
        return tomlkit.dumps(document)
    table = tomlkit.table()
    for key, value in ordered:
        table[key] = _item(value)
    lines = text.split("\n")
    # After the last budget, or at the end, which is an empty line.
    end = _block(lines, count - 1)[1] if count else len(lines) - 1
    added = ["[[budgets]]", *tomlkit.dumps(table).rstrip("\n").split("\n")]
    return "\n".join([*lines[:end], *([""] if end and lines[end - 1].strip() else []), *added, *lines[end:]])


def _without(text: str, position: int) -> str:
    """The text with a budget taken out."""
    import tomlkit
    from tomlkit.items import AoT

    document = tomlkit.parse(text)
    listed: Any = document["budgets"]
    if not isinstance(listed, AoT):
        del listed[position]
        return tomlkit.dumps(document)
    lines = text.split("\n")
    start, end = _block(lines, position)
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    while end < len(lines) and not lines[end].strip() and (start == 0 or not lines[start - 1].strip()):
        end += 1
    rest = "\n".join([*lines[:start], *lines[end:]]).rstrip("\n")
    return f"{rest}\n" if rest else ""


def _block(lines: Sequence[str], position: int) -> tuple[int, int]:
    """The lines of a budget: from its header to its last field, and the comments right under that."""
    headers = [number for number, line in enumerate(lines) if _BUDGET.fullmatch(line)]
    if position >= len(headers):
        return 0, 0
    start = headers[position]
    following = (number for number in range(start + 1, len(lines)) if _OTHER.match(lines[number]))
    border = next(following, len(lines))
    end = max(
        number
        for number in range(start, border)
        if lines[number].strip() and not lines[number].lstrip().startswith("#")
    )
    comments = end + 1
    while comments < border and lines[comments].lstrip().startswith("#"):
        comments += 1
    # Comments that reach the next header are about that.
    return start, end + 1 if comments == border < len(lines) else comments
