"""Errors that users see: one line of what is wrong, where, and the remedy. Imports nothing slow."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from mgs.interrupts import ended_by, interrupt
from mgs.safe_text import one_line, printable

USER_ERROR_EXIT = 2
SIGNALLED = 128  # plus the signal's number: the shell's convention
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EFBIG)
# messages of torch, and of the CUDA libraries, whose first call fails like this when the memory is full
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED")


class UserError(Exception):
    """A mistake that the user can fix: one line of what is wrong, where, and the remedy; shown without traceback.

    The text may quote untrusted input, of any length and with line breaks: it is shortened to one line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def exit_on_user_error(main: Callable[..., None], *args: Any) -> None:
    """Run a command's `main`. What a user can fix gives one line on stderr and exit code 2; a bug gives a traceback.

    Ctrl-C and SIGTERM end it with a line too, and with the shell's exit codes for them, 130 and 143.
    """
    set_up_process()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a prompt may hold letters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(*args)
    except BrokenPipeError:  # whoever read our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SIGNALLED + signal.SIGPIPE)
    except SystemExit:
        if ended_by:  # typer exits with 130 for every signal
            sys.exit(SIGNALLED + ended_by[0])
        raise
    except KeyboardInterrupt as error:
        print(printable(str(error)) or "interrupted", file=sys.stderr)
        sys.exit(SIGNALLED + getattr(error, "number", signal.SIGINT))
    except Exception as error:
        reason = explain_failure(error)
        if reason is None:
            raise
        print(f"error: {printable(reason)}", file=sys.stderr)
        sys.exit(USER_ERROR_EXIT)


def set_up_process() -> None:
    """Make a process of our own end by SIGTERM as by Ctrl-C, and print no warnings and errors that say nothing new."""
    signal.signal(signal.SIGTERM, interrupt)
    threading.excepthook = leave_system_errors
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")  # at half our own limit


def leave_system_errors(failure: threading.ExceptHookArgs) -> None:
    """Print the error that ended a thread, except system errors: TensorBoard raises those again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def explain_failure(error: Exception) -> str | None:
    """What went wrong and the remedy, if users caused it or can fix it; None for our own bugs."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and (error.filename or error.errno in OF_THE_MACHINE):
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{place}{error.strerror}; check the folder, its permissions and the disk"
    if is_out_of_memory(error):
        remedy = "lower train.batch_size (in scoring --batch-size), or close what else uses the memory"
        return f"out of memory ({text[:200]}); {remedy}"
    if isinstance(error, RuntimeError) and re.search("CUDA error|CUDNN_STATUS|CUBLAS_STATUS", text):
        return f"the GPU failed ({text[:200]}); look at nvidia-smi, and start again"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory, or the machine's, was too small."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))
    )
