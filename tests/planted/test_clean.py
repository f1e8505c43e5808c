"""A clean image is clean: nothing is found on the base images that the local cloud made of Debian's own packages."""

import pytest

from pipeline.localcloud.base_image import RELEASES, Suite, default_cache, host_sources, recipe_digest
from pipeline.residue.scan import scan_image


@pytest.mark.end_to_end
@pytest.mark.parametrize("suite", RELEASES)
def test_a_base_image_has_no_finding(suite: Suite) -> None:
    image = default_cache() / f"debian-{RELEASES[suite]}-{recipe_digest(suite, host_sources())[:16]}.raw"
    if not image.exists():
        pytest.skip(f"the local cloud has not made {image.name} yet")
    report = scan_image(image)
    assert report.findings == ()
    report.require_clean(str(image))
