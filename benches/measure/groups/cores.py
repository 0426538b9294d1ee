import os
import struct
import subprocess
import tempfile
import time

from ..commands import finish, timed
from ..failure import Failure
from ..programs import needs
from ..span import Span, check_same
from ..tables import Comparison, in_mib

# For 1 GiB: 16 GiB reserved, of which 11 MiB are resident.
RESERVED = 16
SPARSE_PAGES = 2816
PEER = "gcore"
FASTER, SHORTER, SPARSER = 3, 1000, 100
# How often is looked whether the target stands still, in seconds.
LOOK = 0.0005


def cores(bench):
    """cp of core/PID against gcore: the time, how long the target stands still, and bytes on disk"""
    needs("gcore", "gdb")
    with bench.target("hold", bench.size) as target, bench.mount(target) as mount:
        sides = Sides(bench, mount, target, bench.file(""))
        sides.check(whole=True)
        times = bench.compare([sides.ours], sides.gcore)
    table = Comparison("cp core/PID to tmpfs", "s", peer=PEER)
    table.row(f"{in_mib(bench.size)} resident", FASTER, times, seconds)
    table = Comparison("How long the target stands still for that", "ms", peer=PEER)
    name = f"{in_mib(bench.size)} resident"
    table.row(name, SHORTER, sides.stops(), lambda took: f"{took * 1e3:.3f}")
    reserved = bench.size * RESERVED
    name = f"{in_mib(reserved)} reserved, {in_mib(SPARSE_PAGES << 12)} of them resident"
    with (
        bench.target("reserve", reserved, SPARSE_PAGES) as target,
        bench.mount(target) as mount,
        # On disk: gcore writes all that is reserved.
        tempfile.TemporaryDirectory(prefix="procmemfs-throughput-", dir="/var/tmp") as directory,
    ):
        sides = Sides(bench, mount, target, directory)
        sides.check(whole=False)
        times = bench.compare([sides.ours], sides.gcore)
    table = Comparison("cp core/PID to disk, of memory that is reserved", "s", peer=PEER)
    table.row(name, SPARSER, times, seconds)
    table = Comparison("The size of that core on disk", "MiB", peer=PEER)
    table.row(name, SPARSER, sides.sizes(), lambda size: f"{size / (1 << 20):.1f}")


def seconds(took):
    return f"{took:.3f}"


class Sides:
    """Cores of one target: ours, and gcore's."""

    def __init__(self, bench, mount, target, directory):
        self.mount, self.target = mount, target
        self.path = os.path.join(mount.directory, "core", str(target.pid))
        self.prefix = os.path.join(directory, "gcore")
        self.copy = os.path.join(directory, "core")
        self._stops, self._sizes = ([], []), ([], [])

    def stops(self):
        return in_row(self._stops)

    def sizes(self):
        return in_row(self._sizes)

    def ours(self):
        before = self.stopped()
        took = timed(["cp", self.path, self.copy])
        self._stops[0].append(self.stopped() - before)
        self.take(0, self.copy)
        return took

    def gcore(self):
        command = [PEER, "-o", self.prefix, str(self.target.pid)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = last = None
        while process.poll() is None:
            now = time.monotonic()
            if stands_still(self.target.pid):
                first, last = first or now, now
            time.sleep(LOOK)
        took = time.monotonic() - began
        if process.returncode != 0 or first is None:
            raise Failure(f"{' '.join(command)}: {process.returncode}")
        self._stops[1].append(last - first)
        self.take(1, f"{self.prefix}.{self.target.pid}")
        return took, ""

    def take(self, side, path):
        self._sizes[side].append(os.stat(path).st_blocks * 512)
        os.remove(path)

    def stopped(self):
        """Seconds for which the daemon has stopped processes."""
        with open(os.path.join(self.mount.directory, "stats"), encoding="ascii") as stats:
            for line in stats:
                if line.startswith("procmemfs_stop_duration_seconds_sum"):
                    return float(line.split()[1])
        raise Failure("no stops are counted")

    def check(self, whole):
        """A copy holds what the process holds; otherwise its ends alone, since all that is read of mem becomes resident."""
        finish(["cp", self.path, self.copy])
        memory = self.target.mapping
        ours = Span(self.copy, place(self.copy, memory), memory.length)
        page = 4096
        for at in [0] if whole else [0, memory.length - page]:
            length = memory.length if whole else page
            check_same(
                ours._replace(offset=ours.offset + at, length=length),
                memory._replace(offset=memory.offset + at, length=length),
            )
        os.remove(self.copy)


def in_row(sides):
    """Ours and gcore's, as a row takes them."""
    ours, gcore = map(sorted, sides)
    return [ours], gcore


def stands_still(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(") ")[2][0] == "t"


def place(path, memory):
    """Where in a core file the memory lies that begins at this address."""
    with open(path, "rb") as core:
        header = core.read(64)
        at, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
        core.seek(at)
        for _ in range(count):
            kind, _, offset, address, _, in_file, _, _ = struct.unpack("<IIQQQQQQ", core.read(56))
            if kind == 1 and address <= memory.offset and memory.offset + memory.length <= address + in_file:
                return offset + memory.offset - address
    raise Failure(f"the core file does not hold {memory.offset:#x}")
