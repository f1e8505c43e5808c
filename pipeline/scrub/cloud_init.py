"""What cloud-init keeps of this instance: user-data, metadata, seeds, logs, and the settings that it made (S11)."""

from pipeline.guest.step import Step
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

LEFT = r"""
under '/var/lib/cloud/*' '/var/lib/cloud/.[!.]*' '/var/log/cloud-init*' /etc/netplan/50-cloud-init.yaml \
    '/etc/network/interfaces.d/50-cloud-init*' '/etc/systemd/network/*cloud-init*' \
    '/etc/NetworkManager/system-connections/cloud-init*' /etc/NetworkManager/conf.d/99-cloud-init.conf \
    '/etc/sysconfig/network-scripts/ifcfg-eth*' /etc/ssh/sshd_config.d/50-cloud-init.conf \
    '/etc/udev/rules.d/*cloud-init*' /etc/cloud/ds-identify.cfg.old '/etc/cloud/.*.assay-new' \
    /etc/cloud/cloud.cfg.d/90_dpkg.cfg.dpkg-old /etc/cloud/cloud-init.seed /etc/cloud/instance-data.json
"""

CLEAN = r"""
if [ -d /etc/cloud/clean.d ]; then run-parts /etc/cloud/clean.d; fi
rm -rf /var/lib/cloud
install -d -m 755 /var/lib/cloud
"""
"""What `cloud-init clean --logs --seed --configs all` does, hooks included, without the seconds that its start costs on
an emulated guest, and without the differences between its versions. The folder itself goes, too: the names in it are
those of this instance, and a folder keeps the names of what was deleted from it."""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the step that makes the next boot cloud-init's first."""
    common = removal(spec, "cloud_init", ("S11",), "make the next boot the first of cloud-init", LEFT)
    assert isinstance(common.action, str)
    return (Step(common.subject, common.controls, common.title, CLEAN + common.action, common.test),)
