"""Waivers: controls of hardening that may fail for a time, as the spec decided. They change no check; they show."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import ControlWaiver


def waive(results: Iterable[Result], waivers: Iterable[ControlWaiver]) -> tuple[Result, ...]:
    """Return the results, those that failed for nothing but waived controls as not applicable, with the reason.

    What could not be asked is not waived: nobody knows what it would have said.
    """
    waived = {waiver.control: waiver for waiver in waivers}
    return tuple(
        excuse(result, [waived[control] for control in result.controls])
        if result.status is Status.FAIL and set(result.controls) <= waived.keys()
        else result
        for result in results
    )


def excuse(result: Result, waivers: list[ControlWaiver]) -> Result:
    """Return a failure as what it is waived to."""
    why = "; ".join(describe(waiver) for waiver in waivers)
    said = f"; it failed: {result.detail}" if result.detail else ""
    return replace(result, status=Status.NOT_APPLICABLE, detail=f"{why}{said}")


def list_waivers(waivers: Iterable[ControlWaiver]) -> Iterator[Result]:
    """Yield a result for each waiver, so that every report shows it, whether its control fails or not."""
    for waiver in waivers:
        yield Result(
            controls=(waiver.control,),
            layer=Layer.HARDENED,
            status=Status.NOT_APPLICABLE,
            title=f"{waiver.control} may fail until {waiver.expires}",
            source="spec/waivers",
            detail=describe(waiver),
        )


def describe(waiver: ControlWaiver) -> str:
    """Return a waiver in words."""
    return f"waived until {waiver.expires}: {waiver.reason}"
