"""What a fresh boot shows is read from one answer, and what differs from boot to boot is left out."""

from pathlib import Path

from pipeline.stages.booted_state import FILE, parse_state, read_state

ANSWER = """\
port tcp 0.0.0.0:22
port tcp [::]:22
port udp 127.0.0.53%lo:53
set kernel.sysrq = 0
set net.ipv4.ip_local_port_range = 32768\t60999
set kernel.random.boot_id = 0b5a
set net.ipv4.conf.all.rp_filter = 1
set net.ipv4.conf.ens5.rp_filter = 1
0123 4567
"""


def test_ports_and_settings_are_read() -> None:
    state = parse_state(ANSWER)
    assert state.ports == {"22/tcp": "0.0.0.0, [::]", "53/udp": "lo"}
    assert state.kernel_settings == {
        "kernel.sysrq": "0",
        "net.ipv4.ip_local_port_range": "32768 60999",
        "net.ipv4.conf.all.rp_filter": "1",
    }


def test_a_build_without_it_has_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / FILE).write_text("{}")
    assert read_state(tmp_path) is None
