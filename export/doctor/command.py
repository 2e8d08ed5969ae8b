"""What is wrong with a model repository, before Triton sees it, and the command that mends it.

    convoy doctor lenet5 --triton localhost:8001

It reads files and nothing else, so it needs neither GPU nor TensorRT nor a server, and no more
than serving installs. doctor_checks.py lists what a version is checked for (and doctor_folder.py
reads it), doctor_root.py what may lie beside versions, doctor_triton.py asks a running Triton.

`--json` prints one document, whose fields stay:

    repository   its path
    healthy      whether nothing is wrong: exit code 0, else 1
    versions     the names of the folders that were examined: ["lenet5.v1"]
    findings     each with version (empty: of the repository, or of Triton), check, problem (what
                 was expected, and what was found), remedy (a command), is_fault (false: to be
                 known, and nothing is wrong)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from export import cli_options

if TYPE_CHECKING:
    from export.doctor.folder import Finding, Repository, Version


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Models (lenet5) or versions (lenet5.v2) to examine, without the rest.",
            show_default="all, and what lies beside them",
        ),
    ] = None,
    path: cli_options.Repository = None,
    triton: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A running Triton (gRPC) to compare with: whether it has these versions, and can "
            "load their plans.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Examine a model repository: what is wrong, and the one command that mends it.

    It needs no server, no GPU and no TensorRT, and changes nothing. Each version is checked against
    the facts that its build wrote: config.pbtxt, the model's inputs and outputs, hashes, labels,
    golden images. Exit code 0: nothing is wrong; 1: something is; 2: wrong usage.

    Examples:

        convoy doctor

        convoy doctor resnet152 lenet5.v2 --repository /srv/models

        convoy doctor --triton localhost:8001

        convoy doctor --json | jq -r '.findings[] | select(.is_fault) | .remedy'
    """
    from export.doctor.checks import examine
    from export.doctor.folder import Repository
    from export.doctor.root import examine_root
    from export.repository.layout import default_repository

    repository = Repository(path or default_repository(), is_default=path is None)
    if not repository.path.is_dir():
        raise typer.BadParameter(f"{repository.path} is no folder.", param_hint="--repository")
    if triton is not None and not re.fullmatch(r"[^/\s]+:\d+", triton):
        raise typer.BadParameter(f"{triton!r} is not HOST:PORT.", param_hint="--triton")
    findings = [] if names else list(examine_root(repository))
    versions = _chosen(repository, names or [])
    for version in versions:
        findings += examine(version)
    if triton is not None:
        from export.doctor.triton import examine_triton

        findings += examine_triton(triton, repository, versions)
    if as_json:
        # In ASCII, since names of files need not be UTF-8.
        print(json.dumps(as_dict(repository, versions, findings), indent=2))
    else:
        show(versions, findings)
    raise typer.Exit(int(any(finding.is_fault for finding in findings)))


def _chosen(repository: Repository, names: Sequence[str]) -> list[Version]:
    try:
        versions = repository.versions()
    except OSError:  # which is a finding
        return []
    for name in names:
        if not any(name in (version.model, version.name) for version in versions):
            there = ", ".join(version.name for version in versions) or "nothing"
            raise typer.BadParameter(f"{repository.path} has no {name}; it has {there}.")
    return [
        version for version in versions if not names or {version.model, version.name} & set(names)
    ]


def as_dict(
    repository: Repository, versions: Sequence[Version], findings: Sequence[Finding]
) -> dict[str, object]:
    return {
        "repository": str(repository.path),
        "healthy": not any(finding.is_fault for finding in findings),
        "versions": [version.name for version in versions],
        "findings": [asdict(finding) for finding in findings],
    }


def show(versions: Sequence[Version], findings: Sequence[Finding]) -> None:
    """A line a version, below it what is wrong; nothing but the last line where all is well."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    by_version: dict[str, list[Finding]] = {name: [] for name in ["", *(v.name for v in versions)]}
    for finding in findings:
        by_version[finding.version].append(finding)
    for name, found in by_version.items() if findings else ():
        if not name and not found:
            continue
        sick = any(finding.is_fault for finding in found)
        heading = f"{'✗' if sick else '✓'} {name or 'in general'}"
        console.print(Text(heading, "red" if sick else "green"))
        for remedy in dict.fromkeys(finding.remedy for finding in found):
            for finding in found:
                if finding.remedy == remedy:
                    mark, style = ("✗", "red") if finding.is_fault else ("·", "yellow")
                    console.print(Text(f"    {mark} {_plain(finding.problem)}", style))
            console.print(Text(f"      → {_plain(remedy)}", "bold"))
    console.print(_summary(versions, findings))


def _summary(versions: Sequence[Version], findings: Sequence[Finding]) -> str:
    faults = [finding for finding in findings if finding.is_fault]
    count = _count(len(versions), "version")
    if not faults:
        return f"{count}, nothing wrong"
    sick = {finding.version for finding in faults if finding.version}
    return f"{count}, {len(sick)} of them with faults; {_count(len(faults), 'fault')} in all"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _plain(text: str) -> str:
    """What stands in files must not steer the terminal."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "�" for each in text)
