"""The commands `submit`, `jobs`, `logs` and `stop`. Ray is imported when they are used."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsweep.errors import InputError, Interrupted, SweepError, printable
from kdsweep.terminal.arguments import SetOption
from kdsweep.words import count_of

if TYPE_CHECKING:
    from kdsweep.tune.jobs import Job, Jobs

AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=True,
        help="The cluster's dashboard, such as http://HEAD:8265.",
    ),
]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a submitted sweep.")]


def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A sweep file; `storage` is an absolute path or a URI.")],
    address: AddressOption,
    overrides: SetOption = [],  # noqa: B006 - Typer copies it
    name: Annotated[str, typer.Option("--name", help="Name of the sweep and its directory.")] = "",
    storage: Annotated[str, typer.Option("--storage", help="Directory of the sweeps there, or s3://....")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep whose job was stopped or lost.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is submitted.")] = False,
    code: Annotated[
        list[Path], typer.Option("--code", metavar="PATH", help="Send a further .py file, or a directory of them.")
    ] = [],  # noqa: B006 - Typer copies it
    driver_cpus: Annotated[
        float,
        typer.Option(
            "--driver-cpus", metavar="N", min=0, show_default=False, help="CPU cores to reserve for the driver."
        ),
    ] = 0,
    driver_resources: Annotated[
        list[str], typer.Option("--driver-resource", metavar="K=N", help="Custom resource of the driver's node.")
    ] = [],  # noqa: B006 - Typer copies it
) -> None:
    """Run a sweep as a job of a Ray cluster, and follow its log."""
    from kdsweep.config.yaml import parsed_overrides
    from kdsweep.registry import import_from
    from kdsweep.tune.jobs import DriverPlace, Jobs
    from kdsweep.tune.shipping import shipment

    import_from(str(Path.cwd()))
    place = DriverPlace(driver_cpus, _resources(driver_resources))
    values = parsed_overrides(overrides)
    values |= ({"name": name} if name else {}) | ({"storage": storage} if storage else {})
    shipped = shipment(spec, values, code, resume)
    for fault in shipped.unchecked:
        _tell(f"note: left to the cluster to check: {fault}")
    jobs = Jobs(address)
    job = jobs.submit(shipped, shipped.command(spec, overrides, resume), place, _columns())
    sent = f"{count_of(len(shipped.files), 'file')} sent"
    _tell(f"submitted {shipped.name} as {job.key}; {sent}, results in {shipped.directory}")
    if no_wait:
        _tell(f"follow it with: kdsweep logs {shipped.name} --address {address}")
    else:
        _follow(jobs, job, address)


def jobs(address: AddressOption) -> None:
    """List the sweeps that were submitted to a Ray cluster."""
    from kdsweep.terminal import tables
    from kdsweep.tune.jobs import Jobs

    rows: list[dict[str, Any]] = [
        {
            "sweep": job.sweep,
            "status": job.status,
            "started (UTC)": job.started,
            "ended (UTC)": job.ended,
            "directory": job.directory,
            "job": job.key,
        }
        for job in Jobs(address).listed()
    ]
    tables.print_rows(rows)


def logs(
    sweep: SweepArgument,
    address: AddressOption,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for further lines until it ends.")] = True,
) -> None:
    """Print the log of a submitted sweep, and follow it."""
    from kdsweep.tune.jobs import Jobs

    jobs = Jobs(address)
    job = jobs.of_sweep(sweep)
    if follow:
        _follow(jobs, job, address)
    else:
        sys.stdout.write(printable(jobs.log(job)))


def stop(sweep: SweepArgument, address: AddressOption) -> None:
    """Stop a submitted sweep. Its progress is saved."""
    from kdsweep.tune.jobs import Jobs

    jobs = Jobs(address)
    job = jobs.of_sweep(sweep)
    if job.has_ended:
        raise InputError(f"{sweep}: job {job.key} has ended already: {job.status}")
    jobs.stop(job)
    _tell(f"stopped {job.sweep}; continue with: kdsweep submit SPEC --resume --address {address}")


COMMANDS = (submit, jobs, logs, stop)


def _follow(jobs: Jobs, job: Job, address: str) -> None:
    """Print the log of a job until it ends.

    Raises:
        SweepError: If the job failed or was stopped.
        Interrupted: After Ctrl-C.
    """
    try:
        for line in jobs.lines(job):
            sys.stdout.write(printable(line) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Interrupted(_left_or_stopped(jobs, job, address)) from None
    ended = jobs.job(job.key)
    if ended.status != "SUCCEEDED":
        raise SweepError(
            f"{job.sweep}: the job has {ended.status.lower()}: {ended.message}; continue with: kdsweep submit SPEC "
            f"--resume --address {address}"
        )


def _left_or_stopped(jobs: Jobs, job: Job, address: str) -> str:
    """Ask whether to stop the job; without a terminal it goes on. Return what was done."""
    answer = ""
    if sys.stdin.isatty():
        sys.stderr.write(f"\nstop {job.sweep} on the cluster? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip().lower()
    if answer in ("y", "yes"):
        jobs.stop(job)
        return f"stopped {job.sweep}; continue with: kdsweep submit SPEC --resume --address {address}"
    return (
        f"{job.sweep} continues on the cluster; follow it with: kdsweep logs {job.sweep} --address {address}; stop it "
        f"with: kdsweep stop {job.sweep} --address {address}"
    )


def _resources(given: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in given:
        key, equals, number = one.partition("=")
        try:
            found[key] = float(number)
        except ValueError:
            equals = ""
        if not equals or not key:
            raise InputError(f"--driver-resource {one}: accepted: NAME=NUMBER, such as head=0.01")
    return found


def _columns() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _tell(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
