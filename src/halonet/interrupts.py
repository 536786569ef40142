"""SIGINT, SIGTERM and SIGHUP as one exception, which a training run postpones until its state is saved."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# torchrun forwards a Ctrl-C that the terminal sends to its processes as well; a person's second one comes later.
_ECHO_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
        number: The signal's number.
        status: The exit status that a shell would report, 128 + number.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number
        self.status = 128 + number


class Interrupts:
    """The handlers of the three signals in the process that created them.

    The first signal raises `Interrupted` in the main thread, or is only recorded while `postponed` is true. Later ones
    are ignored, except that a second Ctrl-C ends the process at once. A signal that the process was started to ignore
    (nohup, a background job) stays ignored.

    Attributes:
        number: The first signal's number, or None.
        since: When the first signal came, by `time.monotonic`.
        postponed: Whether signals are only recorded.
        last_words: Returns the end of the line that a second Ctrl-C prints.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.postponed = False
        self.last_words: Callable[[], str] = str
        self._process = os.getpid()
        self._pressed: float | None = None
        self._replaced: dict[int, Any] = {}

    def install(self) -> None:
        """Install the handlers, replacing any that a library has installed meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if number not in self._replaced:
                if handler is signal.SIG_IGN:
                    continue
                self._replaced[number] = signal.SIG_DFL if handler is None else handler
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced.clear()

    def belongs_here(self) -> bool:
        """Whether this process created it, and not a parent that this one was forked from."""
        return self._process == os.getpid()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.belongs_here():  # a forked data loader worker: the main process ends it
            return
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._pressed is not None and now - self._pressed > (_ECHO_SECONDS if _is_launched() else 0):
                self._end_at_once()
            self._pressed = self._pressed or now
        if self.number is not None:
            return
        self.number, self.since = number, now
        if number != signal.SIGINT:
            _leave_dead_terminal()
        if not self.postponed:
            raise Interrupted(f"interrupted by {name_of(number)}", number)

    def _end_at_once(self) -> None:
        with suppress(Exception):  # the signal may have come within a write to the same stream
            sys.stdout.flush()
        line = "\n" if os.isatty(2) else ""  # a progress bar may occupy the line
        words = self.last_words()
        line += "halonet: ended at once by a second Ctrl-C" + (f": {words}" if words else "") + "\n"
        with suppress(OSError):
            os.write(2, line.encode(errors="backslashreplace"))
        os._exit(128 + signal.SIGINT)


_active: Interrupts | None = None


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Handle the three signals while the body runs; a nested call shares the outer handlers."""
    global _active
    if _active is not None and _active.belongs_here():
        yield _active
        return
    _active = interrupts = Interrupts()
    interrupts.install()
    try:
        yield interrupts
    finally:
        _active = None
        interrupts.restore()


def name_of(number: int) -> str:
    """The name by which users know a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def shield_worker(worker_id: int) -> None:
    """Let a data loader worker end with its parent, not by a signal that was sent to both.

    For `DataLoader(worker_init_fn=...)`; `worker_id` is ignored. The parent still needs images for the step in
    progress, and would report the death of a worker as an error.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    """End when the parent sends SIGTERM, as multiprocessing does to a worker that is slow to end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _leave_dead_terminal() -> None:
    """Discard what is printed once the terminal is gone: writing to it would be an error."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
