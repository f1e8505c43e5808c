"""For every check a planted violation: the check fails on it, and no other check does.

Plants that different checks find go into one system together; those that one check finds go into different ones.
The system is a small Debian in an overlay: whatever needs a running systemd or a metadata service is not planted here.
"""

from dataclasses import dataclass

import pytest

from pipeline.report.evidence import Layer, Status
from tests.checks.small_debian import GOOD, ChrootShell, make_debian, missing_here, overlay
from tests.checks.test_traceability import FILES, checks_of
from tests.harden.guest_plants import ON_A_GUEST
from tests.harden.signing_key import SIGNING_KEY
from tests.verify.proving import prove
from tests.verify.specs import make_spec

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]

SUDO = {"who": "the head of the platform", "why": "runs the web servers"}
SPEC = make_spec(users=("ada",)).model_dump(mode="json")
SPEC["users"][0]["sudo"] = SUDO
SPEC["harden"]["kernel"] = None  # it is this machine's
SPEC["scrub"]["forbid"] = [
    {"reason": "the vendor's licence is ours", "paths": ["/opt/vendor/*.key"], "packages": ["vim"]}
]
SPEC["harden"]["repositories"] = [
    {"name": "vendor", "url": "https://vendor.example/apt", "key": SIGNING_KEY},
    {"name": "tools", "url": "https://tools.example/apt", "key": SIGNING_KEY, "only_for_build": True},
]
GOOD_REPOSITORY = f"""
mkdir -p /etc/apt/keyrings
cat >/etc/apt/keyrings/assay-vendor.asc <<'END'
{SIGNING_KEY}END
cat >/etc/apt/sources.list.d/assay-vendor.sources <<'END'
Types: deb
URIs: https://vendor.example/apt
Suites: stable
Components: main
Signed-By: /etc/apt/keyrings/assay-vendor.asc
END
"""
BUILD_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBwQ4FNV66QbQ8es7AQmlz1YtrLIvhXkZYeCiqFnH+vW build"
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEA\\n-----END OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True)
class Plant:
    """A violation, and the checks that find it."""

    name: str
    script: str
    checks: frozenset[str]


def plant(name, script, *checks):
    """Plant a violation, which these checks find."""
    return Plant(name, script, frozenset(checks))


def sshd(line, *checks):
    """Plant a line that comes before the good ones. A Match block ends with its file."""
    return plant(line, f"echo '{line}' >$(mktemp /etc/ssh/sshd_config.d/00-bad-XXXXXX.conf)", *checks)


OF_THIS_MACHINE = {
    "listening::only_what_the_spec_allows_listens",
    "modules::loaded_modules_are_those_of_the_kernel",
}
"""The small Debian has this machine's network and kernel."""
NOT_PLANTED = ON_A_GUEST | {
    # only on paid images: tests/test_paid_image.py
    "product_guard::the_certificates_are_the_spec_s",
    "product_guard::only_root_changes_the_guard",
    "launch_user::the_launch_user_is_in_no_privileged_group",
    "launch_user::user_data_is_not_read",
    "updates::dnf_installs_what_it_finds",  # only where dnf is: tests/harden/test_dnf.py
    "updates::dnf_checks_signatures",
    "modules::loaded_modules_are_those_of_the_kernel",  # tests/harden/test_on_a_guest.py: it needs a kernel of its own
}

PLANTS = [
    sshd("PasswordAuthentication yes", "sshd::no_password_opens_the_door[passwordauthentication]"),
    sshd("PermitEmptyPasswords yes", "sshd::no_password_opens_the_door[permitemptypasswords]"),
    sshd("KbdInteractiveAuthentication yes", "sshd::no_keyboard_interactive_login"),
    sshd("Match User nobody\n PubkeyAuthentication no", "sshd::keys_are_accepted"),
    sshd("AuthenticationMethods publickey,publickey", "sshd::keys_are_accepted"),
    sshd("PermitRootLogin yes", "sshd::root_login"),
    sshd("PermitRootLogin forced-commands-only", "sshd::root_login"),
    sshd("AllowUsers backup", "sshd::only_the_login_users_may_log_in"),
    sshd("Match User nobody\n PasswordAuthentication yes", "sshd::no_password_opens_the_door[passwordauthentication]"),
    sshd("Match Address 127.0.0.1\n PermitRootLogin yes", "sshd::root_login"),
    sshd("SyslogFacility USER", "sshd::hardened_template[syslogfacility]"),
    sshd("HostbasedAuthentication yes", "sshd::hardened_template[hostbasedauthentication]"),
    sshd("KerberosAuthentication yes", "sshd::hardened_template[kerberosauthentication]"),
    sshd("GSSAPIAuthentication yes", "sshd::hardened_template[gssapiauthentication]"),
    sshd("IgnoreRhosts no", "sshd::hardened_template[ignorerhosts]"),
    sshd("IgnoreUserKnownHosts no", "sshd::hardened_template[ignoreuserknownhosts]"),
    sshd("UsePAM no", "sshd::hardened_template[usepam]"),
    sshd("X11Forwarding yes", "sshd::hardened_template[x11forwarding]"),
    sshd("PrintLastLog no", "sshd::hardened_template[printlastlog]"),
    sshd("PermitUserEnvironment yes", "sshd::hardened_template[permituserenvironment]"),
    sshd("PermitUserRC yes", "sshd::hardened_template[permituserrc]"),
    sshd("AcceptEnv LD_*", "sshd::no_environment_is_accepted"),
    plant("sshd: no sftp", "sed -i '/^Subsystem/d' /etc/ssh/sshd_config", "sshd::sftp_is_there"),
    sshd("UseDNS yes", "sshd::use_dns"),
    sshd("Ciphers aes128-cbc,aes256-ctr", "sshd::algorithms_are_modern[ciphers]"),
    sshd("MACs hmac-sha1", "sshd::algorithms_are_modern[macs]"),
    sshd("KexAlgorithms diffie-hellman-group14-sha256", "sshd::algorithms_are_modern[kexalgorithms]"),
    sshd("HostKeyAlgorithms ssh-rsa", "sshd::algorithms_are_modern[hostkeyalgorithms]"),
    sshd("PubkeyAcceptedAlgorithms ssh-rsa", "sshd::algorithms_are_modern[pubkeyacceptedalgorithms]"),
    sshd("AllowAgentForwarding yes", "sshd::limits[allowagentforwarding]"),
    sshd("AllowStreamLocalForwarding yes", "sshd::limits[allowstreamlocalforwarding]"),
    sshd("GatewayPorts yes", "sshd::limits[gatewayports]"),
    sshd("PermitTunnel yes", "sshd::limits[permittunnel]"),
    sshd("StrictModes no", "sshd::limits[strictmodes]"),
    sshd("LogLevel QUIET", "sshd::limits[loglevel]"),
    sshd("MaxAuthTries 6", "sshd::numbers_are_limited"),
    sshd("LoginGraceTime 0", "sshd::numbers_are_limited"),
    sshd("MaxSessions 50", "sshd::numbers_are_limited"),
    sshd("MaxStartups 500", "sshd::numbers_are_limited"),
    sshd("AllowTcpForwarding yes", "sshd::forwarding"),
    plant(
        "a file that may not be passed on",
        "mkdir -p /opt/vendor; echo x >/opt/vendor/our.key",
        "forbidden::nothing_is_there_that_may_not_be_passed_on",
    ),
    plant("sshd: short moduli", "echo '2023 2 6 100 2047 2 FFFF' >>/etc/ssh/moduli", "sshd::moduli_are_large"),
    sshd("Port 2222", "sshd::port"),
    sshd(
        "AuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody",
        "sshd::nobody_else_vouches_for_users[authorizedkeyscommand]",
    ),
    sshd("TrustedUserCAKeys /etc/ssh/ca.pub", "sshd::nobody_else_vouches_for_users[trustedusercakeys]"),
    sshd("AuthorizedPrincipalsFile /etc/ssh/people", "sshd::nobody_else_vouches_for_users[authorizedprincipalsfile]"),
    sshd("AuthorizedKeysFile /etc/ssh/keys/%u", "sshd::keys_are_read_from_the_homes_only"),
    plant(
        "the build's key in the home of a system account",
        f"mkdir /var/mail/.ssh; echo '{BUILD_KEY}' >/var/mail/.ssh/authorized_keys",
        "keys::only_declared_keys_open_the_door",
        "keys::the_key_of_the_build_is_gone",
    ),
    plant(
        "another key for a user",
        "ssh-keygen -q -t ed25519 -N '' -f /run/k; cat /run/k.pub >>/home/ada/.ssh/authorized_keys",
        "keys::only_declared_keys_open_the_door",
    ),
    plant(
        "a key with options in authorized_keys2",
        "ssh-keygen -q -t ed25519 -N '' -f /run/k; mkdir -p /root/.ssh;"
        ' echo "from=\\"10.0.0.0/8\\" $(cat /run/k.pub)" >/root/.ssh/authorized_keys2',
        "keys::only_declared_keys_open_the_door",
    ),
    plant(
        "a host key",
        "ssh-keygen -q -t ed25519 -N '' -f /run/k; cp /run/k.pub /etc/ssh/ssh_host_ed25519_key.pub",
        "keys::no_host_key_ships",
    ),
    plant("a host certificate elsewhere", "touch /var/lib/ssh_host_rsa_key-cert.pub", "keys::no_host_key_ships"),
    plant("a private key", f"printf '%b' '{PEM}' >/opt/deploy", "keys::no_private_key"),
    plant("a private key in /etc", f"printf '%b' '{PEM}' >/etc/web.key", "keys::no_private_key"),
    plant("a PuTTY key", "echo 'PuTTY-User-Key-File-3: ssh-rsa' >/root/x.txt", "keys::no_private_key"),
    plant("known hosts", "mkdir -p /root/.ssh; echo x >/root/.ssh/known_hosts", "keys::no_ssh_client_files"),
    plant("an ssh configuration", "echo x >/home/ada/.ssh/config", "keys::no_ssh_client_files"),
    plant("an id", "touch /srv/id_ed25519", "keys::no_ssh_client_files"),
    plant("another full name", "usermod -c Eve ada", "users::users_are_as_the_spec_says"),
    plant("another shell", "usermod -s /bin/dash ada", "users::users_are_as_the_spec_says"),
    plant("one group too many", "usermod -aG users ada", "users::groups_are_as_the_spec_says"),
    plant("an open .ssh", "chmod 755 /home/ada/.ssh", "users::homes_are_private"),
    plant("open keys", "chmod 644 /home/ada/.ssh/authorized_keys", "users::homes_are_private"),
    plant("another's keys", "chown root /home/ada/.ssh/authorized_keys", "users::homes_are_private"),
    plant("no keys", ": >/home/ada/.ssh/authorized_keys", "users::users_have_their_keys"),
    plant("a leaver", "useradd -s /usr/sbin/nologin -p '!' eve", "users::nobody_else_has_an_account"),
    plant("a system account with a shell", "usermod -s /bin/bash backup", "users::no_system_account_has_a_shell"),
    plant("an orphan", "touch /srv/left; chown 4711 /srv/left", "users::no_file_is_orphaned"),
    plant(
        "sudo for a service",
        "echo 'www-data ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/web; chmod 440 /etc/sudoers.d/web",
        "users::only_administrators_have_sudo",
    ),
    plant(
        "more sudo than granted",
        "echo 'ada ALL=(ALL) NOPASSWD: /bin/sh' >>/etc/sudoers.d/people",
        "users::grants_are_as_the_spec_says",
    ),
    plant("sudo without a grant", ": >/etc/sudoers.d/people", "users::grants_are_as_the_spec_says"),
    plant("sudo without a log", "echo 'Defaults !syslog' >>/etc/sudoers.d/people", "users::sudo_is_logged"),
    plant(
        "a root password",
        "usermod -p '$6$a$b' root",
        "users::root_has_no_known_password",
        "users::no_password_hash_ships",
    ),
    plant("a password", "usermod -p '$6$a$b' ada", "users::no_account_has_a_password", "users::no_password_hash_ships"),
    plant("an empty password", "usermod -p '' backup", "users::no_account_has_a_password"),
    plant(
        "a locked password",
        "usermod -p '!$6$a$b' ada",
        "users::no_account_has_a_password",
        "users::no_password_hash_ships",
    ),
    plant(
        "a hash in passwd",
        "sed -i 's/^games:x:/games:abJnggxhB:/' /etc/passwd",
        "users::accounts_have_shadow_entries",
    ),
    plant("a second root", "sed -i 's/^list:x:38:/list:x:0:/' /etc/passwd", "users::root_has_no_twin"),
    plant("a shell history", "echo ls >/root/.bash_history", "history::no_history_file"),
    plant("an empty history", ": >/home/ada/.zsh_history", "history::no_history_file"),
    plant(
        "a fish history",
        "mkdir -p /home/ada/.local/share/fish; touch /home/ada/.local/share/fish/fish_history",
        "history::no_history_file",
    ),
    plant("a client's history", "touch /root/.mysql_history", "history::no_history_file"),
    plant("an editor's memory", "touch /root/.viminfo", "history::no_history_file"),
    plant(
        "a history elsewhere",
        "echo 'HISTFILE=/var/lib/typed' >>/etc/profile; echo ls >/var/lib/typed",
        "history::no_history_elsewhere",
    ),
    plant(
        "a signing certificate",
        "mkdir /srv/x; touch /srv/x/cert-ABCDEFGHIJKLMNOPQRSTUVWX.pem",
        "credentials::no_signing_certificates",
    ),
    plant("AWS credentials", "mkdir /root/.aws; echo x >/root/.aws/credentials", "credentials::no_cloud_credentials"),
    plant(
        "a cache of gcloud",
        "mkdir -p /home/ada/.config/gcloud; echo x >/home/ada/.config/gcloud/access_tokens.db",
        "credentials::no_cloud_credentials",
    ),
    plant("an access key", "echo 'key AKIAIOSFODNN7EXAMPLE' >/opt/deploy.txt", "credentials::no_access_key"),
    plant(
        "a secret in the environment",
        "echo 'AWS_SECRET_ACCESS_KEY=x' >>/etc/environment",
        "credentials::no_credentials_in_the_environment",
    ),
    plant("a .netrc", "echo x >/root/.netrc", "credentials::no_service_credentials"),
    plant(
        "a registry login",
        "mkdir /home/ada/.docker; echo '{}' >/home/ada/.docker/config.json",
        "credentials::no_service_credentials",
    ),
    plant(
        "a proxy login",
        "echo 'Acquire::http::Proxy \"http://u:p@proxy:3128\";' >/etc/apt/apt.conf.d/90proxy",
        "credentials::no_login_in_an_address",
    ),
    plant(
        "a repository login",
        "echo 'machine x login y password z' >/etc/apt/auth.conf.d/x.conf",
        "credentials::no_package_manager_login",
    ),
    plant(
        "state of cloud-init",
        "mkdir -p /var/lib/cloud/instances/i-1; echo x >/var/lib/cloud/instances/i-1/user-data.txt",
        "cloud_init::no_state_ships",
    ),
    plant("an empty log of cloud-init", ": >/var/log/cloud-init.log", "cloud_init::no_log_ships"),
    plant(
        "generated sudo rules",
        "touch /etc/sudoers.d/90-cloud-init-users",
        "cloud_init::no_generated_configuration_ships",
    ),
    plant(
        "a key file in /tmp",
        "touch /tmp/my-key",
        "cloud_init::no_key_file_in_a_shared_folder",
        "leftovers::no_temporary_file_ships",
    ),
    plant("a log", "echo x >/var/log/auth.log", "logs::no_log_ships"),
    plant("logins", "echo x >/var/log/wtmp", "logs::no_log_ships"),
    plant("a journal", "mkdir -p /var/log/journal/0123", "logs::no_journal_ships"),
    plant(
        "state of log rotation",
        "mkdir -p /var/lib/logrotate; echo x >/var/lib/logrotate/status",
        "logs::no_log_state_ships",
    ),
    plant("a machine id", "echo 0123456789abcdef0123456789abcdef >/etc/machine-id", "identity::no_machine_id_ships"),
    plant("another id for D-Bus", "echo 0123 >/var/lib/dbus/machine-id", "identity::dbus_uses_the_machine_id"),
    plant("a random seed", "echo x >/var/lib/systemd/random-seed", "identity::no_random_seed_ships"),
    plant(
        "an iSCSI name",
        "mkdir -p /etc/iscsi; echo InitiatorName=iqn.2004-10.com.ubuntu:01:3a1c >/etc/iscsi/initiatorname.iscsi",
        "identity::no_name_in_a_storage_network_ships",
    ),
    plant("a lease", "mkdir -p /var/lib/dhcp; echo x >/var/lib/dhcp/dhclient.eth0.leases", "identity::no_lease_ships"),
    plant(
        "a pinned interface",
        "mkdir -p /etc/udev/rules.d; echo x >/etc/udev/rules.d/70-persistent-net.rules",
        "identity::no_interface_is_pinned",
    ),
    plant("the build's host name", "echo ip-172-31-1-2 >/etc/hostname", "identity::no_host_name_ships"),
    plant(
        "no periodic updates", "rm /etc/apt/apt.conf.d/20auto-upgrades", "updates::security_updates_are_installed_daily"
    ),
    plant(
        "updates switched off",
        "echo 'APT::Periodic::Enable \"0\";' >/etc/apt/apt.conf.d/99off",
        "updates::security_updates_are_installed_daily",
    ),
    plant(
        "no security origin", "rm /etc/apt/apt.conf.d/50unattended-upgrades", "updates::security_updates_are_allowed"
    ),
    plant("no timer", "systemctl disable -q apt-daily-upgrade.timer", "updates::the_timers_are_enabled"),
    plant(
        "no unattended-upgrades",
        "sed -i '/^Package: unattended-upgrades$/,/^$/s/^Status:.*/Status: purge ok config-files/' $STATUS",
        "updates::unattended_upgrades_is_installed",
    ),
    plant(
        "half a package",
        "sed -i '/^Package: procps$/,/^$/s/^Status:.*/Status: install ok half-configured/' $STATUS",
        "updates::no_package_is_half_installed",
    ),
    plant(
        "a repository without signature",
        "echo 'deb [trusted=yes] http://x/ y main' >/etc/apt/sources.list.d/x.list",
        "updates::repositories_are_signed",
        "repositories::only_the_repositories_of_the_spec_are_open",
    ),
    plant(
        "the key of a repository that was closed",
        "touch /etc/apt/keyrings/assay-tools.asc",
        "repositories::only_the_repositories_of_the_spec_are_open",
        "trust::package_signers_belong_to_packages",
    ),
    plant(
        "another address of a repository",
        "sed -i 's/vendor/evil/' /etc/apt/sources.list.d/assay-vendor.sources",
        "repositories::each_repository_is_bound_to_its_key",
    ),
    plant(
        "any key for a repository",
        "sed -i /Signed-By/d /etc/apt/sources.list.d/assay-vendor.sources",
        "repositories::each_repository_is_bound_to_its_key",
    ),
    plant(
        "another key of a repository",
        "echo x >>/etc/apt/keyrings/assay-vendor.asc",
        "repositories::each_repository_is_bound_to_its_key",
    ),
    plant(
        "a switch for unsigned packages",
        "echo 'APT::Get::AllowUnauthenticated \"true\";' >/etc/apt/apt.conf.d/99x",
        "updates::repositories_are_signed",
    ),
    plant("another time zone", "ln -sfn /usr/share/zoneinfo/Europe/Berlin /etc/localtime", "clock::time_zone"),
    plant("another name of the time zone", "echo Europe/Berlin >/etc/timezone", "clock::time_zone"),
    plant("new homes for all", "echo HOME_MODE 0755 >>/etc/login.defs", "login::new_accounts_are_private"),
    plant("a loose umask", "sed -i 's/^UMASK.*/UMASK 022/' /etc/login.defs", "login::new_accounts_are_private"),
    plant("a later file loosens the umask", "echo 'umask 022' >/etc/profile.d/zz.sh", "login::shells"),
    plant("a root shell for all", "chmod u+s /bin/bash", "privilege::set_user_id_programs_are_known"),
    plant(
        "a set-user-id program under a known name",
        "cp /bin/dash /srv/ping; chmod 4755 /srv/ping",
        "privilege::set_user_id_programs_belong_to_packages",
    ),
    plant("a capability", "setcap cap_setuid+ep /usr/bin/perl", "privilege::file_capabilities_are_known"),
    plant(
        "a member of disk",
        "usermod -aG disk www-data",
        "privilege::nobody_is_in_a_group_that_equals_root",
    ),
    plant(
        "sudo rules that others may write",
        "chmod 660 /etc/sudoers.d/people",
        "privilege::sudoers_are_private_and_valid",
    ),
    plant(
        "a program that all may write", "chmod o+w /usr/bin/env", "privilege::nobody_can_change_programs_and_settings"
    ),
    plant("a folder that all may write", "mkdir -m 777 /srv/drop", "privilege::shared_folders_are_sticky"),
    plant("readable hashes", "chmod 644 /etc/shadow", "privilege::account_files_are_private"),
    plant(
        "a crontab",
        "echo '* * * * * sh' >/var/spool/cron/crontabs/root",
        "startup::no_user_has_jobs",
        "leftovers::no_mail_or_job_ships",
    ),
    plant("a system job", "echo '* * * * * root sh' >/etc/cron.d/call", "startup::system_jobs_belong_to_packages"),
    plant(
        "a library in every program",
        "echo /lib/x.so >/etc/ld.so.preload",
        "startup::nothing_is_loaded_into_every_program",
    ),
    plant("an rc.local", "printf '#!/bin/sh\\n' >/etc/rc.local; chmod +x /etc/rc.local", "startup::no_late_script"),
    plant(
        "a user's unit",
        "mkdir -p /home/ada/.config/systemd/user; touch /home/ada/.config/systemd/user/x.service",
        "startup::no_user_units",
    ),
    plant(
        "PAM runs a script",
        "sed -i '1i auth optional pam_exec.so /bin/true' /etc/pam.d/cron",
        "startup::pam_asks_no_stranger",
        "difference::settings_of_packages_are_changed_by_nobody_else",
    ),
    plant(
        "PAM lets everybody in",
        "sed -i '1i auth sufficient pam_permit.so' /etc/pam.d/common-auth",
        "startup::pam_asks_no_stranger",
    ),
    plant(
        "a module of PAM",
        "d=$(dirname $(find /usr/lib /lib -name pam_unix.so | head -n 1)); cp $d/pam_deny.so $d/pam_x.so",
        "startup::pam_modules_belong_to_packages",
        "difference::every_file_of_the_system_is_a_package_s",
    ),
    plant("a library of nobody's", "echo x >/usr/lib/libx.so.1", "difference::every_file_of_the_system_is_a_package_s"),
    plant(
        "a link to a program of somebody's",
        "ln -s /srv/tool /usr/bin/tool",
        "difference::every_file_of_the_system_is_a_package_s",
    ),
    plant(
        "another setting of a package",
        "echo x >>/etc/debconf.conf",
        "difference::settings_of_packages_are_changed_by_nobody_else",
    ),
    plant("another sshd", "echo x >>/usr/sbin/sshd", "packages::guards_are_unchanged"),
    plant("a program of somebody's", "cp /bin/true /usr/local/bin/sl", "packages::no_program_outside_of_packages"),
    plant("a program among the spools", "cp /bin/true /var/spool/x", "packages::no_program_in_a_data_folder"),
    plant("a module", "touch $(echo /usr/lib/modules/*)/kernel/drivers/x.ko", "modules::modules_belong_to_packages"),
    plant(
        "another module",
        "echo x >>$(find /usr/lib/modules -name virtio_blk.ko)",
        "modules::kernels_are_unchanged",
    ),
    plant("no module", "rm $(find /usr/lib/modules -name '*.ko' | tail -n 1)", "modules::kernels_are_unchanged"),
    plant(
        "a library for the first process",
        "cd /run && mkdir early && cd early && mkdir usr && echo x >usr/x.so && find . | cpio -o -H newc --quiet |"
        " cat - /boot/initrd.img-* >/run/both && cat /run/both >$(echo /boot/initrd.img-*)",
        "modules::the_initramfs_holds_what_the_system_has",
    ),
    plant(
        "a command of the first process",
        "cd /run && mkdir -p first/conf && echo 'DPKG_ARCH=amd64; sh' >first/conf/arch.conf && cd first &&"
        " find . | cpio -o -H newc --quiet >>$(echo /boot/initrd.img-*)",
        "modules::the_initramfs_holds_what_the_system_has",
    ),
    plant(
        "a script of the first process",
        "echo x >/etc/initramfs-tools/scripts/init-top/x",
        "modules::scripts_of_the_initramfs_belong_to_packages",
    ),
    plant("an authority", "echo x >/usr/local/share/ca-certificates/x.crt", "trust::no_local_authority"),
    plant(
        "an authority in the bundle",
        "sed 's/A/B/g' /etc/ssl/certs/ISRG_Root_X1.pem >>/etc/ssl/certs/ca-certificates.crt",
        "trust::authorities_are_the_distributions",
    ),
    plant("a signer of packages", "echo x >/etc/apt/trusted.gpg.d/x.asc", "trust::package_signers_belong_to_packages"),
    plant("a redirected mirror", "echo '203.0.113.9 deb.debian.org' >>/etc/hosts", "trust::names_are_not_redirected"),
    plant(
        "a remote log",
        "mkdir -p /etc/rsyslog.d; echo '*.* @@203.0.113.9' >/etc/rsyslog.d/x.conf",
        "trust::no_log_leaves_the_machine",
    ),
    plant("an old passwd", "cp /etc/passwd /etc/passwd-", "leftovers::no_back_up_of_accounts_ships"),
    plant("an editor's twin", "touch /etc/fstab~", "leftovers::no_edited_file_has_a_twin"),
    plant(
        "a package",
        "mkdir -p /var/cache/apt/archives; echo x >/var/cache/apt/archives/x.deb",
        "leftovers::no_package_cache_ships",
    ),
    plant(
        "a cache of pip", "mkdir -p /home/ada/.cache; touch /home/ada/.cache/x", "leftovers::no_cache_of_a_user_ships"
    ),
    plant("a hidden temporary file", "touch /var/tmp/.x", "leftovers::no_temporary_file_ships"),
    plant("mail", "echo x >/var/mail/root", "leftovers::no_mail_or_job_ships"),
    plant("a core dump", "touch /root/core.17", "leftovers::no_core_dump_ships"),
    plant(
        "an enrolment", "mkdir -p /var/lib/amazon/ssm; echo x >/var/lib/amazon/ssm/id", "leftovers::no_enrolment_ships"
    ),
    plant(
        "the key of a disk",
        "mkdir -p /etc/cryptsetup-keys.d; echo x >/etc/cryptsetup-keys.d/data.key",
        "leftovers::no_enrolment_ships",
    ),
    plant("a checkout", "mkdir -p /srv/web/.git", "leftovers::no_checkout_ships"),
    plant(
        "a container's layer",
        "mkdir -p /var/lib/docker/overlay2/a; touch /var/lib/docker/overlay2/a/x",
        "leftovers::no_container_layer_ships",
    ),
    plant(
        "a time stamp of sudo",
        "mkdir -p /var/lib/sudo/ts; touch /var/lib/sudo/ts/ada",
        "leftovers::no_time_stamp_ships",
    ),
    plant(
        "a key of the user of the build",
        "ssh-keygen -q -t ed25519 -N '' -f /run/b; cat /run/b.pub >>/home/admin/.ssh/authorized_keys",
        "keys::only_declared_keys_open_the_door",
        "leftovers::the_user_of_the_build_has_no_key",
    ),
    plant(
        "a deleted file that is held open",
        "touch /run/stay; (exec 3>/srv/held; echo x >&3; rm /srv/held; while [ -e /run/stay ]; do sleep 1; done)"
        " >/dev/null 2>&1 &",
        "free_space::no_deleted_file_is_held_open",
    ),
    plant("a swap file", "touch /swapfile", "leftovers::no_swap_on_the_disk"),
    plant("a trusted host", "echo x >/root/.rhosts", "trust::no_host_is_trusted"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A system on which every check passes, as the changes to the small Debian."""
    folder = tmp_path_factory.mktemp("good")
    debian = make_debian()
    with overlay(folder, debian) as root:
        done = ChrootShell(root).run(GOOD + GOOD_REPOSITORY)
        assert done.exit_status == 0, done.stderr
    return folder / "changes", debian


@pytest.fixture
def failing(good, tmp_path, tmp_path_factory):
    """A function that plants something and returns which checks fail, with their reasons."""
    recordings = tmp_path_factory.getbasetemp() / "recordings"

    def run(script):
        with overlay(tmp_path / "planted", *good) as root:
            shell = ChrootShell(root)
            done = shell.run(script)
            assert done.exit_status == 0, done.stderr
            results = prove(
                [shell],
                Layer.LIVE,
                make_spec().model_validate(SPEC),
                tmp_path / "build",
                {"build_public_key": BUILD_KEY},
                recordings=recordings,
            )
        bad = [result for result in results if result.status in (Status.FAIL, Status.UNREACHABLE)]
        found = {one.source.replace("checks/test_", "").replace(".py::test_", "::"): one.detail for one in bad}
        return {name: detail for name, detail in found.items() if name not in OF_THIS_MACHINE}

    return run


def test_a_good_system_passes(failing):
    assert failing("true") == {}


def in_batches(plants):
    """Return plants in batches in which no check has two."""
    groups = []
    for one in plants:
        free = [group for group in groups if not any(one.checks & other.checks for other in group)]
        if free:
            free[0].append(one)
        else:
            groups.append([one])
    return groups


def careful(one):
    """Return the plant's script without the back-ups of account files that its tools make."""
    return f"({one.script}) || exit 1" + ("; rm -f /etc/*-" if "user" in one.script.partition(" ")[0] else "")


@pytest.mark.parametrize("group", in_batches(PLANTS), ids=lambda group: group[0].name)
def test_plants_are_found_by_their_checks_and_by_no_other(failing, group):
    found = failing("STATUS=/var/lib/dpkg/status\n" + "\n".join(map(careful, group)))
    expected = {check: one.name for one in group for check in one.checks}
    assert {name: expected[name] for name in expected.keys() - found.keys()} == {}, "these were not found"
    assert {name: found[name] for name in found.keys() - expected.keys()} == {}, "these were found and not planted"


def test_every_check_of_the_live_layer_has_a_plant():
    planted = {check.partition("[")[0] for one in PLANTS for check in one.checks}
    checks = {
        f"{path.stem.removeprefix('test_')}::{node.name.removeprefix('test_')}"
        for path in FILES
        for node, _, layers in checks_of(path)
        if "L" in layers
    }
    assert checks - planted - NOT_PLANTED == set()
