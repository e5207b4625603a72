"""Echo on TCP and UDP as a user of each library would write it: `echo.py KIND PORT`."""

import resource
import sys

HOST = "127.0.0.1"
BACKLOG = 4096
LARGEST = 65536


def serve_socketserver(port: int) -> None:
    """A thread for each connection and for each datagram: the standard library's oldest way."""
    import socketserver
    import threading

    class Stream(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(LARGEST):
                self.request.sendall(data)

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data, self.client_address)

    class Streams(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = BACKLOG

    class Datagrams(socketserver.ThreadingUDPServer):
        daemon_threads = True
        max_packet_size = LARGEST

    datagrams = Datagrams((HOST, port), Datagram)
    threading.Thread(target=datagrams.serve_forever, daemon=True).start()
    Streams((HOST, port), Stream).serve_forever()


def serve_asyncio(port: int) -> None:
    """Protocols, the quickest of asyncio's ways."""
    import asyncio

    class Stream(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.write = transport.write

        def data_received(self, data: bytes) -> None:
            self.write(data)

    class Datagram(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.sendto = transport.sendto

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.sendto(data, address)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Datagram, local_addr=(HOST, port))
        await loop.create_server(Stream, HOST, port, backlog=BACKLOG)
        await asyncio.Event().wait()

    asyncio.run(main())


def serve_uvloop(port: int) -> None:
    """The same on libuv."""
    import asyncio

    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    serve_asyncio(port)


def serve_gevent(port: int) -> None:
    """A greenlet for each connection."""
    from gevent.server import DatagramServer, StreamServer

    def stream(sock, address) -> None:  # noqa: ANN001
        while data := sock.recv(LARGEST):
            sock.sendall(data)

    class Datagrams(DatagramServer):
        def handle(self, data: bytes, address: tuple[str, int]) -> None:
            self.sendto(data, address)

    Datagrams((HOST, port)).start()
    StreamServer((HOST, port), stream, backlog=BACKLOG).serve_forever()


def serve_twisted(port: int) -> None:
    """Protocols again."""
    from twisted.internet import protocol, reactor

    class Stream(protocol.Protocol):
        def connectionMade(self) -> None:  # noqa: N802
            self.transport.setTcpNoDelay(True)

        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            self.transport.write(data)

    class Datagram(protocol.DatagramProtocol):
        def datagramReceived(self, data: bytes, address: tuple[str, int]) -> None:  # noqa: N802
            self.transport.write(data, address)

    reactor.listenUDP(port, Datagram(), interface=HOST, maxPacketSize=LARGEST)
    factory = protocol.Factory.forProtocol(Stream)
    reactor.listenTCP(port, factory, interface=HOST, backlog=BACKLOG)
    reactor.run()


KINDS = {
    "socketserver": serve_socketserver,
    "asyncio": serve_asyncio,
    "uvloop": serve_uvloop,
    "gevent": serve_gevent,
    "twisted": serve_twisted,
}

if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    KINDS[sys.argv[1]](int(sys.argv[2]))
