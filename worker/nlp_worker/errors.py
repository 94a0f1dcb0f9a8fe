"""Every error of the worker, and its one fate.

WorkerError
├── RequestError    answered with its code and committed; the worker goes on
│   ├── InvalidRequestError · UnknownModelError · InputTooLongError · ResultTooLargeError
│   └── OutOfMemoryError · InferenceFailedError · DeadlineExceededError · QuarantinedError
└── FatalError      the process exits with its code and commits nothing more
    ├── SettingsError · BrokerError · TopicError · CheckpointError
    └── DeviceLostError · PublishError · FencedError · FailuresError

Nothing lies between the two: an error that is neither is a bug, and ends the process with Python's own exit code 1.
A class's docstring is its default message; a message says what was wrong, where, and what would be right.
"""

from enum import IntEnum
from typing import ClassVar, Self

from nlp_schemas import MAX_MESSAGE_CHARACTERS, ErrorCode


class ExitCode(IntEnum):
    """How the process ends, for the operator's restart policy."""

    DRAINED = 0
    """Asked to stop, everything in flight published and committed or given up uncommitted."""
    USAGE = 2
    """The settings cannot be used."""
    BROKER = 3
    """The broker cannot be reached, or refused us."""
    TOPICS = 4
    """A topic or the group is missing or not allowed."""
    CHECKPOINT = 5
    """A checkpoint cannot be loaded."""
    DEVICE_LOST = 6
    """The device is in an error state that only a new process clears."""
    PUBLISH = 7
    """Answers cannot be published."""
    FENCED = 8
    """Another instance took this one's place."""
    FAILURES = 9
    """Too many requests failed in a row."""
    STUCK = 10
    """Nothing moved although there was work."""


class WorkerError(Exception):
    """Something went wrong in the worker."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class RequestError(WorkerError):
    """The request cannot be answered with outputs."""

    code: ClassVar[ErrorCode]


class InvalidRequestError(RequestError):
    """The record cannot be read, or does not fit the schema of its task."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, message: str = "", *, request_id: str | None = None) -> None:
        super().__init__(message)
        #: The id, where the value was JSON with a valid one: the answer echoes it.
        self.request_id = request_id


class UnknownModelError(RequestError):
    """No checkpoint of that name is served for the task."""

    code = ErrorCode.UNKNOWN_MODEL


class InputTooLongError(RequestError):
    """The inputs have more tokens than the model reads."""

    code = ErrorCode.INPUT_TOO_LONG


class ResultTooLargeError(RequestError):
    """The answer is larger than the results topic accepts."""

    code = ErrorCode.RESULT_TOO_LARGE


class OutOfMemoryError(RequestError):
    """The request does not fit the device's memory, even alone."""

    code = ErrorCode.OUT_OF_MEMORY


class InferenceFailedError(RequestError):
    """The model raised, or returned what cannot be an answer."""

    code = ErrorCode.INFERENCE_FAILED

    @classmethod
    def caused_by(cls, error: BaseException, where: str) -> Self:
        """Return the failure that `error`, raised in `where`, is answered with."""
        try:
            said = str(error)[:MAX_MESSAGE_CHARACTERS]
        except Exception:  # noqa: BLE001 - of its __str__, which a class may write as it likes
            said = "its message cannot be read"
        failure = cls(f"{where} raised {type(error).__name__}: {said}")
        # A traceback holds its frames, and these may hold the device's tensors.
        failure.__cause__ = error.with_traceback(None)
        return failure


class DeadlineExceededError(RequestError):
    """The request was too old before it was computed."""

    code = ErrorCode.DEADLINE_EXCEEDED


class QuarantinedError(RequestError):
    """The request brought the worker's process down more than once."""

    code = ErrorCode.QUARANTINED


class FatalError(WorkerError):
    """The worker cannot go on."""

    exit_code: ClassVar[ExitCode]


class SettingsError(FatalError):
    """The settings cannot be used."""

    exit_code = ExitCode.USAGE


class BrokerError(FatalError):
    """The broker cannot be reached, or refused us."""

    exit_code = ExitCode.BROKER


class TopicError(FatalError):
    """A topic or the group is missing or not allowed."""

    exit_code = ExitCode.TOPICS


class CheckpointError(FatalError):
    """A checkpoint cannot be loaded."""

    exit_code = ExitCode.CHECKPOINT


class DeviceLostError(FatalError):
    """The device is in an error state that only a new process clears."""

    exit_code = ExitCode.DEVICE_LOST


class PublishError(FatalError):
    """Answers or dead letters cannot be published."""

    exit_code = ExitCode.PUBLISH


class FencedError(FatalError):
    """Another member of the group has this one's instance id: give each worker its own."""

    exit_code = ExitCode.FENCED


class FailuresError(FatalError):
    """Too many requests failed in a row."""

    exit_code = ExitCode.FAILURES
