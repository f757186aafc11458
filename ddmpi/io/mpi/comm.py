"""The ranks that work together: MPI's communicator, or one process that needs no MPI."""

from __future__ import annotations

from typing import Any, Protocol


class Ranks(Protocol):
    """What is used of a communicator."""

    def Get_rank(self) -> int: ...  # noqa: N802  # mpi4py's names
    def Get_size(self) -> int: ...  # noqa: N802
    def bcast(self, obj: Any, root: int = ...) -> Any: ...
    def allgather(self, sendobj: Any) -> list[Any]: ...
    def alltoall(self, sendobj: Any) -> list[Any]: ...
    def Abort(self, errorcode: int = ...) -> Any: ...  # noqa: N802


class Alone:
    """One process: each collective call gives back what it got."""

    def Get_rank(self) -> int:  # noqa: N802
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def bcast(self, obj: Any, root: int = 0) -> Any:  # noqa: ARG002
        return obj

    def allgather(self, sendobj: Any) -> list[Any]:
        return [sendobj]

    def alltoall(self, sendobj: Any) -> list[Any]:
        return list(sendobj)

    def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
        raise SystemExit(errorcode)
