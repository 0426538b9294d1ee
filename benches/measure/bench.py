"""What every group is given: the sizes, and a way to make targets and mounts."""

import itertools
import os
from contextlib import ExitStack, contextmanager

from . import commands
from .mount import Empty, Mount
from .processes import Crowd, Target
from .transports import FUSE, TRANSPORTS
from .turns import by_turns, compare_by_turns


class Bench:
    def __init__(self, options, transports, procmemfs, probe, mounts, files):
        # Names of those that are compared.
        self.transports = transports
        self.rounds = options.rounds
        self.size = options.size << 20
        self.mappings = options.mappings
        self.processes = options.processes
        self._procmemfs = procmemfs
        self._probe = probe
        self._mounts = mounts
        self._files = files
        self._numbers = itertools.count()
        self._memory = []

    def target(self, mode, *numbers):
        return Target(self._probe, mode, *numbers)

    def crowd(self, count):
        return Crowd(self._probe, count)

    def mount(self, *targets, options="", transport=FUSE):
        """A mount that shows these processes, or all where none is given."""
        only = "pid=" + ":".join(str(target.pid) for target in targets) if targets else ""
        given = ",".join(filter(None, [only, TRANSPORTS[transport].option, options]))
        directory = self._mount_point()
        return Mount(self._procmemfs, directory, given, lambda *used: self._memory.append(used))

    @contextmanager
    def mounts(self, *targets, options=""):
        """Such a mount for each transport, in their order."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(self.mount(*targets, options=options, transport=transport))
                for transport in self.transports
            ]

    def empty(self, like, size, directories=1, files=1):
        """An empty FUSE server with so many directories, and in each so many files of this size."""
        return Empty(self._probe, self._mount_point(), like, size, "fuse", directories, files, size)

    def empty_sparse(self, like, size, pages):
        """An empty FUSE server with one file, that has data where the target `reserve` has."""
        return Empty(self._probe, self._mount_point(), like, size, "fuse-sparse", size, pages)

    def _mount_point(self):
        return os.path.join(self._mounts, str(next(self._numbers)))

    def file(self, name):
        """A path on tmpfs; whoever makes a large file there removes it again."""
        return os.path.join(self._files, name)

    def probe(self, mode, *arguments):
        """The numbers that a mode of the probe prints; the first one is of seconds."""
        said = commands.finish(
            [self._probe, f"--probe-{mode}", *map(str, arguments)], stdout=commands.subprocess.PIPE
        )
        return [float(number) for number in said.split()]

    def turns(self, *sides):
        return by_turns(self.rounds, *sides)

    def compare(self, ours, *others):
        """The times, by turns, of several sides of ours and of others: for `Comparison.row`."""
        return compare_by_turns(self.rounds, ours, *others)

    def take_memory(self):
        """What the daemons that ended since the last call have used."""
        taken, self._memory = self._memory, []
        return taken
