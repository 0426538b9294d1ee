"""Runs commands, and tells how long they took and what they said."""

import subprocess
import time

from .failure import Failure


def finish(*pipeline, stdout=subprocess.DEVNULL, answers=(0,)):
    """Runs commands, each reading what the one before it writes; returns what the last one says.

    `answers` are the exit codes that the last one may have.
    """
    started = []
    try:
        for command in pipeline:
            source = started[-1].stdout if started else subprocess.DEVNULL
            is_last = len(started) + 1 == len(pipeline)
            started.append(start(command, source, stdout if is_last else subprocess.PIPE))
            if len(started) > 1:
                # The writer must see it when its reader ends.
                source.close()
        said = started[-1].communicate()[0] or ""
        for process, command in zip(started, pipeline):
            allowed = answers if process is started[-1] else (0,)
            if process.wait() not in allowed:
                raise Failure(f"exit code {process.returncode}: {' '.join(command)}")
        return said
    finally:
        end(started)


def timed(*pipeline, **how):
    """Seconds that the commands take, and what they say."""
    began = time.monotonic()
    said = finish(*pipeline, **how)
    return time.monotonic() - began, said


def timed_together(commands):
    """Seconds until all of the commands, which run side by side, have ended."""
    started = []
    began = time.monotonic()
    try:
        for command in commands:
            started.append(start(command, subprocess.DEVNULL, subprocess.DEVNULL))
        if any([process.wait() for process in started]):
            raise Failure(f"one of several failed: {' '.join(commands[0])}")
        return time.monotonic() - began, ""
    finally:
        end(started)


def start(command, stdin, stdout):
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, text=True)


def end(started):
    """None of them outlives a failure or an interrupt."""
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def reading(span, block, *flags):
    """The dd that writes the span to its standard output."""
    return [
        "dd",
        f"if={span.path}",
        f"bs={block}",
        "iflag=" + ",".join(["skip_bytes", "count_bytes", *flags]),
        f"skip={span.offset}",
        f"count={span.length}",
        "status=none",
    ]


def writing_zeros(span, block):
    """The dd that overwrites the span."""
    return [
        "dd",
        "if=/dev/zero",
        f"of={span.path}",
        f"bs={block}",
        "conv=notrunc",
        "iflag=count_bytes",
        "oflag=seek_bytes",
        f"seek={span.offset}",
        f"count={span.length}",
        "status=none",
    ]
