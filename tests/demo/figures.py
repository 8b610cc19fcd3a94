"""What the READMEs say of the demo, put there by this and never typed.

    python tests/demo/figures.py README.md bits FOLDER  bits per byte, after `train_demo.py FOLDER measure`
    python tests/demo/figures.py tests/demo/README.md samples BUNDLE  text of every budget, as `elastic-run` writes it

FOLDER is the training's; BUNDLE what `elastic-export` makes of the demo. The picture of the table lies beside this.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import numpy as np
from demo_text import Tokens
from train_demo import ARCH, MEASURED, read_budgets, read_tokens

PROMPTS = ("def read_lines(self, path):", "class Cache(dict):")
_LENGTH, _SEEDS = 100, 4
_HOW = ("--temperature", "0.7", "--top-p", "0.95", "--max-new", str(_LENGTH))
PICTURE = Path(__file__).parent / "bits_per_byte.svg"
#: By measurement, in the order of the table: its column, its colour in the picture, and where its figures stand there.
SERIES = {
    "full model's slice": ("slice of the full model", "#b5561c", (0, -9, "middle")),
    "elastic": ("after elastic training", "#1f5fa8", (0, 18, "middle")),
    "trained alone": ("trained alone", "#2f7d3b", (-9, 4, "end")),
}


@click.group()
@click.argument("page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_context
def main(context: click.Context, page: Path) -> None:
    """Put figures into PAGE."""
    context.obj = page


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.pass_obj
def bits(page: Path, folder: Path) -> None:
    """Bits per byte of the held-out text, of every budget before and after, as `measure` found them."""
    found = json.loads((folder / MEASURED).read_text())
    sizes = {budget.name: budget.architecture(ARCH).parameters() for budget in read_budgets(folder)}
    put(page, "bits", bits_table(found, sizes))
    PICTURE.write_text(picture(found, sizes), "utf-8")


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--held-out", type=click.Path(path_type=Path, exists=True), help="The training's folder, to compare with."
)
@click.pass_obj
def samples(page: Path, bundle: Path, held_out: Path | None) -> None:
    """Text of all budgets, and how much of it repeats itself."""
    budgets = [entry["name"] for entry in json.loads((bundle / "manifest.json").read_text())["budgets"]]
    command = ["elastic-run", str(bundle), "--prompt", PROMPTS[0], *_HOW]
    parts = [f"    {shlex.join(command)} --budget NAME"]
    shares = {}
    for budget in budgets:
        runs = [generated(bundle, budget, prompt, seed) for prompt in PROMPTS for seed in range(_SEEDS)]
        shares[budget] = float(np.mean([distinct(run["ids"]) for run in runs]))
        text = f"{PROMPTS[0]}{runs[0]['text']}".rstrip()
        parts.append(f"`{budget}`:\n\n```text\n{text}\n```")
    if held_out:
        shares["held-out text"] = held_out_share(read_tokens(held_out, "held_out"))
    words = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    count = len(PROMPTS) * _SEEDS
    parts.append(f"Share of distinct 4-grams of tokens, mean of {count} texts of {_LENGTH} tokens each: {words}.")
    put(page, "samples", "\n\n".join(parts))


def generated(bundle: Path, budget: str, prompt: str, seed: int) -> dict[str, Any]:
    """What `elastic-run` says: its text and its token ids."""
    program = [sys.executable, "-m", "elastic_runtime.cli.run", str(bundle), "--device", "cpu", "--json"]
    options = ["--budget", budget, "--prompt", prompt, "--seed", str(seed), *_HOW]
    done = subprocess.run([*program, *options], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def distinct(ids: list[int]) -> float:
    """Of the runs of four tokens, the share of different ones."""
    grams = [tuple(ids[at : at + 4]) for at in range(len(ids) - 3)]
    return len(set(grams)) / len(grams) if grams else 1.0


def held_out_share(tokens: Tokens) -> float:
    """The same of text that people wrote, in pieces as long as the samples."""
    pieces = [tokens[at : at + _LENGTH].tolist() for at in range(0, len(tokens) - _LENGTH, _LENGTH)]
    return float(np.mean([distinct(piece) for piece in pieces]))


def bits_table(found: Mapping[str, float], sizes: Mapping[str, int]) -> str:
    """A row a budget, a column a series."""
    head = "".join(f" {title} |" for title, *_ in SERIES.values())
    rows = [f"| | parameters |{head}", "|---|---:|" + "---:|" * len(SERIES)]
    for budget, size in sizes.items():
        cells = (found.get(f"{budget}, {name}") for name in SERIES)
        values = "".join(f" {'' if cell is None else f'{cell:.3f}'} |" for cell in cells)
        rows.append(f"| {budget} | {size:,} |{values}")
    return "\n".join(rows)


def put(page: Path, name: str, text: str) -> None:
    """Between the page's marks of that name."""
    before, begin, rest = page.read_text("utf-8").partition(f"<!-- tests/demo/figures.py {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise click.ClickException(f"{page}: no marks of {name}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", "utf-8")


def picture(found: Mapping[str, float], sizes: Mapping[str, int]) -> str:
    """The table as an SVG: bits per byte over parameters, a line a series."""
    width, height, left, top = 560, 320, 60, 24
    most, least = max(found.values()), min(found.values())

    def x(size: int) -> float:
        return left + (width - left - 30) * size / max(sizes.values())

    def y(value: float) -> float:
        return top + (height - top - 72) * (most - value) / (most - least or 1)

    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    svg = ET.Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "font-family": "sans-serif", "font-size": "12", **size}
    )
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "white"})

    def word(at: tuple[float, float], text: str, anchor: str = "middle", colour: str = "#333333") -> None:
        place = {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor, "fill": colour}
        ET.SubElement(svg, "text", place).text = text

    for number, (name, (title, colour, (right, down, anchor))) in enumerate(SERIES.items()):
        points = [
            (x(sizes[b]), y(found[f"{b}, {name}"]), found[f"{b}, {name}"]) for b in sizes if f"{b}, {name}" in found
        ]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in points)
        ET.SubElement(svg, "polyline", {"points": line, "fill": "none", "stroke": colour, "stroke-width": "2"})
        for a, b, value in points:
            ET.SubElement(svg, "circle", {"cx": f"{a:.1f}", "cy": f"{b:.1f}", "r": "4", "fill": colour})
            word((a + right, b + down), f"{value:.3f}", anchor, colour)
        word((width - 30, top + 16 * number), title, "end", colour)
    for budget, parameters in sizes.items():
        word((x(parameters), height - 34), budget)
        word((x(parameters), height - 20), f"{parameters / 1e6:.2f} M")
    word((width / 2, height - 4), "parameters")
    word((8, 14), "bits per byte", "start")
    return ET.tostring(svg, encoding="unicode") + "\n"


if __name__ == "__main__":
    main()
