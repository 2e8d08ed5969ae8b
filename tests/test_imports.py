"""Who may import whom, and how large a module, a function and its nesting may be.

Imports under TYPE_CHECKING and inside functions count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "server": ROOT / "server",
    "export": ROOT / "export",
    "convoy": ROOT / "clients" / "python" / "convoy",
}
# The packages and modules of each group, from the ground up. A line may import the lines above it;
# what is on one line may not import its neighbours.
SERVER = [
    ["cpus", "errors", "folder_names", "tasks"],
    ["settings"],
    ["settings_sources", "observability"],
    ["network"],
    ["preprocessing", "runners"],
    ["pipeline"],
    ["evidence"],
    ["versions"],
    ["core"],
    ["page"],
    ["http_api", "grpc_api"],
    ["open_inference", "admin"],
    ["startup"],
    ["gateway", "serve_options"],
    ["workers"],
    ["main"],
]
EXPORT = [
    ["errors", "progress", "architectures", "bootstrap"],
    ["files"],
    ["catalog", "build_cache"],
    ["preparation"],
    ["samples", "repository", "layers"],
    ["checkpoints", "conversion"],
    ["training", "evaluation"],
    ["cli_options", "option_groups"],
    ["options", "console"],
    ["proof", "doctor", "train"],
    ["study", "publication"],
    ["adoption"],
    ["build", "adopt", "describe", "compare", "verify", "evaluate", "rollback"],
]
CLIENT = [
    ["v1"],
    ["errors", "evidence", "preparation", "terminal"],
    ["process", "tables", "transports"],
    ["client"],
    ["overlay"],
    ["cli"],
]
LAYERS = {"server": SERVER, "export": EXPORT, "convoy": CLIENT}

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_NESTING = 4
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


@dataclass(frozen=True)
class Module:
    name: str  # such as server.http_api.app; a package is its __init__
    path: Path

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    @property
    def part(self) -> str:
        """The package or module of the group that it belongs to; empty for the group's own."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Module]:
    """By name. What is copied into Triton is no module of ours, and stubs are generated."""
    named = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[0] not in ("triton_backends", "v1"):
                name = ".".join([package, *parts]).removesuffix(".__init__")
                named[name] = Module(name, path)
    return named


def imports(module: Module) -> Iterator[str]:
    """The modules of ours, and packages of their stubs, that it imports by absolute names."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in members]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


# ---------------------------------------------------------------- direction


@pytest.mark.parametrize("group", LAYERS)
def test_every_part_is_in_the_table(group: str) -> None:
    listed = {part for layer in LAYERS[group] for part in layer}
    existing = {module.part for module in modules().values() if module.group == group}
    assert existing - {"", "v1"} <= listed, "add it to the table, where it belongs"


@pytest.mark.parametrize("group", LAYERS)
def test_imports_point_from_the_top_to_the_ground(group: str) -> None:
    height = {part: i for i, layer in enumerate(LAYERS[group]) for part in layer}
    upward = [
        f"{module.name} imports {name}"
        for module in modules().values()
        for name in imports(module)
        if module.group == group and module.part in height
        if is_upward(height, module.part, name, group)
    ]
    assert not upward, "\n".join([f"imports against the table {group.upper()}:", *sorted(upward)])


def is_upward(height: dict[str, int], importer: str, name: str, group: str) -> bool:
    package, _, rest = name.partition(".")
    part = rest.partition(".")[0]
    if package != group or part == importer:
        return False
    return height.get(part, len(height)) >= height[importer]


def test_there_is_no_circle() -> None:
    graph = {name: set(imports(module)) - {name} for name, module in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports:\n" + "\nimported by ".join(error.args[1]))


# ---------------------------------------------------------------- size


def sources() -> list[Path]:
    """Every program of ours but the tests and the generated stubs."""
    folders = ["server", "export", "clients", "protocol", "docs", "bench", "deploy"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [path for path in paths if path.parent != PACKAGES["convoy"] / "v1"]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTIONS):
            yield node


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def nesting(nodes: Sequence[ast.AST]) -> int:
    """How deep blocks lie in one another; an elif is as deep as its if, a function begins anew."""
    return max((depth(node) for node in nodes), default=0)


def depth(node: ast.AST) -> int:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return 0
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        return max(1 + nesting(node.body), depth(node.orelse[0]))
    return isinstance(node, BLOCKS) + nesting(list(ast.iter_child_nodes(node)))


def test_no_module_is_too_long() -> None:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    too_long = [
        f"{path.relative_to(ROOT)} has {count} lines, of at most {MAX_MODULE_LINES}"
        for path, count in sorted(counts.items())
        if count > MAX_MODULE_LINES
    ]
    assert not too_long, "\n" + "\n".join(too_long)


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}: {function.name} has {count_lines(function)} lines"
        for path in sources()
        for function in functions(path)
        if count_lines(function) > MAX_FUNCTION_LINES
    ]
    assert not too_long, "\n" + "\n".join(sorted(too_long))


def test_nothing_is_nested_too_deep() -> None:
    too_deep = [
        f"{path.relative_to(ROOT)}: {function.name}() is nested {nesting(function.body)} deep"
        for path in sources()
        for function in functions(path)
        if nesting(function.body) > MAX_NESTING
    ]
    assert not too_deep, "\n" + "\n".join(sorted(too_deep))
