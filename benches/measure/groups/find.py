import os
import time
from functools import partial

from ..commands import timed
from ..failure import Failure
from ..tables import Comparison, milliseconds

AIM = 0.3
# Longer than names and listings are kept.
STALE = 1.5
# `exec`, so that what is ended on an interrupt is cat itself. Some processes end
# meanwhile, and some are nobody's to look at: neither is worth a complaint in each round.
PEER = ["sh", "-c", "exec cat /proc/[0-9]*/maps 2> /dev/null"]
ANSWERS = (0, 1)


def find(bench):
    """find over the mappings of 500 processes, against cat of all maps"""
    with bench.crowd(bench.processes) as crowd, bench.mount() as mount:
        # Some of them: what is looked at here is in no cache any more when it is timed.
        for pid in crowd.pids[:: len(crowd.pids) // 10 or 1]:
            check_names(mount.of(pid), pid)
        table = Comparison(
            f"find MOUNT -maxdepth 2, with {bench.processes} processes and those of the machine",
            "ms",
            peer="cat /proc/[0-9]*/maps",
        )
        peer = partial(timed, PEER, answers=ANSWERS)
        times = bench.turns(partial(timed_first, bench), peer)
        table.row("the first after mounting", AIM, times, milliseconds)
        times = bench.turns(partial(timed_later, mount), peer)
        table.row("a later one, when nothing is fresh any more", AIM, times, milliseconds)


def check_names(directory, pid):
    with open(f"/proc/{pid}/maps", "rb") as maps:
        expected = len(maps.readlines())
    with os.scandir(directory) as entries:
        found = sum(not entry.is_symlink() for entry in entries)
    if found != expected:
        raise Failure(f"{directory} has {found} files for {expected} mappings")


def timed_first(bench):
    with bench.mount() as mount:
        return timed_find(mount)


def timed_later(mount):
    time.sleep(STALE)
    return timed_find(mount)


def timed_find(mount):
    return timed(["find", mount.directory, "-maxdepth", "2"], answers=ANSWERS)
