"""A Docker engine, and a deployment on it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.files import ROOT, clean_environment
from tests.loopback import free_port

# Kills a process of the engine's machine by its id, like a crash. The engine does not restart
# what `docker kill` ends.
KILL = "import os, sys; os.kill(int(sys.argv[1]), 9)"


def docker(*words: str, host: str = "", timeout_s: float = 120, stdin: Any = None) -> str:
    """Returns the output of the command. `host` replaces DOCKER_HOST."""
    environment = {**clean_environment(), **({"DOCKER_HOST": host} if host else {})}
    return run(["docker", *words], environment, timeout_s, stdin)


def run(
    command: list[str], environment: dict[str, str], timeout_s: float, stdin: Any = None
) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Deployment:
    """`docker compose` with an .env of its own, on free ports."""

    folder: Path  # contains .env
    settings: dict[str, str] = field(default_factory=dict)
    project: str = "convoy-test"

    def __post_init__(self) -> None:
        ports = ("HTTP_PORT", "GRPC_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
        self.settings = {**{name: str(free_port()) for name in ports}, **self.settings}
        # Compose resolves COMPOSE_FILE against the working directory.
        lines = [f"{name}={value}" for name, value in self.settings.items()]
        self.env_path.write_text("\n".join(lines) + "\n")

    @property
    def env_path(self) -> Path:
        return self.folder / ".env"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.settings['HTTP_PORT']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.settings['GRPC_PORT']}"

    def compose(self, *words: str, timeout_s: float = 600) -> str:
        command = ["docker", "compose", "--env-file", str(self.env_path), "-p", self.project]
        return run([*command, *words], clean_environment(), timeout_s)

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--wait", "--no-build", *services)

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")

    def container(self, service: str) -> dict[str, Any]:
        """Returns what the engine reports about the container of a service."""
        (name,) = self.compose("ps", "--all", "--quiet", service).split()
        (known,) = json.loads(docker("inspect", name))
        facts: dict[str, Any] = known
        return facts

    def kill(self, service: str) -> int:
        """Kills the first process of a service, and returns how often it was restarted before."""
        facts = self.container(service)
        image, pid = facts["Image"], str(facts["State"]["Pid"])
        words = ["run", "--rm", "--pid=host", "--user=0", "--entrypoint=python3"]
        # The gateway's image has Python; that of the service may not.
        helper = self.container("gateway")["Image"] if service != "gateway" else image
        docker(*words, helper, "-c", KILL, pid)
        restarts: int = facts["RestartCount"]
        return restarts
