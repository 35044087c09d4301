"""Two drivers with `--part` at the same time, each with a Ray of its own, on one OUT in S3 that has no plan yet."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from s3_server import S3Server

SPIRE_RAY = [sys.executable, "-c", "import sys; from spire_ray.cli import main; sys.exit(main())"]
CHECKER = str(Path(__file__).with_name("checker.py"))


@pytest.mark.timeout(600)
def test_two_drivers_make_one_whole_out(s3_server: S3Server, corpus: Path, bundle: Path, tmp_path: Path) -> None:
    url = f"{s3_server.url}/two-drivers"
    command = [*SPIRE_RAY, "tokenize", str(corpus), url, "--checkpoint", str(bundle), "--shard-minutes", "0.03"]
    drivers = [subprocess.Popen([*command, "--part", f"{part}/2"]) for part in (1, 2)]
    try:
        assert [driver.wait() for driver in drivers] == [0, 0]
    finally:
        for driver in drivers:
            driver.kill()

    out = tmp_path / "out"
    s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False).get(url, str(out), recursive=True)
    checked = subprocess.run([sys.executable, CHECKER, str(out)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    shards = {path.name for path in (out / "units").glob("part-*.parquet")}
    assert (out / "units" / "_SUCCESS").exists()
    # Each did its own: had a shard been done twice, their counts would come to more.
    records = [json.loads(path.read_bytes()) for path in (out / "runs").iterdir()]
    done = {record["part"]: record["stages"]["units"]["shards"] for record in records}
    assert done == {"1/2": -(-len(shards) // 2), "2/2": len(shards) // 2}
    assert len(shards) > 3
    fingerprints = {pq.read_schema(path).metadata[b"spire_ray.fingerprint"] for path in (out / "units").glob("part-*")}
    assert len(fingerprints) == 1
