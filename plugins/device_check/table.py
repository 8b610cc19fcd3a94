"""report.json as people read it: a table of text, a plot, or the table of a README.

python plugins/device_check/table.py REPORT.json                 prints the text
python plugins/device_check/table.py REPORT.json --into README   replaces the README's table, between its marks
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its modules have names as others have
from device_check import choice

BEGIN, END = "<!-- device_check: made by table.py -->", "<!-- end of device_check -->"
_OURS = "elastic "

Times = list[dict[str, Any]]


def findings(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Of all stages."""
    return [finding for stage in report["stages"] for finding in stage["findings"] if finding["kind"] == kind]


def copy_bandwidth(report: dict[str, Any]) -> float:
    """The best that a copy did in this run, GB/s; nan where it was not measured."""
    return max((f["copy_gb_s"] for f in findings(report, "ceiling")), default=float("nan"))


def text(report: dict[str, Any]) -> str:
    """Everything on a page."""
    return (
        "\n".join(
            [
                *_head(report),
                *_stages(report),
                *_errors(report),
                *_times(report),
                *_kernels(report),
                *_counters(report),
                *choice.lines(findings(report, "time")),
                *_legend(report),
                *_ends(report),
            ]
        )
        + "\n"
    )


def _head(report: dict[str, Any]) -> Iterator[str]:
    yield report["machine"]
    for found in findings(report, "ceiling"):
        ways = ", ".join(f"{way} {rate}" for way, rate in found["copies"].items())
        yield f"copy {found['copy_gb_s']} GB/s ({ways}), BF16 product {found['gemm_tflops']} TFLOP/s"
        yield f"  {found['clocks']}"


def _stages(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    for stage in report["stages"]:
        checks = [f for f in stage["findings"] if f["kind"] == "check"]
        wrong = sum(bool(f["wrong"]) for f in checks)
        counts = f"{len(checks):4} checks, {wrong} wrong" if checks else ""
        yield f"{stage['name']:20} {stage['outcome']:8} {stage['seconds']:6.1f} s  {counts}".rstrip()


def _errors(report: dict[str, Any]) -> Iterator[str]:
    """The worst error of each type and output over all cases of ours."""
    worst: dict[tuple[str, str, str], float] = {}
    for check in findings(report, "check"):
        for output, error in check["errors"].items() if "type" in check else ():
            key = (check["op"], check["type"], output)
            worst[key] = max(worst.get(key, 0.0), error)
    if worst:
        yield "\nworst error of the cases against float64"
        yield from (f"{op:9} {kind:9} {output:15} {e:.3g}" for (op, kind, output), e in sorted(worst.items()))


def _times(report: dict[str, Any]) -> Iterator[str]:
    copy = copy_bandwidth(report)
    errors = {check["what"]: check["errors"] for check in findings(report, "check")}
    heading, times = None, findings(report, "time")
    wide = max((len(time["who"]) for time in times), default=0)
    for time in times:
        if time["what"] != heading:
            heading = time["what"]
            yield f"\n{heading}, {time['bytes'] / 1e6:.1f} MB at least, {time['sets']} sets of buffers"
            columns = f"{'us':>9} {'p10':>9} {'p90':>9} {'GB/s':>7} {'of copy':>8} {'y error':>9} {'state/kv':>9}"
            yield f"{'':{wide}} {columns}"
        rate = time["bytes"] / time["us"] / 1e3
        work = f"{time['flops'] / time['us'] / 1e6:7.1f} TFLOP/s" if "flops" in time else ""
        found = errors.get(f"{heading}, {time['who']}", {})
        error = " ".join(f"{value:9.2g}" for value in found.values())
        spread = f"{time['p10']:9.2f} {time['p90']:9.2f}"
        yield f"{time['who']:{wide}} {time['us']:9.2f} {spread} {rate:7.0f} {rate / copy:8.1%} {error} {work}".rstrip()


def _kernels(report: dict[str, Any]) -> Iterator[str]:
    """Of some sizes: what a call's time is made of."""
    found = findings(report, "kernels")
    for entry in found:
        yield f"\n{entry['what']}, {entry['who']}, kernels of one call, one after the other:"
        yield from (f"{k['us']:9.2f} us {k['launches']:5.2g} x {k['name']}" for k in entry["kernels"][:10])


def _counters(report: dict[str, Any]) -> Iterator[str]:
    """Of a launch of each kernel: what bound it, and the blocks that a multiprocessor has room for."""
    found = findings(report, "counters")
    if found:
        yield "\ncounters of one launch (Nsight Compute): warps and blocks are a multiprocessor's"
    for f in found:
        shares = ", ".join(f"{what} {f.get(what, '?')}" for what in ("dram", "l2", "l1", "compute"))
        limits = (f"{f.get(f'blocks_by_{what}', '?')} by {what}" for what in ("registers", "shared"))
        blocks = f"blocks {', '.join(limits)} memory of {f.get('shared', '?')}, warps {f.get('warps', '?')}"
        yield f"{f.get('duration', '?'):>14}, {shares}, {blocks}: {f['kernel']} {f['grid']}"


def _legend(report: dict[str, Any]) -> Iterator[str]:
    found = findings(report, "legend")
    if found:
        yield "\nwhat a row includes"
        yield from dict.fromkeys(f"{entry['who']:12} {entry['text']}" for entry in found)


def _ends(report: dict[str, Any]) -> Iterator[str]:
    for title, lines in (("wrong", report["wrong"]), ("not proven", report["unproven"])):
        if lines:
            yield f"\n{title}:"
            yield from (f"  {line.splitlines()[0][:300]}" for line in lines)
    left_out = [f"  {f['what']}: {f['why']}" for f in findings(report, "skipped")]
    left_out += [f"  {f['what']}: {f['why']}" for f in findings(report, "note") if "why" in f]
    left_out += [
        f"  {s['name']}: {s['words'][:300]}" for s in report["stages"] if s["outcome"] in {"skipped", "late", "died"}
    ]
    wrong_peers = [f for f in findings(report, "check") if f.get("peer") and f["wrong"]]
    left_out += [f"  {f['what']}: not timed, {f['wrong'][:200]}" for f in wrong_peers]
    if left_out:
        yield "\nleft out:"
        yield from left_out
    yield f"\n{'all correct' if report['passed'] else 'NOT proven correct'}"


def markdown(report: dict[str, Any], ops: str | None = None) -> str:
    """The table of a README: a row a size, ours and the best peer. `ops`: by comma, of these alone."""
    copy = copy_bandwidth(report)
    rows = [
        f"{report['machine']}; a copy moves {copy:.0f} GB/s. A layer of the 12B model, random data, medians of graphs.",
        "",
        "| | ours | µs | of copy | y error | best peer | µs | y error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors = {check["what"]: check["errors"] for check in findings(report, "check")}
    sizes: dict[str, Times] = {}
    for time in findings(report, "time"):
        if ops is not None and time["op"] not in ops.split(","):
            continue
        sizes.setdefault(time["what"], []).append(time)
    for what, times in sizes.items():
        cells = [what]
        for ours in (True, False):
            found = [time for time in times if time["who"].startswith(_OURS) == ours]
            cells += _cells(what, found, errors, copy if ours else None)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _cells(what: str, times: Times, errors: dict[str, Any], copy: float | None) -> list[str]:
    if not times:
        return ["not run"] + [""] * (2 if copy is None else 3)
    best = min(times, key=lambda time: time["us"])
    share = [] if copy is None else [f"{best['bytes'] / best['us'] / 1e3 / copy:.0%}"]
    error = errors.get(f"{what}, {best['who']}", {}).get("y", float("nan"))
    return [f"`{best['who'].removeprefix(_OURS)}`", f"{best['us']:.1f}", *share, f"{error:.1e}"]


def replace(page: str, table: str) -> str:
    """The page with its table replaced; raises ValueError where the marks are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected a line {BEGIN} and a line {END}, found none")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def plot(report: dict[str, Any], path: Path) -> bool:
    """Bars of time over the floor by size; False where matplotlib is missing or nothing was timed."""
    times = findings(report, "time")
    try:
        import matplotlib  # noqa: PLC0415 (not everybody has it)
    except ImportError:
        return False
    if not times:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    copy = copy_bandwidth(report)
    operations = list(dict.fromkeys(time["op"] for time in times))
    figure, axes = pyplot.subplots(len(operations), 1, figsize=(11, 4.5 * len(operations)), squeeze=False)
    for axis, op in zip(axes[:, 0], operations, strict=True):
        own = [time for time in times if time["op"] == op]
        sizes, who = (list(dict.fromkeys(time[key] for time in own)) for key in ("what", "who"))
        for number, name in enumerate(who):
            at = {time["what"]: time["us"] / (time["bytes"] / copy / 1e3) for time in own if time["who"] == name}
            places = [sizes.index(size) + 0.85 * number / len(who) for size in at]
            axis.bar(places, list(at.values()), 0.8 / len(who), label=name)
        axis.set_xticks([i + 0.4 for i in range(len(sizes))], [s.removeprefix(f"{op} ") for s in sizes])
        axis.set_ylabel("time over that of moving the least bytes")
        axis.set_yscale("log")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(f"{op}, {report['machine']}")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    return True


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--into", type=Path, metavar="README")
    parser.add_argument("--ops", metavar="NAMES", help="by comma, of these alone: decode,prefill")
    options = parser.parse_args()
    report = json.loads(options.report.read_text())
    if options.into is None:
        print(text(report), end="")
        return 0
    options.into.write_text(replace(options.into.read_text("utf-8"), markdown(report, options.ops)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
