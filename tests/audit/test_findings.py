"""Facts of several regions, gathered at once and taken apart again."""

from pipeline.audit.findings import gather, in_each, of_region


def test_each_region_gets_its_own_facts_and_no_others():
    readers = {"zone": lambda session: f"a zone of {session}", "state": lambda session: "well"}
    facts = gather({**in_each({"eu-west-1": "one", "us-east-1": "two"}, readers), "aliases": lambda: "of nobody"})
    assert of_region(facts, "eu-west-1") == {"zone": "a zone of one", "state": "well"}
    assert of_region(facts, "us-east-1") == {"zone": "a zone of two", "state": "well"}
