"""Measures reads and writes through a mount against what does the same without one.

    benches/throughput                 as root; prints the tables of docs/PERFORMANCE.md
    benches/throughput cold yara       these groups only
    benches/throughput --rounds 9      more of each, for a noisy machine
    benches/throughput --size 256      a target of 256 MiB, for a small one
    benches/throughput --awake         with CPUs that do not sleep while they are idle
    benches/throughput --transports fuse
                                       without mounts that are served over io_uring

Builds what it needs, starts targets with resident memory that holds noise,
mounts, and measures both sides by turns (A B A B ...), so that whatever else
the machine does meets both. Where it matters what brings requests, a mount over
/dev/fuse and one over io_uring are two sides, with a column each. A ratio is the
median time of the peer by ours: above 1 we are faster. The aim is the least
ratio that we want to see. What is timed is checked: all sides give the same
bytes, and tools say the same.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from contextlib import nullcontext

from . import memory, programs
from .awake import awake
from .bench import Bench
from .failure import Failure, Skipped
from .groups import GROUPS
from .transports import TRANSPORTS, usable

DESCRIPTION = __doc__
TMPFS = "/dev/shm"
TOO_FEW_ROUNDS = 5


def main():
    try:
        options = parse()
        if os.geteuid() != 0:
            raise Failure("run it as root: only root can raise the readahead of a mount")
        prepare()
        measure(options)
    except (Failure, OSError) as failure:
        return f"throughput: {failure}"
    except KeyboardInterrupt:
        return "throughput: interrupted"
    return 0


def parse():
    groups = "\n".join(f"  {name:9} {group.__doc__}" for name, group in GROUPS.items())
    parser = argparse.ArgumentParser(
        prog="throughput",
        description=DESCRIPTION,
        epilog=f"groups:\n{groups}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="see below (default: all)")
    parser.add_argument("--rounds", type=positive, default=5, help="of each side (default: 5)")
    parser.add_argument(
        "--size",
        type=positive,
        default=1024,
        metavar="MiB",
        help="resident memory of a target (default: 1024); yara, write and growth take their"
        " sizes from it",
    )
    parser.add_argument(
        "--mappings", type=positive, default=60_000, help="of a target to list (default: 60000)"
    )
    parser.add_argument(
        "--processes", type=positive, default=500, help="to walk over (default: 500)"
    )
    parser.add_argument(
        "--awake",
        action="store_true",
        help="keep idle CPUs from sleeping (/dev/cpu_dma_latency), as on a machine tuned for"
        " latency: waking one takes long on some machines, virtual ones above all",
    )
    parser.add_argument(
        "--transports",
        type=transports,
        default=list(TRANSPORTS),
        metavar="NAME,...",
        help="what brings requests to the mounts that are compared, of fuse and io_uring (default:"
        " both; io_uring takes Linux 6.14, and is allowed for the machine meanwhile)."
        " The empty FUSE server, and groups that compare none, have /dev/fuse alone",
    )
    options = parser.parse_args()
    for name in options.groups:
        if name not in GROUPS:
            parser.error(f"no group '{name}': there are {', '.join(GROUPS)}")
    return options


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def transports(text):
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in TRANSPORTS:
            raise argparse.ArgumentTypeError(
                f"no transport '{name}': there are {', '.join(TRANSPORTS)}"
            )
    return names


def prepare():
    for ended in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, interrupt)
    # Tools say the same whoever runs them, and take bytes for bytes.
    os.environ["LC_ALL"] = "C"


def interrupt(*_):
    """Raises, so that what was started is ended; a second signal must not stop that."""
    for ended in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, signal.SIG_IGN)
    raise KeyboardInterrupt


def measure(options):
    procmemfs = programs.build("procmemfs", "build", "--release", "--bin", "procmemfs")
    probe = programs.build("units", "bench", "--bench", "units", "--no-run")
    mounts = tempfile.mkdtemp(prefix="procmemfs-throughput-")
    files = tempfile.mkdtemp(prefix="procmemfs-throughput-", dir=TMPFS)
    try:
        with (
            awake() if options.awake else nullcontext(),
            usable(options.transports) as (names, refusal),
        ):
            if not names:
                raise Failure(refusal)
            bench = Bench(options, names, procmemfs, probe, mounts, files)
            run_groups(options, bench, refusal)
    finally:
        shutil.rmtree(files)
        # Not by a recursive removal: should a mount be left, its files are not ours to remove.
        for name in os.listdir(mounts):
            os.rmdir(os.path.join(mounts, name))
        os.rmdir(mounts)


def run_groups(options, bench, refusal):
    """`refusal` is why a transport is left out, if one is."""
    few = " (too few to tell)" if bench.rounds < TOO_FEW_ROUNDS else ""
    print(
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, {options.size} MiB resident,"
        f" median of {bench.rounds}{few}, by turns{', CPUs kept awake' if options.awake else ''}"
    )
    if refusal:
        print(f"\nWithout io_uring: {refusal}")
    used = {}
    for name in options.groups or GROUPS:
        try:
            GROUPS[name](bench)
        except Skipped as reason:
            print(f"\n### {name}\n\nskipped: {reason}", flush=True)
        used[name] = bench.take_memory()
    memory.table(used)
