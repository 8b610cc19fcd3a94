"""How many of the errors that a user can cause say what to do, by folder: `python tests/errors_share.py` prints it.

Read from the sources, nothing is run. What counts is every place that makes an error of a class derived from
`ElasticError`, but for `InternalError`: a fault of ours asks to be reported, whatever it is about. It says what to do
where `todo` cannot be empty: a text, a name that only texts are bound to, a choice between texts. Where a function puts
its own argument there, its callers are counted in its place.

A reader of a format cannot know what its file is for (`ERRORS_OF_READERS`), so it says nothing of what to do; its
callers do, in `with advised(...)`, and each call is counted as an error. A call whose InputError is caught at once is
none. What comes of an edit of a real file is for tests/runtime/test_advice.py to say.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (ROOT / "exporter" / "elastic_export", ROOT / "engines" / "elastic_runtime")
BASE, OURS = "ElasticError", "InternalError"
#: Modules of elastic_runtime that read a format for whoever asks, and their functions whose errors the caller
#: completes; the C++ reader gives the same errors word for word.
ERRORS_OF_READERS = {
    "jsonfile": {"read_json", "parse_json", "_read_bytes"},
    "records": {"decode", "_decode", "_check_names", "_mismatch"},
    "paths": {"check_relative", "check_file_name", "check_name"},
    "sizes": {"parse_size"},
    "safetensors": {
        "read_header", "__init__", "_header_bytes", "_entry", "_counts", "_offsets", "_check_contiguous",
    },
    "weights": {"from_json", "to_json", "__post_init__", "_input", "_only_inputs", "check_slice", "_check_runs"},
    "manifest_reader": {
        "parse_manifest", "_checked", "_check_files", "_check_budget", "_check_engine", "_check_unique",
    },
}  # fmt: skip
#: What others call of them.
READERS = {"TensorFile": "safetensors"} | {
    name: module for module, names in ERRORS_OF_READERS.items() for name in names if not name.startswith("_")
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Values = dict[str, list[ast.expr]]


@dataclass(frozen=True)
class Place:
    """Where an error is made; `says` is whether its text ends with what to do."""

    folder: str
    where: str
    says: bool


@dataclass
class Share:
    """Of a folder: errors that a user can cause, those of them that say what to do, and faults of ours."""

    errors: int = 0
    advised: int = 0
    faults: int = 0

    @property
    def part(self) -> float:
        """From 0 to 1; a folder without errors lacks none."""
        return self.advised / self.errors if self.errors else 1.0


class Module:
    """A source file, with what surrounds each of its nodes."""

    def __init__(self, folder: str, name: str, source: str) -> None:
        self.folder, self.name, self.tree = folder, name, ast.parse(source)
        self.package = folder.split("/", maxsplit=1)[0]
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        self.classes = [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]
        self.imports = {
            alias.asname or alias.name: (node.module or "").rpartition(".")[2]
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def around(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """(node, what holds it), from the inside out."""
        while (parent := self.parents.get(node)) is not None:
            yield node, parent
            node = parent

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function around a node."""
        return next((parent for _, parent in self.around(node) if isinstance(parent, Function)), None)

    def advised(self, node: ast.AST) -> bool:
        """Whether it stands in a `with advised(...)`."""
        blocks = [parent for _, parent in self.around(node) if isinstance(parent, ast.With)]
        return any(_name(item.context_expr) == "advised" for block in blocks for item in block.items)

    def caught(self, node: ast.AST) -> bool:
        """Whether it stands in a try that catches its InputError."""
        tries = [(parent, child) for child, parent in self.around(node) if isinstance(parent, ast.Try)]
        return any(
            child in block.body and any(ast.unparse(h.type or h) in (BASE, "InputError") for h in block.handlers)
            for block, child in tries
        )


class Sources:
    """All modules together: classes of errors, and what names stand for."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = list(modules)
        self.constants: Values = defaultdict(list)
        for module in self.modules:
            for name, value in _bound(module.tree.body):
                self.constants[name].append(value)
        classes = {each.name: each for module in self.modules for each in module.classes}
        self.faults = self._derived(classes, {OURS})
        self.errors = self._derived(classes, {BASE}) - self.faults
        self.own_todo = {name for name in self.errors & set(classes) if _passes_a_todo(classes[name])} - {BASE}

    def places(self) -> Iterator[Place]:
        """Every error that a user can cause."""
        for module in self.modules:
            for call in module.calls:
                if _name(call) in self.errors and not self._of_a_reader(module, call):
                    yield from self._made(module, call)
                elif self._asks_a_reader(module, call) and not module.caught(call):
                    yield _place(module, call, module.advised(call))

    def shares(self) -> dict[str, Share]:
        """Of every folder, in order of the names."""
        shares: dict[str, Share] = defaultdict(Share)
        for module in self.modules:
            shares[module.folder].faults += sum(_name(call) in self.faults for call in module.calls)
        for place in self.places():
            shares[place.folder].errors += 1
            shares[place.folder].advised += place.says
        return dict(sorted(shares.items()))

    def _derived(self, classes: dict[str, ast.ClassDef], found: set[str]) -> set[str]:
        while more := {name for name, c in classes.items() if {ast.unparse(b) for b in c.bases} & found} - found:
            found = found | more
        return found

    def _of_a_reader(self, module: Module, node: ast.AST) -> bool:
        function = module.function(node)
        return function is not None and function.name in ERRORS_OF_READERS.get(module.name, ())

    def _asks_a_reader(self, module: Module, call: ast.Call) -> bool:
        name = ast.unparse(call.func)
        if name == "cls.from_json" and module.name == "weights":
            return True
        known = isinstance(call.func, ast.Name) and READERS.get(name)
        here = known == module.imports.get(name) or (known == module.name and name not in module.imports)
        return bool(known and here) and not self._of_a_reader(module, call)

    def _made(self, module: Module, call: ast.Call) -> Iterator[Place]:
        """The place itself, or those that call the function whose argument its todo is."""
        todo = next((keyword.value for keyword in call.keywords if keyword.arg == "todo"), None)
        yield from self._told(module, call, todo, _name(call) in self.own_todo or module.advised(call), set())

    def _told(
        self, module: Module, call: ast.Call, todo: ast.expr | None, otherwise: bool, seen: set[str]
    ) -> Iterator[Place]:
        function = module.function(call)
        argument = todo.id if isinstance(todo, ast.Name) else ""
        if function is None or argument not in _arguments(function) or function.name in seen:
            yield _place(module, call, otherwise or self._is_text(module, function, todo))
            return
        for other in (each for each in self.modules if each.package == module.package):
            for caller in (each for each in other.calls if _name(each) == function.name):
                given = _given(function, caller, argument)
                yield from self._told(other, caller, given, other.advised(caller), {*seen, function.name})

    def _is_text(self, module: Module, function: Function | None, value: ast.expr | None) -> bool:
        """Whether it cannot be empty. A call makes a text, and what was another error's todo is handed on."""
        if isinstance(value, ast.Constant):
            return bool(value.value)
        if isinstance(value, ast.IfExp):
            return all(self._is_text(module, function, branch) for branch in (value.body, value.orelse))
        if isinstance(value, ast.Name):
            local = [found for name, found in _bound(ast.walk(function)) if name == value.id] if function else []
            return bool(found := local or self.constants[value.id]) and all(
                self._is_text(module, function, each) for each in found
            )
        return isinstance(value, ast.JoinedStr | ast.BinOp | ast.Call | ast.Attribute | ast.Subscript)


def read_sources(packages: Iterable[Path] = PACKAGES) -> Sources:
    """The sources of packages; a folder is one right below a package, or the package where a file lies in it."""
    modules = []
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).parts
            folder = "/".join([package.name, *parts[:1]][: len(parts)])
            modules.append(Module(folder, path.stem, path.read_text(encoding="utf-8")))
    return Sources(modules)


def table(shares: dict[str, Share]) -> str:
    """One line a folder."""
    lines = [f"{'folder':<26} {'errors':>6} {'say what to do':>15} {'share':>6} {'faults of ours':>15}"]
    lines += [f"{n:<26} {s.errors:>6} {s.advised:>15} {s.part:>6.0%} {s.faults:>15}" for n, s in shares.items()]
    return "\n".join(lines)


def _name(node: ast.AST) -> str:
    """What a call calls, without what stands before the last dot; empty for anything else."""
    called = node.func if isinstance(node, ast.Call) else None
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""


def _place(module: Module, node: ast.expr, says: bool) -> Place:
    return Place(module.folder, f"{module.folder}/{module.name}.py:{node.lineno}", says)


def _bound(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of plain assignments, those of tuples one by one."""
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def _arguments(function: Function) -> list[str]:
    return [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _given(function: Function, call: ast.Call, argument: str) -> ast.expr | None:
    """What a call gives for an argument: by name, by place (behind self for a method), or by default."""
    for keyword in call.keywords:
        if keyword.arg == argument:
            return keyword.value
    names = [name for name in _arguments(function) if name not in ("self", "cls")]
    if names.index(argument) < len(call.args):
        return call.args[names.index(argument)]
    placed = [*function.args.posonlyargs, *function.args.args]
    defaults = dict(zip([each.arg for each in placed][::-1], function.args.defaults[::-1], strict=False))
    by_name = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    defaults |= {each.arg: value for each, value in by_name if value is not None}
    return defaults.get(argument)


def _passes_a_todo(error: ast.ClassDef) -> bool:
    """Whether a class says what to do for whoever makes one."""
    made = [node for node in ast.walk(error) if isinstance(node, ast.Call) and _name(node) == "__init__"]
    return any(keyword.arg == "todo" for call in made for keyword in call.keywords)


if __name__ == "__main__":
    sources = read_sources()
    print(table(sources.shares()))
    for silent in (place for place in sources.places() if not place.says):
        print(f"says nothing of what to do: {silent.where}")
