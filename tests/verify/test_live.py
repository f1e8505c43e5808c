"""The runner, with tiny checks and a scripted shell. Each proof starts one process."""

import json
import os
import textwrap
from itertools import chain

import pytest

from pipeline.errors import ProofFailed
from pipeline.report.evidence import Layer, Status
from tests.verify.proving import prove
from tests.verify.scripted import Output, ScriptedShell
from tests.verify.specs import make_spec

pytestmark = pytest.mark.subprocess


@pytest.fixture
def run(tmp_path):
    """Write checks to files, and prove them at layer L."""
    folder = tmp_path / "ours"

    def run(
        shell=None, layer=Layer.LIVE, own=None, spec_checks=(), expectations=None, progress=None, idle=60.0, **files
    ):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        for name, text in (own or {}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(textwrap.dedent(text))
        return prove(
            [shell or ScriptedShell()],
            layer,
            make_spec(checks=spec_checks),
            tmp_path / "build",
            expectations or {},
            spec_folder=tmp_path,
            checks=folder,
            recordings=tmp_path / "recordings",
            progress=progress or (lambda result, done, total: None),
            idle_seconds=idle,
        )

    return run


def by_name(results):
    return {result.source.rpartition("::")[2]: result for result in results}


MIXED = """
    import pytest

    @pytest.mark.controls("H01", "H02", layers="LB")
    def test_good(host):
        '''All is well.'''
        assert host.run("echo %s", "a b").stdout == "echo 'a b'\\n"

    def test_bad(host):
        assert ["/root/.netrc"] == []

    def test_error(host, no_such_fixture):
        pass

    @pytest.fixture
    def broken():
        raise RuntimeError("cannot be set up")

    def test_setup(broken):
        pass

    def test_skip():
        pytest.skip("nothing to see here")

    def test_skip_silently():
        pytest.skip()

    @pytest.mark.xfail
    def test_expected_failure():
        assert False

    @pytest.mark.controls("H01", layers="B")
    def test_elsewhere():
        assert False

    @pytest.mark.parametrize("name", ["one", "two"])
    def test_many(host, name):
        pass

    def test_secret():
        assert "password=hunter2hunter2" == ""
"""


def test_every_check_ends_in_a_result(run, tmp_path):
    seen = []
    results = by_name(run(test_mixed=MIXED, progress=lambda result, done, total: seen.append((done, total))))
    status = {name: str(result.status) for name, result in results.items()}
    assert status == {
        "test_good": "pass",
        "test_bad": "fail",
        "test_error": "fail",
        "test_setup": "fail",
        "test_skip": "not-applicable",
        "test_skip_silently": "fail",
        "test_expected_failure": "fail",
        "test_many[one]": "pass",
        "test_many[two]": "pass",
        "test_secret": "fail",
    }
    assert results["test_good"].controls == ("H01", "H02")
    assert results["test_good"].title == "All is well"
    assert results["test_good"].layer is Layer.LIVE
    assert results["test_bad"].detail == "assert ['/root/.netrc'] == []"
    assert "no_such_fixture" in results["test_error"].detail
    assert results["test_setup"].detail == "setup: RuntimeError: cannot be set up"
    assert results["test_skip"].detail == "nothing to see here"
    assert results["test_skip_silently"].detail == "skipped without a reason"
    assert results["test_many[one]"].title == "many [one]"
    assert "hunter2" not in results["test_secret"].detail
    assert seen == [(number, 10) for number in range(1, 11)]
    output = (tmp_path / "build/checks-L/output.txt").read_text()
    assert "cannot be set up" in output
    assert "hunter2hunter2" not in output
    summary = json.loads((tmp_path / "build/checks-L/summary.json").read_text())
    assert [name.rpartition("::")[2] for name in summary["not_of_this_layer"]] == ["test_elsewhere"]


def test_nothing_collected_is_a_failed_proof(run):
    with pytest.raises(ProofFailed, match="no check was collected for layer L"):
        run(test_empty="x = 1")


def test_only_other_layers_is_a_failed_proof(run):
    with pytest.raises(ProofFailed):
        run(test_other='import pytest\n@pytest.mark.controls("H01", layers="B")\ndef test_b(): pass')


def test_a_file_that_cannot_be_imported_fails_and_the_others_run(run):
    results = run(test_broken="import no_such_module", test_fine="def test_fine(): pass")
    assert sorted(str(result.status) for result in results) == ["fail", "pass"]
    assert "no_such_module" in next(result.detail for result in results if result.status is Status.FAIL)


def test_own_checks_run_beside_ours(run):
    own = {"web/test_web.py": "def test_web(host, spec): assert spec.name == 'web' and host.run('x').rc == 0"}
    results = run(test_fine="def test_fine(): pass", own=own, spec_checks=["web"])
    assert [(result.source, str(result.status)) for result in results] == [
        ("own/ours/test_fine.py::test_fine", "pass"),
        ("own/web/test_web.py::test_web", "pass"),
    ]


def test_own_checks_that_are_missing_or_empty_fail(run):
    own = {"empty/test_nothing.py": "x = 1"}
    results = run(test_fine="def test_fine(): pass", own=own, spec_checks=["empty", "missing.py"])
    assert [(str(result.status), result.detail) for result in results][1:] == [
        ("fail", "no check was collected here"),
        ("fail", "there is no such file or folder"),
    ]


def test_the_second_proof_sends_ahead_what_only_reads(run):
    check = """
        def test_a(host):
            assert host.run("cat /a").stdout == "cat /a\\n"
            host.run("test -e /b")
            host.run("touch /c")
            host.run("cat /a")
    """
    first, second = ScriptedShell(), ScriptedShell()
    run(shell=first, test_a=check)
    run(shell=second, test_a=check)
    assert [len(trip) for trip in first.trips] == [1] * len(first.trips)
    assert list(chain(*second.trips)) == list(chain(*first.trips))
    assert [trip for trip in second.trips if "touch /c" in trip] == [["touch /c"]]
    assert len(second.trips) == 3


def test_a_first_proof_rehearses_what_only_reads_and_tells_nothing_of_it(run):
    check = """
        import os, pytest

        @pytest.mark.parametrize("number", range(9))
        def test_a(host, number):
            if host.run("cat /a").rc == 0:
                assert host.run(f"cat /{number}").stdout == f"cat /{number}\\n"

        def test_dies_in_a_rehearsal(host):
            try:
                host.run("cat /once")
            except BaseException:
                os._exit(1)

        def test_writes(host): host.run("touch /w")
    """
    shell, seen = ScriptedShell(), []
    results = run(shell=shell, test_a=check, progress=lambda result, done, total: seen.append((done, total)))
    assert [str(result.status) for result in results] == ["pass"] * 11
    assert seen == [(number, 11) for number in range(1, 12)]
    commands = sorted(chain(*shell.trips))
    assert commands == sorted(["cat /a"] * 9 + [f"cat /{number}" for number in range(9)] + ["cat /once", "touch /w"])
    assert len(shell.trips) < 12


def test_a_session_that_breaks_makes_checks_unreachable(run):
    check = """
        def test_a(host): host.run("a")
        def test_b(host): host.run("b")
        def test_c(): pass
    """
    results = by_name(run(shell=ScriptedShell(breaks_after=1), test_a=check))
    assert {name: str(result.status) for name, result in results.items()} == {
        "test_a": "pass",
        "test_b": "unreachable",
        "test_c": "pass",
    }
    assert results["test_b"].detail == "the session broke (i-1)"


def test_a_broken_session_is_not_recorded(run, tmp_path):
    run(shell=ScriptedShell(breaks_after=1), test_a="def test_a(host): host.run('a'); host.run('b')")
    assert not list((tmp_path / "recordings").glob("*")) if (tmp_path / "recordings").exists() else True


def test_a_process_that_dies_fails_what_it_had_not_said(run):
    check = "import os\ndef test_a(): pass\ndef test_b(): os._exit(3)\ndef test_c(): pass"
    results = by_name(run(test_a=check))
    assert {name: str(result.status) for name, result in results.items()} == {
        "test_a": "pass",
        "test_b": "fail",
        "test_c": "fail",
    }
    assert results["test_c"].detail == "the checks' process ended with status 3"


def test_a_check_that_hangs_fails_and_leaves_no_process(run, tmp_path):
    check = f"""
        import os, pathlib, threading
        def test_a():
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
            threading.Event().wait()
    """
    results = run(test_a=check, idle=5.0)
    assert [(str(result.status), result.detail) for result in results] == [
        ("fail", "nothing was heard from the checks for 5 s")
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_configuration_of_pytest_outside_changes_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    assert [str(result.status) for result in run(test_a="def test_a(): pass")] == ["pass"]


def test_facts_reach_the_checks(run):
    check = """
        def test_known(fact): assert fact("machine_id") == "0" * 32
        def test_unknown(fact): fact("instance_id")
    """
    results = by_name(run(test_a=check, expectations={"machine_id": "0" * 32}))
    assert results["test_known"].status is Status.PASS
    assert results["test_unknown"].status is Status.NOT_APPLICABLE
    assert results["test_unknown"].detail == "this proof was not told the id of the build instance"


def test_bytes_survive(run):
    shell = ScriptedShell(lambda command: Output(3, "caf\udce9 €\x00", "err"))
    check = r"""
        def test_a(host):
            done = host.run("x")
            assert (done.rc, done.stderr) == (3, "err")
            assert done.stdout_bytes == b"caf\xe9 \xe2\x82\xac\x00"
            assert done.stdout == "caf\udce9 €\x00"
    """
    assert [str(result.status) for result in run(shell=shell, test_a=check)] == ["pass"]
