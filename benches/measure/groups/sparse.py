import os
import subprocess
from functools import partial

from ..commands import finish, timed
from ..failure import Failure
from ..mount import Empty
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
    with (
        bench.target("reserve", RESERVED, PAGES) as target,
        bench.mounts(target) as mounts,
        bench.empty_sparse(mounts[0], RESERVED, PAGES) as empty,
    ):
        ours, reference = [mount.mapping(target) for mount in mounts], empty.file()
        places, count = checked_copy(reference, reference, copy)
        counts = []
        for side in ours:
            its_places, its_count = checked_copy(side, target.mapping, copy)
            counts.append(its_count)
            if its_places != places:
                raise Failure(f"{Empty.NAME} has its data in other places than {side.path}")
        table = Comparison(
            f"1 TiB reserved, {PAGES} scattered pages of it resident",
            "ms",
            peer="PAGEMAP_SCAN and process_vm_readv",
            reference=Empty.NAME,
            transports=bench.transports,
        )
        peer = partial(scanned, bench, target.mapping, target.pid)
        times = bench.compare(
            [partial(timed_copy, side, copy) for side in ours],
            peer,
            partial(timed_copy, reference, copy),
        )
        table.row("cp --sparse=always to tmpfs", AIM, times, milliseconds)
        times = bench.compare(
            [partial(timed_grep, *side) for side in zip(ours, counts)],
            peer,
            partial(timed_grep, reference, count),
        )
        table.row("grep -c", AIM, times, milliseconds)


def scanned(bench, mapping, pid):
    seconds, copied = bench.probe("scan", pid, mapping.offset, mapping.length)
    if copied != RESIDENT:
        raise Failure(f"{copied} bytes are resident instead of {RESIDENT}")
    return seconds, ""


def timed_copy(span, copy):
    took = timed(copying(span, copy))
    os.remove(copy)
    return took


def timed_grep(span, count):
    """Seconds; the sides do not hold the same, so that each has a count of its own."""
    seconds, said = timed([*GREP, span.path], stdout=subprocess.PIPE)
    if said != count:
        raise Failure(f"grep -c says {said} instead of {count}")
    return seconds, ""


def checked_copy(span, original, copy):
    """Where a copy has data, and what grep says of it: it is found right, so that is right, too."""
    finish(copying(span, copy))
    check_copy(copy, original)
    with open(copy, "rb") as file:
        places = list(stretches(file.fileno()))
    count = finish([*GREP, copy], stdout=subprocess.PIPE)
    os.remove(copy)
    return places, count


def copying(span, copy):
    return ["cp", "--sparse=always", span.path, copy]


def check_copy(copy, original):
    """All that it holds is as in the original, and it holds as much as the process does."""
    held = 0
    with open(copy, "rb") as ours, open(original.path, "rb") as memory:
        for start, end in stretches(ours.fileno()):
            there = os.pread(memory.fileno(), end - start, original.offset + start)
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
