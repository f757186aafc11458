"""The error tree. A URL that cannot be fetched is not an error here: it is an outcome (see ``records``).

``exit_code`` is what the program ends with when the error reaches ``__main__``.
Anything that is not a ``DdmpiError`` and escapes is a bug: it ends all ranks with exit 1, and its traceback is on the
screen and in the log of the rank.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_SETUP = 2
EXIT_PENDING = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
EXIT_LOST = 255  # as MPICH's launcher ends where it loses ranks


class DdmpiError(Exception):
    """Root of what ddmpi raises on purpose; its text is meant for the person who runs the program."""

    exit_code = EXIT_BUG


class SetupError(DdmpiError):
    """Nothing was started: the user has to change something first."""

    exit_code = EXIT_SETUP


class ConfigError(SetupError):
    """The config has errors; the text lists all of them, one per line, with dotted path and what was expected."""


class InputError(SetupError):
    """The input table cannot be used; the text names the file."""


class OutputError(SetupError):
    """The output folder cannot be used: not writable, held by another run, or made from another input."""


class StorageError(DdmpiError):
    """Writing failed during the run (no space, quota, I/O error); what is committed stays good."""

    exit_code = EXIT_PENDING


class Interrupted(DdmpiError):  # noqa: N818  # it is no error: the user asked for it
    """A stop was asked for before the table was partitioned; the urls folder is as it was before."""

    exit_code = EXIT_PENDING


class TransitionError(Exception):
    """A state machine was told something that cannot happen in its state: a bug in ddmpi, hence no ``DdmpiError``."""
