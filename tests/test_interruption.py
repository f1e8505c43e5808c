import os
import signal
import threading
from contextlib import suppress

import pytest

from pipeline.errors import Interrupted
from pipeline.interruption import interruptible, uninterrupted


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_by_name(number):
    with pytest.raises(Interrupted, match=number.name), interruptible():
        send(number)


def test_a_second_signal_is_explained_and_does_not_stop_the_clean_up(capfd):
    cleaned = []
    with pytest.raises(Interrupted), interruptible():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            cleaned.append("group")
    assert cleaned == ["group"]
    assert "still cleaning up" in capfd.readouterr().err


def test_a_signal_during_an_undo_is_explained(capfd):
    with interruptible(), uninterrupted():
        send(signal.SIGTERM)
    assert "still cleaning up" in capfd.readouterr().err


def test_an_interruption_that_was_swallowed_comes_up_at_the_end():
    with pytest.raises(Interrupted), interruptible(), suppress(Exception):
        send(signal.SIGINT)


def test_the_earlier_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_it_does_nothing():
    seen = []

    def work():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
