"""The common form of a scrub: a list of what must not be there, asked anew each time, and its removal."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.spec import Spec

PRELUDE = r"""
homes() {
    { awk -F: '{ print $6 }' /etc/passwd; ls -d /home/* 2>/dev/null || :; printf '%s\n' /root /etc/skel; } | sort -u |
    while IFS= read -r home; do
        case $home in / | /proc* | /sys* | /dev* | /run*) continue ;; esac
        if [ -d "$home" ]; then printf '%s\n' "${home%/}"; fi
    done
}
own_homes() { homes | grep -vxE '(/usr|/bin|/sbin|/lib|/boot|/etc)(/.*)?|/var(/[^/]+)?' || :; }
in_homes() {
    homes | while IFS= read -r home; do
        cd "$home"
        for name in $1; do printf '%s/%s\n' "$home" "$name"; done
    done | present
}
under() { for name; do printf '%s\n' $name; done | present; }
present() {
    while IFS= read -r path; do
        if [ ! -e "$path" ] && [ ! -L "$path" ]; then continue; fi
        case "$kept" in *"|$path|"*) continue ;; esac
        printf '%s\n' "$path"
    done
}
remove() {
    while IFS= read -r path; do
        if [ -f "$path" ] && [ ! -L "$path" ]; then : >"$path" || :; fi
        rm -rf "$path"
        printf 'removed %s\n' "$path"
    done
}
"""
"""`homes`: every home in passwd, system accounts included (S02), and those that lost their account. `own_homes`: those
that may be searched in depth. `in_homes 'PATTERN…'`: below each home. `under PATTERN…`: absolute ones. All print what
is there and not kept. `remove` empties a file first: somebody may hold it open."""


def prelude(spec: Spec) -> str:
    """Return what every script of a removal begins with: what the spec keeps, and the words above."""
    return assign(kept=f"|{'|'.join(spec.scrub.keep_files)}|") + PRELUDE


def removal(spec: Spec, subject: str, controls: tuple[str, ...], title: str, found: str) -> Step:
    """Return the step that removes what `found`, a piece of shell, prints, one path a line; none may be left."""
    define = f"{prelude(spec)}found() {{\n{found.strip()}\n}}\n"
    return Step(subject, controls, title, f"{define}found | sort -u | remove", f'{define}[ -z "$(found)" ]')
