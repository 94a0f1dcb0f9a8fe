"""A real Apache Kafka for the tests: one KRaft node on loopback, from the jars that tests/kafka/pom.xml names."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from orphans import PID, owned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parents[1]
LIBS: Final = ROOT / ".kafka" / "libs"

#: Written by `make kafka` when it is done: a download that was cut off has jars, but not this.
COLLECTED: Final = LIBS / ".collected"

#: A folder for each broker. Not the system's temporary folder: what a dead test process left must be found again.
RUNS: Final = ROOT / ".kafka" / "run"

#: The classes that a broker loads, as the JVM dumps them at its first clean end: later starts take half the time.
CLASS_ARCHIVE: Final = ROOT / ".kafka" / "broker-classes.jsa"

#: Apache Kafka 4's brokers need it.
JAVA_VERSION: Final = 17

#: How Java ends when SIGTERM is what ended it.
JAVA_TERMINATED: Final = 128 + signal.SIGTERM

#: A cluster id that Kafka accepts: 16 bytes in URL-safe base64.
CLUSTER_ID: Final = "MkU3OEVBNTcwNTJENDM2Qg"

#: Below every system's ephemeral range (Linux's begins at 32,768): no client takes one while the broker is down.
PORTS: Final = range(20_000, 32_000)

#: Seconds. A start takes 1 to 3, after a kill 5, on a busy machine some times that; then something is wrong.
START_SECONDS: Final = 60.0

#: Seconds. A clean end takes 0.5, the first one some more: it dumps the class archive.
STOP_SECONDS: Final = 30.0

#: Seconds between two looks at a broker that starts: small beside its start, large beside the cost of a look.
LOOK_SECONDS: Final = 0.05

#: Milliseconds. A broker whose port is open answers in some; a client that is unlucky tries again.
ANSWER_MS: Final = 2_000

#: Seconds to download 54 MB of jars; only a download that hangs takes longer.
COLLECT_SECONDS: Final = 600.0

#: Lines of the broker's log that are shown when it does not start: an exception of Java, with its causes.
LOG_TAIL: Final = 40

#: A line of the dump of the broker's settings.
SETTING: Final = re.compile(r"\t[\w.]+ = ")

#: One core's worth of garbage collector and the quick compiler: ready in half the time, in half the memory.
JVM: Final = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xmx512m",
    "-Xshare:auto",
    "-Dorg.apache.logging.log4j.level=INFO",
)

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# A node that was killed may register again when its old session is over: 4 seconds to be back, not 11.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# One node, and small: threads and partitions of internal topics are what a start spends its time on.
num.network.threads=1
num.io.threads=2
background.threads=1
num.recovery.threads.per.data.dir=1
log.cleaner.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def create_topic(
    client: Mapping[str, Any], name: str, partitions: int = 1, *, replicas: int = 1, **configs: object
) -> None:
    """Create a topic; underscores in the names of ``configs`` stand for dots.

    Args:
        client: Settings of kafka-python's, the broker's address among them.
        name: Its name.
        partitions: How many it gets.
        replicas: How many nodes have each of them.
        configs: Its own settings.
    """
    topic = {
        "num_partitions": partitions,
        "replication_factor": replicas,
        "configs": {key.replace("_", "."): str(value) for key, value in configs.items()},
    }
    with contextlib.closing(KafkaAdminClient(**client)) as admin:
        admin.create_topics({name: topic})
        admin.wait_for_topics([name])


class RunningKafka:
    """A broker that somebody else started: KAFKA_BOOTSTRAP=host:port."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    @property
    def client(self) -> dict[str, Any]:
        """What kafka-python needs to administer it."""
        return {"bootstrap_servers": self.bootstrap_servers}

    def create_topic(self, name: str, partitions: int = 1, **configs: object) -> None:
        create_topic(self.client, name, partitions, replicas=1, **configs)


class ApacheKafka(RunningKafka):
    """A node of our own, which can be stopped, killed and started again, and is gone at the end of the block.

    with ApacheKafka() as broker:
        broker.kill()
        broker.start()  # the same port, the same records
    """

    def __init__(self) -> None:
        self._port, self._controller_port = free_ports(2)
        super().__init__(f"127.0.0.1:{self._port}")
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = RUNS / secrets.token_hex(4)
        self._properties = self._folder / "server.properties"
        self._log = self._folder / "server.log"
        self._class_dump = self._folder / "classes.jsa"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(owned(self._folder))
            undo.callback(self.kill)
            self._format()
            self.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._undo:
            self.stop()

    @property
    def pid(self) -> int:
        """The broker's process, for a test that freezes it."""
        if self._process is None:
            raise RuntimeError("the broker is down: start() it first")
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it answers.

        Raises:
            RuntimeError: it ended, or does not answer in time; the message has the end of its log.
        """
        self._launch()
        self._wait_until_it_answers()

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            # Its own session: Ctrl-C ends the tests first, and they end the broker.
            self._process = subprocess.Popen(
                _java("kafka.Kafka", self._properties, class_dump=self._class_dump),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._folder / PID).write_text(str(self._process.pid), encoding="ascii")

    def _wait_until_it_answers(self) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)
            deadline = time.monotonic() + START_SECONDS
            while not self._answers():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Apache Kafka does not answer after {START_SECONDS:.0f} s:\n{self._log_tail()}")
                self._wait_a_little()
            undo.pop_all()

    def _wait_a_little(self) -> None:
        if self._process is None:
            raise RuntimeError("the broker is down: start() it first")
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(LOOK_SECONDS)
            raise RuntimeError(f"Apache Kafka ended with {code} before it answered:\n{self._log_tail()}")

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM: a clean end; its records are kept."""
        # One that had to be killed may have left half a dump.
        if self._end(signal.SIGTERM) == JAVA_TERMINATED and self._class_dump.exists():
            self._class_dump.replace(CLASS_ARCHIVE)

    def kill(self) -> None:
        """SIGKILL: what a crash is; its records are kept."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a test may have frozen it, and failed
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _format(self) -> None:
        """Write an empty log directory.

        With the tool, which takes half a second: files of our own would leave the features of the cluster, such as
        transactions, at version 0.
        """
        self._properties.write_text(self._server_properties(), encoding="utf-8")
        options: list[str | Path] = ["--cluster-id", CLUSTER_ID, "--config", self._properties, *self._format_options()]
        command = _java("kafka.tools.StorageTool", "format", *options)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        if done.returncode:
            raise RuntimeError(f"Apache Kafka's log directory cannot be formatted:\n{done.stdout}{done.stderr}")

    def _server_properties(self) -> str:
        return PROPERTIES.format(port=self._port, controller=self._controller_port, data=self._folder / "data")

    def _format_options(self) -> list[str]:
        return []

    def _answers(self) -> bool:
        try:
            # First without the client, which logs an error for each connection that is refused.
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            with contextlib.closing(KafkaAdminClient(**self.client, bootstrap_timeout_ms=ANSWER_MS)) as admin:
                return bool(admin.describe_cluster()["brokers"])
        except (OSError, KafkaError):
            return False

    def _log_tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        # Without the dump of all settings, a line for each, which may come after the line that says why.
        return "\n".join([line for line in lines if not SETTING.match(line)][-LOG_TAIL:])


def _java(*arguments: str | Path, class_dump: Path | None = None) -> list[str]:
    archive = []
    if CLASS_ARCHIVE.exists():  # one of another Java or of moved jars is ignored by the JVM
        archive = [f"-XX:SharedArchiveFile={CLASS_ARCHIVE}"]
    elif class_dump is not None:
        archive = [f"-XX:ArchiveClassesAtExit={class_dump}"]
    return ["java", *JVM, *archive, "-cp", f"{LIBS}/*", *map(str, arguments)]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; where somebody takes one right now, the broker's start tells it."""
    with contextlib.ExitStack() as probes:
        ports: list[int] = []
        while len(ports) < count:
            # Not of `random`, which pytest-randomly seeds: two runs with one seed would take the same ports.
            port = PORTS[secrets.randbelow(len(PORTS))]
            probe = probes.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


@functools.cache
def why_not() -> str | None:
    """Return why there can be no Apache Kafka here, None where there can; collects its jars where they are missing."""
    if (version := _java_version()) < JAVA_VERSION:
        found = f"Java {version} is too old" if version else "Java is missing"
        return f"{found}: install a JDK {JAVA_VERSION} or newer, or set KAFKA_BOOTSTRAP=host:port"
    make = shutil.which("make")
    if make is None or shutil.which("mvn") is None:
        missing = "its jars are missing: install Maven and make, or set KAFKA_BOOTSTRAP=host:port"
        return None if COLLECTED.exists() else missing
    try:
        # It does nothing where the jars are there.
        made = subprocess.run(
            [make, "kafka"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=COLLECT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"`make kafka` did not end within {COLLECT_SECONDS:.0f} s"
    return f"`make kafka` failed: {(made.stdout + made.stderr)[-2_000:]}" if made.returncode else None


def is_expected() -> bool:
    """Whether there will be one, unless its jars cannot be collected; collects none."""
    tools = all(map(shutil.which, ("make", "mvn")))
    return "KAFKA_BOOTSTRAP" in os.environ or (_java_version() >= JAVA_VERSION and (tools or COLLECTED.exists()))


def _java_version() -> int:
    """Return 17 for Java 17.0.15, and 0 where there is none."""
    try:
        told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S607 - the user's own
    except OSError:
        return 0
    # Java 8 calls itself 1.8.
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found[1]) if found else 0


def apache_kafka() -> contextlib.AbstractContextManager[RunningKafka]:
    """Return the broker that KAFKA_BOOTSTRAP names, else one of our own."""
    if bootstrap_servers := os.environ.get("KAFKA_BOOTSTRAP"):
        return contextlib.nullcontext(RunningKafka(bootstrap_servers))
    return ApacheKafka()
