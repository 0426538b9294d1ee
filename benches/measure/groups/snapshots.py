import itertools
import os
import time
from contextlib import contextmanager
from functools import partial

from ..commands import finish, reading, timed
from ..failure import Failure
from ..programs import needs
from ..span import Span, check_same
from ..tables import Comparison, Table, gigabytes, in_mib, microseconds, milliseconds
from ..turns import compare_by_turns
from .ripgrep import counted, said_of
from .warm import probed
from .yara import PART, RESERVED, SPARSE_PAGES, check_ends, found, write_rules

BLOCKS = ["4K", "64K", "128K", "1M", "4M"]
TMPFS = "a file on tmpfs"
MEM = "/proc/PID/mem"
# The least ratios that we want to see.
OF_MEM = 1.2
OF_TMPFS = 0.9
PAUSE = 1.25
PAUSE_INJECTED = 10.0
MEMORY = 1.02
YARA = 1.5
YARA_SPARSE = 10.0

_numbers = itertools.count()


def snapshots(bench):
    """snapshots: how long the process stands still, what they take, and reading them"""
    pause(bench)
    reads(bench)
    searches(bench)


@contextmanager
def taken(mount, pid):
    """The directory of a new snapshot, which is dropped at the end."""
    directory = os.path.join(mount.directory, "snap", f"{pid}@{next(_numbers)}")
    os.mkdir(directory)
    try:
        yield directory
    finally:
        os.rmdir(directory)


def stopped(mount):
    """Seconds that processes stood still, as the mount counts them."""
    with open(os.path.join(mount.directory, "stats"), encoding="ascii") as stats:
        for line in stats:
            if line.startswith("procmemfs_stop_duration_seconds_sum "):
                return float(line.split()[1])
    raise Failure("stats have no time of stops")


def pause(bench):
    lines = Comparison(
        "Taking a snapshot",
        "ms",
        peer="process_vm_readv into fresh memory",
        note="The peer copies with one call by one thread, while the process runs.",
    )
    with bench.target("hold", bench.size) as target, bench.mount(target) as mount:
        peer = partial(copied, bench, target)
        times = bench.compare([partial(stood_still, mount, target.pid)], peer)
        lines.row(f"{in_mib(bench.size)}: the process stands still", PAUSE, times, milliseconds)
        times = bench.compare([partial(took, mount, target.pid)], peer)
        lines.row(f"{in_mib(bench.size)}: mkdir and rmdir", None, times, milliseconds)
        memory(mount, target)
    # One page of a hundred is written meanwhile.
    with bench.target("busy", bench.size) as target, bench.mount(target, options="inject") as mount:
        peer = partial(copied, bench, target)
        times = bench.compare([partial(stood_still, mount, target.pid)], peer)
        lines.row(f"{in_mib(bench.size)}, inject: it stands still", PAUSE_INJECTED, times, milliseconds)
        times = bench.compare([partial(took, mount, target.pid)], peer)
        lines.row(f"{in_mib(bench.size)}, inject: mkdir and rmdir", None, times, milliseconds)


def copied(bench, target):
    return bench.probe("copy", target.pid, target.mapping.offset, target.mapping.length)[0], ""


def stood_still(mount, pid):
    before = stopped(mount)
    with taken(mount, pid):
        return stopped(mount) - before, ""


def took(mount, pid):
    began = time.monotonic()
    with taken(mount, pid):
        pass
    return time.monotonic() - began, ""


def memory(mount, target):
    """What one snapshot takes, and a second one of a process that has not run meanwhile."""
    lines = Table("The memory of a snapshot", "", "MiB", "of the private memory", "aim")
    private = private_memory(target.pid)
    with taken(mount, target.pid):
        first = stored(mount)
        with taken(mount, target.pid):
            second = stored(mount) - first
    for name, size, aim in [("the first one", first, f"<= {MEMORY}"), ("a second one", second, "-")]:
        lines.line([name, f"{size / (1 << 20):.1f}", f"{size / private:.3f}", aim])


def private_memory(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        fields = dict(line.split(":", 1) for line in rollup if ":" in line)
    kinds = ("Private_Clean", "Private_Dirty")
    return sum(int(fields[kind].split()[0]) << 10 for kind in kinds)


def stored(mount):
    """Bytes of the memory in which the daemon keeps pages."""
    directory = f"/proc/{mount.process.pid}/fd"
    total = 0
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.readlink(path).startswith("/memfd:procmemfs-snapshot"):
            total += os.stat(path).st_blocks * 512
    return total


def reads(bench):
    copy = bench.file("copy")
    with (
        bench.target("hold", bench.size) as target,
        bench.mount(target) as mount,
        taken(mount, target.pid) as directory,
    ):
        ours, peer = file_of(directory, target), target.mapping
        check_same(ours, peer)
        finish([*reading(peer, "1M"), f"of={copy}"])
        reference = Span(copy, 0, os.path.getsize(copy))
        check_same(reference, peer)
        measured = []

        def compared(side):
            return bench.compare([side(ours)], side(peer), side(reference))

        for block in BLOCKS:
            times = compared(lambda span: partial(timed, reading(span, block)))
            measured.append((f"dd bs={block}", times, "GB/s", gigabytes(bench.size)))
        times = compared(lambda span: partial(probed, bench, "random", *span))
        measured.append(("random reads of 8 bytes", times, "us a read", microseconds))
        needs("rg", "ripgrep")
        count = said_of(copy)
        searched = bench.compare(
            [partial(counted, ours.path, count)], partial(counted, reference.path, count)
        )
        os.remove(copy)
    for title, at, aim in [(MEM, 1, OF_MEM), (TMPFS, 2, OF_TMPFS)]:
        lines = Comparison("Reading a snapshot, against " + title, "GB/s or us", peer=title)
        for name, times, unit, shown in measured:
            lines.row(f"{name}, {unit}", aim, (times[0], times[at]), shown)
        if at == 2:
            lines.row("rg -c -a PATTERN FILE, GB/s", aim, searched, gigabytes(bench.size))


def file_of(directory, target):
    start, length = target.mapping.offset, target.mapping.length
    for name in os.listdir(directory):
        if name.startswith(f"{start:012x}-{start + length:012x}."):
            return Span(os.path.join(directory, name), 0, length)
    raise Failure(f"{directory} has no file for {start:#x}")


def searches(bench):
    needs("yara", "yara")
    lines = Comparison("mkdir, yara -r RULES SNAPSHOT/extents, rmdir", "s", peer="yara RULES PID")
    rules = bench.file("rules.yar")
    reserved = bench.size * RESERVED
    sparse = f"{in_mib(reserved)} reserved, {in_mib(SPARSE_PAGES << 12)} of them resident"
    full = bench.size // PART
    for aim, name, rounds, numbers in [
        (YARA, f"{in_mib(full)} resident", bench.rounds, ("hold", full)),
        # Half a minute each.
        (YARA_SPARSE, sparse, 1, ("reserve", reserved, SPARSE_PAGES)),
    ]:
        with bench.target(*numbers) as target, bench.mount(target) as mount:
            write_rules(rules, target.mapping)
            check_ends(mount, target)
            ours = partial(searched_copy, mount, target, rules)
            times = compare_by_turns(rounds, [ours], partial(found, ["yara", rules, str(target.pid)]))
        lines.row(name, aim, times, lambda seconds: f"{seconds:.2f}")


def searched_copy(mount, target, rules):
    began = time.monotonic()
    with taken(mount, target.pid) as directory:
        _, said = found(["yara", "-r", rules, os.path.join(directory, "extents")])
    return time.monotonic() - began, said
