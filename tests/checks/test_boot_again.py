"""What a later boot made anew is found: on a small Debian, whose first boot is what was read of it before the plant."""

import pytest

from pipeline.report.evidence import Layer, Status
from pipeline.verify.fresh_boot import read_what_stays
from pipeline.verify.live import CHECKS
from tests.checks.small_debian import GOOD, ChrootShell, make_debian, missing_here, overlay
from tests.verify.proving import prove
from tests.verify.specs import make_spec

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]

MADE_AT_FIRST_BOOT = """
ssh-keygen -A >/dev/null
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo root:first | chpasswd && usermod -L root
"""
PLANTS = {
    "the_machine_id_stays": "echo 123456789abcdef0123456789abcdef0 >/etc/machine-id",
    "the_host_keys_stay": "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -A",
    "the_root_password_stays": "echo root:again | chpasswd && usermod -L root",
    "authorized_keys_stay": "echo ssh-ed25519 AAAA another >>/home/admin/.ssh/authorized_keys",
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A function that plants something after the first boot, and returns which checks fail."""
    folder = tmp_path_factory.mktemp("again")
    debian = make_debian()
    with overlay(folder, debian) as root:
        assert ChrootShell(root).run(GOOD + MADE_AT_FIRST_BOOT).exit_status == 0

    def run(script):
        place = tmp_path_factory.mktemp("planted")
        with overlay(place, folder / "changes", debian) as root:
            shell = ChrootShell(root)
            stays = read_what_stays(shell.run) | {"earlier_boot_id": "another boot"}
            assert shell.run(script).exit_status == 0
            results = prove(
                [shell],
                Layer.FRESH_BOOT,
                make_spec(),
                place,
                stays,
                checks=CHECKS / "test_boot_again.py",
                recordings=place,
            )
        assert {result.status for result in results} <= {Status.PASS, Status.FAIL}
        return [one.source.partition("::test_")[2] for one in results if one.status is Status.FAIL]

    return run


def test_an_instance_that_stays_itself_passes(failing):
    assert failing("true") == []


@pytest.mark.parametrize("check", PLANTS)
def test_what_is_made_anew_is_found_by_its_check_and_by_no_other(failing, check):
    assert failing(PLANTS[check]) == [check]


def test_a_boot_that_never_happened_is_found(tmp_path):
    with overlay(tmp_path, make_debian()) as root:
        shell = ChrootShell(root)
        stays = {"earlier_boot_id": read_what_stays(shell.run)["earlier_boot_id"]}
        results = prove(
            [shell],
            Layer.FRESH_BOOT,
            make_spec(),
            tmp_path,
            stays,
            checks=CHECKS / "test_boot_again.py",
            recordings=tmp_path,
        )
    assert [one.status for one in results if "booted_again" in one.source] == [Status.FAIL]
