"""Credentials for clouds, registries, databases and proxies (S05-S08), and what is left of passwords (H14)."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.scrub.removal import prelude, removal
from pipeline.spec import Spec

CERTIFICATES = "pk-*.pem cert-*.pem .ec2 .eucarc .euca"
CLOUDS = (
    ".aws .boto .s3cfg .passwd-s3fs .config/gcloud .gsutil .azure .oci .aliyun .bluemix .config/doctl "
    ".config/hcloud .config/rclone .config/openstack .config/linode-cli .ibmcloud .saml2aws .aws-sso .granted "
    ".hcloud.toml .rclone.conf .config/awsume"
)
SERVICES = (
    ".netrc _netrc .pgpass .my.cnf .mylogin.cnf .git-credentials .config/git/credentials .docker .dockercfg "
    ".config/containers/auth.json .kube .npmrc .yarnrc .yarnrc.yml .pypirc .pip/pip.conf .config/pip/pip.conf "
    ".terraform.d .terraformrc .vault-token .gnupg .env .env.* .envrc .config/gh .config/hub .cargo/credentials "
    ".cargo/credentials.toml .gem/credentials .m2/settings.xml .m2/settings-security.xml "
    ".gradle/gradle.properties .subversion/auth .config/op .password-store .ansible .chef .heroku .smbcredentials "
    ".config/helm .s3ql .ldaprc .config/filezilla .config/sops .age .msmtprc .mutt .fetchmailrc "
    ".config/configstore"
)

ELSEWHERE = r"""
find /etc /opt /srv /usr/local /var -xdev \( -path /var/lib/dpkg -o -path /var/log \) -prune -o -type f \( -name .env \
    -o -name .netrc -o -name .pgpass -o -name .my.cnf -o -name .git-credentials -o -name .npmrc -o -name .pypirc \
    -o -name .htpasswd -o -name 'terraform.tfstate*' \) -print 2>/dev/null | present
"""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that remove credential files, and take credentials out of settings that must stay."""
    under_etc = "under /etc/boto.cfg /etc/passwd-s3fs /etc/aws /root/.config/gcloud"
    auth = "under /etc/apt/auth.conf '/etc/apt/auth.conf.d/*' /etc/containers/auth.json /run/containers/0/auth.json"
    variables = prelude(spec) + assign(variables=VARIABLES) + SETTINGS
    return (
        Step("credentials", ("H14",), "remove the hashes of locked passwords", REMOVE_HASHES, ARE_HASHES_GONE),
        removal(
            spec, "credentials", ("S05",), "remove X.509 certificates and keys of EC2", f"in_homes '{CERTIFICATES}'"
        ),
        removal(spec, "credentials", ("S06",), "remove credentials for clouds", f"in_homes '{CLOUDS}'\n{under_etc}"),
        removal(
            spec, "credentials", ("S07",), "remove credentials for services", f"in_homes '{SERVICES}'\n{ELSEWHERE}"
        ),
        removal(spec, "credentials", ("S08",), "remove credentials of the package manager", auth),
        Step(
            "credentials",
            ("S05", "S08"),
            "take credentials out of profiles, proxies and units",
            variables + CLEAN_SETTINGS,
            f'{variables}[ -z "$(settings | with_credentials)" ]',
        ),
    )


LOCKED_HASHES = r"""
hashed() { awk -F: '$2 ~ /^[!*]+[^!*]/ { print $1 }' /etc/shadow; }
"""
ARE_HASHES_GONE = f"""{LOCKED_HASHES}
found=$(hashed)
if [ -n "$found" ]; then echo "of:" $found; exit 1; fi
"""
REMOVE_HASHES = f"""{LOCKED_HASHES}
for account in $(hashed); do
    usermod -p '!' "$account"
    echo "of $account"
done
"""
"""What is locked can be unlocked. A boot in the build gives root one: instances are to make one of their own (H13)."""

VARIABLES = (
    "EC2_PRIVATE_KEY|EC2_CERT|AWS_[A-Z_]*(KEY|SECRET|TOKEN|ID)|[A-Z_]*(PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|TOKEN)"
)
"""Environment variables that hold credentials, as an extended regular expression."""

SETTINGS = r"""
settings() {
    {
        printf '%s\n' /etc/environment /etc/profile /etc/bash.bashrc /etc/bashrc /etc/zsh/zshenv /etc/zsh/zshrc \
            /etc/wgetrc /etc/curlrc /etc/gitconfig /etc/pip.conf /etc/npmrc /etc/security/*.conf \
            /etc/apt/apt.conf /etc/apt/sources.list \
            /etc/dnf/dnf.conf /etc/yum.conf /etc/default/* /etc/sysconfig/*
        find /etc/profile.d /etc/environment.d /etc/apt/apt.conf.d /etc/apt/sources.list.d /etc/dnf/vars \
            /etc/yum.repos.d /etc/systemd/system /etc/systemd/system.conf.d /etc/systemd/user.conf.d \
            -type f 2>/dev/null || :
        homes | while IFS= read -r home; do
            for name in .profile .bashrc .bash_profile .bash_login .bash_aliases .zshrc .zshenv .zprofile .kshrc \
                .pam_environment .curlrc .wgetrc .gitconfig .config/git/config .config/environment.d/*; do
                printf '%s\n' "$home/$name"
            done
        done
    } | while IFS= read -r file; do if [ -f "$file" ]; then printf '%s\0' "$file"; fi; done
}
user_in_address='://[^/@[:space:]"]+:[^/@[:space:]"]+@'
keyword='(export|setenv|set -gx|Environment=)[[:space:]]*'
assignment="^[[:space:]]*($keyword)?[\"']?($variables)[[:space:]]*[= ][\"']?[^\$[:space:]\"']"
with_credentials() { xargs -0 -r grep -lE -e "$user_in_address" -e "$assignment" || :; }
"""
"""An assignment of another variable's value (`=$NAME`) is no credential."""

CLEAN_SETTINGS = r"""
settings | with_credentials | while IFS= read -r file; do
    new=${file%/*}/.${file##*/}.assay-new
    cp -p "$file" "$new"
    sed -E -e "s#://[^/@[:space:]\"]+:[^/@[:space:]\"]+@#://#g" "$file" | grep -vE "$assignment" >"$new" || :
    mv -f "$new" "$file"
    printf 'cleaned %s\n' "$file"
done
"""
