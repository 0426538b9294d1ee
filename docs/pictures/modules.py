#!/usr/bin/env python3
"""Draws docs/modules.svg: which module of src/ uses which, read from the code itself.

    docs/pictures/modules.py            writes the picture
    docs/pictures/modules.py --check    fails where it is not that of the code any more

An arrow leads from a module to one that it uses. Thick arrows are those from which the order follows; whoever also uses one farther
up is tied to the thin line that leads there. Two modules that use each other, by whatever way, are an error. Tests are left out.
"""

import re
import sys
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/modules.svg"

# Not of the program: what the fuzzer drives, fake processes, models and tests.
LEFT_OUT = {"fuzzing", "fake", "tests.rs", "models.rs"}
UNIT_TESTS = re.compile(r"^\s*#\[cfg\(test\)\]\s*\n(?:\s*#\[.*\n)*\s*mod \w+ \{", re.MULTILINE)
USE = re.compile(r"\b(?:crate|procmemfs)::(\w+)")

WIDTH, TOP, ROW, HEIGHT = 930, 20, 92, 60
SPINE, SIDE = (180, 350), (600, 285)
RAIL, BETWEEN_RAILS = 20, 26
DARK, LIGHT = "#24292f", "#8c959f"


def sources(module):
    """The Rust files of a module that are part of the program."""
    for path in sorted((ROOT / "src" / module).rglob("*.rs")):
        if not LEFT_OUT & set(path.relative_to(ROOT).parts):
            yield path


def duty(module):
    """The first sentence of the module's own documentation."""
    text = []
    for line in (ROOT / "src" / module / "mod.rs").read_text().splitlines():
        if not line.startswith("//!") or line == "//!":
            break
        text.append(line[3:].strip())
    return re.split(r"(?<=[.]) ", " ".join(text))[0].rstrip(".:").replace("`", "")


def used_by(module, modules):
    """The other modules that one uses."""
    used = set()
    for path in sources(module):
        code = path.read_text()
        tests = UNIT_TESTS.search(code)
        code = re.sub(r"//.*", "", code[: tests.start()] if tests else code)
        used |= {name for name in USE.findall(code) if name in modules}
    return used - {module}


def in_order(uses):
    """The modules, each after all that it uses; those that are used more come first."""
    order = []
    while len(order) < len(uses):
        ready = [it for it in uses if it not in order and uses[it] <= set(order)]
        if not ready:
            left = sorted(set(uses) - set(order))
            sys.exit(f"modules.py: these use each other, so there is no order: {', '.join(left)}")
        users = {it: sum(it in others for others in uses.values()) for it in ready}
        order.append(min(ready, key=lambda it: (-users[it], it)))
    return order


def reach(module, uses):
    """All that one uses, by whatever way."""
    found = set(uses[module])
    for used in uses[module]:
        found |= reach(used, uses)
    return found


def direct(uses):
    """The uses that do not follow from others."""
    return {
        module: {it for it in used if not any(it in reach(other, uses) for other in used - {it})}
        for module, used in uses.items()
    }


def arrow(points, color, width, head=True):
    path = "M" + " L".join(f"{x},{y}" for x, y in points)
    marker = f' marker-end="url(#{"thick" if width > 1.5 else "thin"})"' if head else ""
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"{marker}/>'


def draw(uses):
    order, straight = in_order(uses), direct(uses)
    # What the file system itself does not need stands beside the others: only the command uses it, or what stands there.
    spine, beside = straight_line(order, straight), []
    for module in reversed(order[:-1]):
        users = {user for user in uses if module in uses[user]}
        if module not in spine and users <= {order[-1], *beside}:
            beside.append(module)
    y = {module: TOP + ROW * row for row, module in enumerate(order)}
    box = {module: SIDE if module in beside else SPINE for module in order}
    middle = {module: y[module] + HEIGHT // 2 for module in order}
    height = TOP * 2 + ROW * (len(order) - 1) + HEIGHT
    lines, boxes = [], []

    rails = [it for it in order if any(it in uses[user] - straight[user] for user in order)]
    for number, used in enumerate(rails):
        x = RAIL + BETWEEN_RAILS * number
        # They come from below, and lead into the box on its left side.
        users = [it for it in order if used in uses[it] - straight[it]]
        shift = -8 if users else 0
        start = max(middle[user] for user in users) + 4 * number
        lines.append(arrow([(x, start), (x, middle[used] + shift), (box[used][0], middle[used] + shift)], LIGHT, 1.2))
        for user in users:
            at = middle[user] + 4 * number
            lines.append(arrow([(box[user][0], at), (x, at)], LIGHT, 1.2, head=False))
            lines.append(f'<circle cx="{x}" cy="{at}" r="2.5" fill="{LIGHT}"/>')
    for user in order:
        for used in sorted(straight[user]):
            (left, width), (used_left, used_width) = box[user], box[used]
            center, used_center = left + width // 2, used_left + used_width // 2
            between = [it for it in order if box[it][0] == used_left and y[used] < y[it] < y[user]]
            if left == used_left and not between:
                points = [(center, y[user]), (center, y[used] + HEIGHT)]
            elif between and used_left == SIDE[0]:
                # Around those, each on a way of its own.
                right = used_left + used_width
                way = right + 10 + 8 * order.index(user) % 24
                points = [(left + width, middle[user] + 6), (way, middle[user] + 6), (way, middle[used] + 6), (right, middle[used] + 6)]
            elif left > used_left:
                points = [(center, y[user]), (center, middle[used]), (used_left + used_width, middle[used])]
            else:
                points = [(left + width, middle[user]), (used_center, middle[user]), (used_center, y[used] + HEIGHT)]
            lines.append(arrow(points, DARK, 2))
    for module in order:
        left, width = box[module]
        boxes.append(f'<rect x="{left}" y="{y[module]}" width="{width}" height="{HEIGHT}" rx="6" fill="#ddf4ff" stroke="{DARK}"/>')
        boxes.append(f'<text x="{left + 12}" y="{y[module] + 21}" font-size="16" font-weight="bold">{module}</text>')
        wrapped = textwrap.wrap(duty(module), (width - 24) // 6, max_lines=2, placeholder="...")
        for number, line in enumerate(wrapped):
            boxes.append(f'<text x="{left + 12}" y="{y[module] + 37 + 14 * number}" font-size="11.5" fill="#424a53">{escape(line)}</text>')

    def marker(name, color, size):
        return (
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerUnits="userSpaceOnUse" markerWidth="{size}" '
            f'markerHeight="{size}" orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{color}"/></marker>'
        )

    title = "The modules of procmemfs: an arrow leads from one to another that it uses"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{DARK}" role="img">',
        f"<title>{title}</title>",
        f'<defs>{marker("thick", DARK, 12)}{marker("thin", LIGHT, 9)}</defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *lines,
        *boxes,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def straight_line(order, straight):
    """The modules from the last one up to the first, by the longest way along direct uses."""
    longest = {}
    for module in order:
        longest[module] = max((longest[used] for used in straight[module]), key=len, default=[]) + [module]
    return longest[order[-1]]


def main():
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        sys.exit("usage: modules.py [--check]")
    modules = [it.parent.name for it in sorted((ROOT / "src").glob("*/mod.rs")) if it.parent.name not in LEFT_OUT]
    uses = {module: used_by(module, modules) for module in modules}
    picture = draw(uses)
    if not arguments:
        PICTURE.write_text(picture)
    elif not PICTURE.exists() or PICTURE.read_text() != picture:
        sys.exit("docs/modules.svg is not that of the code: run docs/pictures/modules.py")


if __name__ == "__main__":
    main()
