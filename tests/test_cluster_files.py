"""What lies in cluster/ is what KubeRay, Ray, Docker, the shell and Grafana take; nothing of it is started here."""

import gzip
import importlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from spire_ray import __version__, metrics
from spire_ray.cli import main

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
# KubeRay's RayJob, ray.io/v1, of its custom resource definition without the descriptions (Apache-2.0).
RAYJOB = Path(__file__).with_name("rayjob.schema.json.gz")
BIN = Path(sys.executable).parent


def strict(schema: Any) -> Any:
    """As the API server prunes: a field that the schema does not name would be dropped in silence."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


def rayjob_faults(job: dict[str, Any]) -> list[str]:
    schema = strict(json.loads(gzip.decompress(RAYJOB.read_bytes())))
    schema["properties"]["metadata"] = {"type": "object"}
    return [fault.message for fault in jsonschema.Draft7Validator(schema).iter_errors(job)]


def test_kuberay_takes_the_rayjob_and_would_drop_no_field_of_it() -> None:
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert rayjob_faults(job) == []
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["contaners"] = []
    job["spec"]["backoffLimit"] = "many"
    assert len(rayjob_faults(job)) == 2


def test_the_rayjobs_command_is_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    words = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())["spec"]["entrypoint"].split()
    assert words[0] == "spire-ray"
    with pytest.raises(SystemExit) as ended:
        main([*words[1:], "--help"])
    assert ended.value.code == 0
    assert "speech-to-text" in capsys.readouterr().out


def test_the_rayjob_asks_for_the_gpus_that_its_group_may_have() -> None:
    spec = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())["spec"]
    (asked,) = re.findall(r"--gpus (\d+)", spec["entrypoint"])
    group = next(group for group in spec["rayClusterSpec"]["workerGroupSpecs"] if group["groupName"] == "gpu")
    (worker,) = group["template"]["spec"]["containers"]
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert int(asked) == group["maxReplicas"] * int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] == group["replicas"] < group["maxReplicas"]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_rays_launcher_takes_the_configuration(name: str) -> None:
    config = prepare_config(yaml.safe_load((CLUSTER / f"{name}.yaml").read_text()))
    validate_config(config)
    assert config["provider"]["type"] == name
    assert not any(config[f"{kind}setup_commands"] for kind in ("", "head_", "worker_"))  # Ray's own install Ray anew
    commands = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert commands.count("RAY_AUTH_MODE=token") == 2
    assert "--autoscaling-config" in commands
    assert all(kind["min_workers"] == 0 for kind in config["available_node_types"].values())
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        validate_config(config | {"max_wrokers": 1})


@pytest.mark.parametrize("script", ["cluster/slurm.sh", "tests/slurm_nodes.sh"])
def test_a_shell_script_is_clean(script: str) -> None:
    found = subprocess.run([BIN / "shellcheck", ROOT / script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_dockerfile_is_clean_and_copies_what_there_is() -> None:
    found = subprocess.run([BIN / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    copied = re.findall(r"^COPY (\S+) ", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_is_made_of_nothing_that_was_built_here() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    sent = {path.name for line in ignored if line.startswith("!") for path in ROOT.glob(line[1:])}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert sent <= {name.partition("/")[0] for name in tracked}
    assert {"spire_ray", "pyproject.toml", "requirements-gpu.lock"} <= sent


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_locks_have_what_rays_launcher_starts_machines_with(cloud: str) -> None:
    """Its module imports what the cloud's own packages have; the GPU lock holds the same ones."""
    importlib.import_module(f"ray.autoscaler._private.{cloud}.node_provider")
    asked = [Requirement(line) for line in metadata.requires("spire-ray") or []]
    wanted = {one.name for one in asked if one.marker and one.marker.evaluate({"extra": "cloud"})}
    assert wanted
    for lock in ("requirements-cpu.lock", "requirements-gpu.lock"):
        locked = re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.MULTILINE)
        assert wanted <= set(locked), lock


def test_the_image_is_built_by_the_whole_of_hatchling() -> None:
    """pip refuses what a package of build.lock needs and is not in it with its hash."""
    found = re.search(r"for name in uv ([a-z -]+);", (CLUSTER / "Dockerfile").read_text())
    assert found
    needed, new = set[str](), {"hatchling"}
    while new:
        needed |= new
        asked = [Requirement(line) for name in new for line in metadata.requires(name) or []]
        new = {one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})} - needed
    assert set(found[1].split()) == needed


def test_the_changelogs_newest_version_is_the_packages() -> None:
    versions = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[0] == __version__


def test_grafana_shows_what_is_counted_and_nothing_else() -> None:
    dashboard = json.loads((CLUSTER / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"\bray_spire_\w+", " ".join(asked)))
    counters = {f"ray_{name}_total" for name in (*metrics.COUNTERS, "spire_errors")}
    assert shown == counters | {"ray_spire_rtfx", "ray_spire_actor_rtfx"}
