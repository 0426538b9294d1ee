import os
import subprocess
from functools import partial

from ..commands import timed
from ..failure import Failure
from ..programs import needs
from ..span import check_same
from ..tables import Comparison, in_mib
from ..turns import by_turns

# For 1 GiB: 256 MiB resident, and 16 GiB reserved, of which 11 MiB are resident.
PART = 4
RESERVED = 16
SPARSE_PAGES = 2816
MARKED = 12
AIM = 2.0

RULES = """
rule marker {{
    strings: $first = {{ {first} }} $last = {{ {last} }}
    condition: #first == 1 and #last == 1
}}
rule secrets {{
    strings: $key = "BEGIN OPENSSH PRIVATE KEY" $password = "password is" nocase
    condition: any of them
}}
rule library {{ strings: $symbol = "GLIBC_PRIVATE" condition: $symbol }}
"""


def yara(bench):
    """yara over a process's directory, against yara PID"""
    needs("yara", "yara")
    table = Comparison("yara -r RULES MOUNT/PID", "s", peer="yara RULES PID")
    full = bench.size // PART
    with bench.target("hold", full) as target:
        row(bench, table, target, f"{in_mib(full)} resident", bench.rounds)
    reserved = bench.size * RESERVED
    with bench.target("reserve", reserved, SPARSE_PAGES) as target:
        name = f"{in_mib(reserved)} reserved, {in_mib(SPARSE_PAGES << 12)} of them resident"
        # Half a minute each.
        row(bench, table, target, name, 1)


def row(bench, table, target, name, rounds):
    rules = bench.file("rules.yar")
    write_rules(rules, target.mapping)
    with bench.mount(target) as mount:
        check_ends(mount, target)
        times = by_turns(
            rounds,
            partial(found, ["yara", "-r", rules, mount.of(target.pid)]),
            partial(found, ["yara", rules, str(target.pid)]),
        )
    table.row(name, AIM, times, lambda seconds: f"{seconds:.2f}")


def write_rules(path, mapping):
    """Rules; one holds only where the mapping was searched from its first byte to its last."""
    with open(mapping.path, "rb") as memory, open(path, "w", encoding="ascii") as rules:
        ends = (mapping.offset, mapping.offset + mapping.length - MARKED)
        first, last = (os.pread(memory.fileno(), MARKED, end).hex(" ") for end in ends)
        rules.write(RULES.format(first=first, last=last))


def check_ends(mount, target):
    """Only the ends: whatever is read of /proc/PID/mem in between becomes resident."""
    page = 4096
    whole = target.mapping
    ours = mount.mapping(target)
    for at in (0, whole.length - page):
        check_same(
            ours._replace(offset=at, length=page),
            whole._replace(offset=whole.offset + at, length=page),
        )


def found(command):
    """Seconds, and the rules that held: in a directory yara tells of each once a file."""
    seconds, said = timed(command, stdout=subprocess.PIPE)
    rules = sorted({line.split(" ")[0] for line in said.splitlines()})
    if "marker" not in rules:
        raise Failure(f"{' '.join(command)} found no marker, but {rules}")
    return seconds, rules
