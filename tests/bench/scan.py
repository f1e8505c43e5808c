"""How fast a disk is searched: `invoke bench --only scan`. On a dense image and on a sparse one, page cache warm."""

import itertools
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

from pipeline.block_digest import hash_block
from pipeline.localcloud.base_image import default_cache, make_base_image
from pipeline.residue.blocks import RawFile
from pipeline.residue.encodings import Encoding, expression_of
from pipeline.residue.engine import Searcher
from pipeline.residue.matcher import open_matcher
from pipeline.residue.patterns import PATTERNS
from tests.bench import far_blocks
from tests.bench.rows import Row

RUNS = 5
DENSE_BYTES = 2 << 30
"""As large as the stock image."""
BLOCK = 512 * 1024
AT_ONCE = 32
"""So many blocks are in memory before the clock starts."""
VERSIONS = f"pyperscan {version('pyperscan')}"
FOLDERS = (Path("/usr/lib"), Path("/usr/bin"), Path("/usr/share"))


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: bare matching, the whole proof, and the peers over the same bytes."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        dense = make_dense(Path(name) / "dense.raw")
        sparse = make_sparse(dense, Path(name) / "sparse.raw")
        clean = make_base_image("bookworm", default_cache(), print).path
        return rows(dense, sparse) + rows_of_clean(clean) + far_blocks.rows(start_local_cloud)


def rows(dense: Path, sparse: Path) -> list[Row]:
    """Return the rows for two images: one full of files, one of the same size that is mostly holes."""
    cat = rate(dense, lambda: seconds_of("cat", str(dense)))
    matching = rate(dense, lambda: match_all(dense, from_memory=True))
    reading = rate(dense, lambda: match_all(dense))
    whole, memory = prove(dense)
    holes, _ = prove(sparse)
    forms = f"{len(PATTERNS)} patterns, {len(Searcher(PATTERNS).forms)} forms"
    found = [
        Row(f"matching of blocks in memory, {forms}", "GB/s", matching, "", None, "3.5", RUNS, VERSIONS),
        Row("the same, and reading them", "GB/s", reading, "cat", cat, "0.35 times", RUNS, VERSIONS),
        Row("the whole proof of a sparse image", "s", holes, "the dense one", whole, "at most a third", 1, VERSIONS),
        *two_processors(dense),
        Row("memory of the whole proof", "MiB", memory, bound="64", versions=VERSIONS),
    ]
    if shutil.which("rg"):
        patterns = dense.with_suffix(".patterns")
        patterns.write_text(alternation(set(Encoding)) + "\n")
        command = ("rg", "-c", "-a", "-U", "--no-unicode", "-j1", "-f", str(patterns), str(dense))
        ripgrep = rate(dense, lambda: seconds_of(*command))
        found.insert(2, Row("the same beside ripgrep", "GB/s", reading, "ripgrep", ripgrep, "20 times", RUNS, VERSIONS))
    return found


def rows_of_clean(image: Path) -> list[Row]:
    """Return the rows for a clean base image, whose members are decompressed, and whose matches located, confirmed."""
    bare = statistics.median(match_all(image) for _ in range(RUNS))
    proofs = [prove(image, "prove_blocks") for _ in range(RUNS)]
    hashing = statistics.median(hash_all(image) for _ in range(RUNS))
    searching = statistics.median(seconds for seconds, _ in proofs)
    whole, memory = prove(image)
    return [
        Row(
            "a clean image: decompressed, located, confirmed", "s", searching - hashing, "matching it", bare, "2 times"
        ),
        Row("the same, with the digest of its blocks", "s", searching, "matching it", bare),
        Row("the same, and every file held against its package", "s", whole, "matching it", bare),
        Row("memory of all of that", "MiB", memory, bound="64", versions=VERSIONS),
    ]


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


def match_all(path: Path, *, from_memory: bool = False) -> float:
    """Return the seconds of one core that reading an image's blocks and matching them takes, in every form."""
    matcher = open_matcher(Searcher(PATTERNS).forms)
    with RawFile(path) as image:
        started = time.process_time()
        indices = image.indices()
        if not from_memory:
            for index in indices:
                matcher.find(image.read(index))
            return time.process_time() - started
        seconds = 0.0
        while blocks := [image.read(index) for index in itertools.islice(indices, AT_ONCE)]:
            started = time.process_time()
            for block in blocks:
                matcher.find(block)
            seconds += time.process_time() - started
        return seconds


def hash_all(path: Path) -> float:
    """Return the seconds of one core that hashing an image's blocks takes, once they are in memory."""
    seconds = 0.0
    with RawFile(path) as image:
        for index in image.indices():
            data = image.read(index)
            started = time.process_time()
            hash_block(data)
            seconds += time.process_time() - started
    return seconds


def prove(path: Path, what: str = "scan_image") -> tuple[float, float]:
    """Return the seconds of one core and the MiB that a proof takes, in a process of its own, imports left out."""
    code = (
        "import os, re, sys, time; from pathlib import Path; from pipeline.residue.scan import scan_image;"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from pipeline.residue.blocks import open_image; from pipeline.residue.proof import prove_raw;"
        "from pipeline.residue.patterns import PATTERNS;"
        "prove_blocks = lambda path: prove_raw(open_image(path), (), PATTERNS);"
        f"started = time.process_time(); {what}(Path(sys.argv[1]));"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1];"
        "print(time.process_time() - started, int(peak) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def two_processors(path: Path) -> list[Row]:
    """Return the rows of the whole proof on two processors beside one, in seconds of wall clock; none without two."""
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        return []
    runs = [[prove_on(path, processors[:count]) for count in (1, 2)] for _ in range(RUNS)]
    one, two = (statistics.median(run[place][0] for run in runs) for place in (0, 1))
    memory = max(run[1][1] for run in runs)
    return [
        Row("the whole proof on two processors", "s", two, "on one", one, "one / 1.7", RUNS),
        Row("memory of the larger of its processes", "MiB", memory, bound="64", runs=RUNS, versions=VERSIONS),
    ]


def prove_on(path: Path, processors: list[int]) -> tuple[float, float]:
    """Return the seconds of wall clock that the whole proof takes on some processors, imports left out.

    And the MiB that the largest of its processes had.
    """
    code = (
        "import os, sys, time; from pathlib import Path; from resource import *;"
        "from pipeline.residue.scan import scan_image;"
        "os.sched_setaffinity(0, map(int, sys.argv[2:]));"
        "started = time.monotonic(); scan_image(Path(sys.argv[1])); print(time.monotonic() - started);"
        "print(max(getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN)) / 1024)"
    )
    # A shell of its own starts it: Linux counts the memory of whoever is replaced by a program as that program's.
    command = ["sh", "-c", '"$@"; exit', "sh", sys.executable, "-c", code, str(path), *map(str, processors)]
    seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(memory)


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


def alternation(encodings: set[Encoding]) -> str:
    """Return the forms in some encodings as one expression for ripgrep."""
    wanted = [
        expression_of(form).decode()
        for form, targets in Searcher(PATTERNS).targets.items()
        if any(one.encoding in encodings for _, one in targets)
    ]
    return "(?-u)" + "|".join(re.sub(r"\[\\x00-\\xff\]", r"(?s:.)", expression) for expression in wanted)
