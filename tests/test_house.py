"""What all parts have agreed to: imports, generated files, and documents that stay true."""

from __future__ import annotations

import ast
import re
import sys
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
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
        found[str(path.relative_to(ROOT))] = names
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("export", {"server"}),
        ("server", {"export", "torch", "onnx"}),
        ("convoy", {"export", "server", "torch", "onnxruntime", "tritonclient", "numpy"}),
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


def test_the_contract_has_no_64_bit_integers() -> None:
    """JSON would write them as text."""
    contract = (ROOT / "protocol" / "convoy" / "v1" / "classifier.proto").read_text()
    assert not re.findall(r"^\s*(?:optional |repeated )?[us]?int64|fixed64", contract, re.MULTILINE)


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    assert len(tree.strip().splitlines()) <= 25
    sections = re.split(r"^(?=\w)", tree, flags=re.MULTILINE)
    listed = {section.split()[0]: set(re.findall(r"\w+/", section)) for section in sections[1:]}
    for package in ("export/", "server/"):
        here = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/*.py")}
        here |= {"triton_backends/"} if package == "server/" else set()
        assert listed[package] - {package, "model_repository/"} >= here


def test_each_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        for target in re.findall(r"\bmake ([a-z-]+)(?![\w=])", (ROOT / page).read_text()):
            assert target in targets, f"{page}: make {target}"
