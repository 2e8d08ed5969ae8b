"""What all parts have agreed to: imports, generated files, and documents that stay true."""

from __future__ import annotations

import ast
import re
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "export": ROOT / "export",
    "server": ROOT / "server",
    "convoy": ROOT / "clients" / "python" / "convoy",
}


def imports_of(folder: Path) -> dict[str, set[str]]:
    """Top-level names that each module imports, at its head or inside a function."""
    imports: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
        imports[str(path.relative_to(ROOT))] = names
    return imports


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("export", {"server"}),
        ("server", {"export", "torch", "onnx"}),
        ("convoy", {"export", "server", "torch", "onnxruntime", "tritonclient"}),
    ],
)
def test_imports_point_one_way(package: str, forbidden: set[str]) -> None:
    imports = imports_of(PACKAGES[package])
    assert len(imports) > 3
    assert {path: names & forbidden for path, names in imports.items() if names & forbidden} == {}


def test_no_module_shadows_a_dependency_or_the_standard_library() -> None:
    imported = set().union(
        *(n for folder in PACKAGES.values() for n in imports_of(folder).values())
    )
    taken = (imported | set(sys.stdlib_module_names)) - set(PACKAGES)
    for folder in (PACKAGES["export"], PACKAGES["server"]):
        for path in folder.iterdir():
            if path.stem in taken and not path.name.startswith("_"):
                # Inside a package an absolute import finds the dependency; a script's folder, first
                # on the path, would not: export/ has scripts.
                pytest.fail(f"{path.relative_to(ROOT)} has the name of a dependency")


def test_a_file_runs_on_one_worker(request: pytest.FixtureRequest) -> None:
    """Otherwise each worker starts the servers and builds the networks of the file again."""
    if request.config.getoption("loadgroup", False):  # set by xdist in its workers
        assert request.node.nodeid.endswith("@tests/test_house"), "xdist has lost the groups"


def test_the_contract_has_no_64_bit_integers() -> None:
    """JSON would write them as text."""
    contract = (ROOT / "protocol" / "convoy" / "v1" / "classifier.proto").read_text()
    assert not re.findall(r"^[^/\n]*\b(?:[us]?int|s?fixed)64\b", contract, re.MULTILINE)


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    lines = tree.strip("\n").splitlines()
    assert len(lines) <= 25
    listed, folder = set(), ""
    for line in lines:
        entries = list(takewhile(lambda word: word.endswith(("/", ".py")), line.split()))
        assert entries, line
        listed |= {(folder if line.startswith(" ") else "") + entry for entry in entries}
        folder = folder if line.startswith(" ") else entries[0]
    assert {entry for entry in listed if not (ROOT / entry).exists()} == set(), "stale"
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."}
    assert folders - ignored <= {entry.partition("/")[0] for entry in listed}
    for package in ("export", "server"):
        modules = (ROOT / package).glob("*/**/*.py")
        packages = {path.relative_to(ROOT).parts[1] for path in modules}
        assert {f"{package}/{name}/" for name in packages} <= listed


FOLDERS = "server|export|tests|docs|deploy|bench|protocol|clients|requirements|model_repository"
PUBLISHED = ("flowers.v", "flowers-timm.v", "old.v")  # by the walks of docs/moving-in.md
PATH = re.compile(rf"(?<![\w./{{-])(?:\.\./)*((?:{FOLDERS})/[\w./-]*[\w/])(?![\w*]|\.v[A-Z])")


def documents() -> list[Path]:
    """Pages, and what explains itself by comments."""
    patterns = ["*.md", "docs/*.md", ".github/**/*.md", "Makefile", ".env.example"]
    patterns += ["docker-compose*.yml", "deploy/**/*.yml", "deploy/*.Dockerfile"]
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def test_every_path_in_a_document_exists() -> None:
    stale = [
        f"{document.relative_to(ROOT)}: {path}"
        for document in documents()
        for path in PATH.findall(document.read_text(encoding="utf-8"))
        if "NAME" not in path
        and not path.startswith(tuple(f"model_repository/{name}" for name in PUBLISHED))
        and not (ROOT / path).exists()
    ]
    assert len(documents()) > 30 and stale == []


def test_every_link_of_a_page_leads_somewhere() -> None:
    stale = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in documents()
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if page.suffix == ".md" and not (page.parent / link).exists()
    ]
    assert stale == []


def test_each_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        for target in re.findall(r"\bmake ([a-z-]+)(?![\w=])", (ROOT / page).read_text()):
            assert target in targets, f"{page}: make {target}"
