"""Logs: structlog to stderr, JSON for machines, a console form on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from streamer.config import LoggingConfig


def configure_logging(config: LoggingConfig) -> None:
    """Sets up logging of the process; libraries' warnings go the same way."""
    json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # The client logs each retry of a lost connection as an error; the services say once what is down.
    logging.getLogger("kafka").setLevel(logging.INFO if config.level == "debug" else logging.CRITICAL)
