"""The image is registered as the spec says, and what it says of itself is compared with that."""

from dataclasses import replace

import pytest

from pipeline.aws.images import BlockDevice as FoundDisk
from pipeline.aws.images import Image
from pipeline.report.evidence import Status
from pipeline.spec import BaseImage, BlockDevice, Harden, ProductGuard, Share, Spec
from pipeline.spec import Image as WantedImage
from pipeline.stages.seal import attribute_results, register_as

ROOT = FoundDisk("/dev/xvda", "snap-1", 4, "gp3", encrypted=False, delete_on_termination=True, virtual_name=None)
BASE = Image(
    image_id="ami-1",
    name="debian-12",
    description="base",
    owner_id="136693071363",
    creation_date="2026-01-01T00:00:00.000Z",
    state="available",
    reason="",
    public=True,
    architecture="x86_64",
    root_device_name="/dev/xvda",
    root_device_type="ebs",
    virtualization="hvm",
    ena=True,
    sriov="",
    boot_mode="uefi-preferred",
    imds="v2.0",
    tpm="",
    deprecated_after="",
    block_devices=(ROOT,),
    product_codes=(),
    tags={},
)
MADE = replace(BASE, image_id="ami-2", public=False, description="proved")


def spec(**image) -> Spec:
    return Spec(
        name="web",
        region="eu-central-1",
        base_image=BaseImage(id="ami-0123456789abcdef0", owner="136693071363"),
        image=WantedImage(**({"description": "proved"} | image)),
    )


def failures(image: Image, wanted: Spec) -> list[str]:
    return [result.title for result in attribute_results(image, BASE, wanted) if result.status is not Status.PASS]


def test_an_image_as_asked_passes_everything():
    assert failures(MADE, spec()) == []


@pytest.mark.parametrize(
    ("difference", "title"),
    [
        ({"imds": ""}, "every launch requires IMDSv2"),
        ({"boot_mode": "legacy-bios"}, "the boot mode is as asked"),
        ({"architecture": "arm64"}, "the architecture is as asked"),
        ({"ena": False}, "ENA support is as in the base image"),
        ({"block_devices": (ROOT, replace(ROOT, device_name="/dev/sdb"))}, "no disk but those of the spec"),
        ({"block_devices": (replace(ROOT, virtual_name="ephemeral0"),)}, "no instance store is mapped"),
        ({"block_devices": (replace(ROOT, delete_on_termination=False),)}, "every disk ends with its instance"),
        ({"description": ""}, "the description is set"),
        ({"public": True}, "nobody else may launch it yet"),
    ],
)
def test_each_wrong_attribute_fails_its_own_result_and_no_other(difference, title):
    assert failures(replace(MADE, **difference), spec()) == [title]


def test_an_unencrypted_disk_fails_where_the_spec_wants_encryption():
    assert failures(MADE, spec(encryption={"kms_key_id": "alias/images"})) == ["every disk is encrypted"]


def test_an_image_without_the_codes_that_its_guard_asks_for_fails():
    code = "abcdefghijklmnopqrstuvwxy"
    guarded = spec().model_copy(
        update={
            "harden": Harden(product_guard=ProductGuard(services=("web.service",))),
            "share": Share(product_codes=(code,)),
        }
    )

    assert failures(MADE, guarded) == ["it carries the codes that its guard asks for"]
    assert failures(replace(MADE, product_codes=(code,)), guarded) == []


def test_registration_is_as_the_base_image_but_for_what_the_spec_says():
    wanted = spec(
        boot_mode="uefi",
        block_devices=(
            BlockDevice(device_name="/dev/xvda", size_gib=9, type="gp2"),
            BlockDevice(device_name="/dev/sdf", size_gib=20),
        ),
    )
    made = register_as(wanted, BASE, "web-1", "snap-9")

    assert (made.root_snapshot_id, made.root_size_gib, made.root_type, made.boot_mode) == ("snap-9", 9, "gp2", "uefi")
    assert [(volume.device_name, volume.size_gib) for volume in made.extra_volumes] == [("/dev/sdf", 20)]
    assert (made.imds, made.ena, made.architecture) == ("v2.0", True, "x86_64")


def test_registration_without_words_of_the_spec_is_the_base_images():
    made = register_as(spec(), BASE, "web-1", "snap-9")

    assert (made.root_size_gib, made.boot_mode, made.extra_volumes) == (4, "uefi-preferred", ())
