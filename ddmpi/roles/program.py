"""A run under MPI: what each rank does between its start and its one exit code.

Rank 0's part is in ``roles.rank0``: what that needs takes its time to load, and the other ranks do without.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping

import msgspec
from mpi4py import MPI

from ddmpi.config.config import Config
from ddmpi.config.secrets import Variables
from ddmpi.core.protocol import Begin
from ddmpi.core.records import Orders
from ddmpi.errors import EXIT_PENDING
from ddmpi.io.folder.layout import configured_layout
from ddmpi.io.folder.rank_log import log_to_file
from ddmpi.io.mpi.mailbox import Mailbox, cores_of_downloaders
from ddmpi.io.process import keep_freed, share_of_cores
from ddmpi.io.urls.address_table import located
from ddmpi.roles.downloader.build import check_libraries, make_downloader
from ddmpi.roles.downloader.downloader import Downloader
from ddmpi.roles.loop import Loop, leave
from ddmpi.roles.signals import Signals

log = logging.getLogger(__name__)


def run(
    comm: MPI.Intracomm,
    read_config: Callable[[], Config],
    orders: Orders,
    environment: Mapping[str, str],
    signals: Signals,
) -> int:
    """Run this rank to its end; gives the exit code, the same on all ranks. ``read_config`` is called on rank 0. Raises
    SetupError: on all ranks alike (a library is too old)."""
    check_libraries()
    keep_freed()
    mailbox = Mailbox(comm)
    make_downloader = _downloader_maker(mailbox, share_of_cores(os.sched_getaffinity(0), cores_of_downloaders(comm)))
    if mailbox.rank == 0:
        from ddmpi.roles.rank0 import Rank0  # noqa: PLC0415  # see the module's docstring

        _keep_what_is_loaded()
        ending = Rank0(mailbox, signals, read_config, orders, environment, make_downloader).run()
    else:
        _keep_what_is_loaded()
        ending = Loop(mailbox, signals, make_downloader).run()
    if not leave(mailbox, signals):
        sys.stderr.flush()
        comm.Abort(ending.code or EXIT_PENDING)
    mailbox.close()
    return ending.code


def _keep_what_is_loaded() -> None:
    """The collector would walk over all that the imports have made for each few rows that are buffered."""
    gc.freeze()
    gc.enable()


def _downloader_maker(mailbox: Mailbox, cores: int) -> Callable[[Begin], Downloader]:
    def make(begin: Begin) -> Downloader:
        config = Config.model_validate_json(begin.config)
        layout = configured_layout(config)
        log_to_file(layout, mailbox.rank, config.logging)
        log.info("rank %d of %d on %s, pid %d", mailbox.rank, mailbox.size, os.uname().nodename, os.getpid())
        return make_downloader(
            located(config, layout),
            layout,
            Variables(msgspec.json.decode(begin.variables, type=dict[str, str])),
            epoch=begin.epoch,
            rank=mailbox.rank,
            cores=cores,
            send=lambda message: mailbox.send(0, message),
            report_interval_s=begin.report_interval_s,
            ran_s=begin.ran_s,
            now=time.monotonic(),
        )

    return make
