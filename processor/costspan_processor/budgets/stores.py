"""The store that an address names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from costspan_processor.budgets.memory import MemoryStore

if TYPE_CHECKING:
    from costspan_processor.budgets.store import Store

CLUSTER: Final = "redis+cluster"
"""The scheme of a Redis cluster, which redis-py has none for."""
_KNOWN: Final = (
    "memory:, sqlite:///relative.db, sqlite:////absolute/path.db, redis://host:6379/0, rediss://host:6379/0 (TLS), "
    f"unix:///path/to/redis.sock, or {CLUSTER}://host:6379"
)


def open_store(url: str) -> Store:
    """The store at an address.

    It is opened by its first step, so that one that is away now is a StoreError then. Raises ValueError for an address
    that is none, ImportError where an extra is missing.

    >>> open_store("memory:").local
    True
    >>> open_store("postgres://user:secret@host/budgets")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: no store of budgets is called 'postgres:': use memory:, sqlite:///relative.db, ...
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and not rest.strip("/"):
        return MemoryStore()
    if scheme == "sqlite" and rest.startswith("///") and rest != "///":
        from costspan_processor.budgets.sqlite import SQLiteStore

        return SQLiteStore(rest[3:])
    if scheme in {"redis", "rediss", "unix", CLUSTER} and rest.startswith("//"):
        from costspan_processor.budgets.redis import RedisStore

        return RedisStore(url)
    # No more than the scheme: there may be a password in the rest, or in all of it.
    said = f"{scheme}:" if colon and scheme.isascii() and scheme.replace("+", "").isalnum() else "that"
    raise ValueError(f"no store of budgets is called {said!r}: use {_KNOWN}")
