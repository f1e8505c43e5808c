"""Violations that need a booted guest: each is planted, found by its check and by no other, and taken back."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GuestPlant:
    """A violation on a running guest, how it is taken back, and the checks that find it."""

    name: str
    plant: str
    undo: str
    checks: tuple[str, ...]


NFT = "nft -f /etc/nftables.d/assay-firewall.nft; nft -f /etc/nftables.d/assay-metadata.nft"
INPUT = "inet assay_firewall input"
RULES = "firewall::only_the_ports_of_the_spec_are_open"
DROPPED = "firewall::what_comes_in_is_dropped"
AT_BOOT = "metadata::the_metadata_service_is_closed_at_boot"
REACHED = "metadata::only_root_reaches_the_metadata_service"
LIMITS = "/etc/security/limits.d/99-planted.conf"
FSTAB = "cp /run/fstab.before /etc/fstab"

PLANTS = (
    GuestPlant("a port more", f"nft insert rule {INPUT} tcp dport 8080 accept", NFT, (RULES,)),
    GuestPlant("everything from one network", f"nft insert rule {INPUT} ip saddr 10.0.0.0/8 accept", NFT, (RULES,)),
    GuestPlant(
        "everything from other cards", f"nft insert rule {INPUT} iif != lo tcp dport != 1 accept", NFT, (RULES,)
    ),
    GuestPlant("new connections", f"nft insert rule {INPUT} ct state new accept", NFT, (RULES,)),
    GuestPlant(
        "a way round",
        f"nft add chain inet assay_firewall other; nft add rule inet assay_firewall other accept;"
        f" nft insert rule {INPUT} jump other",
        NFT,
        (RULES,),
    ),
    GuestPlant("a narrow port wide open", f"nft add rule {INPUT} tcp dport 443 accept", NFT, (RULES,)),
    GuestPlant("a firewall that lets pass", f"nft add chain {INPUT} '{{ policy accept; }}'", NFT, (DROPPED, RULES)),
    GuestPlant(
        "no firewall", "nft delete table inet assay_firewall", NFT, (DROPPED, RULES, "firewall::nothing_is_passed_on")
    ),
    GuestPlant(
        "no firewall at the next boot",
        "mv /etc/systemd/system/sysinit.target.wants/nftables.service /run/",
        "mv /run/nftables.service /etc/systemd/system/sysinit.target.wants/",
        ("firewall::the_firewall_comes_up_at_boot", AT_BOOT),
    ),
    GuestPlant("metadata for all", "nft delete table inet assay_metadata", NFT, (REACHED,)),
    GuestPlant(
        "metadata for nobody's sake",
        "nft insert rule inet assay_metadata owner meta skuid 65534 accept",
        NFT,
        (REACHED,),
    ),
    GuestPlant(
        "somebody listens",
        'socat=$(command -v python3); $socat -c \'import socket,time; s=socket.create_server(("0.0.0.0", 8080));'
        " time.sleep(600)' >/dev/null 2>&1 & echo $! >/run/listener; sleep 2",
        "kill $(cat /run/listener)",
        ("listening::only_what_the_spec_allows_listens",),
    ),
    GuestPlant(
        "a setting of the kernel",
        "echo 1 >/proc/sys/net/ipv4/conf/all/accept_redirects",
        "echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects",
        ("kernel::settings",),
    ),
    GuestPlant(
        "a module that may be loaded",
        "sed -i.planted '/dccp/d' /etc/modprobe.d/90-assay.conf",
        "mv /etc/modprobe.d/90-assay.conf.planted /etc/modprobe.d/90-assay.conf",
        ("kernel::modules",),
    ),
    GuestPlant(
        "a module by another file",
        "echo 'install sctp /sbin/modprobe --ignore-install sctp' >/etc/modprobe.d/99-planted.conf",
        "rm /etc/modprobe.d/99-planted.conf",
        ("kernel::modules",),
    ),
    GuestPlant("core dumps again", f"echo '* hard core unlimited' >{LIMITS}", f"rm {LIMITS}", ("kernel::core_dumps",)),
    GuestPlant(
        "a shell that never ends",
        "sed -i.planted '/TMOUT/d' /etc/profile.d/60-assay.sh",
        "mv /etc/profile.d/60-assay.sh.planted /etc/profile.d/60-assay.sh",
        ("login::shells",),
    ),
    GuestPlant(
        "jobs that all may read",
        "chmod 755 /etc/cron.daily",
        "chmod 700 /etc/cron.daily",
        ("permissions::cron_and_sshd_are_configured_in_private",),
    ),
    GuestPlant(
        "programs in /tmp",
        "cp /etc/fstab /run/fstab.before; sed -i 's/50%,nosuid,nodev,noexec/50%,nosuid,nodev/' /etc/fstab",
        FSTAB,
        ("mounts::shared_folders",),
    ),
    GuestPlant(
        "no limits of /var/tmp",
        "cp /etc/fstab /run/fstab.before; sed -i '/var.tmp/d' /etc/fstab",
        FSTAB,
        ("mounts::shared_folders",),
    ),
    GuestPlant(
        "nobody watches the accounts",
        "sed -i.planted '/shadow/d' /etc/audit/rules.d/60-assay.rules",
        "mv /etc/audit/rules.d/60-assay.rules.planted /etc/audit/rules.d/60-assay.rules",
        ("audit::the_rules_are_loaded_at_boot",),
    ),
    GuestPlant(
        "rules that can be changed",
        "mv /etc/audit/rules.d/99-assay.rules /run/",
        "mv /run/99-assay.rules /etc/audit/rules.d/",
        ("audit::the_rules_are_loaded_at_boot",),
    ),
    GuestPlant(
        "an exception from the rules",
        "echo '-a never,user' >/etc/audit/rules.d/10-planted.rules",
        "rm /etc/audit/rules.d/10-planted.rules",
        ("audit::the_rules_are_loaded_at_boot",),
    ),
    GuestPlant(
        "a service that is root again",
        "printf '[Service]\\nUser=root\\n' >/etc/systemd/system/web.service.d/99-planted.conf; systemctl daemon-reload",
        "rm /etc/systemd/system/web.service.d/99-planted.conf; systemctl daemon-reload",
        ("services::services_have_users_of_their_own",),
    ),
    GuestPlant(
        "an account with a shell",
        "usermod -s /bin/sh web",
        "usermod -s /usr/sbin/nologin web",
        ("services::services_have_users_of_their_own",),
    ),
    GuestPlant(
        "no refresh of keys at the next boot",
        "mv /etc/systemd/system/timers.target.wants/assay-key-sync.timer /run/",
        "mv /run/assay-key-sync.timer /etc/systemd/system/timers.target.wants/",
        ("key_sync::keys_are_refreshed_at_each_boot",),
    ),
    GuestPlant(
        "keys from elsewhere",
        "sed -i.planted s:/images/keys:/others/keys: /etc/assay/key-sync/key-sync.sh",
        "mv /etc/assay/key-sync/key-sync.sh.planted /etc/assay/key-sync/key-sync.sh",
        ("key_sync::keys_come_from_where_the_spec_says",),
    ),
    GuestPlant(
        "a refresh that anybody changes",
        "chmod 777 /etc/assay/key-sync/key-sync.sh",
        "chmod 755 /etc/assay/key-sync/key-sync.sh",
        ("key_sync::only_root_changes_the_refresh",),
    ),
    GuestPlant(
        "no update of tools at the next boot",
        "mv /etc/systemd/system/multi-user.target.wants/assay-tool-updates.service /run/",
        "mv /run/assay-tool-updates.service /etc/systemd/system/multi-user.target.wants/",
        ("tool_updates::tools_are_updated_at_each_boot",),
    ),
    GuestPlant(
        "no AppArmor at the next boot",
        "mv /etc/systemd/system/sysinit.target.wants/apparmor.service /run/",
        "mv /run/apparmor.service /etc/systemd/system/sysinit.target.wants/",
        ("mandatory_access::services_are_confined",),
    ),
)

ON_A_GUEST = {check for one in PLANTS for check in one.checks}
"""The checks that these find."""
