"""Where the peers that are written in Python are installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
ENVIRONMENT = ROOT / ".venv-peers"
INSTALL_SECONDS = 1200
MEDDLED = "DO NOT MATCH THE HASHES"


@pytest.fixture(scope="session")
def python_peers() -> Path:
    """Return the folder of awspub's and img-proof's programs; they are installed once, and again for another lock."""
    ready = ENVIRONMENT / "installed.lock"
    if not ready.exists() or ready.read_bytes() != LOCK.read_bytes():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        install("venv", str(ENVIRONMENT), python=sys.executable)
        options = ("--quiet", "--require-hashes", "--no-deps", "--requirement", str(LOCK))
        install("pip", "install", *options, python=str(ENVIRONMENT / "bin" / "python"))
        shutil.copyfile(LOCK, ready)
    return ENVIRONMENT / "bin"


def install(module: str, *arguments: str, python: str) -> None:
    """Run venv or pip. Where they cannot do it the tests are skipped; a package that was changed fails them."""
    command = [python, "-m", module, *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"awspub and img-proof are not installed: {error}")
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip()
        if MEDDLED in said:
            pytest.fail(f"a package is not the one that was locked: {said}")
        pytest.skip(f"awspub and img-proof cannot be installed: {said.splitlines()[-1] if said else error}")
