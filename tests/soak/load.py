"""The clients of a soak, in one process inside the machine: `load.py FOLDER SCALE`.

It runs until its standard input ends; then every client leaves and the last line is written. Each
10 seconds, and in the end, a line of JSON with all counts so far goes to FOLDER/load.jsonl; each
scrape is a line of FOLDER/scrapes.jsonl. SCALE divides the pauses between the rarer clients.
"""

import asyncio
import itertools
import json
import os
import random
import re
import resource
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ECHO, METRICS, STAMP, STRICT = 51423, 51425, 51440, 51441
SERVICES = {
    "discard": 51432,
    "chargen": 51433,
    "daytime": 51434,
    "time": 51435,
    "qotd": 51436,
    "active": 51437,
    "whoami": 51438,
    "close": 51439,
}
EXTRA = 51430, 51431
"""Ports of the listener that `netsrvd apply` adds, moves and removes."""

CONTROL = "/run/netsrvd-control.sock"

TALKERS, STREAMERS, CHARGEN_READERS, UDP_TALKERS = 40, 4, 2, 6
TALK_SECONDS, VISITS_A_SECOND, SERVICE_SECONDS, HOSTILE_SECONDS = 1.0, 15, 0.3, 4.0
SCRAPE_SECONDS, TELL_SECONDS = 15, 10
PATIENCE_SECONDS = 60.0
"""More than any restart takes on a busy host: what takes longer is a fault."""

CHARGEN_PERIOD = 95 * 74
"""Bytes after which the characters of RFC 864 begin again."""

SAMPLE = re.compile(r"^netsrvd_(\w+)(?:{(.*)})? (\S+)", re.MULTILINE)
LABEL = re.compile(r'(listener|protocol|reason)="([^"]*)"')


def figures(text: str) -> dict[str, float]:
    """Return the samples of an exposition that are not 0, by `name listener protocol reason`."""
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        if name.endswith("_info") or float(value) == 0:
            continue
        found[" ".join([name, *(each for _, each in LABEL.findall(labels))])] = float(value)
    return found


class Load:
    """All clients, and what is known of them. Owned by the thread of the event loop."""

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.scale = folder, scale
        self.counts: Counter[str] = Counter()
        """By what was done and the port, such as `connected 51423`."""
        self.faults: list[dict[str, Any]] = []
        self.sent_bytes: dict[str, int] = {}
        """What each connection that lived for the whole run has sent, by its local port."""
        self.over = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until all is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)

    def fault(self, who: str, error: object) -> None:
        """Note what must not happen."""
        self.counts["faults"] += 1
        if len(self.faults) < 200:
            self.faults.append({"t": time.time(), "who": who, "error": repr(error)[:300]})

    async def connect(
        self, port: int, address: str = "127.0.0.1", source: str = "", receive_bytes: int = 0
    ) -> socket.socket:
        """Return a connection; one that the kernel completed is counted."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if source:
                sock.bind((source, 0))
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.sock_connect(sock, (address, port)), PATIENCE_SECONDS)
        except BaseException as error:
            sock.close()
            # A reset, unlike a refusal, comes after the kernel has completed the connection.
            was_connected = isinstance(error, ConnectionResetError)
            self.counts[f"{'' if was_connected else 'not '}connected {port}"] += 1
            raise
        self.counts[f"connected {port}"] += 1
        return sock

    def tell(self, **more: object) -> None:
        """Write all counts."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        line = {
            "t": time.time(),
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "counts": self.counts,
            "faults": self.faults,
            **more,
        }
        with (self.folder / "load.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer if the other side has ended."""
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < size:
        piece = await asyncio.wait_for(loop.sock_recv(sock, size - len(found)), PATIENCE_SECONDS)
        if not piece:
            break
        found += piece
    return found


async def read_to_end(sock: socket.socket) -> bytes:
    """Return all that comes."""
    return await read_exactly(sock, 1 << 30)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all."""
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, data), PATIENCE_SECONDS)


async def echoed(sock: socket.socket, data: bytes) -> None:
    """Have a message echoed, and compare."""
    await send(sock, data)
    came = await read_exactly(sock, len(data))
    if came != data:
        raise ValueError(f"sent {len(data)} bytes {data[:60]!r}, got {len(came)} {came[:60]!r}")


async def leave(sock: socket.socket) -> None:
    """Shut down our side, and see that nothing but the end comes from the other."""
    sock.shutdown(socket.SHUT_WR)
    if rest := await read_to_end(sock):
        raise ValueError(f"{len(rest)} bytes more than were sent: {rest[:60]!r}")


# Connections that live for the whole run.


async def talker(load: Load, number: int) -> None:
    """Have a numbered message echoed now and then."""
    sock = await load.connect(ECHO, ("127.0.0.1", "::1")[number % 2])
    sent = 0
    with sock:
        await load.pause(TALK_SECONDS * number / TALKERS)
        for count in itertools.count():
            message = f"{number} {count} {sent} ".encode().ljust(1 << (5 + count % 9), b".")
            await echoed(sock, message)
            sent += len(message)
            load.counts["messages"] += 1
            await load.pause(TALK_SECONDS)
            if load.over.is_set():
                break
        await leave(sock)
        load.sent_bytes[str(sock.getsockname()[1])] = sent
    load.counts["kept"] += 1


async def streamer(load: Load, number: int) -> None:
    """Send a stream of numbers without waiting for the echo, and compare what comes back."""
    sock = await load.connect(ECHO, ("127.0.0.1", "::1")[number % 2])
    sent = 0

    async def write() -> None:
        nonlocal sent
        while not load.over.is_set():
            await send(sock, struct.pack("!512Q", *range(sent // 8, sent // 8 + 512)))
            sent += 4096
            await load.pause(0.25)
        sock.shutdown(socket.SHUT_WR)

    writing = asyncio.create_task(write())
    with sock:
        received = 0
        while piece := await read_exactly(sock, 4096):
            wanted = struct.pack("!512Q", *range(received // 8, received // 8 + 512))
            if piece != wanted:
                raise ValueError(f"the stream is wrong within 4096 bytes after {received}")
            received += len(piece)
        await writing
        if received != sent:
            raise ValueError(f"{sent} bytes were sent and {received} came back")
        load.sent_bytes[str(sock.getsockname()[1])] = sent
    load.counts["kept"] += 1


async def chargen_reader(load: Load, number: int) -> None:
    """Read characters slowly; each line must follow from the one before, also after a restart."""
    sock = await load.connect(SERVICES["chargen"], receive_bytes=16384)
    with sock:
        before = await read_exactly(sock, CHARGEN_PERIOD)
        while not load.over.is_set():
            now = await read_exactly(sock, CHARGEN_PERIOD)
            if now != before:
                raise ValueError(f"chargen reader {number}: the lines do not go on")
            load.counts["chargen periods"] += 1
            await load.pause(1)
    load.counts["kept"] += 1


# Connections that come and go.


async def visits(load: Load) -> None:
    """Connect, have some messages echoed, and leave, a few times a second."""
    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        while not load.over.is_set():
            group.create_task(guarded(load, visit(load, next(numbers)), "visit"))
            await load.pause(random.expovariate(VISITS_A_SECOND))


async def visit(load: Load, number: int) -> None:
    """Be one of them; every eighth stays for some seconds."""
    with await load.connect(ECHO, ("127.0.0.1", "::1")[number % 2]) as sock:
        for count in range(1 + number % 3):
            await echoed(sock, f"visit {number} {count} ".encode().ljust(1 + number % 3000, b"."))
            if number % 8 == 0:
                await load.pause(random.uniform(1, 8))
        await leave(sock)
    load.counts["visits"] += 1


async def crowds(load: Load) -> None:
    """Now and then many come at once, and stay for a while."""
    while not load.over.is_set():
        await load.pause(240 / load.scale)
        socks = [await load.connect(ECHO) for _ in range(200)]
        for number, sock in enumerate(socks):
            await echoed(sock, f"one of many {number}".encode())
        await load.pause(10)
        for sock in socks:
            with sock:
                await echoed(sock, b"goodbye")
                await leave(sock)
        load.counts["crowds"] += 1


async def extra_visits(load: Load) -> None:
    """Try the listener that comes, moves and goes."""
    for port in itertools.cycle(EXTRA):
        await load.pause(2)
        if load.over.is_set():
            return
        try:
            with await load.connect(port) as sock:
                await echoed(sock, b"are you there?")
                await leave(sock)
            load.counts[f"served {port}"] += 1
        except ConnectionRefusedError:
            load.counts[f"absent {port}"] += 1
        except (OSError, ValueError):
            load.counts[f"cut {port}"] += 1  # its listener went meanwhile


async def services(load: Load) -> None:
    """Visit the other services one after the other, by TCP and by UDP."""
    for name, port in itertools.cycle(SERVICES.items()):
        await load.pause(SERVICE_SECONDS)
        if load.over.is_set():
            return
        await guarded(load, stream_service(load, name, port), f"{name} by TCP")
        await guarded(load, datagram_service(load, name, port), f"{name} by UDP")


async def stream_service(load: Load, name: str, port: int) -> None:
    """Do with one of the services what its clients do."""
    with await load.connect(port) as sock:
        if name == "chargen":
            text = await read_exactly(sock, 2 * CHARGEN_PERIOD)
            if text[:CHARGEN_PERIOD] != text[CHARGEN_PERIOD:]:
                raise ValueError("the lines do not repeat")
        elif name == "discard":
            await send(sock, bytes(10000))
            await leave(sock)
        else:
            text = await read_to_end(sock)
            if bool(text) != (name != "close") and name != "active":  # that may show none
                raise ValueError(f"got {text[:60]!r}")
    load.counts["services by TCP"] += 1


async def datagram_service(load: Load, name: str, port: int) -> None:
    """Send a datagram, long enough for any answer."""
    answers = name not in {"discard", "close"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        sock.send(bytes(1200))
        load.counts[f"sent {port}"] += 1
        if answers:
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.sock_recv(sock, 2000), PATIENCE_SECONDS)
            load.counts[f"answered {port}"] += 1
    load.counts["services by UDP"] += 1


async def udp_talker(load: Load, number: int) -> None:
    """Have datagrams echoed, one at a time; half of the talkers change their port now and then."""
    loop = asyncio.get_running_loop()
    while not load.over.is_set():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            address = ("::1", "::ffff:127.0.0.1")[number % 2]
            sock.connect((address, ECHO))
            for count in range(10 if number % 3 else 1 << 30):
                data = f"{number} {count} ".encode().ljust(count * 97 % 1400, b".")
                sock.send(data)
                load.counts[f"sent {ECHO}"] += 1
                came = await asyncio.wait_for(loop.sock_recv(sock, 2000), PATIENCE_SECONDS)
                if came != data:
                    raise ValueError(f"sent {data[:40]!r}, got {came[:40]!r}")
                load.counts[f"answered {ECHO}"] += 1
                await load.pause(0.1)
                if load.over.is_set():
                    break


# Hostile clients. The listener `strict` has small limits; what they meet is counted by the daemon.


async def half_open(load: Load) -> None:
    """Connect and say nothing, until the daemon closes."""
    with await load.connect(STRICT, source=source()) as sock:
        await read_to_end(sock)


async def slow(load: Load) -> None:
    """Send a byte now and then."""
    with await load.connect(STRICT, source=source()) as sock:
        for _ in range(8):
            await echoed(sock, b"x")
            await load.pause(2)


async def reset(load: Load) -> None:
    """Send something and reset the connection, some with the answer unread."""
    for port in (ECHO, STRICT, SERVICES["discard"], SERVICES["chargen"]):
        with await load.connect(port) as sock:
            await send(sock, b"never mind")
            await asyncio.sleep(random.uniform(0, 0.02))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def never_reading(load: Load) -> None:
    """Send much and read nothing, until the daemon resets the connection."""
    loop = asyncio.get_running_loop()
    with await load.connect(STRICT, source=source(), receive_bytes=4096) as sock:
        with suppress(TimeoutError):
            await asyncio.wait_for(loop.sock_sendall(sock, bytes(4_000_000)), 14)
        while not load.over.is_set():
            await load.pause(1)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return
            if not is_established(sock):
                return


async def slow_chargen(load: Load) -> None:
    """Ask for characters and take none of them."""
    with await load.connect(SERVICES["chargen"], receive_bytes=4096):
        await load.pause(15)


async def half_close(load: Load) -> None:
    """Send much, shut down, and read it all afterwards."""
    data = os.urandom(100_000)
    with await load.connect(ECHO) as sock:
        sending = asyncio.create_task(send(sock, data))
        came = await read_exactly(sock, len(data))
        await sending
        if came != data:
            raise ValueError("the echo of 100,000 bytes differs")
        await leave(sock)


async def flood_connections(load: Load) -> None:
    """Come faster, and more, than one source may."""
    address = source()
    socks = [await load.connect(STRICT, source=address) for _ in range(80)]
    await load.pause(2)
    for sock in socks:
        sock.close()


async def fill(load: Load) -> None:
    """Take all connections that the listener has, from several sources; some have to wait."""
    sources = [source() for _ in range(8)]
    socks = [await load.connect(STRICT, source=each) for each in sources for _ in range(15)]
    await load.pause(5)
    for sock in socks:
        sock.close()


async def flood_datagrams(load: Load) -> None:
    """Send datagrams faster than one source may."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source(), 0))
        for number in range(400):
            sock.sendto(b"flood", ("127.0.0.1", STRICT))
            load.counts[f"sent {STRICT}"] += 1
            if number % 50 == 49:
                await asyncio.sleep(0.02)


async def odd_datagrams(load: Load) -> None:
    """Send empty and longest datagrams, some from a refused port, and some that are no STAMP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for data in (b"", os.urandom(65507)):
            sock.sendto(data, ("127.0.0.1", ECHO))
            load.counts[f"sent {ECHO}"] += 1
        for size in (0, 3, 43, 44, 1000):
            sock.sendto(os.urandom(size), ("127.0.0.1", STAMP))
            load.counts[f"sent {STAMP}"] += 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 19))
        sock.sendto(b"loop", ("127.0.0.1", ECHO))
        load.counts[f"sent {ECHO}"] += 1


async def denied(load: Load) -> None:
    """Connect from an address that the listener does not admit."""
    with await load.connect(STRICT, source="127.9.0.1") as sock:
        await read_to_end(sock)


async def garbage_http(load: Load) -> None:
    """Send to the port of the metrics what is no request, half a request, and too long a one."""
    for data in (
        os.urandom(2000),
        b"GET /metrics HTTP/1.1\r\nHost: loc",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + 20000 * b"y" + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nnine",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,  # and reads none of it
    ):
        with await load.connect(METRICS, receive_bytes=4096) as sock:
            await send(sock, data)
            await load.pause(0.5)


async def garbage_control(load: Load) -> None:
    """Say to the control socket what is no call, half a call, too long a one; never read."""
    calls = b'{"method":"io.netsrvd.Connections","more":true}\0' * 50
    socks = []
    for data in (os.urandom(1000) + b"\0", b'{"method":', b"{}\0", bytes(3), 70000 * b"x", calls):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        socks.append(sock)
        try:
            # It blocks for a moment where the queue is full, unlike a connection by IP.
            sock.connect(CONTROL)
            await send(sock, data)
        except BlockingIOError:
            load.counts["control socket full"] += 1
    load.counts["calls of garbage"] += len(socks)
    await load.pause(3)
    for sock in socks:
        sock.close()


HOSTILE: dict[Callable[[Load], Awaitable[None]], tuple[type[Exception], ...]] = {
    half_open: (ConnectionError,),
    slow: (),
    reset: (),
    never_reading: (ConnectionError,),
    slow_chargen: (),
    half_close: (),
    flood_connections: (ConnectionError,),
    fill: (ConnectionError,),
    flood_datagrams: (BlockingIOError,),
    odd_datagrams: (),
    denied: (ConnectionError,),
    garbage_http: (ConnectionError,),
    garbage_control: (ConnectionError,),
}
"""Each with what its own client may meet, as the daemon ends it."""

numbers = itertools.count()


def source() -> str:
    """Return an address that was not used before, or long ago."""
    number = next(numbers)
    return f"127.7.{number // 250 % 250}.{1 + number % 250}"


def is_established(sock: socket.socket) -> bool:
    """Tell whether the connection is still there (tcpi_state of TCP_INFO, 1)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1


async def hostile(load: Load) -> None:
    """Have one of them after the other come; those that take long overlap."""
    async with asyncio.TaskGroup() as group:
        for kind, expected in itertools.cycle(HOSTILE.items()):
            await load.pause(HOSTILE_SECONDS)
            if load.over.is_set():
                return
            load.counts[f"hostile {kind.__name__}"] += 1
            group.create_task(guarded(load, kind(load), kind.__name__, expected))


async def scraper(load: Load) -> None:
    """Scrape as Prometheus does, each time by a connection of its own."""
    began = time.monotonic()
    for number in itertools.count(1):
        line: dict[str, Any] = {"t": time.time()}
        try:
            line["figures"] = await scrape(load)
            load.counts["scrapes"] += 1
        except Exception as error:  # noqa: BLE001 - it is told
            line["error"] = repr(error)
            load.fault("scrape", error)
        with (load.folder / "scrapes.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        await load.pause(began + number * SCRAPE_SECONDS - time.monotonic())
        if load.over.is_set():
            return


async def scrape(load: Load) -> dict[str, float]:
    """Return what a scrape finds."""
    with await load.connect(METRICS) as sock:
        await send(sock, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await read_to_end(sock)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"got {answer[:60]!r}")
    return figures(answer.decode())


async def guarded(
    load: Load, client: Awaitable[None], who: str, expected: tuple[type[Exception], ...] = ()
) -> None:
    """Run a client to its end; what goes wrong is told."""
    try:
        await client
    except expected:
        load.counts[f"ended by the daemon: {who}"] += 1
    except Exception as error:  # noqa: BLE001 - it is told
        load.fault(who, error)


async def teller(load: Load) -> None:
    """Write the counts now and then."""
    while not load.over.is_set():
        load.tell()
        await load.pause(TELL_SECONDS)


def clients(load: Load) -> Iterator[tuple[str, Awaitable[None]]]:
    """Yield all that goes on for the whole run."""
    for number in range(TALKERS):
        yield f"talker {number}", talker(load, number)
    for number in range(STREAMERS):
        yield f"streamer {number}", streamer(load, number)
    for number in range(CHARGEN_READERS):
        yield f"chargen reader {number}", chargen_reader(load, number)
    for number in range(UDP_TALKERS):
        yield f"UDP talker {number}", udp_talker(load, number)
    for client in (visits, crowds, extra_visits, services, hostile, scraper, teller):
        yield client.__name__, client(load)


async def main(folder: str, scale: str) -> None:
    """Run until standard input ends."""
    load = Load(Path(folder), float(scale))
    loop = asyncio.get_running_loop()
    loop.add_reader(0, lambda: os.read(0, 100) or (loop.remove_reader(0), load.over.set()))
    await asyncio.gather(*(guarded(load, client, who) for who, client in clients(load)))
    load.tell(final=True, sent_bytes=load.sent_bytes)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(*sys.argv[1:]))
