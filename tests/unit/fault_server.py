"""A server on 127.0.0.1 that follows a script, faults included, and remembers the requests it received."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import trustme

type Step = bytes | Callable[[Peer], object]
type Reply = Step | tuple[Step, ...]
"""Bytes are sent and functions are called, in order. Then the connection waits for its next request."""

PATIENCE_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. The names of `headers` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Peer:
    """The client of one connection, as the steps of a script see it."""

    request: Request

    def __init__(self, connection: socket.socket, over: Event) -> None:
        self._socket = connection
        self._over = over
        self._unread = b""
        self.quiet = Event()
        self.sent = 0
        self.received = 0

    def secure(self, tls: ssl.SSLContext) -> None:
        self._socket = tls.wrap_socket(self._socket, server_side=True)

    @property
    def protocol(self) -> str | None:
        """The protocol negotiated in the TLS handshake (ALPN)."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.selected_alpn_protocol()

    def next_request(self) -> bool:
        """Wait for the next whole request. False if the client leaves instead."""
        while b"\r\n\r\n" not in self._unread:
            if not self._unread:
                self.quiet.set()
            data = self.receive()
            self.quiet.clear()
            if not data:
                return False
            self._unread += data
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        length = int(headers.get("content-length", 0))
        while len(self._unread) < length:
            data = self.receive()
            if not data:
                return False
            self._unread += data
        body, self._unread = self._unread[:length], self._unread[length:]
        self.request = Request(method, path, headers, body)
        return True

    def play(self, reply: Reply) -> None:
        for step in reply if isinstance(reply, tuple) else (reply,):
            if isinstance(step, bytes):
                self.send(step)
            else:
                step(self)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self.sent += len(data)

    def send_unprotected(self, data: bytes) -> None:
        """Send plain bytes on a TLS connection."""
        socket.socket.sendall(self._socket, data)

    def receive(self) -> bytes:
        """Wait for the next bytes. Empty if the client leaves instead."""
        data = self._socket.recv(2**16)
        self.received += len(data)
        return data

    def wait(self, seconds: float) -> None:
        """Wait. Raises ConnectionError as soon as the server stops."""
        if self._over.wait(seconds):
            raise ConnectionError

    def shut(self) -> None:
        """End the connection, from any thread."""
        # SSLSocket's own shutdown would make a reading thread read plain text.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave with a FIN, as programs do."""
        self.shut()
        self._socket.close()

    def reset(self) -> None:
        """Leave with an RST, as a crash or a middlebox does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class FaultServer:
    """Plays the next reply of the script for each request, and repeats the last one. Greets each connection first.

    On exit, it asserts that the client has left every connection except those that are idle, and stops its threads.
    """

    def __init__(self, *script: Reply, greeting: Reply | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._script = chain(script, repeat(script[-1]) if script else ())
        self._greeting = greeting
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A small buffer, so that `sent` is close to what the client reads.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
        # As servers do. Otherwise each answer over TLS waits 40 ms for an acknowledgement.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acceptor = Thread(target=self._accept)
        self._over = Event()
        self._last_address: object = None
        self._peers: dict[Thread, Peer] = {}
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections the server accepted."""
        return len(self._peers)

    @property
    def received(self) -> int:
        """How many bytes arrived, in whole requests or not."""
        return sum(peer.received for peer in self._peers.values())

    @property
    def sent(self) -> int:
        """How many bytes were sent. The kernel may hold some that the client did not read."""
        return sum(peer.sent for peer in self._peers.values())

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        # This connection is accepted after all others.
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last_address = last.getsockname()
            last.connect(self._listener.getsockname())
            self._acceptor.join()
        self._listener.close()
        all_quiet = all(peer.quiet.wait(PATIENCE_SECONDS) for peer in self._peers.values())
        self._over.set()
        for thread, peer in self._peers.items():
            peer.shut()
            thread.join()
        assert all_quiet, "the client did not close a connection that it abandoned"

    def _accept(self) -> None:
        while True:
            connection, address = self._listener.accept()
            if address == self._last_address:
                connection.close()
                return
            peer = Peer(connection, self._over)
            thread = Thread(target=self._serve, args=[peer])
            self._peers[thread] = peer
            thread.start()

    def _serve(self, peer: Peer) -> None:
        # A client may leave at any moment, also within a handshake.
        with suppress(OSError):
            if self._tls is not None:
                peer.secure(self._tls)
            if self._greeting is not None:
                peer.play(self._greeting)
            while peer.next_request():
                self.requests.append(peer.request)
                peer.play(next(self._script))
        peer.close()
        peer.quiet.set()


def serving_tls(authority: trustme.CA, host: str = "127.0.0.1", valid_until: datetime | None = None) -> ssl.SSLContext:
    """The TLS context of a server whose certificate that authority has issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(host, not_after=valid_until).configure_cert(context)
    return context


def answer(status: int, body: bytes = b"", *headers: str, keep: bool = False) -> bytes:
    """A complete answer. With `keep`, the connection stays open after it."""
    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body)}", *headers]
    if not keep:
        lines.append("Connection: close")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


def close(peer: Peer) -> None:
    """Leave with a FIN."""
    peer.close()


def reset(peer: Peer) -> None:
    """Leave with an RST."""
    peer.reset()


def hang(peer: Peer) -> None:
    """Send nothing until the client leaves."""
    while peer.receive():
        pass


def drip(data: bytes, every: float = 0.05) -> Step:
    """Send one byte at a time."""

    def step(peer: Peer) -> None:
        for position in range(len(data)):
            peer.send(data[position : position + 1])
            peer.wait(every)

    return step


def endlessly(data: bytes, every: float = 0) -> Step:
    """Send the same bytes again and again until the client leaves."""

    def step(peer: Peer) -> None:
        while True:
            peer.send(data)
            peer.wait(every)

    return step


@contextmanager
def unused_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def full_port() -> Iterator[int]:
    """A port whose backlog is full: connecting to it hangs."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with suppress(TimeoutError):
            while True:
                sockets.enter_context(socket.create_connection(listener.getsockname(), timeout=0.1))
        yield listener.getsockname()[1]
