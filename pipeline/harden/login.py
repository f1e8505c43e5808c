"""Logins and new accounts (H25; dev-sec, CIS): what they create is not for others, and idle shells end.

Passwords get no age: everybody logs in with a key, and PAM would shut out whoever has an expired password besides.
"""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import LoginOptions

DEFINITIONS = "/etc/login.defs"


def steps(options: LoginOptions) -> tuple[Step, ...]:
    """Return the steps that set the definitions of useradd and login, and those of shells."""
    wanted = {"UMASK": options.umask, "HOME_MODE": "0700"}
    definitions = assign(
        wanted="\n".join(f"{name} {value}" for name, value in wanted.items()),
        lines="|".join(wanted),
        file=DEFINITIONS,
    )
    profile = ManagedFile("/etc/profile.d/60-assay.sh", profile_text(options))
    idle = f", and an end after {options.idle_minutes} idle minutes" if options.idle_minutes else ""
    return (
        Step(
            "login",
            ("H25",),
            f"umask {options.umask} and private homes for new accounts",
            definitions + SET,
            definitions + ARE_SET,
        ),
        Step("login", ("H25",), f"umask {options.umask} in shells{idle}", profile.action, profile.test),
    )


def profile_text(options: LoginOptions) -> str:
    """Return what every login shell reads. TMOUT is of bash and of ksh; others pass it over."""
    limit = f"TMOUT={options.idle_minutes * 60}\nreadonly TMOUT\nexport TMOUT\n" if options.idle_minutes else ""
    return f"# Written by Assay.\numask {options.umask}\n{limit}"


ARE_SET = r"""
[ "$(grep -E "^[[:space:]]*($lines)[[:space:]]" "$file" | sort)" = "$(printf '%s\n' "$wanted" | sort)" ]
"""

SET = r"""
sed -i -E "/^[[:space:]]*($lines)[[:space:]]/d" "$file"
printf '%s\n' "$wanted" >>"$file"
"""
