"""`make picture`: runs `make run`, and draws what it prints into docs/run.svg.

Three steps are shown whole, but for long JSON. An ellipsis stands for what is left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from xml.sax.saxutils import escape

from local.process import ROOT, interrupt_once

PICTURE = ROOT / "docs/run.svg"
STEPS = ("1.", "2.", "7.")
JSON_LINES = 4  # a longer object is left out
_OBJECT = re.compile(r"^(  (?:[<>] )?)\{\n(?:.*\n)*?\1\}$", re.MULTILINE)
LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 19, 8.0, 16


def main() -> None:
    """Run and draw. Exits 1, with the output of the run, if it fails."""
    interrupt_once()
    try:
        done = subprocess.run([sys.executable, "-u", "-m", "local.run"], stdout=subprocess.PIPE, text=True, check=False)
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    print(done.stdout)
    if done.returncode:
        sys.exit(done.returncode)
    PICTURE.write_text(drawn(["$ make run", *shown(done.stdout)]))
    print(f"The picture is {PICTURE.relative_to(ROOT)}.")


def shown(output: str) -> list[str]:
    """Return the lines to show, of the output of `make run`."""
    start, *steps, end = output.strip("\n").split("\n\n")
    lines = start.splitlines()
    for step in steps:
        if step.startswith(STEPS):
            short = _OBJECT.sub(lambda found: f"{found[1]}…" if found[0].count("\n") >= JSON_LINES else found[0], step)
            lines += ["", *short.splitlines()]
        elif lines[-1] != "…":
            lines += ["", "…"]
    return [*lines, "", *end.splitlines()]


def drawn(lines: list[str]) -> str:
    """Return an SVG picture of a terminal with these lines."""
    width = round(max(map(len, lines)) * CHARACTER_WIDTH) + 2 * MARGIN
    height = len(lines) * LINE_HEIGHT + 2 * MARGIN
    texts = "".join(
        f'<text x="{MARGIN}" y="{MARGIN + LINE_HEIGHT * number - 5}" xml:space="preserve">{escape(line)}</text>\n'
        for number, line in enumerate(lines, 1)
        if line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        "<title>What make run prints</title>\n"
        '<rect width="100%" height="100%" rx="8" fill="#161b22"/>\n'
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13" fill="#e6edf3">\n'
        f"{texts}</g>\n</svg>\n"
    )


if __name__ == "__main__":
    main()
