"""The four steps of a socket: make it or take what systemd passed, set options, bind, listen."""
