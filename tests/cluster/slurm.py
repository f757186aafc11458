"""A Slurm of two nodes on this machine, for the length of a test.

Debian's munge and slurm-wlm, run by whoever runs the test, with all files in one folder: nothing of the machine's own
configuration is read or changed, and everything listens where only this folder's slurm.conf says. The daemons are
children of this process and are ended by their pids, after the last job has ended.

Facts of this Slurm (22.05) that shape the file: two slurmd on one machine need ``-N``, a port each and the machine's
host name as NodeHostname; ``config_overrides`` lets them have more CPUs than there are; the time limit is looked at
every 30 s or so, and a job's warning signal may come up to 60 s early.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.cluster.processes import kill_all_on

NODES = ("n1", "n2")
CPUS_PER_NODE = 4
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 30.0
HASTENED_S = 3
_POLL_INTERVAL_S = 0.1
_PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo", "scancel")
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian keeps daemons; not on every user's PATH."""


class ClusterError(Exception):
    """The cluster or one of its commands did not do what it should; the text holds what was printed."""


@dataclass(frozen=True)
class JobEnd:
    """How a batch job ended."""

    state: str
    """As Slurm names it: COMPLETED, FAILED, TIMEOUT."""
    exit_code: int
    signal: int
    run_time_s: int


class Cluster:
    """A cluster that takes jobs.

    Args:
        environment: what Slurm's commands need to find this cluster.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, script: Path, *arguments: str, folder: Path, options: Sequence[str] = ()) -> str:
        """``sbatch OPTIONS SCRIPT ARGUMENTS`` in a folder; the job's id. Raises ClusterError."""
        output = self.folder / "job-%j.log"
        command = ["sbatch", "--parsable", f"--output={output}", *options, str(script), *arguments]
        return self.call(*command, folder=folder).strip()

    def state(self, job_id: str) -> str:
        """The job's state, as Slurm names it."""
        return self._fields(job_id)["JobState"]

    def restarts(self, job_id: str) -> int:
        """How often the job was requeued."""
        return int(self._fields(job_id)["Restarts"])

    def hasten(self, job_id: str) -> None:
        """Start a requeued job soon: Slurm lets it wait for two minutes.

        Not in the second in which its former life was ended: a node counts the time of credentials in seconds, takes
        the new one for that of the job that it has just killed, and Slurm ends the job with exit code 1.
        """
        fields = self._fields(job_id)
        begins = fields["EligibleTime"]
        if (fields["JobState"], fields["Reason"]) != ("PENDING", "BeginTime") or begins == "Unknown":
            return
        wait_s = datetime.fromisoformat(begins).timestamp() - time.time()
        if wait_s > 2 * HASTENED_S:
            self.call("scontrol", "update", f"JobId={job_id}", f"StartTime=now+{HASTENED_S}")

    def start_node(self, name: str) -> None:
        """Start a node's daemon; it takes jobs once the controller has heard of it."""
        process = _start(self, "slurmd", "-D", "-N", name, "-f", self.environment["SLURM_CONF"])
        self._nodes[name] = process

    def kill_node(self, name: str, job_id: str) -> None:
        """SIGKILL the node's daemon and everything that it has running of a job."""
        self._nodes[name].kill()
        self._nodes.pop(name).wait()
        kill_all_on(name, job_id)

    def end_nodes(self) -> None:
        """End the nodes' daemons."""
        for process in self._nodes.values():
            _end(process)

    def wait(self, job_id: str, timeout_s: float) -> JobEnd:
        """Wait for the end of a job. Raises ClusterError where it does not come."""
        active = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
        wait_for(
            lambda: self.state(job_id) not in active,
            timeout_s,
            lambda: f"job {job_id} did not end: {self._fields(job_id)}\n{self.printed(job_id)}",
        )
        fields = self._fields(job_id)
        code, _, number = fields["ExitCode"].partition(":")
        hours, minutes, seconds = (int(part) for part in fields["RunTime"].split(":"))
        return JobEnd(fields["JobState"], int(code), int(number), hours * 3600 + minutes * 60 + seconds)

    def printed(self, job_id: str) -> str:
        """What the job has printed so far."""
        path = self.folder / f"job-{job_id}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def call(self, *command: str, folder: Path | None = None) -> str:
        """Run one of Slurm's commands; what it printed. Raises ClusterError."""
        result = subprocess.run(
            command,
            cwd=folder or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if result.returncode:
            raise ClusterError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}{result.stdout}")
        return result.stdout

    def idle_nodes(self) -> int:
        """How many nodes could take a job now."""
        return self.call("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").count("\n")

    def cancel_all(self) -> None:
        """End all jobs, whose processes would otherwise outlive the daemons. Raises ClusterError."""
        self.call("scancel", "--user", _user())
        wait_for(
            lambda: not self.call("squeue", "--noheader").strip(),
            STOP_TIMEOUT_S,
            lambda: f"jobs did not end:\n{self.call('squeue')}",
        )

    def _fields(self, job_id: str) -> dict[str, str]:
        text = self.call("scontrol", "--oneliner", "show", "job", job_id)
        return dict(field.partition("=")[::2] for field in text.split() if "=" in field)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster with all its files in ``folder`` (made if missing), and end it in the end.

    Raises ClusterError where a program is missing or a daemon does not start.
    """
    environment = dict(os.environ)
    environment["PATH"] = f"{environment.get('PATH', os.defpath)}:{_SYSTEM_PATH}"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=environment["PATH"]) is None]
    if missing:
        raise ClusterError(f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    configuration = folder / "slurm.conf"
    configuration.write_text(_slurm_conf(folder))
    environment["SLURM_CONF"] = str(configuration)
    # Also where the machine's name has another address, ranks of different nodes meet on loopback.
    environment.update(HYDRA_IFACE="lo", FI_TCP_IFACE="lo", UCX_NET_DEVICES="lo")
    cluster = Cluster(folder, environment)
    with ExitStack() as daemons:
        _start_munge(daemons, cluster)
        daemons.enter_context(_daemon(cluster, "slurmctld", "-D", "-i", "-f", str(configuration)))
        daemons.callback(cluster.end_nodes)
        for node in NODES:
            cluster.start_node(node)
        wait_for(
            lambda: _answers(cluster) and cluster.idle_nodes() == len(NODES),
            START_TIMEOUT_S,
            lambda: f"the cluster did not become idle:\n{_logs(folder)}",
        )
        try:
            yield cluster
        finally:
            cluster.cancel_all()


def _start_munge(daemons: ExitStack, cluster: Cluster) -> None:
    folder = cluster.folder
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    sock = folder / "munge.socket"
    paths = [f"--{name}={folder / f'munged.{suffix}'}" for name, suffix in (("pid-file", "pid"), ("seed-file", "seed"))]
    # Force: munged dislikes a socket in a private folder, but here all users of it are one.
    daemons.enter_context(
        _daemon(cluster, "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={sock}", *paths)
    )
    wait_for(sock.exists, START_TIMEOUT_S, lambda: f"munged did not start:\n{_logs(folder)}")


@contextmanager
def _daemon(cluster: Cluster, *command: str) -> Iterator[None]:
    """A daemon in the foreground: a child that is ended by its pid."""
    process = _start(cluster, *command)
    try:
        yield
    finally:
        _end(process)


def _start(cluster: Cluster, *command: str) -> subprocess.Popen[bytes]:
    with (cluster.folder / "daemons.out").open("ab") as printed:
        return subprocess.Popen(
            command, cwd=cluster.folder, env=cluster.environment, stdout=printed, stderr=subprocess.STDOUT
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _slurm_conf(folder: Path) -> str:
    host = socket.gethostname().partition(".")[0]
    controller_port, *node_ports = _free_ports(1 + len(NODES))
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS_PER_NODE} State=UNKNOWN"
        for node, port in zip(NODES, node_ports, strict=True)
    ]
    return "\n".join(
        [
            "ClusterName=ddmpi",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller_port}",
            f"SlurmUser={_user()}",
            f"SlurmdUser={_user()}",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"AuthInfo=socket={folder}/munge.socket",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool.%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={folder}/slurmctld.log",
            f"SlurmdLogFile={folder}/slurmd.%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SlurmdParameters=config_overrides",
            "MpiDefault=pmi2",
            "ReturnToService=2",
            "KillWait=5",
            "SlurmdTimeout=10",
            *nodes,
            f"PartitionName=all Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES:4",
            "",
        ]
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in opened]


def _answers(cluster: Cluster) -> bool:
    try:
        cluster.idle_nodes()
    except ClusterError:
        return False
    return True


def wait_for(condition: Callable[[], bool], timeout_s: float, message: Callable[[], str]) -> None:
    """Poll until ``condition`` holds. Raises ClusterError: it does not in time, with ``message``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(message())
        time.sleep(_POLL_INTERVAL_S)


def _logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in _log_files(folder))


def _log_files(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("*.log")), folder / "daemons.out"]


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
