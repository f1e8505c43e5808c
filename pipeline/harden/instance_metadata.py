"""How a unit of ours asks the instance metadata service: a piece of POSIX sh, by IMDSv2 only, with curl.

Scripts that begin with it call `get_token` once, then `ask PATH`. They define `refuse`, and `work`: a private folder.
"""

ASK = r"""
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
at=http://169.254.169.254/latest
patience=25

# ask PATH: print what the metadata service says; the status 3 where it says that there is nothing.
ask() {
    code=$(curl -q -s --noproxy '*' --proto =http -m 5 --max-filesize 65536 -o "$work/answer" -w '%{http_code}' \
        -H "@$work/token" "$at/$1") || code=000
    case $code in
    200) cat "$work/answer" ;;
    404) return 3 ;;
    *) return 1 ;;
    esac
}

# The network may not be up yet: silence is asked again for a while. The token is in no process list.
get_token() {
    tries=0
    until token=$(curl -q -sf --noproxy '*' --proto =http -m 5 -X PUT \
        -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token"); do
        tries=$((tries + 1))
        if [ "$tries" -ge "$patience" ]; then refuse 'the metadata service does not answer'; fi
        sleep 1
    done
    printf 'X-aws-ec2-metadata-token: %s\n' "$token" >"$work/token"
}
"""
