import ctypes
import os
import time
from functools import partial

from ..failure import Failure
from ..span import check_same
from ..tables import Table, microseconds
from ..turns import median, spread

BUFFER = 1 << 20
# Bytes, and how many of them in a round.
TABLE = ((8, 2000), (4096, 2000), (BUFFER, 100))


def exchange(bench):
    """two processes that exchange data: a buffer of one, written and read by the other"""
    with (
        bench.target("hold", BUFFER) as target,
        bench.mount(target, options="write,cache_ttl=0") as mount,
    ):
        ours = mount.mapping(target)
        check_same(ours, target.mapping)
        at = target.mapping.offset
        for name, through, raw in (
            ("Writes", os.pwrite, Call("process_vm_writev", target.pid, at)),
            ("Reads", read, Call("process_vm_readv", target.pid, at)),
        ):
            title = f"{name} of one buffer of another process"
            columns = ("bytes", "through the mount, us", f"{raw.name}, us", "times as long")
            table = Table(title, *columns, "slowest/fastest")
            file = os.open(ours.path, os.O_RDWR)
            try:
                for size, count in TABLE:
                    buffer = ctypes.create_string_buffer(os.urandom(size), size)
                    calls = (partial(through, file, buffer, ours.offset), raw.of(buffer))
                    times = bench.turns(*(partial(each, count, size, call) for call in calls))
                    mount_time, raw_time = map(median, times)
                    cells = (str(size), microseconds(mount_time), microseconds(raw_time))
                    table.line([*cells, f"{mount_time / raw_time:.1f}", spread(*times)])
                    check(name, target.mapping, buffer.raw)
            finally:
                os.close(file)


def read(file, buffer, offset):
    return os.preadv(file, [buffer], offset)


def each(count, size, call):
    """Seconds for one call, by the clock."""
    before = time.perf_counter()
    for _ in range(count):
        if call() != size:
            raise Failure(f"not {size} bytes")
    return (time.perf_counter() - before) / count, size


def check(name, mapping, expected):
    """What was written is in the process, and what was read was there."""
    with open(mapping.path, "rb", buffering=0) as memory:
        if os.pread(memory.fileno(), len(expected), mapping.offset) != expected:
            raise Failure(f"{name}: the buffer and the process differ")


class Vector(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Call:
    """A call of the C library that copies between a buffer and another process."""

    def __init__(self, name, pid, address):
        self.name = name
        self._function = getattr(ctypes.CDLL(None, use_errno=True), name)
        self._pid = pid
        self._address = address

    def of(self, buffer):
        """The call for one buffer, ready to be made."""
        length = ctypes.sizeof(buffer)
        local = Vector(ctypes.addressof(buffer), length)
        remote = Vector(self._address, length)
        one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
        pid, here, there = ctypes.c_int(self._pid), ctypes.byref(local), ctypes.byref(remote)
        return lambda: self._function(pid, here, one, there, one, none)
