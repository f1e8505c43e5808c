"""A clean image is clean: no pattern and no file name finds anything on the base images that the local cloud made."""

from pathlib import Path

import pytest

from pipeline.residue.scan import scan_image

IMAGES = sorted(Path.home().glob(".cache/assay/images/*.raw"))


@pytest.mark.end_to_end
@pytest.mark.parametrize("image", IMAGES or [None], ids=lambda image: image.name if image else "none")
def test_a_base_image_has_no_finding(image: Path | None) -> None:
    if image is None:
        pytest.skip("the local cloud has made no base image yet")
    report = scan_image(image)
    assert report.findings == ()
    report.require_clean(str(image))
