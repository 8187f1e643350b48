"""Bearer keys of the HTTP API: who may read, who may write, and where that is kept.

A key is 256 random bits, shown once when it is made. The file holds its SHA-256: of something random that is as good as
a slow hash, and quick enough for every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Scope = Literal["read", "write"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

VARIABLE: Final = "COSTSPAN_API_KEYS"
PREFIX: Final = "csk_"
_SHORTEST: Final = 24
"""Characters of a key that somebody has thought up: no hash makes up for a short one."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LOOK_SECONDS: Final = 1.0


class Key(NamedTuple):
    """A key as it is kept. Whoever may write may read."""

    name: str
    scope: Scope
    sha256: str
    made: str = ""
    """When, ISO 8601; empty for keys of the environment."""

    def may(self, scope: Scope) -> bool:
        """Whether it is enough for something that needs this scope."""
        return scope == "read" or self.scope == "write"


def new_secret() -> str:
    """A key that nobody has yet."""
    return PREFIX + secrets.token_urlsafe(32)


def key_of(name: str, scope: str, secret: str) -> Key:
    """A key by its parts. Raises ValueError, which never holds the secret."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a key's name is up to 64 letters, digits, and ._@-, not {name[:80]!r}")
    if scope not in SCOPES:
        raise ValueError(f"the scope of key {name!r} must be read or write, not {scope[:20]!r}")
    if len(secret) < _SHORTEST:
        raise ValueError(
            f"key {name!r} is too short: {_SHORTEST} characters or more, such as `costspan serve keys add`"
        )
    return Key(name, "write" if scope == "write" else "read", _hash(secret))


def of_environment(environ: Mapping[str, str] | None = None) -> tuple[Key, ...]:
    """The keys of `COSTSPAN_API_KEYS`: `NAME:SCOPE:KEY`, separated by commas. Raises ValueError."""
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    found = []
    for number, part in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, _, rest = part.partition(":")
        scope, sign, secret = rest.partition(":")
        if not sign:
            raise ValueError(f"{VARIABLE}, key {number}: write NAME:SCOPE:KEY, such as grafana:read:csk_...")
        try:
            found.append(key_of(name.strip(), scope.strip(), secret.strip()))
        except ValueError as error:
            raise ValueError(f"{VARIABLE}, key {number}: {error}") from None
    return tuple(found)


class Keys:
    """The keys that hold now: those given, and those of a file, which is read again when it has changed."""

    def __init__(self, given: Iterable[Key] = (), path: Path | None = None) -> None:
        """Raises ValueError for a file that cannot be used, and for a name that is there twice."""
        self._given = tuple(given)
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._looked = 0.0
        self._known: tuple[Key, ...] = ()
        self._look()

    def __bool__(self) -> bool:
        """Whether anybody may ask anything."""
        return bool(self._known)

    @property
    def names(self) -> tuple[str, ...]:
        """Whose they are."""
        return tuple(key.name for key in self._known)

    def find(self, secret: str) -> Key | None:
        """The key with this secret. All are compared, each in constant time."""
        if self.path is not None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        given = _hash(secret)
        found = None
        for key in self._known:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _look(self) -> None:
        self._looked = time.monotonic()
        stamp = None
        if self.path is not None:
            try:
                stat = self.path.stat()
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ValueError(f"{self.path} cannot be read: {error.strerror or error}") from None
        if stamp == self._seen and self._known:
            return
        file = read_keys(self.path) if self.path is not None and stamp is not None else ()
        names = [key.name for key in (*self._given, *file)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two keys are named {twice!r}: the audit log could not tell them apart")
        self._seen, self._known = stamp, (*self._given, *file)


# ------------------------------------------------------------------ the file


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file; none if it is not there. Raises ValueError for one that cannot be used."""
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_read(entry) for entry in kept["keys"])
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is no file of keys: `costspan serve keys add` writes one") from None


def add_key(path: Path, name: str, scope: str) -> str:
    """Make a key, keep its hash in the file, and return it: it is never to be seen again. Raises ValueError."""
    secret = new_secret()
    key = key_of(name, scope, secret)._replace(made=datetime.now(UTC).isoformat(timespec="seconds"))
    known = read_keys(path)
    if name in {other.name for other in known}:
        raise ValueError(f"{path} has a key {name!r} already: remove it first, or give another name")
    _write(path, (*known, key))
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file: servers stop knowing it within a second. Raises ValueError if it is not there."""
    known = read_keys(path)
    left = [key for key in known if key.name != name]
    if len(left) == len(known):
        there = ", ".join(repr(key.name) for key in known) or "none"
        raise ValueError(f"{path} has no key {name!r}; there is {there}")
    _write(path, left)


def _read(entry: Any) -> Key:
    key = Key(str(entry["name"]), entry["scope"], str(entry["sha256"]), str(entry.get("made", "")))
    if key.scope not in SCOPES or not re.fullmatch(r"[0-9a-f]{64}", key.sha256) or not _NAME.fullmatch(key.name):
        raise ValueError("not a key")
    return key


def _write(path: Path, keys: Iterable[Key]) -> None:
    text = json.dumps({"keys": [key._asdict() for key in keys]}, indent=1) + "\n"
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
