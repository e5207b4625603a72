"""System calls of a program that fail as they are told to, by strace(1)."""

from pathlib import Path


def injecting(folder: Path, fault: str) -> list[str]:
    """Return the command line that runs another, in the same process, with a fault in its calls.

    The fault is written `CALL:error=ERRNO:when=FIRST`; each thread counts for itself.
    """
    call = fault.partition(":")[0]
    # The tracer is a process apart, so that the program is the process that was started.
    quiet = ["-DD", "-f", "-qq", "--seccomp-bpf", f"--output={folder / 'trace'}"]
    return ["strace", *quiet, f"--trace={call}", f"--inject={fault}"]
