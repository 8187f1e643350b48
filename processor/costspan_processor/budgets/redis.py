"""The accounts of many machines: a Redis or Valkey server, one Lua script a step."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from costspan_processor.budgets.store import (
    RECORDS_SECONDS,
    REMEMBERED_SECONDS,
    Answer,
    Balance,
    Claim,
    Hold,
    Record,
    Settlement,
    StoreError,
    packed,
    together,
)
from costspan_processor.budgets.stores import CLUSTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_TIMEOUT_SECONDS: Final = 0.5
_EXACT: Final = 2**53
_FOR_EVER: Final = "+inf"
_NO_ADDRESS: Final = (
    "not an address of a Redis server: write redis://user:password@host:6379/0, and other characters than letters and "
    "digits in the password as %XX; parameters are those of redis-py"
)
_FIELDS: Final = 4
"""Of an account: spent, held, unsettled, floor."""

_KEYS: Final = ("epoch", "accounts", "kept", "names", "holds", "due")
"""What the keys hold, after the namespace. All are declared to every script, since any step may charge a hold that has
expired, in accounts that the step itself does not name.

epoch: a random id. accounts: a hash; the field of an amount is one letter and the account's name. kept: account ->
until when. names: the accounts in order. holds: key -> amount, expiry, whether it has expired, until when it is kept,
accounts. due: key -> when the hold needs attention next: when it expires, then when it may be forgotten. Besides there
are a key for each call that was settled, and those of the steps that have to do with owners or records.
"""
_RECORD_KEYS: Final = ("records", "record-times", "record-who")

_PRELUDE: Final = """
local EPOCH, ACCOUNTS, KEPT, NAMES, HOLDS, DUE = unpack(KEYS, 1, 6)
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local epoch = redis.call('GET', EPOCH)
if not epoch then
    epoch = ARGV[2]
    redis.call('SET', EPOCH, epoch)
end
local cursor = 2
local function take()
    cursor = cursor + 1
    return ARGV[cursor]
end
local function text(number)
    return string.format('%.17g', number)
end
local function answer(...)
    return {epoch, text(now), ...}
end
-- Amounts stay text wherever possible: integers of 64 bits, which Lua does not have.
local function minus(amount)
    if amount == '0' then return amount end
    return '-' .. amount
end
local function add(field, account, amount)
    if amount ~= '0' then redis.call('HINCRBY', ACCOUNTS, field .. account, amount) end
end
local function keep(account, till)
    if redis.call('ZADD', KEPT, till, account) == 1 then redis.call('ZADD', NAMES, 0, account) end
end
local function parse(hold)
    return string.match(hold, '^(%S+) (%S+) (%S+) (%S+) (.*)$')
end
local function expire(most)
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, most)) do
        local hold = redis.call('HGET', HOLDS, key)
        local amount, expires, expired, till, list = parse(hold or '0 0 1 0 []')
        if expired == '1' then
            redis.call('HDEL', HOLDS, key)
            redis.call('ZREM', DUE, key)
        else
            for _, account in ipairs(cjson.decode(list)) do
                add('s', account, amount)
                add('h', account, minus(amount))
                add('u', account, amount)
            end
            redis.call('HSET', HOLDS, key, table.concat({amount, expires, '1', till, list}, ' '))
            redis.call('ZADD', DUE, till, key)
        end
    end
    for _, account in ipairs(redis.call('ZRANGEBYSCORE', KEPT, '-inf', '(' .. text(now), 'LIMIT', 0, 2)) do
        if tonumber(redis.call('HGET', ACCOUNTS, 'h' .. account) or 0) == 0 then
            redis.call('HDEL', ACCOUNTS, 's' .. account, 'h' .. account, 'u' .. account, 'f' .. account)
            redis.call('ZREM', KEPT, account)
            redis.call('ZREM', NAMES, account)
        end
    end
end
-- Spent, held, unsettled and floor of each account, one after the other; false where there is none.
local function money(accounts)
    local found, fields = {}, {}
    for index, account in ipairs(accounts) do
        for _, field in ipairs({'s', 'h', 'u', 'f'}) do fields[#fields + 1] = field .. account end
        if #fields == 400 or index == #accounts then
            for _, amount in ipairs(redis.call('HMGET', ACCOUNTS, unpack(fields))) do found[#found + 1] = amount end
            fields = {}
        end
    end
    return found
end
local function take_list()
    local list = {}
    for index = 1, tonumber(take()) do list[index] = take() end
    return list
end
-- The keys of the calls that end come after the first `offset`.
local function settle(offset)
    local found = {}
    for index = 1, tonumber(take()) do
        local key, amount, names = take(), take(), take_list()
        local claims = {}
        for number = 1, tonumber(take()) do claims[number] = {take(), take()} end
        if redis.call('SET', KEYS[offset + index], '', 'NX', 'EX', REMEMBERED) then
            local hold = redis.call('HGET', HOLDS, key)
            if hold then
                local held, _, expired, _, list = parse(hold)
                redis.call('HDEL', HOLDS, key)
                redis.call('ZREM', DUE, key)
                for _, account in ipairs(cjson.decode(list)) do
                    if redis.call('ZSCORE', KEPT, account) then
                        add('s', account, amount)
                        if expired == '1' then
                            add('s', account, minus(held))
                            add('u', account, minus(held))
                        else
                            add('h', account, minus(held))
                        end
                    end
                end
            else
                for _, claim in ipairs(claims) do
                    add('s', claim[1], amount)
                    keep(claim[1], claim[2])
                end
            end
        end
        found[index] = money(names)
    end
    return found
end
""".replace("REMEMBERED", str(REMEMBERED_SECONDS))

_RESERVE: Final = """
expire(20)
settle(7)
local key, amount, ttl, till, list, names = take(), take(), take(), take(), take(), take_list()
local found = money(names)
if redis.call('HEXISTS', HOLDS, key) == 1 or redis.call('EXISTS', KEYS[7]) == 1 then
    return answer('known', found)
end
local claims = {}
for index = 1, tonumber(take()) do
    local account, kept_till, most, among = take(), take(), take(), take_list()
    claims[index] = {account, kept_till}
    if most ~= '' and amount ~= '0' then
        local total = tonumber(amount)
        for _, place in ipairs(among) do
            local start = tonumber(place) * 4
            total = total + (found[start + 1] or 0) + (found[start + 2] or 0) + (found[start + 4] or 0)
        end
        if total >= 9007199254740992 then
            return redis.error_reply('ERR more than 2^53 nanodollars in ' .. account)
        end
        if total > tonumber(most) then return answer('refused', found, account) end
    end
end
for _, claim in ipairs(claims) do
    add('h', claim[1], amount)
    keep(claim[1], claim[2])
end
local expires = text(now + tonumber(ttl))
redis.call('HSET', HOLDS, key, table.concat({amount, expires, '0', till, list}, ' '))
redis.call('ZADD', DUE, expires, key)
return answer('reserved', found)
"""

_SETTLE: Final = """
expire(20)
return answer(settle(6))
"""

_RENEW: Final = """
local OWNERS = KEYS[7]
local owner, ttl, keys = take(), tonumber(take()), take_list()
expire(20)
for _, key in ipairs(keys) do
    local hold = redis.call('HGET', HOLDS, key)
    if hold then
        local amount, expires, expired, till, list = parse(hold)
        if expired == '0' and tonumber(expires) > now then
            expires = text(math.max(tonumber(expires), now + ttl))
            redis.call('HSET', HOLDS, key, table.concat({amount, expires, expired, till, list}, ' '))
            redis.call('ZADD', DUE, expires, key)
        end
    end
end
redis.call('ZREMRANGEBYSCORE', OWNERS, '-inf', text(now))
redis.call('ZADD', OWNERS, text(now + ttl), owner)
return answer(redis.call('ZCARD', OWNERS))
"""

_READ: Final = """
expire(1000)
return answer(money(take_list()))
"""

_RESTORE: Final = """
if take() == epoch then
    for _ = 1, tonumber(take()) do
        local account, spent = take(), take()
        if tonumber(redis.call('HGET', ACCOUNTS, 'f' .. account) or 0) < tonumber(spent) then
            redis.call('HSET', ACCOUNTS, 'f' .. account, spent)
        end
        if not redis.call('ZSCORE', KEPT, account) then keep(account, '+inf') end
    end
end
return answer()
"""

_ACCOUNTS: Final = """
expire(1000)
local prefix = take()
local names = redis.call('ZRANGEBYLEX', NAMES, '[' .. prefix, '[' .. prefix .. '\\255')
return answer(names, money(names))
"""

_HOLDS: Final = """
expire(1000)
return answer(redis.call('HGETALL', HOLDS))
"""

_POST: Final = f"""
local RECORDS, TIMES, WHO = KEYS[7], KEYS[8], KEYS[9]
local oldest = text(now - {RECORDS_SECONDS})
for _, id in ipairs(redis.call('ZRANGEBYSCORE', TIMES, '-inf', '(' .. oldest, 'LIMIT', 0, 10)) do
    redis.call('ZREM', TIMES, id)
    redis.call('HDEL', RECORDS, id)
    redis.call('HDEL', WHO, id)
end
local id, content, at, by = take(), take(), take(), take()
local is_new = redis.call('HSETNX', RECORDS, id, at .. ' ' .. content)
if is_new == 1 then
    redis.call('ZADD', TIMES, at, id)
    if by ~= '' then redis.call('HSET', WHO, id, by) end
end
return answer(is_new)
"""

_LIST: Final = f"""
local RECORDS, TIMES, WHO = KEYS[7], KEYS[8], KEYS[9]
local found = {{}}
for index, id in ipairs(redis.call('ZREVRANGEBYSCORE', TIMES, '+inf', text(now - {RECORDS_SECONDS}))) do
    found[index] = {{id, redis.call('HGET', RECORDS, id), redis.call('HGET', WHO, id) or ''}}
end
return answer(found)
"""

_ACKNOWLEDGE: Final = """
local RECORDS, WHO = KEYS[7], KEYS[9]
local id, by = take(), take()
local is_there = redis.call('HEXISTS', RECORDS, id)
if is_there == 1 then redis.call('HSET', WHO, id, by) end
return answer(is_there)
"""


class RedisStore:
    """Accounts on a server, for any number of processes on any number of machines.

    url: `redis://`, `rediss://`, `unix://`, or `redis+cluster://`; its parameters are redis-py's. Connecting and
        reading time out after half a second, unless `socket_connect_timeout` and `socket_timeout` say otherwise.
    namespace: before all keys, in braces, so that a cluster keeps them together.
    clock: unix seconds, for tests; the server's clock if None.

    Lua compares amounts exactly up to 2**53 nanodollars ($9.0 million): a reservation that would bring an account that
    has a limit above that is a StoreError. Raises ImportError without redis-py, ValueError for a URL that is none.
    """

    local = False

    def __init__(self, url: str, namespace: str = "costspan", clock: Callable[[], float] | None = None) -> None:
        try:
            import redis
            from redis.exceptions import RedisClusterException
        except ImportError as error:
            raise ImportError("budgets in Redis need redis-py: pip install 'costspan[redis]'") from error
        self._errors: Final = (redis.RedisError, RedisClusterException, OSError, UnicodeError)
        self._where: Final = _shown(url)
        self._url: Final = url
        self._clustered: Final = url.startswith(f"{CLUSTER}:")
        self._namespace: Final = namespace
        self._clock: Final = clock
        self._keys: Final = self._named(_KEYS)
        self._record_keys: Final = self._named(_RECORD_KEYS)
        self._seen: tuple[float, float] | None = None
        self._client: Any = None
        self._begin()
        if not self._clustered:
            # Nothing is sent yet; that of a cluster would ask it for its nodes.
            try:
                self._client = self._connect(blocking=True)
                pool = self._client.connection_pool
                pool.connection_class(**pool.connection_kwargs)
            except (ValueError, TypeError, redis.RedisError):
                raise ValueError(_NO_ADDRESS) from None

    def _begin(self) -> None:
        self._next_epoch = uuid.uuid4().hex
        self._client = None
        self._scripts: dict[str, Any] = {}
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Any, Any]] = {}

    def now(self) -> float:
        if self._clock is not None:
            return self._clock()
        if self._seen is None:
            return time.time()
        at, seen = self._seen
        return at + time.monotonic() - seen

    def reserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        keys, arguments = self._reservation(key, amount, claims, ttl, first)
        return self._reserved(amount, claims, self._run(_RESERVE, arguments, keys))

    async def areserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Not asyncio: redis-py has nothing for other loops.
            return self.reserve(key, amount, claims, ttl, first)
        keys, arguments = self._reservation(key, amount, claims, ttl, first)
        try:
            script = self._on(loop)
            raw = await script((*self._keys, *keys), (*self._about(), *arguments))
        except self._errors as error:
            raise self._failed(error) from error
        return self._reserved(amount, claims, self._saw(raw))

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        keys, arguments = self._settlements(settlements)
        epoch, found = self._run(_SETTLE, arguments, keys)
        return [
            _answer(settlement.claims, _balances(_names(settlement.claims), amounts), epoch)
            for settlement, amounts in zip(settlements, found, strict=True)
        ]

    def renew(self, owner: str, keys: Sequence[str], ttl: float) -> int:
        _, count = self._run(_RENEW, (owner, ttl, len(keys), *keys), self._named(["owners"]))
        return int(count)

    def read(self, claims: Iterable[Claim]) -> Answer:
        claims = tuple(claims)
        names = _names(claims)
        epoch, found = self._run(_READ, (len(names), *names))
        return _answer(claims, _balances(names, found), epoch)

    def restore(self, epoch: str, known: Mapping[str, int]) -> None:
        self._run(_RESTORE, (epoch, len(known), *(part for pair in known.items() for part in pair)))

    def accounts(self, prefix: str) -> Mapping[str, Balance]:
        _, names, found = self._run(_ACCOUNTS, (prefix,))
        return _balances([name.decode() for name in names], found)

    def holds(self) -> list[Hold]:
        _, found = self._run(_HOLDS)
        holds = []
        for key, text in zip(found[::2], found[1::2], strict=True):
            amount, expires, expired, _, accounts = text.split(b" ", 4)
            holds.append(Hold(key.decode(), int(amount), tuple(json.loads(accounts)), float(expires), expired == b"1"))
        return sorted(holds, key=lambda hold: (hold.expires, hold.key))

    def post(self, record: Record) -> bool:
        return bool(self._run(_POST, record, self._record_keys)[1])

    def records(self) -> list[Record]:
        _, found = self._run(_LIST, (), self._record_keys)
        records = []
        for record_id, content, by in found:
            at, _, text = content.decode().partition(" ")
            records.append(Record(record_id.decode(), text, float(at), by.decode()))
        return records

    def acknowledge(self, record_id: str, by: str) -> bool:
        return bool(self._run(_ACKNOWLEDGE, (record_id, by), self._record_keys)[1])

    def after_fork(self) -> None:
        # redis-py leaves a parent's sockets alone when it lets go of them.
        self._begin()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._begin()

    # ---------------------------------------------------------------- what sync and async share

    def _settlements(self, settlements: Sequence[Settlement]) -> tuple[tuple[bytes, ...], list[str | int | float]]:
        """Keys and arguments of the part of a script that ends calls."""
        arguments: list[str | int | float] = [len(settlements)]
        for key, amount, claims in settlements:
            names = _names(claims)
            arguments += (key, amount, len(names), *names, len(claims))
            for claim in claims:
                arguments += (claim.account, claim.keep_until or _FOR_EVER)
        return self._named([f"settled:{settlement.key}" for settlement in settlements]), arguments

    def _reservation(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement]
    ) -> tuple[tuple[bytes, ...], list[str | int | float]]:
        """Keys and arguments of the script."""
        if amount >= _EXACT:
            raise StoreError(f"{self._where}: {amount} nanodollars are more than Redis counts exactly")
        names = _names(claims)
        till = _FOR_EVER if any(not claim.keep_until for claim in claims) else max(c.keep_until for c in claims)
        accounts = packed(tuple([claim.account for claim in claims]))
        keys, arguments = self._settlements(first)
        arguments += (key, amount, ttl, till, accounts, len(names), *names, len(claims))
        for claim in claims:
            among = [names.index(name) for name in (claim.account, *claim.also)]
            most = "" if claim.most is None else min(claim.most, _EXACT)
            arguments += (claim.account, claim.keep_until or _FOR_EVER, most, len(among), *among)
        return (*self._named([f"settled:{key}"]), *keys), arguments

    def _reserved(self, amount: int, claims: Sequence[Claim], said: list[Any]) -> Answer:
        epoch, word, found, *refused_by = said
        balances = _balances(_names(claims), found)
        if word == b"reserved":
            for claim in claims:
                spent, held, unsettled = balances[claim.account]
                balances[claim.account] = Balance(spent, held + amount, unsettled)
        return _answer(claims, balances, epoch, refused_by[0].decode() if refused_by else None)

    def _named(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """The keys of these names. Braces make a cluster keep them in one place."""
        return tuple([f"{{{self._namespace}}}:{name}".encode() for name in names])

    def _about(self) -> tuple[str | float, str]:
        return "" if self._clock is None else repr(self._clock()), self._next_epoch

    def _run(self, script: str, arguments: Sequence[Any] = (), keys: Sequence[bytes] = ()) -> list[Any]:
        try:
            if self._client is None:
                self._client = self._connect(blocking=True)
            prepared = self._scripts.get(script)
            if prepared is None:
                prepared = self._scripts[script] = self._client.register_script(_PRELUDE + script)
            raw = prepared((*self._keys, *keys), (*self._about(), *arguments))
        except self._errors as error:
            raise self._failed(error) from error
        return self._saw(raw)

    def _saw(self, raw: list[Any]) -> list[Any]:
        """Note what every answer begins with, and give the epoch and the rest."""
        epoch = raw[0].decode()
        self._seen = float(raw[1]), time.monotonic()
        if epoch == self._next_epoch:
            # Ours was taken: should the server begin anew, it must not get the same one again.
            self._next_epoch = uuid.uuid4().hex
        return [epoch, *raw[2:]]

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(f"budgets in {self._where}: {str(error) or type(error).__name__}")

    def _on(self, loop: asyncio.AbstractEventLoop) -> Any:
        """The script that reserves, on a client of this loop."""
        if loop not in self._loops:
            # A client refers to its loop, so that no weak reference to that would ever die.
            self._loops = {known: client for known, client in self._loops.items() if not known.is_closed()}
            client = self._connect(blocking=False)
            self._loops[loop] = client, client.register_script(_PRELUDE + _RESERVE)
        return self._loops[loop][1]

    def _connect(self, *, blocking: bool) -> Any:
        import redis
        from redis import asyncio as redis_asyncio
        from redis.asyncio.retry import Retry as AsyncRetry
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # A step that is made once more takes twice as long, and it is known what to do without the store.
        options: dict[str, Any] = {
            "socket_timeout": _TIMEOUT_SECONDS,
            "socket_connect_timeout": _TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0) if blocking else AsyncRetry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self._clustered:
            url = f"redis{self._url.removeprefix(CLUSTER)}"
            return (redis.RedisCluster if blocking else redis_asyncio.RedisCluster).from_url(url, **options)
        return (redis.Redis if blocking else redis_asyncio.Redis).from_url(self._url, **options)


def _shown(url: str) -> str:
    """The address without what may be a password: those are in the address, or among the parameters."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(_NO_ADDRESS) from None
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port else "")


def _names(claims: Sequence[Claim]) -> list[str]:
    """All accounts that the claims look at, each once."""
    names = [claim.account for claim in claims]
    for claim in claims:
        if claim.also:
            names += claim.also
    return list(dict.fromkeys(names)) if len(names) > 1 else names


def _balances(names: Sequence[str], found: Sequence[bytes | None]) -> dict[str, Balance]:
    balances = {}
    for index, name in enumerate(names):
        spent, held, unsettled, floor = found[_FIELDS * index : _FIELDS * index + _FIELDS]
        balances[name] = Balance(int(spent or 0) + int(floor or 0), int(held or 0), int(unsettled or 0))
    return balances


def _answer(
    claims: Sequence[Claim], balances: Mapping[str, Balance], epoch: str, refused_by: str | None = None
) -> Answer:
    found = {claim.account: together(claim, balances) for claim in claims}
    return Answer(refused_by is None, refused_by, found, epoch)
