import os
import shutil
import subprocess
from functools import partial

from ..commands import finish, timed
from ..failure import Failure
from ..programs import needs
from ..span import Span, check_same
from ..tables import Comparison, in_mib
from ..turns import compare_by_turns

# For 1 GiB: 256 MiB resident, and 16 GiB reserved, of which 11 MiB are resident.
PART = 4
RESERVED = 16
SPARSE_PAGES = 2816
MARKED = 12
AIM = 2.0
REFERENCE = "the same files on tmpfs"

RULES = """
rule first {{ strings: $first = {{ {first} }} condition: #first == 1 }}
rule last {{ strings: $last = {{ {last} }} condition: #last == 1 }}
rule secrets {{
    strings: $key = "BEGIN OPENSSH PRIVATE KEY" $password = "password is" nocase
    condition: any of them
}}
rule library {{ strings: $symbol = "GLIBC_PRIVATE" condition: $symbol }}
"""


def yara(bench):
    """yara over a process's directory, against yara PID"""
    needs("yara", "yara")
    table = Comparison("yara -r RULES MOUNT/PID", "s", peer="yara RULES PID", reference=REFERENCE)
    full = bench.size // PART
    with bench.target("hold", full) as target, bench.mount(target) as mount:
        files = bench.file("files")
        copy_files(mount, target, files)
        name = f"{in_mib(full)} resident"
        row(bench, table, target, mount, name, bench.rounds, files)
        shutil.rmtree(files)
    reserved = bench.size * RESERVED
    with bench.target("reserve", reserved, SPARSE_PAGES) as target, bench.mount(target) as mount:
        name = f"{in_mib(reserved)} reserved, {in_mib(SPARSE_PAGES << 12)} of them resident"
        # Half a minute each, and without the reference: yara maps the file, and tmpfs
        # then allocates all of its holes.
        row(bench, table, target, mount, name, 1)


def row(bench, table, target, mount, name, rounds, *directories):
    """`directories` hold what the mount shows of the target."""
    rules = bench.file("rules.yar")
    write_rules(rules, target.mapping)
    check_ends(mount, target)
    commands = [["yara", "-r", rules, mount.of(target.pid)], ["yara", rules, str(target.pid)]]
    commands += (["yara", "-r", rules, directory] for directory in directories)
    ours, *others = (partial(found, command) for command in commands)
    times = compare_by_turns(rounds, [ours], *others)
    table.row(name, AIM, times, lambda seconds: f"{seconds:.2f}")


def copy_files(mount, target, files):
    """All of them: the program and its libraries are searched, too."""
    finish(["cp", "-r", mount.of(target.pid), files])
    ours = mount.mapping(target)
    copy = os.path.join(files, os.path.basename(ours.path))
    check_same(Span(copy, 0, os.path.getsize(copy)), target.mapping)


def write_rules(path, mapping):
    """Rules; two hold only where the mapping was searched from its first byte and to its last."""
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
    if not {"first", "last"} <= set(rules):
        raise Failure(f"{' '.join(command)} did not find both ends, but {rules}")
    return seconds, rules
