"""Proofs of guests that are ready already: the checks are started and asked in one go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.evidence import Layer, Result
from pipeline.spec import Spec
from pipeline.verify.ahead import Shell
from pipeline.verify.live import CHECKS, start_checks


def prove(
    shells: Sequence[Shell],
    layer: Layer,
    spec: Spec,
    folder: Path,
    expectations: Mapping[str, str],
    *,
    spec_folder: Path | None = None,
    checks: Path = CHECKS,
    **how: Any,
) -> tuple[Result, ...]:
    """Return one result for each check of a layer, as `start_checks` and `Checks.prove` have it."""
    with start_checks(layer, spec, folder, spec_folder=spec_folder, checks=checks) as started:
        return started.prove(shells, expectations, **how)
