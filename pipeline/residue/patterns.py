"""What no image may hold, whoever built it: pure data.

A pattern has anchors, which are searched for in plain, UTF-16 and base64; an expression that must match where an anchor
lies; and a function of `confirm.py` that tells the real thing from what looks like it.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.residue import confirm
from pipeline.residue.encodings import Encoding, Span, parse_form
from pipeline.residue.rules import Sighting, Trigger, dress, fingerprint_of, undress


@dataclass(frozen=True)
class Pattern:
    """One kind of residue. Anchors are small expressions of fixed length, as `parse_form` takes them."""

    identity: str
    control: str
    kind: str
    anchors: tuple[bytes | Span, ...]
    expression: bytes
    check: confirm.Confirm = confirm.random_looking
    before: int = 64
    after: int = 256
    plain_only: bool = False
    """Binary structures and the traces of Unix tools do not come in UTF-16 or base64."""
    also: tuple[str, ...] = field(default=())

    @property
    def controls(self) -> tuple[str, ...]:
        """The control that a match violates, and others that the pattern serves."""
        return (self.control, *self.also)

    @property
    def reach(self) -> tuple[int, int]:
        """Twice what the expression wants to see: UTF-16 is twice as long."""
        return (2 * self.before, 2 * self.after)

    @cached_property
    def compiled(self) -> re.Pattern[bytes]:
        """The expression, compiled when it is first needed."""
        return re.compile(self.expression, re.DOTALL)

    def triggers(self) -> tuple[Trigger, ...]:
        """Return every form of every anchor."""
        found: list[Trigger] = []
        for anchor in self.anchors:
            if isinstance(anchor, Span):
                found.append(Trigger(anchor, Encoding.PLAIN))
                continue
            dressed = dress(parse_form(anchor))
            found += [trigger for trigger in dressed if not self.plain_only or trigger.encoding is Encoding.PLAIN]
        return tuple(found)

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting | None:
        """Accept a trigger when the expression matches over it and the match is confirmed."""
        text, start = undress(window, place, trigger.encoding)
        for match in self.compiled.finditer(text, max(0, start - self.before)):
            if match.start() >= start + trigger.length:
                return None
            if match.end() > start:
                secret = self.check(match)
                return None if secret is None else Sighting(fingerprint_of(secret))
        return None


WORD = rb"(?<![0-9A-Za-z_-])"
END = rb"(?![0-9A-Za-z_-])"
QUOTE = rb"[\"']?"


def token(
    identity: str, kind: str, anchor: bytes, rest: bytes, check: confirm.Confirm = confirm.random_looking
) -> Pattern:
    """Return the pattern of an access token that begins with a prefix of its own.

    One that cannot be taken for anything else may touch other words, as in the rows of a database.
    """
    distinct = check is confirm.base62_crc or re.match(rb"[a-z]{5}", anchor)
    expression = rb"(?P<secret>" + rest + rb")"
    expression = expression if distinct else WORD + expression + END
    return Pattern(identity, "S07", kind, (anchor,), expression, check, before=8, after=400)


def assigned(identity: str, control: str, kind: str, *anchors: bytes, value: bytes, check: confirm.Confirm) -> Pattern:
    """Return the pattern of a value that is assigned to a name, in a shell, a properties file, JSON or YAML."""
    name = rb"(?:" + rb"|".join(re.sub(rb"^\(\?i\)(.*)", rb"(?i:\1)", anchor) for anchor in anchors) + rb")"
    expression = name + rb"[\"']?\s{0,4}[=:]\s{0,4}[\"']?(?P<secret>" + value + rb")"
    return Pattern(identity, control, kind, anchors, expression, check, before=8, after=600)


PRIVATE_KEYS = (
    Pattern(
        "private-key-pem",
        "S03",
        "private key (PEM)",
        (
            rb"-----BEGIN RSA PRIV",
            rb"-----BEGIN PRIVATE",
            rb"-----BEGIN EC PRIVA",
            rb"-----BEGIN OPENSSH P",
            rb"-----BEGIN DSA PRIV",
            rb"-----BEGIN ENCRYPTED P",
            rb"-----BEGIN ANY PRIV",
            rb"-----BEGIN SSH2 ENC",
        ),
        rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?P<secret>.{48,12000}?)(?:-----END|[^\x09-\x7e]|\Z)",
        confirm.pem_private_key,
        before=0,
        after=12100,
        also=("S01", "S05", "S18", "H27"),
    ),
    Pattern(
        "private-key-openssh",
        "S03",
        "private key (inside of an OpenSSH key)",
        (rb"openssh-key-v1\x00",),
        rb"openssh-key-v1\x00(?P<secret>.{60,400})",
        confirm.openssh_binary_key,
        before=0,
        after=400,
        also=("S01",),
    ),
    Pattern(
        "private-key-pkcs8",
        "S03",
        "private key (PKCS #8)",
        (
            rb"\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04",
            rb"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
            rb"\x02\x01\x00\x30\x05\x06\x03\x2b\x65[\x6e-\x71]\x04",
        ),
        rb"\x30(?:\x82..|\x81.|[\x20-\x7f])\x02\x01\x00\x30.{30,5000}",
        confirm.der_private_key,
        before=4,
        after=5000,
        plain_only=True,
    ),
    Pattern(
        "private-key-pkcs1",
        "S03",
        "private key (RSA)",
        (rb"\x30\x82[\x01-\x09][\x00-\xff]\x02\x01\x00\x02\x82[\x00-\x04][\x00-\xff]\x00",),
        rb"\x30\x82[\x01-\x09].\x02\x01\x00\x02\x82.{200,5000}",
        confirm.rsa_private_key,
        before=0,
        after=5000,
        plain_only=True,
    ),
    Pattern(
        "private-key-sec1",
        "S03",
        "private key (EC)",
        (rb"\x30\x77\x02\x01\x01\x04\x20", rb"\x30\x81\xa4\x02\x01\x01\x04\x30"),
        rb"\x30(?:\x81.|[\x20-\x7f])\x02\x01\x01\x04.{60,400}",
        confirm.der_private_key,
        before=0,
        after=400,
        plain_only=True,
    ),
    Pattern(
        "private-key-putty",
        "S03",
        "private key (PuTTY)",
        (rb"PuTTY-User-Key-File-[23]: ",),
        rb"PuTTY-User-Key-File-[23]: .{20,3000}?Private-Lines: \d+\r?\n(?P<secret>[A-Za-z0-9+/=\r\n]{40,4000})",
        confirm.always,
        before=0,
        after=6000,
    ),
    Pattern(
        "private-key-age",
        "S03",
        "private key (age)",
        (rb"AGE-SECRET-KEY-1[A-Z0-9]{4}",),
        rb"(?P<secret>AGE-SECRET-KEY-1[A-Z0-9]{58})" + END,
        confirm.bech32,
        before=0,
        after=100,
    ),
    Pattern(
        "private-key-pgp",
        "S07",
        "private key (PGP)",
        (rb"-----BEGIN PGP PRIVA",),
        rb"-----BEGIN PGP PRIVATE KEY BLOCK-----(?P<secret>.{60,12000}?)(?:-----END|[^\x09-\x7e]|\Z)",
        confirm.pem_private_key,
        before=0,
        after=12100,
    ),
    Pattern(
        "private-key-gnupg",
        "S07",
        "private key (GnuPG agent)",
        (rb"\(21:protected-private-key\(", rb"\(11:private-key\("),
        rb"\((?:21:protected-private-key|11:private-key)\((?P<secret>\d:(?:rsa|dsa|ecc|elg).{60,600})",
        confirm.always,
        before=0,
        after=700,
        plain_only=True,
    ),
    Pattern(
        "private-key-jwk",
        "S07",
        "private key (JSON web key)",
        (rb"\"kty\":", rb"\"kty\" :"),
        rb"\{[^{}]{0,800}\"kty\"\s?:[^{}]{0,1200}\"d\"\s?:\s?\"(?P<secret>[A-Za-z0-9_-]{40,700})\"",
        before=800,
        after=2000,
    ),
    Pattern(
        "private-key-wireguard",
        "S07",
        "private key (WireGuard)",
        (rb"PrivateKey = [A-Za-z0-9+/]{4}", rb"PresharedKey = [A-Za-z0-9+/]{4}"),
        rb"(?:PrivateKey|PresharedKey) = (?P<secret>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)",
        before=0,
        after=80,
    ),
    Pattern(
        "private-key-bind",
        "S18",
        "private key (TSIG or DNSSEC)",
        (rb"Private-key-format: v1",),
        rb"Private-key-format: v1\.\d\r?\n.{0,1500}?(?:PrivateKey|PrivateExponent|Key): "
        rb"(?P<secret>[A-Za-z0-9+/=]{16,})",
        before=0,
        after=3000,
    ),
)

AWS_ID = rb"(?P<secret>(?:AKIA|ASIA)[A-Z2-7]{16})"

CLOUDS = (
    Pattern(
        "aws-key-pair",
        "S06",
        "AWS access key id with its secret",
        (rb"AKIA[A-Z2-7]{6}", rb"ASIA[A-Z2-7]{6}"),
        rb"(?<![0-9A-Za-z])(?:AKIA|ASIA)[A-Z2-7]{16}(?![0-9A-Za-z]).{1,256}?(?<![0-9A-Za-z+/=])(?P<secret>[A-Za-z0-9+/]{40})(?![A-Za-z0-9+/=])",
        confirm.aws_secret,
        before=4,
        after=420,
    ),
    Pattern(
        "aws-access-key-id",
        "S06",
        "AWS access key id",
        (rb"AKIA[A-Z2-7]{6}", rb"ASIA[A-Z2-7]{6}"),
        rb"(?<![0-9A-Z+/])" + AWS_ID + rb"(?![0-9A-Z+/])",
        confirm.aws_access_key_id,
        before=4,
        after=40,
    ),
    assigned(
        "aws-secret-access-key",
        "S06",
        "AWS secret access key",
        rb"(?i)secret_access_key",
        rb"(?i)secretaccesskey",
        rb"(?i)aws_secret_key",
        value=rb"[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=])",
        check=confirm.aws_secret,
    ),
    assigned(
        "aws-session-token",
        "S06",
        "AWS session token",
        rb"(?i)session_token",
        rb"(?i)sessiontoken",
        rb"(?i)security_token",
        value=rb"[A-Za-z0-9+/=]{100,}",
        check=confirm.random_looking,
    ),
    Pattern(
        "aws-role-credentials",
        "S06",
        "AWS role credentials of an instance",
        (rb"\"AccessKeyId\" : \"", rb"\"AccessKeyId\": \"A"),
        rb"\"AccessKeyId\" ?: ?\"" + AWS_ID + rb"\"",
        confirm.aws_access_key_id,
        before=0,
        after=60,
    ),
    Pattern(
        "aws-mws",
        "S06",
        "Amazon MWS token",
        (rb"amzn\.mws\.[0-9a-f]{4}",),
        rb"(?P<secret>amzn\.mws\.[0-9a-f]{8}-[0-9a-f-]{27})",
    ),
    Pattern(
        "s3cfg",
        "S06",
        "s3cmd configuration with its secret",
        (rb"\nsecret_key = ",),
        rb"\nsecret_key = (?P<secret>[A-Za-z0-9+/]{40})\r?\n",
        confirm.aws_secret,
    ),
    Pattern(
        "s3fs",
        "S06",
        "s3fs credentials",
        (rb"AKIA[A-Z2-7]{6}",),
        rb"(?m)^AKIA[A-Z2-7]{16}:(?P<secret>[A-Za-z0-9+/]{40})$",
        confirm.aws_secret,
        after=90,
    ),
    Pattern(
        "gcp-service-account",
        "S06",
        "Google service account key",
        (rb"\"private_key_id\"",),
        rb"\"private_key_id\"\s?:\s?\"(?P<secret>[0-9a-f]{40})\"",
        before=0,
    ),
    token("google-api-key", "Google API key", rb"AIza[0-9A-Za-z_-]{6}", rb"AIza[0-9A-Za-z_-]{35}"),
    token("google-oauth-access", "Google OAuth access token", rb"ya29\.[0-9A-Za-z_-]{6}", rb"ya29\.[0-9A-Za-z_-]{40,}"),
    token(
        "google-oauth-secret", "Google OAuth client secret", rb"GOCSPX-[0-9A-Za-z_-]{4}", rb"GOCSPX-[0-9A-Za-z_-]{28}"
    ),
    assigned(
        "google-refresh-token",
        "S06",
        "Google refresh token",
        rb"\"refresh_token\"",
        value=rb"1//[0-9A-Za-z_-]{30,}",
        check=confirm.random_looking,
    ),
    Pattern(
        "azure-storage-key",
        "S06",
        "Azure storage key",
        (rb"AccountKey=[A-Za-z0-9+/]{4}",),
        rb"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)",
        before=0,
    ),
    Pattern(
        "azure-shared-access-key",
        "S06",
        "Azure shared access key",
        (rb"SharedAccessKey=[A-Za-z0-9+/]{4}",),
        rb"SharedAccessKey=(?P<secret>[A-Za-z0-9+/]{42,86}=+)",
        before=0,
    ),
    Pattern(
        "azure-sas",
        "S06",
        "Azure shared access signature",
        (rb"&sig=[A-Za-z0-9%]{6}",),
        rb"[?&]sv=20\d\d-[^\s\"']{10,300}?&sig=(?P<secret>[A-Za-z0-9%]{43,63}%3D)",
        before=300,
        after=80,
    ),
    assigned(
        "azure-client-secret",
        "S06",
        "Azure client secret",
        rb"AZURE_CLIENT_SECRET",
        rb"ARM_CLIENT_SECRET",
        rb"\"clientSecret\"",
        value=rb"[A-Za-z0-9_~.-]{34,40}",
        check=confirm.random_looking,
    ),
    token("alibaba-access-key", "Alibaba access key id", rb"LTAI5t[0-9A-Za-z]{6}", rb"LTAI5t[0-9A-Za-z]{18}"),
    token("digitalocean-token", "DigitalOcean token", rb"do[opr]_v1_[0-9a-f]{4}", rb"do[opr]_v1_[0-9a-f]{64}"),
    Pattern(
        "openstack-password",
        "S06",
        "OpenStack password",
        (rb"OS_PASSWORD=",),
        rb"OS_PASSWORD=" + QUOTE + rb"(?P<secret>[^\s\"'$]{4,64})",
        confirm.password,
    ),
)

TOKENS = (
    token(
        "github-token", "GitHub token", rb"gh[pousr]_[0-9A-Za-z]{6}", rb"gh[pousr]_[0-9A-Za-z]{36}", confirm.base62_crc
    ),
    token(
        "github-fine-grained-token",
        "GitHub fine-grained token",
        rb"github_pat_[0-9A-Za-z]{4}",
        rb"github_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}",
    ),
    token("gitlab-token", "GitLab token", rb"glpat-[0-9A-Za-z_-]{6}", rb"glpat-[0-9A-Za-z_.-]{20,60}"),
    token("gitlab-runner-token", "GitLab runner token", rb"glrt-[0-9A-Za-z_-]{6}", rb"glrt-[0-9A-Za-z_.-]{20,60}"),
    token("gitlab-deploy-token", "GitLab deploy token", rb"gldt-[0-9A-Za-z_-]{6}", rb"gldt-[0-9A-Za-z_-]{20}"),
    token("slack-token", "Slack token", rb"xox[abeoprs]-[0-9]{3}", rb"xox[abeoprs]-[0-9A-Za-z-]{20,250}"),
    token("slack-app-token", "Slack app token", rb"xapp-[0-9]-", rb"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]{32,64}"),
    Pattern(
        "slack-webhook",
        "S07",
        "Slack webhook",
        (rb"hooks\.slack\.com/services/T",),
        rb"hooks\.slack\.com/services/(?P<secret>T[0-9A-Z]{8,12}/B[0-9A-Z]{8,12}/[0-9A-Za-z]{24})",
    ),
    token("stripe-key", "Stripe live key", rb"sk_live_[0-9A-Za-z]{4}", rb"sk_live_[0-9A-Za-z]{20,110}"),
    token(
        "stripe-restricted-key", "Stripe restricted key", rb"rk_live_[0-9A-Za-z]{4}", rb"rk_live_[0-9A-Za-z]{20,110}"
    ),
    token("npm-token", "npm token", rb"npm_[0-9A-Za-z]{8}", rb"npm_[0-9A-Za-z]{36}", confirm.base62_crc),
    token("pypi-token", "PyPI token", rb"pypi-AgEIcHlwaS5vcmc", rb"pypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,1000}"),
    token("rubygems-key", "RubyGems key", rb"rubygems_[0-9a-f]{6}", rb"rubygems_[0-9a-f]{48}"),
    token("docker-token", "Docker Hub token", rb"dckr_pat_[0-9A-Za-z_-]{4}", rb"dckr_pat_[0-9A-Za-z_-]{27}"),
    token("vault-token", "Vault token", rb"hv[sbr]\.[0-9A-Za-z_-]{8}", rb"hv[sbr]\.[0-9A-Za-z_-]{24,200}"),
    Pattern(
        "terraform-cloud-token",
        "S07",
        "Terraform Cloud token",
        (rb"\.atlasv1\.[0-9A-Za-z]{4}",),
        rb"(?P<secret>[0-9A-Za-z]{14}\.atlasv1\.[0-9A-Za-z_-]{60,70})",
        before=20,
    ),
    token("sendgrid-key", "SendGrid key", rb"SG\.[0-9A-Za-z_-]{8}", rb"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"),
    token("huggingface-token", "Hugging Face token", rb"hf_[0-9A-Za-z]{8}", rb"hf_[A-Za-z]{34}"),
    token(
        "openai-key",
        "OpenAI key",
        rb"T3BlbkFJ[0-9A-Za-z_-]{4}",
        rb"sk-[0-9A-Za-z_-]{16,100}T3BlbkFJ[0-9A-Za-z_-]{16,100}",
    ),
    token(
        "anthropic-key", "Anthropic key", rb"sk-ant-[a-z]{3}[0-9]", rb"sk-ant-[a-z]{3}[0-9]{2}-[0-9A-Za-z_-]{80,120}"
    ),
    token("databricks-token", "Databricks token", rb"dapi[0-9a-f]{10}", rb"dapi[0-9a-f]{32}"),
    token("shopify-token", "Shopify token", rb"shpat_[0-9a-fA-F]{6}", rb"shpat_[0-9a-fA-F]{32}"),
    token("grafana-token", "Grafana token", rb"glsa_[0-9A-Za-z]{8}", rb"glsa_[0-9A-Za-z]{32}_[0-9A-Fa-f]{8}"),
    token("newrelic-key", "New Relic key", rb"NRAK-[0-9A-Z]{8}", rb"NRAK-[0-9A-Z]{27}"),
    token("postman-key", "Postman key", rb"PMAK-[0-9a-f]{8}", rb"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    token("atlassian-token", "Atlassian token", rb"ATATT3xFf[0-9A-Za-z_-]{4}", rb"ATATT3xFf[0-9A-Za-z_=-]{100,250}"),
    token(
        "tailscale-key",
        "Tailscale key",
        rb"tskey-[a-z]{4}",
        rb"tskey-(?:auth|api|client|scim|webhook)-[0-9A-Za-z]{8,40}-[0-9A-Za-z]{20,50}",
    ),
    token("linear-key", "Linear key", rb"lin_api_[0-9A-Za-z]{6}", rb"lin_api_[0-9A-Za-z]{40}"),
    token(
        "doppler-token",
        "Doppler token",
        rb"dp\.[a-z]{2}\.[0-9A-Za-z]{6}",
        rb"dp\.(?:pt|ct|st|sa|scim|audit)\.[0-9A-Za-z._-]{40,60}",
    ),
    token("pulumi-token", "Pulumi token", rb"pul-[0-9a-f]{10}", rb"pul-[0-9a-f]{40}"),
    token("mailgun-key", "Mailgun key", rb"key-[0-9a-f]{12}", rb"key-[0-9a-f]{32}"),
    token("sentry-token", "Sentry token", rb"sntrys_eyJ", rb"sntrys_eyJ[0-9A-Za-z_=+/-]{60,400}"),
    token("square-token", "Square token", rb"sq0[a-z]{3}-[0-9A-Za-z_-]{6}", rb"sq0[a-z]{3}-[0-9A-Za-z_-]{22,43}"),
    Pattern(
        "telegram-token",
        "S07",
        "Telegram bot token",
        (rb"[0-9]{8}:AA[E-H][0-9A-Za-z_-]{4}",),
        WORD + rb"(?P<secret>[0-9]{8,10}:AA[E-H][0-9A-Za-z_-]{32})" + END,
        before=4,
    ),
    Pattern(
        "json-web-token",
        "S07",
        "JSON web token",
        (rb"eyJhbGciOi", rb"eyJ0eXAiOi", rb"eyJraWQiOi"),
        rb"eyJ[0-9A-Za-z_-]{10,2000}\.eyJ[0-9A-Za-z_-]{10,4000}\.[0-9A-Za-z_-]{20,1000}",
        confirm.jwt,
        before=0,
        after=6000,
    ),
    Pattern(
        "onepassword-token",
        "S07",
        "1Password service token",
        (rb"ops_eyJ[0-9A-Za-z]{4}",),
        rb"(?P<secret>ops_eyJ[0-9A-Za-z_=+/-]{100,2000})",
        after=2100,
    ),
    token("artifactory-key", "Artifactory key", rb"AKCp[0-9A-Za-z]{10}", rb"AKCp[0-9A-Za-z]{60,80}"),
)

CREDENTIALS = (
    Pattern(
        "docker-auth",
        "S07",
        "container registry login",
        (rb"\"auth\": \"[A-Za-z0-9+/]{4}", rb"\"auth\":\"[A-Za-z0-9+/]{4}"),
        rb"\"auth\": ?\"(?P<secret>[A-Za-z0-9+/]{8,2000}={0,2})\"",
        confirm.docker_auth,
        before=0,
        after=2100,
    ),
    Pattern(
        "netrc",
        "S07",
        "login in a .netrc",
        (rb"machine [0-9A-Za-z]{3}",),
        rb"(?<![0-9A-Za-z])machine [0-9A-Za-z.:-]{3,80}\s+login \S{1,80}\s+password (?P<secret>\S{4,200})",
        confirm.password,
        before=2,
        after=400,
    ),
    Pattern(
        "pgpass",
        "S07",
        "password in a .pgpass",
        (rb":5432:",),
        rb"(?m)^[0-9A-Za-z.*_-]{1,80}:5432:[^:\s]{1,64}:[^:\s]{1,64}:(?P<secret>[^\s:]{4,128})$",
        confirm.password,
        before=90,
        after=280,
    ),
    Pattern(
        "my-cnf",
        "S07",
        "password in a .my.cnf",
        (rb"\npassword=", rb"\npassword =", rb"\npassword\t="),
        rb"(?m)^\[(?:client|mysql|mysqldump|mysqladmin|mariadb)[a-z-]*\]\r?\n"
        rb"[^\[]{0,400}?^password\s?= ?[\"']?(?P<secret>[^\s\"']{4,128})",
        confirm.password,
        before=440,
        after=160,
    ),
    Pattern(
        "url-credentials",
        "S08",
        "login in a URL",
        (Span(b"://", rb"://[0-9A-Za-z_.%+~-]{1,64}:[!-.0-9;-?A-~]{3,80}@[0-9A-Za-z\[]", 160),),
        rb"[a-z][a-z0-9+.-]{1,20}://[0-9A-Za-z_.%+~-]{1,64}:(?P<secret>[^\s:@/\"'<>`]{3,80})@[0-9A-Za-z\[][0-9A-Za-z.:\]-]{2,}",
        confirm.password,
        before=24,
        after=200,
    ),
    Pattern(
        "apt-auth",
        "S08",
        "login in an apt auth.conf",
        (rb"machine http",),
        rb"machine https?://\S{3,120}\s+login \S{1,80}\s+password (?P<secret>\S{4,200})",
        confirm.password,
        before=0,
        after=420,
    ),
    Pattern(
        "npm-auth",
        "S07",
        "login in an .npmrc",
        (rb":_authToken=", rb":_password=", rb"\n_auth="),
        rb"(?:_authToken|_password|_auth)=[\"']?(?P<secret>[0-9A-Za-z+/=_.-]{16,400})",
        before=0,
        after=440,
    ),
    Pattern(
        "pypirc",
        "S07",
        "login in a .pypirc",
        (rb"\[distutils\]", rb"\[pypi\]\n"),
        rb"\[(?:pypi|testpypi|[a-z-]+)\]\r?\n(?:[a-z]+\s?[=:].{0,120}\n){0,3}password\s?[=:]\s?(?P<secret>\S{4,300})",
        confirm.password,
        before=0,
        after=700,
    ),
    Pattern(
        "git-credentials",
        "S07",
        "login for git",
        (rb"x-access-token:", rb"x-oauth-basic", rb"oauth2:[0-9A-Za-z]{4}"),
        rb"https?://(?P<secret>(?:x-access-token|oauth2):[^@\s]{8,200})@",
        before=12,
    ),
    Pattern(
        "environment-secret",
        "S07",
        "secret in an environment file",
        (rb"PASSWORD=", rb"_SECRET=", rb"_TOKEN=", rb"_API_KEY=", rb"SECRET_KEY=", rb"PASSPHRASE=", rb"MYSQL_PWD="),
        rb"(?<![0-9A-Za-z_$-])[A-Z0-9_]{0,40}(?:PASSWORD|_SECRET|_TOKEN|_API_KEY|SECRET_KEY|PASSPHRASE|MYSQL_PWD)=[\"']?(?P<secret>[^\s\"'&]{8,200})(?=[\s\"']|\Z)",
        confirm.set_password,
        before=48,
        after=240,
    ),
    Pattern(
        "kubeconfig-key",
        "S07",
        "client key in a kubeconfig",
        (rb"client-key-data: [A-Za-z0-9+/]{4}",),
        rb"client-key-data: (?P<secret>[A-Za-z0-9+/=]{100,6000})",
        before=0,
        after=6100,
    ),
    Pattern(
        "kubeconfig-token",
        "S07",
        "token in a kubeconfig",
        (rb"    token: [0-9A-Za-z]{4}",),
        rb"- name: \S+\n  user:\n.{0,200}?    token: (?P<secret>[0-9A-Za-z._-]{16,2000})",
        before=300,
        after=2100,
    ),
    Pattern(
        "terraform-state",
        "S07",
        "Terraform state",
        (rb"\"terraform_version\":",),
        rb"\{[^{}]{0,200}\"terraform_version\":.{0,400}",
        confirm.terraform_state,
        before=200,
        after=450,
    ),
    Pattern(
        "ansible-vault",
        "S07",
        "Ansible vault",
        (rb"\$ANSIBLE_VAULT;1\.[12];AES256",),
        rb"\$ANSIBLE_VAULT;1\.[12];AES256[^\n]{0,40}\n\s*(?P<secret>[0-9a-f]{60,80})\n",
        confirm.always,
        before=0,
    ),
    Pattern(
        "ansible-password",
        "S07",
        "password in an Ansible inventory",
        (rb"ansible_ssh_pass", rb"ansible_become_pass", rb"ansible_password"),
        rb"ansible_(?:ssh_pass|become_pass|password)(?:word)?\s?[=:]\s?[\"']?(?P<secret>[^\s\"']{4,128})",
        confirm.password,
        before=0,
    ),
    Pattern(
        "password-option",
        "S04",
        "password on a command line",
        (
            rb"sshpass -p",
            rb"mysql -u",
            rb"mysqldump -u",
            rb"curl -u ",
            rb"wget --password=",
            rb"htpasswd -b",
            rb"smbclient -U",
        ),
        rb"(?:sshpass -p ?|mysql(?:dump)? -u ?\S{1,40} (?:-h ?\S+ )?-p|curl -u [^\s:]{1,60}:|wget --password="
        rb"|htpasswd -[a-zA-Z]*b\S* \S+ \S+ |smbclient -U \S+%)[\"']?(?P<secret>[^\s\"']{4,128})",
        confirm.password,
        before=0,
    ),
    Pattern(
        "shadow-hash",
        "H14",
        "password hash of an account",
        (
            rb":\$y\$[./0-9A-Za-z]",
            rb":\$6\$[./0-9A-Za-z]",
            rb":\$5\$[./0-9A-Za-z]",
            rb":\$1\$[./0-9A-Za-z]",
            rb":\$2[aby]\$",
            rb":\$gy\$",
            rb":\$7\$",
            rb":\$6\$rounds=",
        ),
        rb"(?<![0-9A-Za-z_.-])[a-z_][a-z0-9_.-]{0,31}:!?(?P<secret>\$(?:y|gy|7|6|5|1|2[aby])\$[./0-9A-Za-z$=,]{20,150}):[0-9]{0,6}:[0-9]{0,6}:",
        before=40,
        after=240,
        also=("S09",),
    ),
    Pattern(
        "htpasswd",
        "S07",
        "password hash of a web user",
        (rb":\$apr1\$[./0-9A-Za-z]", rb":{SHA}[A-Za-z0-9+/]"),
        rb"(?m)^[0-9A-Za-z_.@-]{1,64}:(?P<secret>\$apr1\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22}|\{SHA\}[A-Za-z0-9+/]{27}=)$",
        before=66,
    ),
    Pattern(
        "wifi-psk",
        "S13",
        "wireless network key",
        (rb"\npsk=", rb"\tpsk="),
        rb"\[?(?:ssid|wifi-security)[^\[]{0,300}?\s(?:psk)=[\"']?(?P<secret>[^\s\"']{8,64})",
        confirm.password,
        before=320,
    ),
    Pattern(
        "connection-string",
        "S07",
        "password in a connection string",
        (rb";Password=", rb";password=", rb";Pwd=", rb";PWD="),
        rb"(?i)(?:Server|Data Source|Host)=[^;\s]{2,120};.{0,160}?;?(?:password|pwd)=(?P<secret>[^;\s\"']{4,128})",
        confirm.password,
        before=320,
    ),
)

KEYS = (
    rb"(?P<type>ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)"
    rb"|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) (?P<key>AAAA[A-Za-z0-9+/]{40,2000}={0,2})"
)
KEY_ANCHORS = (
    rb"ssh-rsa AAAAB3NzaC1yc2E",
    rb"ssh-dss AAAAB3NzaC1kc3M",
    rb"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    rb"ecdsa-sha2-nistp256 AAAAE2V",
    rb"ecdsa-sha2-nistp384 AAAAE2V",
    rb"ecdsa-sha2-nistp521 AAAAE2V",
    rb"sk-ssh-ed25519@openssh\.com AAAA",
    rb"sk-ecdsa-sha2-nistp256@openssh\.com AAAA",
)

TRACES = (
    Pattern(
        "known-host",
        "S03",
        "host key in a known_hosts",
        KEY_ANCHORS,
        rb"(?m)^(?:@cert-authority |@revoked )?"
        rb"(?:\|1\|[A-Za-z0-9+/=]{28}\|[A-Za-z0-9+/=]{28}|[0-9A-Za-z\[][0-9A-Za-z.,:\[\]*?-]+) " + KEYS,
        confirm.ssh_public_key,
        before=160,
        after=1200,
    ),
    Pattern(
        "host-public-key",
        "S01",
        "public key of a host",
        KEY_ANCHORS,
        KEYS + rb" root@[0-9A-Za-z._-]+",
        confirm.ssh_public_key,
        before=0,
        after=1200,
    ),
    Pattern(
        "authorized-key",
        "S02",
        "public key that may log in",
        KEY_ANCHORS,
        KEYS + rb"(?! root@)",
        confirm.ssh_public_key,
        before=0,
        after=1200,
        also=("V01",),
    ),
    Pattern(
        "history-timestamps",
        "S04",
        "shell history with times",
        (rb"\n#1[5-9][0-9]{8}\n",),
        rb"(?:\n#1[5-9][0-9]{8}\n[^\n\x00#]{1,400}){2,}",
        confirm.always,
        before=0,
        after=900,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-zsh",
        "S04",
        "zsh history",
        (rb"\n: 1[5-9][0-9]{8}:[0-9];",),
        rb"\n: 1[5-9][0-9]{8}:\d+;[^\n\x00]+",
        confirm.always,
        before=0,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-fish",
        "S04",
        "fish history",
        (rb"\n  when: 1[5-9][0-9]{8}",),
        rb"- cmd: [^\n\x00]+\n  when: 1[5-9][0-9]{8}",
        confirm.always,
        before=500,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-editline",
        "S04",
        "history of a REPL",
        (rb"_HiStOrY_V2_\n",),
        rb"(?<![^\x00\n])_HiStOrY_V2_\n[^\x00]{4,}",
        confirm.always,
        before=1,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-less",
        "S04",
        "history of less",
        (rb"\.less-history-file:\n",),
        rb"(?<![^\x00\n])\.less-history-file:\n\.(?:search|shell)\n\"[^\n\x00]+",
        confirm.always,
        before=1,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-vim",
        "S04",
        "history of vim",
        (rb"# This viminfo file was generated by Vim",),
        rb"# This viminfo file was generated by Vim [0-9.]+",
        confirm.always,
        before=0,
        also=("R05",),
        plain_only=True,
    ),
    Pattern(
        "history-shell",
        "S04",
        "shell history",
        (
            rb"\nsudo [a-z]",
            rb"\nexit\n",
            rb"\nhistory\n",
            rb"\nls -l",
            rb"\ncd \.\.\n",
            rb"\nclear\n",
            rb"\nhistory -c\n",
        ),
        rb"(?:[\x20-\x7e]{1,300}\n){2,12}(?:[\x20-\x7e]{1,300}(?:\n|(?=\x00)|\Z)){0,12}",
        confirm.shell_history,
        before=240,
        after=400,
        plain_only=True,
        also=("R05",),
    ),
    Pattern(
        "instance-id",
        "S11",
        "instance id of an EC2 instance",
        (rb"i-0[0-9a-f]{10}",),
        rb"(?<![0-9A-Za-z_-])(?P<secret>i-0[0-9a-f]{16})(?![0-9a-f])",
        confirm.identifier,
        before=2,
        after=24,
        also=("S12",),
        plain_only=True,
    ),
    Pattern(
        "cloud-init-instance-data",
        "S11",
        "instance data of cloud-init",
        (rb"\"merged_cfg\": ", rb"\"sensitive_keys\": \[", rb"\"merged_system_cfg\": "),
        rb"\"(?:merged_cfg|sensitive_keys|merged_system_cfg)\": [\[{].{20,200}",
        confirm.always,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "cloud-init-log",
        "S11",
        "log of cloud-init",
        (rb" - util\.py\[DEBUG\]: ", rb" - handlers\.py\[DEBUG\]: ", rb"Cloud-init v\. [0-9]{2}\.[0-9]"),
        rb"(?:\d\d:\d\d:\d\d,\d{3} - (?:util|handlers)\.py\[DEBUG\]: "
        rb"|Cloud-init v\. \d\d\.\S+ (?:running|finished) )[^\n]{4,200}",
        confirm.always,
        before=16,
        also=("S14",),
        plain_only=True,
    ),
    Pattern(
        "user-data-mime",
        "S11",
        "user-data in MIME",
        (rb"Content-Type: text/cloud-config", rb"Content-Type: text/x-shellscript"),
        rb"MIME-Version: 1\.0\r?\n.{0,400}?Content-Type: text/(?:cloud-config|x-shellscript).{20,}",
        confirm.always,
        before=300,
    ),
    Pattern(
        "login-log",
        "S14",
        "log of logins",
        (rb"Accepted publickey for ", rb"Accepted password for ", rb"Failed password for "),
        rb"(?:Accepted|Failed) (?:publickey|password) for (?:invalid user )?"
        rb"(?P<secret>[a-z_][a-z0-9_-]{0,31} from [0-9a-f.:]{3,45} port \d{1,5})",
        confirm.always,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "sudo-log",
        "S14",
        "log of sudo",
        (rb" ; COMMAND=/",),
        rb"(?P<secret>TTY=\S+ ; PWD=\S+ ; USER=\S+ ; COMMAND=/[^\n\x00]{2,300})",
        confirm.always,
        before=160,
        plain_only=True,
    ),
    Pattern(
        "journal",
        "S14",
        "systemd journal",
        (rb"LPKSHHRH[\x00-\xff]{4}",),
        rb"LPKSHHRH.{88,120}",
        confirm.journal_file,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "audit-log",
        "S14",
        "audit log",
        (rb" msg=audit\(1[5-9][0-9]{4}",),
        rb"type=[A-Z_]{3,30} msg=audit\((?P<secret>1[5-9]\d{8}\.\d{3}:\d+)\): ",
        confirm.always,
        before=40,
        plain_only=True,
    ),
    Pattern(
        "apt-history",
        "S15",
        "history of apt",
        (rb"\nCommandline: ",),
        rb"Start-Date: \d{4}-\d\d-\d\d  \d\d:\d\d:\d\d\nCommandline: [^\n]+",
        confirm.always,
        before=40,
        plain_only=True,
    ),
    Pattern(
        "dhcp-lease",
        "S13",
        "DHCP lease",
        (rb"\nlease {\n", rb"# This is private data\. Do not parse"),
        rb"lease \{\n\s+interface \"[^\"]+\";.{10,}|# This is private data\. Do not parse\.\n(?:[A-Z_]+=[^\n]*\n){2,}",
        confirm.always,
        before=2,
        after=400,
        plain_only=True,
    ),
    Pattern(
        "mail",
        "S17",
        "mail",
        (rb"\nReceived: from ", rb"\nReceived: by ", rb"\nDelivered-To: "),
        rb"(?:[A-Za-z-]{2,30}:[^\n]*\n(?:[ \t][^\n]*\n)*){4,}",
        confirm.mail_headers,
        before=400,
        after=900,
        plain_only=True,
    ),
    Pattern(
        "core-dump",
        "S17",
        "core dump",
        (rb"\x7fELF\x02\x01\x01",),
        rb"\x7fELF\x02\x01\x01.{57}",
        confirm.core_dump,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "ssm-registration",
        "S18",
        "SSM agent registration",
        (rb"\"ManagedInstanceID\":", rb"\"managedInstanceID\":"),
        rb"\"[mM]anagedInstanceID\": ?\"(?P<secret>mi-[0-9a-f]{17})\"",
        confirm.always,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "snapd-macaroon",
        "S18",
        "snap store login",
        (rb"\"store-macaroon\":", rb"\"session-macaroon\":"),
        rb"\"(?:store|session)-macaroon\": ?\"(?P<secret>[0-9A-Za-z_=-]{40,})\"",
        before=0,
        after=600,
        plain_only=True,
    ),
    Pattern(
        "luks-header",
        "S18",
        "LUKS header",
        (rb"LUKS\xba\xbe\x00[\x01\x02]",),
        rb"LUKS\xba\xbe\x00[\x01\x02].{100}",
        confirm.always,
        before=0,
        plain_only=True,
    ),
    Pattern(
        "hibernation",
        "S21",
        "hibernation image",
        (rb"S1SUSPEND\x00",),
        rb"\x01\x00\x00\x00.{3058}S1SUSPEND\x00",
        confirm.always,
        before=3062,
        plain_only=True,
    ),
)

PATTERNS: tuple[Pattern, ...] = (*PRIVATE_KEYS, *CLOUDS, *TOKENS, *CREDENTIALS, *TRACES)
