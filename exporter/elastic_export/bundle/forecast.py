"""What a run will take of this machine (memory, disk, minutes), and the refusal of one that cannot end here.

Stage by stage as `compile.py` goes: the rooms say what their part costs, the machine how fast it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from elastic_export.bundle.forecast_carried import Carried
from elastic_export.engine.cost import engine_cost
from elastic_export.engine.side_by_side import builds_on
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.plan.activation import size_bound
from elastic_export.plan.eight_bits import largest_matrix, parent_bytes
from elastic_export.plan.fit_table import duration, size_text
from elastic_export.plan.job import ExportJob
from elastic_export.plan.machine import Machine, Space, existing_folder
from elastic_export.plan.work import Cost, Work
from elastic_export.verify.cost import verification_cost
from elastic_export.verify.plan import Plan, make_plan
from elastic_runtime.errors import BuildError

#: Our process with torch, onnx and onnxruntime in it, before it has a graph, and the graphs by layer: 0.33 GB with the
#: two layers of a small model, 0.39 GB with the 12B's 62 and its three budgets.
_PROCESS: Final = 330 << 20
_GRAPH: Final = 256 << 10
#: Rounds of `Work.steps` (20 million a second where these were measured): imports and the parts of a trace that no
#: layer causes; a layer of the parent; a layer of a sub-model through its passes and into its file.
_START_STEPS: Final = 60e6
_TRACED_STEPS: Final = 3e6
_PASSED_STEPS: Final = 0.5e6
#: Digests are computed beside the compile, on as many processors as there are but not more than this.
_DIGESTS: Final = 4
#: Of a byte of the parent in bf16, those that are read and written, in float32 mostly, to round it to eight bits and to
#: count what that takes; of a byte of the result, those that lay it out; what it takes of memory besides the largest
#: matrix.
_ROUNDED: Final = 18.0
_TRANSPOSED: Final = 4.0
#: Processors that are busy while a parent is rounded: on two threads (rows_int8.py), with reading, digesting and
#: writing beside them. The work of one came to twice what the 12B took of two (62 s for 32 s).
_ROUNDING: Final = 2
_QUANTISING: Final = 96 << 20
#: What reports, recipes and ONNX files of a budget take of the disk, for each of its layers.
_FILES: Final = 64 << 10


_NOTHING: Final = Carried()


@dataclass(frozen=True)
class Stage:
    """A step of the run, under the name that progress gives it."""

    name: str
    memory: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run takes.

    Attributes:
        stages: one after the other.
        beside: seconds of the digests, which are computed meanwhile.
        disk: bytes that the bundle adds to its file system.
        machine: on which.
        carried: what the bundle at the output spares it.
    """

    stages: tuple[Stage, ...]
    beside: float
    disk: int
    machine: Machine
    carried: Carried = _NOTHING

    @property
    def memory(self) -> int:
        """Anonymous memory of all processes at the moment of most; mapped weights do not count, they are given back."""
        return max(stage.memory for stage in self.stages)

    @property
    def largest(self) -> Stage:
        """The stage of that moment."""
        return max(self.stages, key=lambda stage: stage.memory)

    @property
    def seconds(self) -> float:
        """From the first step to the bundle."""
        return max(sum(stage.seconds for stage in self.stages), self.beside)

    def text(self) -> str:
        """Memory, disk and time in a line, beside what there is."""
        memory, disk = self.machine.memory, self.machine.disk
        free = ["" if space is None else f" of {size_text(space.free)} free" for space in (memory, disk)]
        longest = max(self.stages, key=lambda stage: stage.seconds)
        of_it = f", {duration(longest.seconds)} of it {longest.name}" if len(self.stages) > 1 else ""
        return (
            f"this run takes about {duration(self.seconds)} here{of_it}; "
            f"{size_text(self.memory)} of memory{free[0]}; {size_text(self.disk)} of disk{free[1]}"
        )

    def document(self) -> dict[str, Any]:
        """The same for programs: bytes and seconds."""
        memory, disk = self.machine.memory, self.machine.disk
        return {
            "seconds": round(self.seconds, 1),
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "stages": [{"name": s.name, "seconds": round(s.seconds, 1), "memory_bytes": s.memory} for s in self.stages],
            "machine": {
                "processors": self.machine.processors,
                "free_memory_bytes": None if memory is None else memory.free,
                "free_disk_bytes": None if disk is None else disk.free,
            },
        }


def forecast(job: ExportJob, machine: Machine, carried: Carried = _NOTHING) -> Forecast:
    """What a job takes on a machine, where so much need not be made again."""
    parent, options, made = job.parent, job.options, carried.made(job)
    models = [budget.architecture(parent) for budget in made]
    layers = (len(parent.pattern) if made else 0) + sum(len(model.pattern) for model in models)
    process, costs = _PROCESS + layers * _GRAPH, dict[str, Cost]()
    builds = [
        engine_cost(len(budget.architecture(parent).pattern), engine.ops, len(engine.capabilities), inside)
        for budget in job.budgets
        for inside in [_embedded(job, budget)]
        for engine in carried.built(job, budget)
    ]
    if carried.unread:
        costs["compare"] = Cost(0, Work(read=carried.unread, digested=carried.unread))
    if made:
        costs["trace"] = Cost(0, Work(steps=_START_STEPS + _TRACED_STEPS * len(parent.pattern)))
    elif builds:
        costs["start"] = Cost(0, Work(steps=_START_STEPS))
    costs["weights"] = Cost(0, _copied(job)) if job.eight_bits is None else _quantised(job, job.eight_bits, carried)
    if made:
        costs["passes and files"] = Cost(_cut(job), _written(job, made, models))
    if made and options.verify:
        costs["verify"] = _verification(job, made, machine)
    free = None if machine.memory is None else machine.memory.free
    sides = options.jobs or builds_on(machine.processors, free, weights_inside=options.weights == "embedded")
    if builds:  # each in a process of its own, so many side by side
        most = sum(sorted(build.memory for build in builds)[-sides:])
        costs["engines"] = Cost(most, sum((build.work for build in builds), Work()))
    seconds = {name: machine.rates.seconds(cost.work) for name, cost in costs.items()}
    if builds:
        seconds["engines"] /= min(sides, machine.processors, len(builds))
    if job.eight_bits is not None:
        seconds["weights"] /= min(_ROUNDING, machine.processors)
    if carried.unread:
        seconds["compare"] /= min(_DIGESTS, machine.processors)
    stages = [Stage(name, process + cost.memory, seconds[name]) for name, cost in costs.items()]
    digests = machine.rates.seconds(_digested(job, carried)) / min(_DIGESTS, machine.processors)
    return Forecast(tuple(stages), digests, disk_needed(job, carried), machine, carried)


def disk_needed(job: ExportJob, carried: Carried = _NOTHING) -> int:
    """Bytes that a bundle adds to its file system; the one that it replaces stays until the new one is whole, and what
    is carried over from it is linked.

    Weights are those of the job's mode; shards that can be linked take none, a quantised parent all its bytes. Of
    engines the bound stands that a build is held to.
    """
    options, plan, total, made = job.options, _plan(job), _copied_bytes(job), carried.made(job)
    if job.eight_bits is not None and not carried.quantised:
        total += parent_bytes(job.checkpoint, job.precision, job.eight_bits)
    for budget in job.budgets:
        model, weights = budget.architecture(job.parent), job.size_of(budget).weight_bytes
        engines = sum(
            size_bound(model, len(engine.capabilities), options.max_batch)
            + _embedded(job, budget)
            + (engine.library.entry.size if engine.library is not None else 0)
            for engine in carried.built(job, budget)
        )
        total += engines
        if budget not in made:
            continue
        golden = 4 * plan.ids.shape[0] * len(plan.steps) * model.vocab_size if options.verify else 0
        own = 0 if options.weights == "shared" else weights
        total += own + golden + _FILES * len(model.pattern)
    return total


def check_machine(found: Forecast, job: ExportJob) -> None:
    """Refuse a run that cannot end here, before anything is built.

    Raises:
        BuildError: memory or disk is too short, with the figures and what would do, unless `--allow-short`.
    """
    if job.options.allow_short:
        return
    memory, disk = found.machine.memory, found.machine.disk
    if memory is not None and found.memory > memory.free:
        expected = f"about {size_text(found.memory)} free for {found.largest.name}"
        raise _short("memory", expected, memory, _less_memory(found, job))
    if disk is not None and found.disk > disk.free:
        raise _short("disk", f"{size_text(found.disk)} free for the bundle", disk, _less_disk(found, job))


def _short(what: str, expected: str, space: Space, ways: Sequence[str]) -> BuildError:
    todo = f"{', '.join(ways)}; the figures are estimates, and --allow-short begins all the same"
    return BuildError(what, expected=expected, found=f"{size_text(space.free)} on {space.where}", todo=todo)


def _less_memory(found: Forecast, job: ExportJob) -> list[str]:
    """Ways out, those that help alone."""
    ways, free = [], found.machine.memory.free if found.machine.memory else 0
    verifies = any(stage.name == "verify" for stage in found.stages)
    others = max(stage.memory for stage in found.stages if stage.name != "verify")
    if verifies and others <= free:
        ways.append(f"leave verification out (--no-verify, {size_text(others)})")
    if verifies and len(found.carried.made(job)) > 1:
        ways.append("ask for one budget at a time, the others with --add")
    if job.options.weights == "embedded":
        ways.append("use --weights sliced")
    if found.largest.name == "engines" and job.options.jobs not in (None, 1):
        ways.append("use --jobs 1")
    return [*ways, "close other programs or use a larger machine"]


def _less_disk(found: Forecast, job: ExportJob) -> list[str]:
    ways = ["free some space", "name an --output on another disk"]
    if job.eight_bits is not None and not found.carried.quantised:
        ways.append("leave out --quantize, whose file takes the most of it")
    if _copied_bytes(job):
        ways.append("name one on the checkpoint's own file system, where shards are linked, or use --external-weights")
    if job.options.weights != "shared" and found.carried.made(job):
        ways.append("use --weights shared" if job.precision == job.checkpoint.dtype else "ask for fewer budgets")
    return ways


def _plan(job: ExportJob) -> Plan:
    options = job.options
    return make_plan(vocab=job.parent.vocab_size, max_tokens=options.max_tokens, max_context=min(options.max_contexts))


def _verification(job: ExportJob, budgets: Sequence[Budget], machine: Machine) -> Cost:
    narrow = job.precision != "fp32"
    sides, every = min(2, machine.processors), job.every_token
    return verification_cost(job.parent, budgets, _plan(job), narrow=narrow, every_token=every, sides=sides)


def _shards(job: ExportJob) -> int:
    return sum(shard.stat().st_size for shard in job.checkpoint.shards)


def _copied_bytes(job: ExportJob) -> int:
    """Of the shards that neither a link nor an older bundle saves from being copied."""
    options = job.options
    if options.weights != "shared" or options.external_weights or job.eight_bits is not None:
        return 0
    device, total = existing_folder(options.output).stat().st_dev, 0
    for shard in job.checkpoint.shards:
        found, old = shard.stat(), options.output / "weights" / shard.name
        if found.st_dev != device and not (old.is_file() and old.stat().st_size == found.st_size):
            total += found.st_size
    return total


def _copied(job: ExportJob) -> Work:
    size = _copied_bytes(job)
    return Work(read=size, written=size)


def _quantised(job: ExportJob, eight_bits: EightBits, carried: Carried) -> Cost:
    """The parent once through: read, widened to float32 and rounded, transposed, digested and written; where it is
    carried over read and rounded, to count what that takes from the budgets that are made.
    """
    read = sum(tensor.nbytes for tensor in job.checkpoint.tensors.values())
    if carried.quantised:
        counted = Work(read=read, moved=_ROUNDED * read)
        return Cost(largest_matrix(eight_bits) + _QUANTISING, counted) if carried.made(job) else Cost(0, Work())
    written = parent_bytes(job.checkpoint, job.precision, eight_bits)
    moved = _ROUNDED * read + _TRANSPOSED * written
    work = Work(read=read, moved=moved, digested=written, written=written)
    return Cost(largest_matrix(eight_bits) + _QUANTISING, work)


def _embedded(job: ExportJob, budget: Budget) -> int:
    return job.size_of(budget).weight_bytes if job.options.weights == "embedded" else 0


def _cut(job: ExportJob) -> int:
    """Memory of weights on their way into a file: a few pieces (sliced), or a tensor and what it becomes."""
    largest = max(tensor.nbytes for tensor in job.checkpoint.tensors.values())
    copies = 4 if job.checkpoint.formats else 2  # a dequantised one is there in float32, too
    return {"shared": 0, "sliced": 64 << 20, "embedded": copies * largest}[job.options.weights]


def _written(job: ExportJob, budgets: Sequence[Budget], models: Sequence[Architecture]) -> Work:
    work = Work(steps=_PASSED_STEPS * sum(len(model.pattern) for model in models))
    if job.options.weights != "shared":
        size = sum(job.size_of(budget).weight_bytes for budget in budgets)
        work += Work(read=size, moved=2.0 * size, written=size)
    return work


def _digested(job: ExportJob, carried: Carried) -> Work:
    """What is read again only to be digested; sliced weights are digested as they are written."""
    made = carried.made(job)
    embedded = sum(_embedded(job, b) * ((b in made) + len(carried.built(job, b))) for b in job.budgets)
    compared = carried.budgets or carried.quantised  # with them, before all else
    shards = _shards(job) if job.options.weights == "shared" and not compared else 0
    return Work(digested=shards + embedded, read=shards)
