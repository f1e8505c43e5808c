"""Tables of nftables: each is one file, loaded whole, now and at each boot. Tables of others are left alone."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.unit import enable, is_enabled

PACKAGE = "nftables"
UNIT = "nftables.service"
FOLDER = "/etc/nftables.d"
LOADED_AT_BOOT = {"debian": "/etc/nftables.conf", "redhat": "/etc/sysconfig/nftables.conf"}
"""What nftables.service loads, by family."""


def table_file(table: str, chains: str) -> ManagedFile:
    """Return the file of a table of family inet. Loading it replaces the table in one transaction."""
    text = f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{chains}}}\n"
    return ManagedFile(f"{FOLDER}/{table.replace('_', '-')}.nft", f"# Written by Assay.\n{text}", "600")


def load_table(facts: Facts, step: Step, table: str, chains: str) -> Step:
    """Return a step of this subject, controls and title that loads a table. Its own action runs first, as a guard."""
    file = table_file(table, chains)
    variables = assign(main=LOADED_AT_BOOT[facts.family], include=f'include "{FOLDER}/assay-*.nft"', table=table)
    return Step(
        step.subject,
        step.controls,
        step.title,
        test=file.test + is_enabled(UNIT) + variables + IS_LOADED,
        action=f"{step.action}{file.action}{variables}{LOAD}{enable(UNIT)}",
    )


# The file is loaded a second time, in a network of its own that nobody uses: so both listings are this nft's own words.
IS_LOADED = """
grep -qxF "$include" "$main"
list='nft -s list table inet "$0"'
[ "$(unshare --net sh -c "nft -f \\"\\$1\\" && $list" "$table" "$file")" = "$(sh -c "$list" "$table")" ]
"""

LOAD = """
nft -c -f "$file"
nft -f "$file"
if ! grep -qxF "$include" "$main" 2>/dev/null; then printf '# Written by Assay.\\n%s\\n' "$include" >>"$main"; fi
"""
