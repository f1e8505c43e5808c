"""The server process: puts the cloud together, makes the base images, serves, and stops in order."""

import argparse
import errno
import json
import logging
import os
import signal
import threading
from pathlib import Path

from pipeline.localcloud import DEFAULT_PORT, MOST_PROCESSORS, control_plane
from pipeline.localcloud.base_image import BaseImage, BaseImageFailed, default_cache, make_base_image
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.emulator import accelerator, choose_emulator
from pipeline.localcloud.fake_guests import FakeGuest
from pipeline.localcloud.faults import FaultRefused
from pipeline.localcloud.guests import Guest
from pipeline.localcloud.machines import GuestFactory, Machines
from pipeline.localcloud.seeding import make_fake_base, seed_images
from pipeline.localcloud.server import Server
from pipeline.localcloud.state import StateRefused

SHUT_DOWN_SECONDS = 60.0
REGION = "us-east-1"

log = logging.getLogger("localcloud")


def open_cloud(
    home: Path,
    make_guest: GuestFactory,
    bases: list[BaseImage],
    *,
    egress: bool = True,
    processors: int = MOST_PROCESSORS,
) -> Cloud:
    """Return a cloud with its state of before, and the base images. Raises StateRefused and OSError."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    cloud = Cloud(home, Machines(home, make_guest, egress=egress, processors=processors))
    control_plane.install(cloud)
    seed_images(cloud, bases)
    cloud.seed(REGION)
    return cloud


def listen(cloud: Cloud, home: Path, wanted: int) -> Server:
    """Return a server at the wanted port, else at that of the last time or the usual one, else at a free one."""
    if wanted:
        return Server(cloud, wanted)
    last = home / "port"
    usual = int(last.read_text()) if last.exists() else DEFAULT_PORT
    try:
        server = Server(cloud, usual)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        server = Server(cloud, 0)
    last.write_text(str(server.port))
    return server


def run_service(home: Path, options: argparse.Namespace) -> int:
    """Serve until SIGTERM, SIGINT or a request to stop. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        fake = options.guests == "fake"
        cache = default_cache()
        suites = options.base or ["bookworm"]
        bases = [make_fake_base(home)] if fake else [make_base_image(suite, cache, log.info) for suite in suites]
        accelerated_by = "none" if fake else f"{accelerator()}, QEMU {'.'.join(map(str, choose_emulator().version))}"
        guests = FakeGuest if fake else Guest
        cloud = open_cloud(home, guests, bases, egress=not options.no_egress, processors=options.processors)
        if options.faults:
            cloud.faults.replace(json.loads(Path(options.faults).read_text())["faults"])
        server = listen(cloud, home, options.port)
    except (BaseImageFailed, StateRefused, FaultRefused, OSError, ValueError, KeyError) as error:
        log.error("local cloud: %s", error)
        return 1
    serve_until_stopped(home, server, accelerated_by)
    return 0


def serve_until_stopped(home: Path, server: Server, accelerated_by: str) -> None:
    """Serve, say where, and stop in order."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stopping.set())
    server.application.on_stop = stopping.set
    server.start()
    record = home / "server.json"
    temporary = record.with_suffix(".new")
    temporary.write_text(json.dumps({"url": server.url, "pid": os.getpid(), "accelerator": accelerated_by}))
    temporary.replace(record)
    log.info("the local cloud answers at %s", server.url)
    stopping.wait()
    server.stop(SHUT_DOWN_SECONDS)
    record.unlink(missing_ok=True)
