"""The local cloud of the end-to-end tests: one for all of them, with real guests, in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 1900
STOP_SECONDS = 240
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def running_cloud(home: Path) -> Iterator[dict[str, str]]:
    """Run a local cloud and yield the environment in which every AWS client, and `invoke` too, uses it.

    Base images come from the user's cache: only the first run of all makes them. Guests are shut down at the end. They
    have one processor each, as two test processes each have a guest.
    """
    try:
        started = cloud_command(home, "start", "--json", "--processors=1", deadline_seconds=START_SECONDS)
        yield started["environment"] | {
            "ASSAY_CLOUD_HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
    finally:
        cloud_command(home, "stop", deadline_seconds=STOP_SECONDS)


def cloud_status(cloud: dict[str, str]) -> dict[str, Any]:
    """Return what a cloud says of itself, `ssh_port` for example: guests have 22, or 10022 when that is not ours."""
    with DIRECT.open(f"{cloud['AWS_ENDPOINT_URL']}/_cloud/status", timeout=60) as answer:
        status: dict[str, Any] = json.loads(answer.read())
    return status


def cloud_client(cloud: dict[str, str], service: str, region: str) -> Any:
    """Return a client of the cloud's own account."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        region_name=region,
        endpoint_url=cloud["AWS_ENDPOINT_URL"],
        aws_access_key_id=cloud["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=cloud["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )


def cloud_command(home: Path, *arguments: str, deadline_seconds: float) -> dict[str, Any]:
    """Run one command of the local cloud, and return its JSON answer where it has one."""
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.localcloud", *arguments],
        cwd=ROOT,
        env=os.environ | {"ASSAY_CLOUD_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=deadline_seconds,
        check=True,
    )
    answer: dict[str, Any] = json.loads(ran.stdout) if "--json" in arguments else {}
    return answer


def remove_home(home: Path, *, keep_logs: bool) -> None:
    """Remove the disks of a stopped cloud, and unless somebody is to read them, its log and the guests' consoles."""
    shutil.rmtree(home / "disks" if keep_logs else home, ignore_errors=True)
    if keep_logs:
        print(f"\nthe local cloud's log and its guests' consoles are in {home}", file=sys.stderr)
