"""The product-code guard (H31; seed [3]): a paid image's application starts only on an instance that was paid for.

A unit reads the instance's product codes from the metadata service (IMDSv2) and from the instance identity document,
and verifies the document's signature by the certificate of the region, which the image ships. Every unit of the
application requires it. It runs at each boot and whenever one of them is started, and keeps no state.
"""

from functools import reduce

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.instance_metadata import ASK
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.unit import enable_unit, unit_file
from pipeline.spec import ProductGuard, Spec

PACKAGES = {"debian": ("curl", "openssl"), "redhat": ("openssl",)}
"""By family. Images of the Red Hat family come with curl or curl-minimal, and one of them excludes the other."""

UNIT = "assay-product-guard.service"
FOLDER = "/etc/assay/product-guard"
SCRIPT = f"{FOLDER}/guard.sh"
DROP_IN = "50-assay-product-guard.conf"

# In /etc, because programs elsewhere must come from packages (V08).
GUARD = r"""#!/bin/sh
# Written by Assay (H31): fails unless this instance carries the product codes of the image.
set -eu
wanted='@CODES@'
folder='@FOLDER@'
board=/sys/class/dmi/id/board_asset_tag
@ASK@
say() { printf 'product code guard: %s\n' "$*" >&2; }
refuse() { say "held back: $*"; exit 1; }

# Leave the document that the region's certificate has signed in $document, without white space.
#
# -nointern: a certificate inside of the message could be anybody's. Only the one that the image ships may have signed;
# -noverify: it has no issuer to be asked about.
read_document() {
    certificate=$folder/$region.pem
    if [ ! -s "$certificate" ]; then refuse "the image ships no certificate for the region $region"; fi
    {
        echo '-----BEGIN PKCS7-----'
        ask dynamic/instance-identity/rsa2048 || refuse 'there is no signed identity document'
        printf '\n%s\n' '-----END PKCS7-----'
    } >"$work/message"
    openssl smime -verify -inform PEM -in "$work/message" -nointern -noverify -certfile "$certificate" \
        -out "$work/document" 2>/dev/null || refuse 'the signature of the identity document is wrong'
    document=$(tr -d ' \t\r\n' <"$work/document")
}

# has KEY VALUE: the document says so, at its top level: values hold no quotes, and no key stands twice.
has() {
    case $document in *"\"$1\":\"$2\""*) return 0 ;; esac
    return 1
}

# The board carries the instance's id on Nitro: another instance's document does not become ours by being repeated.
is_this_machine() {
    if [ ! -r "$board" ]; then return 0; fi
    read -r tag <"$board" || :
    case $tag in i-*) [ "$tag" = "$1" ] ;; esac
}

carries() {
    listed=${document#*\"marketplaceProductCodes\":\[}
    if [ "$listed" = "$document" ]; then return 1; fi
    case ${listed%%\]*} in *"\"$1\""*) ;; *) return 1 ;; esac
    printf '%s\n' "$codes" | grep -qxF -e "$1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get_token
instance=$(ask meta-data/instance-id) || refuse 'the metadata service does not name the instance'
region=$(ask meta-data/placement/region) || refuse 'the metadata service does not name the region'
case $instance$region in *[!a-z0-9-]*) refuse 'the metadata service gives no proper answers' ;; esac
codes=$(ask meta-data/product-codes) || refuse 'this instance has no product code'
read_document
has instanceId "$instance" || refuse 'the identity document is of another instance'
is_this_machine "$instance" || refuse 'this machine is another instance'
has region "$region" || refuse 'the identity document is of another region'
for code in $wanted; do
    carries "$code" || refuse "the product code $code is missing"
done
say "passed: $instance carries $wanted"
"""

SERVICE = f"""# Written by Assay (H31).
[Unit]
Description=Product code guard: what was not paid for does not start
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT}
TimeoutStartSec=180
StandardOutput=journal+console
StandardError=journal+console
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""

HOLD_BACK = f"""# Written by Assay (H31).
[Unit]
Requires={UNIT}
After={UNIT}
"""


def steps(facts: Facts, spec: Spec, options: ProductGuard) -> tuple[Step, ...]:
    """Return the step that installs the guard, its certificates, and the requirement of each unit of the application.

    Without systemd there is nothing that could hold a unit back: the step says so, and fails.
    """
    title = f"{', '.join(options.services)} wait for the product codes {' '.join(spec.share.product_codes)}"
    if not facts.has_systemd:
        return (Step("product_guard", ("H31",), title, "echo 'the product-code guard needs systemd'; exit 1", "false"),)
    return (enable_unit("product_guard", ("H31",), title, UNIT, guard_files(spec, options)),)


def guard_files(spec: Spec, options: ProductGuard) -> tuple[ManagedFile, ...]:
    """Return every file of the guard."""
    values = {"@CODES@": " ".join(spec.share.product_codes), "@FOLDER@": FOLDER, "@ASK@": ASK}
    script = reduce(lambda text, name: text.replace(name, values[name]), values, GUARD)
    return (
        ManagedFile(SCRIPT, script, "755"),
        *(ManagedFile(f"{FOLDER}/{region}.pem", pem) for region, pem in sorted(options.certificates.items())),
        unit_file(UNIT, SERVICE),
        *(ManagedFile(f"/etc/systemd/system/{unit}.d/{DROP_IN}", HOLD_BACK) for unit in options.services),
    )
