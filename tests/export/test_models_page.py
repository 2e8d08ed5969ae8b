"""docs/models.md is written from the catalog, and says all of it."""

import re
from pathlib import Path

from export.catalog import CATALOG
from export.layers import describe_network

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)
    for section in re.split(r"^### ", part, flags=re.MULTILINE)[1:]
}


def test_each_network_has_a_section_with_its_own() -> None:
    assert list(SECTIONS) == list(CATALOG)
    for name, network in CATALOG.items():
        section = SECTIONS[name]
        totals = describe_network(network).totals
        assert network.paper in section
        assert f" {totals.parameters:,} parameters (" in section
        assert f" {totals.macs:,} MACs\n" in section
        for checkpoint in network.checkpoints:
            assert f"`{checkpoint.file}` ({checkpoint.source}, resize " in section


def test_printed_sizes_stand_beside_the_true_ones() -> None:
    rows = [re.sub(r" +", " ", line) for line in TEXT.splitlines() if line.startswith("|")]
    for row in (
        "| neurons of conv1 | 253,440 | 290,400 | 55×48×96, a misprint for 55×55×96 |",
        "| connections | 340,908 | 340,908 | exact; 840 of them are the fixed distances |",
        "| MACs | 15.3 billion | 15,470,264,320 | He et al. count the convolutions alone: 15.347 |",
        "| depth | 42 | 48 | the paper does not say what it counts |",
        "| inception4c | 463 K | 497.5 K | 100 M | 99.9 M |",
        "| sum | 6,797.7 K | 6,826.4 K | 1,502 M | 1,582.7 M |",
    ):
        assert row in rows


def test_deviations_are_told_as_in_the_architectures() -> None:
    for network in CATALOG.values():
        path = ROOT / "export" / "architectures" / f"{network.architecture.partition(':')[0]}.py"
        deviation = next(line for line in path.read_text().splitlines() if line.startswith("- "))
        assert f"> {deviation}\n" in TEXT


def test_tables_are_padded_to_read_as_text() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", TEXT, flags=re.MULTILINE)
    assert len(tables) > 10
    for table in tables:
        assert len(set(map(len, table.splitlines()))) == 1


def test_each_link_of_the_page_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)", TEXT, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]
    assert len(set(anchors)) == len(anchors), "two headings have one anchor"
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > len(CATALOG)
    for link in links:
        exists = link[1:] in anchors if link.startswith("#") else (PAGE.parent / link).is_file()
        assert exists, link
