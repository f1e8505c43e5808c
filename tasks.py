"""The verbs of Assay. Each task parses, calls, renders and exits; what it does lives in `pipeline/`.

Imports of the pipeline happen inside the tasks, so that `invoke --list` stays as quick as Invoke itself.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

if TYPE_CHECKING:
    from pipeline.audit.findings import Line
    from pipeline.spec import Spec

ROOT = Path(__file__).resolve().parent
BUILDS = Path(os.environ.get("ASSAY_BUILDS") or ROOT / "builds")
DEFAULT_SPEC = "specs/debian-12-local.yaml"
BUILD_HELP = "the id of a build, or `latest`"
SPEC_HELP = f"the image's spec (default: {DEFAULT_SPEC})"


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn an error of the tree into its text and its exit status; anything else is a defect, and shows as one."""
    from pipeline.errors import AssayError

    try:
        yield
    except AssayError as error:
        print(error.describe(), file=sys.stderr)
        leave(error.exit_status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        leave(130)
    except BrokenPipeError:
        # The reader, `head` for example, has seen enough. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(0)


def read_spec(path: str) -> "Spec":
    """Return the spec at a path. Raises SpecInvalid with all of its problems."""
    from pipeline.spec import load_spec

    return load_spec(ROOT / path)


def leave(exit_status: int) -> NoReturn:
    """End the process with a status and no further word."""
    raise Exit(code=exit_status)


@task(
    help={
        "spec": SPEC_HELP,
        "on-error": "what becomes of the instance after a failure: cleanup, keep, or ask",
        "json": "print the evidence as JSON, and nothing else, on standard output",
        "update-base": "take the newest base image that matches, and move the lock to it",
    }
)
def build(
    _: Context, spec: str = DEFAULT_SPEC, on_error: str = "cleanup", json: bool = False, update_base: bool = False
) -> None:
    """Build an image, prove it, and share it as its spec says."""
    with errors_explained():
        from pipeline.build import build_image
        from pipeline.options import open_cloud, parse_on_error
        from pipeline.report.console import Console
        from pipeline.report.render import render_json
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        console = Console(quiet=json)
        evidence = build_image(
            loaded,
            spec_path=ROOT / spec,
            session=open_cloud(loaded, start_local_cloud),
            builds=BUILDS,
            console=console,
            on_error=parse_on_error(on_error),
            update_base=update_base,
        )
        if json:
            print(render_json(evidence))
        leave(evidence.exit_status)


@task(
    help={
        "spec": SPEC_HELP,
        "offline": "do not ask the cloud: leave out what only it knows",
        "json": "print the plan as JSON",
        "update-base": "plan with the newest base image that matches",
    }
)
def plan(
    _: Context, spec: str = DEFAULT_SPEC, offline: bool = False, json: bool = False, update_base: bool = False
) -> None:
    """Show everything that a build would do, the program for the guest included. Nothing is made, nothing is spent."""
    with errors_explained():
        from pipeline.options import open_cloud
        from pipeline.plan import make_plan
        from pipeline.preflight import require_ready
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        session = None if offline else open_cloud(loaded, start_local_cloud)
        made = make_plan(loaded, spec_path=ROOT / spec, session=session, builds=BUILDS, update_base=update_base)
        print(made.as_json() if json else made.as_text())
        require_ready(made.ahead)


@task(
    help={
        "ami": "the image to prove, anybody's",
        "spec": f"{SPEC_HELP}: its cloud is asked, and the image is held against it",
        "user": "who gets the launch key on it: ubuntu, ec2-user … (default: the spec's `image.launch_user`)",
        "region": "where it is (default: the spec's)",
        "json": "print the evidence as JSON",
    }
)
def verify(
    _: Context, ami: str, spec: str = DEFAULT_SPEC, user: str = "", region: str = "", json: bool = False
) -> None:
    """Prove an image that exists: read its blocks, boot it as a consumer would, and take it all away again."""
    with errors_explained():
        from pipeline.options import fit_to_image, open_cloud
        from pipeline.prove import prove_image
        from pipeline.report.console import Console
        from pipeline.report.render import render_json
        from pipeline.spec import load_spec

        loaded = fit_to_image(load_spec(ROOT / spec), user, region)
        evidence = prove_image(
            ami,
            loaded,
            spec_path=ROOT / spec,
            session=open_cloud(loaded, start_local_cloud),
            builds=BUILDS,
            console=Console(quiet=json),
        )
        if json:
            print(render_json(evidence))
        leave(evidence.exit_status)


@task(
    help={
        "build": "the build to share: its id, or `latest`",
        "spec": SPEC_HELP,
        "dry-run": "only show what would change",
    }
)
def share(_: Context, build: str = "latest", spec: str = DEFAULT_SPEC, dry_run: bool = False) -> None:
    """Share the image of a build that was proved, as its spec says; what the spec no longer names is revoked."""
    with errors_explained():
        from pipeline.options import open_cloud
        from pipeline.share import share_build
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        session = open_cloud(loaded, start_local_cloud)
        for line in share_build(session, loaded, BUILDS / build, dry_run=dry_run):
            print(line)


@task(
    help={
        "host": "USER@HOST or USER@HOST:PORT; the user may use sudo without a password, or is root",
        "spec": SPEC_HELP,
        "key": "the private key to log in with (default: the keys of your ssh agent)",
        "host-key": "the host's public key (default: what known_hosts has; none is accepted on first use)",
        "yes": "make the changes; without it, only show them",
        "dry-run": "only show what would change; this is the default",
        "remove-users": "also remove login users that the spec does not name, with all that they own",
        "json": "print the report as JSON",
    }
)
def harden(
    _: Context,
    host: str,
    spec: str = DEFAULT_SPEC,
    key: str = "",
    host_key: str = "",
    yes: bool = False,
    dry_run: bool = False,
    remove_users: bool = False,
    json: bool = False,
) -> None:
    """Hold a running host against a spec's hardening, and apply it with --yes. Nothing is scrubbed."""
    with errors_explained():
        from getpass import getpass

        from pipeline import apply
        from pipeline.report.console import Console
        from pipeline.spec import load_spec

        loaded, named = load_spec(ROOT / spec), apply.parse_host(host)
        console = Console(quiet=json)
        line = console.start_stage("harden")
        report = apply.harden_host(
            loaded,
            named,
            apply.choose_credential(key, lambda: getpass(f"passphrase of {key}: ")),
            apply.find_host_keys(named, host_key),
            dry_run=dry_run or not yes,
            remove_users=remove_users,
            progress=lambda title, done, total: console.progress(line, title, done, total),
        )
        console.table(report.summary, apply.COLUMNS, report.as_rows())
        if json:
            print(report.as_json())
        if report.problem:
            raise report.problem


@task(help={"build": BUILD_HELP, "open": "open it in the browser"})
def report(_: Context, build: str = "latest", open: bool = False) -> None:
    """Print where the page with the evidence of a build is."""
    with errors_explained():
        from pipeline.report.evidence_folder import find_page

        page = find_page(BUILDS / build)
        print(page)
        if open:
            import webbrowser

            webbrowser.open(page.as_uri())


@task(name="status", help={"build": BUILD_HELP, "spec": SPEC_HELP, "json": "print the regions as JSON"})
def release_status(_: Context, build: str = "latest", spec: str = DEFAULT_SPEC, json: bool = False) -> None:
    """Compare a release with what its spec declares: Correct, Incorrect, Missing, Unexpected, Unreachable by region."""
    with errors_explained():
        from dataclasses import asdict
        from json import dumps

        from pipeline.options import open_cloud
        from pipeline.publish.status import require_complete
        from pipeline.share import status_of_build
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        found = status_of_build(open_cloud(loaded, start_local_cloud), loaded, BUILDS / build)
        print(dumps([asdict(one) for one in found], indent=2) if json else "\n".join(one.describe() for one in found))
        require_complete(found)


@task(name="sign", help={"build": BUILD_HELP, "spec": SPEC_HELP})
def release_sign(_: Context, build: str = "latest", spec: str = DEFAULT_SPEC) -> None:
    """Sign the list of the published images of a release that is as declared in every region."""
    with errors_explained():
        from pipeline.attest import sign_publication
        from pipeline.attest_keys import open_signer
        from pipeline.options import open_cloud
        from pipeline.publish.status import require_complete
        from pipeline.share import status_of_build
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        session = open_cloud(loaded, start_local_cloud)
        found = status_of_build(session, loaded, BUILDS / build)
        require_complete(found)
        published = {one.region: one.image_id for one in found}
        print(sign_publication(BUILDS / build, published, open_signer(loaded.attest, lambda: session)))


@task(
    name="submit",
    help={"build": BUILD_HELP, "spec": SPEC_HELP, "dry-run": "only check the Marketplace's conditions"},
)
def marketplace_submit(_: Context, build: str = "latest", spec: str = DEFAULT_SPEC, dry_run: bool = False) -> None:
    """Add the image of a proved build to its product of AWS Marketplace, and follow that to its end."""
    with errors_explained():
        from pipeline.options import open_cloud
        from pipeline.share import submit_build
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        session = open_cloud(loaded, start_local_cloud)
        for line in submit_build(session, loaded, BUILDS / build, dry_run=dry_run):
            print(line)


@task(
    help={
        "spec": SPEC_HELP,
        "yes": "take the steps; without it, only show them",
        "dry-run": "only show the steps; this is the default",
        "json": "print the images as JSON",
    }
)
def retire(_: Context, spec: str = DEFAULT_SPEC, yes: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Deprecate, disable and remove the images of older builds, as release.retire of the spec says; none in use."""
    with errors_explained():
        from dataclasses import asdict
        from json import dumps

        from pipeline.options import open_cloud
        from pipeline.publish.lifecycle import require_retired, retire_images
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        only_shown = dry_run or not yes
        found = retire_images(open_cloud(loaded, start_local_cloud), loaded, dry_run=only_shown)
        lines = [one.describe(dry_run=only_shown) for one in found] or ["there is no image of this spec"]
        print(dumps([asdict(one) for one in found], indent=2) if json else "\n".join(lines))
        require_retired(found)


@task(
    help={
        "spec": "the spec whose cloud and region are swept",
        "dry-run": "only show what would be removed",
    }
)
def sweep(_: Context, spec: str = DEFAULT_SPEC, dry_run: bool = False) -> None:
    """Remove what killed builds left behind: what their journals or the tags show, and nothing else."""
    with errors_explained():
        from pipeline.options import open_cloud
        from pipeline.spec import load_spec
        from pipeline.sweep import sweep_builds

        session = open_cloud(load_spec(ROOT / spec), start_local_cloud)
        swept = sweep_builds(session, BUILDS, dry_run=dry_run)
        for line in swept.lines():
            print(line)
        leave(swept.exit_status)


@task(
    help={
        "image": "an image file: raw, qcow2, VMDK, VHD, VHDX or VDI",
        "ami": "an image of the spec's cloud and region",
        "snapshot": "a snapshot of the spec's cloud and region",
        "changed": "read only the blocks of the snapshot that differ from this earlier one of the same volume",
        "spec": f"the spec that says which cloud, and what may be found (default: {DEFAULT_SPEC}; of a file, none)",
        "json": "print the report as JSON",
        "sarif": "write the findings as SARIF 2.1.0 into this file",
        "state": "keep how far the scan is in this file: interrupted, it goes on from there",
    }
)
def scan(
    _: Context,
    image: str = "",
    ami: str = "",
    snapshot: str = "",
    changed: str = "",
    spec: str = "",
    json: bool = False,
    sarif: str = "",
    state: str = "",
) -> None:
    """Search every block of a disk for keys, credentials, histories, logs and back doors; nothing is launched."""
    with errors_explained():
        from pipeline import scan as scanning
        from pipeline.files import write_atomically
        from pipeline.options import open_cloud
        from pipeline.report.console import Console

        console = Console(quiet=json)
        line = console.start_stage("scan")
        read = read_spec(spec or DEFAULT_SPEC) if spec or not image else None
        reports = scanning.scan(
            image,
            ami,
            snapshot,
            lambda: open_cloud(read or read_spec(DEFAULT_SPEC), start_local_cloud),
            lambda text, done, total: console.progress(line, text, done, total),
            changed,
            read,
            state,
        )
        console.pause()
        if sarif:
            write_atomically(Path(sarif), scanning.as_sarif(reports))
        if json:
            from json import dumps

            print(dumps(scanning.as_json(reports), indent=2))
        for name, report in reports.items():
            if not json:
                print("\n".join(scanning.describe(name, report)))
        for name, report in reports.items():
            report.require_clean(name)


REGIONS_HELP = "regions with commas, or all that are enabled (default: the spec's)"


@task(
    name="network",
    help={
        "spec": "the spec whose cloud is looked at",
        "regions": REGIONS_HELP,
        "public-ports": "ports that may be open to the world, with commas",
        "revoke": "kinds of rules to revoke, with commas: world, stale, wide; without --yes only a dry run",
        "yes": "revoke what --revoke names",
        "json": "print the lines as JSON",
    },
)
def audit_network(
    _: Context,
    spec: str = DEFAULT_SPEC,
    regions: str = "",
    public_ports: str = "80,443",
    revoke: str = "",
    yes: bool = False,
    json: bool = False,
) -> None:
    """Find rules that are open to the world, stale or over-wide, and what else is left in the network; revoke them."""
    with errors_explained():
        from pipeline import options
        from pipeline.audit import findings, network
        from pipeline.spec import load_spec

        kinds, ports = options.parse_kinds(revoke), options.parse_ports(public_ports)
        session = options.open_cloud(load_spec(ROOT / spec), start_local_cloud)
        chosen = options.choose_regions(session, regions)
        audit = network.audit_network(session, chosen, public_ports=ports)
        show_audit(audit.lines, json)
        for line in network.revoke(session, audit, kinds, dry_run=not yes) if kinds else ():
            print(line, file=sys.stderr if json else sys.stdout)
        if kinds and yes:
            audit = network.audit_network(session, chosen, public_ports=ports)
        findings.require_sound(audit.lines)


@task(
    name="account",
    help={
        "spec": "the spec whose cloud is looked at",
        "regions": REGIONS_HELP,
        "alarm": "an e-mail address that is to hear of the bill; without --yes only a dry run",
        "alarm-above": "the month's estimated charges, in US dollars, above which it hears",
        "yes": "make the alarm that --alarm asks for",
        "json": "print the lines as JSON",
    },
)
def audit_account(
    _: Context,
    spec: str = DEFAULT_SPEC,
    regions: str = "",
    alarm: str = "",
    alarm_above: str = "100",
    yes: bool = False,
    json: bool = False,
) -> None:
    """Find what is unsound in the account: root user, MFA, passwords, keys, the bill, the regions' settings."""
    with errors_explained():
        from pipeline import options
        from pipeline.audit import account, findings
        from pipeline.spec import load_spec

        loaded, wanted = load_spec(ROOT / spec), options.parse_alarm(alarm, alarm_above)
        session = options.open_cloud(loaded, start_local_cloud)
        if wanted:
            print(account.open_alarm(session, wanted, dry_run=not yes), file=sys.stderr if json else sys.stdout)
        lines = account.audit_account(
            session, options.choose_regions(session, regions), shares_publicly=loaded.share.public
        )
        show_audit(lines, json)
        findings.require_sound(lines)


@task(
    name="policy",
    help={
        "task": "tasks with commas: build, share, verify, sweep, audit …",
        "spec": "the spec that the tasks run with",
    },
)
def iam_policy(_: Context, task: str = "build", spec: str = DEFAULT_SPEC) -> None:
    """Print the least-privilege policy of a task, made of the calls that it really makes. Asks no cloud."""
    with errors_explained():
        from json import dumps

        from pipeline.options import parse_tasks
        from pipeline.policy.statements import policy_document
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        print(dumps(policy_document(parse_tasks(task), loaded, [loaded.region, *loaded.release.regions]), indent=2))


def show_audit(lines: "tuple[Line, ...]", json: bool) -> None:
    """Print the lines of an audit, as JSON or as a table."""
    from pipeline.audit.findings import as_json, as_table

    print(as_json(lines) if json else "\n".join(as_table(lines)))


def local_cloud(*arguments: str) -> int:
    """Run the local cloud's own command, a process and a house of its own, and return its exit status."""
    return subprocess.run([sys.executable, "-m", "pipeline.localcloud", *arguments], cwd=ROOT, check=False).returncode


def start_local_cloud(image: str = "") -> dict[str, str]:
    """Start the local cloud if it does not run, with a base image of this name, and return its clients' environment."""
    import json

    from pipeline.errors import LocalCloudFailed

    command = [sys.executable, "-m", "pipeline.localcloud", "start", "--json", *([f"--image={image}"] if image else [])]
    started = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if started.returncode:
        raise LocalCloudFailed("the local cloud does not start")
    environment: dict[str, str] = json.loads(started.stdout)["environment"]
    return environment


@task(
    name="start",
    help={"base": "its base images: bookworm (Debian 12: the default), trixie (Debian 13), noble (Ubuntu 24.04)"},
)
def cloud_start(_: Context, base: str = "") -> None:
    """Start the local cloud and print the exports with which any EC2 client uses it."""
    leave(local_cloud("start", *(f"--base={suite}" for suite in base.replace(",", " ").split())))


@task(name="stop")
def cloud_stop(_: Context) -> None:
    """Stop the local cloud; its images, volumes and snapshots stay."""
    leave(local_cloud("stop"))


@task(name="status")
def cloud_status(_: Context) -> None:
    """Say whether the local cloud runs, where, and what it holds."""
    leave(local_cloud("status"))


@task(name="reset")
def cloud_reset(_: Context) -> None:
    """Stop the local cloud and remove all that it holds; the cached base images stay."""
    leave(local_cloud("reset"))


@task(help={"unit": "only the unit tests: seconds", "only": "a pytest expression (-k)"})
def test(_: Context, unit: bool = False, only: str = "") -> None:
    """Run the tests: the unit tests first, then the end-to-end tests on real guests."""
    selection = ["-k", only] if only else []
    status = pytest("-m", "not end_to_end", *(selection or side_by_side(4)))
    if status in {0, NOTHING_COLLECTED if only else 0} and not unit:
        status = pytest("-m", "end_to_end", *(selection or side_by_side(2)))
    leave(status)


NOTHING_COLLECTED = 5


def side_by_side(processes: int) -> tuple[str, ...]:
    """Return how pytest runs in several processes: a unit test often waits, and a guest is a process of its own."""
    return (f"--numprocesses={processes}", "--dist=loadfile", "--no-loadscope-reorder")


def pytest(*arguments: str) -> int:
    """Run pytest in a process of its own and return its exit status."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


@task(help={"only": "one benchmark: build …"})
def bench(_: Context, only: str = "") -> None:
    """Measure beside the peers and the physical bound; writes builds/bench/NAME.json."""
    with errors_explained():
        from tests.bench import run_benchmarks

        run_benchmarks(only, BUILDS / "bench", start_local_cloud)


@task
def lint(_: Context) -> None:
    """Check style, format and types."""
    bin_folder = Path(sys.executable).parent
    commands = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    failed = [
        command[0]
        for command in commands
        if subprocess.run([bin_folder / command[0], *command[1:]], cwd=ROOT).returncode
    ]
    leave(1 if failed else 0)


audit = Collection("audit", audit_account, audit_network)
iam = Collection("iam", iam_policy)
release = Collection("release", release_sign, release_status)
marketplace = Collection("marketplace", marketplace_submit)


@task(help={"json": "print them as JSON, with every check by its name"})
def controls(_: Context, json: bool = False) -> None:
    """Print each control of the catalogue: what sets it, what proves it, what is missing, who asks for it."""
    with errors_explained():
        from pipeline import controls as tracing
        from pipeline.report.console import Console

        traces = tracing.trace_controls()
        if json:
            print(tracing.as_json(traces))
            return
        Console().table("Controls", tracing.COLUMNS, (trace.row() for trace in traces))
        print("\n".join(tracing.legend()))


@task(
    help={
        "from": "the older one: the id of a build, ami-…, or an image file",
        "to": "the newer one; without it the build `latest`",
        "spec": f"whose cloud and region the images are in; without it {DEFAULT_SPEC}",
        "json": "print the differences as JSON",
    }
)
def diff(_: Context, from_: str, to: str = "latest", spec: str = DEFAULT_SPEC, json: bool = False) -> None:
    """Print what differs between two builds or images: packages, files, users, ports, units, settings, sizes."""
    with errors_explained():
        from pipeline.diff import compare
        from pipeline.options import open_cloud
        from pipeline.report.text import make_visible
        from pipeline.spec import load_spec

        difference = compare(
            from_,
            to,
            builds=BUILDS,
            open_session=lambda: open_cloud(load_spec(ROOT / spec), start_local_cloud),
            progress=lambda text: print(text, file=sys.stderr),
        )
        print(difference.as_json() if json else make_visible("\n".join(difference.lines())))


@task(name="sign", help={"build": BUILD_HELP, "spec": SPEC_HELP})
def attest_sign(_: Context, build: str = "latest", spec: str = DEFAULT_SPEC) -> None:
    """Sign the statements about a proved build again, with the key of the spec."""
    with errors_explained():
        from pipeline.attest import sign_build
        from pipeline.attest_keys import open_signer
        from pipeline.options import open_cloud
        from pipeline.spec import load_spec

        loaded = load_spec(ROOT / spec)
        print(sign_build(BUILDS / build, open_signer(loaded.attest, lambda: open_cloud(loaded, start_local_cloud))))


@task(
    name="verify",
    help={
        "build": BUILD_HELP,
        "file": "a file of statements, instead of a build; a report.json beside it is compared with it",
        "key": "the public key that is trusted, PEM (default: the one of this user)",
    },
)
def attest_verify(_: Context, build: str = "latest", file: str = "", key: str = "") -> None:
    """Check the signed statements about an image: signatures, form, and that the evidence says the same."""
    with errors_explained():
        from pipeline import attest, attest_keys
        from pipeline.report.evidence_folder import read_report

        if not file:
            read_report(BUILDS / build)
        path = Path(file) if file else BUILDS / build / attest.FILE
        trusted = Path(key) if key else attest_keys.public_path(attest_keys.local_key_path())
        for line in attest.verify_file(path, [attest_keys.read_public_key(trusted)]).lines():
            print(line)


attest = Collection("attest", attest_sign, attest_verify)
cloud = Collection("cloud", cloud_start, cloud_stop, cloud_status, cloud_reset)
namespace = Collection(
    build,
    plan,
    verify,
    scan,
    harden,
    share,
    report,
    diff,
    controls,
    retire,
    sweep,
    test,
    bench,
    lint,
    attest,
    audit,
    iam,
    release,
    marketplace,
    cloud,
)
os.environ.setdefault("PYTHONUNBUFFERED", "1")
