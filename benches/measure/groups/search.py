import os
from functools import partial

from ..commands import timed
from ..programs import needs
from ..span import check_same
from ..tables import Comparison, in_mib
from ..turns import compare_by_turns
from .cores import PEER
from .tools import GREP, counted

AIM = 5.0


def search(bench):
    """grep over a heap, against gcore and grep of its core"""
    needs(PEER, "gdb")
    core = bench.file("core")
    with bench.target("hold", bench.size) as target, bench.mounts(target) as mounts:
        ours = [mount.mapping(target) for mount in mounts]
        for span in ours:
            check_same(span, target.mapping)
        table = Comparison(
            "grep -a -c TEXT FILE of a process that runs",
            "s",
            peer="gcore, and grep of the core on tmpfs",
            transports=bench.transports,
        )
        times = compare_by_turns(
            bench.rounds,
            [partial(counted, [*GREP, span.path]) for span in ours],
            partial(counted_in_core, target.pid, core),
        )
        table.row(f"{in_mib(bench.size)} resident", AIM, times, lambda took: f"{took:.3f}")


def counted_in_core(pid, core):
    """Seconds for both; the core holds the same and more, in none of which the text is."""
    dumping, _ = timed([PEER, "-o", core, str(pid)])
    path = f"{core}.{pid}"
    searching, said = counted([*GREP, path])
    os.remove(path)
    return dumping + searching, said
