"""The queue check: do the Sentinels agree on a master, and does it accept a write."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from runnerhub_passwords.redis_login import RedisLogin, redis_login

from ..errors import ProbeError
from ..names import WRITE_REFUSED
from .checks import Details
from .database import first_line
from .settings import RedisSettings

Address = tuple[str, int]

KEY_LIFETIME_SECONDS: Final = 120


def agreed_master(answers: Sequence[Address | None], sentinels: int) -> tuple[Address | None, int]:
    """The master that most of all configured Sentinels name, if a majority does, and how many name it."""
    named = Counter(answer for answer in answers if answer is not None)
    if not named:
        return None, 0
    master, votes = named.most_common(1)[0]
    return (master if votes > sentinels // 2 else None), votes


class RedisProbe:
    """Asks every Sentinel, then writes a short-lived key to the master that a majority names."""

    def __init__(
        self,
        node: str,
        settings: RedisSettings,
        timeout_seconds: float,
        *,
        on_moved: Callable[[str, str], None] = lambda _old, _new: None,
    ) -> None:
        self._key = f"runnerhub:ha:probe:{node}"
        self._settings = settings
        # All Sentinels are asked at the same time, then the master: three waits fit into one deadline.
        self._timeout_seconds = timeout_seconds / 3
        self._on_moved = on_moved
        self._master: str | None = None
        self._login = redis_login(settings.user, settings.password, settings.password_file)
        asking = redis_login(None, settings.sentinel_password, settings.sentinel_password_file)
        self._sentinels = [self._client(host, port, asking) for host, port in settings.sentinels]
        self.masters_known: int | None = None

    async def __call__(self) -> Details:
        """Probe once; ProbeError when there is no agreement or the write is not acknowledged."""
        counts, master, votes = await self._find()
        self.masters_known = max(counts, default=None)
        if master is None:
            raise self._no_agreement(votes)
        await self._write(master)
        name = f"{master[0]}:{master[1]}"
        if self._master is not None and name != self._master:
            self._on_moved(self._master, name)
        self._master = name
        return {
            "master": name,
            "sentinels": len(self._sentinels),
            "sentinelsAnswering": len(counts),
            "sentinelsAgreeing": votes,
        }

    async def close(self) -> None:
        """Close the connections."""
        for sentinel in self._sentinels:
            await sentinel.aclose()

    async def master(self) -> Address:
        """The master that most Sentinels name; ProbeError when there is no agreement."""
        _, master, votes = await self._find()
        if master is None:
            raise self._no_agreement(votes)
        return master

    def connect(self, master: Address) -> Redis:
        """A client of the master, whose connections are opened when they are used."""
        return self._client(*master, self._login)

    async def _find(self) -> tuple[list[int], Address | None, int]:
        """How many masters each Sentinel that answers knows, where ours is, and how many say so."""
        answers = await asyncio.gather(*(self._ask(sentinel) for sentinel in self._sentinels))
        counts = [count for count, _ in answers if count is not None]
        return counts, *agreed_master([address for _, address in answers], len(self._sentinels))

    def _no_agreement(self, votes: int) -> ProbeError:
        return ProbeError(f"{votes} of {len(self._sentinels)} Sentinels agree on a master")

    async def _ask(self, sentinel: Redis) -> tuple[int | None, Address | None]:
        """How many masters a Sentinel knows, and where it says that ours is."""
        try:
            masters = await sentinel.sentinel_masters()
            answer: Any = await sentinel.sentinel_get_master_addr_by_name(self._settings.master_name)
        except (RedisError, OSError):
            return None, None
        return len(masters), (_text(answer[0]), int(answer[1])) if answer else None

    async def _write(self, master: Address) -> None:
        # A new connection each time: that is what a client of a new master has to do.
        client = self.connect(master)
        try:
            await client.set(self._key, "1", ex=KEY_LIFETIME_SECONDS)
        except ResponseError as error:
            raise ProbeError(f"write to {master[0]}:{master[1]} {WRITE_REFUSED}{answer_of(error)}") from error
        except (RedisError, OSError) as error:
            raise ProbeError(f"write to {master[0]}:{master[1]}: {first_line(error)}") from error
        finally:
            await client.aclose()

    def _client(self, host: str, port: int, login: RedisLogin | None) -> Redis:
        return Redis(
            host=host,
            port=port,
            credential_provider=login,
            socket_timeout=self._timeout_seconds,
            socket_connect_timeout=self._timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
        )


def answer_of(error: ResponseError) -> str:
    """Redis' answer as it came, such as NOREPLICAS with its sentence: the library keeps some of the codes apart."""
    code, text = getattr(error, "status_code", None), str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
