"""structlog: one event per batch, commit, rebalance and failure, as JSON or as lines for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

#: Libraries whose every closed connection is three lines of ERROR; the worker logs what follows from it.
NOISY: Final = ("kafka", "transformers", "huggingface_hub", "httpx", "asyncio")

#: What they warn of is in a producer's headers: any producer could fill the log.
PRODUCERS_NOISE: Final = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")


def configure(*, level: str, log_format: str, **bound: str) -> None:
    """Set up logging on standard error, with ``bound`` (worker id, group) in every event."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    # Its own tracebacks show the values of local variables, and with them passwords and texts.
    console_renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Processor = console_renderer if console else structlog.processors.JSONRenderer()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*(shared[:3] if console else shared), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    for name in PRODUCERS_NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
    _take_over_standard_logging(shared, renderer, number)


def _take_over_standard_logging(shared: list[Processor], renderer: Processor, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    if level > logging.DEBUG:
        # Not by the loggers' level: connection.py reads in their records why the broker cannot be reached.
        handler.addFilter(lambda record: record.name.partition(".")[0] not in NOISY)
    root = logging.getLogger()
    root.handlers = [handler]
    # Never below: at debug the client logs the bytes that it sends, and with them the password.
    root.setLevel(max(level, logging.INFO))
