"""The spec: one YAML file says what an image is to be. It is read once, into a frozen model, with all of its problems at once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AccountId = Annotated[str, Field(pattern=r"^\d{12}$", description="an AWS account: 12 digits")]
UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
Cidr = Annotated[str, Field(description="an IPv4 or IPv6 network, for example 203.0.113.7/32")]


class Part(BaseModel):
    """A part of the spec: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageFilter(Part):
    """The newest available image of one owner that matches. The owner is mandatory: names can be copied (A01)."""

    name: str
    owner: AccountId
    architecture: Literal["x86_64", "arm64"] = "x86_64"


class BaseImage(Part):
    """Where the build starts: exactly one of the three."""

    id: Annotated[str, Field(pattern=r"^ami-[0-9a-f]{8,17}$")] | None = None
    filter: ImageFilter | None = None
    parameter: Annotated[str, Field(pattern=r"^resolve:ssm:.+")] | None = None
    owner: AccountId | None = None
    """Required beside `id` and `parameter`: the image must belong to this account."""


class Instance(Part):
    """The instance that the image is built on."""

    type: str = "t3.small"


class Network(Part):
    """Where the build instance is launched; what is not named is the account's default, or made for the build."""

    subnet_id: str | None = None
    security_group_ids: tuple[str, ...] = ()
    ssh_from: Literal["caller"] | tuple[Cidr, ...] = "caller"
    address: Literal["public", "private"] = "public"


class Ssh(Part):
    """How the build logs in to the build instance."""

    user: UserName = "admin"
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key_file: str | None = None
    """A private key of your own; without it the build makes a temporary ed25519 key pair (H26: 0600, or it is refused)."""


class Sudo(Part):
    """A grant of sudo. Every grant says who decided it and why (H12)."""

    who: str
    why: str
    commands: str = "ALL"
    password: bool = False


class User(Part):
    """Somebody who may log in to instances of the image, with a key of their own (H09, H10)."""

    name: UserName
    full_name: str
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """Public keys, as in authorized_keys: ed25519, ECDSA, or RSA of at least 3072 bits."""
    shell: str = "/bin/bash"
    groups: tuple[str, ...] = ()
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


class Harden(Part):
    """What is set on the guest. A subject that is `null` is left as the base image has it."""

    sshd: SshdOptions | None = SshdOptions()
    updates: UpdatesOptions | None = UpdatesOptions()
    remove_other_users: bool = True
    """Remove login users that the spec does not name: leavers (H11)."""


class Scrub(Part):
    """What is kept although it would be scrubbed. Nothing, unless it is named here."""

    keep_files: tuple[str, ...] = ()


class BlockDevice(Part):
    """A disk of the image."""

    device_name: str
    size_gib: Annotated[int, Field(ge=1, le=16384)]
    type: Literal["gp2", "gp3", "io1", "io2", "standard"] = "gp3"


class Encryption(Part):
    """A customer key for the image's snapshots. The default key cannot be shared."""

    kms_key_id: str


class Image(Part):
    """The image that the build makes."""

    name: str = "{name}-{build_id}"
    """A template over the spec's name, build_id and date (YYYYMMDD)."""
    description: str = ""
    tags: dict[str, str] = {}
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    boot_mode: Literal["legacy-bios", "uefi", "uefi-preferred"] | None = None
    """None: as the base image."""
    imds: Literal["v2.0", "optional"] = "v2.0"
    encryption: Encryption | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    """None given: the base image's root disk, in its own size."""
    launch_user: UserName | None = "admin"
    """The account that gets the launch key of every instance (H15); null: none, only `users` may log in."""


class Share(Part):
    """Who may launch the image."""

    accounts: tuple[AccountId, ...] = ()
    organizations: tuple[str, ...] = ()
    organizational_units: tuple[str, ...] = ()
    public: bool = False
    product_codes: tuple[str, ...] = ()
    """Codes that the image must carry; read back and proved, never set (A11)."""


class Spec(Part):
    """All of a spec file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
    cloud: Literal["local", "aws"] = "aws"
    region: str
    base_image: BaseImage
    instance: Instance = Instance()
    network: Network = Network()
    ssh: Ssh = Ssh()
    users: tuple[User, ...] = ()
    harden: Harden = Harden()
    scrub: Scrub = Scrub()
    checks: tuple[str, ...] = ()
    """Your own testinfra files or folders, beside the spec; they run with ours."""
    image: Image = Image()
    share: Share = Share()
