import os
import subprocess
import time
from functools import partial

from ..commands import finish, timed
from ..failure import Failure
from ..mount import Empty
from ..tables import Comparison, milliseconds

AIM = 0.3
# Longer than names and listings are kept.
STALE = 1.5
# Of the reference's files, which nobody reads here.
SIZE = 4096
# `exec`, so that what is ended on an interrupt is cat itself. Some processes end
# meanwhile, and some are nobody's to look at: neither is worth a complaint in each round.
PEER = ["sh", "-c", "exec cat /proc/[0-9]*/maps 2> /dev/null"]
ANSWERS = (0, 1)


def find(bench):
    """find over the mappings of 500 processes, against cat of all maps"""
    with bench.crowd(bench.processes) as crowd, bench.mounts() as mounts:
        # Some of them: what is looked at here is in no cache any more when it is timed.
        for pid in crowd.pids[:: len(crowd.pids) // 10 or 1]:
            for mount in mounts:
                check_names(mount.of(pid), pid)
        directories, files = extent(mounts[0], crowd)
        reference = partial(bench.empty, mounts[0], SIZE, directories, files)
        with reference() as empty:
            check_walk(empty, directories, files)
            table = Comparison(
                f"find MOUNT -maxdepth 2, with {bench.processes} processes"
                " and those of the machine",
                "ms",
                peer="cat /proc/[0-9]*/maps",
                reference=Empty.NAME,
                note=f"The reference: {directories} directories with {files} files each.",
                transports=bench.transports,
            )
            peer = partial(timed, PEER, answers=ANSWERS)
            times = bench.compare(
                [
                    partial(timed_first, partial(bench.mount, transport=transport))
                    for transport in bench.transports
                ],
                peer,
                partial(timed_first, reference),
            )
            table.row("the first after mounting", AIM, times, milliseconds)
            times = bench.compare(
                [partial(timed_later, mount) for mount in mounts],
                peer,
                partial(timed_later, empty),
            )
            table.row("a later one, when nothing is fresh any more", AIM, times, milliseconds)


def extent(mount, crowd):
    """How many processes a mount shows, and how many names it has for one of the crowd."""
    processes = [name for name in os.listdir(mount.directory) if name.isdigit()]
    return len(processes), len(os.listdir(mount.of(crowd.pids[0])))


def check_walk(empty, directories, files):
    """find meets each directory, each file, and what it begins with."""
    said = finish(walk(empty), stdout=subprocess.PIPE)
    if len(said.splitlines()) != 1 + directories * (1 + files):
        raise Failure(f"{Empty.NAME} does not show {files} files in {directories} directories")


def check_names(directory, pid):
    with open(f"/proc/{pid}/maps", "rb") as maps:
        expected = len(maps.readlines())
    with os.scandir(directory) as entries:
        found = sum(not entry.is_symlink() for entry in entries)
    if found != expected:
        raise Failure(f"{directory} has {found} files for {expected} mappings")


def timed_first(mounted):
    with mounted() as mount:
        return timed_find(mount)


def timed_later(mount):
    time.sleep(STALE)
    return timed_find(mount)


def timed_find(mount):
    return timed(walk(mount), answers=ANSWERS)


def walk(mount):
    return ["find", mount.directory, "-maxdepth", "2"]
