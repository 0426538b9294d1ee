import os
from functools import partial

from ..commands import finish, timed, writing_zeros
from ..failure import Failure
from ..mount import Empty
from ..span import PIECE, check_same
from ..tables import Comparison, gigabytes, in_mib

# 256 MiB for 1 GiB.
PART = 4
BLOCK = "1M"
AIM = 0.8


def write(bench):
    """sequential writes with dd"""
    size = bench.size // PART
    with (
        bench.target("hold", size) as target,
        bench.mounts(target, options="write") as mounts,
        bench.empty(mounts[0], size) as empty,
    ):
        ours, peer = [mount.mapping(target) for mount in mounts], target.mapping
        for side in ours:
            check_same(side, peer)
        for side in ours:
            fill(peer)
            finish(writing_zeros(side, BLOCK))
            check_zeros(peer)
        table = Comparison(
            "Sequential writes", "GB/s", reference=Empty.NAME, transports=bench.transports
        )
        times = bench.compare(
            [partial(timed, writing_zeros(side, BLOCK)) for side in ours],
            partial(timed, writing_zeros(peer, BLOCK)),
            partial(timed, writing_zeros(empty.file(), BLOCK)),
        )
        table.row(f"{in_mib(size)}, bs={BLOCK}", AIM, times, gigabytes(size))


def fill(span):
    """Overwrites the span with noise, so that zeros in it were not there before."""
    noise = os.urandom(PIECE)
    with open(span.path, "r+b", buffering=0) as memory:
        for at, length in pieces(span):
            if os.pwrite(memory.fileno(), noise[:length], at) != length:
                raise Failure(f"{span.path} takes no {length} bytes")


def check_zeros(span):
    with open(span.path, "rb") as memory:
        for at, length in pieces(span):
            if os.pread(memory.fileno(), length, at) != bytes(length):
                raise Failure("what was written through the mount is not in the process")


def pieces(span):
    """Where each begins in the file, and its length."""
    for offset in range(0, span.length, PIECE):
        yield span.offset + offset, min(PIECE, span.length - offset)
