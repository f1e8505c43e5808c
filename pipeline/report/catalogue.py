"""The control catalogue: what an image build must set, scrub and prove, where it is proved, and who asks for it.

`SOURCES` says what the short names of sources stand for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.report.results import Layer


@dataclass(frozen=True)
class Control:
    """One requirement on an image."""

    identity: str
    title: str
    layers: tuple[Layer, ...]
    """Where it is served (hardened, scrubbed) and where it is proved."""
    sources: tuple[str, ...]
    not_applicable: Mapping[Layer, str] = field(default_factory=dict)
    """Why nothing can prove it at a layer, for those of its layers where that is so."""

    @property
    def proved_at(self) -> tuple[Layer, ...]:
        """Return the layers at which something must prove it."""
        others = {Layer.HARDENED, Layer.SCRUBBED, *self.not_applicable}
        return tuple(layer for layer in self.layers if layer not in others)


def control(identity: str, title: str, layers: str, sources: str = "", **not_applicable: str) -> Control:
    """Return one row: layers are letters, sources stand with spaces between them, and reasons at letters of layers."""
    reasons = {Layer(letter): reason for letter, reason in not_applicable.items()}
    return Control(identity, title, tuple(Layer(letter) for letter in layers), tuple(sources.split()), reasons)


HARDENING = (
    control("H01", "ssh accepts no passwords", "GLB", "0 1 4 MP DS"),
    control("H02", "root does not log in by ssh, or only as the spec says", "GLB", "0 1 3 DS"),
    control("H03", "ssh lets in exactly the spec's login users", "GLB", "0"),
    control("H04", "sshd has the rest of the hardened template", "GLB", "1"),
    control("H05", "sshd looks up client names only if the spec says so", "GL", "3"),
    control("H06", "sshd has modern cryptography and limits", "GLB", "DS Mozilla 0"),
    control("H07", "sshd is changed safely: tested, a second login proved, otherwise rolled back", "G", "0"),
    control("H08", "host keys are strong, and their fingerprints published", "GLB", "1"),
    control("H09", "users have strong keys of their own", "GL", "0"),
    control("H10", "users are made as the spec says", "GLB", "0"),
    control("H11", "leavers are removed with their keys and files", "GL", "0"),
    control("H12", "sudo is for the spec's administrators, each grant explained and logged", "GLB", "0"),
    control("H13", "the root password is never fixed", "GB", "3"),
    control("H14", "no account has an empty, default or known password", "LBR", "MP 0"),
    control("H15", "the launch key arrives from the metadata service at boot", "GB", "3"),
    control("H16", "packages are up to date, and stay so", "GLB", "0 1 2 3"),
    control("H17", "extra repositories are explicit and signed", "GL", "1"),
    control("H18", "only the allowed sockets listen", "LB", "1 4 DS"),
    control("H19", "a port scan from outside finds what the security group intends", "BA", "4"),
    control("H20", "a host firewall drops what is not allowed", "GLB", "1"),
    control("H21", "only root reaches the metadata service", "GLB", "4"),
    control("H22", "copies of user-data and metadata are private, and hold no secret", "GLA", "4"),
    control("H23", "services run under users of their own", "GL", "1"),
    control("H24", "the time zone is the spec's", "GLB", "1"),
    control("H25", "kernel and system follow the baseline", "GLB", "DS CIS"),
    control("H26", "the operator's key files are private", "L", "1 2"),
    control("H27", "no private key is on the guest unless the spec declares it", "LR", "1"),
    control("H28", "the build guest's host key is pinned, never trusted on first use", "G", "1"),
    control("H29", "settings, disk and services survive a reboot", "B", "1"),
    control("H30", "root access of a paid image is as its channel demands", "GLB", "3 MP"),
    control("H31", "a paid image guards its application by product code and identity document", "GBA", "3"),
    control("H32", "EC2 tools are updated at boot where the spec says so", "GB", "3"),
)

SCRUBBING = (
    control("S01", "no ssh host key ships", "SLBR", "1 3"),
    control("S02", "no authorized key ships but the spec's", "SLBR", "0 2 3"),
    control("S03", "no user's private key or ssh configuration ships", "SLBR", "0 1 3"),
    control("S04", "no history of a shell or interpreter ships", "SLBR", "3"),
    control("S05", "no X.509 signing certificate ships", "SLBR", "2 3"),
    control("S06", "no cloud credential ships", "SLBR", "2"),
    control("S07", "no credential of a service ships", "SLBR", ""),
    control("S08", "no login inside an address ships", "SLBR", ""),
    control("S09", "no back-up of account files or edits ships", "SLBR", "VS"),
    control("S10", "the build user is gone when the spec has its own", "SLBR", "0 IB"),
    control("S11", "no state of cloud-init ships", "SLBR", ""),
    control("S12", "no machine identity ships", "SLBR", ""),
    control("S13", "no network identity ships", "SLBR", ""),
    control("S14", "no log ships", "SLBR", ""),
    control("S15", "no history or cache of a package manager ships", "SLBR", ""),
    control("S16", "no temporary file ships", "SLBR", ""),
    control("S17", "no mail, spool or core dump ships", "SLBR", ""),
    control("S18", "no registration of an agent, and no private TLS key, ships", "SLBR", ""),
    control("S19", "no container layer, database or repository of the build ships", "SLBR", ""),
    control("S20", "no time stamp of sudo or login failures ships", "SLBR", ""),
    control("S21", "no swap or hibernation image ships", "SLBR", ""),
    control(
        "S22",
        "nothing ships in free blocks, slack, journal or gaps",
        "SLBR",
        B="free blocks are no matter of a running system, and its own work fills them: they are read from the snapshot",
    ),
    control("S23", "nothing ships that the spec forbids on a shared image", "SLBR", "3"),
)

BACK_DOORS = (
    control("V01", "no unknown key or authority is trusted", "LBR", "2 Balduzzi"),
    control("V02", "no second root, and no unexplained privilege", "LBR", "2 Balduzzi"),
    control("V03", "set-user-id files and capabilities are those of packages", "LBR", "2 Balduzzi"),
    control("V04", "cron, timers, units and start-up scripts are known", "LBR", "2 Balduzzi"),
    control("V05", "PAM, the loader and packages are unchanged", "LBR", "2 Balduzzi"),
    control("V06", "certificate authorities are the distribution's", "LBR", "2 Balduzzi"),
    control("V07", "nothing calls home", "LBR", "2 Balduzzi"),
    control("V08", "every program belongs to a package", "LBR", "2 Balduzzi"),
    control("V09", "kernel modules and initramfs are the distribution's", "LBR", "2 Balduzzi"),
    control("V10", "the difference to the base image is explained", "LBR", "2 Balduzzi"),
)

RAW_BLOCKS = (
    control("R01", "blocks are scanned while the snapshot is private", "R", ""),
    control("R02", "each hit is located: allocated, free, slack, journal or swap", "R", ""),
    control("R03", "no block holds a secret or key that the build used", "R", ""),
    control("R04", "compression, encodings and block joins hide nothing", "R", ""),
    control("R05", "no fragment of a history is left without a file", "R", ""),
    control("R06", "what is published is bit for bit what was scanned", "R", ""),
)

CLOUD_SIDE = (
    control("A01", "the base image is pinned: owner, id, ancestry", "A", "2"),
    control("A02", "the build's security group is open for the operator only", "A", "0 1 4"),
    control("A03", "the build's way out is limited", "A", "1"),
    control("A04", "the network is as the spec says", "A", "1"),
    control("A05", "private builds go out through NAT", "A", "1"),
    control("A06", "elastic addresses are released", "A", "1"),
    control("A07", "termination protection, deletion of volumes and tags are as the spec says", "A", "1"),
    control("A08", "the instance was stopped before the snapshot", "A", "1"),
    control("A09", "snapshot permissions are exactly as intended", "A", "MP"),
    control("A10", "launch permissions are exactly as intended", "A", "3"),
    control("A11", "product codes are as intended", "A", "3 MP"),
    control("A12", "the image's attributes are as the spec says", "A", "AWS"),
    control("A13", "the image says whose it is", "A", "3"),
    control("A14", "temporary key pairs are gone", "A", "2"),
    control("A15", "the account's root user has MFA and no access key", "A", "1"),
    control("A16", "everyone who may launch instances has MFA", "A", "1"),
    control("A17", "the account's password policy is strong", "A", "1"),
    control("A18", "access keys are few, used and young", "A", "1 2"),
    control("A19", "a billing alarm has a subscriber", "A", "1"),
    control("A20", "connectivity is tested before anything is spent", "A", "2"),
    control("A21", "the build's user-data holds no secret, and its role is minimal", "A", "4"),
    control("A22", "the Marketplace's conditions are met", "A", "MP"),
)

SECTIONS = {
    "Hardened": HARDENING,
    "Scrubbed": SCRUBBING,
    "Back doors": BACK_DOORS,
    "Raw blocks": RAW_BLOCKS,
    "The cloud's side": CLOUD_SIDE,
}
"""The catalogue in its order, by the titles of its parts."""

CATALOGUE = {one.identity: one for controls in SECTIONS.values() for one in controls}
"""Every control by its id."""


def controls_at(layer: Layer) -> tuple[str, ...]:
    """Return the ids of all controls that something must prove at a layer."""
    return tuple(one.identity for one in CATALOGUE.values() if layer in one.proved_at)


SOURCES = {
    "0": "user management on servers",
    "1": "hardening of EC2 instances",
    "2": "sharing of images",
    "3": "shared and paid images",
    "4": "access from and to instances",
    "AWS": "the EC2 guide on shared images",
    "MP": "the AWS Marketplace's policy for AMIs",
    "DS": "the dev-sec baselines",
    "CIS": "the CIS benchmarks",
    "VS": "the operations of virt-sysprep",
    "IB": "the clean-up of EC2 Image Builder",
    "Mozilla": "Mozilla's guide to OpenSSH",
    "Balduzzi": "the study of 2012 on the security of public images",
}
"""What the short names of sources stand for; 0 to 4 are the texts that the catalogue began with."""
