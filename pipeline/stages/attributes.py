"""What an image says of itself on the AWS side, compared with what was asked for (A08-A13)."""

from collections.abc import Iterable, Iterator

from pipeline.aws.images import Image
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec

Comparison = tuple[str, str, object, object]
"""The control, what is so when it passes, what is wanted, and what was found."""


def prove_attributes(image: Image, spec: Spec) -> Iterator[Result]:
    """Compare an image that exists, whoever made it, with what a spec asks of every image (A11, A12, A13)."""
    disks, codes = image.block_devices, sorted(spec.share.product_codes)
    comparisons: list[Comparison] = [
        ("A12", "it is available", "available", image.state),
        ("A12", "every launch requires IMDSv2", "v2.0" if spec.image.imds == "v2.0" else "", image.imds),
        ("A12", "the architecture is as asked", spec.image.architecture, image.architecture),
        ("A12", "it is an HVM image with enhanced networking", ("hvm", True), (image.virtualization, image.ena)),
        ("A12", "its root disk is on EBS", "ebs", image.root_device_type),
        ("A12", "no instance store is mapped", [], [disk.device_name for disk in disks if disk.virtual_name]),
        ("A12", "every disk ends with its instance", [], [d.device_name for d in disks if not d.delete_on_termination]),
        ("A11", "it carries the product codes of the spec", codes, sorted(image.product_codes)),
        ("A13", "it has a name and a description", True, bool(image.name and image.description)),
    ]
    if spec.image.boot_mode:
        comparisons.append(("A12", "the boot mode is as asked", spec.image.boot_mode, image.boot_mode))
    return compare(comparisons, "stages/attributes")


def compare(comparisons: Iterable[Comparison], source: str) -> Iterator[Result]:
    """Yield a result for each comparison; what differs says how."""
    for control, title, wanted, found in comparisons:
        yield Result(
            controls=(control,),
            layer=Layer.AWS,
            status=Status.PASS if wanted == found else Status.FAIL,
            title=title,
            source=source,
            detail="" if wanted == found else f"wanted {wanted!r}, found {found!r}",
        )
