"""Where the peers that are written in Python are installed."""

from pathlib import Path

import pytest

from tests.peers.environment import PackageMeddled, PeersMissing, make_environment

LOCK = Path(__file__).with_name("requirements.lock")


@pytest.fixture(scope="session")
def python_peers() -> Path:
    """Return the folder of awspub's and img-proof's programs.

    Where they cannot be installed the tests are skipped; a package that was changed fails them.
    """
    try:
        return make_environment(".venv-peers", LOCK)
    except PeersMissing as error:
        pytest.skip(f"awspub and img-proof cannot be installed: {error}")
    except PackageMeddled as error:
        pytest.fail(f"a package is not the one that was locked: {error}")
