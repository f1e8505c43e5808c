"""Environments for peers that are written in Python, each from a lock of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 1200
MEDDLED = "DO NOT MATCH THE HASHES"


class PeersMissing(Exception):
    """Some peers cannot be installed here."""


class PackageMeddled(Exception):
    """A package is not the one that was locked."""


def make_environment(name: str, lock: Path) -> Path:
    """Return the folder of the programs of a lock; they are installed once, and again for another lock.

    Raises PeersMissing where that is not possible, and PackageMeddled.
    """
    environment = ROOT / name
    ready = environment / "installed.lock"
    if not ready.exists() or ready.read_bytes() != lock.read_bytes():
        shutil.rmtree(environment, ignore_errors=True)
        install("venv", str(environment), python=sys.executable)
        options = ("--quiet", "--require-hashes", "--no-deps", "--requirement", str(lock))
        install("pip", "install", *options, python=str(environment / "bin" / "python"))
        shutil.copyfile(lock, ready)
    return environment / "bin"


def install(module: str, *arguments: str, python: str) -> None:
    """Run venv or pip."""
    command = [python, "-m", module, *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PeersMissing(str(error)) from error
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip()
        if MEDDLED in said:
            raise PackageMeddled(said) from error
        raise PeersMissing(said.splitlines()[-1] if said else str(error)) from error
