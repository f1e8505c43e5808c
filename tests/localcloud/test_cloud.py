"""What the cloud does behind its answers."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pipeline.localcloud.cloud import Cloud

SECONDS = 60.0


def test_who_waits_for_the_background_waits_for_work_that_only_begins(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, cast(Any, SimpleNamespace()))
    done, problems = threading.Event(), list[RuntimeError]()

    def wait_again_and_again() -> None:
        try:
            while not done.is_set():
                cloud.wait_idle(SECONDS)
        except RuntimeError as problem:
            problems.append(problem)

    waiting = [threading.Thread(target=wait_again_and_again) for _ in range(3)]
    for thread in waiting:
        thread.start()
    began: list[int] = []
    for _ in range(300):
        cloud.later(lambda: began.append(1))
    done.set()
    for thread in waiting:
        thread.join(SECONDS)
    cloud.wait_idle(SECONDS)
    assert (len(began), problems) == (300, [])
