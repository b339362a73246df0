"""Every error that this project raises on purpose. Knows nothing of where they are caught.

OmniGenBatchError
├── StartupError            the run cannot start: exit code 2 and one line
│   ├── ConfigError         an option or a configuration file
│   ├── ManifestError       the manifest as a whole
│   ├── ModelError          the checkpoint
│   └── OutputError         the run store
├── RunStopped              a run that began cannot go on: exit code 75 and one line; the same command continues
├── RowError                one row cannot become an image: a record, never a crash
└── EngineLost              an engine whose process can do nothing more: the actor leaves it
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where a row failed."""

    CHECK = "check"
    FETCH = "fetch"
    GENERATE = "generate"
    WRITE = "write"


class ErrorKind(StrEnum):
    """Why a row failed. A closed list: users group, filter and retry by it."""

    # check: the row itself
    BAD_ROW = "bad_row"
    BAD_ID = "bad_id"
    UNKNOWN_TASK = "unknown_task"
    BAD_INSTRUCTION = "bad_instruction"
    BAD_PLACEHOLDERS = "bad_placeholders"
    BAD_IMAGE_COUNT = "bad_image_count"
    BAD_URI = "bad_uri"
    BAD_SIZE = "bad_size"
    BAD_PARAMETER = "bad_parameter"
    REFUSED = "refused"  # an image that it may not name; what only a connection shows, at the fetch
    # fetch: its input images
    NOT_FOUND = "not_found"
    FETCH_FAILED = "fetch_failed"
    PARENT_FAILED = "parent_failed"  # a row that it refers to has no image: its record is skipped
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED_IMAGE = "truncated_image"
    IMAGE_TOO_LARGE = "image_too_large"
    # generate: the engine
    PROMPT_TOO_LONG = "prompt_too_long"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    ENGINE_FAILED = "engine_failed"
    POISON = "poison"  # its worker died each time that it ran alone
    # write: the run store
    WRITE_FAILED = "write_failed"
    IMAGE_LOST = "image_lost"  # it was there once: the next run makes it again


class OmniGenBatchError(Exception):
    """Base of all errors of this project."""


class StartupError(OmniGenBatchError, ValueError):
    """The run cannot start. The message is one line that names the value and the remedy."""


class ConfigError(StartupError):
    """An option or a configuration file is wrong."""


class ManifestError(StartupError):
    """The manifest as a whole is unusable."""


class ModelError(StartupError):
    """The checkpoint is missing, incomplete or of another kind."""


class OutputError(StartupError):
    """The run store can't be written, or belongs to another run."""


class RunStopped(OmniGenBatchError, RuntimeError):  # noqa: N818
    """A run that began cannot go on. What it has recorded stays; the same command continues."""


class RowError(OmniGenBatchError, ValueError):
    """One row cannot become an image."""

    def __init__(self, kind: ErrorKind, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage = stage
        self.message = message

    def __reduce__(self) -> tuple[type[RowError], tuple[ErrorKind, Stage, str]]:
        """Exceptions pickle by their args, which hold the message alone."""
        return (RowError, (self.kind, self.stage, self.message))


class EngineLost(OmniGenBatchError):  # noqa: N818
    """The device, or this process, is in a state in which no further row can run: only a new process helps."""


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
