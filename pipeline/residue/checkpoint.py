"""What a scan knows so far, on disk: an interrupted one goes on where it was. It holds fingerprints, never a secret."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import write_atomically
from pipeline.residue.engine import Match
from pipeline.residue.rules import Rule

EVERY_BLOCKS = 256
"""How often the state is written."""


@dataclass
class Checkpoint:
    """The state of one scan of one disk with one set of rules; `path` is None for a scan that is not kept."""

    path: Path | None
    subject: str
    rules: Sequence[Rule]

    def __post_init__(self) -> None:
        self.next_block = 0
        self.matches: list[Match] = []
        self.hashes: list[tuple[int, str]] = []
        known = self._read()
        if known and known.get("key") == self.key:
            by_identity = {rule.identity: rule for rule in self.rules}
            self.next_block = int(known["next_block"])
            self.hashes = [(int(index), str(value)) for index, value in known["hashes"]]
            self.matches = [
                Match(**{**match, "rule": by_identity[match["rule"]], "inside": tuple(match["inside"])})
                for match in known["matches"]
            ]

    @property
    def key(self) -> str:
        """What must be the same for a scan to go on: the disk and the rules, with the fingerprints of the secrets."""
        names = [f"{rule.identity} {getattr(rule, 'fingerprint', '')}" for rule in self.rules]
        return hashlib.sha256("\n".join([self.subject, *names]).encode()).hexdigest()

    def note(self, index: int, digest: str) -> None:
        """Take the hash of a block, where the state is kept at all."""
        if self.path is not None:
            self.hashes.append((index, digest))

    def save(self, next_block: int, matches: Sequence[Match]) -> None:
        """Write that all blocks before `next_block` are done, atomically. Raises FileUnwritable."""
        if self.path is None:
            return
        state = {
            "key": self.key,
            "next_block": next_block,
            "hashes": self.hashes,
            "matches": [{**flat(match), "rule": match.rule.identity} for match in matches],
        }
        write_atomically(self.path, json.dumps(state))

    def finish(self) -> None:
        """Remove the state: the scan is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        """Return what an earlier scan wrote, or None. What cannot be read is no reason to fail: it is scanned again."""
        try:
            state = json.loads(self.path.read_text()) if self.path else None
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None


def flat(match: Match) -> dict[str, object]:
    """Return a match without its rule."""
    return {name: value for name, value in vars(match).items() if name != "rule"}
