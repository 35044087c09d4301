"""An actor and then a node of a cluster are killed under a job; `make torture` has more of it, and other kinds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import checker


@pytest.mark.timeout(900)
def test_a_job_survives_an_actor_and_a_node() -> None:
    folder = Path(checker.__file__).parent
    command = [sys.executable, str(folder / "node_kills.py"), "--kills", "2", "--kinds", "encoder", "node"]
    command += ["--in-one-job", "2"]
    # This process may have told Ray, for its own sake, that there is no cluster.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert re.match(r"2 kills \(1 encoder, 1 node\) in \d+ s, all whole", ended.stdout.splitlines()[-1])
    print(ended.stdout)
