"""Notices within seconds that another rank died: every rank holds a connection to rank 0, which the system closes."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from pathlib import Path

import torch.distributed as dist

from vqtool.console import out, render_error
from vqtool.errors import VqtoolError

CONNECT = 30.0  # seconds in which the ranks must find each other
GRACE = 10.0  # seconds in which a rank may notice for itself that it computes for nobody
NOTICE = 5.0  # seconds between a failed collective and the closed connection that explains it
BYE = (-1).to_bytes(4, "big", signed=True)


class Peers:
    """The other ranks, watched by threads that only wait.

    A rank that ends properly says goodbye; one whose connection ends without that is gone, and rank 0 passes it on. A
    collective that waits for a rank that is gone may never return (NCCL): after a grace the process ends itself.
    """

    def __init__(self, rank: int, world: int) -> None:
        self.run: Path | None = None  # for the message
        self.gone: int | None = None
        self._noticed, self._mutex, self._left = threading.Event(), threading.Lock(), False
        self._connections: dict[int, socket.socket] = {}
        problem = ""
        try:
            self._connect(rank, world)
        except OSError as error:
            problem = str(error.strerror or error) or "no connection"
        self._agree(problem, world)
        for other, connection in self._connections.items():
            _keep_alive(connection)
            threading.Thread(target=self._listen, args=(connection, other), daemon=True).start()

    def _connect(self, rank: int, world: int) -> None:
        """Rank 0 takes a connection from each of the others; they find it by a broadcast."""
        host = os.environ.get("MASTER_ADDR", "127.0.0.1")
        server = _listener(host, world) if rank == 0 else None
        where = [(server.getsockname()[1], secrets.token_bytes(16)) if server is not None else None]
        dist.broadcast_object_list(where, 0)
        assert where[0] is not None
        port, token = where[0]
        if server is None:
            connection = socket.create_connection((host, port), CONNECT)
            connection.settimeout(None)
            connection.sendall(token + rank.to_bytes(4, "big"))
            self._connections[0] = connection
            return
        deadline = time.monotonic() + CONNECT
        with server:
            while len(self._connections) < world - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                connection, _ = server.accept()
                connection.settimeout(CONNECT)
                hello = connection.recv(20, socket.MSG_WAITALL)
                if hello[:16] == token:
                    connection.settimeout(None)
                    self._connections[int.from_bytes(hello[16:], "big")] = connection
                else:  # not one of ours
                    connection.close()

    def _agree(self, problem: str, world: int) -> None:
        """All watch or none does: half a net would report ranks that live."""
        problems: list[str] = [""] * world
        dist.all_gather_object(problems, problem)
        if any(problems):
            out.warn(
                f"the ranks cannot watch each other ({next(filter(None, problems))}): if one dies, others may wait"
            )
            self.leave(properly=True)
            self._connections = {}

    def _listen(self, connection: socket.socket, other: int) -> None:
        try:
            message = connection.recv(4, socket.MSG_WAITALL)
        except OSError:
            message = b""
        if message != BYE and not self._left:
            self._notice(int.from_bytes(message, "big") if len(message) == 4 else other)

    def _notice(self, rank: int) -> None:
        with self._mutex:
            if self.gone is not None:
                return
            self.gone = rank
        for other, connection in self._connections.items():
            if other != rank:
                with contextlib.suppress(OSError):
                    connection.sendall(rank.to_bytes(4, "big"))
        self._noticed.set()
        time.sleep(GRACE)
        if not self._left:
            render_error(self.error())
            os._exit(1)

    def explain(self) -> VqtoolError | None:
        """Why a collective failed, where a rank is gone."""
        return self.error() if self._noticed.wait(NOTICE) else None

    def error(self) -> VqtoolError:
        """What the ranks that are left say."""
        on = f"; continue with `vqtool resume {self.run}`" if self.run is not None else ""
        return VqtoolError(f"rank {self.gone} is gone{on}", exit_code=1)

    def leave(self, *, properly: bool) -> None:
        """Stop watching; `properly` says goodbye."""
        self._left = True
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                if properly:
                    connection.sendall(BYE)
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _listener(host: str, world: int) -> socket.socket:
    """A listening socket on the address by which the others know this machine, else on all."""
    for address in (host, ""):
        with contextlib.suppress(OSError):
            return socket.create_server((address, 0), backlog=world)
    raise OSError("no port to listen on")


def _keep_alive(connection: socket.socket) -> None:
    """Let the system find out within 20 s that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
