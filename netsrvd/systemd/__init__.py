"""The socket units of systemd: written from the settings, compared with them, asked about."""
