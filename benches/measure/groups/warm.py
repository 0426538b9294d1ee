import os
from contextlib import contextmanager
from functools import partial

from ..commands import finish, reading
from ..span import Span, check_same
from ..tables import Comparison, gigabytes, in_mib, microseconds

# Read within the default freshness bound.
SMALL = 16 << 20
WORKING_SET = 64 << 20
BLOCK = 128 << 10
MILLISECONDS = 1000
AIM = 2.5
KEPT = "cache_ttl=10m"
REFERENCE = "a file on tmpfs"


def again(bench):
    """a file that is read again and again while it is kept open, blocks of 128 KiB"""
    table = Comparison(
        "Sequential, again: later passes through one open file, bs=128K",
        "GB/s",
        reference=REFERENCE,
        transports=bench.transports,
    )
    small = min(SMALL, bench.size)
    for size, options in [(small, ""), (bench.size, KEPT)]:
        with same_bytes(bench, size, options) as (ours, peer, reference):
            times = bench.compare(
                [partial(probed, bench, "sequential", *side, BLOCK) for side in ours],
                partial(probed, bench, "sequential", *peer, BLOCK),
                partial(probed, bench, "sequential", *reference, BLOCK),
            )
        table.row(f"{in_mib(size)}, {options or 'default options'}", AIM, times, gigabytes(size))


def random(bench):
    """8 bytes at random places of 64 MiB, the file kept open"""
    size = min(WORKING_SET, bench.size)
    table = Comparison(
        f"Random reads of 8 bytes in {in_mib(size)}, one open file",
        "us a read",
        reference=REFERENCE,
        transports=bench.transports,
    )
    for options in ["", KEPT]:
        with same_bytes(bench, size, options) as (ours, peer, reference):
            times = bench.compare(
                [partial(probed, bench, "random", *side) for side in ours],
                partial(probed, bench, "random", *peer),
                partial(probed, bench, "random", *reference),
            )
        table.row(options or "default options", AIM, times, microseconds)


@contextmanager
def same_bytes(bench, size, options):
    """They are in mounts, in /proc/PID/mem, and on tmpfs, which no file system can beat."""
    copy = bench.file("copy")
    with bench.target("hold", size) as target, bench.mounts(target, options=options) as mounts:
        ours, peer = [mount.mapping(target) for mount in mounts], target.mapping
        for side in ours:
            check_same(side, peer)
        finish([*reading(peer, "1M"), f"of={copy}"])
        reference = Span(copy, 0, os.path.getsize(copy))
        check_same(reference, peer)
        yield ours, peer, reference
        os.remove(copy)


def probed(bench, mode, *arguments):
    return bench.probe(mode, *arguments, MILLISECONDS)[0], ""
