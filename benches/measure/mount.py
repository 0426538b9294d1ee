"""A mount, what its daemon uses, and a mount to compare it with."""

import os
import subprocess
import time

from .failure import Failure
from .processes import Probe
from .span import Span

PATIENCE = 10


class Mount:
    """A mount that is served in the foreground, so that its end can be waited for."""

    def __init__(self, procmemfs, directory, options, at_end):
        """`at_end` is told the daemon's memory, now and at its highest, when the mount ends."""
        self.directory = directory
        self.command = [procmemfs, "-f", *(["-o", options] if options else []), directory]
        self.at_end = at_end

    def __enter__(self):
        os.mkdir(self.directory)
        environment = {**os.environ, "RUST_LOG": "error"}
        # A session of its own, so that Ctrl-C does not end it before what reads through it.
        self.process = subprocess.Popen(self.command, env=environment, start_new_session=True)
        try:
            self.wait_until_mounted()
        except BaseException:
            self.unmount()
            raise
        return self

    def __exit__(self, failure, *_):
        try:
            if failure is None:
                self.at_end(*self.memory())
        finally:
            self.unmount()

    def wait_until_mounted(self):
        limit = time.monotonic() + PATIENCE
        while not os.path.ismount(self.directory):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise Failure("procmemfs did not mount")
            time.sleep(0.005)

    def unmount(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remove(self.directory)

    def of(self, pid):
        """The directory of a process."""
        return os.path.join(self.directory, str(pid))

    def mapping(self, target):
        """The file of the target's mapping."""
        directory = self.of(target.pid)
        start, length = target.mapping.offset, target.mapping.length
        for name in os.listdir(directory):
            if name.startswith(f"{start:012x}-{start + length:012x}."):
                return Span(os.path.join(directory, name), 0, length)
        raise Failure(f"{directory} has no file for {start:#x}")

    def readahead(self):
        return readahead(self.directory)

    def memory(self):
        """Bytes of the daemon's resident memory, now and at its highest."""
        lines = self.status(f"/proc/{self.process.pid}/status")
        if "VmRSS" not in lines:
            raise Failure("the daemon has ended")
        return tuple(int(lines[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))

    def wakeups(self):
        """How often each thread of the daemon has been given a CPU."""
        tasks = f"/proc/{self.process.pid}/task"
        switches = {}
        for thread in os.listdir(tasks):
            lines = self.status(os.path.join(tasks, thread, "status"))
            kinds = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
            switches[thread] = sum(int(lines[kind]) for kind in kinds)
        return switches

    def status(self, path):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return dict(line.rstrip().split(":", 1) for line in file if ":" in line)
        except OSError as error:
            raise Failure(f"the daemon has ended: {error}") from error


class Empty(Probe):
    """A file system that answers each request at once: as fast as FUSE itself can be."""

    NAME = "an empty FUSE server"

    def __init__(self, probe, directory, like, size, mode, *numbers):
        """Its files are of `size` bytes, and its readahead is that of the mount `like`."""
        super().__init__(probe, mode, directory, *numbers)
        self.directory = directory
        self.like = like
        self.size = size

    def __enter__(self):
        os.mkdir(self.directory)
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        remove(self.directory)

    def files(self):
        """The first file of each directory."""
        found = []
        for directory in self.directories():
            path = os.path.join(directory, min(os.listdir(directory)))
            found.append(Span(path, 0, self.size))
        return found

    def file(self):
        return self.files()[0]

    def directories(self):
        return [os.path.join(self.directory, name) for name in os.listdir(self.directory)]

    def ready(self, told):
        wanted = self.like.readahead()
        if readahead(self.directory) != wanted:
            with open(readahead_file(self.directory), "w", encoding="ascii") as file:
                file.write(wanted)


def readahead(directory):
    """The readahead in KiB of what is mounted there; None where it cannot be told."""
    try:
        with open(readahead_file(directory), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def readahead_file(directory):
    device = os.stat(directory).st_dev
    return f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"


def remove(directory):
    """Removes a mount point."""
    # A daemon that was killed, or failed, leaves its mount; most often there is none.
    subprocess.run(["umount", "-l", directory], stderr=subprocess.DEVNULL, check=False)
    os.rmdir(directory)
