import os
import subprocess
from functools import partial

from ..commands import finish, reading, timed
from ..failure import Failure
from ..programs import needs
from ..span import Span, check_same
from ..tables import Comparison, gigabytes, in_mib

# Noise holds three given bytes once in 16 MiB.
RG = ["rg", "-c", "-a", "abc"]
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
        table = Comparison("rg -c -a PATTERN FILE", "GB/s", peer="a file on tmpfs")
        times = bench.turns(*(partial(counted, [*RG, path]) for path in (ours.path, copy)))
        os.remove(copy)
        table.row(f"a heap of {in_mib(ours.length)}", AIM, times, gigabytes(ours.length))


def counted(command):
    seconds, said = timed(command, stdout=subprocess.PIPE)
    if int(said) < 1:
        raise Failure(f"{' '.join(command)} found nothing")
    return seconds, said
