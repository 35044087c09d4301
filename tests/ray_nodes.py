"""A Ray cluster of several nodes on this machine, by `ray start` as on real ones, with its token on."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # several nodes; the tests' own Ray of one turns it off
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    # The nodes are one machine: what a dead one leaves in shared memory is not missed.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_metrics_report_interval_ms": "1000",  # to the agents: 10 s by Ray's own setting
}


# A raylet waits 15 s, and no longer, for its agents to say which ports they chose, and then gives up its node: on a
# busy machine their imports take longer. It need not wait for what it is told.
AGENT_OPTIONS = (
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)
AGENT_PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "metrics_export_port", "runtime_env_agent_port")


@dataclass
class RayNodes:
    """A head without CPUs for actors, and workers that join it."""

    folder: Path
    environment: Mapping[str, str]
    address: str
    dashboard: str
    raylets: dict[str, int] = field(default_factory=dict)  # process ids by the node's name

    def join(self, name: str, cpus: int, gpus: int = 0, kind: str = "") -> None:
        """Another node, with GPUs of a `kind` that Ray believes in."""
        kinds = json.dumps({f"accelerator_type:{kind}": 1} if kind else {})
        sizes = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--resources={kinds}"]
        self._start(name, f"--address={self.address}", *sizes)

    def kill(self, name: str) -> None:
        """The node is gone, with everything that ran on it, as when a spot machine is taken away."""
        raylet = psutil.Process(self.raylets.pop(name))
        for process in (raylet, *raylet.children(recursive=True)):
            process.send_signal(signal.SIGKILL)

    def pause(self, stage: str) -> None:
        """The actors of a stage stand still, so that a test need not be faster than they are."""
        self._send(stage, signal.SIGSTOP)

    def go_on(self, stage: str) -> None:
        """As if there had been no pause."""
        self._send(stage, signal.SIGCONT)

    def _send(self, stage: str, number: signal.Signals) -> None:
        for raylet in self.raylets.values():
            for process in psutil.Process(raylet).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if re.search(rf"MapBatches\(\S*{stage}", " ".join(process.cmdline())):
                        process.send_signal(number)

    def start_head(self) -> None:
        """The head: one CPU, which is the driver's."""
        port, dashboard = (where.rpartition(":")[2] for where in (self.address, self.dashboard))
        places = [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        self._start("head", "--head", "--num-cpus=1", *places, f"--temp-dir={self.folder}")

    def _start(self, name: str, *options: str) -> None:
        before = self._raylets()
        ray = str(Path(sys.executable).with_name("ray"))
        memory = ["--object-store-memory=200000000", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        ports = [f"--{option}={port}" for option, port in zip(AGENT_OPTIONS, free_ports(4), strict=True)]
        command = [ray, "start", *options, *memory, *ports]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=280)
        (self.raylets[name],) = self._raylets() - before

    def _raylets(self) -> set[int]:
        """Of this cluster: other tests may have Rays of their own."""
        found = psutil.process_iter(["name", "cmdline"])
        named = (process for process in found if process.info["name"] == "raylet")
        return {process.pid for process in named if str(self.folder) in " ".join(process.info["cmdline"] or ())}


@contextmanager
def ray_nodes(folder: Path, environment: Mapping[str, str]) -> Iterator[RayNodes]:
    """A head and two workers of two CPUs each, gone at the end of the block. `environment`: what all of them see."""
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, **environment, **ENVIRONMENT, "PATH": path, "RAY_AUTH_TOKEN_PATH": str(token)}
    # The last is what spire_ray sets in its own process: an agent that has it scrapes nothing.
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_ID", "OTEL_SDK_DISABLED"):
        settings.pop(name, None)
    port, dashboard = free_ports(2)
    nodes = RayNodes(folder / "ray", settings, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
    try:
        nodes.start_head()
        nodes.join("first", cpus=2)
        nodes.join("second", cpus=2)
        yield nodes
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if any(str(folder) in word for word in process.info["cmdline"] or ()):
                process.kill()


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
