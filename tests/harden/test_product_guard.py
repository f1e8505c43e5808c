"""The product-code guard, run in real shells against the local cloud's metadata service with real signatures."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.harden import product_guard
from pipeline.localcloud import metadata
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.spec import ProductGuard
from tests.harden.samples import DEBIAN, INSTANCE, spec, text_of

CODE, OTHER_CODE = "abcdefghijklmnopqrstuvwxy", "zyxwvutsrqponmlkjihgfedcb"
VIEW = replace(INSTANCE, product_codes=(CODE,))


class Machine:
    """A machine with the guard's files in a folder, and a metadata service that answers for `view`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.view = folder, VIEW
        self.authority = Authority(folder / "authority")
        self.certificates = {VIEW.region: self.authority.certificate_path.read_text()}
        self.codes = [CODE]
        self.board = ""
        self.socket = folder / "nobody"

    def serve(self, authority: Authority | None = None) -> None:
        self.socket = MetadataServer(self.folder / "m", authority or self.authority).serve("x", lambda: self.view)

    def run(self, shell: str = "sh") -> subprocess.CompletedProcess[str]:
        """Run the script as it would be installed, but for its places and its curl, which asks by the socket."""
        sold = spec(share={"product_codes": self.codes})
        options = ProductGuard(services=("nginx.service",), certificates=self.certificates)
        for file in product_guard.guard_files(sold, options):
            if file.path.startswith(product_guard.FOLDER):
                (self.folder / Path(file.path).name).write_text(self.moved(file.content))
        commands = self.folder / "bin"
        commands.mkdir(exist_ok=True)
        (commands / "curl").write_text(f'#!/bin/sh\nexec /usr/bin/curl --unix-socket {self.socket} "$@"\n')
        (commands / "curl").chmod(0o755)
        (self.folder / "board").write_text(f"{self.board}\n")
        return subprocess.run(
            [*shell.split(), str(self.folder / "guard.sh")], capture_output=True, text=True, timeout=600, check=False
        )

    def moved(self, script: str) -> str:
        for old, new in (
            (product_guard.FOLDER, str(self.folder)),
            ("PATH=/usr/sbin", f"PATH={self.folder}/bin:/usr/sbin"),
            ("/sys/class/dmi/id/board_asset_tag", f"{self.folder}/board"),
            ("patience=25", "patience=2"),
        ):
            script = script.replace(old, new)
        return script


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def document(view: InstanceView, **changes: Any) -> bytes:
    return json.dumps({**json.loads(REAL_DOCUMENT(view)), **changes}, indent=2, separators=(",", " : ")).encode()


REAL_DOCUMENT = metadata.identity_document


def sign_instead(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setattr(metadata, "identity_document", lambda view: document(view, **changes))


def other_authority(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message holds the other's certificate too: one that trusted it would let anybody in."""
    machine.serve(Authority(machine.folder / "other"))


def forged_message(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that was signed for another code, and changed afterwards."""
    import base64

    machine.view = replace(VIEW, product_codes=(OTHER_CODE,))
    signed = machine.authority.sign_pkcs7(document(machine.view))
    forged = base64.b64decode(signed).replace(OTHER_CODE.encode(), CODE.encode())
    monkeypatch.setattr(Authority, "sign_pkcs7", lambda self, content: base64.encodebytes(forged).rstrip(b"\n"))
    machine.view = VIEW


def code_in_document_only(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.view = replace(VIEW, product_codes=(OTHER_CODE,))
    sign_instead(monkeypatch, marketplaceProductCodes=[CODE])


Planting = Callable[[Machine, pytest.MonkeyPatch], None]

CASES: dict[str, tuple[Planting, str]] = {
    "no product code": (
        lambda machine, patch: setattr(machine, "view", replace(VIEW, product_codes=())),
        "this instance has no product code",
    ),
    "another code": (
        lambda machine, patch: setattr(machine, "view", replace(VIEW, product_codes=(OTHER_CODE,))),
        f"the product code {CODE} is missing",
    ),
    "one of two codes": (
        lambda machine, patch: setattr(machine, "codes", [CODE, OTHER_CODE]),
        f"the product code {OTHER_CODE} is missing",
    ),
    "a longer code": (
        lambda machine, patch: setattr(machine, "view", replace(VIEW, product_codes=(f"{CODE}z",))),
        f"the product code {CODE} is missing",
    ),
    "a code that is not in the document": (
        lambda machine, patch: sign_instead(patch, marketplaceProductCodes=None),
        f"the product code {CODE} is missing",
    ),
    "a code in another list": (
        lambda machine, patch: sign_instead(patch, marketplaceProductCodes=["other"], kernelId=[CODE]),
        f"the product code {CODE} is missing",
    ),
    "a code that only the document has": (code_in_document_only, f"the product code {CODE} is missing"),
    "another instance's document": (
        lambda machine, patch: sign_instead(patch, instanceId="i-0fedcba9876543210"),
        "the identity document is of another instance",
    ),
    "another region's document": (
        lambda machine, patch: sign_instead(patch, region="eu-west-1"),
        "the identity document is of another region",
    ),
    "another machine": (
        lambda machine, patch: setattr(machine, "board", "i-0fedcba9876543210"),
        "this machine is another instance",
    ),
    "another authority": (other_authority, "the signature of the identity document is wrong"),
    "a forged message": (forged_message, "the signature of the identity document is wrong"),
    "no message": (
        lambda machine, patch: patch.setattr(Authority, "sign_pkcs7", lambda self, content: b"bm9uZQ=="),
        "the signature of the identity document is wrong",
    ),
    "no certificate for the region": (
        lambda machine, patch: machine.certificates.update({"eu-west-1": machine.certificates.pop(VIEW.region)}),
        "the image ships no certificate for the region eu-central-1",
    ),
    "a region that is a path": (
        lambda machine, patch: setattr(machine, "view", replace(VIEW, region="../../tmp/x")),
        "gives no proper answers",
    ),
    "a metadata service that is off": (
        lambda machine, patch: setattr(machine, "view", replace(VIEW, endpoint_enabled=False)),
        "the metadata service does not answer",
    ),
}


@pytest.mark.subprocess
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_an_instance_that_was_paid_for_passes(machine: Machine, shell: str) -> None:
    machine.serve()
    ran = machine.run(shell)
    assert (ran.returncode, ran.stderr) == (
        0,
        f"product code guard: passed: {VIEW.instance_id} carries {CODE}\n",
    )


@pytest.mark.subprocess
def test_the_board_may_name_the_instance_and_codes_may_be_several(machine: Machine) -> None:
    machine.view = replace(VIEW, product_codes=(OTHER_CODE, CODE))
    machine.codes, machine.board = [CODE, OTHER_CODE], VIEW.instance_id
    machine.serve()
    assert machine.run().returncode == 0


@pytest.mark.subprocess
@pytest.mark.parametrize("case", CASES)
def test_everything_else_is_held_back(machine: Machine, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    plant, reason = CASES[case]
    machine.serve()
    plant(machine, monkeypatch)
    ran = machine.run("dash")
    assert (ran.returncode, reason in ran.stderr) == (1, True), ran.stderr
    assert ran.stderr.startswith("product code guard: held back: ")


@pytest.mark.subprocess
def test_silence_is_no_pass(machine: Machine) -> None:
    ran = machine.run()
    assert (ran.returncode, "does not answer" in ran.stderr) == (1, True)


def test_each_unit_of_the_application_requires_the_guard(machine: Machine) -> None:
    options = ProductGuard(services=("nginx.service", "worker@1.service"), certificates=machine.certificates)
    (step,) = product_guard.steps(DEBIAN, spec(share={"product_codes": [CODE]}), options)
    text = text_of([step])
    assert step.title == f"nginx.service, worker@1.service wait for the product codes {CODE}"
    for unit in options.services:
        assert f"/etc/systemd/system/{unit}.d/50-assay-product-guard.conf" in text
    assert f"Requires={product_guard.UNIT}\nAfter={product_guard.UNIT}" in text
    assert "systemctl --no-reload enable assay-product-guard.service" in text


def test_without_systemd_nothing_pretends_to_guard(machine: Machine) -> None:
    options = ProductGuard(services=("nginx.service",), certificates=machine.certificates)
    (step,) = product_guard.steps(replace(DEBIAN, has_systemd=False), spec(), options)
    assert (step.optional, step.test) == (False, "false")
