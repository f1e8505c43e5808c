"""Profiles: what they set, who wins, and that each setting is a real option with a control and a source."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import SpecInvalid
from pipeline.localcloud.authority import make_certificate
from pipeline.plan import describe_hardening
from pipeline.report.catalogue import CATALOGUE
from pipeline.spec import Harden, Spec, load_spec
from pipeline.spec.profiles import PROFILES, Setting, overlay, with_profiles
from tests.harden.samples import KEY

SETTINGS = [(name, setting) for name, settings in PROFILES.items() for setting in settings]
CODE = "abcdefghijklmnopqrstuvwxy"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("authority")
    make_certificate(folder / "key", folder / "certificate")
    return (folder / "certificate").read_text()


def test_the_baseline_is_what_a_spec_has_that_says_nothing() -> None:
    assert Harden.model_validate({"profile": "baseline"}) == Harden() == Harden.model_validate({})


@pytest.mark.parametrize(("name", "setting"), SETTINGS, ids=[f"{name}-{setting.option}" for name, setting in SETTINGS])
def test_a_setting_is_an_option_with_a_control_and_a_source(name: str, setting: Setting) -> None:
    value: Any = Harden.model_validate({"profile": name})
    for key in setting.option.split("."):
        value = getattr(value, key)
    assert value == setting.value if setting.value != {} else value is not None
    assert setting.control in CATALOGUE
    assert {word.strip("[]") for word in setting.source.split()} <= {"0", "1", "2", "3", "4", "DS", "CIS", "MP"}


@pytest.mark.parametrize(
    ("given", "option", "value"),
    [
        ({"profile": "strict", "login": {"idle_minutes": 0}}, "login.idle_minutes", 0),
        ({"profile": "strict", "login": {"idle_minutes": 0}}, "login.umask", "027"),
        ({"profile": "strict", "audit": None}, "audit", None),
        ({"profile": "strict", "sshd": None}, "sshd", None),
        ({"profile": "strict", "firewall": {"forward": True}}, "firewall.forward", True),
        ({"profile": "strict", "updates": {"at_build": "security"}}, "updates.at_build", "security"),
        ({"profile": "paid", "launch_user_sudo": True}, "launch_user_sudo", True),
        ({"profile": ["strict", "paid"]}, "mandatory_access", True),
        ({"profile": ["strict", "paid"]}, "launch_user_sudo", False),
    ],
)
def test_what_the_spec_says_wins_over_its_profile(given: dict[str, Any], option: str, value: object) -> None:
    found: Any = Harden.model_validate(given)
    for key in option.split("."):
        found = getattr(found, key)
    assert found == value


def test_a_spec_read_back_from_its_own_values_is_the_same() -> None:
    strict = Harden.model_validate({"profile": ["strict", "paid"], "audit": None})
    assert Harden.model_validate(strict.model_dump(mode="json")) == strict


def test_the_later_profile_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipeline.spec.profiles.PROFILES",
        {"one": (Setting("a.b", 1, "H01", ""), Setting("a.c", 1, "H01", "")), "two": (Setting("a.b", 2, "H01", ""),)},
    )
    assert with_profiles({"profile": ["one", "two"]}) == {"profile": ["one", "two"], "a": {"b": 2, "c": 1}}


def test_an_overlay_changes_neither_of_its_parts() -> None:
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert overlay(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def read(folder: Path, **changes: Any) -> Spec:
    plain = {
        "name": "sample",
        "cloud": "local",
        "region": "eu-central-1",
        "base_image": {"id": "ami-12345678", "owner": "123456789012"},
    }
    (folder / "sample.yaml").write_text(yaml.safe_dump({**plain, **changes}))
    return load_spec(folder / "sample.yaml")


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(SpecInvalid) as error:
        read(folder, **changes)
    return str(error.value)


def test_a_plan_shows_what_a_profile_sets_and_where_the_spec_decides(tmp_path: Path) -> None:
    waiver = {"control": "H25", "reason": "an agent runs from /tmp", "expires": "2999-01-01"}
    harden = {"profile": "strict", "audit": None, "login": {"idle_minutes": 0}}
    lines = describe_hardening(read(tmp_path, harden=harden, waivers=[waiver]))
    assert lines[0] == "profile strict"
    assert "login.umask: 027 (H25; DS CIS)" in lines
    assert "login.idle_minutes: 15 (H25; DS CIS); the spec says 0" in lines
    assert "audit: on (H25; DS CIS); the spec says None" in lines
    assert lines[-1] == "waived until 2999-01-01: H25, an agent runs from /tmp"
    assert describe_hardening(read(tmp_path)) == ("profile baseline",)


def test_a_profile_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    assert "did you mean strict?" in refusal(tmp_path, harden={"profile": "strickt"})
    assert "must be 'baseline'" in refusal(tmp_path, harden={"profile": ["strict", "hard"]})


def test_the_paid_profile_says_what_it_needs(tmp_path: Path) -> None:
    said = refusal(tmp_path, harden={"profile": "paid"})
    assert "harden.product_guard.services: names no unit" in said
    assert "harden.product_guard.certificates: has none for eu-central-1" in said
    assert "share.product_codes: is empty" in said
    assert "ssh.administrator_key_file: is required" in said
    assert "users: has nobody with sudo" in said
    assert said.startswith(f"{tmp_path / 'sample.yaml'} has 5 problems")


def test_a_paid_image_is_read(tmp_path: Path, certificate: str) -> None:
    guard = {"services": ["nginx.service"], "certificates": {"eu-central-1": certificate}}
    sudo = {"who": "the vendor", "why": "support"}
    paid = read(
        tmp_path,
        harden={"profile": "paid", "product_guard": guard},
        share={"product_codes": [CODE]},
        ssh={"administrator_key_file": "~/.ssh/vendor"},
        users=[{"name": "vendor", "full_name": "Vendor", "keys": [KEY], "sudo": sudo}],
    )
    assert paid.harden.product_guard and paid.harden.product_guard.services == ("nginx.service",)
    assert not paid.harden.launch_user_sudo


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        ({"services": ["nginx"]}, "is not a unit"),
        ({"services": ["../x.service"]}, "is not a unit"),
        ({"certificates": {"eu-central-1": "no certificate"}}, "not a certificate in PEM form"),
        ({"certificates": {"nowhere": "x"}}, "is not a region"),
        ({"certificate": "x"}, "did you mean certificates?"),
    ],
)
def test_a_guard_that_would_not_guard_is_refused(tmp_path: Path, guard: dict[str, Any], reason: str) -> None:
    assert reason in refusal(tmp_path, harden={"product_guard": guard})


def test_a_customer_who_is_root_after_all_is_refused(tmp_path: Path) -> None:
    sudo = {"who": "the platform team", "why": "on call"}
    users = [{"name": "admin", "full_name": "A", "keys": [KEY], "sudo": sudo}]
    said = refusal(tmp_path, harden={"launch_user_sudo": False, "first_boot": False}, users=users)
    assert "needs harden.first_boot" in said
    assert "grants sudo to the launch user" in said


def test_a_waiver_has_a_control_a_reason_and_an_end(tmp_path: Path) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    waiver = {"control": "H20", "reason": "the firewall is the gateway's", "expires": tomorrow.isoformat()}
    (one,) = read(tmp_path, waivers=[waiver]).waivers
    assert (one.control, one.expires) == ("H20", tomorrow)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expires": "2020-01-01"}, "waivers[0].expires: expired on 2020-01-01"),
        ({"expires": "soon"}, "waivers[0].expires"),
        ({"expires": None}, "waivers[0].expires: is empty"),
        ({"control": "S01"}, "is not a control of hardening"),
        ({"control": "H33"}, "is not a control of hardening"),
        ({"reason": "because"}, "waivers[0].reason"),
    ],
)
def test_a_waiver_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    waiver = {"control": "H20", "reason": "the firewall is the gateway's", "expires": "2999-01-01"}
    assert reason in refusal(tmp_path, waivers=[{**waiver, **change}])


def test_a_control_is_waived_once(tmp_path: Path) -> None:
    waiver = {"control": "H20", "reason": "the firewall is the gateway's", "expires": "2999-01-01"}
    assert "a waiver of H20 stands at waivers[0].control already" in refusal(tmp_path, waivers=[waiver, dict(waiver)])
