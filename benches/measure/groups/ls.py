import os
import time
from functools import partial

from ..commands import timed
from ..failure import Failure, Skipped
from ..mount import Empty
from ..tables import Comparison, milliseconds

AIM = 0.3
# Longer than names and listings are kept.
STALE = 1.5
# Of the reference's files; each mapping is of one page, too.
SIZE = 4096


def ls(bench):
    """ls -l of a process with 60,000 mappings, against as many files on tmpfs"""
    check_map_count(bench.mappings)
    files = bench.file("names")
    with bench.target("many", bench.mappings) as target, bench.mounts(target) as mounts:
        directories = [mount.of(target.pid) for mount in mounts]
        for directory in directories:
            check_names(directory, target)
        make_files(directories[0], files)
        names = len(os.listdir(files))
        reference = partial(bench.empty, mounts[0], SIZE, files=names)
        with reference() as empty:
            [empty_directory] = empty.directories()
            if len(os.listdir(empty_directory)) != names:
                raise Failure(f"{Empty.NAME} does not show as many files")
            table = Comparison(
                f"ls -l of {bench.mappings} mappings",
                "ms",
                peer="as many empty files on tmpfs",
                reference=Empty.NAME,
                transports=bench.transports,
            )
            peer = partial(timed_ls, files)
            times = bench.compare(
                [
                    partial(
                        timed_first,
                        partial(bench.mount, target, transport=transport),
                        lambda ours: ours.of(target.pid),
                    )
                    for transport in bench.transports
                ],
                peer,
                partial(timed_first, reference, lambda other: other.directories()[0]),
            )
            table.row("the first after mounting", AIM, times, milliseconds)
            times = bench.compare(
                [partial(timed_later, directory) for directory in directories],
                peer,
                partial(timed_later, empty_directory),
            )
            table.row("a later one, when nothing is fresh any more", AIM, times, milliseconds)


def check_map_count(count):
    with open("/proc/sys/vm/max_map_count", encoding="ascii") as file:
        most = int(file.read())
    # The program itself has some dozens.
    if count + 100 > most:
        raise Skipped(f"vm.max_map_count is {most}, and {count} mappings are wanted")


def check_names(directory, target):
    """There is a file for each mapping, and links beside them."""
    with open(f"/proc/{target.pid}/maps", "rb") as maps:
        expected = {line.split(b" ")[0] for line in maps}
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if not entry.is_symlink()]
    if len(names) != len(expected):
        raise Failure(f"{len(names)} files for {len(expected)} mappings")


def make_files(directory, files):
    os.mkdir(files)
    with os.scandir(directory) as entries:
        for entry in entries:
            copy = os.path.join(files, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            else:
                os.close(os.open(copy, os.O_CREAT | os.O_WRONLY, 0o400))


def timed_first(mounted, directory_of):
    with mounted() as mount:
        return timed_ls(directory_of(mount))


def timed_later(directory):
    time.sleep(STALE)
    return timed_ls(directory)


def timed_ls(directory):
    return timed(["ls", "-l", directory])
