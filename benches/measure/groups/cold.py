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
        bench.mount(target) as mount,
        bench.empty(mount, bench.size) as empty,
    ):
        ours, peer, reference = mount.mapping(target), target.mapping, empty.file()
        # Not the reference, which has bytes of its own.
        check_same(ours, peer)
        table = Comparison(
            "Sequential, cold: dd opens the file and reads all of it",
            "GB/s",
            reference=Empty.NAME,
            note=f"The readahead of both mounts, in KiB: {mount.readahead() or 'unknown'}.",
        )

        def row(name, aim, *sides):
            times = bench.turns(*(partial(timed, reading(*side)) for side in sides))
            table.row(name, aim, times, gigabytes(bench.size))

        for block, aim in AIMS.items():
            row(f"bs={block}", aim, (ours, block), (peer, block), (reference, block))
        for block in DIRECT:
            name = f"bs={block}, both mounts with iflag=direct"
            row(name, None, (ours, block, "direct"), (peer, block), (reference, block, "direct"))
