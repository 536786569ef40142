import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from halonet.interrupts import Interrupted, interruptible

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "SIGHUP", 129)],
)
def test_signal_raises_and_handler_is_restored(number, name, status):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"interrupted by {name}") as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.status == status
    assert signal.getsignal(number) == before


def test_postponed_signal_is_recorded_once():
    with interruptible() as interrupts:
        interrupts.postponed = True
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert interrupts.number == signal.SIGTERM


def test_nested_bodies_share_handlers():
    with interruptible() as outer:
        with interruptible() as inner:
            assert inner is outer
        inner.postponed = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert outer.number == signal.SIGTERM


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_install_replaces_a_library_handler():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible() as interrupts:
        interrupts.postponed = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupts.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def run(program: str, **changes: str) -> subprocess.CompletedProcess:
    """Run a program that imports the module alone: the package takes seconds."""
    path = Path(sys.modules[interruptible.__module__].__file__)
    begin = f"import os, signal, sys; sys.path.insert(0, {str(path.parent)!r}); from interrupts import interruptible\n"
    environment = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"} | changes
    return subprocess.run([sys.executable, "-c", begin + program], capture_output=True, text=True, env=environment)


TWICE = """
with interruptible() as interrupts:
    interrupts.postponed = True
    interrupts.last_words = lambda: "all is saved"
    os.kill(os.getpid(), signal.SIGINT)
    print("printed")
    os.kill(os.getpid(), signal.SIGINT)
    print("still there")
"""


def test_second_ctrl_c_ends_the_process_at_once():
    done = run(TWICE)
    assert done.returncode == 130
    assert done.stdout == "printed\n"
    assert done.stderr == "halonet: ended at once by a second Ctrl-C: all is saved\n"


def test_forwarded_ctrl_c_does_not_count_twice():
    assert run(TWICE, TORCHELASTIC_RUN_ID="1").stdout == "printed\nstill there\n"


def test_forked_process_leaves_signals_to_its_parent():
    program = """
with interruptible():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    print(os.waitpid(child, 0)[1] >> 8)
"""
    assert run(program).stdout == "7\n"


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not say who sent a signal")
def test_worker_survives_signals_except_its_parents():
    program = """
from interrupts import shield_worker
read, write = os.pipe()
child = os.fork()
if child == 0:
    wait = signal.sigwaitinfo
    signal.sigwaitinfo = lambda signals: os.write(write, b"w") and wait(signals)
    shield_worker(0)
    signal.pause()
os.close(write)
print(os.read(read, 1))
for number in ("INT", "HUP", "TERM"):  # from another process
    os.system(f"kill -{number} {child}")
print(os.read(read, 1))  # it waits again
os.kill(child, signal.SIGTERM)
print(os.read(read, 1))  # it has ended
os.kill(child, signal.SIGKILL)
"""
    assert run(program).stdout == "b'w'\nb'w'\nb''\n"
