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
from typing import Any

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
# Of an autoscaler's settings: what is not done to nodes that are no machines.
LISTS = (
    "cluster_synced_files",
    "head_setup_commands",
    "head_start_ray_commands",
    "initialization_commands",
    "rsync_exclude",
    "rsync_filter",
    "setup_commands",
    "worker_setup_commands",
    "worker_start_ray_commands",
)
AGENT_PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "metrics_export_port", "runtime_env_agent_port")


@dataclass
class RayNodes:
    """A head, and workers that join it."""

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
        _kill(self.raylets.pop(name))

    def kill_one_with(self, resource: str) -> None:
        """The same of a node that an autoscaler started."""
        _kill(next(pid for pid in self._raylets() if f",{resource}," in " ".join(psutil.Process(pid).cmdline())))

    def id_of(self, name: str) -> str:
        """What Ray calls the node."""
        (word,) = (word for word in psutil.Process(self.raylets[name]).cmdline() if word.startswith("--node_id="))
        return word.partition("=")[2]

    def runs(self, name: str, actor: str) -> bool:
        """Whether a process of the node is called so."""
        children = psutil.Process(self.raylets[name]).children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            return any(actor in " ".join(process.cmdline()) for process in children)
        return False

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

    def start_head(self, *options: str) -> None:
        """The head."""
        port, dashboard = (where.rpartition(":")[2] for where in (self.address, self.dashboard))
        places = [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        self._start("head", "--head", *options, *places, f"--temp-dir={self.folder}")

    def start_autoscaler(self, groups: Mapping[str, Mapping[str, int]], most: int, idle_minutes: float) -> None:
        """A head without CPUs, and Ray's own autoscaler: up to `most` nodes of a group, which are such as it has.

        Its nodes are processes of this machine that Ray starts itself, and ends where they idle.
        """
        kinds = {
            name: {"resources": {**of, "object_store_memory": 200_000_000}, "node_config": {}, "max_workers": most}
            for name, of in groups.items()
        }
        head = {"ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
        provider = {"type": "fake_multinode", "gcs_address": self.address, "use_node_id_as_ip": True}
        provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
        config: dict[str, Any] = {"auth": {}, "docker": {}, "file_mounts": {}, **{name: [] for name in LISTS}}
        config |= {"cluster_name": "made-up", "max_workers": most * len(kinds), "idle_timeout_minutes": idle_minutes}
        config |= {"provider": provider, "available_node_types": kinds | head}
        config |= {"head_node_type": "ray.head.default", "file_mounts_sync_continuously": False}
        self.folder.mkdir()
        path = self.folder / "autoscaler.json"
        path.write_text(json.dumps(config))
        self.environment = {**self.environment, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        self.start_head("--num-cpus=0", f"--autoscaling-config={path}")

    def _start(self, name: str, *options: str) -> None:
        before = self._raylets()
        ray = str(Path(sys.executable).with_name("ray"))
        memory = ["--object-store-memory=200000000", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        ports = [f"--{option}={port}" for option, port in zip(AGENT_OPTIONS, free_ports(4), strict=True)]
        command = [ray, "start", *options, *memory, *ports]
        done = subprocess.run(command, env=self.environment, check=False, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        (self.raylets[name],) = self._raylets() - before

    def _raylets(self) -> set[int]:
        """Of this cluster: other tests may have Rays of their own."""
        found = psutil.process_iter(["name", "cmdline"])
        named = (process for process in found if process.info["name"] == "raylet")
        return {process.pid for process in named if str(self.folder) in " ".join(process.info["cmdline"] or ())}


def _kill(raylet: int) -> None:
    process = psutil.Process(raylet)
    for one in (process, *process.children(recursive=True)):
        one.send_signal(signal.SIGKILL)


@contextmanager
def ray_nodes(folder: Path, environment: Mapping[str, str]) -> Iterator[RayNodes]:
    """What is started of them is gone at the end of the block. `environment`: what all of them see."""
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
