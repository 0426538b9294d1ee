"""Tables in Markdown."""

from .transports import FUSE, TRANSPORTS
from .turns import median, spread


class Table:
    """A heading, and rows that are printed as they come."""

    def __init__(self, title, *columns, note=""):
        self.width = len(columns)
        print(f"\n### {title}\n")
        if note:
            print(f"{note}\n")
        self.line(columns)
        self.line(["---"] + ["---:"] * (self.width - 1))

    def line(self, cells):
        print("| " + " | ".join(cells) + " |", flush=True)

    def skipped(self, name, why):
        self.line([name, f"skipped: {why}"] + [""] * (self.width - 2))


class Comparison(Table):
    """Rows of our times and a peer's, and in some of a reference that nobody can be better than.

    Ours have a column for each transport, which only those tell that compare them.
    """

    def __init__(
        self, title, unit, peer="/proc/PID/mem", reference=None, note="", transports=(FUSE,)
    ):
        over = [""]
        if list(transports) != [FUSE]:
            over = [f" over {TRANSPORTS[transport].name}" for transport in transports]
        self.sides = len(over)
        columns = ["", *(f"procmemfs{it}, {unit}" for it in over), f"{peer}, {unit}"]
        columns += [*(f"ratio{it}" for it in over), "aim"]
        if reference:
            columns += [f"{reference}, {unit}", "its ratio"]
        super().__init__(title, *columns, "slowest/fastest", note=note)

    def row(self, name, aim, times, shown):
        """`times` are ours, a list with a side for each transport, the peer's and the reference's.

        An aim of None is none.
        """
        ours, peer, *reference = times
        assert len(ours) == self.sides
        cells = [name, *(shown(median(side)) for side in [*ours, peer])]
        cells += [ratio(peer, side) for side in ours]
        cells.append("-" if aim is None else f"{aim:.1f}")
        for other in reference:
            cells += [shown(median(other)), ratio(peer, other)]
        cells += ["-"] * (self.width - 1 - len(cells))
        self.line([*cells, spread(*ours, peer, *reference)])


def ratio(peer, ours):
    return f"{median(peer) / median(ours):.2f}"


def gigabytes(size):
    """Shows seconds as a speed in GB/s."""
    return lambda seconds: f"{size / seconds / 1e9:.2f}"


def milliseconds(seconds):
    return f"{seconds * 1e3:.1f}"


def microseconds(seconds):
    return f"{seconds * 1e6:.2f}"


def in_mib(size):
    return f"{size / (1 << 20):.0f} MiB"
