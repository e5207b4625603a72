"""Files of their own for a daemon: a /dev that may have a log, and no configuration of the host."""

from pathlib import Path

# Runs in a mount namespace of its own, with the folder for the log's socket as $0.
_SCRIPT = """
set -e
new=$0/dev
mkdir -p "$new"
mount -t tmpfs tmpfs "$new"
for each in full null random tty urandom zero; do
    touch "$new/$each"
    mount --bind "/dev/$each" "$new/$each"
done
ln -s "$0/log" "$new/log"
mount --move "$new" /dev
for each in /etc/netsrvd /run/systemd; do
    [ ! -d "$each" ] || mount -t tmpfs tmpfs "$each"
done
exec "$@"
"""


def private_files(folder: Path) -> list[str]:
    """Return the command line that runs another in the same process, where /dev/log is FOLDER/log.

    There is no /etc/netsrvd and no journal. It needs root, as mount(8) will say.
    """
    return ["unshare", "--mount", "sh", "-c", _SCRIPT, str(folder)]
