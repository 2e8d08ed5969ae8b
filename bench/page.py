"""Measures the page: what a browser loads, and how soon it paints, on a gateway of its own.

    .venv/bin/python bench/page.py [--runs 5]

First paint and the largest one are the browser's own entries. All times count from the start of the
navigation, with an empty cache each time. Needs Chromium.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from server.page.routes import read_assets

FIGURES = """() => new Promise((resolve) => {
  new PerformanceObserver((list) => {
    const largest = list.getEntries().at(-1).startTime;
    const [first] = performance.getEntriesByName("first-contentful-paint");
    const all = performance.getEntriesByType("resource");
    const files = all.filter((it) => it.name.includes("/page/"));
    const [page] = performance.getEntriesByType("navigation");
    const bytes = files.reduce((sum, it) => sum + it.transferSize, page.transferSize);
    resolve([first.startTime, largest, performance.now(), files.length + 1, bytes / 1000]);
  }).observe({ type: "largest-contentful-paint", buffered: true });
})"""
NAMES = ("first paint, ms", "largest paint, ms", "first answer, ms", "files", "transferred, kB")


@contextmanager
def gateway() -> Iterator[str]:
    """The address of a gateway with the models of this checkout."""
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "convoy.cli", "serve", *ports]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        lines = (re.search(r"HTTP +(\S+)", line) for line in process.stdout)
        try:
            yield next(filter(None, lines))[1]
        finally:
            process.terminate()


def visit(browser: Browser, address: str) -> list[float]:
    """One visit with an empty cache."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page: Page = context.new_page()
    page.goto(address)
    page.locator(".result .best").first.wait_for()
    figures: list[float] = page.evaluate(FIGURES)
    context.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    program = shutil.which("chromium") or sys.exit("needs Chromium: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    weight = sum(len(asset.content) for asset in read_assets().values())
    with gateway() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        visit(browser, address)  # both processes are warm from here on
        runs = [visit(browser, address) for _ in range(options.runs)]
        browser.close()
    for name, values in zip(NAMES, zip(*runs, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})")
    print(f"all files together, kB: {weight / 1000:.1f} of at most 300")


if __name__ == "__main__":
    main()
