"""The control socket: answers what `netsrvd status` and Varlink clients ask of a running daemon."""
