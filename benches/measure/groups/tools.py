import os
import subprocess
from functools import partial

from ..commands import reading, timed
from ..mount import Empty
from ..span import Span, check_same
from ..tables import Comparison, gigabytes

# Long enough that noise does not hold it; -a, so that grep reads on whatever it meets.
GREP = ["grep", "-a", "-c", "no noise holds so long a text"]
AIM = 1.0


def tools(bench):
    """cat, grep and cp, against the same tool on a pipe from dd"""
    with (
        bench.target("hold", bench.size) as target,
        bench.mounts(target) as mounts,
        bench.empty(mounts[0], bench.size) as empty,
    ):
        ours, reference = [mount.mapping(target) for mount in mounts], empty.file()
        for side in ours:
            check_same(side, target.mapping)
        pipe = reading(target.mapping, "1M")
        table = Comparison(
            "Tools, cold",
            "GB/s",
            peer="dd of /proc/PID/mem in a pipe",
            reference=Empty.NAME,
            note="dd with bs=1M.",
            transports=bench.transports,
        )

        def row(name, *sides):
            table.row(name, AIM, bench.compare(*sides), gigabytes(bench.size))

        # The reference holds other bytes, but noise as well: tools find as little there.
        def sides(timer, *tool):
            *mine, its = (partial(timer, [*tool, span.path]) for span in [*ours, reference])
            return mine, partial(timer, pipe, tool), its

        row("cat FILE > /dev/null", *sides(timed, "cat"))
        row("grep -a -c", *sides(counted, *GREP))
        copy = bench.file("copy")
        row(
            "cp FILE to tmpfs",
            [partial(timed_copy, copy, target.mapping, ["cp", side.path, copy]) for side in ours],
            partial(timed_copy, copy, target.mapping, pipe, ["cp", "/dev/stdin", copy]),
            partial(timed_copy, copy, reference, ["cp", reference.path, copy]),
        )


def counted(*pipeline):
    """Seconds, and what grep counts, which may be nothing."""
    return timed(*pipeline, stdout=subprocess.PIPE, answers=(0, 1))


def timed_copy(copy, original, *pipeline):
    """Seconds that it takes to make a copy, which is checked and removed."""
    took = timed(*pipeline)
    check_same(Span(copy, 0, os.path.getsize(copy)), original)
    os.remove(copy)
    return took
