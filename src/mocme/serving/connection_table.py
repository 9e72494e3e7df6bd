"""The open connections of a process, and which of them gives way to a new one."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol, final

from mocme.serving.limits import Limits


class ConnectionRefusal(NamedTuple):
    """Why a connection is refused."""

    status: int
    code: str
    message: str
    remedy: str


class Connection(Protocol):
    """A connection, hashable by identity."""

    @property
    def transport(self) -> asyncio.Transport:
        """What it is sent over."""


@final
class ConnectionTable:
    """The open connections of a process.

    Attributes:
        limits: how many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[Connection, str | None] = {}
        self._of_address: Counter[str] = Counter()
        # Those that wait for their client, in the order in which they began to: for a request, for
        # the rest of its body, for the reading of its answer.
        self._waiting: dict[Connection, None] = {}
        self._receiving: dict[Connection, None] = {}
        self._stalled: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection, address: str | None) -> ConnectionRefusal | None:
        """Register a connection, or return the reason against it.

        Where there are too many, one that waits for its client is closed: the one that waits
        longest without a request, else without the rest of a body, else for the reading of an
        answer.

        Args:
            address: of the client; None exempts it from the limit of an address.
        """
        if address is not None and self._of_address[address] >= self.limits.connections_of_address:
            return ConnectionRefusal(
                503, "busy", "too many connections from this address", "close some of them first"
            )
        if len(self._open) >= self.limits.connections:
            longest = self._replaceable()
            if longest is None:
                return ConnectionRefusal(503, "busy", "too many connections", "try again later")
            self.remove(longest)
            longest.transport.abort()
        self._open[connection] = address
        if address is not None:
            self._of_address[address] += 1
        self.waits(connection)
        return None

    def waits(self, connection: Connection) -> None:
        """Note that a connection has no request that is not answered."""
        self._place(connection, self._waiting)

    def receives(self, connection: Connection) -> None:
        """Note that the headers of a request are complete, and its body is not."""
        self._place(connection, self._receiving)

    def stalls(self, connection: Connection) -> None:
        """Note that a client does not read its answer."""
        self._place(connection, self._stalled)

    def works(self, connection: Connection) -> None:
        """Note that a request is being answered."""
        self._place(connection, None)

    def _place(self, connection: Connection, among: dict[Connection, None] | None) -> None:
        if among is not None and connection in among:
            return  # it keeps its turn
        for others in (self._waiting, self._receiving, self._stalled):
            others.pop(connection, None)
        if among is not None and connection in self._open:
            among[connection] = None

    def _replaceable(self) -> Connection | None:
        """Return the connection that waits longest for its client."""
        for among in (self._waiting, self._receiving, self._stalled):
            for connection in among:
                return connection
        return None

    def remove(self, connection: Connection) -> None:
        """Forget a connection; more than once is no error."""
        self._place(connection, None)
        address = self._open.pop(connection, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]


def counted_address(peer: Any) -> str | None:
    """Return the address for the limit of one address; None for one of this machine."""
    if not isinstance(peer, tuple):
        return None
    try:
        address = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback:
        return None
    # A client of IPv6 has a whole /64.
    return str(mapped) if mapped.version == 4 else str(int(mapped) >> 64)
