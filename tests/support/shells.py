"""What bash, zsh and fish propose behind the beginning of a command line, asked of the shells."""

import os
import pty
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from tests.support.patience import SECONDS

COMPLETIONS = Path(__file__).parents[2] / "packaging/completions"
HOST = "known.example.org"
"""A host that the user knows: by ssh, and for bash by a file like /etc/hosts."""

PATIENCE = 2 * SECONDS
"""For one shell that answers all questions of a test."""

# Calls the function that `complete` names as bash does when a tabulator is typed: bash(1),
# "Programmable Completion".
BASH = """
source /usr/share/bash-completion/bash_completion
source "$1"
read -r _ _ function _ < <(complete -p netsrvd)
compopt() { :; }  # it works only behind a tabulator
while IFS= read -r line; do
    COMPREPLY=() COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9
    read -ra COMP_WORDS <<<"${line//=/ = }"  # of COMP_WORDBREAKS, what these lines have
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    $function netsrvd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\\n' "${COMPREPLY[@]}" . >>"$2"
done
"""

# Runs in the line editor, as soon as there is one; writes down what would be shown or inserted.
ZSH = """
fpath=($COMPLETIONS $fpath)
autoload -Uz compinit
compinit -u -D
zstyle ':completion:*' menu no
PS1='' LISTMAX=0
function compadd {
    local -a proposed
    if (( ${@[(I)-[OAD]]} )) { builtin compadd "$@"; return }
    builtin compadd -O proposed "$@"
    print -rl -- $proposed >>$ANSWERS
    builtin compadd "$@"
}
function propose { _main_complete; compstate[insert]='' compstate[list]='' }
zle -C propose complete-word propose
function zle-line-init {
    local line
    while IFS= read -r line; do
        BUFFER=$line CURSOR=$#line
        zle propose
        print . >>$ANSWERS
    done <$QUESTIONS
    BUFFER='' CURSOR=0
    exit
}
zle -N zle-line-init
"""

FISH = """
source $argv[1]
while read --local --line line
    complete --do-complete=$line | string replace --regex '\\t.*' '' >>$argv[2]
    echo . >>$argv[2]
end
"""


def proposals(
    shell: str, lines: Sequence[str], folder: Path, environment: dict[str, str]
) -> dict[str, set[str]]:
    """Return the words that a shell proposes for the last word of each line.

    The shell runs in `folder`, without a configuration of its user.
    """
    answers, questions = folder / f"{shell}.answers", folder / f"{shell}.questions"
    answers.write_text("")
    for home in (folder, folder / "zsh"):
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        (home / ".ssh/known_hosts").write_text(f"{HOST} ssh-ed25519 AAAA\n")
    (folder / "hosts").write_text(f"192.0.2.1 {HOST}\n")
    environment = {**environment, "HOSTFILE": str(folder / "hosts")}
    questions.write_text("".join(f"{line}\n" for line in lines))
    RUN[shell](folder, questions, answers, environment)
    blocks = answers.read_text().split(".\n")
    assert len(blocks) == len(lines) + 1, f"{shell}: {answers.read_text()}"
    return {
        line: {word for word in block.split("\n") if word}
        for line, block in zip(lines, blocks, strict=False)
    }


def run_bash(folder: Path, questions: Path, answers: Path, environment: dict[str, str]) -> None:
    command = ["bash", "--norc", "-c", BASH, "bash", COMPLETIONS / "bash/netsrvd", answers]
    run_plain(command, folder, questions, environment)


def run_fish(folder: Path, questions: Path, answers: Path, environment: dict[str, str]) -> None:
    script = COMPLETIONS / "fish/netsrvd.fish"
    command = ["fish", "--no-config", "-c", FISH, script, answers]
    run_plain(command, folder, questions, environment)


def run_plain(
    command: list[str | Path], folder: Path, questions: Path, environment: dict[str, str]
) -> None:
    with questions.open() as stdin:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment | {"HOME": str(folder)},
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def run_zsh(folder: Path, questions: Path, answers: Path, environment: dict[str, str]) -> None:
    """Run zsh on a terminal, without which it has no line editor."""
    home = folder / "zsh"
    home.mkdir(exist_ok=True)
    (home / ".zshrc").write_text(ZSH)
    terminal, side = pty.openpty()
    with os.fdopen(terminal, "rb") as screen:
        shell = subprocess.Popen(
            ["zsh", "-d", "-i"],
            cwd=folder,
            env=environment
            | {"HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb"}
            | {"COMPLETIONS": str(COMPLETIONS / "zsh")}
            | {"QUESTIONS": str(questions), "ANSWERS": str(answers)},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        shown = drain(screen, monotonic() + PATIENCE)
        shell.kill()
        shell.wait()
    assert "error" not in shown, shown


def drain(screen: BinaryIO, deadline: float) -> str:
    """Read what a terminal shows until its programs have ended."""
    shown = b""
    while select.select([screen], [], [], max(0.0, deadline - monotonic()))[0]:
        try:
            more = os.read(screen.fileno(), 65536)
        except OSError:  # EIO: no program has it open any more
            return shown.decode(errors="replace")
        shown += more
    raise AssertionError(f"the shell does not end: {shown.decode(errors='replace')}")


RUN = {"bash": run_bash, "zsh": run_zsh, "fish": run_fish}
