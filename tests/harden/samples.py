"""A guest and a spec to write steps for, and a real Debian to run them in."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.guest.facts import QUESTIONS, Facts, parse_facts
from pipeline.guest.program import ACKNOWLEDGEMENT, RecordReader, StepResult, compile_program
from pipeline.guest.step import Step
from pipeline.localcloud.metadata import InstanceView
from pipeline.spec import Spec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJlUvdKYnCZCmj3kYvXDK4w0pR0bGBsYpLjFgBSTrJGZ john@example"
OTHER_KEY = KEY.replace("JGZ john", "JGa sally")
STRANGE_KEY = KEY.replace("JGZ john", "JGb eve")

DEBIAN = Facts(
    family="debian",
    distribution="debian",
    version="12",
    codename="bookworm",
    pretty_name="Debian GNU/Linux 12 (bookworm)",
    architecture="x86_64",
    kernel="6.1.0-9-cloud-amd64",
    kernels=("6.1.0-9-cloud-amd64",),
    sshd_path="/usr/sbin/sshd",
    sshd_version=(9, 2),
    users=(),
    groups=(),
    has_systemd=True,
    cloud_init="22.4.2",
    default_user="admin",
    package_manager="apt",
    file_systems=(),
    swaps=(),
    commands=frozenset({"perl", "apt-get", "cloud-init"}),
)
AMAZON = replace(
    DEBIAN, family="redhat", distribution="amzn", version="2023", package_manager="dnf", sshd_version=(8, 7)
)

INSTANCE = InstanceView(
    instance_id="i-0123456789abcdef0",
    image_id="ami-0123456789abcdef0",
    account_id="123456789012",
    region="eu-central-1",
    zone="eu-central-1a",
    instance_type="t3.small",
    private_address="172.31.0.10",
    mac="02:00:00:00:00:10",
    tokens_required=True,
)
"""What the metadata service says of an instance of the sample spec."""


def spec(**changes: Any) -> Spec:
    """Return a spec with an administrator, a user, and the changes."""
    plain: dict[str, Any] = {
        "name": "sample",
        "cloud": "local",
        "region": "eu-central-1",
        "base_image": {"id": "ami-12345678", "owner": "123456789012"},
        "users": [
            {
                "name": "john",
                "full_name": "John O'Neil",
                "keys": [KEY],
                "groups": ["operators"],
                "sudo": {"who": "the CTO", "why": "on call"},
            },
            {"name": "sally", "full_name": "Sally Doe", "keys": [OTHER_KEY]},
        ],
        "scrub": {"free_space": False},
    }
    return Spec.model_validate({**plain, **changes})


def text_of(steps: Iterable[Step]) -> str:
    """Return all that steps would run."""
    return "\n".join(f"{step.test or ''}\n{step.action}" for step in steps)


class Debian:
    """A Debian in a folder: programs run in it for real, as root, with process and mount namespaces of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.enter = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            f"--mount-proc={root}/proc",
            "chroot",
            str(root),
        ]

    def run(self, script: str) -> str:
        """Run a script and return what it printed."""
        ran = subprocess.run([*self.enter, "sh", "-euc", script], capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def facts(self) -> Facts:
        """Ask it what it is."""
        ran = subprocess.run([*self.enter, "sh", "-c", QUESTIONS], capture_output=True, text=True, timeout=120)
        return parse_facts(ran.stdout)

    def perform(self, steps: tuple[Step, ...]) -> list[StepResult]:
        """Run the steps as a guest program."""
        program = compile_program(steps)
        with subprocess.Popen(
            [*self.enter, "sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin and process.stdout
            process.stdin.write(program.text)
            process.stdin.flush()
            reader = RecordReader(program)
            results: list[StepResult] = []
            while not reader.finished:
                line = process.stdout.readline()
                assert line, "the program ended too early"
                results += filter(None, [reader.read(line)])
            process.stdin.write(ACKNOWLEDGEMENT)
            process.stdin.close()
        return results

    def write(self, path: str, content: str = "x\n") -> None:
        """Write a file."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def read(self, path: str) -> str:
        """Return a file's content."""
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        """Say whether something is there."""
        return os.path.lexists(self.root / path.lstrip("/"))


SSHD_AND_SUDO = "openssh-server,sudo,systemd,unattended-upgrades,e2fsprogs"


def make_debian(folder: Path, name: str = "bookworm-minimal-1", packages: str = SSHD_AND_SUDO) -> Debian:
    """Return a fresh Debian, by default with sshd and sudo. Its archive is made once, and kept under the name."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root and mmdebstrap")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assay" / "tests"
    archive = cache / f"{name}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = archive.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(making)]
        subprocess.run(command, check=True, timeout=1800)
        making.rename(archive)
    root = folder / "debian"
    root.mkdir()
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(root)], check=True, timeout=120)
    return Debian(root)


def outcomes(results: list[StepResult]) -> dict[str, str]:
    """Return the outcome of each step by its title."""
    return {result.step.title: result.outcome.value for result in results}


def failures(results: list[StepResult]) -> list[str]:
    """Return what failed, with its output."""
    return [f"{one.step.title}: {one.output}" for one in results if one.outcome in ("failed", "skipped")]
