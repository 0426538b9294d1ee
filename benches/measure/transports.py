"""What brings requests to a mount, and whether this machine has it."""

from contextlib import contextmanager
from typing import NamedTuple

PARAMETER = "/sys/module/fuse/parameters/enable_uring"
ALLOWED = "Y"


class Transport(NamedTuple):
    # As tables have it.
    name: str
    # Given to each mount, so that neither the environment nor a default says another one.
    option: str


FUSE, IO_URING = "fuse", "io_uring"
TRANSPORTS = {
    FUSE: Transport("/dev/fuse", "io_uring=off"),
    IO_URING: Transport("io_uring", "io_uring=on"),
}


@contextmanager
def usable(wanted):
    """Those of the wanted transports that mounts can have, and why io_uring is not among them.

    The system allows io_uring to new mounts meanwhile; its setting is put back at the end.
    """
    if IO_URING not in wanted:
        yield wanted, None
        return
    with allowed() as refusal:
        if refusal:
            yield [name for name in wanted if name != IO_URING], refusal
        else:
            yield wanted, None


@contextmanager
def allowed():
    """Lets new mounts be served over io_uring; gives why that is not possible, or None."""
    try:
        before = setting()
    except OSError as error:
        yield f"FUSE over io_uring takes Linux 6.14 ({error})"
        return
    if before == ALLOWED:
        yield None
        return
    refusal = None
    # The setting is put back even where an interrupt comes just after it was changed.
    try:
        try:
            let(ALLOWED)
        except OSError as error:
            refusal = f"FUSE over io_uring cannot be allowed here ({error})"
        yield refusal
    finally:
        if refusal is None:
            let(before)


def setting():
    with open(PARAMETER, encoding="ascii") as file:
        return file.read().strip()


def let(value):
    with open(PARAMETER, "w", encoding="ascii") as file:
        file.write(value)
