"""A unit that refreshes the keys of the spec's users from one S3 object or SSM parameter (H11; seed [0]).

Who leaves is then out of every instance within minutes, without a new image. The text has a line for each key, `USER
TYPE KEY COMMENT`, and names all keys of all users: who has none there has none any more. It is fetched over TLS with
the credentials of the instance's role; curl signs the request. Every line is checked before anything is replaced, and
a text that would leave no administrator a key changes nothing.
"""

import json
from dataclasses import replace
from functools import reduce

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.instance_metadata import ASK
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.unit import enable_unit, unit_file
from pipeline.spec import KeySync, Spec
from pipeline.spec.public_keys import KEY_TYPES, PUBLISHED_KEYS, SMALLEST_RSA

PACKAGES = {"debian": ("curl",), "redhat": ()}
"""By family. Images of the Red Hat family come with curl or curl-minimal, and one of them excludes the other."""

UNIT = "assay-key-sync.service"
TIMER = "assay-key-sync.timer"
SCRIPT = "/etc/assay/key-sync/key-sync.sh"

# In /etc, because programs elsewhere must come from packages (V08). Secrets go through files of a private folder and
# through built-in commands: they are in no process list, and nothing prints them.
SYNC = r"""#!/bin/sh
# Written by Assay (H11): the keys of some users, from one text that is kept elsewhere.
set -eu
users=' @USERS@ '
administrators=' @ADMINISTRATORS@ '
types=' @TYPES@ '
published=' @PUBLISHED@ '
least_rsa=@RSA@
url='@URL@'
@ASK@
say() { printf 'key sync: %s\n' "$*" >&2; }
refuse() { say "nothing was changed: $*"; exit 1; }

# field NAME: a value of the credentials, which never hold a quote or a backslash.
field() { sed -n 's|.*"'"$1"'" *: *"\([^"\\]*\)".*|\1|p' "$work/credentials"; }

get_credentials() {
    status=0
    role=$(ask meta-data/iam/security-credentials/) || status=$?
    if [ "$status" -eq 3 ]; then say 'this instance has no role: its keys stay as they are'; exit 0; fi
    if [ "$status" -ne 0 ]; then refuse 'the metadata service does not answer'; fi
    case $role in '' | *[!A-Za-z0-9+=,.@_-]*) refuse 'the metadata service names no role' ;; esac
    ask "meta-data/iam/security-credentials/$role" >"$work/credentials" || refuse 'the role has no credentials'
    {
        printf 'user = "%s:%s"\n' "$(field AccessKeyId)" "$(field SecretAccessKey)"
        printf 'header = "x-amz-security-token: %s"\n' "$(field Token)"
    } >"$work/login"
}

fetch() {
    code=$(curl -q -s --proto '=@PROTOCOL@' -m 60 --max-filesize 1048576 --aws-sigv4 'aws:amz:@REGION@:@SERVICE@' \
        -K "$work/login" -o "$work/answer" -w '%{http_code}' @REQUEST@ "$url") || code=000
    if [ "$code" != 200 ]; then refuse "$url answers with status $code"; fi
}

@READ@

# Check every line, and sort the keys by user: one file for each of them in $work/keys.
sort_keys() {
    mkdir "$work/keys"
    for user in $users; do : >"$work/keys/$user"; done
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        case $line in '' | '#'*) continue ;; esac
        user=${line%% *} key=${line#* } type=${line#* } type=${type%% *}
        case $user in *[!a-z0-9_.-]* | "$line") refuse "line $number does not begin with a user" ;; esac
        case $types in *" $type "*) ;; *) refuse "line $number: keys of this type are not taken" ;; esac
        printf '%s\n' "$key" >"$work/key"
        about=$(ssh-keygen -l -E sha256 -f "$work/key" 2>/dev/null) || refuse "line $number is no whole public key"
        bits=${about%% *} about=${about#* }
        case $published in *" ${about%% *} "*) refuse "line $number: the private half of this key was published" ;; esac
        if [ "$type" = ssh-rsa ] && [ "$bits" -lt "$least_rsa" ]; then refuse "line $number: RSA of $bits bits"; fi
        case $users in *" $user "*) cat "$work/key" >>"$work/keys/$user" ;; esac
    done <"$work/text"
}

# Who has no key cannot mend anything: one of the administrators, or somebody at all, must have one.
keep_somebody() {
    for user in $administrators; do
        if [ -s "$work/keys/$user" ]; then return; fi
    done
    refuse 'nobody who could mend it would have a key any more'
}

find_file() {
    home=$(getent passwd "$1" | cut -d: -f6)
    folder=$home/.ssh file=$home/.ssh/authorized_keys
    case $home in /?*) ;; *) refuse "$1 has no home" ;; esac
    if [ -L "$folder" ] || [ -L "$file" ]; then refuse "$folder is a symbolic link, or holds one"; fi
}

replace_keys() {
    find_file "$1"
    if cmp -s "$work/keys/$1" "$file"; then return; fi
    mkdir -p "$folder"
    cp "$work/keys/$1" "$folder/.authorized_keys.assay-new"
    chown -R "$1:" "$folder"
    mv -f "$folder/.authorized_keys.assay-new" "$file"
    if command -v restorecon >/dev/null; then restorecon -R "$folder"; fi
    say "keys of $1 from now on: $(grep -c . "$file" || :)"
}

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get_token
get_credentials
fetch
read_text
sort_keys
keep_somebody
for user in $users; do find_file "$user"; done
for user in $users; do replace_keys "$user"; done
"""

READ_OBJECT = r"""read_text() { tr -d '\r' <"$work/answer" >"$work/text"; }"""

# The value is between the quotes; of what JSON writes with a backslash, a key needs the ends of lines alone.
READ_PARAMETER = r"""read_text() {
    value=$(tr -d '\n' <"$work/answer" | sed -n -E 's#.*"Value" *: *"(([^"\\]|\\[nrt])*)".*#\1#p')
    if [ -z "$value" ]; then refuse 'the parameter holds no lines of keys'; fi
    printf '%s' "$value" | sed -e 's|\\r||g' -e 's|\\t| |g' | awk '{ gsub(/\\n/, "\n"); print }' >"$work/text"
}"""

SERVICE = f"""# Written by Assay (H11).
[Unit]
Description=Refresh the keys of users
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/bin/sh {SCRIPT}
TimeoutStartSec=300
PrivateTmp=yes
ProtectSystem=full
NoNewPrivileges=yes
"""

TIMER_FILE = f"""# Written by Assay (H11).
[Unit]
Description=Refresh the keys of users regularly

[Timer]
OnBootSec=1min
OnUnitInactiveSec=@MINUTES@min
RandomizedDelaySec=30s
Unit={UNIT}

[Install]
WantedBy=timers.target
"""

CAN_CURL_SIGN = """
if ! curl --help all | grep -q aws-sigv4; then echo 'this curl signs no requests: 7.75 is the first'; exit 1; fi
"""
NO_CONTENT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of nothing: S3 wants the digest of a request's body in a header that is signed."""


def steps(facts: Facts, spec: Spec, options: KeySync) -> tuple[Step, ...]:
    """Return the step that installs the unit, its timer and its script.

    Without systemd there is nothing that would run it: the step says so, and fails.
    """
    title = f"the keys of {', '.join(user.name for user in spec.users)} are refreshed from {options.source}"
    if not facts.has_systemd:
        return (Step("key_sync", ("H11",), title, "echo 'the refresh of keys needs systemd'; exit 1", "false"),)
    timer = TIMER_FILE.replace("@MINUTES@", str(options.every_minutes))
    files = (
        ManagedFile(SCRIPT, script(spec, options), "755"),
        unit_file(UNIT, SERVICE),
        unit_file(TIMER, timer),
    )
    step = enable_unit("key_sync", ("H11",), title, TIMER, files)
    return (replace(step, action=f"{CAN_CURL_SIGN}{step.action}"),)


def script(spec: Spec, options: KeySync) -> str:
    """Return the script that fetches and replaces the keys."""
    names = [user.name for user in spec.users]
    region = options.region or spec.region
    kind, place = options.source.split(":", 1)
    values = {
        "@USERS@": " ".join(names),
        "@ADMINISTRATORS@": " ".join([user.name for user in spec.users if user.sudo] or names),
        "@TYPES@": " ".join(KEY_TYPES),
        "@PUBLISHED@": " ".join(PUBLISHED_KEYS),
        "@RSA@": str(SMALLEST_RSA),
        "@ASK@": ASK,
        "@REGION@": region,
        "@PROTOCOL@": (options.endpoint or "https:").split(":")[0],
        **(object_request(place, region, options) if kind == "s3" else parameter_request(place, region, options)),
    }
    return reduce(lambda text, name: text.replace(name, values[name]), values, SYNC)


def object_request(place: str, region: str, options: KeySync) -> dict[str, str]:
    """Return how an S3 object is asked for, by the path of its bucket: buckets with dots have no certificate."""
    endpoint = options.endpoint or f"https://s3.{region}.{domain(region)}"
    headers = f"-H 'x-amz-content-sha256: {NO_CONTENT}'"
    return {
        "@URL@": f"{endpoint}/{place.removeprefix('//')}",
        "@SERVICE@": "s3",
        "@REQUEST@": headers,
        "@READ@": READ_OBJECT,
    }


def parameter_request(name: str, region: str, options: KeySync) -> dict[str, str]:
    """Return how an SSM parameter is asked for, an encrypted one too."""
    body = json.dumps({"Name": name, "WithDecryption": True})
    headers = "-H 'content-type: application/x-amz-json-1.1' -H 'x-amz-target: AmazonSSM.GetParameter'"
    return {
        "@URL@": f"{options.endpoint or f'https://ssm.{region}.{domain(region)}'}/",
        "@SERVICE@": "ssm",
        "@REQUEST@": f"{headers} --data-raw '{body}'",
        "@READ@": READ_PARAMETER,
    }


def domain(region: str) -> str:
    """Return the domain that a region's services are in."""
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
