import os
import subprocess
from functools import partial

from ..commands import finish, reading, timed
from ..failure import Failure
from ..mount import Empty
from ..programs import needs
from ..span import Span, check_same
from ..tables import Comparison, gigabytes, in_mib

# Noise holds three given bytes once in 16 MiB.
RG = ["rg", "-c", "-a", "abc"]
# With none found, too: the reference's noise comes again before it holds them.
ANSWERS = (0, 1)
AIM = 0.5


def rg(bench):
    """ripgrep over a heap, against the same bytes on tmpfs"""
    needs("rg", "ripgrep")
    copy = bench.file("heap")
    with bench.target("heap", bench.size) as target, bench.mount(target) as mount:
        ours, peer = mount.mapping(target), target.mapping
        check_same(ours, peer)
        finish([*reading(peer, "1M"), f"of={copy}"])
        check_same(Span(copy, 0, os.path.getsize(copy)), peer)
        count = said_of(copy)
        if not count:
            raise Failure(f"{' '.join(RG)} finds nothing")
        with bench.empty(mount, ours.length) as empty:
            table = Comparison(
                "rg -c -a PATTERN FILE", "GB/s", peer="a file on tmpfs", reference=Empty.NAME
            )
            times = bench.compare(
                [partial(counted, ours.path, count)],
                partial(counted, copy, count),
                partial(counted, empty.file().path, said_of(empty.file().path)),
            )
        os.remove(copy)
        table.row(f"a heap of {in_mib(ours.length)}", AIM, times, gigabytes(ours.length))


def counted(path, count):
    """Seconds; the reference does not hold the same, and has a count of its own."""
    seconds, said = timed([*RG, path], stdout=subprocess.PIPE, answers=ANSWERS)
    if said != count:
        raise Failure(f"rg says {said} of {path} instead of {count}")
    return seconds, ""


def said_of(path):
    return finish([*RG, path], stdout=subprocess.PIPE, answers=ANSWERS)
