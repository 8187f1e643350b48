"""Stores that go away and come back: only StoreError comes out, then all is well, no money is lost and none doubled."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from costspan_processor.budgets import sqlite
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.budgets.store import Claim, Record, Settlement, Store, StoreError
from costspan_processor.budgets.stores import open_store
from tests.bars.load import ROOT
from tests.bars.report import on_path
from tests.processor.budgets.server import RedisServer, Wire, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIMS = (Claim("team", 1000),)

STEPS: dict[str, Callable[[Store], object]] = {
    "reserve": lambda store: store.reserve("lost", 1, CLAIMS, 60),
    "areserve": lambda store: asyncio.run(store.areserve("lost too", 1, CLAIMS, 60)),
    "settle": lambda store: store.settle([Settlement("lost", 1, CLAIMS)]),
    "renew": lambda store: store.renew("me", ["a"], 60),
    "read": lambda store: store.read(CLAIMS),
    "restore": lambda store: store.restore("e", {"team": 1}),
    "accounts": lambda store: store.accounts(""),
    "holds": lambda store: store.holds(),
    "post": lambda store: store.post(Record("a", "{}", 0)),
    "records": lambda store: store.records(),
    "acknowledge": lambda store: store.acknowledge("a", "me"),
}


def every_step_fails(store: Store) -> str:
    """What the first of them says."""
    said = []
    for name, step in STEPS.items():
        with pytest.raises(StoreError) as failure:
            step(store)
        said.append(f"{name}: {failure.value}")
    return said[0]


def spent(store: Store) -> int:
    return store.read(CLAIMS).balances["team"].spent


def held(store: Store) -> int:
    return store.read(CLAIMS).balances["team"].held


def pay(store: Store, key: str, amount: int) -> None:
    store.reserve(key, amount, CLAIMS, 60)
    store.settle([Settlement(key, amount, CLAIMS)])


def script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=on_path(),
    )


class TestRedis:
    @pytest.fixture
    def server(self, own_redis: RedisServer) -> RedisServer:
        return own_redis

    @pytest.fixture
    def store(self, server: RedisServer) -> Iterator[RedisStore]:
        store = RedisStore(server.url)
        yield store
        store.close()

    def test_stopped_and_started_empty(self, store: RedisStore, server: RedisServer) -> None:
        pay(store, "a", 400)
        before = store.read(CLAIMS).epoch
        server.stop()
        assert f"127.0.0.1:{server.port}" in every_step_fails(store)
        server.start()
        answer = store.read(CLAIMS)
        assert answer.balances["team"].spent == 0
        assert answer.epoch != before
        store.restore(before, {"team": 999})
        store.restore(answer.epoch, {"team": 400})
        pay(store, "b", 50)
        assert spent(store) == 450

    def test_each_new_beginning_is_another_epoch(self, store: RedisStore, server: RedisServer) -> None:
        epochs = set()
        for _ in range(3):
            epochs.add(store.read(CLAIMS).epoch)
            assert asyncio.run(store.areserve("a", 1, CLAIMS, 60)).epoch in epochs
            server.stop()
            server.start()
        assert len(epochs) == 3

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
    def test_started_again_with_its_log_it_knows_everything(
        self, end: signal.Signals, redis_program: None, tmp_path: Path
    ) -> None:
        with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
            store = RedisStore(server.url)
            pay(store, "a", 400)
            store.reserve("b", 100, CLAIMS, 60)
            before = store.read(CLAIMS)
            server.stop(end)
            server.start()
            assert store.read(CLAIMS) == before
            store.settle([Settlement("a", 400, CLAIMS), Settlement("b", 70, CLAIMS)])
            assert spent(store) == 470
            store.close()

    def test_paused(self, store: RedisStore, server: RedisServer) -> None:
        pay(store, "a", 400)
        server.send(signal.SIGSTOP)
        began = time.monotonic()
        for name in ("reserve", "areserve", "settle"):
            with pytest.raises(StoreError):
                STEPS[name](store)
        assert time.monotonic() - began < 4
        server.send(signal.SIGCONT)
        # What it was asked meanwhile it may still do, now or later: an end that is told again is told once.
        store.settle([Settlement("lost", 1, CLAIMS), Settlement("lost too", 2, CLAIMS)])
        assert (spent(store), held(store)) == (403, 0)

    def test_cut_off(self, store: RedisStore, server: RedisServer) -> None:
        wire = Wire(server.port)
        ours = RedisStore(f"redis://127.0.0.1:{wire.port}?socket_timeout=0.2")
        pay(ours, "a", 400)
        ours.reserve("b", 100, CLAIMS, 60)
        wire.cut()
        every_step_fails(ours)
        with pytest.raises(StoreError):
            ours.settle([Settlement("b", 70, CLAIMS)])
        pay(store, "c", 30)
        wire.mend()
        for _ in range(2):
            ours.settle([Settlement("b", 70, CLAIMS), Settlement("lost", 0), Settlement("lost too", 0)])
        assert spent(ours) == spent(store) == 500 + (held(store) == 1)
        wire.close()

    def test_nobody_there_takes_no_longer_than_the_time_out(self) -> None:
        # An address of documentation, which is routed nowhere.
        store = RedisStore("redis://192.0.2.1:6379?socket_connect_timeout=0.2")
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"192\.0\.2\.1:6379"):
            store.read(CLAIMS)
        assert time.monotonic() - began < 2

    def test_full(self, redis_program: None, tmp_path: Path) -> None:
        with RedisServer(tmp_path, "--maxmemory", "1") as server:
            store = RedisStore(server.url)
            with pytest.raises(StoreError, match=r"OOM|memory"):
                pay(store, "a", 1)
            store.close()

    def test_a_wrong_password_is_not_told(self, redis_program: None, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server:
            store = RedisStore(f"redis://:secret@127.0.0.1:{server.port}")
            with pytest.raises(StoreError) as failure:
                store.read(CLAIMS)
            assert "secret" not in str(failure.value)
            store.close()

    def test_more_than_it_counts_exactly_is_refused(self, store: RedisStore) -> None:
        store.settle([Settlement("a", 2**53, CLAIMS)])
        with pytest.raises(StoreError, match=r"2\^53"):
            store.reserve("b", 1, CLAIMS, 60)
        with pytest.raises(StoreError, match="exactly"):
            store.reserve("b", 2**53 + 1, [Claim("other")], 60)
        store.settle([Settlement("b", 1, CLAIMS)])
        assert spent(store) == 2**53 + 1, "spend is recorded all the same"

    def test_goes_by_the_time_of_the_server(self, store: RedisStore) -> None:
        store.reserve("a", 600, CLAIMS, 0.2)
        assert store.now() == pytest.approx(time.time(), abs=1)
        (hold,) = store.holds()
        assert hold.expires == pytest.approx(store.now() + 0.2, abs=0.2)
        time.sleep(0.3)
        assert store.read(CLAIMS).balances["team"] == (600, 0, 600)

    def test_after_a_flush_of_its_scripts_it_loads_them_again(self, store: RedisStore, server: RedisServer) -> None:
        import redis

        pay(store, "a", 1)
        with redis.Redis(port=server.port) as client:
            client.script_flush()
        pay(store, "b", 1)
        assert asyncio.run(store.areserve("c", 1, CLAIMS, 60)).balances["team"] == (2, 1, 0)

    def test_a_cluster(self, redis_program: None, tmp_path: Path) -> None:
        """Of one node; it refuses scripts whose keys are not together."""
        import redis

        bus = str(free_port())
        with RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-port", bus) as server:
            with redis.Redis(port=server.port) as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    time.sleep(0.05)
            store = open_store(f"redis+cluster://127.0.0.1:{server.port}")
            pay(store, "a", 400)
            assert asyncio.run(store.areserve("b", 100, CLAIMS, 60)).balances["team"] == (400, 100, 0)
            assert [hold.key for hold in store.holds()] == ["b"]
            server.stop()
            every_step_fails(store)
            store.close()

    def test_a_socket(self, redis_program: None, tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory() as short, RedisServer(tmp_path, "--unixsocket", f"{short}/redis.sock"):
            store = open_store(f"unix://{short}/redis.sock")
            pay(store, "a", 400)
            assert spent(store) == 400
            store.close()


class TestSQLite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "budgets.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[SQLiteStore]:
        store = SQLiteStore(path)
        yield store
        store.close()

    def test_nobody_else_can_read_it(self, store: SQLiteStore, path: Path) -> None:
        pay(store, "a", 1)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("budgets.db*")}
        assert modes == dict.fromkeys(("budgets.db", "budgets.db-lock", "budgets.db-wal", "budgets.db-shm"), 0o600)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "later" / "budgets.db")
        assert f"{tmp_path}/later/budgets.db" in every_step_fails(store)
        (tmp_path / "later").mkdir()
        pay(store, "a", 5)
        assert spent(store) == 5
        store.close()

    @pytest.mark.parametrize("files", ["budgets.db*", "budgets.db", "budgets.db-lock"])
    def test_deleted_and_made_anew_under_a_running_process(self, files: str, store: SQLiteStore, path: Path) -> None:
        other = SQLiteStore(path)
        pay(store, "a", 400)
        pay(other, "b", 1)
        before = store.read(CLAIMS).epoch
        for file in path.parent.glob(files):
            file.unlink()
        time.sleep(0.02)
        after = store.read(CLAIMS)
        if files != "budgets.db-lock":
            assert after.epoch != before
            assert after.balances["team"].spent == 0
            store.restore(after.epoch, {"team": 401})
        for number in range(20):
            pay(store, f"c{number}", 1)
            pay(other, f"d{number}", 1)
        assert other.read(CLAIMS) == store.read(CLAIMS)
        assert spent(store) == 441
        other.close()

    def test_a_file_that_is_no_database(self, store: SQLiteStore, path: Path) -> None:
        path.write_bytes(b"no database at all, " * 100)
        assert "move the file away" in every_step_fails(store)
        path.unlink()
        pay(store, "a", 5)
        assert spent(store) == 5

    def test_a_file_that_is_damaged(self, path: Path) -> None:
        store = SQLiteStore(path)
        pay(store, "a", 5)
        store.close()
        whole = path.read_bytes()
        path.write_bytes(whole[:1024] + b"\xff" * (len(whole) - 1024))
        every_step_fails(store)
        path.write_bytes(whole)
        assert spent(store) == 5
        store.close()

    def test_a_database_of_something_else_is_left_alone(self, store: SQLiteStore, path: Path) -> None:
        with sqlite3.connect(path) as theirs:
            theirs.execute("CREATE TABLE accounts (name)")
        assert "name another file" in every_step_fails(store)
        assert theirs.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        theirs.close()

    def test_a_newer_schema_is_refused(self, store: SQLiteStore, path: Path) -> None:
        pay(store, "a", 5)
        store.close()
        with sqlite3.connect(path) as newer:
            newer.execute("PRAGMA user_version = 2")
        newer.close()
        assert "schema 2, and this costspan knows 1: install the newer costspan" in every_step_fails(store)

    @contextmanager
    def small_disk(self, folder: Path) -> Iterator[None]:
        """A disk with room for a few hundred kilobytes, or else a limit on what this process may write."""
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode == 0:
            try:
                yield
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True)
            return
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_a_full_disk(self, tmp_path: Path) -> None:
        folder = tmp_path / "small"
        folder.mkdir()
        with self.small_disk(folder):
            store = SQLiteStore(folder / "budgets.db")
            claims = (Claim("team"),)
            store.reserve("before", 7, claims, 600)
            ballast = folder / "ballast"
            with suppress(OSError), ballast.open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))
            said = ""
            asked = 0
            for asked in range(3000):
                try:
                    store.settle([Settlement(f"a{asked}", 1, claims)])
                except StoreError as error:
                    said = str(error)
                    break
            assert "full" in said or "I/O" in said
            assert str(folder / "budgets.db") in said
            for _ in range(5):
                with pytest.raises(StoreError):
                    store.settle([Settlement(f"a{asked}", 1, claims)])
            ballast.unlink()
            if os.path.ismount(folder):
                # What failed is told again, once more than needed.
                ends = [Settlement(f"a{number}", 1, claims) for number in range(asked + 1)]
                store.settle([*ends, Settlement("before", 3, claims)])
                assert store.read(claims).balances["team"] == (asked + 4, 0, 0)
            store.close()

    def test_a_file_that_must_not_be_written(self) -> None:
        """As another user, since root may write everywhere."""
        done = script(
            """
            import os, sys, tempfile
            from costspan_processor.budgets.sqlite import SQLiteStore
            from costspan_processor.budgets.store import Claim, Settlement, StoreError

            with tempfile.TemporaryDirectory() as folder:
                store = SQLiteStore(folder + "/budgets.db")
                claims = (Claim("team"),)
                store.settle([Settlement("a", 5, claims)])
                store.close()
                for name in os.listdir(folder):
                    os.chmod(f"{folder}/{name}", 0o444 if name.endswith(".db") else 0o666)
                os.chmod(folder, 0o555)
                us = os.geteuid()
                if us == 0:
                    os.seteuid(65534)
                for _ in range(2):
                    try:
                        store.settle([Settlement("b", 5, claims)])
                    except StoreError as error:
                        print(error)
                os.seteuid(us)
                os.chmod(folder, 0o755)
                os.chmod(folder + "/budgets.db", 0o600)
                store.settle([Settlement("b", 5, claims)])
                print(store.read(claims).balances["team"].spent)
                store.close()
            """
        )
        first, second, total = done.stdout.splitlines()
        assert "readonly" in first or "unable to open" in first, done.stderr
        assert "let this process write" in first
        assert (second, total) == (first, "10")

    def test_killed_in_the_midst_of_it(self, path: Path, store: SQLiteStore) -> None:
        """What it has committed is in the write-ahead log alone."""
        done = script(
            """
            import os, signal, sys
            from costspan_processor.budgets.sqlite import SQLiteStore
            from costspan_processor.budgets.store import Claim, Settlement

            store = SQLiteStore(sys.argv[1])
            claims = (Claim("team", 1000),)
            for number in range(50):
                store.reserve(str(number), 9, claims, 600)
                if number % 2:
                    store.settle([Settlement(str(number), 7, claims)])

            def die(now):
                store._execute("UPDATE accounts SET spent = 0")
                os.kill(os.getpid(), signal.SIGKILL)

            store._step(die)
            """,
            str(path),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert path.with_name("budgets.db-wal").stat().st_size > 0
        assert store.read(CLAIMS).balances["team"] == (25 * 7, 25 * 9, 0)

    def test_somebody_keeps_the_gate(self, store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pay(store, "a", 5)
        monkeypatch.setattr(sqlite, "_WAIT_SECONDS", 0.2)
        with path.with_name("budgets.db-lock").open("rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            assert "budgets.db-lock for 0.2 s: end it if it hangs" in every_step_fails(store)
        assert spent(store) == 5

    def test_somebody_keeps_the_database(self, store: SQLiteStore, path: Path) -> None:
        pay(store, "a", 5)
        theirs = sqlite3.connect(path, isolation_level=None)
        theirs.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked: end the program"):
            pay(store, "b", 5)
        assert time.monotonic() - began < 5
        theirs.execute("ROLLBACK")
        theirs.close()
        pay(store, "b", 5)
        assert spent(store) == 10


class TestAnEventLoop:
    """It goes on while a store does not answer."""

    @pytest.fixture(params=["sqlite", "redis"])
    def stuck(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Callable[[bool], None]]]:
        """A store, and how to make it hang and go on."""
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("own_redis")
            store = open_store(server.patient_url)
            yield store, lambda hang: server.send(signal.SIGSTOP if hang else signal.SIGCONT)
        else:
            store = open_store(f"sqlite:///{tmp_path}/b.db")
            with (tmp_path / "b.db-lock").open("wb") as gate:
                yield store, lambda hang: fcntl.flock(gate, fcntl.LOCK_EX if hang else fcntl.LOCK_UN)
        store.close()

    async def test_goes_on(self, stuck: tuple[Store, Callable[[bool], None]]) -> None:
        store, hang = stuck
        await store.areserve("first", 1, CLAIMS, 60)
        hang(True)
        calls = [asyncio.create_task(store.areserve(str(number), 1, CLAIMS, 60)) for number in range(8)]
        began = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 1
        assert not any(call.done() for call in calls)
        hang(False)
        answers = await asyncio.gather(*calls)
        assert max(answer.balances["team"].held for answer in answers) == 9

    async def test_a_call_that_is_cancelled_meanwhile_can_be_released(
        self, stuck: tuple[Store, Callable[[bool], None]]
    ) -> None:
        store, hang = stuck
        await store.areserve("first", 1, CLAIMS, 60)
        hang(True)
        call = asyncio.create_task(store.areserve("a", 1, CLAIMS, 60))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        hang(False)
        store.settle([Settlement("a", 0)])
        await asyncio.sleep(0.05)
        assert held(store) == 1
        assert (await store.areserve("b", 1, CLAIMS, 60)).admitted


FORKING = """
import asyncio, json, os, sys, threading
from costspan_processor.budgets.store import Claim, Settlement
from costspan_processor.budgets.stores import open_store

store = open_store(sys.argv[1])
claims = (Claim("team"),)

def pay(name):
    for number in range(50):
        store.reserve(f"{name}-{number}", 1, claims, 600)
        store.settle([Settlement(f"{name}-{number}", 1, claims)])
    asyncio.run(store.areserve(f"{name}-a", 1, claims, 600))
    store.settle([Settlement(f"{name}-a", 1, claims)])

pay("before")
threads = [threading.Thread(target=pay, args=(f"thread {number}",)) for number in range(3)]
for thread in threads:
    thread.start()
children = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        store.after_fork()
        pay(f"child {number}")
        os._exit(0)
    children.append(pid)
pay("parent")
for thread in threads:
    thread.join()
print([os.waitpid(pid, 0)[1] for pid in children], store.read(claims).balances["team"])
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_after_a_fork_parent_and_children_go_on(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/b.db" if kind == "sqlite" else request.getfixturevalue("own_redis").url
    done = script(FORKING, url)
    assert done.stdout == f"[0, 0, 0, 0] Balance(spent={9 * 51}, held=0, unsettled=0)\n", done.stderr


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("redis://localhost", "redis", "costspan[redis]"), ("sqlite:///b.db", "portalocker", "costspan[sqlite]")],
)
def test_a_missing_extra_is_named(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as failure:
        open_store(url)
    assert extra in str(failure.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "secret",
            "memory:secret",
            "postgres://us:secret@host/db",
            "sqlite:secret.db",
            "sqlite:///",
            "redis:secret",
        ),
        *("redis://us:sec/ret@host", "redis://:secret#@host", "redis://us:secret@host?port=secret"),
        *("redis://us:secret@host?secret=1", "redis+cluster://us:sec/ret@host"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="redis://") as failure:
        open_store(url)
    assert "secret" not in str(failure.value)
    assert failure.value.__suppress_context__ or failure.value.__context__ is None


def test_paths_are_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = open_store("sqlite:///b.db"), open_store(f"sqlite:///{tmp_path}/b.db")
    monkeypatch.chdir("/")
    pay(relative, "a", 5)
    assert spent(absolute) == 5
    for store in (relative, absolute):
        store.close()
