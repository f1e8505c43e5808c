"""What img-proof, Lynis and our own checks say of one guest: Debian as it comes, which nobody has hardened.

img-proof launches nothing here: it is given the instance, which it stops and starts. What the others find and we do not
is answered in pipeline/verify/README.md and pipeline/harden/README.md. The part of `bench --only verify` with a guest.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.guest.keys import load_key_file, read_host_keys
from pipeline.guest.shell import DirectConnector, connect
from pipeline.report.evidence import Layer, Status
from pipeline.spec import load_spec
from pipeline.verify.live import start_checks
from tests.bench.judges import BOOT_SECONDS, Accused, Verdict, run_lynis
from tests.bench.rows import Row
from tests.end_to_end import ROOT, cloud_client, cloud_status
from tests.localcloud.clouds import instance_of, wait_for
from tests.peers.environment import PeersMissing, make_environment
from tests.peers.img_proof import NAME, REGION, Access, access, debian, launched, run_img_proof

LOCK = Path(__file__).parents[1] / "peers" / "requirements.lock"
SPEC = ROOT / "specs" / "debian-12-local.yaml"
REBOOT = ("test_debian", "test_hard_reboot")
CONTROL = "what is wrong with Debian as it comes"


def measure(cloud: dict[str, str]) -> list[Row]:
    """Return a row for each judge: how much it finds wrong, beside our own checks of a fresh boot."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name, access(cloud, Path(name)) as way_in:
        instance_id = launch(cloud, way_in)
        with logged_in(cloud, instance_id, way_in) as guest:
            ours = failing_checks(guest, Path(name))
            lynis = run_lynis(guest)
        proof = ask_img_proof(cloud, Path(name), way_in, instance_id)
    return [
        Row(CONTROL, "checks", len(ours)),
        *rows_of("Lynis", lynis, len(ours)),
        *rows_of("img-proof", proof, len(ours)),
    ]


def rows_of(judge: str, verdict: Verdict | str, ours: int) -> Iterator[Row]:
    """Yield the rows of one judge beside the number of our checks that fail, and print what it finds."""
    if isinstance(verdict, str):
        yield Row(f"{judge}: {verdict}", "", 0)
        return
    print("\n".join(f"{judge} says: {line}" for line in verdict.wrong))
    for figure, (value, unit) in verdict.figures.items():
        yield Row(f"{CONTROL}: {figure}", unit, ours, judge, value)


def launch(cloud: dict[str, str], way_in: Access) -> str:
    """Launch an instance of Debian's image with the key and the group, and return its id."""
    (made,) = cloud_client(cloud, "ec2", REGION).run_instances(
        ImageId=debian(cloud),
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        KeyName=NAME,
        SecurityGroupIds=[way_in.group_id],
    )["Instances"]
    return str(made["InstanceId"])


@contextmanager
def logged_in(cloud: dict[str, str], instance_id: str, way_in: Access) -> Iterator[Accused]:
    """Log in under the host keys that the console shows, once cloud-init has finished."""
    ec2 = cloud_client(cloud, "ec2", REGION)

    def console() -> str:
        return str(ec2.get_console_output(InstanceId=instance_id, Latest=True).get("Output", ""))

    wait_for(lambda: bool(read_host_keys(console())), True, BOOT_SECONDS)
    address = instance_of(ec2, instance_id)["PublicIpAddress"]
    port = cloud_status(cloud)["ssh_port"]
    shell = connect(
        DirectConnector(address, port), "admin", load_key_file(way_in.key), read_host_keys(console()), BOOT_SECONDS
    )
    shell.run("systemctl is-system-running --wait", BOOT_SECONDS)
    yield Accused(shell, address, port)
    shell.close()


def failing_checks(guest: Accused, folder: Path) -> list[str]:
    """Return which of our checks of a fresh boot fail."""
    shells = [guest.shell.open_root_shell() for _ in range(2)]
    with start_checks(Layer.FRESH_BOOT, load_spec(SPEC), folder) as checks:
        results = checks.prove(shells, {}, recordings=folder / "recordings")
    return [result.title for result in results if result.status not in (Status.PASS, Status.NOT_APPLICABLE)]


def ask_img_proof(cloud: dict[str, str], folder: Path, way_in: Access, instance_id: str) -> Verdict | str:
    """Let img-proof run its tests of the instance, a stop and a start among them."""
    if cloud_status(cloud)["ssh_port"] != 22:
        return "knows port 22 only, which users other than root do not get here"
    try:
        program = make_environment(".venv-peers", LOCK) / "img-proof"
    except PeersMissing as error:
        return f"cannot be installed: {error}"
    _, outcomes, said = run_img_proof(program, cloud, folder, way_in, REBOOT, running_instance_id=instance_id)
    if launched(cloud_client(cloud, "ec2", REGION)).keys() != {instance_id}:
        return f"did not keep to the instance: {said[-300:]}"
    wrong = tuple(name for name, outcome in outcomes.items() if outcome != "passed")
    return Verdict({f"tests that fail, of {len(outcomes)}": (len(wrong), "tests")}, wrong)
