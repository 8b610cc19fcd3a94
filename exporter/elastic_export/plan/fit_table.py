"""The table that an export prints before it builds anything: what fits which card."""

from __future__ import annotations

from collections.abc import Sequence

from elastic_runtime.fit.targets import Target
from elastic_runtime.fit.vram import gib, unfit, vram_needed
from elastic_runtime.format.budget_size import BudgetSize


def fit_table(
    sizes: Sequence[BudgetSize],
    targets: Sequence[Target],
    *,
    contexts: Sequence[int],
    batch: int = 1,
    precision: str,
    eight_bits: Sequence[BudgetSize] = (),
) -> str:
    """Budgets down, memory by context and verdict by card across, then one line for every card that something does
    not fit.

    With several contexts the verdict is `yes`, `no`, or the longest context that fits. `eight_bits` are the same
    budgets with int8 weights, where they could be had: the line says which of them would fit.
    """
    rows = [
        ["budget", "params", "weights", *(f"VRAM@{short(c)}" for c in contexts), *(f" {_heading(t)}" for t in targets)]
    ]
    for size in sizes:
        needs = [f"{gib(vram_needed(size, context=c, batch=batch).total)} GiB" for c in contexts]
        verdicts = [" " + verdict(size, target, contexts, batch) for target in targets]
        rows.append([size.name, parameters(size.parameters), size_text(size.weight_bytes), *needs, *verdicts])
    notes = [note for t in targets for c in contexts if (note := _note(sizes, t, c, batch, precision, eight_bits))]
    return "\n".join([*align(rows, left=(0, *range(3 + len(contexts), len(rows[0])))), *notes])


def verdict(size: BudgetSize, target: Target, contexts: Sequence[int], batch: int = 1) -> str:
    """`yes`, `no`, `to 8k`, or `-` for a portable target."""
    if target.usable_bytes is None:
        return "-"
    fitting = [c for c in contexts if not unfit([size], target, context=c, batch=batch)]
    if len(fitting) == len(contexts):
        return "yes"
    return f"to {short(max(fitting))}" if fitting else "no"


def short(context: int) -> str:
    """16384 as 16k; other counts as they are."""
    return f"{context // 1024}k" if context % 1024 == 0 else str(context)


def parameters(count: int) -> str:
    """12310001152 as 12.31B, 412345 as 0.41M."""
    return f"{count / 1e9:.2f}B" if count >= 10**7 else f"{count / 1e6:.2f}M"


def size_text(count: int) -> str:
    """Bytes with a fitting unit: 10.7 GiB, 16.5 MiB, 812 B."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def weights_text(nbytes: int, quantisation: str | None) -> str:
    """Bytes of a budget's weights and what they are quantised to: 11.5 GiB int8."""
    return " ".join([size_text(nbytes), *([quantisation] if quantisation else [])])


def duration(seconds: float) -> str:
    """Two figures at most: 40 s, 12 min, 2.5 h."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def align(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Columns two spaces apart; headings (the first row) and the columns in `left` start together, others end so."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(_cell(text, n == 0 or i in left, widths[i]) for i, text in enumerate(r)).rstrip()
        for n, r in enumerate(rows)
    ]


def _cell(text: str, left: bool, width: int) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _heading(target: Target) -> str:
    if target.vram_bytes is None or target.usable_bytes is None:
        return f"{target.name} (portable)"
    return f"{target.name} ({gib(target.vram_bytes)} GiB, {gib(target.usable_bytes)} usable)"


def _note(
    sizes: Sequence[BudgetSize],
    target: Target,
    context: int,
    batch: int,
    precision: str,
    eight_bits: Sequence[BudgetSize],
) -> str:
    names = unfit(sizes, target, context=context, batch=batch)
    if not names:
        return ""
    does = "does" if len(names) == 1 else "do"
    where = f"{target.name} in {precision} at {context} tokens" + (f" x {batch}" if batch > 1 else "")
    note = f"{', '.join(names)} {does} not fit {where}: never chosen there."
    still = unfit(eight_bits, target, context=context, batch=batch)
    would = [size.name for size in eight_bits if size.name in names and size.name not in still]
    return f"{note} With --quantize int8 {', '.join(would)} would fit." if would else note
