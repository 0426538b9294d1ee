import os
import subprocess
from functools import partial

from ..commands import finish, timed
from ..failure import Failure
from ..tables import Comparison, milliseconds

RESERVED = 1 << 40
PAGES = 2560
RESIDENT = PAGES << 12
# Noise holds two given bytes once in 64 KiB.
GREP = ["grep", "-c", "ab"]
AIM = 0.5


def sparse(bench):
    """cp and grep of a reserved tebibyte with 10 MiB in it, against one scan and one copy"""
    copy = bench.file("copy")
    with bench.target("reserve", RESERVED, PAGES) as target, bench.mount(target) as mount:
        path = mount.mapping(target).path
        command = ["cp", "--sparse=always", path, copy]
        finish(command)
        check_copy(copy, target.mapping)
        # The copy was just found right, so whatever grep says of it is.
        count = counted(copy)
        os.remove(copy)
        table = Comparison(
            f"1 TiB reserved, {PAGES} scattered pages of it resident",
            "ms",
            peer="PAGEMAP_SCAN and process_vm_readv",
        )
        peer = partial(scanned, bench, target.mapping, target.pid)
        times = bench.turns(partial(timed_copy, command, copy), peer)
        table.row("cp --sparse=always to tmpfs", AIM, times, milliseconds)
        times = bench.turns(partial(timed_grep, path, count), peer)
        table.row("grep -c", AIM, times, milliseconds)


def scanned(bench, mapping, pid):
    seconds, copied = bench.probe("scan", pid, mapping.offset, mapping.length)
    if copied != RESIDENT:
        raise Failure(f"{copied} bytes are resident instead of {RESIDENT}")
    return seconds, ""


def timed_copy(command, copy):
    took = timed(command)
    os.remove(copy)
    return took


def timed_grep(path, count):
    seconds, said = timed([*GREP, path], stdout=subprocess.PIPE)
    if said != count:
        raise Failure(f"grep -c says {said} instead of {count}")
    return seconds, ""


def counted(path):
    return finish([*GREP, path], stdout=subprocess.PIPE)


def check_copy(copy, mapping):
    """All that it holds is as in the process, and it holds as much as the process does."""
    held = 0
    with open(copy, "rb") as ours, open(mapping.path, "rb") as memory:
        for start, end in stretches(ours.fileno()):
            there = os.pread(memory.fileno(), end - start, mapping.offset + start)
            if os.pread(ours.fileno(), end - start, start) != there:
                raise Failure(f"the copy differs at {start:#x}")
            held += end - start
    if held != RESIDENT or os.path.getsize(copy) != RESERVED:
        raise Failure(f"the copy holds {held} bytes instead of {RESIDENT}")


def stretches(descriptor):
    """Where the file has data."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end
