"""The smallest program in Python that answers one client on a socket that was passed to it."""

import socket

listening = socket.socket(fileno=3)
client, _ = listening.accept()
client.sendall(client.recv(100))
