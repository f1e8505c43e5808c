"""How the peers that look for secrets are called: each in the folder of files that a mounted file system would show.

CloudShovel mounts an AMI's volumes on an instance of its own and looks for files by their names: that search is run
here. Lynis audits the running system beside the folder; what it names in the folder counts.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.residue.encodings import Encoding
from tests.bench.scan import alternation
from tests.peers.environment import PeersMissing, make_environment

LOCK = Path(__file__).with_name("peers.lock")
CLOUDSHOVEL_NAMES = (
    *(".aws", ".ssh", "credentials.xml", "secrets.yml", "config.php", "_history", "autologin.conf", "web.config"),
    *(".env", ".git"),
)
"""What cloudshovel 1.0.2 looks for: utils/bash_scripts/mount_and_dig.sh."""
CLOUDSHOVEL = rf"""find . -size -25M \( {" -o ".join(f"-name '{name}'" for name in CLOUDSHOVEL_NAMES)} \) -not -empty"""
LYNIS = (
    'lynis audit system --rootdir "$PWD/" --forensics --quick --no-colors --log-file {log} --report-file {log}.dat'
    ' >{log}.out 2>&1; grep -oh "$PWD/[^ |,;]*" {log}.dat {log}.out | sed "s|$PWD/||"'
)
NAMED = re.compile(r'"(?:path|filename)":\s*"([^"]+)"')
"""Where the peers that print JSON name a file."""


@dataclass(frozen=True)
class Peer:
    """A tool, and what it is asked; its program is None where it is not installed."""

    name: str
    program: str | None
    command: tuple[str, ...]


def find_peers(scratch: Path) -> list[Peer]:
    """Return every peer; those written for Python are installed from their lock where a registry answers."""
    try:
        path = str(make_environment(".venv-searchers", LOCK))
    except PeersMissing:
        path = "/nonexistent"
    python = {
        name: shutil.which(name, path=path) for name in ("detect-secrets", "trufflehog3", "betterleaks", "kingfisher")
    }
    plain = alternation({Encoding.PLAIN})
    return [
        Peer("detect-secrets 1.5.0", python["detect-secrets"], ("scan", "--all-files", ".")),
        Peer("TruffleHog3 3.0.10", python["trufflehog3"], ("-z", "-f", "JSON", "--no-history", ".")),
        Peer("Betterleaks (of Gitleaks) 2.0.0", python["betterleaks"], ("--jsonl", "-o", "-", "--no-banner", ".")),
        Peer("Kingfisher 2.14.0", python["kingfisher"], ("scan", ".", "--no-validate", "--format", "json")),
        Peer("ripgrep, our patterns", shutil.which("rg"), ("-lauuU", "--no-unicode", plain, ".")),
        Peer("CloudShovel 1.0.2", shutil.which("sh"), ("-c", CLOUDSHOVEL)),
        Peer(
            "Lynis", shutil.which("sh") if shutil.which("lynis") else None, ("-c", LYNIS.format(log=scratch / "lynis"))
        ),
    ]


def names_in(told: str, folder: Path) -> set[str]:
    """Return the files that a peer named, as paths of the disk; a folder that it named stands for all in it."""
    names = NAMED.findall(told) or told.splitlines()
    found: set[str] = set()
    for path in (folder / name for name in names if name and not name.startswith("{")):
        files = path.rglob("*") if path.is_dir() else (path,)
        found |= {f"/{file.resolve().relative_to(folder.resolve())}" for file in files if file.is_file()}
    return found
