"""Whether CPUs that have nothing to do may sleep."""

import os
from contextlib import contextmanager

DEVICE = "/dev/cpu_dma_latency"


@contextmanager
def awake():
    """Keeps idle CPUs awake: they poll, and are there at once.

    The kernel holds to the latency written, in microseconds, as long as the
    file is open (Documentation/power/pm_qos_interface.rst).
    """
    device = os.open(DEVICE, os.O_WRONLY)
    try:
        os.write(device, (0).to_bytes(4, "little"))
        yield
    finally:
        os.close(device)
