"""Mount options: nothing runs from the folders that all may write to."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import MountsOptions, Spec

PLACES = ("/dev/shm", "/tmp", "/var/tmp")


@pytest.mark.controls("H25", layers="LB")
def test_shared_folders(spec: Spec, layer: str, ask: Ask) -> None:
    """Folders that all may write to are mounted without devices, set-user-id programs and, if so wanted, programs."""
    if spec.harden.mounts is None:
        pytest.skip("the spec leaves mounts as the base image has them (harden.mounts)")
    lines = ask("cat /etc/fstab" if layer == "L" else "cat /proc/mounts").splitlines()
    fields = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    options = {place: set(line[3].split(",")) for line in fields for place in PLACES if line[1] == place}
    assert {place: limits_of(spec.harden.mounts) - options.get(place, set()) for place in PLACES} == {
        place: set() for place in PLACES
    }


def limits_of(wanted: MountsOptions) -> set[str]:
    """Return the options that each folder must have."""
    return {"nosuid", "nodev", "noexec"} if wanted.noexec else {"nosuid", "nodev"}
