"""A real PostgreSQL of our own, in a folder of its own, that listens on a socket in it and nowhere else."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

MISSING: Final = "PostgreSQL is not installed: apt-get install postgresql"
_IN_MEMORY: Final = "/dev/shm"
_USER: Final = "postgres"
"""Who runs it where we are root, which it refuses to be."""


def binaries() -> Path | None:
    """The folder of its programs, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).parent


class PostgreSQL:
    """A server; `database()` makes an empty database and returns its URL."""

    def __init__(self) -> None:
        self._folder = Path(
            tempfile.mkdtemp(prefix="costspan-pg-", dir=_IN_MEMORY if Path(_IN_MEMORY).is_dir() else None)
        )
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self._user = _USER

    def __enter__(self) -> Self:
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-U", self._user, "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c max_connections=200 -c shared_buffers=64MB"
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", str(self._folder / "log"), "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", "immediate", "stop")

    def database(self) -> str:
        name = f"ledger_{uuid4().hex[:12]}"
        self._run("createdb", "-h", str(self._folder), "-U", self._user, name)
        return f"postgresql://{self._user}@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        folder = binaries()
        assert folder is not None, MISSING
        subprocess.run(
            [*self._as, str(folder / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
