import os
import time
from contextlib import ExitStack
from functools import partial

from ..commands import reading, timed
from ..failure import Skipped
from ..tables import Table, in_mib, microseconds
from ..turns import median, spread
from .ls import check_map_count

TIMES = [1, 4, 16]
GIB = 1 << 30
# What is left to the mount's page cache, and to everybody else.
SPARE = 4 * GIB
# For 60,000 mappings.
MAPPINGS = [1_000, 10_000, 65_000]


def growth(bench):
    """whether time grows with size alone: reads of 1, 4 and 16 GiB, up to 65,000 mappings"""
    reads(bench)
    mappings(bench)


def reads(bench):
    available = memory_available()
    sizes = [bench.size * times for times in TIMES]
    fitting = [size for size in sizes if size + SPARE <= available]
    table = GrowthTable("Cold reads of parts of one target, dd with bs=1M", "s a GiB")
    if fitting:
        with bench.target("hold", fitting[-1]) as target, bench.mount(target) as mount:
            whole = mount.mapping(target)
            parts = [whole._replace(length=size) for size in fitting]
            times = bench.turns(*(partial(timed_read, part) for part in parts))
            table.rows(
                [in_mib(size) for size in fitting],
                [[seconds / (size / GIB) for seconds in own] for size, own in zip(fitting, times)],
                lambda seconds: f"{seconds:.3f}",
            )
    for size in sizes[len(fitting) :]:
        why = f"needs {in_mib(size + SPARE)} of memory, and {in_mib(available)} are available"
        table.skipped(in_mib(size), why)


def mappings(bench):
    counts = [count * bench.mappings // 60_000 or 1 for count in MAPPINGS]
    check_map_count(counts[-1])
    with ExitStack() as stack:
        targets = [stack.enter_context(bench.target("many", count)) for count in counts]
        for title, measured in [
            ("ls -l of a process, the first after mounting", timed_ls),
            ("The first lookup of a mapping after mounting", timed_lookup),
        ]:
            table = GrowthTable(title, "us a mapping")
            times = bench.turns(*(partial(measured, bench, target) for target in targets))
            table.rows(
                [f"{count} mappings" for count in counts],
                [[seconds / count for seconds in own] for count, own in zip(counts, times)],
                microseconds,
            )


def memory_available():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    raise Skipped("/proc/meminfo has no MemAvailable")


def timed_read(part):
    # Each open drops what the kernel keeps of the file: here of a longer read than this one.
    os.close(os.open(part.path, os.O_RDONLY))
    return timed(reading(part, "1M"))


def timed_ls(bench, target):
    with bench.mount(target) as mount:
        return timed(["ls", "-l", mount.of(target.pid)])


def timed_lookup(bench, target):
    # The first of the pages, as `many` makes it.
    start, length = target.mapping.offset, target.mapping.length
    with bench.mount(target) as mount:
        path = os.path.join(mount.of(target.pid), f"{start:012x}-{start + length:012x}.r--p.anon")
        began = time.monotonic()
        os.stat(path)
        return time.monotonic() - began, ""


class GrowthTable(Table):
    """Rows of growing sizes: the time for a part of each, and that against the smallest size's."""

    def __init__(self, title, unit):
        super().__init__(title, "", unit, "by the first", "aim", "slowest/fastest")

    def rows(self, names, sides, shown):
        for name, times in zip(names, sides):
            growth_of_part = median(times) / median(sides[0])
            cells = [name, shown(median(times)), f"{growth_of_part:.2f}", "linear: 1"]
            self.line([*cells, spread(times)])
