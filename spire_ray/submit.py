"""`spire-ray submit COMMAND …`: the same command as a job of a Ray cluster, followed to its end from here."""

import argparse
import asyncio
import logging
import os
import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from spire_ray.checkpoints import NAMES as CHECKPOINTS
from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.locations import URL, refused_place, storage_options
from spire_ray.resources import TOKEN
from spire_ray.stop import GRACE_SECONDS

# What a command reads and writes, which every node must reach.
PLACES = ("corpus", "out", "to", "target", "dataset", "like", "examples", "text_files", "tokenizer", "json", "markdown")
# Those that may be a name, on a hub or of what there is: a place where there is such a file here.
PLACES_OR_NAMES = ("checkpoint", "encoder", "codebook", "translations", "comet", "scorer_python")
NAMES = (*CHECKPOINTS, "reference", "generated")  # whatever lies here under that name
LEFT_IT = 130  # as a shell tells of Ctrl-C: 75 would have a scheduler submit a job again that goes on
AGAIN_S, MAX_LOST = 5.0, 60  # a head that is restarted is back within minutes
# Ray kills a job 3 s after it asked it to stop, unless this says otherwise: shards need longer to commit.
STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS + 30)}


def submit(words: Sequence[str], options: argparse.Namespace, address: str | None, wait: bool) -> int:
    """Send a command to the job API at `address` (http://HEAD:8265; None: RAY_API_SERVER_ADDRESS) and follow it.

    `words`: the command with its options, `options`: the same, parsed. Nothing of this machine's environment goes with
    it: credentials are those of the nodes. Returns the exit code of the job; 0 at once without `wait`, and LEFT_IT
    when this process is told to end first.
    """
    check(options)
    entrypoint = shlex.join(["spire-ray", *words])
    name = f"spire-{options.command}-{secrets.token_hex(4)}"
    try:
        client = JobSubmissionClient(address)
        client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env={"env_vars": STOP_WAIT})
    except AuthenticationError as fault:
        raise UserError(f"{fault.message}: {TOKEN}") from fault
    except (ConnectionError, RuntimeError, ValueError) as fault:
        where = address or "RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265"
        raise UserError(f"no Ray job API answers at {where}: {fault}") from fault
    at = f" --address {address}" if address else ""
    ray = "RAY_AUTH_MODE=token ray" if os.environ.get("RAY_AUTH_MODE") == "token" else "ray"
    print(f"job {name}\n  log   {ray} job logs{at} --follow {name}\n  stop  {ray} job stop{at} {name}", file=sys.stderr)
    if not wait:
        return 0
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # it tells how its sockets close
    try:
        return asyncio.run(_follow(client, name))
    except (KeyboardInterrupt, Interrupted):
        print(f"spire-ray: job {name} goes on; see above how to stop it", file=sys.stderr)
        return LEFT_IT


def check(options: argparse.Namespace) -> None:
    """UserError for what would be kept in the cluster's records or mean another place there.

    A relative path; a URL with a password; storage options with credentials.
    """
    storage_options(getattr(options, "storage_options", "{}"))
    for place in (*PLACES, *PLACES_OR_NAMES):
        given = getattr(options, place, None) or []
        for value in map(str, given if isinstance(given, list) else [given]):
            if URL.match(value):
                if problem := refused_place(value):
                    raise UserError(problem)
            elif not value.startswith("/") and (place in PLACES or (value not in NAMES and Path(value).exists())):
                raise UserError(
                    f"{value} is relative to this folder, which the cluster does not have: give the whole path"
                )


def without_address(words: Sequence[str]) -> list[str]:
    """A command's words without `--address`, which is the job API's here; in the job Ray knows its own cluster."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--address" and not word.startswith("--address="):
            kept.append(word)
        skip = word == "--address"
    return kept


async def _follow(client: JobSubmissionClient, name: str) -> int:
    """Print the job's log as it grows. Its exit code; 75 when it was stopped before it could tell one."""
    log, lost = _Log(), 0
    while True:
        try:
            await log.show(client.tail_job_logs(name))
            info: JobDetails = client.get_job_info(name)
            if info.status.is_terminal():
                break
            lost = 0
        except (RuntimeError, OSError, aiohttp.ClientError) as fault:
            lost += 1
            if lost > MAX_LOST:
                raise MachineFault(f"the cluster no longer answers: {fault}; job {name} may have gone on") from fault
        await asyncio.sleep(AGAIN_S)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 75 if info.status == JobStatus.STOPPED else int(info.status != JobStatus.SUCCEEDED)


class _Log:
    """How much of a log has been printed. A new connection tells it from its beginning."""

    def __init__(self) -> None:
        self.printed = 0

    async def show(self, texts: AsyncIterator[str]) -> None:
        seen = 0
        async for text in texts:
            print(text[max(0, self.printed - seen) :], end="", flush=True)
            seen += len(text)
            self.printed = max(self.printed, seen)
