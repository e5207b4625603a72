"""The threads that serve: an acceptor a TCP socket, workers, a datagram thread a UDP socket."""
