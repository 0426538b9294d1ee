import os
from functools import partial

from ..commands import timed, writing_zeros
from ..failure import Failure
from ..mount import Empty
from ..span import check_same
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
        bench.mount(target, options="write") as mount,
        bench.empty(mount, size) as empty,
    ):
        ours, peer = mount.mapping(target), target.mapping
        check_same(ours, peer)
        timed(writing_zeros(ours, BLOCK))
        check_zeros(peer)
        table = Comparison("Sequential writes", "GB/s", reference=Empty.NAME)
        sides = (ours, peer, empty.file())
        times = bench.turns(*(partial(timed, writing_zeros(side, BLOCK)) for side in sides))
        table.row(f"{in_mib(size)}, bs={BLOCK}", AIM, times, gigabytes(size))


def check_zeros(span):
    piece = 1 << 20
    with open(span.path, "rb") as memory:
        for offset in range(0, span.length, piece):
            length = min(piece, span.length - offset)
            if os.pread(memory.fileno(), length, span.offset + offset) != bytes(length):
                raise Failure("what was written through the mount is not in the process")
