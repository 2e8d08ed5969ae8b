"""The one table: every error has a name on both wires."""

from __future__ import annotations

import grpc
import pytest

from server import errors
from server.errors import GRPC_STATUS, HTTP_STATUS, ServingError

CLASSES = ServingError.__subclasses__()


def test_every_error_has_a_reason_of_its_own() -> None:
    assert len({kind.reason for kind in CLASSES}) == len(CLASSES) > 10


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_on_both_wires(kind: type[ServingError]) -> None:
    assert GRPC_STATUS[kind.reason] is not grpc.StatusCode.OK
    assert 400 <= HTTP_STATUS[kind.reason] < 600


def test_the_table_has_no_row_that_no_error_uses() -> None:
    reasons = {kind.reason for kind in CLASSES}
    assert set(GRPC_STATUS) == set(HTTP_STATUS) == reasons


def test_the_clients_faults_are_4xx_and_the_services_5xx() -> None:
    ours = {
        errors.DeadlineExceeded,
        errors.ModelNotReady,
        errors.RunnerUnavailable,
        errors.ShuttingDown,
        errors.InferenceFailed,
        errors.InternalError,
    }
    for kind in CLASSES:
        assert (HTTP_STATUS[kind.reason] >= 500) == (kind in ours), kind
