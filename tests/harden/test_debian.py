"""Hardening a real Debian: it takes effect, a second run changes nothing, and every planted violation is found."""

from pathlib import Path

import pytest

from pipeline.harden import harden_steps, kernel, sshd, users
from pipeline.spec.model import KernelOptions
from tests.harden.samples import KEY, OTHER_KEY, STRANGE_KEY, Debian, failures, make_debian, outcomes, spec

pytestmark = pytest.mark.end_to_end

# The kernel is this machine's own: its settings are left alone.
SPEC = spec(harden={"updates": {"at_build": "none"}, "kernel": None, "permissions": True})
SSHD = f"set up OpenSSH 9.2 by {sshd.DROP_IN}"

PLANTS = {
    "a Match block": "printf 'Match User john\\nPasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/90-x.conf",
    "a file that comes first": "echo PermitRootLogin yes >/etc/ssh/sshd_config.d/000-x.conf",
    "one more AllowUsers": "echo AllowUsers eve >>/etc/ssh/sshd_config",
    "an include of another place": "echo X11Forwarding yes >/etc/x; sed -i '1i Include /etc/x' /etc/ssh/sshd_config",
    "our file changed": "sed -i /PasswordAuthentication/d /etc/ssh/sshd_config.d/00-assay.conf",
    "our file readable": "chmod 666 /etc/ssh/sshd_config.d/00-assay.conf",
    "the folder not included": "sed -i 's/^Include.*//' /etc/ssh/sshd_config",
}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """A Debian with a leaver, a launch user, and a first hardening behind it."""
    made = make_debian(tmp_path_factory.mktemp("harden"))
    made.run(
        "useradd -m -s /bin/bash admin; useradd -m -s /bin/bash leaver; echo leaver:password | chpasswd; touch /srv/x"
    )
    made.run(
        "echo 'leaver ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/leaver; chown leaver /srv/x; echo root:toor | chpasswd"
    )
    made.write("/root/.ssh/authorized_keys", STRANGE_KEY + "\n")
    assert failures(made.perform(harden_steps(made.facts(), SPEC))) == []
    return made


def test_a_second_run_changes_nothing(debian: Debian) -> None:
    again = debian.perform(harden_steps(debian.facts(), SPEC))
    assert {title: outcome for title, outcome in outcomes(again).items() if outcome != "ok"} == {}


def test_sshd_is_in_effect(debian: Debian) -> None:
    effective = debian.run("sshd -T -C user=john,host=x,addr=192.0.2.1").splitlines()
    for line in ("passwordauthentication no", "permitrootlogin no", "usedns no", "maxauthtries 3", "loglevel VERBOSE"):
        assert line in effective
    assert [line for line in effective if line.startswith("allowusers")] == [
        f"allowusers {user}" for user in ("john", "sally", "admin")
    ]
    assert not [line for line in effective if line.startswith("acceptenv")]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_contradiction_is_found_and_silenced(debian: Debian, plant: str) -> None:
    debian.run(PLANTS[plant])
    results = debian.perform(harden_steps(debian.facts(), SPEC))
    assert failures(results) == []
    assert outcomes(results)[SSHD] == "changed"
    effective = debian.run("sshd -T -C user=john,host=x,addr=192.0.2.1")
    assert "passwordauthentication no\n" in effective
    assert "permitrootlogin no\n" in effective
    assert "allowusers eve" not in effective
    assert "x11forwarding no\n" in effective


def test_a_broken_configuration_is_rolled_back(debian: Debian) -> None:
    """What the hardening does not touch may be broken: sshd keeps what it had (H07)."""
    before = debian.run("cd /etc/ssh; cat sshd_config sshd_config.d/00-assay.conf")
    debian.write("/etc/ssh/sshd_config.d/95-broken.conf", "NoSuchKeyword yes\n")
    other = spec(harden={"updates": None, "kernel": None, "sshd": {"max_auth_tries": 1}})
    results = debian.perform(harden_steps(debian.facts(), other))
    assert any("rolled back" in failure for failure in failures(results))
    assert debian.run("cd /etc/ssh; cat sshd_config sshd_config.d/00-assay.conf") == before
    debian.run("rm /etc/ssh/sshd_config.d/95-broken.conf")


def test_a_change_can_be_rolled_back_after_the_fact(debian: Debian) -> None:
    """The stage does so when a second login fails (H07)."""
    before = debian.run("cd /etc/ssh; cat sshd_config sshd_config.d/00-assay.conf")
    other = spec(harden={"updates": None, "kernel": None, "sshd": {"max_auth_tries": 1}})
    debian.perform(harden_steps(debian.facts(), other))
    assert debian.run("sshd -T").count("maxauthtries 1\n") == 1
    debian.run(sshd.rollback_command())
    assert debian.run("cd /etc/ssh; cat sshd_config sshd_config.d/00-assay.conf") == before
    debian.run(sshd.commit_command())


def test_users_are_as_the_spec_says(debian: Debian) -> None:
    john = debian.run(
        "getent passwd john; id -nG john; stat -c '%a %U:%G' ~john/.ssh ~john/.ssh/authorized_keys"
    ).splitlines()
    assert john[0].split(":")[4:] == ["John O'Neil", "/home/john", "/bin/bash"]
    assert john[1:] == ["john operators", "700 john:john", "600 john:john"]
    assert debian.read("/home/john/.ssh/authorized_keys") == KEY + "\n"
    assert "NOPASSWD: ALL" in debian.run("sudo -l -U john")
    assert "not allowed" in debian.run("sudo -l -U sally")


@pytest.mark.parametrize(("until", "works"), [("2099-12-31", True), ("2020-02-29", False)])
def test_a_grant_of_sudo_ends_by_itself(debian: Debian, until: str, works: bool) -> None:
    people = SPEC.model_dump(mode="json")["users"]
    people[0]["sudo"]["until"] = until
    changed = debian.perform(users.steps(spec(users=people)))
    assert failures(changed) == []
    assert outcomes(changed)[f"sudo for john until {until}: on call (decided by the CTO)"] == "changed"
    assert ("it works" in debian.run("su john -c 'sudo -n echo it works' 2>&1 || true")) is works
    assert failures(debian.perform(users.steps(SPEC))) == []


def test_a_group_that_equals_root_stays_where_the_spec_names_it(debian: Debian) -> None:
    people = SPEC.model_dump(mode="json")["users"]
    people[1]["groups"] = ["disk"]
    changed = outcomes(debian.perform(users.steps(spec(users=people))))
    assert changed["nobody is in a group that equals root"] == "ok"
    assert "sally" in debian.run("grep ^disk: /etc/group")
    assert failures(debian.perform(users.steps(SPEC))) == []


def test_leavers_and_passwords_are_gone(debian: Debian) -> None:
    assert "leaver" not in debian.run("cat /etc/passwd /etc/sudoers.d/*")
    assert not debian.has("/home/leaver")
    assert not debian.has("/srv/x")
    assert debian.run("awk -F: '$2 !~ /^[!*]/' /etc/shadow") == ""


@pytest.mark.parametrize(
    ("plant", "title"),
    [
        ("chmod 755 /home/john/.ssh", "1 public key of john"),
        (f"echo '{OTHER_KEY}' >>/home/john/.ssh/authorized_keys", "1 public key of john"),
        ("usermod -a -G games sally", "account sally (Sally Doe)"),
        ("usermod -c Mallory sally", "account sally (Sally Doe)"),
        ("echo 'john ALL=(ALL) ALL' >/etc/sudoers.d/60-assay-john", "sudo for john: on call (decided by the CTO)"),
        (
            "cp /etc/sudoers.d/60-assay-john /etc/sudoers.d/60-assay-sally",
            "no grant of sudo that the spec does not make",
        ),
        ("usermod -a -G disk,shadow admin", "nobody is in a group that equals root"),
        ("useradd -m -s /bin/sh late", "remove login users that the spec does not name"),
        ("echo john:password | chpasswd", "lock every password"),
        ("echo '20230101 2 6 100 2047 5 ABCD' >>/etc/ssh/moduli", "drop Diffie-Hellman moduli of fewer than 3071 bits"),
        ("ssh-keygen -q -t rsa -N '' -f /etc/ssh/ssh_host_dsa_key", "remove host keys of protocol 1 and of type DSA"),
        ("systemctl disable apt-daily-upgrade.timer", "security updates every day, by unattended-upgrades"),
        ("sed -i s/1/0/ /etc/apt/apt.conf.d/52assay-updates", "security updates every day, by unattended-upgrades"),
    ],
)
def test_a_violation_is_found_and_put_right(debian: Debian, plant: str, title: str) -> None:
    debian.run(plant)
    results = debian.perform(harden_steps(debian.facts(), SPEC))
    assert failures(results) == []
    assert [name for name, outcome in outcomes(results).items() if outcome != "ok"] == [title]


def test_reports_of_crashes_are_switched_off(debian: Debian) -> None:
    debian.write("/etc/systemd/system/apport.service", "[Service]\nExecStart=true\n[Install]\nWantedBy=basic.target\n")
    debian.run("systemctl enable apport.service")
    (step,) = (step for step in kernel.steps(KernelOptions()) if step.title == "no reports of crashes")
    assert outcomes(debian.perform((step,))) == {step.title: "changed"}
    assert not debian.has("/etc/systemd/system/basic.target.wants/apport.service")
    assert outcomes(debian.perform((step,))) == {step.title: "ok"}


def test_the_builds_own_key_survives_until_the_scrub(debian: Debian, tmp_path: Path) -> None:
    build = spec(ssh={"user": "john"}, harden={"sshd": None, "updates": None, "kernel": None})
    debian.run(f"echo '{STRANGE_KEY}' >>/home/john/.ssh/authorized_keys")
    assert failures(debian.perform(harden_steps(debian.facts(), build))) == []
    assert STRANGE_KEY in debian.read("/home/john/.ssh/authorized_keys")
    debian.perform(harden_steps(debian.facts(), SPEC))
    assert STRANGE_KEY not in debian.read("/home/john/.ssh/authorized_keys")
