"""For gdb: all that it knows of each thread, and of what is mapped, in lines that can be compared."""

import gdb

DEPTH = 64


def said(command):
    return gdb.execute(command, to_string=True).splitlines()


def frames():
    frame = gdb.newest_frame()
    for _ in range(DEPTH):
        if frame is None:
            return
        yield f"{frame.name()}@{frame.pc():x}"
        frame = frame.older()


# A core names threads by their number alone, where the library of threads is not at hand.
threads = sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.ptid[1] or thread.ptid[2])
for thread in threads:
    thread.switch()
    number = thread.ptid[1] or thread.ptid[2]
    print(f"thread {number} frames {' '.join(frames())}")
    for line in said("info all-registers"):
        print(f"thread {number} register {' '.join(line.split())}")
for line in said("info proc mappings"):
    words = line.split()
    # Files alone: a core says of no other mapping whether there is a file. A live process shows its permissions, too.
    path = next((at for at, word in enumerate(words) if word.startswith("/")), None)
    if path and words[0].startswith("0x"):
        print("mapping", *words[:4], *words[path:])
for line in said("info sharedlibrary"):
    if line.startswith("0x"):
        print("library", *line.split())
