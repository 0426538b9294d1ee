from functools import partial

from ..commands import reading, timed
from ..mount import Empty
from ..span import check_same
from ..tables import Comparison, gigabytes

AIMS = {"4K": 1.2, "64K": 1.0, "128K": 1.0, "1M": 1.0, "4M": 1.0}
DIRECT = ["128K", "1M", "4M"]


def cold(bench):
    """sequential reads with dd, blocks of 4 KiB to 4 MiB, nothing cached"""
    with (
        bench.target("hold", bench.size) as target,
        bench.mounts(target) as mounts,
        bench.empty(mounts[0], bench.size) as empty,
    ):
        ours = [mount.mapping(target) for mount in mounts]
        peer, reference = target.mapping, empty.file()
        # Not the reference, which has bytes of its own.
        for side in ours:
            check_same(side, peer)
        readahead = {mount.readahead() or "unknown" for mount in mounts}
        table = Comparison(
            "Sequential, cold: dd opens the file and reads all of it",
            "GB/s",
            reference=Empty.NAME,
            note=f"The readahead of all mounts, in KiB: {' and '.join(sorted(readahead))}.",
            transports=bench.transports,
        )

        def row(name, aim, block, *flags):
            """The flags are for mounts."""
            times = bench.compare(
                [partial(timed, reading(side, block, *flags)) for side in ours],
                partial(timed, reading(peer, block)),
                partial(timed, reading(reference, block, *flags)),
            )
            table.row(name, aim, times, gigabytes(bench.size))

        for block, aim in AIMS.items():
            row(f"bs={block}", aim, block)
        for block in DIRECT:
            row(f"bs={block}, all mounts with iflag=direct", None, block, "direct")
