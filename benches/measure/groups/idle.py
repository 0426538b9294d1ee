import os
import time

from ..commands import finish, reading
from ..tables import Table

# What was begun for the last request is over by then.
SETTLED = 3
SECONDS = 10
AIM = 0


def idle(bench):
    """how often the daemon wakes while nobody asks it"""
    with bench.target("hold", bench.size) as target, bench.mount(target) as mount:
        finish(["ls", "-l", mount.of(target.pid)])
        finish(reading(mount.mapping(target), "1M"))
        time.sleep(SETTLED)
        before = mount.wakeups()
        time.sleep(SECONDS)
        after = mount.wakeups()
    wakeups = sum(count - before.get(thread, 0) for thread, count in after.items())
    table = Table("The idle daemon", "", "wake-ups of all threads", "aim")
    table.line([f"{SECONDS} s, after a read of the target", str(wakeups), str(AIM)])
