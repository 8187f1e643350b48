"""`costspan prices update`: a newer price book, checked before it takes the place of the one that is there."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import tempfile
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from costspan._version import __version__
from costspan.book import DOWNLOADED
from costspan_pricing import BookError
from costspan_pricing.check import LARGEST, contents, parse

if TYPE_CHECKING:
    from collections.abc import Callable

PREVIOUS: Final = "book.previous.json"
"""The book that the last update replaced, beside the one that is in force."""

_SILENCE: Final = 30.0
"""Seconds without a byte after which a download is given up."""

_LONGEST: Final = 600.0
"""Seconds that a whole download may take."""

_CHUNK: Final = 1 << 16


class UpdateError(Exception):
    """A book that is not taken; the message says why. What was there stays in force."""


class Update(NamedTuple):
    """What came of an update. ``sha256`` is what to pin the same book with; ``before`` the version it would replace."""

    outcome: Literal["stored", "unchanged", "checked"]
    version: str
    before: str | None
    sha256: str
    size: int
    providers: int
    models: int
    path: Path


def update(
    source: str,
    folder: Path,
    bundled: str,
    *,
    sha256: str | None = None,
    check_only: bool = False,
    progress: Callable[[int, int | None], None] = lambda _done, _of: None,
) -> Update:
    """Takes the book at ``source`` into ``folder``, or only checks it; the one that was there is kept beside it.

    ``source`` is a file, an https:// address, or an http:// one of this machine. ``bundled`` is the version of the
    book of the package: neither an older one than that is taken nor an older one than is there. ``sha256`` is what the
    file must have, in hex. ``progress`` is told the bytes that have come, and how many there will be if that is known.

    Raises `UpdateError`.
    """
    data = fetch(source, progress)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.strip().lower():
        raise UpdateError(f"{source} has the sha256 {digest}, not {sha256}: it is not the file that was meant")
    try:
        book = parse(data, source)
    except BookError as error:
        raise UpdateError(str(error)) from None
    version = book.get("book_version")
    if version is None or "dated" not in book:
        raise UpdateError(
            f"{source} has no {'dated' if version else 'book_version'}, so nobody could tell whether it is newer. "
            "It is no book to download: your own prices belong into the file that COSTSPAN_PRICE_FILE names"
        )
    path = folder / DOWNLOADED
    before, there = _there(path)
    for other, what in ((bundled, "that came with the package"), (before, f"in {path}")):
        if other is not None and _order(version) < _order(other):
            raise UpdateError(f"{source} is the book {version}, older than {other} {what}: nothing is changed")
    if before == version and there != data:
        raise UpdateError(
            f"{source} is another book than {path}, and both call themselves {version}: it needs a new one"
        )
    files = [file for files in book["providers"].values() for file in (files if isinstance(files, list) else [files])]
    result = Update(
        "checked",
        version,
        before,
        digest,
        len(data),
        len(book["providers"]),
        sum(len(file.get("models", ())) for file in files),
        path,
    )
    if check_only:
        return result
    if there == data:
        return result._replace(outcome="unchanged")
    try:
        _store(path, data, keep=before is not None)
    except OSError as error:
        raise UpdateError(f"{path} cannot be written: {error.strerror or error}") from None
    return result._replace(outcome="stored")


def fetch(source: str, progress: Callable[[int, int | None], None]) -> bytes:
    """What is at an address or in a file, if it is no larger than a price file may be. Raises `UpdateError`."""
    if "://" not in source:
        try:
            return contents(Path(source).expanduser())
        except BookError as error:
            raise UpdateError(str(error)) from None
    loopback = _checked(source)
    opener = build_opener(_Redirects, *([ProxyHandler({})] if loopback else []))
    request = Request(source, headers={"User-Agent": f"costspan/{__version__}", "Accept": "application/json"})  # noqa: S310  _checked
    try:
        with opener.open(request, timeout=_SILENCE) as answer:
            return _read(answer, source, progress)
    except HTTPError as error:
        if 300 <= error.code < 400:
            raise UpdateError(f"{source} leads on in a circle, or to where nothing is read from") from None
        raise UpdateError(f"{source} answered {error.code} {error.reason}") from None
    except URLError as error:
        why = error.reason
        text = why.verify_message if isinstance(why, ssl.SSLCertVerificationError) else getattr(why, "strerror", None)
        raise UpdateError(f"{source} cannot be reached: {text or why}") from None
    except TimeoutError:
        raise UpdateError(f"{source} sent nothing for {_SILENCE:.0f} seconds") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: an address that is none
        raise UpdateError(f"{source} cannot be read: {error}") from None


def _read(answer: Any, source: str, progress: Callable[[int, int | None], None]) -> bytes:
    told = answer.headers.get("Content-Length", "")
    size = int(told) if told.isdigit() else None
    parts: list[bytes] = []
    done = 0
    deadline = time.monotonic() + _LONGEST
    while size is None or size <= LARGEST:
        part = answer.read(_CHUNK)
        if not part:
            if size is not None and done < size:
                raise UpdateError(f"{source} broke off after {done:,} of {size:,} bytes: try again")
            return b"".join(parts)
        parts.append(part)
        done += len(part)
        if done > LARGEST:
            break
        if time.monotonic() > deadline:
            raise UpdateError(f"{source} had sent {done:,} bytes after {_LONGEST:.0f} seconds, and was given up")
        progress(done, size)
    raise UpdateError(f"{source} has more than {LARGEST // 10**6} MB, which no price book needs")


class _Redirects(HTTPRedirectHandler):
    """Follows to nowhere that could not have been asked for, and never from the network onto this machine."""

    max_redirections = 5

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if _checked(newurl) and not _checked(req.full_url):
            raise UpdateError(f"{req.full_url} leads to {newurl}, on this machine: it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(address: str) -> bool:
    """Whether an address is plain http to this machine. Raises `UpdateError` for one that nothing is read from."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError as error:
        raise UpdateError(f"{address} is no address: {error}") from None
    if parts.scheme == "https" and host:
        return False
    local = host == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    if parts.scheme == "http" and local:
        return True
    raise UpdateError(f"{address} is not read: give a file, an https:// address, or an http:// one of this machine")


def _there(path: Path) -> tuple[str | None, bytes]:
    """Version and content of the book in force; None where there is none that is fit for use."""
    try:
        data = contents(path)
        return str(parse(data, str(path))["book_version"]), data
    except (BookError, KeyError):
        return None, b""


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _store(path: Path, data: bytes, *, keep: bool) -> None:
    """Puts a book in place in one step, whoever reads or dies meanwhile; the one before goes beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if keep:
        _replace(path.with_name(PREVIOUS), path.read_bytes())
    _replace(path, data)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        new.chmod(0o644)  # a temporary file is its maker's alone; other users' programs read the book too
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
