"""What the daemons have used."""

from .tables import Table

# The default budget of the page cache, and what everything else may take.
AIM = (64 + 32) << 20


def table(used):
    """`used` has for each group the memory of its daemons, at their end and at their highest."""
    used = {name: daemons for name, daemons in used.items() if daemons}
    if not used:
        return
    columns = ["", "VmRSS at the end, MiB", "VmHWM, MiB", "aim, MiB"]
    lines = Table("The daemon's memory, the largest of each group", *columns)
    for name, daemons in used.items():
        line(lines, name, daemons)
    line(lines, "the highest of all", [one for daemons in used.values() for one in daemons])


def line(lines, name, daemons):
    resident = max(now for now, _ in daemons)
    highest = max(high for _, high in daemons)
    lines.line([name, mebibytes(resident), mebibytes(highest), f"<= {AIM >> 20}"])


def mebibytes(size):
    return f"{size / (1 << 20):.1f}"
