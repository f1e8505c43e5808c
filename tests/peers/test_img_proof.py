"""img-proof launches an instance of an image, runs its tests over ssh, stops and starts it, and takes it away again."""

from pathlib import Path

import pytest

from tests.end_to_end import cloud_client, cloud_status
from tests.peers.img_proof import REGION, access, debian, launched, run_img_proof

pytestmark = pytest.mark.end_to_end


def test_an_image_is_launched_tested_and_rebooted(
    local_cloud: dict[str, str], python_peers: Path, tmp_path: Path
) -> None:
    if cloud_status(local_cloud)["ssh_port"] != 22:
        pytest.skip("img-proof knows port 22 only, which users other than root do not get here")
    with access(local_cloud, tmp_path) as way_in:
        names = ("test_debian", "test_hard_reboot", "test_failing")
        status, outcomes, said = run_img_proof(
            python_peers / "img-proof", local_cloud, tmp_path, way_in, names, image_id=debian(local_cloud)
        )
        assert outcomes == {
            "test_launch_user_is_an_administrator": "passed",
            "test_machine_is_ec2": "passed",
            "test_hard_reboot": "passed",
            "test_nobody_has_a_file_like_this": "failed",
        }, said
        assert status == 1
        assert list(launched(cloud_client(local_cloud, "ec2", REGION)).values()) in (["shutting-down"], ["terminated"])
