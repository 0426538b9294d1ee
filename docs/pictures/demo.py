#!/usr/bin/env python3
"""Records docs/demo.svg: a session at a terminal with a real mount and a real program.

    docs/pictures/demo.py [PROCMEMFS]            runs the commands and writes the picture
    docs/pictures/demo.py --check [PROCMEMFS]    runs them, and fails where one does not show what it should

PROCMEMFS is the program, target/release/procmemfs by default. To be run as root, with cc, gdb, grep and xxd installed; to write the
picture also takes the Python package `rich` (tried with 15.0). Process numbers, addresses and times are those of the run.
"""

import io
import os
import re
import select
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/demo.svg"
WIDTH = 100
MOST_BYTES = 60_000

# What is looked at. The password is put together while it runs, so that no file holds it; it never passes through a buffer on the
# heap, so that it is there once.
VAULT = r"""
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct vault { char *password; };

static void wake(int signal) { (void)signal; }

static void guard(struct vault *vault) {
    for (;;) {
        write(1, "vault: ", 7);
        write(1, vault->password, strlen(vault->password));
        write(1, "\n", 1);
        pause();
    }
}

int main(void) {
    static const char fish[] = "swordfish";
    struct vault vault = { .password = calloc(1, 64) };
    strcpy(vault.password, "the password is ");
    strncat(vault.password, fish, sizeof fish);
    if (mmap(0, 1UL << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) return 1;
    signal(SIGUSR1, wake);
    guard(&vault);
}
"""


class Session:
    """Commands in a directory, and what they printed."""

    def __init__(self, scratch, procmemfs):
        self.scratch = scratch
        self.lines = []
        path = f"{procmemfs.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        self.environment = {"PATH": path, "HOME": str(scratch), "LC_ALL": "C", "TZ": "UTC", "TERM": "dumb"}

    def prompt(self, command):
        self.lines.append(("command", command))

    def remark(self, text):
        self.lines.append(("remark", f"# {text}"))

    def printed(self, text, wanted):
        """Takes in what was printed, which must be as `wanted` says."""
        if not re.search(wanted, text):
            command = [line for kind, line in self.lines if kind == "command"][-1]
            raise SystemExit(f"demo.py: '{command}' does not show '{wanted}' but: {text!r}")
        self.lines += [("output", line) for line in text.splitlines()]
        return text

    def run(self, command, wanted=r"\A\Z"):
        self.prompt(command)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.scratch,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=120,
        )
        if done.returncode != 0 or done.stderr:
            raise SystemExit(f"demo.py: '{command}' ended with {done.returncode}: {done.stderr.strip()}")
        return self.printed(done.stdout, wanted)


def says(vault):
    """The next line of the program."""
    ready, _, _ = select.select([vault.stdout], [], [], 60)
    return vault.stdout.readline() if ready else ""


def record(session):
    """The session itself."""
    scratch = session.scratch
    source = scratch / "vault.c"
    source.write_text(VAULT)
    subprocess.run(["cc", "-g", "-O0", "-o", "vault", source.name], cwd=scratch, check=True)
    (scratch / "mnt").mkdir()
    with subprocess.Popen([scratch / "vault"], stdout=subprocess.PIPE, text=True) as vault:
        try:
            pid = vault.pid
            session.prompt("./vault & echo $!")
            session.printed(f"{pid}\n{says(vault)}", "the password is swordfish")
            look(session, pid, vault)
        finally:
            vault.kill()
            if os.path.ismount(scratch / "mnt"):
                subprocess.run(["umount", "-l", scratch / "mnt"], check=False)


def look(session, pid, vault):
    session.run("procmemfs -o write mnt")
    session.run(f"ls -l mnt/{pid} | tail -4", r"rw-p\.heap[\s\S]*stack ->")
    session.remark("The secret is in the heap")
    found = session.run(f"grep -abo 'the password is [a-z]*' mnt/{pid}/heap", r"\A\d+:the password is swordfish\n\Z")
    offset = int(found.split(":")[0])
    session.run(f"xxd -s {offset} -l 32 mnt/{pid}/heap", r"7468 6520 7061")
    session.remark("Keep all of it as it is now, and change the running program")
    session.run(f"mkdir mnt/snap/{pid}@before")
    at = offset + len("the password is ")
    session.run(f"printf clownfish | dd of=mnt/{pid}/heap bs=1 seek={at} conv=notrunc status=none")
    session.run(f"kill -USR1 {pid}")
    session.printed(says(vault), "the password is clownfish")
    session.run(f"grep -ao 'the password is [a-z]*' mnt/snap/{pid}@before/heap", r"\Athe password is swordfish\n\Z")
    session.remark("A terabyte is reserved, and little of it is there")
    session.run(f"du -sh --apparent-size mnt/{pid} && du -sh mnt/{pid}", r"\A1\.\dT\t[^\n]*\n[\d.]+[KM]\t")
    session.remark("A debugger reads a core file that is made while it is read; the program goes on")
    session.run(f"gdb -q -batch -ex bt -c mnt/core/{pid} vault 2>/dev/null | tail -3", r"guard \(vault=[\s\S]* main \(\)")
    session.run("umount mnt")


def render(lines):
    """The session as SVG, which takes nothing from elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    styles = {"command": "bold bright_white", "output": "white", "remark": "green"}
    for kind, line in lines:
        text = Text("# " if kind == "command" else "", style="bold cyan")
        text.append(line.expandtabs(), style=styles[kind])
        console.print(text, overflow="fold", highlight=False, soft_wrap=False)
    picture = console.export_svg(title="procmemfs", unique_id="demo")
    # A picture in a README may load no fonts; the widths are set for each text.
    return re.sub(r"@font-face \{[^}]*\}\s*", "", picture)


def main():
    arguments = sys.argv[1:]
    is_check = arguments[:1] == ["--check"]
    rest = arguments[is_check:]
    if len(rest) > 1 or any(it.startswith("-") for it in rest):
        sys.exit("usage: demo.py [--check] [PROCMEMFS]")
    procmemfs = Path(rest[0] if rest else ROOT / "target/release/procmemfs").resolve()
    if not os.access(procmemfs, os.X_OK):
        sys.exit(f"demo.py: there is no program {procmemfs}: cargo build --release")
    if os.geteuid() != 0:
        sys.exit("demo.py: to be run as root, as which it mounts")
    with tempfile.TemporaryDirectory(prefix="procmemfs-demo-") as scratch:
        session = Session(Path(scratch), procmemfs)
        record(session)
    if is_check:
        return
    picture = render(session.lines)
    if len(picture.encode()) > MOST_BYTES:
        sys.exit(f"demo.py: the picture takes {len(picture.encode())} bytes, more than {MOST_BYTES}")
    PICTURE.write_text(picture)


if __name__ == "__main__":
    main()
