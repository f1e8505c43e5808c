"""A clean image is clean: nothing is found on the base images that the local cloud made of their own packages."""

import pytest

from pipeline.localcloud.base_image import cached_path, default_cache, host_sources
from pipeline.localcloud.distributions import DISTRIBUTIONS, Suite
from pipeline.residue.scan import scan_image


@pytest.mark.end_to_end
@pytest.mark.parametrize("suite", DISTRIBUTIONS)
def test_a_base_image_has_no_finding(suite: Suite) -> None:
    image = cached_path(suite, host_sources(DISTRIBUTIONS[suite]), default_cache())
    if not image.exists():
        pytest.skip(f"the local cloud has not made {image.name} yet")
    report = scan_image(image)
    assert report.findings == ()
    report.require_clean(str(image))
