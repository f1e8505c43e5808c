"""Packer, Debian's 1.6.6, as a peer: one template that any benchmark or test runs against the local cloud."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_template(
    folder: Path, *, endpoint: str, region: str, name: str, source_ami: str, scripts: list[Path], **more: Any
) -> Path:
    """Write an amazon-ebs template that runs `scripts` as root on `source_ami`, and return its path."""
    builder = {
        "type": "amazon-ebs",
        "region": region,
        "custom_endpoint_ec2": endpoint,
        "skip_region_validation": True,
        "skip_credential_validation": True,
        "skip_metadata_api_check": True,
        "max_retries": 5,
        "aws_polling": {"delay_seconds": 1, "max_attempts": 600},
        "instance_type": "t3.small",
        "ssh_username": "admin",
        "ssh_timeout": "10m",
        "source_ami": source_ami,
        "ami_name": name,
        **more,
    }
    provisioner = {
        "type": "shell",
        "scripts": [str(script) for script in scripts],
        # Away from /tmp, which a script may empty while it runs.
        "execute_command": "sudo mv '{{ .Path }}' /run/provision.sh && sudo sh /run/provision.sh",
    }
    provisioners = [provisioner] if scripts else []
    template = folder / "template.json"
    template.write_text(json.dumps({"builders": [builder], "provisioners": provisioners}, indent=2))
    return template


def run(
    template: Path, cloud: dict[str, str], log: Path, deadline_seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run `packer build` and return when it ends; its output goes to `log`."""
    with started(template, cloud, log) as process:
        process.wait(deadline_seconds)
    return subprocess.CompletedProcess(process.args, process.returncode)


@contextmanager
def started(template: Path, cloud: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `packer build` in a process group of its own, which ends at the latest when the block is left."""
    environment = {
        **os.environ,
        **cloud,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CACHE_DIR": str(template.parent / "cache"),
        "PACKER_LOG": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["packer", "build", "-color=false", str(template)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=template.parent,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def version() -> str:
    """Return Packer's version, for the table."""
    return subprocess.run(["packer", "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
