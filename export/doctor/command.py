"""Finds what is wrong with a model repository before Triton loads it, and the command that fixes
it.

    convoy doctor lenet5 --triton localhost:8001

It only reads files, so it needs no GPU, no TensorRT and no server, and nothing beyond what serving
installs. checks.py has the checks of a version, folder.py reads the version, root.py checks what
else is in the repository, and triton.py asks a running Triton.

`--json` prints one document, whose fields stay:

    repository   its path
    healthy      whether nothing is wrong: exit code 0, else 1
    versions     the names of the folders that were examined: ["lenet5.v1"]
    findings     each with version (empty: the repository or Triton), check, problem (what was
                 expected and what was found), remedy (a command), is_fault (false: for
                 information, nothing is wrong)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from convoy.tables import plain_console
from convoy.terminal import printable
from export import cli_options

if TYPE_CHECKING:
    from rich.console import Console

    from export.doctor.folder import Finding, Repository, VersionFolder


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Only these models (lenet5) or versions (lenet5.v2).",
        show_default="all, and everything else in the repository",
    ),
]
Triton = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="A running Triton (gRPC) to compare with: whether it has these versions and can "
        "load their plans.",
    ),
]


def doctor(
    names: Names = None,
    path: cli_options.Repository = None,
    triton: Triton = None,
    as_json: cli_options.Json = False,
) -> None:
    """Examine a model repository: what is wrong, and the one command that fixes it.

    The doctor needs no server, no GPU and no TensorRT, and changes nothing. It compares each
    version with the facts that its build wrote: config.pbtxt, the model's inputs and outputs,
    hashes, labels, golden images. Exit code 0: nothing is wrong; 1: something is; 2: wrong usage.

    Examples:

        convoy doctor

        convoy doctor resnet152 lenet5.v2 --repository /srv/models

        convoy doctor --triton localhost:8001

        convoy doctor --json | jq -r '.findings[] | select(.is_fault) | .remedy'
    """
    from export.doctor.checks import describe_build, examine
    from export.doctor.folder import Repository
    from export.doctor.root import examine_root
    from export.repository.layout import default_repository

    examined = Repository(path or default_repository(), is_default=path is None)
    if not examined.path.is_dir():
        raise typer.BadParameter(f"{examined.path} is not a folder.", param_hint="--repository")
    if triton is not None and not re.fullmatch(r"[^/\s]+:\d+", triton):
        raise typer.BadParameter(f"{triton!r} is not HOST:PORT.", param_hint="--triton")
    findings = [] if names else list(examine_root(examined))
    versions = _choose(examined, names or [])
    for version in versions:
        findings += examine(version)
        if findings and findings[-1].version == version.name:
            findings += describe_build(version)
    if triton is not None:
        from export.doctor.triton import examine_triton

        findings += examine_triton(triton, examined, versions)
    if as_json:
        # In ASCII, since names of files need not be UTF-8.
        print(json.dumps(as_dict(examined, versions, findings), indent=2))
    else:
        show(versions, findings)
    raise typer.Exit(int(any(finding.is_fault for finding in findings)))


def _choose(repository: Repository, names: Sequence[str]) -> list[VersionFolder]:
    try:
        versions = repository.versions()
    except OSError:  # a finding of examine_root
        return []
    for name in names:
        if not any(name in (version.model, version.name) for version in versions):
            available = ", ".join(version.name for version in versions) or "nothing"
            raise typer.BadParameter(f"{repository.path} has no {name}; it has {available}.")
    return [
        version for version in versions if not names or {version.model, version.name} & set(names)
    ]


def as_dict(
    repository: Repository, versions: Sequence[VersionFolder], findings: Sequence[Finding]
) -> dict[str, object]:
    return {
        "repository": str(repository.path),
        "healthy": not any(finding.is_fault for finding in findings),
        "versions": [version.name for version in versions],
        "findings": [asdict(finding) for finding in findings],
    }


def show(versions: Sequence[VersionFolder], findings: Sequence[Finding]) -> None:
    """Prints a line per version, below it what is wrong; only the summary if nothing is."""
    console = plain_console(soft_wrap=True)
    by_version: dict[str, list[Finding]] = {name: [] for name in ["", *(v.name for v in versions)]}
    for finding in findings:
        by_version[finding.version].append(finding)
    for name, of_version in by_version.items() if findings else ():
        if name or of_version:
            _show_version(console, name, of_version)
    console.print(_summary(versions, findings))


def _show_version(console: Console, name: str, findings: Sequence[Finding]) -> None:
    """Prints the findings, grouped by their remedy."""
    from rich.text import Text

    is_faulty = any(finding.is_fault for finding in findings)
    heading = f"{'✗' if is_faulty else '✓'} {name or 'in general'}"
    console.print(Text(heading, "red" if is_faulty else "green"))
    for remedy in dict.fromkeys(finding.remedy for finding in findings):
        for finding in findings:
            if finding.remedy == remedy:
                mark, style = ("✗", "red") if finding.is_fault else ("·", "yellow")
                console.print(Text(f"    {mark} {printable(finding.problem)}", style))
        console.print(Text(f"      → {printable(remedy)}", "bold"))


def _summary(versions: Sequence[VersionFolder], findings: Sequence[Finding]) -> str:
    faults = [finding for finding in findings if finding.is_fault]
    count = _count(len(versions), "version")
    if not faults:
        return f"{count}, nothing wrong"
    faulty = {finding.version for finding in faults if finding.version}
    return f"{count}, {len(faulty)} of them with faults; {_count(len(faults), 'fault')} in all"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
