"""Fixtures of the local cloud's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localcloud.clouds import LocalCloud, running


@pytest.fixture
def local_cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    """Run a cloud with fake guests; the test needs the marks `loopback` and `subprocess` (qemu-img)."""
    with running(tmp_path) as started:
        yield started
