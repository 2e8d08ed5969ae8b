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


def section(title: str, of: str = OPERATIONS) -> str:
    """Returns the text from a heading to the next one of the same rank."""
    rank = title.split(maxsplit=1)[0]
    return re.split(rf"^{rank} ", of.partition(f"\n{title}\n")[2], flags=re.M)[0]


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
    with_workers, sizing = section("### With workers", PERFORMANCE), section("## Sizing")
    # Workers, in flight, answers/s, p50, p99, batch, cores.
    rows = re.findall(r"^\| (\d) \| (\d+) \| ([\d,]+) \| .+ \| ([\d.]+) \|$", with_workers, re.M)
    measured = {(workers, in_flight): (rate, cores) for workers, in_flight, rate, cores in rows}
    table = re.findall(r"^\| (\d) \| (\d+) \| ([\d,]+) \| ([\d.]+) \| (\d+) \|$", sizing, re.M)
    assert len(table) == 3
    for workers, in_flight, rate, cores, for_each in table:
        assert measured[workers, in_flight] == (rate, cores)
        assert int(for_each) == round(number(rate) / float(cores))
    # By h2load, 4 workers: HTTP, gRPC.
    found = re.search(r"^\| 4 \| [\d,]+, [\d.]+ ms \| ([\d,]+), ([\d.]+) ms", with_workers, re.M)
    assert found
    rate, ms = found.groups()
    assert f"gRPC | 240 | {rate} | {number(rate) * float(ms) / 1e3:.1f} |" in sizing
    for_a_core = round(number(rate) / 16)
    assert f"**{for_a_core} requests per second and core**" in sizing
    for network, rate, gateways in re.findall(
        r"^\| ([\w-]+) \| ([\d,]+) \| ([\d.]+) \|$", sizing, re.M
    ):
        of_network = PERFORMANCE.partition(f"| {network} | fp32 |")[2]
        fp16 = re.search(r"\| \| fp16 \|(.+)", of_network)
        assert fp16 and fp16[1].split("|")[2].strip() == rate
        assert abs(float(gateways) - number(rate) / (4 * for_a_core)) < 0.5


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
