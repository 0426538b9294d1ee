from functools import partial

from ..commands import reading, timed
from ..span import check_same
from ..tables import Comparison, gigabytes

AIMS = {"4K": 1.2, "64K": 1.0, "128K": 1.0, "1M": 1.0, "4M": 1.0}
DIRECT = ["128K", "1M", "4M"]


def cold(bench):
    """sequential reads with dd, blocks of 4 KiB to 4 MiB, nothing cached"""
    with bench.target("hold", bench.size) as target, bench.mount(target) as mount:
        ours, peer = mount.mapping(target), target.mapping
        check_same(ours, peer)
        table = Comparison(
            "Sequential, cold: dd opens the file and reads all of it",
            "GB/s",
            note=f"The mount's readahead: {mount.readahead()}.",
        )
        shown = gigabytes(bench.size)
        for block, aim in AIMS.items():
            sides = (partial(timed, reading(side, block)) for side in (ours, peer))
            table.row(f"bs={block}", aim, bench.turns(*sides), shown)
        for block in DIRECT:
            times = bench.turns(
                partial(timed, reading(ours, block, "direct")),
                partial(timed, reading(peer, block)),
            )
            table.row(f"bs={block}, ours with iflag=direct", None, times, shown)
