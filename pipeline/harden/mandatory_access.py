"""Mandatory access control (H25; dev-sec, CIS): AppArmor or SELinux confines services, whatever they are told to do."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.unit import enable, is_enabled

PACKAGES = {"debian": "apparmor", "redhat": "selinux-policy-targeted"}
"""By family."""

UNIT = "apparmor.service"


def steps(facts: Facts) -> tuple[Step, ...]:
    """Return the step that switches on what the family has. Profiles of AppArmor are loaded at the next boot."""
    if facts.family == "debian":
        return (
            Step(
                "mandatory_access",
                ("H25",),
                "AppArmor is on",
                ASK_APPARMOR + enable(UNIT),
                IS_APPARMOR_ON + is_enabled(UNIT),
            ),
        )
    return (Step("mandatory_access", ("H25",), "SELinux enforces its policy", ENFORCE, DOES_ENFORCE),)


IS_APPARMOR_ON = """
[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ]
"""
ASK_APPARMOR = """
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ]; then
    echo 'the kernel runs without AppArmor: take apparmor=0 and security= off its command line'
    exit 1
fi
"""

DOES_ENFORCE = """
grep -qx 'SELINUX=enforcing' /etc/selinux/config
[ "$(cat /sys/fs/selinux/enforce)" = 1 ]
"""
ENFORCE = """
if [ ! -e /sys/fs/selinux/enforce ]; then
    echo 'the kernel runs without SELinux: take selinux=0 off its command line'
    exit 1
fi
sed -i -e 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config
echo 1 >/sys/fs/selinux/enforce
"""
