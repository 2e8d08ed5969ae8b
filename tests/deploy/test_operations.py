"""docs/operations.md agrees with what it describes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.files import ROOT, read

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
KUBERNETES = ROOT / "deploy" / "kubernetes"


def section(title: str) -> str:
    """Returns the text from a heading to the next one of the same rank."""
    rank = title.split(maxsplit=1)[0]
    return re.split(rf"^{rank} ", OPERATIONS.partition(f"\n{title}\n")[2], flags=re.M)[0]


def test_each_alert_has_its_section_in_the_order_of_the_rules() -> None:
    (group,) = read(ROOT / "deploy" / "prometheus" / "alerts.yml")["groups"]
    sections = re.findall(r"^### (\w+)$", section("## Alerts"), re.M)
    assert sections == [rule["alert"] for rule in group["rules"]]
    for alert in sections:
        # Its meaning, then what to do.
        assert re.match(r"\n\*[^*]+\*", section(f"### {alert}")), alert
        assert "\n- " in section(f"### {alert}"), alert


def test_overlays_and_components_are_those_that_are_there() -> None:
    tables = re.findall(r"^\| `([\w-]+)` \|", section("## Kubernetes"), re.M)
    folders = [*(KUBERNETES / "overlays").iterdir(), *(KUBERNETES / "components").iterdir()]
    assert sorted(tables) == sorted({path.name for path in folders} - {"doctor"})


def test_files_that_are_named_are_there() -> None:
    named = re.findall(r"\b(?:deploy|export|tests)/[\w./-]+\b", OPERATIONS)
    linked = re.findall(r"\]\(([\w./-]+)\)", OPERATIONS)
    assert named and linked
    for path in [*(ROOT / name for name in named), *(ROOT / "docs" / name for name in linked)]:
        assert path.exists(), path


def test_the_sizes_follow_from_what_was_measured() -> None:
    """Rows of performance.md: gateways, in flight, answers/s, p50, p99, batch, cores."""
    rows = re.findall(r"^\| (\d) \| (\d+) \| ([\d,]+) \| .+ \| ([\d.]+) \|$", PERFORMANCE, re.M)
    measured = {(int(row[0]), int(row[1])): (number(row[2]), float(row[3])) for row in rows}
    sizing = section("## Sizing")
    table = re.findall(r"^\|.*?([\d,]+)/s \| ([\d.]+) \| (\d+) \|$", sizing, re.M)
    runs = [(1, 32), (4, 32), (8, 96)]
    assert len(table) == len(runs)
    for (answers, cores, for_each), run in zip(table, runs, strict=True):
        rate, used = measured[run]
        assert number(answers) == round(rate / run[0])
        assert float(cores) == used / run[0]
        assert int(for_each) == round(rate / used)
    for network, rate, gateways in re.findall(
        r"^\| ([\w-]+) \| ([\d,]+) \| ([\d.]+) \|$", sizing, re.M
    ):
        of_network = PERFORMANCE.partition(f"| {network} | fp32 |")[2]
        fp16 = re.search(r"\| \| fp16 \|(.+)", of_network)
        assert fp16 and fp16[1].split("|")[2].strip() == rate
        assert abs(float(gateways) - number(rate) / 352) < 0.5


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_a_version_comes_back_from_the_backup(repository: Path, tmp_path: Path) -> None:
    """Runs the commands of the section with other paths."""
    places = {
        "/restored/models": f"{tmp_path}/restored",
        "backup:models": f"{tmp_path}/backup",
        "/srv/models": str(repository),
        "resnet152.v4": "lenet5.v1",
    }
    save, bring, doctor, *back = re.findall(r"^    (\S.+?)(?: +#.*)?$", section("## Backup"), re.M)
    (repository / "lenet5.v2.staging").mkdir()
    (repository / "lenet5.v2.staging" / "config.pbtxt").touch()
    (repository / ".lenet5.v2.lock").touch()
    run(save, places)
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["lenet5.v1"]
    shutil.rmtree(repository / "lenet5.v1")
    for command in (bring, doctor, *back):
        run(command, places)
    assert (repository / "lenet5.v1" / "config.pbtxt").exists()


def run(command: str, places: dict[str, str]) -> None:
    for place, here in places.items():
        command = command.replace(place, here)
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
