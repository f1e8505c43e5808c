"""Record which calls each task makes: every task runs for real on a cloud of one's own, its guests from a script.

`python -m tests.policy.recording URL > pipeline/policy/calls.json` asks a local cloud that was started with
`--guests=fake` for them; its environment comes on standard input. Each task runs whole,
and again where answers are lost or a late stage fails: what a build needs to clean up is part of what it needs.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from pipeline import preflight, scan, share, sweep
from pipeline.attest_keys import open_signer
from pipeline.audit import account, network
from pipeline.aws import images, parameters
from pipeline.aws.alarms import WantedAlarm
from pipeline.aws.blocks import SnapshotBlocks
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags, new_build_id
from pipeline.build import build_image
from pipeline.errors import AssayError, ProofFailed
from pipeline.options import OnError, choose_regions
from pipeline.plan import make_plan
from pipeline.policy.statements import OTHER_ACCOUNT
from pipeline.prove import prove_image
from pipeline.publish import lifecycle
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence, Layer
from pipeline.residue.rewrite import Rewrite
from pipeline.spec import (
    Attest,
    Consumer,
    Egress,
    Encryption,
    Marketplace,
    Network,
    Release,
    Retire,
    Share,
    Spec,
    load_spec,
)
from pipeline.stages import prove, rewrite
from tests.fake_cloud import CONSUMER, ROOT, FakeCloud, base_image, fake_cloud
from tests.publish.faulty import Body
from tests.publish.test_marketplace import PRODUCT
from tests.scripted_build import SPEC, passed, script_the_guest

__all__ = ["fake_cloud"]
MAKING = (
    "ImportKeyPair",
    "CreateSecurityGroup",
    "RevokeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "AuthorizeSecurityGroupEgress",
    "RunInstances",
    "CreateSnapshot",
    "RegisterImage",
)

MAKING_A_NETWORK = (
    "CreateVpc",
    "CreateInternetGateway",
    "AttachInternetGateway",
    "CreateRouteTable",
    "CreateRoute",
    "CreateNetworkAcl",
    "CreateNetworkAclEntry",
    "CreateSubnet",
    "AssociateRouteTable",
    "AllocateAddress",
    "CreateNatGateway",
)
NETWORKS = (
    Network.model_validate({"create": {}, "address": "private", "connect": "bastion"}),
    Network.model_validate({"create": {"nat": "instance"}, "address": "private", "connect": "bastion"}),
)

RELEASED = Release(
    regions=("us-east-1",),
    parameter="/images/recorded",
    deprecate_after_days=30,
    protect=True,
    copies_on_failure="remove",
)
ROLE = f"arn:aws:iam::{CONSUMER}:role/prover"
QUOTA = {"Quota": {"Value": 5.0}}
CATALOG = {
    "ListChangeSets": {"ChangeSetSummaryList": []},
    "StartChangeSet": {"ChangeSetId": "changes"},
    "DescribeChangeSet": {"ChangeSetId": "changes", "Status": "SUCCEEDED"},
}
"""What the Marketplace Catalog answers, which is not on the local cloud."""
DRY_RUN = (
    "ImportKeyPair",
    "CreateSecurityGroup",
    "RunInstances",
    "CreateVpc",
    "CreateInternetGateway",
    "AllocateAddress",
)
"""The first of each is the preflight's dry run."""


@dataclass(frozen=True)
class Stage:
    """Where the tasks run."""

    cloud: FakeCloud
    session: Session
    folder: Path
    spec: Spec
    noted: set[str] = field(default_factory=set)
    """Calls to services that the local cloud does not have."""

    @property
    def image_id(self) -> str:
        """An image that was built before."""
        image = share.read_report(self.folder / "latest").image
        assert image
        return image.image_id

    def build(self, spec: Spec | None = None, on_error: OnError = OnError.CLEANUP) -> Evidence:
        """Build, to whatever end."""
        return build_image(
            spec or self.spec,
            spec_path=SPEC,
            session=self.session,
            builds=self.folder,
            console=Console(quiet=True),
            on_error=on_error,
        )

    def begin(self) -> None:
        """Count from here: what came before prepared the scene."""
        self.cloud.ask("DELETE", "calls", {})
        self.noted.clear()

    def made(self) -> set[str]:
        """Return the calls since then, those of the caller's account."""
        return self.noted | {name_of(call) for call in self.all_calls() if call["account"] != CONSUMER}

    def made_there(self) -> set[str]:
        """Return the calls since then of the consumer's account."""
        return {name_of(call) for call in self.all_calls() if call["account"] == CONSUMER}

    def all_calls(self) -> list[dict[str, str]]:
        """Return what the cloud was asked."""
        calls: list[dict[str, str]] = self.cloud.ask("GET", "calls", {})["calls"]
        return calls

    @contextmanager
    def answering(self, service: str, prefix: str, answers: Callable[[str], dict[str, Any]]) -> Iterator[Session]:
        """Yield a session for which a script answers a service that the local cloud does not have."""

        def answer(request: Any, event_name: str, **_: Any) -> AWSResponse:
            action = event_name.rpartition(".")[2]
            self.noted.add(f"{prefix}:{action}")
            return AWSResponse(request.url, 200, {}, Body(json.dumps(answers(action)).encode()))

        event = f"before-send.{service}.*"
        self.session._source.events.register(event, answer)
        try:
            yield Session(self.session._source, self.session.region, self.session.endpoint_url)
        finally:
            self.session._source.events.unregister(event, answer)

    @contextmanager
    def failing_proof(self) -> Iterator[None]:
        """Let the raw proof fail: the image exists by then, and must go."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(prove, "search_blocks", fail)
            yield


@contextmanager
def rewriting_one_word() -> Iterator[None]:
    """Let a rewrite find a word that is dead, and nothing else: the disks of these guests hold no file system."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewrite, "plan_rewrite", lambda *_: Rewrite(((0, 8),), (), 0, 0))
        yield


def name_of(call: dict[str, str]) -> str:
    """Return a call as policies name it."""
    return f"{call['service']}:{call['action']}".replace("monitoring:", "cloudwatch:")


def fail(*_: Any, **__: Any) -> Any:
    """Be the proof that fails."""
    raise ProofFailed("as the recording wants it")


def read_blocks(source: SnapshotBlocks, *_: Any, **__: Any) -> Any:
    """Read blocks as the search does, and find nothing."""
    list(source.read_many(source.indices()[:2]))
    return passed(Layer.RAW), (), ""


def lost(after: int = 0) -> list[dict[str, Any]]:
    """Return faults that lose an answer to each call that makes something."""
    return [
        {"kind": "lost-response", "action": action, "after": after if action in DRY_RUN else 0} for action in MAKING
    ]


def changed(spec: Spec, **parts: dict[str, Any]) -> Spec:
    """Return the spec with other values in some of its parts."""
    return spec.model_copy(
        update={name: getattr(spec, name).model_copy(update=values) for name, values in parts.items()}
    )


def record_build(stage: Stage) -> None:
    """A build as it should be, with lost answers, of another kind of base, failing late, released to the world."""
    assert stage.build().exit_status == 0
    with stage.cloud.faults(*lost(after=1)):  # the first of each is the preflight's dry run
        assert stage.build().exit_status == 0
    with stage.failing_proof():
        assert stage.build().exit_status == ProofFailed.exit_status
    base = base_image(stage.session)
    stage.session.client("ssm").put_parameter(Name="/base", Value=base.image_id, Type="String", Overwrite=True)
    named = {"filter": None, "parameter": "/base", "owner": base.owner_id}
    assert stage.build(changed(stage.spec, base_image=named)).exit_status == 0
    record_inherited_codes(stage, base)
    with rewriting_one_word():
        assert stage.build(changed(stage.spec, scrub={"free_space": "rewrite"})).exit_status == 0
    assert stage.build(changed(stage.spec, instance={"termination_protection": True})).exit_status == 0
    stage.session.client("ec2").disable_image_block_public_access()
    assert stage.build(changed(stage.spec, share={"public": True})).exit_status == 0
    record_release(stage, stage.build)


def record_release(stage: Stage, run: Callable[[Spec], object]) -> None:
    """A release over two regions: one that fails late and is taken back, and one that succeeds."""
    spec = stage.spec.model_copy(update={"release": RELEASED})
    for region in (stage.session.region, *RELEASED.regions):
        parameters.delete_parameter(stage.session.in_region(region), RELEASED.parameter or "")
    late = {"kind": "error", "action": "PutParameter", "code": "AccessDeniedException", "status": 400, "after": 1}
    with stage.cloud.faults(late), suppress(AssayError):
        run(spec)
    run(spec)


def record_inherited_codes(stage: Stage, base: images.Image) -> None:
    """A base image with product codes: only CreateImage keeps them."""
    stage.cloud.ask("PUT", "product-codes", {"id": base.image_id, "codes": ["abc123"]})
    with stage.failing_proof():
        stage.build(changed(stage.spec, share={"product_codes": ("abc123",)}))
    stage.cloud.ask("PUT", "product-codes", {"id": base.image_id, "codes": []})


def record_network(stage: Stage) -> None:
    """Builds in a network of their own: with each kind of NAT, behind a bastion, with lost answers."""
    for wanted in NETWORKS:
        assert stage.build(stage.spec.model_copy(update={"network": wanted})).exit_status == 0
    lose = [{"kind": "lost-response", "action": action, "after": int(action in DRY_RUN)} for action in MAKING_A_NETWORK]
    with stage.cloud.faults(*lose):
        assert stage.build(stage.spec.model_copy(update={"network": NETWORKS[0]})).exit_status == 0


def record_share(stage: Stage) -> None:
    """Sharing anew with somebody else, and its taking back when it fails."""
    assert stage.build().exit_status == 0
    stage.begin()
    other = changed(stage.spec, share={"accounts": ("111111111111",)})
    list(share.share_build(stage.session, other, stage.folder / "latest"))
    deaf = {"kind": "error", "action": "ModifyImageAttribute", "code": "Unavailable", "status": 400, "after": 1}
    with stage.cloud.faults(deaf), suppress(AssayError):
        list(share.share_build(stage.session, stage.spec, stage.folder / "latest"))
    record_release(stage, lambda spec: list(share.share_build(stage.session, spec, stage.folder / "latest")))
    share.status_of_build(stage.session, stage.spec, stage.folder / "latest")


def record_retire(stage: Stage) -> None:
    """The end of older images: each step of each, in every region of their release."""
    release = RELEASED.model_copy(update={"retire": Retire(keep=1, grace_days=1)})
    spec = stage.spec.model_copy(update={"release": release})
    assert stage.build(spec).exit_status == 0
    stage.begin()
    for days in (2, 4, 6):
        lines = lifecycle.retire_images(stage.session, spec, dry_run=False, now=datetime.now(UTC) + timedelta(days))
        lifecycle.require_retired(lines)


def record_verify(stage: Stage) -> None:
    """The proof of an image that exists: with no way out, and with one that the spec opens."""
    for spec in (stage.spec, changed(stage.spec, network={"egress": (Egress(port=443),)})):
        prove_again(stage, spec)


def prove_again(stage: Stage, spec: Spec) -> None:
    """Prove the image that was built last, where answers are lost."""
    with stage.cloud.faults(*lost()):
        proved = prove_image(
            stage.image_id,
            spec,
            spec_path=SPEC,
            session=stage.session,
            builds=stage.folder,
            console=Console(quiet=True),
        )
    assert proved.exit_status == 0, proved.error


def record_scan(stage: Stage) -> None:
    """The search of an image's blocks, and of those that changed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scan, "scan_source", read_blocks)
        scan.scan("", stage.image_id, "", lambda: stage.session, lambda *_: None)
        snapshot_id = images.describe_image(stage.session, stage.image_id).snapshot_ids[0]
        scan.scan("", "", snapshot_id, lambda: stage.session, lambda *_: None, changed=snapshot_id)


def record_sweep(stage: Stage) -> None:
    """The removal of all that a build left: one that kept everything, and one whose journal is lost."""
    with stage.failing_proof():
        for wanted in (stage.spec.network, *NETWORKS):
            protected = changed(stage.spec, instance={"termination_protection": True})
            stage.build(protected.model_copy(update={"network": wanted}), on_error=OnError.KEEP)
    for journal in stage.folder.glob("*/journal.jsonl"):
        journal.unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep, "is_expired", lambda *_: True)
        stage.begin()
        sweep.sweep_builds(stage.session, stage.folder)


def record_audit(stage: Stage) -> None:
    """Both audits of a region with an open group, and the revocation of its rules."""
    ec2 = stage.session.client("ec2")
    vpc_id = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    topic = stage.session.in_region("us-east-1").client("sns").create_topic(Name="bill")["TopicArn"]
    group_id = ec2.create_security_group(GroupName=f"open-{stage.folder.name}", Description="x", VpcId=vpc_id)[
        "GroupId"
    ]
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[everything])
    stage.session.in_region("us-east-1").client("cloudwatch").put_metric_alarm(
        AlarmName="bill",
        Namespace="AWS/Billing",
        MetricName="EstimatedCharges",
        AlarmActions=[topic],
        Statistic="Maximum",
        Period=21600,
        EvaluationPeriods=1,
        Threshold=5.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    stage.begin()
    assert stage.session.region in choose_regions(stage.session, "all")
    account.audit_account(stage.session, [stage.session.region])
    found = network.audit_network(stage.session, [stage.session.region])
    list(network.revoke(stage.session, found, frozenset(network.Kind), dry_run=False))


def record_plan(stage: Stage) -> None:
    """The plan of a build: as it is, public, with a key of its own, and where the account encrypts by default."""
    key_id = stage.session.client("kms").create_key()["KeyMetadata"]["KeyId"]
    with_key = stage.spec.image.model_copy(update={"encryption": Encryption(kms_key_id=key_id)})
    ec2 = stage.session.client("ec2")
    ec2.enable_ebs_encryption_by_default()
    for spec in (
        stage.spec,
        changed(stage.spec, share={"public": True}),
        stage.spec.model_copy(update={"image": with_key}),
    ):
        make_plan(spec, spec_path=SPEC, session=stage.session, builds=stage.folder)
    ec2.disable_ebs_encryption_by_default()
    record_quotas(stage)


def record_quotas(stage: Stage) -> None:
    """What is asked of quotas, which a cloud of this machine has none of: of a network, and of a public release."""
    spec = stage.spec.model_copy(update={"network": NETWORKS[0], "share": Share(public=True)})
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), "sha256:00", stage.session.caller_arn, now)
    base = base_image(stage.session)
    with (
        pytest.MonkeyPatch.context() as patched,
        stage.answering("service-quotas", "servicequotas", lambda _: QUOTA) as session,
    ):
        patched.setattr(Session, "loopback", False)
        preflight.require_ready(
            line for line in preflight.look_ahead(session, spec, base, tags, "web") if "quota" in line.title
        )


def record_consumer(stage: Stage) -> None:
    """The proof of an image from another account: what the role there asks."""
    consumer = {"consumer": Consumer(role_arn=ROLE)}
    prove_again(stage, changed(stage.spec, prove=consumer, network={"egress": (Egress(port=443),)}))


def record_alarm(stage: Stage) -> None:
    """The alarm on the bill, made on request."""
    account.open_alarm(stage.session, WantedAlarm("ops@example.com", 100.0), dry_run=False)


def record_marketplace(stage: Stage) -> None:
    """A new version of a product, in the region that the Marketplace takes images from."""
    market = Marketplace.model_validate(PRODUCT | {"seller": stage.session.account_id})
    spec = stage.spec.model_copy(update={"release": Release(regions=("us-east-1",), marketplace=market)})
    list(share.share_build(stage.session, spec, stage.folder / "latest"))
    stage.begin()
    with stage.answering("marketplace-catalog", "aws-marketplace", CATALOG.__getitem__) as session:
        list(share.submit_build(session, spec, stage.folder / "latest"))


def record_attest(stage: Stage) -> None:
    """The signature by a key of KMS."""
    kms = stage.session.client("kms")
    key_id = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    stage.begin()
    open_signer(Attest(kms_key_id=key_id), lambda: stage.session).sign(b"a statement")


RECORDINGS: dict[str, Callable[[Stage], None]] = {
    "plan": record_plan,
    "build": record_build,
    "network": record_network,
    "share": record_share,
    "marketplace": record_marketplace,
    "retire": record_retire,
    "verify": record_verify,
    "consumer": record_consumer,
    "scan": record_scan,
    "sweep": record_sweep,
    "audit": record_audit,
    "alarm": record_alarm,
    "attest": record_attest,
}
NOT_OURS = {
    "ec2:DisableImageBlockPublicAccess",
    "ec2:EnableEbsEncryptionByDefault",
    "ec2:DisableEbsEncryptionByDefault",
    "kms:CreateKey",
}
"""What a recording does to prepare its scene."""
ABOUT_REGIONS = {
    "ec2:DescribeRegions",
    "ec2:GetEbsDefaultKmsKeyId",
    "ec2:GetEbsEncryptionByDefault",
    "ec2:GetImageBlockPublicAccessState",
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:ListGrants",
}
"""What the preflight asks of a region for one spec or another: recorded with the plan, and sharing asks it too."""
NEVER_CHANGED = "servicequotas:GetAWSDefaultServiceQuota"
"""What is asked of a quota that nobody changed."""
ABOUT_PUBLIC_IMAGES = {"servicequotas:GetServiceQuota", NEVER_CHANGED}
"""Of a public release, from wherever."""
SPOT = {"ec2:CancelSpotInstanceRequests", "ec2:DescribeSpotInstanceRequests"}
"""The local cloud has no spot requests to cancel."""


def record(cloud: FakeCloud, folder: Path) -> dict[str, list[str]]:
    """Return the calls of each task."""
    spec = changed(load_spec(SPEC), prove={"boot_again": ("reboot", "stop-start")})
    session = cloud.open(spec.region)
    script_the_guest(session, spec)
    prove.search_blocks = read_blocks  # type: ignore[assignment]
    stage = Stage(cloud, session, folder, spec)
    calls = {}
    for task, run in RECORDINGS.items():
        stage.begin()
        run(stage)
        made = stage.made_there() if task == OTHER_ACCOUNT else stage.made()
        calls[task] = sorted(made - NOT_OURS)
    about_networks = set(calls["plan"]) & set(calls["network"]) - set(calls["build"])
    calls["plan"] = sorted({*calls["plan"], NEVER_CHANGED} - about_networks)
    calls["build"] = sorted({*calls["build"], *calls["plan"], *SPOT})
    calls["sweep"] = sorted({*calls["sweep"], *SPOT})
    calls["share"] = sorted({*calls["share"], *ABOUT_REGIONS, *ABOUT_PUBLIC_IMAGES})
    calls["network"] = sorted(set(calls["network"]) - set(calls["build"]))
    return calls


def main() -> None:
    """Record on the cloud that the environment names, and print the calls."""
    with tempfile.TemporaryDirectory() as folder:
        calls = record(FakeCloud(sys.argv[1], json.loads(sys.stdin.read())), Path(folder))
    sys.stdout.write(json.dumps(calls, indent=2) + "\n")


def record_elsewhere(cloud: FakeCloud) -> str:
    """Record in a process of its own, where a script stands in for guests, and return the text of `calls.json`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.policy.recording", cloud.endpoint],
        input=json.dumps(cloud.environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=2400,
    )
    return done.stdout


if __name__ == "__main__":
    main()
