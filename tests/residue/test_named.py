"""A file is told by its name: all rules are asked at once, and the one that matches says what it is."""

import stat

import pytest

from pipeline.residue.filesystems import Entry
from pipeline.residue.named import ALL_NAMED, NAMED, named_residue


@pytest.mark.parametrize(
    ("path", "control", "kind"),
    [
        ("/etc/krb5.keytab", "S18", "registration of an agent"),
        ("/etc/cryptsetup-keys.d/data.key", "S18", "key of a disk or of a TPM"),
        ("/var/lib/tpm/system.data", "S18", "key of a disk or of a TPM"),
        ("/var/tmp/packer/x", "S16", "temporary file"),
        ("/swapfile", "S21", "swap file"),
        ("/etc/iscsi/initiatorname.iscsi", "S12", "iSCSI name"),
        ("/etc/nvme/hostid", "S12", "NVMe name"),
        ("/etc/nvme/hostnqn", "S12", "NVMe name"),
    ],
)
def test_the_rule_that_matches_is_named(path: str, control: str, kind: str) -> None:
    ((rule, entry),) = named_residue((Entry(path, 12, 1, stat.S_IFREG),))
    assert (rule.control, rule.kind, entry.path) == (control, kind, path)
    assert rule.path.fullmatch(path)


@pytest.mark.parametrize(
    ("content", "is_a_name"),
    [(b"# made\nInitiatorName=iqn.2004-10.com.ubuntu:01:3a1c\n", True), (b"GenerateName=yes\n", False)],
)
def test_an_iscsi_name_is_told_by_its_content(content: bytes, is_a_name: bool) -> None:
    (rule,) = (rule for rule in NAMED if rule.kind == "iSCSI name")
    assert rule.content is not None
    assert bool(rule.content.match(content)) is is_a_name


def test_an_empty_file_a_folder_and_a_name_that_no_rule_has_are_none() -> None:
    file, folder = stat.S_IFREG, stat.S_IFDIR
    entries = (Entry("/swapfile", 12, 0, file), Entry("/tmp/x", 13, 1, folder), Entry("/srv/swapfile", 14, 1, file))
    assert list(named_residue(entries)) == []


def test_each_rule_is_one_group() -> None:
    assert ALL_NAMED.groups == len(NAMED)
