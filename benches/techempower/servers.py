"""Starting and ending PostgreSQL and the servers that are compared."""

import contextlib
import ctypes
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HOST = "127.0.0.1"
NOBODY = 65534
# How long a server may take to start, in seconds.
LIMIT = 60

# How each server is started. Those that differ from another only by how they send several
# queries are measured only where a request has several.
OURS = "techempower-open-coroutine"
SERVERS = {
    "open-coroutine-postgres": [OURS, "--driver", "postgres"],
    "open-coroutine-libpq": [OURS, "--driver", "libpq"],
    "open-coroutine-libpq-pipelined": [OURS, "--driver", "libpq", "--pipeline", "yes"],
    "open-coroutine-wire": [OURS, "--driver", "wire"],
    "open-coroutine-wire-pipelined": [OURS, "--driver", "wire", "--pipeline", "yes"],
    "axum": ["techempower-axum"],
    "axum-pipelined": ["techempower-axum", "--pipeline", "yes"],
    "may": ["techempower-may"],
    "may-pipelined": ["techempower-may", "--pipeline", "yes"],
}

WORLDS = 10_000
FORTUNES = [
    (1, "fortune: No such file or directory"),
    (2, "A computer scientist is someone who fixes things that aren't broken."),
    (3, "After enough decimal places, nobody gives a damn."),
    (4, "A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1"),
    (5, "A computer program does what you tell it to do, not what you want it to do."),
    (6, "Emacs is a nice operating system, but I prefer UNIX. — Tom Christaensen"),
    (7, "Any program that runs right is obsolete."),
    (8, "A list is only as strong as its weakest link. — Donald Knuth"),
    (9, "Feature: A bug with seniority."),
    (10, "Computers make very fast, very accurate mistakes."),
    (11, '<script>alert("This should not be displayed in a browser alert box.");</script>'),
    (12, "フレームワークのベンチマーク"),
]


class Failure(Exception):
    """Why the comparison cannot go on."""


def installed(name, folders=()):
    """Where a program is."""
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        raise Failure(f"{name} is not installed")
    return found


def temporary_folder(stack):
    """A folder that goes with `stack`; PostgreSQL may write to it."""
    folder = tempfile.mkdtemp(prefix="open-coroutine-techempower-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    return Path(folder)


def prepare_child(cpus, end):
    """What a child does before it becomes another program: go to its processors, and have the
    kernel end it with this process."""
    pr_set_pdeathsig = 1
    libc = ctypes.CDLL(None)

    def prepare():
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        libc.prctl(pr_set_pdeathsig, end)

    return prepare


def start(stack, command, cpus=None, end=signal.SIGTERM, **more):
    """Starts a program, which ends with `stack`."""
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        preexec_fn=prepare_child(cpus, end),
        **more,
    )
    stack.callback(stop, child, end)
    return child


def stop(child, end):
    if child.poll() is None:
        child.send_signal(end)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
    if child.stdout:
        child.stdout.close()


def free_port():
    """A port below those that the kernel gives to clients."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


class Database:
    """A PostgreSQL server with the two tables."""

    def __init__(self, folder, cpus, connections, stack):
        self.port = free_port()
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        self.programs = sorted(versions, key=version_of, reverse=True)
        # It refuses to run as root.
        rights = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        rights = rights if os.geteuid() == 0 else {}
        data = folder / "data"
        initialize = [installed("initdb", self.programs), "--username=test", "--auth=trust"]
        initialize += ["--no-sync", "--encoding=UTF8", "--locale=C", f"--pgdata={data}"]
        run(initialize, cwd=folder, **rights)
        # Nothing here needs to survive. Nested loops lock the rows of an update in the order
        # of the array that they come from, so that updates never deadlock.
        settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        settings += ["enable_hashjoin=off", "enable_mergejoin=off", "autovacuum=off"]
        settings += ["shared_buffers=128MB", f"max_connections={connections + 10}"]
        command = [installed("postgres", self.programs), "-D", data, "-k", folder]
        command += ["-h", HOST, "-p", self.port]
        command += [part for setting in settings for part in ("-c", setting)]
        log = stack.enter_context(open(folder / "log", "wb"))
        output = {"stdout": log, "stderr": log, "cwd": folder}
        child = start(stack, command, cpus, signal.SIGQUIT, **output, **rights)
        self.wait_until_ready(child, folder / "log")
        self.fill()

    def wait_until_ready(self, child, log):
        is_ready = [installed("pg_isready", self.programs), "-q", "-h", HOST]
        is_ready += ["-p", str(self.port)]
        deadline = time.monotonic() + LIMIT
        while subprocess.run(is_ready, check=False).returncode != 0:
            if child.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"PostgreSQL does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)

    def fill(self):
        fortunes = ", ".join(
            "({}, '{}')".format(number, text.replace("'", "''")) for number, text in FORTUNES
        )
        self.query(
            f"""
            CREATE TABLE world (id int PRIMARY KEY, randomnumber int NOT NULL);
            INSERT INTO world
                SELECT i, 1 + floor(random() * {WORLDS}) FROM generate_series(1, {WORLDS}) AS i;
            CREATE TABLE fortune (id int PRIMARY KEY, message text NOT NULL);
            INSERT INTO fortune VALUES {fortunes};
            VACUUM ANALYZE;
            """
        )

    def query(self, statements):
        """What psql prints."""
        command = [installed("psql", self.programs), "-h", HOST, "-p", str(self.port)]
        command += ["-U", "test", "-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"]
        return run(command, input=statements)

    def worlds(self):
        """The number of each id."""
        rows = self.query("SELECT id, randomnumber FROM world").splitlines()
        return dict(map(int, row.split("|")) for row in rows)

    def url(self):
        return f"postgres://test@{HOST}:{self.port}/postgres"


def version_of(folder):
    number = folder.parent.name
    return float(number) if number.replace(".", "", 1).isdigit() else 0.0


def run(command, **more):
    """Runs a program to its end; returns what it prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Failure(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


class Server:
    """A server that listens."""

    def __init__(self, name, options, database, cpus, stack):
        self.name = name
        kind, _, driver = name.partition("@")
        program, *arguments = SERVERS[kind]
        program = options.binaries / program
        if not program.exists():
            raise Failure(f"{program} is not built")
        command = [program, "--port", 0, "--database", database.url(), *arguments]
        command += ["--workers", options.workers, "--pool", options.pool]
        environment = dict(os.environ)
        if driver:
            environment["OPEN_COROUTINE_DRIVER"] = driver
        output = {"stdout": subprocess.PIPE, "env": environment}
        self.child = start(stack, command, cpus, **output)
        self.port = self.wait_until_ready()

    def wait_until_ready(self):
        ready, _, _ = select.select([self.child.stdout], [], [], LIMIT)
        line = self.child.stdout.readline() if ready else b""
        try:
            return json.loads(line)["listening"]
        except ValueError:
            raise Failure(f"{self.name} does not start; it said {line!r}") from None

    def url(self, path):
        return f"http://{HOST}:{self.port}{path}"

    def processor_time(self):
        """Seconds that the process has used, with all threads that it has and had."""
        state = self.child.poll()
        if state is not None:
            raise Failure(f"{self.name} ended with {state}")
        # The clock of a process as clock_getcpuclockid(3) makes it, which Python lacks.
        scheduled = 2
        return time.clock_gettime((~self.child.pid << 3) | scheduled)
