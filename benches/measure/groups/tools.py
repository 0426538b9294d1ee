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
        bench.mount(target) as mount,
        bench.empty(mount, bench.size) as empty,
    ):
        ours = mount.mapping(target)
        check_same(ours, target.mapping)
        pipe = reading(target.mapping, "1M")
        table = Comparison(
            "Tools, cold",
            "GB/s",
            peer="dd of /proc/PID/mem in a pipe",
            reference=Empty.NAME,
            note="dd with bs=1M.",
        )

        def row(name, *sides):
            table.row(name, AIM, bench.turns(*sides), gigabytes(bench.size))

        # The reference has other bytes: grep would work otherwise, and a copy would be found wrong.
        cats = [["cat", ours.path]], [pipe, ["cat"]], [["cat", empty.file.path]]
        row("cat FILE > /dev/null", *(partial(timed, *cat) for cat in cats))
        counting = partial(timed, stdout=subprocess.PIPE, answers=(0, 1))
        row("grep -a -c", partial(counting, [*GREP, ours.path]), partial(counting, pipe, GREP))
        copy = bench.file("copy")
        row(
            "cp FILE to tmpfs",
            partial(timed_copy, copy, target, ["cp", ours.path, copy]),
            partial(timed_copy, copy, target, pipe, ["cp", "/dev/stdin", copy]),
        )


def timed_copy(copy, target, *pipeline):
    """Seconds that it takes to make a copy, which is checked and removed."""
    took = timed(*pipeline)
    check_same(Span(copy, 0, os.path.getsize(copy)), target.mapping)
    os.remove(copy)
    return took
