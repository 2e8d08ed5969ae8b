"""The `convoy` command, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Protocol

import pytest
from PIL import Image, ImageDraw, ImageFont

from convoy.cli import entries_for, show
from convoy.client import Classification

DIGIT = Path(__file__).resolve().parents[1] / "data" / "digit-7.png"


class Gateway(Protocol):
    http: str
    grpc: str


def convoy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convoy.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_classify_prints_labels_and_scores(lenet_gateway: Gateway, wire: str) -> None:
    server = getattr(lenet_gateway, wire)
    done = convoy("classify", str(DIGIT), "--model", "lenet5", "--server", server)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "lenet5 v1, fp32, weights digits" in lines[0]
    assert lines[1].split()[1] == "7" and len(lines) == 7
    assert lines[6].startswith("  unfamiliar: 0.0") and ", below the threshold of 0." in lines[6]


def test_a_letter_is_doubted_on_each_wire(lenet_gateway: Gateway, tmp_path: Path) -> None:
    image = Image.new("L", (300, 300), 255)
    font = ImageFont.load_default(180)
    ImageDraw.Draw(image).text((150, 150), "K", fill=30, font=font, anchor="mm")
    image.save(tmp_path / "letter.png")
    answers = []
    for server in (lenet_gateway.grpc, lenet_gateway.http):
        arguments = (str(tmp_path / "letter.png"), "--model", "lenet5", "--server", server)
        assert ", doubt the classes from 0." in convoy("classify", *arguments).stdout
        answers.append(json.loads(convoy("classify", *arguments, "--json").stdout)["unfamiliar"])
    assert answers[0]["score"] > answers[0]["threshold"] > 0
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_json_is_for_programs(lenet_gateway: Gateway) -> None:
    arguments = ("classify", str(DIGIT), "--model", "lenet5", "--server", lenet_gateway.grpc)
    done = convoy(*arguments, "--json", "--top-k", "2")
    answer = json.loads(done.stdout)
    assert [len(answer["classes"]), answer["classes"][0]["label"]] == [2, "7"]


def test_one_bad_file_does_not_lose_the_others(lenet_gateway: Gateway, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(DIGIT.read_bytes()[:2000])
    done = convoy(
        "classify", str(broken), str(DIGIT), "--model", "lenet5", "--server", lenet_gateway.grpc
    )
    assert done.returncode == 1
    assert "broken.png" in done.stderr and "Traceback" not in done.stderr
    assert f"{DIGIT}: lenet5" in done.stdout


def test_models_are_a_table(lenet_gateway: Gateway) -> None:
    done = convoy("models", "--server", lenet_gateway.http)
    assert done.returncode == 0 and "lenet5" in done.stdout and "ready" in done.stdout
    listed = json.loads(convoy("models", "--server", lenet_gateway.http, "--json").stdout)
    assert listed["models"][0]["name"] == "lenet5"


class HostileGateway(BaseHTTPRequestHandler):
    """Answers with markup and with escape sequences of terminals."""

    text = "\x1b]0;mine\x07\x9b2J[/x][bold]\r\n"
    answer: ClassVar = {
        "models": [{"name": "lenet5", "version": text, "state_reason": text, "labels": []}],
        "classes": [{"label": text, "score": 1}],
        "model": text,
        "served": {"weights": text},
    }

    def do_GET(self) -> None:
        self.respond(200, self.answer)

    def do_POST(self) -> None:
        is_broken = "broken" in self.path
        self.rfile.read(int(self.headers["content-length"]))
        fault = {"status": 500, "code": "INTERNAL", "reason": "", "detail": self.text}
        self.respond(500 if is_broken else 200, fault if is_broken else self.answer)

    def respond(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        ["classify", str(DIGIT), "--model", "lenet5"],
        ["classify", str(DIGIT), "--model", "broken"],
    ],
    ids=["models", "classify", "error"],
)
def test_a_gateways_text_controls_no_terminal(arguments: list[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), HostileGateway) as server:
        threading.Thread(target=server.serve_forever).start()
        done = convoy(*arguments, "--server", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    shown = done.stdout + done.stderr
    assert "[/x][bold]" in shown and "Traceback" not in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\r"}


def test_nobody_there_is_one_line(lenet_gateway: Gateway) -> None:
    done = convoy("models", "--server", "127.0.0.1:1", "--timeout", "2")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)


def test_wrong_usage_is_exit_code_2() -> None:
    assert convoy("classify", "x.png").returncode == 2
    assert convoy("fly").returncode == 2


def test_one_command_grows_with_what_is_installed() -> None:
    shown = convoy("--help").stdout
    for command in ("classify", "models", "serve", "build", "train"):
        assert command in shown


@pytest.mark.parametrize(
    ("command", "loaded"),
    [("classify", set()), ("models", set()), ("compare", {"compare"}), ("serve", {"serve"})],
)
def test_a_command_does_not_wait_for_the_imports_of_others(command: str, loaded: set[str]) -> None:
    assert {entry.name for entry in entries_for(command)} == loaded


@pytest.mark.parametrize("command", ["", "--help", "key", "biuld"])
def test_whatever_names_no_entry_point_is_looked_for_in_all(command: str) -> None:
    assert {"serve", "build", "compare"} <= {entry.name for entry in entries_for(command)}


def test_answer_without_classes_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Classification(
        *((), "defects", "1", "onnxruntime", "fp32", "cpu", "file", "0" * 64, 1, 2.0, "id")
    )
    show(Path("a.jpg"), answer, as_json=False)
    assert capsys.readouterr().out.splitlines()[1:] == ["  no class reaches its threshold"]
