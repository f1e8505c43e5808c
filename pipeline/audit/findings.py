"""The form of an audit: facts gathered side by side, checks that judge them, lines that say what came of it.

A fact that could not be read is its error: what depends on it is `unknown` when the caller may not ask, and
`unreachable` when nobody answered. Neither is a pass.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial

from pipeline.aws.session import Session, is_denied
from pipeline.errors import AssayError, AuditFailed, AuditIncomplete
from pipeline.report.catalogue import CATALOGUE
from pipeline.report.text import make_visible

Facts = dict[str, object]
Readers = dict[str, Callable[[], object]]
SIDE_BY_SIDE = 32
"""Facts read at a time: a far region is 300 ms away."""


class Verdict(StrEnum):
    """What an audit says of one thing."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNKNOWN = "unknown"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Line:
    """One line of an audit."""

    control: str
    verdict: Verdict
    region: str
    subject: str
    """What it is about: a user, a group, a setting."""
    title: str
    detail: str
    asked: str
    """The calls that it comes from."""

    @property
    def source(self) -> str:
        """Who asks for it, in the catalogue of controls."""
        return " ".join(CATALOGUE[self.control].sources)


@dataclass(frozen=True)
class Bad:
    """One thing that is not as it should be."""

    subject: str
    detail: str


@dataclass(frozen=True)
class Check:
    """One check of a control: the facts that it needs, and what it finds wrong in them."""

    control: str
    title: str
    asked: str
    needs: tuple[str, ...]
    judge: Callable[..., Iterable[Bad]]
    """Gets the needed facts in order; yields nothing when all is well."""


def gather(readers: Mapping[str, Callable[[], object]]) -> Facts:
    """Return what each reader returns, or the error that it raised; all are read at once."""
    with ThreadPoolExecutor(min(SIDE_BY_SIDE, max(1, len(readers)))) as pool:
        futures = {name: pool.submit(read, reader) for name, reader in readers.items()}
        return {name: future.result() for name, future in futures.items()}


def read(reader: Callable[[], object]) -> object:
    """Return a fact, or why it is not known."""
    try:
        return reader()
    except AssayError as error:
        return error


def in_each(there: Mapping[str, Session], readers: Mapping[str, Callable[[Session], object]]) -> Readers:
    """Return readers of the same facts in every region, for one gathering; `of_region` takes them apart again."""
    return {
        f"{region} {name}": partial(reader, session)
        for region, session in there.items()
        for name, reader in readers.items()
    }


def of_region(facts: Facts, region: str) -> Facts:
    """Return the facts of one region, by their own names."""
    return {name.removeprefix(f"{region} "): fact for name, fact in facts.items() if name.startswith(f"{region} ")}


def judge(checks: Iterable[Check], facts: Facts, region: str) -> Iterator[Line]:
    """Yield the lines of the checks in their order: one for each thing that is bad, or one that passes."""
    for check in checks:
        values = [facts[name] for name in check.needs]
        errors = [value for value in values if isinstance(value, AssayError)]
        if errors:
            verdict = Verdict.UNKNOWN if is_denied(errors[0]) else Verdict.UNREACHABLE
            yield line(check, verdict, region, Bad("", str(errors[0])))
            continue
        found = [line(check, Verdict.FAIL, region, bad) for bad in check.judge(*values)]
        yield from found or [line(check, Verdict.PASS, region, Bad("", ""))]


def line(check: Check, verdict: Verdict, region: str, about: Bad) -> Line:
    """Return one line. Names come from the cloud: control characters in them are written out."""
    return Line(
        check.control,
        verdict,
        region,
        make_visible(about.subject),
        check.title,
        make_visible(about.detail),
        check.asked,
    )


def as_json(lines: Iterable[Line]) -> str:
    """Return the lines as JSON."""
    return json.dumps([{**asdict(one), "source": one.source} for one in lines], indent=2)


def as_table(lines: Iterable[Line]) -> Iterator[str]:
    """Yield the lines as a table for people: what is bad first within each control's order, nothing cut off."""
    rows = [("verdict", "control", "region", "what", "source"), *(cells(one) for one in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        head = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        yield f"{head}  {row[3]}  [{row[4]}]"


def cells(one: Line) -> tuple[str, str, str, str, str]:
    """Return the cells of one line."""
    what = ": ".join(part for part in (one.title, one.subject, one.detail) if part)
    return one.verdict, one.control, one.region, what, f"{one.source}; {one.asked}"


def require_sound(lines: Iterable[Line]) -> None:
    """Raise AuditFailed when anything is bad, AuditIncomplete when anything is not known."""
    verdicts = [one.verdict for one in lines]
    if bad := verdicts.count(Verdict.FAIL):
        raise AuditFailed(f"{bad} of {len(verdicts)} lines fail")
    if unasked := len(verdicts) - verdicts.count(Verdict.PASS):
        raise AuditIncomplete(f"{unasked} of {len(verdicts)} lines could not be asked: they are not a pass")
