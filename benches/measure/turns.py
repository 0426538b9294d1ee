"""Measures several sides by turns."""

import statistics

from .failure import Failure

# A ratio is called noisy where one side's slowest round took this much longer than its fastest.
NOISY = 1.3


def by_turns(rounds, *sides):
    """For each side its times, fastest first.

    A side is a function that returns how many seconds something took and what
    was said meanwhile; that must be the same on all sides.
    """
    times = [[] for _ in sides]
    first = None
    for _ in range(rounds):
        for side, own_times in zip(sides, times):
            seconds, said = side()
            first = said if first is None else first
            if said != first:
                raise Failure(f"the sides say different things: {first!r} and {said!r}")
            own_times.append(seconds)
    return [sorted(own_times) for own_times in times]


def compare_by_turns(rounds, ours, *others):
    """The same of several sides of ours and of others: ours are one list."""
    times = by_turns(rounds, *ours, *others)
    return [times[: len(ours)], *times[len(ours) :]]


def median(times):
    return statistics.median(times)


def spread(*sides):
    """The slowest round's time by the fastest one's, of whichever side is worse."""
    if len(sides[0]) == 1:
        return "one round"
    worst = max(times[-1] / times[0] for times in sides)
    return f"{worst:.2f}" + (" (noisy)" if worst > NOISY else "")
