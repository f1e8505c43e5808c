"""How fast a disk is searched: `invoke bench --only scan`. On a dense image and on a sparse one, page cache warm."""

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from pipeline.residue.encodings import Encoding, expression_of
from pipeline.residue.engine import Searcher
from pipeline.residue.matcher import open_matcher
from pipeline.residue.patterns import PATTERNS
from tests.bench import far_blocks
from tests.bench.rows import Row

RUNS = 5
DENSE_BYTES = 1 << 30
BLOCK = 512 * 1024
FOLDERS = (Path("/usr/lib"), Path("/usr/bin"), Path("/usr/share"))


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: bare matching, the whole proof, and the peers over the same bytes."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        dense = make_dense(Path(name) / "dense.raw")
        sparse = make_sparse(dense, Path(name) / "sparse.raw")
        return rows(dense, sparse) + far_blocks.rows(start_local_cloud)


def rows(dense: Path, sparse: Path) -> list[Row]:
    """Return the rows for two images: one full of files, one of the same size that is mostly holes."""
    versions = f"pyperscan {version('pyperscan')}"
    cat = rate(dense, lambda: seconds_of("cat", str(dense)))
    plain = rate(dense, lambda: match_all(dense, {Encoding.PLAIN}))
    every = rate(dense, lambda: match_all(dense, set(Encoding)))
    whole, memory = prove(dense)
    holes, _ = prove(sparse)
    found = [
        Row("bare matching, plain forms", "GB/s", plain, "cat", cat, "3.5", RUNS, versions),
        Row("bare matching, every form", "GB/s", every, "cat", cat, "", RUNS, versions),
        Row(
            "the whole proof, digest included", "GB/s", dense.stat().st_size / whole / 1e9, "cat", cat, "", 1, versions
        ),
        Row("the whole proof of a sparse image", "s", holes, "the dense one", whole, "at most a third", 1, versions),
        *two_processors(dense),
        Row("memory of the whole proof", "MiB", memory, bound="64", versions=versions),
    ]
    if shutil.which("rg"):
        command = ("rg", "-c", "-a", "-U", "--no-unicode", "-j1", alternation(), str(dense))
        ripgrep = rate(dense, lambda: seconds_of(*command))
        found.insert(
            1, Row("bare matching, plain forms", "GB/s", plain, "ripgrep", ripgrep, "20 times", RUNS, versions)
        )
    return found


def make_dense(path: Path) -> Path:
    """Write an image that is full of what a system holds: this machine's files, one after the other."""
    with path.open("wb") as image:
        for folder in FOLDERS:
            for file in sorted(folder.rglob("*")):
                if image.tell() >= DENSE_BYTES:
                    return path
                if file.is_file() and not file.is_symlink():
                    image.write(file.read_bytes())
    return path


def make_sparse(dense: Path, path: Path) -> Path:
    """Write an image of the same size with an eighth of the blocks."""
    with dense.open("rb") as source, path.open("wb") as image:
        image.truncate(dense.stat().st_size)
        for start in range(0, dense.stat().st_size, 8 * BLOCK):
            source.seek(start)
            image.seek(start)
            image.write(source.read(BLOCK))
        image.truncate(dense.stat().st_size)
    return path


def match_all(path: Path, encodings: set[Encoding]) -> float:
    """Return the seconds of one core that reading an image and matching it takes."""
    searcher = Searcher(PATTERNS)
    forms = tuple(
        form for form, targets in searcher.targets.items() if any(one.encoding in encodings for _, one in targets)
    )
    matcher = open_matcher(forms)
    started = time.process_time()
    with path.open("rb", buffering=0) as image:
        while block := image.read(BLOCK):
            matcher.find(block)
    return time.process_time() - started


def prove(path: Path) -> tuple[float, float]:
    """Return the seconds of one core and the MiB that the whole proof takes, in a process of its own."""
    code = (
        "import re, sys, time; from pathlib import Path; from pipeline.residue.scan import scan_image;"
        "started = time.process_time(); scan_image(Path(sys.argv[1]));"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1];"
        "print(time.process_time() - started, int(peak) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def two_processors(path: Path) -> list[Row]:
    """Return the row of the whole proof on two processors beside one, in seconds of wall clock; none without two."""
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        return []
    one, two = (statistics.median(prove_on(path, processors[:count]) for _ in range(RUNS)) for count in (1, 2))
    return [Row("the whole proof on two processors", "s", two, "on one", one, "one / 1.7", RUNS)]


def prove_on(path: Path, processors: list[int]) -> float:
    """Return the seconds of wall clock that the whole proof takes on some processors, the imports left out."""
    code = (
        "import os, sys, time; from pathlib import Path; from pipeline.residue.scan import scan_image;"
        "os.sched_setaffinity(0, map(int, sys.argv[2:]));"
        "started = time.monotonic(); scan_image(Path(sys.argv[1])); print(time.monotonic() - started)"
    )
    command = [sys.executable, "-c", code, str(path), *map(str, processors)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def rate(path: Path, run: Callable[[], float]) -> float:
    """Return the median rate of some runs, after one that warms the page cache, in GB/s."""
    run()
    return path.stat().st_size / statistics.median(run() for _ in range(RUNS)) / 1e9


def seconds_of(*command: str) -> float:
    """Return the seconds of one core that a command takes; that it finds nothing is no failure."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def alternation() -> str:
    """Return the plain forms as one expression for ripgrep."""
    plain = [
        expression_of(form).decode()
        for form, targets in Searcher(PATTERNS).targets.items()
        if any(one.encoding is Encoding.PLAIN for _, one in targets)
    ]
    return "(?-u)" + "|".join(re.sub(r"\[\\x00-\\xff\]", r"(?s:.)", expression) for expression in plain)
