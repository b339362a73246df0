"""What a job's exit code says, and how each error becomes one. Knows nothing of what the job does."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable

from omnigen_actor.errors import RunStopped, StartupError

OK = 0
ROWS_FAILED = 1
NOT_STARTED = 2
CRASHED = 70  # EX_SOFTWARE: Python's own 1 would look like failed rows
BROKEN_OFF = 75  # EX_TEMPFAIL
INTERRUPTED = 130  # 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM

MEANING = """\
exit codes:
  0    every row has its image, or no more than --max-failed percent have none
  1    the run finished, but more rows have no image, or the sum of the rows does not add up
  2    the run could not start: an option, the manifest, the model or the output; one line says what
  70   a crash, with its traceback
  75   the store or the cluster failed while the run went on; the same command continues
  130  interrupted; the same command continues
  143  stopped by SIGTERM; the same command continues
"""


def exit_code_of(job: Callable[[], int]) -> int:
    """Run ``job`` and return its exit code, or that of the error it raised."""
    try:
        return job()
    except StartupError as error:
        say("error: " + " ".join(str(error).split()))
        return NOT_STARTED
    except RunStopped as error:
        say("stopped: " + " ".join(str(error).split()))
        return BROKEN_OFF
    except KeyboardInterrupt:
        say("interrupted: the same command continues where this run stopped")
        return INTERRUPTED
    except SystemExit as left:
        if left.code != signal.SIGTERM:
            raise
        say("stopped by SIGTERM: run the same command to go on")  # while Ray starts, its own handler raises this
        return TERMINATED
    except Exception:
        traceback.print_exc()
        return CRASHED


def say(text: str) -> None:
    """One message for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print, whatever the terminal can show: an odd character in a name must not crash a finished job."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
