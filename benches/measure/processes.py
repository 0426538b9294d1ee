"""Processes of the probe: what is looked at, and what serves."""

import os
import select
import subprocess

from .failure import Failure
from .span import Span

PATIENCE = 30


class Probe:
    """A mode of the probe that tells a line once it is ready, and lives until its input closes."""

    def __init__(self, probe, mode, *arguments):
        self.command = [probe, f"--probe-{mode}", *map(str, arguments)]

    def __enter__(self):
        # A session of its own, so that Ctrl-C does not end it before what reads from it.
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            told = self.process.stdout.readline()
            if not told:
                raise Failure(f"not ready: {' '.join(self.command)}")
            self.ready(told)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Target(Probe):
    """A process with memory of the kind that a mode of the probe makes."""

    def ready(self, told):
        self.pid = self.process.pid
        self.address = int(told)
        self.mapping = self.find_mapping()

    def find_mapping(self):
        """The mapping that the address is in, as the kernel's own file has it."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                start, end = (int(bound, 16) for bound in line.split(" ")[0].split("-"))
                if start <= self.address < end:
                    return Span(f"/proc/{self.pid}/mem", start, end - start)
        raise Failure(f"no mapping of {self.pid} holds {self.address:#x}")


class Crowd:
    """Many small processes. They share one input, so that few descriptors are needed for them."""

    def __init__(self, probe, count):
        self.command = [probe, "--probe-hold", "4096"]
        self.count = count
        self.processes = []

    def __enter__(self):
        their_input, self.input = os.pipe()
        output, their_output = os.pipe()
        try:
            for _ in range(self.count):
                self.processes.append(
                    subprocess.Popen(self.command, stdin=their_input, stdout=their_output)
                )
            self.wait_until_all_told(output)
        except BaseException:
            self.__exit__()
            raise
        finally:
            for descriptor in (their_input, output, their_output):
                os.close(descriptor)
        self.pids = [process.pid for process in self.processes]
        return self

    def __exit__(self, *_):
        os.close(self.input)
        for process in self.processes:
            process.wait()

    def wait_until_all_told(self, output):
        told = 0
        while told < self.count:
            if not select.select([output], [], [], PATIENCE)[0]:
                raise Failure(f"{self.count - told} of {self.count} small processes do not start")
            told += os.read(output, 4096).count(b"\n")
