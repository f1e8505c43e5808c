"""What a spec can say: frozen, and complete when it is made."""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from pipeline.spec.profiles import with_profiles
from pipeline.spec.types import (
    AbsolutePath,
    AccountId,
    AnyCidr,
    Certificate,
    Cidr,
    Description,
    DeviceName,
    Endpoint,
    Form,
    FullName,
    HostKey,
    HostName,
    ImageId,
    ImageName,
    InstanceType,
    KeySource,
    KmsKeyId,
    LoginName,
    OneLine,
    OrganizationalUnitArn,
    OrganizationArn,
    PackageName,
    Parameter,
    ParameterName,
    ProductCode,
    ProductId,
    ProfileName,
    PublicKey,
    Region,
    RepositoryName,
    RepositoryUrl,
    RoleArn,
    SecurityGroupId,
    ServiceName,
    SigningKey,
    SmallCidr,
    SubnetId,
    TagKey,
    TagValue,
    UnitName,
    UserName,
    Word,
    render_image_name,
)

Architecture = Literal["x86_64", "arm64"]


Profile = Literal["baseline", "strict", "paid"]


def _is_word(value: object) -> str:
    return "word" if isinstance(value, str) else "list"


class Part(BaseModel):
    """A part of the spec: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ImageFilter(Part):
    """The newest available image of one owner that matches. The owner is mandatory: names can be copied (A01)."""

    name: OneLine
    """The image's name; * and ? stand for what varies."""
    owner: AccountId
    architecture: Architecture = "x86_64"


class BaseImage(Part):
    """Where the build starts: exactly one of the three."""

    id: ImageId | None = None
    filter: ImageFilter | None = None
    parameter: Parameter | None = None
    """A public or own SSM parameter that holds an image id."""
    owner: AccountId | None = None
    """Required beside `id` and `parameter`: the image must belong to this account."""


class Instance(Part):
    """The instance that the image is built on."""

    type: InstanceType = "t3.small"
    types: tuple[InstanceType, ...] = ()
    """Tried in this order where no zone has capacity for `type`."""
    spot: bool = False
    """Take spare capacity at its lower price; it may be taken back during the build, which fails then."""
    profile: ProfileName | None = None
    """An instance profile, for its role's credentials on the build instance (A21): Session Manager needs one."""
    termination_protection: bool = False
    """Refuse the termination of the build instance until the build's own end: set, tried, and lifted again (A07)."""


class Egress(Part):
    """One port that the build instance may reach (A03)."""

    port: Annotated[int, Field(ge=1, le=65535)]
    protocol: Literal["tcp", "udp"] = "tcp"
    to: Annotated[tuple[AnyCidr, ...], Field(min_length=1)] = ("0.0.0.0/0", "::/0")


class CreatedNetwork(Part):
    """A VPC of the build's own, removed at its end: two subnets, internet gateway, routes and access list (A04).

    With `address: private` the instance is in the private subnet, and goes out through a NAT.
    """

    cidr: SmallCidr = "172.30.0.0/24"
    nat: Literal["gateway", "instance"] = "gateway"
    """A NAT gateway, or an instance of the base image that forwards; each has an elastic address (A05, A06)."""


class Bastion(Part):
    """A host that is reached first, and through which the build instance is (ssh's ProxyJump)."""

    host: HostName
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: UserName
    key_file: OneLine
    """The private key that logs in there (H26: 0600, or refused)."""
    host_keys: Annotated[tuple[HostKey, ...], Field(min_length=1)]
    """Its host keys, as in known_hosts without the name: no other is accepted (H28)."""


class Network(Part):
    """Where the build instance is launched; what is not named is the account's default, or made for the build."""

    subnet_id: SubnetId | None = None
    security_group_ids: tuple[SecurityGroupId, ...] = ()
    create: CreatedNetwork | None = None
    egress: tuple[Egress, ...] = (Egress(port=80), Egress(port=443))
    """Where the build's own security group lets the instance go: by default updates, and nothing else (A03). The VPC's
    resolver, its clock and the metadata service are always reached."""
    connect: Literal["direct", "bastion", "session-manager", "instance-connect"] = "direct"
    """The way in: straight to its address; through a bastion (of `bastion`, or made with `create`); through Session
    Manager (`aws` and its session-manager-plugin); through an EC2 Instance Connect Endpoint of the VPC (`aws`)."""
    bastion: Bastion | None = None
    ssh_from: Annotated[
        Annotated[Literal["caller"], Tag("word")] | Annotated[tuple[Cidr, ...], Field(min_length=1), Tag("list")],
        Discriminator(_is_word),
    ] = "caller"
    """Who may reach ssh on the build instance: `caller` is the address that this build comes from (A02)."""
    address: Literal["public", "private"] = "public"
    scan_ports: bool = False
    """Try all 65535 TCP ports of a fresh instance from outside, the UDP ports of harden.listen, and those that amplify
    attacks (H19; seed [4]). Off: on AWS it takes minutes, because what is closed there never answers."""

    @property
    def makes_bastion(self) -> bool:
        """Whether guests are reached through a bastion of the build's own."""
        return self.create is not None and self.connect == "bastion"

    @property
    def makes_nat(self) -> Literal["gateway", "instance"] | None:
        """By which kind of NAT the guests of a made network go out; None where they have public addresses."""
        return self.create.nat if self.create and self.address == "private" else None

    @property
    def makes_gate(self) -> bool:
        """Whether a host of the build's own stands before its guests: a bastion, a NAT instance, or both in one."""
        return self.makes_bastion or self.makes_nat == "instance"


class Ssh(Part):
    """How the build logs in to the build instance."""

    user: UserName = "admin"
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key_file: OneLine | None = None
    """A private key of your own (H26: 0600, or refused), or the `.pub` of one that your ssh agent holds; without it the
    build makes a temporary ed25519 key pair."""
    administrator_key_file: OneLine | None = None
    """The private key of one of `users` with sudo: through it a fresh boot is proved where the launch user is not root
    (harden.launch_user_sudo)."""


class Sudo(Part):
    """A grant of sudo. Every grant says who decided it and why (H12)."""

    who: OneLine
    why: OneLine
    commands: OneLine = "ALL"
    password: bool = False
    until: date | None = None
    """The last day of the grant, in UTC: sudo itself refuses it afterwards, on every instance of the image."""


class User(Part):
    """Somebody who may log in to instances of the image, with a key of their own (H09, H10)."""

    name: LoginName
    full_name: FullName
    keys: Annotated[tuple[PublicKey, ...], Field(min_length=1)]
    """Public keys, as in authorized_keys: ed25519, ECDSA, or RSA of at least 3072 bits."""
    shell: AbsolutePath = "/bin/bash"
    groups: tuple[UserName, ...] = ()
    sudo: Sudo | None = None


class SshdOptions(Part):
    """The ssh daemon of the image (H01-H08)."""

    permit_root_login: Literal["no", "prohibit-password"] = "no"
    use_dns: bool = False
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    max_auth_tries: Annotated[int, Field(ge=1, le=6)] = 3
    login_grace_seconds: Annotated[int, Field(ge=10, le=120)] = 30
    allow_tcp_forwarding: bool = False


class UpdatesOptions(Part):
    """Package updates (H16)."""

    at_build: Literal["all", "security", "none"] = "all"
    periodic: bool = True
    """Install security updates daily by the distribution's own tool."""


class ClockOptions(Part):
    """The clock (H24)."""

    timezone: Annotated[str, Form(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", "a time zone, as Europe/Berlin")] = (
        "Etc/UTC"
    )


class KernelOptions(Part):
    """The baseline of kernel settings (H25)."""

    deny_modules: bool = True
    """Never load file systems and protocols that no server on EC2 needs."""


class LoginOptions(Part):
    """Logins and new accounts (H25; DS, CIS)."""

    umask: Literal["022", "027", "077"] = "027"
    idle_minutes: Annotated[int, Field(ge=0, le=1440)] = 0
    """End a shell at which nobody types for so long; 0: never."""


class AuditOptions(Part):
    """The audit trail of the kernel, by auditd (H25; DS, CIS)."""

    immutable: bool = True
    """Nobody, root included, changes the rules of a running instance."""


class MountsOptions(Part):
    """Mount options of /tmp, /var/tmp and /dev/shm: nosuid and nodev, and /tmp in memory (H25; DS, CIS)."""

    noexec: bool = True
    """No program runs from there."""
    tmp_percent: Annotated[int, Field(ge=5, le=90)] = 50
    """How much of the memory /tmp may take."""


class Repository(Part):
    """A repository of packages besides the distribution's own (H17; seed [1]): explicit, and signed."""

    name: RepositoryName
    url: RepositoryUrl
    key: SigningKey
    """The public key that signs it, as armoured text. No other key counts for it."""
    suite: Word = "stable"
    """Of apt; dnf has none."""
    components: Annotated[tuple[Word, ...], Field(min_length=1)] = ("main",)
    """Of apt; dnf has none."""
    only_for_build: bool = False
    """Close it again before the image is sealed: instances get no updates from there."""


class Service(Part):
    """An installed service that runs as a user and in a group of its own, without rights (H23; seed [1])."""

    unit: ServiceName
    account: UserName
    """Its user and its group; made where they are not there."""
    writes_to: tuple[AbsolutePath, ...] = ()
    """Folders that are given to it."""
    low_ports: bool = False
    """It may listen on ports below 1024."""


class Port(Part):
    """A port that instances of the image serve: it may listen (H18), and the host firewall lets it in (H20)."""

    port: Annotated[int, Field(ge=1, le=65535)]
    protocol: Literal["tcp", "udp"] = "tcp"
    sources: tuple[AnyCidr, ...] = ()
    """Whom the firewall lets in; none given: everybody whom the security group lets in."""


class FirewallOptions(Part):
    """The host firewall (H20; seed [1], CIS): nftables, dropping what comes in and is not allowed. ssh always is."""

    ssh_sources: tuple[Cidr, ...] = ()
    """Who may reach ssh; none given: everybody whom the security group lets in. The build must be among them."""
    answer_ping: bool = True
    forward: bool = False
    """Let packets through to containers and virtual machines; otherwise they are dropped."""


class MetadataOptions(Part):
    """Who reaches the instance metadata service, and with it the credentials of the instance's role (H21; seed [4])."""

    reachable: Literal["by-root", "while-booting"] = "by-root"
    """`by-root`: an owner rule of nftables. `while-booting`: a blackhole route once cloud-init is done, root included;
    seed [4] has both."""
    users: tuple[UserName, ...] = ()
    """Accounts of services that may reach it too: those that use the instance's role."""


class ToolUpdates(Part):
    """EC2 tools that are updated at each boot (H32; seed [3]).

    Each boot then costs time and paid traffic, and brings what was not proved with the image: the spec says why it is
    worth that.
    """

    packages: Annotated[tuple[PackageName, ...], Field(min_length=1)]
    """For example amazon-ssm-agent, ec2-instance-connect, cloud-init."""
    reason: Annotated[OneLine, Field(min_length=10)]
    """Why costs and risk are worth it; it is in the report."""


class KeySync(Part):
    """A unit that refreshes the keys of `users` from one S3 object or SSM parameter (H11; seed [0]).

    So who leaves is out of running instances too. The text holds a line for each key, `USER ssh-ed25519 AAAA… comment`,
    of all users. The role of the instance must be allowed to read it; without a role, keys stay as the image has them.
    """

    source: KeySource
    region: Region | None = None
    """Where it is; none given: the region of the image."""
    every_minutes: Annotated[int, Field(ge=5, le=1440)] = 15
    endpoint: Endpoint | None = None
    """Another address of the service, for example of a VPC endpoint; plain http is for the local cloud only."""


class ProductGuard(Part):
    """A unit that holds the application back unless the instance carries the image's product codes (H31; seed [3], MP).

    It reads them from the metadata service and from the instance identity document, whose signature it verifies.
    """

    services: tuple[UnitName, ...] = ()
    """The application's units: they start only when the guard has passed, at every boot."""
    certificates: dict[Region, Certificate] = {}
    """By region, the RSA-2048 certificate that signs the identity documents there, as AWS publishes it (EC2 guide,
    "AWS public certificates for instance identity document signatures"). In other regions nothing starts."""


class Harden(Part):
    """What is set on the guest. A subject that is `null` is left as the base image has it."""

    profile: Annotated[
        Annotated[Profile, Tag("word")] | Annotated[tuple[Profile, ...], Field(min_length=1), Tag("list")],
        Discriminator(_is_word),
    ] = "baseline"
    """Where the options come from that the spec does not set: one profile, or several, of which the later wins."""
    sshd: SshdOptions | None = SshdOptions()
    updates: UpdatesOptions | None = UpdatesOptions()
    clock: ClockOptions | None = ClockOptions()
    kernel: KernelOptions | None = KernelOptions()
    login: LoginOptions | None = LoginOptions()
    audit: AuditOptions | None = None
    """Off, because it installs a package and costs a moment of each boot: auditd."""
    mandatory_access: bool = False
    """AppArmor or SELinux, by family (H25; DS, CIS). Off, because it costs a moment of each boot."""
    permissions: bool = False
    """Cron's folders and the configuration of sshd are for root only (H25; CIS). Off, because who is not root then
    cannot see what runs when."""
    mounts: MountsOptions | None = None
    """Off, because software that runs programs from /tmp would stop to work."""
    repositories: tuple[Repository, ...] = ()
    packages: tuple[PackageName, ...] = ()
    """Packages that the image has besides those of the base image."""
    services: tuple[Service, ...] = ()
    listen: tuple[Port, ...] = ()
    """Which ports may listen, besides that of ssh (H18; seeds [1], [4]). Whatever else listens fails the proof."""
    firewall: FirewallOptions | None = None
    """Off, because it installs a package: nftables."""
    metadata: MetadataOptions | None = None
    """Off, because services that use the role of their instance must be named first."""
    first_boot: bool = True
    """Prepare the first boot: the launch key's way, fresh host keys, a random root password (H13, H15)."""
    remove_other_users: bool = True
    """Remove login users that the spec does not name: leavers (H11)."""
    tool_updates: ToolUpdates | None = None
    """Off, because of what it costs and risks: every boot asks repositories, and gets what nobody proved."""
    key_sync: KeySync | None = None
    """Off, because somebody must keep the keys elsewhere, and every instance needs a role that reads them."""
    launch_user_sudo: bool = True
    """Whether who launches an instance is root on it. False: no sudo, and cloud-init reads no user-data, which it would
    run as root (H30; seed [3]). The channel decides: AWS Marketplace wants an administrator."""
    product_guard: ProductGuard | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_profiles(cls, data: object) -> object:
        return with_profiles(data)


class Waiver(Part):
    """What the residue proof finds and what may stay for a time. It goes by its fingerprint, never by a path."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    reason: Annotated[str, Field(min_length=10)]
    expires: date


class ControlWaiver(Part):
    """A control of hardening that may fail for a time. It is in every report, with its reason, until it expires."""

    control: Annotated[str, Form(r"H(0[1-9]|[12][0-9]|3[0-2])", "a control of hardening: H01 to H32")]
    reason: Annotated[OneLine, Field(min_length=10)]
    expires: date


class Forbidden(Part):
    """What may not be passed on with a shared image (S23; seed [3])."""

    reason: Annotated[OneLine, Field(min_length=10)]
    paths: tuple[AbsolutePath, ...] = ()
    """Files and folders, removed with all that is in them; * and ? stand for anything but a slash."""
    packages: tuple[PackageName, ...] = ()
    """Packages: the build fails where one is installed."""


class Scrub(Part):
    """What is kept although it would be scrubbed. Nothing, unless it is named here."""

    keep_files: tuple[AbsolutePath, ...] = ()
    forbid: tuple[Forbidden, ...] = ()
    """Sensitive data, and software whose licence does not let it be passed on."""
    waivers: tuple[Waiver, ...] = ()
    """What the residue proof may find: by fingerprint, with a reason, until a date."""
    free_space: Literal["auto", "in-place", "rewrite", False] = "auto"
    """How what was deleted leaves the disk (S22): `in-place` overwrites free blocks on the guest; `rewrite` writes a
    new snapshot with zeros for all that is not allocated, so that names and journals go too; `auto` rewrites what it
    can (ext4 and XFS, without product codes). false: it stays on the image's disk."""


class Consumer(Part):
    """Another account, which launches the image to prove it: with nothing but what was shared with it."""

    role_arn: RoleArn
    """A role of that account, which the caller may assume."""
    external_id: Annotated[str, Form(r"[\w+=,.@:/-]{2,1224}", "an external id of STS")] | None = None
    subnet_id: SubnetId | None = None
    """A subnet of that account; null: its default ones."""


class Prove(Part):
    """How instances of the image are proved."""

    consumer: Consumer | None = None
    """Who launches the image for its proof; null: the account that built it. The image is shared with that account for
    the time of the proof, and with nobody else."""

    boot_again: tuple[Literal["reboot", "stop-start"], ...] = ("reboot", "stop-start")
    """Boots of the fresh instance after its first, each proved as that was (H29). None: settings, host keys, disk and
    services may not survive, and the report says so. Each costs a boot."""


class BlockDevice(Part):
    """A disk of the image."""

    device_name: DeviceName
    size_gib: Annotated[int, Field(ge=1, le=16384)]
    type: Literal["gp2", "gp3", "standard"] = "gp3"


class Encryption(Part):
    """A customer key for the image's snapshots. The default key cannot be shared."""

    kms_key_id: KmsKeyId


class Image(Part):
    """The image that the build makes."""

    name: ImageName = "{name}-{build_id}"
    """A template over the spec's name, build_id and date (YYYYMMDD)."""
    description: Description = ""
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=40)] = {}
    contact: TagValue | None = None
    """Who answers for the image, as an address: a tag of it in every region (A13). Others see name and description."""
    architecture: Architecture = "x86_64"
    boot_mode: Literal["legacy-bios", "uefi", "uefi-preferred"] | None = None
    """None: as the base image."""
    imds: Literal["v2.0", "optional"] = "v2.0"
    encryption: Encryption | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    """None given: the base image's root disk, in its own size."""
    launch_user: LoginName | None = "admin"
    """The account that gets the launch key of every instance (H15); null: none, only `users` may log in."""

    @property
    def own_tags(self) -> dict[str, str]:
        """The tags of the spec, the contact among them."""
        return {**self.tags, "Contact": self.contact} if self.contact else dict(self.tags)


class Share(Part):
    """Who may launch the image."""

    accounts: tuple[AccountId, ...] = ()
    organizations: tuple[OrganizationArn, ...] = ()
    organizational_units: tuple[OrganizationalUnitArn, ...] = ()
    public: bool = False
    product_codes: tuple[ProductCode, ...] = ()
    """Codes that the image must carry; read back and proved, never set (A11)."""


class Retire(Part):
    """What `invoke retire` does with the images of older builds: deprecated at once, then disabled, then removed."""

    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """So many of the newest are left alone."""
    grace_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Between two steps, and since the last launch: time to move away, or to come back."""


class MarketplacePort(Part):
    """A TCP port that the product's security group opens."""

    port: Annotated[int, Field(ge=1, le=65535)]
    sources: Annotated[tuple[AnyCidr, ...], Field(min_length=1)]


class Marketplace(Part):
    """The product of AWS Marketplace that gets the image as a new version (A22). It is sold, so it is never public."""

    seller: AccountId
    """The account that sells: nobody else submits."""
    product_id: ProductId
    access_role: RoleArn
    """The role by which the Marketplace reads the image."""
    operating_system: Literal["AMAZONLINUX", "CENTOS", "DEBIAN", "OTHERLINUX", "RHEL", "SUSE", "UBUNTU"]
    operating_system_version: OneLine
    instance_type: InstanceType
    """The one that is recommended."""
    usage: OneLine
    """How to use an instance, for the customer."""
    release_notes: OneLine | None = None
    ports: Annotated[tuple[MarketplacePort, ...], Field(min_length=1)]
    """All that instances serve, ssh among them."""


class Release(Part):
    """Where else the image is released, and what is set on it everywhere. Nothing named: it is shared where it is."""

    regions: tuple[Region, ...] = ()
    """Beside the spec's own: each gets a copy, proved to be the same blocks, and shared as `share` says (R06, A10)."""
    parameter: ParameterName | None = None
    """An SSM parameter of the type aws:ec2:image that holds the image's id, in each region; last but for public."""
    deprecate_after_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """The image is deprecated so many days after it was made (A12)."""
    protect: bool = False
    """Protect the image from deregistration (A12)."""
    copies_on_failure: Literal["keep", "remove"] = "keep"
    """What becomes of new copies when the release fails: kept, so that it can be completed, or removed."""

    marketplace: Marketplace | None = None
    """The product that `invoke marketplace.submit` adds the image to."""
    retire: Retire | None = None
    """What becomes of the images of older builds; not named: `invoke retire` refuses."""

    @property
    def goes_further(self) -> bool:
        """Whether anything is named: more than sharing the image where it is."""
        return self != Release(retire=self.retire, marketplace=self.marketplace)


class Attest(Part):
    """Who signs the statement about a proved image. Nothing named: an ed25519 key of this user, made on first use."""

    key_file: OneLine | None = None
    """A private key of your own: ed25519, PKCS8 in PEM, 0600. One that is not there is made."""
    kms_key_id: KmsKeyId | None = None
    """An asymmetric key of KMS for SIGN_VERIFY; it never leaves KMS."""


class Spec(Part):
    """All of a spec file."""

    name: Annotated[str, Form(r"[a-z0-9][a-z0-9.-]{0,62}", "a name: small letters, digits, . and -, at most 63")]
    cloud: Literal["local", "aws"] = "aws"
    region: Region
    base_image: BaseImage
    instance: Instance = Instance()
    network: Network = Network()
    ssh: Ssh = Ssh()
    users: tuple[User, ...] = ()
    harden: Harden = Harden()
    scrub: Scrub = Scrub()
    prove: Prove = Prove()
    waivers: tuple[ControlWaiver, ...] = ()
    """Controls of hardening whose checks may fail, each with a reason, until a date."""
    checks: tuple[OneLine, ...] = ()
    """Your own testinfra files or folders, beside the spec; they run with ours."""
    image: Image = Image()
    share: Share = Share()
    release: Release = Release()
    attest: Attest = Attest()

    def image_name(self, build_id: str, day: date) -> str:
        """Return the name of the image that a build on a day makes."""
        return render_image_name(self.image.name, self.name, build_id, day)
