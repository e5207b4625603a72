"""Echo on TCP and UDP in one epoll loop, as fast as Python alone gets: `loop.py PORT`.

The reference for both loads at once. It has no limits, no accounting, no time-outs and no log, and
a peer that does not take its answer at once is dropped.
"""

import ctypes
import errno
import resource
import select
import socket
import sys
from contextlib import suppress

HOST = "127.0.0.1"
BATCH, SIZE, NAME = 64, 65536, 16


class Vector(ctypes.Structure):
    """struct iovec, 16 bytes."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct mmsghdr, 64 bytes."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),  # an int; here the struct msghdr in it ends
        ("length", ctypes.c_size_t),  # an unsigned int
    )


class Datagrams:
    """A UDP socket that sends back what has come, up to `BATCH` at a time."""

    def __init__(self, sock: socket.socket) -> None:
        libc = ctypes.CDLL(None)
        self._receive, self._send = libc.recvmmsg, libc.sendmmsg
        self._number = sock.fileno()
        self._payloads = (ctypes.c_char * (SIZE * BATCH))()
        self._names = (ctypes.c_char * (NAME * BATCH))()
        self._vectors = (Vector * BATCH)()
        self._messages = (Message * BATCH)()
        for i, message in enumerate(self._messages):
            self._vectors[i].base = ctypes.addressof(self._payloads) + i * SIZE
            self._vectors[i].length = SIZE
            message.name = ctypes.addressof(self._names) + i * NAME
            message.name_length = NAME
            message.vectors = ctypes.addressof(self._vectors[i])
            message.vector_count = 1
        # The lower halves of the lengths, on a little-endian machine.
        self._lengths = memoryview(self._vectors).cast("B").cast("I")[2::4]
        self._received = memoryview(self._messages).cast("B").cast("I")[14::16]
        self._full = memoryview(bytes(self._lengths)).cast("I")

    def echo(self) -> None:
        """Receive one batch and send it back."""
        count = self._receive(self._number, self._messages, BATCH, socket.MSG_DONTWAIT, None)
        if count < 1:
            return
        self._lengths[:count] = self._received[:count]
        self._send(self._number, self._messages, count, 0)
        self._lengths[:count] = self._full[:count]


def serve(port: int) -> None:
    """Serve for ever."""
    listener = socket.create_server((HOST, port), backlog=4096)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HOST, port))
    listener.setblocking(False)
    datagrams = Datagrams(udp)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(udp, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    listening, receiving = listener.fileno(), udp.fileno()
    while True:
        for number, _ in poll.poll(maxevents=512):
            client = clients.get(number)
            if client is not None:
                try:
                    data = client.recv(SIZE)
                    if data and client.send(data) == len(data):
                        continue
                except OSError as error:
                    if error.errno == errno.EAGAIN:
                        continue
                clients.pop(number).close()
            elif number == receiving:
                datagrams.echo()
            elif number == listening:
                with suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        client.setblocking(False)
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    serve(int(sys.argv[1]))
