"""The page: what it says, for whom it can be read, and that no text of a guest becomes anything but text."""

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings

from pipeline.report import html
from pipeline.report.catalogue import CATALOGUE, SOURCES
from pipeline.report.evidence import Evidence, Layer, Result, Stage, Status
from pipeline.report.html import render_html, timeline_of, verdict_of
from tests.report.evidence_examples import CLEAN, FULL, START, result
from tests.report.hostile import HOSTILE
from tests.report.test_render import evidences

STYLE = Path(html.__file__).with_name("page.css").read_text()
VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and whether what is opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


EXAMPLES = {"full": FULL, "clean": CLEAN, "hostile": HOSTILE, "begun": FULL.model_copy(update={"finished": None})}
BARE = Evidence(build_id="b", spec_name="s", spec_digest="0", region="r", started=START)


@pytest.mark.parametrize("evidence", [*EXAMPLES.values(), BARE], ids=[*EXAMPLES, "bare"])
def test_page_is_well_formed_and_every_link_in_it_leads_somewhere(evidence: Evidence) -> None:
    page = Page(render_html(evidence))
    assert page.open == []
    identities = Counter(str(attributes["id"]) for _, attributes in page.tags if "id" in attributes)
    assert set(identities.values()) == {1}
    targets = {str(link["href"]) for link in page.having("a")}
    assert {target[1:] for target in targets if target.startswith("#")} <= identities.keys()
    assert {target for target in targets if not target.startswith("#")} == {"report.json", "junit.xml", "report.sarif"}


@pytest.mark.parametrize("evidence", EXAMPLES.values(), ids=list(EXAMPLES))
def test_page_runs_nothing_and_asks_no_network(evidence: Evidence) -> None:
    text = render_html(evidence)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "img", "link", "object", "embed", "form", "base"}
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")}
    assert "url(" not in STYLE and "@import" not in STYLE
    policy = next(str(meta["content"]) for meta in page.having("meta") if "Policy" in (meta.get("http-equiv") or ""))
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert f"<style>{STYLE}</style>" in text


def test_hostile_text_is_shown_as_text() -> None:
    page = Page(render_html(HOSTILE))
    assert "<script>document.title='owned'</script>" in page.text
    assert "{{ ''.__class__ }}{% include '/etc/passwd' %}" in page.text
    assert r"got \x1b[31m\x1b]0;owned\x07" in page.text
    assert not any(ord(character) < 32 and character != "\n" for character in render_html(HOSTILE))
    assert "\u202e" not in page.text


@pytest.mark.parametrize("evidence", EXAMPLES.values(), ids=list(EXAMPLES))
def test_page_can_be_read_without_eyes_and_without_a_mouse(evidence: Evidence) -> None:
    page = Page(render_html(evidence))
    names = [tag for tag, _ in page.tags]
    assert [names.count(landmark) for landmark in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    assert page.having("html")[0]["lang"] == "en"
    assert next(link for link in page.having("a"))["href"] == "#content"
    assert all(cell.get("scope") in ("col", "row") for cell in page.having("th"))
    assert all("aria-labelledby" in section for section in page.having("section"))
    assert {box["id"] for box in page.having("input")} == {label["for"] for label in page.having("label")}
    levels = [int(name[1]) for name in names if re.fullmatch(r"h\d", name)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all("aria-labelledby" in drawing for drawing in page.having("svg"))
    for scrolls in (one for _, one in page.tags if one.get("role") == "region"):
        assert scrolls["tabindex"] == "0"


def test_no_status_is_shown_by_colour_alone() -> None:
    text = render_html(FULL)
    shown = re.findall(r'<span class="mark ([a-z-]+)">(.) (.*?)</span>', text)
    drawn = re.findall(r'<span class="mark ([a-z-]+)" role="img" aria-label="(.*?)">(.)</span>', text)
    assert len(shown) + len(drawn) == text.count('class="mark')
    for marks in (shown, [(status, sign, words) for status, words, sign in drawn]):
        assert {status for status, *_ in marks} == {*map(str, Status), "open"}
        assert len({sign for _, sign, _ in marks}) == 5
        assert all(words == ("no evidence" if status == "open" else status) for status, _, words in marks)


@pytest.mark.parametrize(
    ("change", "word", "status"),
    [
        ({"exit_status": 0, "error": None}, "Proved", Status.PASS),
        ({"exit_status": 0, "error": None, "finished": None}, "Not finished", Status.UNREACHABLE),
        ({"exit_status": 40}, "Not proved", Status.FAIL),
        ({"exit_status": 41}, "Residue found", Status.FAIL),
        ({"exit_status": 50}, "Not shared", Status.FAIL),
        ({"exit_status": 60}, "Not cleaned up", Status.FAIL),
        ({"exit_status": 130}, "Interrupted", Status.UNREACHABLE),
        ({"exit_status": 1}, "Failed", Status.FAIL),
        ({"exit_status": 14}, "Failed", Status.FAIL),
    ],
)
def test_only_a_build_that_ended_well_is_called_proved(change: dict[str, object], word: str, status: Status) -> None:
    verdict = verdict_of(FULL.model_copy(update=change))
    assert (verdict.word, verdict.status) == (word, status)
    assert f"<h1>{word}</h1>" in render_html(FULL.model_copy(update=change))


def test_page_says_all_that_the_evidence_says() -> None:
    text = Page(render_html(FULL)).text
    for words in (
        *("ami-0feed", "web-b1", "snap-1", "ami-00000001", "136693071363", "eu-central-1", "0" * 64),
        *("private key", "block 7", "SHA256:abc", "volume", "vol-1", "in use", "i-1", "sshd 9.2 does not know it"),
        *("prove fresh boot", "1 min 01 s", "one check failed", "no answer", "3 min 05 s"),
        *(control.title for control in CATALOGUE.values()),
        *SOURCES.values(),
    ):
        assert words in text, words


def test_differences_to_the_build_before_are_shown_the_many_folded() -> None:
    page = Page(render_html(FULL))
    for words in (
        "b0",
        "ami-0fade",
        "telnetd amd64",
        "0.17-41",
        "not there",
        "7.88.1-11",
        "30 changes",
        "The same: ports.",
    ):
        assert words in page.text, words
    parts = {str(part["aria-label"]) for part in page.having("div") if "aria-label" in part}
    assert {"Differences: identity", "Differences: packages", "Differences: results"} <= parts
    assert "Differences: ports" not in parts
    assert [name for name, attributes in page.tags if name == "details" and "open" in attributes] == ["details"] * 2


def test_a_first_build_says_that_there_is_nothing_to_compare_with() -> None:
    assert "no earlier proved build" in Page(render_html(FULL.model_copy(update={"previous": None}))).text
    assert "no earlier proved build" not in Page(render_html(BARE)).text


def test_figures_count_controls_by_their_worst_and_say_what_has_no_evidence() -> None:
    text = Page(render_html(FULL)).text
    # H01 and R03 fail, H02 is unreachable, H04 does not apply; all the others were not asked.
    assert re.search(r" 0 controls pass\s+2 fail\s+1 could not be asked\s+1 not applicable", text)
    assert f"{len(CATALOGUE) - 4} of the catalogue without evidence" in text
    # H01, H02, H04: nothing at G. R03 is of one layer only.
    assert "3 of the controls above have no evidence at one of their layers" in text


def test_missing_evidence_is_no_pass() -> None:
    rows = {row.identity: row for _, section in html.matrix_sections(CLEAN) for row in section}
    cells = {cell.layer: cell for cell in rows["H01"].cells}
    assert (cells[Layer.LIVE].status, cells[Layer.LIVE].is_open) == (Status.PASS, False)
    assert (cells[Layer.HARDENED].status, cells[Layer.HARDENED].is_open) == (None, True)
    assert not cells[Layer.AWS].is_open
    assert rows["H02"].status is None


def test_controls_that_no_catalogue_knows_are_shown() -> None:
    own = Result(
        controls=("WEB-1",), layer=Layer.LIVE, status=Status.FAIL, title="our own check", source="checks-of-web"
    )
    page = Page(render_html(CLEAN.model_copy(update={"results": (own,)})))
    assert "Of the spec's own checks" in page.text
    assert any(attributes.get("id") == "of-WEB-1" for _, attributes in page.tags)


def test_a_result_without_a_control_is_shown_when_it_fails() -> None:
    own = replace(result("H01", Layer.LIVE, Status.FAIL), controls=(), title="of nobody")
    assert "of nobody" in Page(render_html(CLEAN.model_copy(update={"results": (own,)}))).text


def test_chart_has_a_bar_for_each_stage_where_it_belongs() -> None:
    part = Stage(name="boot", started=START + timedelta(seconds=10), seconds=20, status=Status.PASS)
    stage = Stage(name="launch", started=START, seconds=50, status=Status.PASS, parts=(part,))
    evidence = FULL.model_copy(update={"stages": (stage,), "finished": START + timedelta(seconds=100)})
    chart = timeline_of(evidence)
    assert [(bar.stage.name, bar.depth, bar.start, bar.width) for bar in chart.bars] == [
        ("launch", 0, 0, 50),
        ("boot", 1, 10, 20),
    ]
    assert chart.ticks == ((0, "0:00"), (30, "0:30"), (60, "1:00"), (90, "1:30"))


def colours(of: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", of))


LIGHT, DARK = (colours(part) for part in STYLE.split("@media", 2)[:2])


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(palette: dict[str, str]) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    statuses = ("pass", "fail", "unreachable", "not-applicable")
    pairs = [(status, f"{status}-ground") for status in statuses]
    pairs += [(ink, ground) for ink in ("ink", "quiet", "gold", *statuses) for ground in ("ground", "sheet")]
    pairs += [("quiet", "not-applicable-ground"), ("gold", "not-applicable-ground")]
    for ink, ground in pairs:
        light, dark = sorted((luminance(palette[ink]), luminance(palette[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


@settings(max_examples=30)
@given(evidences)
def test_no_text_breaks_the_page(evidence: Evidence) -> None:
    page = Page(render_html(evidence))
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(render_html(FULL)).tags}
