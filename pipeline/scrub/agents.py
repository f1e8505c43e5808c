"""What this machine is enrolled with, under its own name and keys (S18)."""

from pipeline.guest.step import Step
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

ENROLMENT = r"""
under '/var/lib/amazon/ssm/*' '/opt/aws/amazon-cloudwatch-agent/logs/*' \
    '/opt/aws/amazon-cloudwatch-agent/var/*' \
    '/var/lib/ecs/data/*' '/var/lib/ecs/deps/*' '/etc/pki/consumer/*' '/etc/pki/entitlement/*' '/var/lib/rhsm/*' \
    '/etc/puppetlabs/puppet/ssl' '/var/lib/puppet/ssl' '/etc/puppet/ssl' '/etc/chef/*.pem' '/etc/salt/pki/*' \
    /etc/krb5.keytab '/var/lib/sss/db/*' '/var/lib/sss/mc/*' '/var/lib/sss/secrets/*' '/var/lib/ipa-client/*' \
    '/var/lib/samba/private/*' '/var/lib/samba/*.tdb' '/var/lib/tailscale/*' '/var/lib/cloudflared/*' \
    /etc/newrelic-infra.yml '/var/lib/ubuntu-advantage/private/*' '/var/lib/ubuntu-advantage/machine-token.json' \
    '/etc/ssl/private/*' '/etc/pki/tls/private/*' '/etc/letsencrypt/accounts' '/etc/letsencrypt/live' \
    '/etc/letsencrypt/archive' '/etc/openvpn/*.key' '/etc/wireguard/*.conf' /etc/ipsec.secrets \
    '/etc/swanctl/private/*' '/etc/cryptsetup-keys.d/*' '/etc/luks-keys/*' '/var/lib/tpm/*'
"""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the step that removes registrations of agents, certificates, and private keys of services and disks."""
    return (
        removal(spec, "agents", ("S18", "H27"), "remove enrolments, and private keys of services and disks", ENROLMENT),
    )
