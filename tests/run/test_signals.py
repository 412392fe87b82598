"""Stop signals: the first is a flag that is answered at once, a second one interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smz_jax.run import signals
from smz_jax.run.signals import StopSignal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_is_a_flag_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.is_handling and not stop and stop.number is None
        os.kill(os.getpid(), number)
        assert stop and stop.number == number
    assert signal.getsignal(number) is before and signal.set_wakeup_fd(-1) == -1


def test_a_second_one_soon_after_is_the_same():
    with StopSignal() as stop:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.number == signal.SIGINT


def test_a_second_one_later_interrupts(monkeypatch):
    monkeypatch.setattr(signals, "SAME_PRESS_SECONDS", 0.05)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGINT


def test_it_is_answered_once():
    answers = []
    with StopSignal(lambda: answers.append(time.monotonic())):
        start = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        while not answers and time.monotonic() < start + 30:
            time.sleep(0.01)
        time.sleep(2 * signals.POLL_SECONDS)
    assert len(answers) == 1


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nothing_is_changed():
    seen = []

    def work():
        with StopSignal() as stop:
            seen.append((stop.is_handling, bool(stop)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, False)] and signal.getsignal(signal.SIGINT) is before


BUSY = """
import hashlib, os, time
from smz_jax.run.signals import StopSignal
answered = []
with StopSignal(lambda: answered.append(time.monotonic())) as stop:
    print("ready", flush=True)
    began = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)  # no Python in between, as a compilation
    end = time.monotonic()
print(stop.number, (end - answered[0]) / (end - began))
"""


def test_the_answer_does_not_wait_for_a_compilation():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        number, left = process.communicate(timeout=60)[0].split()
    # A part of the computation was still to come when the answer was given; an answer that waits
    # for it comes a hundred-thousandth of it before its end at most.
    assert int(number) == signal.SIGINT and float(left) > 0.05


def test_a_library_that_takes_the_descriptor_loses_no_signal(monkeypatch):
    monkeypatch.setattr(signals, "SAME_PRESS_SECONDS", 0.05)
    with StopSignal() as stop:
        signal.set_wakeup_fd(-1)  # as the end of asyncio's handlers
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.args == (signal.SIGTERM,)
