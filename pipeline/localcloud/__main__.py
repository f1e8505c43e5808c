"""The local cloud's command: `python -m pipeline.localcloud start|stop|status|reset|serve`.

Exit status: 0 done; 1 failed, with one line that says why; 2 wrong usage; 3 (`status`) the cloud does not run.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.localcloud import DEFAULT_PORT, MOST_PROCESSORS, SSH_PORT
from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key
from pipeline.localcloud.distributions import DISTRIBUTIONS, Suite, suite_of

START_SECONDS = 1800.0
STOP_SECONDS = 180.0
REGION = "us-east-1"
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(RuntimeError):
    """The command can't do what it was asked; the message is for the user."""


def cloud_home() -> Path:
    """Return the directory of the cloud's state."""
    chosen = os.environ.get("ASSAY_CLOUD_HOME")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay" / "cloud"


@contextlib.contextmanager
def only_one(path: Path, *, wait: bool) -> Iterator[IO[str]]:
    """Hold a lock file; without `wait`, raise Failed when another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Failed(f"the local cloud in {path.parent} runs already") from error
        yield file


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock file."""
    try:
        with only_one(path, wait=False):
            return False
    except Failed:
        return True


def ask(home: Path, method: str, name: str) -> dict[str, Any] | None:
    """Ask the running cloud; None when none answers."""
    try:
        server = json.loads((home / "server.json").read_text())
        request = urllib.request.Request(f"{server['url']}/_cloud/{name}", method=method)  # noqa: S310 -- our own
        with LOCAL.open(request, timeout=10) as answer:
            found = json.loads(answer.read())
    except (OSError, ValueError, KeyError):
        return None
    return {**server, **(found or {})}


def environment(url: str, ssh_port: int) -> dict[str, str]:
    """Return the variables with which any AWS client uses this cloud, and Assay finds the low ports of its guests."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": access_key(BUILDER_ACCOUNT),
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "ASSAY_LOW_PORT_SHIFT": str(ssh_port - SSH_PORT),
    }


def start(home: Path, options: argparse.Namespace) -> int:
    """Start the cloud unless it runs, wait until it answers, and print how to use it."""
    named = suite_of(options.image)
    required = [*options.base, *([named] if named else [])]
    options.base = list(dict.fromkeys([*(options.base or ["bookworm"]), *required]))
    with only_one(home / "start.lock", wait=True):
        status = ask(home, "GET", "status")
        if status is None:
            if is_held(home / "server.lock"):
                raise Failed(f"a process of the local cloud in {home} runs but does not answer: `stop` ends it")
            status = spawn(home, options)
        require_bases(status, required)
    variables = environment(status["url"], status["ssh_port"])
    if options.json:
        print(json.dumps({"environment": variables, **status}))
    else:
        print("\n".join(f"export {name}={value}" for name, value in variables.items()))
        print(f"# ssh to an instance: port {status['ssh_port']} of its public address; log: {home / 'cloud.log'}")
    return 0


def require_bases(status: dict[str, Any], suites: list[Suite]) -> None:
    """Raise Failed when the cloud runs already, and without one of these base images."""
    names = [image["name"] for image in status["images"]]
    for suite in suites:
        if not any(name.startswith(DISTRIBUTIONS[suite].fixed_name) for name in names):
            raise Failed(f"it runs already, without {suite}: `stop` it, and start it with every base that you want")


def spawn(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the server in a session of its own; show its first lines while it comes up."""
    log_path = home / "cloud.log"
    command = [sys.executable, "-m", "pipeline.localcloud", "serve", *serve_arguments(options)]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=Path.cwd()
        )
        shown = log.tell()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with log_path.open("rb") as log_file:
            log_file.seek(shown)
            fresh = log_file.read()
        shown += len(fresh)
        sys.stderr.write(fresh.decode(errors="replace"))
        status = ask(home, "GET", "status")
        if status is not None and status["pid"] == process.pid:
            return status
        if process.poll() is not None:
            raise Failed(f"the local cloud did not start (status {process.returncode}); see {log_path}")
        time.sleep(0.1)
    process.terminate()
    raise Failed(f"the local cloud did not answer within {START_SECONDS:.0f} s; see {log_path}")


def serve_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options of `start` as those of `serve`."""
    arguments = ["--guests", options.guests]
    arguments += ["--port", str(options.port)] if options.port else []
    arguments += [item for base in options.base for item in ("--base", base)]
    arguments += ["--no-egress"] if options.no_egress else []
    arguments += ["--processors", str(options.processors)]
    arguments += ["--faults", options.faults] if options.faults else []
    return arguments


def serve(home: Path, options: argparse.Namespace) -> int:
    """Run the cloud in the foreground until it is told to stop."""
    for name in [name for name in os.environ if name.startswith(("MOTO_", "AWS_"))]:
        del os.environ[name]
    os.umask(0o077)
    with only_one(home / "server.lock", wait=False):
        from pipeline.localcloud.service import run_service

        return run_service(home, options)


def stop(home: Path) -> int:
    """Stop the cloud: its guests are shut down, its state stays."""
    if not is_held(home / "server.lock"):
        print("the local cloud does not run")
        return 0
    server = ask(home, "POST", "stop")
    deadline = time.monotonic() + STOP_SECONDS
    pid = recorded_pid(home)
    while is_held(home / "server.lock"):
        if (server is None or time.monotonic() > deadline) and pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM)
            server = {}
        if time.monotonic() > deadline + 10:
            raise Failed(f"process {pid} of the local cloud does not end")
        time.sleep(0.1)
    print("the local cloud has stopped")
    return 0


def recorded_pid(home: Path) -> int | None:
    """Return the process that the server wrote down."""
    try:
        return int(json.loads((home / "server.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def show_status(home: Path, options: argparse.Namespace) -> int:
    """Say whether the cloud runs, where, and what it holds."""
    status = ask(home, "GET", "status")
    if options.json:
        print(json.dumps({"running": status is not None, **(status or {})}))
    elif status is None:
        print(f"the local cloud in {home} does not run")
    else:
        print(describe(status))
    return 0 if status is not None else 3


def describe(status: dict[str, Any]) -> str:
    """Return the status as text."""
    lines = [
        f"endpoint     {status['url']}   (process {status['pid']}, guests by {status['accelerator']})",
        f"state        {status['home']}",
        f"ssh          port {status['ssh_port']} of an instance's public address",
        f"egress       {'through this host' if status['egress'] else 'none'}",
        f"certificate  {status['identity_certificate']}   (verifies identity documents)",
        f"holds        {len(status['images'])} images, {status['snapshots']} snapshots, {status['volumes']} volumes",
    ]
    lines += [
        f"image        {item['id']}  {item['region']}  {item['owner']}  {item['name']}" for item in status["images"]
    ]
    lines += [
        f"instance     {item['id']}  {item['region']}  {item['state']}  {item['public_address'] or '-'}"
        for item in status["instances"]
    ]
    return "\n".join(lines)


def reset(home: Path) -> int:
    """Stop the cloud and remove all that it holds; cached base images stay."""
    stop(home)
    with only_one(home / "server.lock", wait=False):
        for name in ("disks", "instances", "metadata", "authority"):
            shutil.rmtree(home / name, ignore_errors=True)
        for name in ("state.pickle", "server.json", "cloud.log", "fake-debian-12.raw"):
            (home / name).unlink(missing_ok=True)
    print(f"the local cloud in {home} is empty")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line, or exit with status 2."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.localcloud", description="an EC2 of one's own")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("start", "serve"):
        command = commands.add_parser(name)
        command.add_argument("--port", type=int, default=0, help=f"default: {DEFAULT_PORT}, or a free one")
        command.add_argument("--base", action="append", choices=list(DISTRIBUTIONS), default=[])
        command.add_argument("--guests", choices=["real", "fake"], default="real")
        command.add_argument("--no-egress", action="store_true", help="guests reach nothing outside")
        command.add_argument(
            "--processors",
            type=int,
            choices=range(1, MOST_PROCESSORS + 1),
            default=MOST_PROCESSORS,
            help="of a guest at most; 1 where many run at once",
        )
        command.add_argument("--faults", help="a JSON file of faults that are set from the beginning")
        if name == "start":
            command.add_argument("--json", action="store_true")
            command.add_argument("--image", default="", help="the name of an image that it must have")
    commands.add_parser("stop")
    commands.add_parser("status").add_argument("--json", action="store_true")
    commands.add_parser("reset")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = parse_arguments(arguments)
    home = cloud_home()
    actions = {
        "start": lambda: start(home, options),
        "serve": lambda: serve(home, options),
        "stop": lambda: stop(home),
        "status": lambda: show_status(home, options),
        "reset": lambda: reset(home),
    }
    try:
        status = actions[options.command]()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Failed, OSError) as error:
        print(f"local cloud: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
