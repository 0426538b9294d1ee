from contextlib import ExitStack
from functools import partial

from ..commands import reading, timed_together
from ..mount import Empty
from ..span import check_same
from ..tables import Comparison, gigabytes, in_mib

READERS = 8
BLOCK = "1M"
AIM = 1.0


def readers(bench):
    """8 processes read by 8 readers at once"""
    each = bench.size // READERS
    with ExitStack() as stack:
        targets = [stack.enter_context(bench.target("hold", each)) for _ in range(READERS)]
        mounts = stack.enter_context(bench.mounts(*targets))
        # A directory for each, as for each process: no open of one file outdates another's pages.
        empty = stack.enter_context(bench.empty(mounts[0], each, directories=READERS))
        ours = [[mount.mapping(target) for target in targets] for mount in mounts]
        peer = [target.mapping for target in targets]
        for side in ours:
            for pair in zip(side, peer):
                check_same(*pair)
        table = Comparison(
            "Readers at once, cold: until the last one is done",
            "GB/s together",
            reference=Empty.NAME,
            transports=bench.transports,
        )
        times = bench.compare(
            [partial(timed_readers, side) for side in ours],
            partial(timed_readers, peer),
            partial(timed_readers, empty.files()),
        )
        name = f"{READERS} readers of {READERS} processes with {in_mib(each)} each, bs={BLOCK}"
        table.row(name, AIM, times, gigabytes(each * READERS))


def timed_readers(spans):
    return timed_together([reading(span, BLOCK) for span in spans])
