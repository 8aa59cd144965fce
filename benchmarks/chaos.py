"""Kill workers, nodes and drivers during sweeps, and count what is lost.

    python benchmarks/chaos.py --rounds 20
    python benchmarks/chaos.py --rounds 20 --storage s3://sweeps/chaos

Each round runs the same sweep, including the teacher's training and the confirmation, on a local Ray cluster of three
nodes, injects faults at random times, and resumes the sweep after each driver kill. The times are counted in epochs of
an uninterrupted run, so that a fast machine does not finish before the last fault. The round is compared with that run:
every requested trial must exist exactly once, with the same accuracy at every epoch that both reached, including the
rungs, and every confirmation run that both made must have the same result. Before one of the resumes, all files of the
sweep are dated an hour ahead, as if the clock had been set back. Finally an export is killed.

With --storage s3://..., the rounds are stored on an S3 server: moto's, started here, unless AWS_ENDPOINT_URL names one.
Every node and the driver have caches of their own, and that of a killed driver is deleted, so that only objects go from
one to the next. A proxy gives a share of all requests a fault, and once in each round the store is away for seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
MARK = "KDSWEEP_CHAOS_ROUND"
CACHE, ENDPOINT = "KDSWEEP_CACHE", "AWS_ENDPOINT_URL"
KEYS = {"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_REGION": "us-east-1"}
# With `precision: auto`, the reference and a round may measure that another precision is faster.
SPEC = """\
dataset: {{name: mnist_mini, subset: 2000, val_fraction: 0.5}}
teacher: {{model: mnist_teacher, width: 0.25, train: {{epochs: 8, precision: float32}}}}
student: {{model: mnist_student}}
space:
  method: [kd, hint, none]
  width: {{choice: [0.5, 1.0]}}
  temperature: {{loguniform: [2, 8]}}
  lr: {{loguniform: [1e-3, 1e-2]}}
train: {{epochs: 27, batch_size: 32, precision: float32}}
search: {{sampler: random, trials: {trials}}}
scheduler: {{grace_epochs: 3}}
confirm: {{top: 1, seeds: 3}}
resources: {{max_failures: 30}}
"""


@dataclass(frozen=True)
class Undisturbed:
    """The uninterrupted run: its trials, their epochs, and the seconds of its teacher's training."""

    trials: int
    epochs: int
    teacher_seconds: float


@dataclass
class Outcome:
    """The outcome of one round."""

    asked: int
    faults: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0
    epochs_repeated: int = 0
    differing: int = 0
    confirmed_differing: int = 0
    exported_correctly: bool = False
    seconds: float = 0.0


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=18, help="per round; many faults need many trials")
    parser.add_argument("--driver-kills", type=int, default=1, help="per round")
    parser.add_argument("--worker-kills", type=int, default=2, help="per round")
    parser.add_argument("--node-removals", type=int, default=1, help="per round, at most 2")
    parser.add_argument("--storage", default="", help="URI of the rounds' sweeps; default: local folders")
    parser.add_argument("--store-faults", type=float, default=0.05, help="share of the store's answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the outcomes here")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="kdsweep-chaos-"))
    os.environ[MARK] = uuid.uuid4().hex
    try:
        if arguments.storage:
            Store.used = Store(arguments.storage, arguments.store_faults, arguments.seed, folder)
        (folder / "chaos.yaml").write_text(SPEC.format(trials=arguments.trials))
        reference = run_reference(folder, arguments.trials)
        outcomes = []
        for number in range(arguments.rounds):
            faults = ["driver"] * arguments.driver_kills + ["worker"] * arguments.worker_kills
            faults += ["node"] * min(2, arguments.node_removals) + ["store"] * bool(arguments.storage)
            dice = random.Random(f"{arguments.seed}-{number}")
            dice.shuffle(faults)
            outcomes.append(run_round(folder, f"round{number}", faults, dice, reference))
            print(json.dumps(asdict(outcomes[-1])), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(outcomes))
    if Store.used:
        print(Store.used.told())
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    sys.exit(any(_is_bad(outcome) for outcome in outcomes))


class Store:
    """The object store of the rounds, behind a proxy with faults.

    Args:
        uri: Where the rounds are stored.
        share: Share of its answers that have a fault.
        seed: Seed of the faults.
        folder: For the caches.

    Attributes:
        used: The one that is used; None for local folders.
    """

    used: Store | None = None

    def __init__(self, uri: str, share: float, seed: int, folder: Path):
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from faulty_store import FaultyStore

        self.uri, self.folder = uri.rstrip("/"), folder
        behind = os.environ.get(ENDPOINT) or _moto(uri)
        self.proxy = FaultyStore(behind, share, seed)
        os.environ.update({name: os.environ.get(name) or value for name, value in KEYS.items()})
        os.environ.update({ENDPOINT: self.proxy.address, CACHE: str(self.cache("driver"))})

    def cache(self, name: str) -> Path:
        """The cache of a node, or of the driver."""
        return self.folder / "caches" / name

    def forget(self) -> None:
        """Delete the driver's cache, as if it went on on another machine."""
        shutil.rmtree(self.cache("driver"), ignore_errors=True)

    def leave(self, seconds: float) -> None:
        """Be away for some time."""
        self.proxy.down = True
        time.sleep(seconds)
        self.proxy.down = False

    def told(self) -> str:
        """Tell the faults."""
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.proxy.count.items()) if kind)
        return f"faults in {self.proxy.requests} requests to the store: {faults}"


def _moto(uri: str) -> str:
    """Start moto's S3 server with the bucket. Return its address."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **dict(zip(names, KEYS.values(), strict=True)))
    client.create_bucket(Bucket=uri.split("/")[2])
    return f"http://{host}:{port}"


def run_reference(folder: Path, trials: int) -> Undisturbed:
    """Run the sweep undisturbed, on a cluster like that of the rounds.

    On a local Ray the teacher would train with more threads, and its weights would differ in the last digits.
    """
    cluster, _ = new_cluster()
    driver = _command(folder, "reference", cluster.address)
    _wait_for(lambda: bool(_workers()), driver)
    began = time.monotonic()
    _wait_for((_sweep(folder, "reference") / "teacher" / "teacher.json").is_file, driver)
    teacher_seconds = time.monotonic() - began
    code = driver.wait()
    cluster.shutdown()
    if code:
        sys.exit(f"the uninterrupted run ended with {code}:\n{(folder / 'reference.log').read_text()}")
    return Undisturbed(trials, _lines(_sweep(folder, "reference") / "epochs.jsonl"), teacher_seconds)


def new_cluster() -> tuple[Any, list[Any]]:
    """Start a local cluster of a head and two nodes, with one core each."""
    from ray.cluster_utils import Cluster

    def own(number: int) -> dict[str, Any]:
        return {"env_vars": {CACHE: str(Store.used.cache(f"node{number}"))}} if Store.used else {}

    head = {"num_cpus": 1, "include_dashboard": False, **own(0)}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **own(number)) for number in (1, 2)]
    cluster.wait_for_nodes()
    return cluster, nodes


def run_round(folder: Path, name: str, faults: list[str], dice: random.Random, reference: Undisturbed) -> Outcome:
    """Run one sweep with faults on a new cluster."""
    started = time.monotonic()
    longest = max(1, min(20, reference.epochs // max(1, len(faults))))
    cluster, nodes = new_cluster()
    sweep = _sweep(folder, name)
    log = sweep / "epochs.jsonl"
    driver = _command(folder, name, cluster.address)
    injected: Counter[str] = Counter()
    _wait_for(lambda: bool(_workers()), driver)
    # Not longer than until the teacher is there: a busy machine may have made the uninterrupted run slow.
    card, until = sweep / "teacher" / "teacher.json", time.monotonic() + dice.uniform(0, reference.teacher_seconds)
    _wait_for(lambda: time.monotonic() > until or card.is_file(), driver)
    if driver.poll() is None and not card.is_file() and not _lines(log):
        driver.kill()
        driver.wait()
        injected["driver, during the teacher's training"] += 1
        _forget()
        driver = _command(folder, name, cluster.address, resume=True)
    reached = 0
    for fault in faults:
        seen = max(_lines(log), reached)
        wanted = seen + dice.randint(1, longest)
        _wait_for(lambda: _lines(log) >= wanted, driver)  # noqa: B023 - called at once
        if driver.poll() is not None:
            break
        if fault == "worker":
            workers = _workers()
            if workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
                injected["worker"] += 1
        elif fault == "store":
            assert Store.used
            Store.used.leave(dice.uniform(1, 6))
            injected["store"] += 1
        elif fault == "node":
            cluster.remove_node(nodes.pop(dice.randrange(len(nodes))), allow_graceful=False)
            injected["node"] += 1
        else:
            driver.kill()
            driver.wait()
            injected["driver"] += 1
            injected["clock"] += _date_ahead(sweep)
            reached = max(reached, _lines(log))
            _forget()
            driver = _command(folder, name, cluster.address, resume=True)
    _wait_for(lambda: any((sweep / "confirmed").glob("*")), driver)
    time.sleep(dice.uniform(0, 3))
    if driver.poll() is None:
        driver.kill()
        driver.wait()
        injected["driver, during the confirmation"] += 1
        _forget()
        driver = _command(folder, name, cluster.address, resume=True)
    code = driver.wait()
    cluster.shutdown()
    injected["export"] += _kill_export(folder, name, dice)
    outcome = judge(folder, name, reference.trials)
    outcome.faults = dict(injected)
    outcome.seconds = round(time.monotonic() - started, 1)
    if code:
        sys.stderr.write(f"{name}: the driver ended with {code}\n")
    return outcome


def judge(folder: Path, name: str, asked: int) -> Outcome:
    """Compare a round's results with those of the uninterrupted run."""
    import kdsweep

    _forget()
    results = kdsweep.load_results(_uri(folder, name))
    reference = kdsweep.load_results(_sweep(folder, "reference"))
    outcome = Outcome(asked)
    states = results.trials["state"].value_counts()
    outcome.finished = int(states.get("COMPLETE", 0) + states.get("PRUNED", 0))
    outcome.failed = int(states.get("FAILED", 0))
    outcome.errors = sorted(set(results.trials["error"]) - {""})
    outcome.lost = max(0, outcome.asked - outcome.finished - outcome.failed)
    outcome.duplicated = int(results.trials["number"].duplicated().sum()) + max(0, len(results.trials) - outcome.asked)
    outcome.epochs_repeated = _lines(results.path / "epochs.jsonl") - len(results.epochs)
    both = results.epochs.merge(reference.epochs, on=["trial", "epoch"], suffixes=("", "_reference"))
    same = (both["val_accuracy"] == both["val_accuracy_reference"]) & (
        both["train_loss"] == both["train_loss_reference"]
    )
    outcome.differing = int((~same).sum()) + int(not len(both))
    for path in (results.path / "confirmed").glob("*/result.json"):
        other = _sweep(folder, "reference") / path.relative_to(results.path)
        outcome.confirmed_differing += other.is_file() and json.loads(other.read_text()) != json.loads(path.read_text())
    outcome.confirmed_differing += len(results.confirmed) != 1
    (student,) = results.export(folder / "students" / name, top=1)
    from kdsweep.results.student import evaluate_student

    recorded = float(results.best(1)["val_accuracy"][0])
    outcome.exported_correctly = evaluate_student(student, "val")["accuracy"] == recorded
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Totals over all rounds, as a Markdown table."""
    faults = sum((Counter(outcome.faults) for outcome in outcomes), Counter())
    rows = {
        "rounds": len(outcomes),
        "drivers killed (SIGKILL)": faults["driver"],
        "drivers killed during the teacher's training": faults["driver, during the teacher's training"],
        "drivers killed during the confirmation": faults["driver, during the confirmation"],
        "exports killed": faults["export"],
        "clocks set back": faults["clock"],
        "workers killed (SIGKILL)": faults["worker"],
        "nodes removed": faults["node"],
        **({"times the store was away for 1 to 6 seconds": faults["store"]} if Store.used else {}),
        "trials requested": sum(o.asked for o in outcomes),
        "trials finished": sum(o.finished for o in outcomes),
        "trials failed": sum(o.failed for o in outcomes),
        "trials lost": sum(o.lost for o in outcomes),
        "trials duplicated": sum(o.duplicated for o in outcomes),
        "epochs repeated": sum(o.epochs_repeated for o in outcomes),
        "epochs that differ from the uninterrupted run": sum(o.differing for o in outcomes),
        "confirmation runs that differ or are missing": sum(o.confirmed_differing for o in outcomes),
        "best student exported and correct": f"{sum(o.exported_correctly for o in outcomes)} of {len(outcomes)}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| what | count |", "|---|---|", *lines, "", f"{os.cpu_count()} cores, {platform.platform()}"])


def _is_bad(outcome: Outcome) -> bool:
    wrong = outcome.lost or outcome.duplicated or outcome.failed or outcome.differing or outcome.confirmed_differing
    return bool(wrong) or not outcome.exported_correctly


def _sweep(folder: Path, name: str) -> Path:
    """The driver's files of the sweep of a round. Each has a storage of its own, and so trains its own teacher."""
    from kdsweep.storage.paths import SweepDir

    return SweepDir.at(_uri(folder, name)).root


def _uri(folder: Path, name: str) -> str:
    """The sweep of a round. The uninterrupted one is in a local folder."""
    return f"{_storage(folder, name)}/chaos"


def _storage(folder: Path, name: str) -> str:
    return f"{Store.used.uri}/{name}" if Store.used and name != "reference" else str(folder / name)


def _forget() -> None:
    if Store.used:
        Store.used.forget()


def _wait_for(condition: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    """Wait until a condition holds or the driver has ended."""
    while not condition() and driver.poll() is None:
        time.sleep(0.01)


def _date_ahead(sweep: Path) -> bool:
    """Date all files of a sweep an hour ahead."""
    ahead = time.time() + 3600
    for path in sweep.rglob("*"):
        if path.is_file():
            os.utime(path, (ahead, ahead))
    return True


def _kill_export(folder: Path, name: str, dice: random.Random) -> bool:
    """Kill an export at a random time. Return whether it was still running."""
    command = [sys.executable, "-m", "kdsweep", "export", _uri(folder, name), "--top", "10"]
    export = subprocess.Popen(
        [*command, "--out", str(folder / "students" / name)], cwd=folder, stdout=subprocess.DEVNULL
    )
    time.sleep(dice.uniform(1, 3))
    running = export.poll() is None
    export.kill()
    export.wait()
    return running


def _command(folder: Path, name: str, address: str, resume: bool = False) -> subprocess.Popen[bytes]:
    begin = ["run", str(folder / "chaos.yaml"), "--storage", _storage(folder, name)]
    what = ["resume", _uri(folder, name)] if resume and _has_begun(_uri(folder, name)) else begin
    command = [sys.executable, "-c", "from kdsweep.cli import main; main()", *what]
    command += ["--address", address] if address else []
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


def _has_begun(uri: str) -> bool:
    from kdsweep.errors import InputError
    from kdsweep.storage.paths import SweepDir
    from kdsweep.storage.places import Place

    try:
        SweepDir.need(Place.of(uri))
    except InputError:
        return False
    return True


def _workers() -> list[int]:
    """Busy workers of this process's clusters, found by a marker in the environment of their raylet."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            title = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
            if not title.startswith(b"ray::") or title.startswith((b"ray::IDLE", b"ray::Dash", b"ray::Runtime")):
                continue
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if os.environ[MARK].encode() in Path(f"/proc/{parent}/environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


if __name__ == "__main__":
    main()
