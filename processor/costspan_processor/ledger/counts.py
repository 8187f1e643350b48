"""How many calls each process has kept: a few bytes in a file that is mapped into its memory.

What a process that was killed had not written yet is gone, but not unnoticed: the file outlives it, and whoever finds
it without its lock compares it with what was written.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from costspan_processor.ledger.store import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costspan_processor.ledger.store import Ledger

_HEAD: Final = 16
_ENDING: Final = ".calls"
_CAN_TELL: Final = os.name == "posix"
"""Whether one can tell here if a process lives. Where nobody can, nobody looks."""


def folder_of(ledger: Ledger, data: Path | None) -> Path | None:
    """Where the processes of this machine keep the counts of a ledger: beside its file, else in the folder `data`."""
    if ledger.path is not None:
        return ledger.path.with_name(f"{ledger.path.name}-writers")
    return None if data is None else data / hashlib.sha256(ledger.name.encode()).hexdigest()[:16]


class Counts:
    """Two numbers, `values[0]`: calls that were kept or refused; `values[1]`: those of them that were dropped.

    Without a folder, or one that cannot be written to, they are in memory alone, and end with the process.
    """

    def __init__(self, folder: Path | None, writer: Writer) -> None:
        self._file: Path | None = None
        self._map: mmap.mmap | None = None
        self._open = -1
        self.problem: OSError | None = None
        """Why there is no file."""
        if folder is not None and _CAN_TELL:
            try:
                self._begin(folder, writer)
            except OSError as error:
                self.problem = error
        self.values: memoryview[int] = memoryview(bytearray(_HEAD) if self._map is None else self._map)[:_HEAD].cast(
            "Q"
        )

    def _begin(self, folder: Path, writer: Writer) -> None:
        told = json.dumps(writer[:5]).encode()
        final = folder / f"{writer.id}{_ENDING}"
        part = final.with_suffix(".new")  # which nobody takes for a file without a lock
        for attempt in range(5):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._open = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileNotFoundError:  # whoever was here last has just cleared the folder away
                if attempt == 4:
                    raise
        _lock(self._open)
        os.write(self._open, bytes(_HEAD) + told)
        part.rename(final)
        self._map = mmap.mmap(self._open, _HEAD + len(told))
        self._file = final

    def end(self) -> None:
        """All is written: there is nothing for anybody to find."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()
                self._file.parent.rmdir()  # if it was the last

    def leave(self) -> None:
        """In a forked child: the file and its lock are the parent's."""
        self.values.release()
        if self._map is not None:
            self._map.close()
            with suppress(OSError):
                os.close(self._open)


def _lock(number: int) -> bool:
    """Locks a file as long as it is open; False if somebody else has."""
    import fcntl  # which only POSIX has

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _taken(file: Path) -> Iterator[bytes | None]:
    """The content of the file of a process that has died; None if it lives, or somebody else sees to it."""
    try:
        number = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        alone = _lock(number) and os.fstat(number).st_nlink
        yield os.read(number, 65_536) if alone else None
    finally:
        os.close(number)


def bury_the_dead(ledger: Ledger, folder: Path | None) -> int:
    """Note what processes of this machine have lost that died without a word; returns how many calls."""
    lost = 0
    for file in sorted(folder.glob(f"*{_ENDING}")) if folder is not None and _CAN_TELL else ():
        with _taken(file) as content:
            if content is None:
                continue
            kept, dropped = memoryview(content)[:_HEAD].cast("Q")
            if kept:
                lost += ledger.bury(Writer(*json.loads(content[_HEAD:]))._replace(dropped=dropped), kept)
            file.unlink()
    if folder is not None:
        with suppress(OSError):
            folder.rmdir()
    return lost
