"""Pages of other sites, and names that lead here by DNS rebinding, on both HTTP ports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ALLOWED = "https://app.example.org"
NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}


@pytest.fixture(scope="module")
def gateway(serve_together: Callable[..., Any], shipped_lenet5: Path) -> Any:
    running = serve_together(
        f"--repository={shipped_lenet5.parent}",
        "--models=lenet5",
        f"--cors-origins={ALLOWED}",
        "--allowed-hosts=gateway.example.org",
    )
    running.wait_until_ready()
    return running


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8080"}, 403),
        ({"host": "[x"}, 403),
        ({"host": "GATEWAY.example.org"}, 200),
        ({"host": "gateway.example.org"}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "here:1", "origin": "http://here:1"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ALLOWED}, 200),
        ({"origin": ALLOWED, "sec-fetch-site": "cross-site"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({**NAVIGATION, "sec-fetch-dest": "document"}, 200),
        ({**NAVIGATION, "sec-fetch-dest": "iframe"}, 403),
    ],
)
def test_only_own_and_listed_pages_may_ask(
    gateway: Any, headers: dict[str, str], status: int
) -> None:
    assert httpx.get(f"{gateway.http}/", headers=headers).status_code == status
    assert httpx.get(f"{gateway.admin}/statusz", headers=headers).status_code == status


def test_a_form_of_another_site_classifies_nothing(gateway: Any, digit: bytes) -> None:
    headers = {**NAVIGATION, "sec-fetch-dest": "document"}
    url = f"{gateway.http}/v1/models/lenet5:classify"
    answer = httpx.post(url, content=digit, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")


def test_preflights_are_judged_by_the_same_list(gateway: Any) -> None:
    asks = {"access-control-request-method": "POST"}
    url = f"{gateway.http}/v1/models/lenet5:classify"
    answer = httpx.options(url, headers={"origin": ALLOWED, **asks})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ALLOWED)
    answer = httpx.options(url, headers={"origin": "https://evil.example", **asks})
    assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
    assert "--cors-origins" in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers
