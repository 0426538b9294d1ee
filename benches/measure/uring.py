"""Mounts that are served over io_uring."""

import os
from contextlib import contextmanager

from .failure import Failure

PARAMETER = "/sys/module/fuse/parameters/enable_uring"


@contextmanager
def over_io_uring():
    """Has new mounts of procmemfs served over io_uring, and puts the system's setting back at the end."""
    try:
        with open(PARAMETER, encoding="ascii") as file:
            before = file.read().strip()
    except OSError as error:
        raise Failure(f"FUSE over io_uring takes Linux 6.14: {error}") from error
    allow("Y")
    os.environ["PROCMEMFS_OPTIONS"] = "io_uring=on"
    try:
        yield
    finally:
        del os.environ["PROCMEMFS_OPTIONS"]
        allow(before)


def allow(setting):
    with open(PARAMETER, "w", encoding="ascii") as file:
        file.write(setting)
