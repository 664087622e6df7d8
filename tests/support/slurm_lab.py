"""A real Slurm cluster on this one machine, for tests: nodes on loopback, no systemd, no accounting database.

    python tests/support/slurm_lab.py install            # Debian's packages, needs root
    python tests/support/slurm_lab.py start --nodes 3    # nodes n1..n3 with one core each, n3 with a fake GPU
    python tests/support/slurm_lab.py status
    python tests/support/slurm_lab.py node-down n2       # and node-up n2
    python tests/support/slurm_lab.py stop

It needs only the standard library, so that it also runs before the project's environment exists. Everything it
writes lies in one folder, except the links /etc/slurm/{slurm,gres}.conf, which it makes only where no real file is:
Snakemake's job steps drop the variable SLURM_CONF, so the default place must lead to the lab's configuration too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
LINKED_FOLDER = Path("/etc/slurm")
LINKED_FILES = ("slurm.conf", "gres.conf")
DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "ensembleflow-slurm-lab"
# Daemons and job steps of a lab carry this variable, which tells them from those of a real cluster.
MARK = "ENSEMBLEFLOW_SLURM_LAB"
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])

_SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
TaskProlog={folder}/etc/task_prolog.sh
# No cgroups: they need a systemd or privileges that a container lacks.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/finished_jobs.txt
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# The nodes are virtual: believe this file, not the hardware.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
# Slurm looks at its nodes three times as often; a look may purge the script of a job that is just being launched.
SlurmdTimeout=300
MessageTimeout=10
KillWait=30
# Finished jobs stay in squeue and scontrol for the length of a test session.
MinJobAge=3600
# Jobs in the spare partitions make way for those in the default one: they are requeued, cancelled, or first warned.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=120 DefaultTime=10 State=UP
PartitionName=all Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=spare_requeue PriorityTier=1 PreemptMode=REQUEUE
PartitionName=spare_cancel PriorityTier=1 PreemptMode=CANCEL
PartitionName=spare_grace PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
"""

_TASK_PROLOG = """\
#!/bin/sh
echo "$SLURM_JOB_ID $SLURM_STEP_ID $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES-unset}}" >>{folder}/log/tasks.txt
"""


class SlurmLabError(Exception):
    """The lab cannot be installed, started or asked."""


@dataclass(frozen=True)
class Job:
    """What Slurm's controller knows of one job.

    `rule` is the Snakemake rule (empty for other jobs), `name` the ID of the Snakemake run; `gpus` counts the GPUs
    that Slurm handed out, not those that were asked for.
    """

    id: int
    name: str
    rule: str
    state: str
    nodes: tuple[str, ...]
    cpus: int
    gpus: int
    comment: str
    fields: dict[str, str]


@dataclass(frozen=True)
class Task:
    """What Slurm put into the environment of one started task; `cuda_visible_devices` is None where it is unset."""

    job: int
    step: str
    node: str
    cuda_visible_devices: str | None


class SlurmLab:
    """A Slurm controller and `n_nodes` nodes n1, n2, … on loopback; the last one has `n_gpus` fake GPUs.

    As a context manager it starts the cluster and stops it, leaving neither processes nor links behind.

    Args:
        folder: where configuration, logs and state go; a short path (a socket's is at most 107 bytes).
        n_nodes: number of nodes, 1 or more.
        cores: CPU cores that each node claims to have, whatever the machine has; the last has at least one a GPU.
        memory_mb: memory in MB that each node claims to have.
        n_gpus: fake GPUs of the last node: device files that do nothing, enough for Slurm to hand out and to set
            CUDA_VISIBLE_DEVICES.

    Raises:
        SlurmLabError: Slurm is missing, another cluster is configured here, or a daemon does not come up.
    """

    def __init__(
        self, folder: str | Path, *, n_nodes: int = 3, cores: int = 1, memory_mb: int = 4000, n_gpus: int = 1
    ) -> None:
        self.folder = Path(folder).absolute()
        self.n_nodes = n_nodes
        self.cores = cores
        self.memory_mb = memory_mb
        self.n_gpus = n_gpus

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @classmethod
    def running(cls, folder: str | Path) -> Self:
        """The lab that another process started in `folder`."""
        try:
            settings = json.loads((Path(folder) / "lab.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SlurmLabError(f"no Slurm lab was started in {folder}") from None
        return cls(folder, **settings)

    @property
    def node_names(self) -> list[str]:
        """The nodes' names; the last has the GPUs."""
        return [f"n{number}" for number in range(1, self.n_nodes + 1)]

    @property
    def gpu_node(self) -> str:
        """The name of the node with the fake GPUs."""
        return self.node_names[-1]

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with Slurm's clients pointed to the lab."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {**kept, "PATH": _SEARCH_PATH, "SLURM_CONF": str(self.folder / "etc/slurm.conf")}

    def start(self) -> None:
        """Start all daemons and wait until every node takes jobs; about a second."""
        reason = why_unavailable()
        if reason is not None:
            raise SlurmLabError(reason)
        _refuse_other_cluster(self.folder)
        self._write_configuration()
        self._make_links()
        try:
            if _live_pid(self.folder / "run/munged.pid", "munged") is None:
                run, log = self.folder / "run", self.folder / "log"
                # --force: the key and the socket may lie below a folder that everyone may write, such as /tmp.
                self._daemon(
                    *("munged", "--force", f"--key-file={self.folder}/etc/munge.key", f"--socket={run}/munge.socket"),
                    *(f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munge.seed"),
                )
            self._wait_for("munged", lambda: self._succeeds("munge", "-n", "-S", f"{self.folder}/run/munge.socket"))
            if _live_pid(self.folder / "run/slurmctld.pid", "slurmctld") is None:
                self._daemon("slurmctld", "-c", "-f", f"{self.folder}/etc/slurm.conf")
            self._wait_for("slurmctld", lambda: self._succeeds("scontrol", "ping"))
            for name in self.node_names:
                self.node_up(name, wait=False)
            for name in self.node_names:
                self._wait_for_node(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs, end all daemons and remove the links in /etc/slurm; the logs stay in the folder."""
        if _live_pid(self.folder / "run/slurmctld.pid", "slurmctld") is not None:
            self._cancel_all()
        leftovers = self.processes()
        for pid_file in sorted((self.folder / "run").glob("slurmd-*.pid")):
            _end(_live_pid(pid_file, "slurmd"))
        _end(_live_pid(self.folder / "run/slurmctld.pid", "slurmctld"))
        _end(_live_pid(self.folder / "run/munged.pid", "munged"))
        for pid in leftovers:
            _end(pid, signal.SIGKILL)
        for name in LINKED_FILES:
            link = LINKED_FOLDER / name
            if link.is_symlink() and link.readlink() == self.folder / "etc" / name:
                link.unlink()

    def processes(self) -> list[int]:
        """The ids of all processes that belong to this lab: daemons, job steps, and what these started."""
        mark = f"{MARK}={self.folder}".encode()
        parents: dict[int, int] = {}
        found = set()
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or not _runs(pid := int(entry.name)):
                    continue
                parents[pid] = int(_status_fields(pid)[1])
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(pid)
            except OSError:
                continue
        while children := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= children
        return sorted(found)

    def node_down(self, name: str) -> None:
        """Cut a node off: its daemon dies and its jobs count as failed, while their processes go on unseen.

        When the node is back, Slurm ends these orphans.
        """
        _end(_live_pid(self._node_pid_file(name), "slurmd"), signal.SIGKILL)
        # Without this the controller takes 10 to 30 s to notice.
        self.client("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=unreachable")

    def node_up(self, name: str, *, wait: bool = True) -> None:
        """Start a node's daemon unless it runs."""
        pid_file = self._node_pid_file(name)
        if _live_pid(pid_file, "slurmd") is None:
            pid_file.unlink(missing_ok=True)
            (self.folder / "spool" / name).mkdir(parents=True, exist_ok=True)
            self._daemon("slurmd", "-N", name, "-f", f"{self.folder}/etc/slurm.conf")
        if wait:
            self._wait_for_node(name)

    @contextmanager
    def node_away(self, name: str) -> Iterator[None]:
        """Cut a node off for a while, and bring it back whatever happens meanwhile."""
        try:
            self.node_down(name)
            yield
        finally:
            self.node_up(name)

    def node_state(self, name: str) -> str:
        """A node's state as `sinfo` tells it: idle, mixed, allocated, down, …; a `*` marks one that does not answer."""
        return self.client(
            *("sinfo", "--noheader", "--partition=all", f"--nodes={name}", "--format=%T"), check=False
        ).stdout.strip()

    def jobs(self, *, settled: bool = True) -> list[Job]:
        """All jobs since the start, running and finished, in the order of their ids.

        Args:
            settled: a job whose last processes are just ending (COMPLETING) is first waited for.
        """
        deadline = time.monotonic() + 30
        while True:
            listing = self.client("scontrol", "--oneliner", "--detail", "show", "jobs").stdout
            jobs = [_parse_job(line) for line in listing.splitlines() if "JobId=" in line]
            ending = settled and any(job.state == "COMPLETING" for job in jobs)
            if not ending or time.monotonic() > deadline:
                return sorted(jobs, key=lambda job: job.id)
            time.sleep(0.05)

    def tasks(self) -> list[Task]:
        """Every task that Slurm started, in order."""
        record = self.folder / "log/tasks.txt"
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        return [
            Task(int(job), step, node, None if cuda == "unset" else cuda)
            for job, step, node, cuda in (line.split(" ", 3) for line in lines)
        ]

    def client(
        self, *command: str, check: bool = True, timeout_seconds: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's client programs against the lab."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
        if check and done.returncode != 0:
            raise SlurmLabError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done

    def _write_configuration(self) -> None:
        for name in ("etc", "run", "log", "state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        conf = self.folder / "etc/slurm.conf"
        if _live_pid(self.folder / "run/slurmctld.pid", "slurmctld") is not None:
            return
        settings = {name: getattr(self, name) for name in ("n_nodes", "cores", "memory_mb", "n_gpus")}
        (self.folder / "lab.json").write_text(json.dumps(settings), encoding="utf-8")
        key = self.folder / "etc/munge.key"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().split(".")[0]
        first_port = _free_ports(self.n_nodes + 1)
        nodes = []
        for number, name in enumerate(self.node_names, start=1):
            cores, gpus = self.cores, ""
            if name == self.gpu_node and self.n_gpus:
                # The weight: jobs that need no GPU go elsewhere as long as they can.
                cores, gpus = max(self.cores, self.n_gpus), f" Gres=gpu:{self.n_gpus} Weight=10"
            nodes.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port + number} "
                f"CPUs={cores} RealMemory={self.memory_mb}{gpus} State=UNKNOWN"
            )
        conf.write_text(
            _SLURM_CONF.format(folder=self.folder, host=host, controller_port=first_port, nodes="\n".join(nodes)),
            encoding="utf-8",
        )
        gres_lines = ["AutoDetect=off"]
        for index in range(self.n_gpus):
            device = self.folder / f"etc/gpu{index}"
            if not device.exists():
                # Slurm wants a character device; this one has the numbers of /dev/null.
                os.mknod(device, 0o020666, os.makedev(1, 3))
            gres_lines.append(f"NodeName={self.gpu_node} Name=gpu File={device}")
        (self.folder / "etc/gres.conf").write_text("\n".join(gres_lines) + "\n", encoding="utf-8")
        prolog = self.folder / "etc/task_prolog.sh"
        prolog.write_text(_TASK_PROLOG.format(folder=self.folder), encoding="utf-8")
        prolog.chmod(0o755)

    def _make_links(self) -> None:
        LINKED_FOLDER.mkdir(exist_ok=True)
        for name in LINKED_FILES:
            link = LINKED_FOLDER / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder / "etc" / name)

    def _daemon(self, *command: str) -> None:
        """Start a program that puts itself into the background."""
        done = subprocess.run(
            command,
            env={**self.environment, MARK: str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise SlurmLabError(f"{command[0]} does not start: {done.stderr.strip()}")

    def _succeeds(self, *command: str) -> bool:
        return self.client(*command, check=False).returncode == 0

    def _wait_for(self, what: str, ready: Callable[[], bool], timeout_seconds: float = 30) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if time.monotonic() > deadline:
                raise SlurmLabError(f"{what} is not up after {timeout_seconds:g} s; see {self.folder}/log")
            time.sleep(0.05)

    def _wait_for_node(self, name: str) -> None:
        self._wait_for(f"node {name}", lambda: self.node_state(name) in ("idle", "mixed", "allocated"))

    def _cancel_all(self) -> None:
        self.client("scancel", "--user=root", check=False)
        self.client("scancel", "--user=root", "--signal=KILL", check=False)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.client("squeue", "--noheader", check=False).stdout.strip():
            time.sleep(0.1)

    def _node_pid_file(self, name: str) -> Path:
        if name not in self.node_names:
            raise SlurmLabError(f"no node {name}; there are {', '.join(self.node_names)}")
        return self.folder / f"run/slurmd-{name}.pid"


def why_unavailable() -> str | None:
    """Why no lab can start here, or None where it can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_SEARCH_PATH) is None]
    if missing:
        install_hint = "as root: python3 tests/support/slurm_lab.py install"
        return f"Slurm is not installed ({', '.join(missing)} missing); {install_hint}"
    if os.geteuid() != 0:
        return "a Slurm lab needs root: its nodes start jobs for a user"
    foreign = [str(LINKED_FOLDER / name) for name in LINKED_FILES if _is_real_file(LINKED_FOLDER / name)]
    if foreign:
        return f"this machine belongs to a cluster already: {', '.join(foreign)}"
    return None


def install() -> None:
    """Install Debian's Slurm and munge where they are missing; needs root and a package source."""
    missing = [package for package in PACKAGES if not _is_installed(package)]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SlurmLabError(f"no apt-get here: install {', '.join(missing)} by the system's own means")
    # RUNLEVEL: the packages' scripts must not start daemons of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        try:
            subprocess.run(["apt-get", "--quiet", *command], env=environment, check=True)
        except subprocess.CalledProcessError as error:
            raise SlurmLabError(f"{' '.join(error.cmd)} ended with exit code {error.returncode}") from None


def _is_installed(package: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Status}", package], capture_output=True, text=True, check=False
    )
    return done.stdout.endswith("ok installed")


def _is_real_file(path: Path) -> bool:
    return path.exists() and not path.is_symlink()


def _refuse_other_cluster(folder: Path) -> None:
    link = LINKED_FOLDER / "slurm.conf"
    if not link.is_symlink():
        return
    other = link.readlink().parent.parent
    if other != folder and _live_pid(other / "run/slurmctld.pid", "slurmctld") is not None:
        raise SlurmLabError(f"another Slurm runs from {other}; stop it first")


def _free_ports(number: int) -> int:
    """The first of `number` consecutive free ports below those that the system hands out by itself."""
    for first in range(20000, 32000 - number, number):
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise SlurmLabError("no free ports")


def _live_pid(pid_file: Path, program: str) -> int | None:
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return pid if name == program and _runs(pid) else None


def _end(pid: int | None, first_signal: signal.Signals = signal.SIGTERM) -> None:
    """End a process: politely, and after 5 s for good."""
    if pid is None:
        return
    for number, patience_seconds in ((first_signal, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if not _runs(pid):
                return
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return _status_fields(pid)[0] != "Z"
    except OSError:
        return False


def _status_fields(pid: int) -> list[str]:
    """State, parent and the further fields of /proc/PID/stat after the program's name."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _node_names(hostlist: str) -> tuple[str, ...]:
    """The lab's nodes in Slurm's short form: n1, or n[1-3,5]."""
    names = []
    for numbers in re.sub(r"^n\[?|\]$", "", hostlist).split(","):
        first, _, last = numbers.partition("-")
        names += [f"n{number}" for number in range(int(first), int(last or first) + 1)]
    return tuple(names)


def _parse_job(line: str) -> Job:
    fields = dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", line))
    comment = fields.get("Comment", "")
    rule = re.fullmatch(r"rule_(.+?)(?:_wildcards_.*)?", comment)
    nodes = fields.get("NodeList", "(null)")
    return Job(
        id=int(fields["JobId"]),
        name=fields["JobName"],
        rule=rule[1] if rule else "",
        state=fields["JobState"],
        nodes=() if nodes in ("(null)", "") else _node_names(nodes),
        cpus=int(fields.get("NumCPUs", 0)),
        gpus=sum(int(number) for number in re.findall(r"gpu(?::[A-Za-z]\w*)?:(\d+)", fields.get("JOB_GRES", ""))),
        comment=comment,
        fields=fields,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: install, start, stop, status, node-down, node-up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the lab's files lie (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install Debian's packages (root)")
    start = commands.add_parser("start", help="start the cluster")
    start.add_argument("--nodes", type=int, default=3, help="number of nodes (%(default)s)")
    start.add_argument("--cores", type=int, default=1, help="cores a node (%(default)s)")
    start.add_argument("--memory-mb", type=int, default=4000, help="memory a node in MB (%(default)s)")
    start.add_argument("--gpus", type=int, default=1, help="fake GPUs of the last node (%(default)s)")
    commands.add_parser("stop", help="stop the cluster and delete its folder")
    commands.add_parser("status", help="show nodes and jobs; exit code 1 when it is down")
    for name in ("node-down", "node-up"):
        commands.add_parser(name, help="kill or start one node's daemon").add_argument("node")
    parsed = parser.parse_args(arguments)
    try:
        return _run_command(parsed)
    except SlurmLabError as error:
        print(error, file=sys.stderr)
        return 1


def _run_command(parsed: argparse.Namespace) -> int:
    if parsed.command == "install":
        install()
        return 0
    if parsed.command == "start":
        lab = SlurmLab(
            parsed.folder, n_nodes=parsed.nodes, cores=parsed.cores, memory_mb=parsed.memory_mb, n_gpus=parsed.gpus
        )
        lab.start()
        print(f"Slurm is up: export SLURM_CONF={lab.environment['SLURM_CONF']}")
        return 0
    lab = SlurmLab.running(parsed.folder)
    if parsed.command == "stop":
        lab.stop()
        shutil.rmtree(parsed.folder)
    elif parsed.command == "node-down":
        lab.node_down(parsed.node)
    elif parsed.command == "node-up":
        lab.node_up(parsed.node)
    elif not lab.processes():
        print("Slurm is down")
        return 1
    else:
        print(lab.client("sinfo", "--Node", "--partition=all", "--format=%N %T %c %m %G %E").stdout, end="")
        print(lab.client("squeue", "--states=all", "--format=%i %T %N %k").stdout, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
