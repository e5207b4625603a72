"""What was measured, and on what."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.bench.boxes import ENVIRONMENT, ROOT
from tests.bench.peers import Peer


def version(peer: Peer) -> str:
    """Return the version of a peer, or nothing if it is not there."""
    try:
        done = subprocess.run(
            peer.version, capture_output=True, text=True, check=False, env=ENVIRONMENT
        )
    except OSError:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    told = [line for line in lines if any(letter.isdigit() for letter in line)]
    return told[0] if done.returncode == 0 and told else ""


def machine() -> dict[str, Any]:
    """Return the date, the machine and the state of the work tree."""
    release = Path("/etc/os-release").read_text().splitlines()
    names = dict(line.split("=", 1) for line in release if "=" in line)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": names["PRETTY_NAME"].strip('"'),
        "kernel": platform.release(),
        "processor": processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def processor() -> str:
    """Return the model of the processor, where the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
