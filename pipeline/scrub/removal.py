"""The common form of a scrub: a list of what must not be there, asked anew each time, and its removal."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.spec import Spec

PRELUDE = r"""
IFS='
'
homes() {
    {
        while IFS=: read -r account password uid gid name home shell; do printf '%s\n' "${home%/}"; done </etc/passwd
        for home in /home/* /root /etc/skel; do printf '%s\n' "$home"; done
    } | while IFS= read -r home; do
        case "$seen$home" in *"|$home|"* | *'|/proc'* | *'|/sys'* | *'|/dev'* | *'|/run'*) continue ;; esac
        seen="$seen$home|"
        if [ -n "$home" ] && [ -d "$home" ]; then printf '%s\n' "$home"; fi
    done
}
own_homes() {
    homes | while IFS= read -r home; do
        case $home in
        /usr | /usr/* | /bin | /sbin | /lib* | /boot* | /etc | /etc/* | /var | /var/mail | /var/cache* | /var/spool*) ;;
        /var/backups | /var/run* | /var/lib | /var/log*) ;;
        *) printf '%s\n' "$home" ;;
        esac
    done
}
in_homes() {
    homes | while IFS= read -r home; do
        cd "$home" || continue
        IFS=' '
        for name in $1; do if [ -e "$name" ] || [ -L "$name" ]; then printf '%s/%s\n' "$home" "$name"; fi; done
    done | present
}
under() { for name; do printf '%s\n' $name; done | present; }
present() {
    while IFS= read -r path; do
        if [ ! -e "$path" ] && [ ! -L "$path" ]; then continue; fi
        relation=none
        for keep in $kept; do
            case "$path/" in "$keep"/*) relation=kept ;; esac
            case "$relation$keep/" in "none$path"/*) relation=above ;; esac
        done
        case $relation in
        none) printf '%s\n' "$path" ;;
        above) find "$path" ! -type d | present ;;
        esac
    done
}
remove() {
    paths=$(sort -u)
    if [ -z "$paths" ]; then return; fi
    set -f
    for path in $paths; do if [ -f "$path" ] && [ ! -L "$path" ]; then true >"$path" || :; fi; done
    printf '%s\n' "$paths" | tr '\n' '\0' | xargs -0 rm -rf --
    printf 'removed %s\n' $paths
}
"""
"""`homes`: every home in passwd, system accounts included (S02), and those that lost their account. `own_homes`: those
that may be searched in depth. `in_homes 'PATTERN…'`: below each home. `under PATTERN…`: absolute ones. All print what
is there and not kept. `remove` empties a file first: somebody may hold it open. It does so by
`true`, because dash ends where `:` cannot open its output: another user's file in /tmp, or a running program. Written
for few processes: an emulated guest needs 30 ms for each."""


def prelude(spec: Spec) -> str:
    """Return what every script of a removal begins with: what the spec keeps, and the words above."""
    return assign(kept="\n".join(path.rstrip("/") for path in spec.scrub.keep_files), seen="|") + PRELUDE


def removal(spec: Spec, subject: str, controls: tuple[str, ...], title: str, found: str) -> Step:
    """Return the step that removes what `found`, a piece of shell, prints, one path a line; none may be left."""
    define = f"{prelude(spec)}found() {{\n{found.strip()}\n}}\n"
    return Step(subject, controls, title, f"{define}found | remove", f'{define}[ -z "$(found)" ]')
