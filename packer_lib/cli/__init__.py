"""The command line: reads arguments, calls one function of the library, prints what it gives, maps errors to exit
codes.

Data goes to stdout, messages to stderr. What a command needs is imported inside it, so that `mlpacker plan` starts
fast.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from packer_lib import __version__
from packer_lib.cli.secure import secure
from packer_lib.cli.trust import trust
from packer_lib.errors import MLPackerError, PadlInvalid, PolicyRefused, Problem, printable

if TYPE_CHECKING:
    from packer_lib.plan import Plan
    from packer_lib.release import UnitStatus

app = typer.Typer(
    name="mlpacker",
    help="Packages and deploys the pipelines that PADL files describe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
File = Annotated[Path, typer.Argument(help="A PADL file, .json or .yaml.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="The pipeline's id.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")]
WIDE = 110  # columns from which a table has room for model versions


def say(text: str) -> None:
    """A message for people, on stderr; names from files cannot drive their terminal."""
    print(printable(text), file=sys.stderr, flush=True)


def show(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks for unexpected errors.")] = False,
) -> None:
    if debug:
        os.environ["MLPACKER_DEBUG"] = "1"
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PADL files.", show_default=False)],
    artefacts: Annotated[bool, typer.Option("--artefacts", help="Look at models and code too.")] = False,
    as_json: Json = False,
) -> None:
    """Check PADL files; every problem of every file at once. With --json, one object per file and line."""
    from packer_lib.cli.report import validate as check

    found = check(files, artefacts)
    for file, problems in found.items():
        _print_json_report(file, problems) if as_json else _print_report(file, problems)
    levels = {problem.level for problems in found.values() for problem in problems} - {"warning"}
    if levels:
        raise typer.Exit(PolicyRefused.exit_code if levels == {"refused"} else PadlInvalid.exit_code)


def _print_json_report(file: str, problems: list[Problem]) -> None:
    from dataclasses import asdict

    report = {"file": file, "valid": _is_valid(problems), "problems": [asdict(problem) for problem in problems]}
    print(json.dumps(report, ensure_ascii=False))


def _print_report(file: str, problems: list[Problem]) -> None:
    for problem in problems:
        say(str(problem))
    if _is_valid(problems):
        print(printable(f"{file}: valid"))


def _is_valid(problems: list[Problem]) -> bool:
    return all(problem.level == "warning" for problem in problems)


def _plan(file: Path) -> Plan:
    from packer_lib import padl
    from packer_lib.plan import plan as make

    pipeline = padl.read(file)
    for warning in pipeline.warnings:
        say(str(warning))
    return make(pipeline)


@app.command()
def plan(file: File, as_json: Json = False) -> None:
    """Show which processes a PADL file becomes, where they run and what joins them."""
    made = _plan(file)
    if as_json:
        from packer_lib.plan import summary

        show(summary(made))
    else:
        from packer_lib.cli.report import picture

        print(picture(made))


@app.command()
def bundle(
    file: File, output: Annotated[Path, typer.Option("--output", "-o", help="A folder; one folder per unit in it.")]
) -> None:
    """Write the folders that would be deployed; each runs anywhere."""
    from packer_lib import artefacts, settings
    from packer_lib import bundle as bundles

    made, config = _plan(file), settings.read()
    for unit in made.units:
        written = bundles.write(made, unit, artefacts.fetch(made, unit, config), output / unit.name, config)
        print(printable(f"{written.path}  {written.digest}"))


@app.command()
def deploy(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a pipeline live on its machines; on failure everything is as it was before, on all of them."""
    from packer_lib import release, settings

    made = _plan(file)
    done = release.deploy(made, settings.read(), dry_run=dry_run, progress=say)
    _print_changes(made.pipeline, done, as_json, dry_run=dry_run)


def _print_changes(pipeline: str, done: Sequence[UnitStatus], as_json: bool, **more: bool) -> None:
    from dataclasses import asdict

    if as_json:
        show({"pipeline": pipeline, **more, "units": [asdict(unit) for unit in done]})
        return
    remote = any(unit.machine for unit in done)
    for unit in done:
        where = f"{unit.machine or 'this machine'}  " if remote else ""
        print(printable(f"{unit.unit}  {where}{unit.action}  {unit.release or '-'}  {unit.endpoint or '-'}"))


@app.command()
def swap(  # noqa: PLR0913
    pipeline_id: Id,
    step: Annotated[str, typer.Argument(metavar="STEP", help="One of its model steps.", show_default=False)],
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A file, folder or URL.", show_default=False)] = "",
    sha256: Annotated[str, typer.Option(help="What its digest has to be.")] = "",
    stage: Annotated[bool, typer.Option("--stage", help="Load it beside the live one, as the candidate.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Make the candidate live.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Take the candidate away.")] = False,
    shadow: Annotated[
        float | None, typer.Option(help="Give the candidate copies of this share of what is asked, 0 to 1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a unit that runs a new model, without a restart; one that does not fit is refused."""
    from packer_lib import release, settings

    asked = [name for name, given in _changes(model, promote, discard, shadow).items() if given]
    if len(asked) != 1 or (asked != ["MODEL"] and (stage or sha256)):
        raise typer.BadParameter(
            "name a MODEL (which --stage and --sha256 are about), or one of --promote, --discard and --shadow"
        )
    config = settings.read()
    if model:
        done = release.swap(pipeline_id, step, model, config, sha256=sha256, stage=stage, progress=say)
    elif shadow is not None:
        done = release.shadow(pipeline_id, step, shadow, config, progress=say)
    else:
        done = (release.promote if promote else release.discard)(pipeline_id, step, config, progress=say)
    _print_changes(pipeline_id, done, as_json)
    if stage and not as_json:
        say(f"ask it with ?version=candidate; then mlpacker swap {pipeline_id} {step} --promote, or --discard")


def _changes(model: str, promote: bool, discard: bool, shadow: float | None) -> dict[str, bool]:
    return {"MODEL": bool(model), "--promote": promote, "--discard": discard, "--shadow": shadow is not None}


@app.command()
def rollback(
    pipeline_id: Id,
    release_id: Annotated[str, typer.Argument(metavar="[RELEASE]", help="One that was live before.")] = "",
    as_json: Json = False,
) -> None:
    """Go back to what was live before, on all machines; without loss, as a deploy."""
    from packer_lib import release, settings

    done = release.rollback(pipeline_id, settings.read(), release_id, progress=say)
    _print_changes(pipeline_id, done, as_json)


@app.command()
def status(
    pipeline_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One pipeline only.")] = None,
    as_json: Json = False,
) -> None:
    """Say what is live on every machine that was deployed to from here, asked of the machines."""
    from packer_lib import settings
    from packer_lib import status as machine

    found = machine.status(settings.read(), pipeline_id)
    if as_json:
        show(found[0] if pipeline_id else found)
    else:
        _print_table(found)


def _print_table(found: list[dict[str, Any]]) -> None:
    """One line per unit. Which model is live takes a wide terminal, or a pipe; `--json` always has it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from packer_lib.cli.report import ago

    console = Console(width=None if sys.stdout.isatty() else 200)
    wide = console.width >= WIDE
    remote = any(unit["machine"] for pipeline in found for unit in pipeline["units"])
    table = Table(box=box.SIMPLE, pad_edge=False)
    machine, models = ["machine"] if remote else [], ["models"] if wide else []
    for head in ("pipeline", "unit", *machine, "state", "endpoint", "release", "since", *models):
        table.add_column(head, overflow="fold", no_wrap=head in {"unit", "endpoint", "release"})
    for pipeline in found:
        for unit in pipeline["units"]:
            where = [unit["machine"] or "this machine"] if remote else []
            cells = [pipeline["pipeline"], unit["name"], *where, _state(unit), unit["endpoint"], unit["release"]]
            cells += [ago(unit["since"], datetime.now(UTC)), *([_models(unit)] if wide else [])]
            table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table if table.row_count else Text("nothing is deployed here"))


def _state(unit: dict[str, Any]) -> str:
    """`failed 1/2: replica 1: …`; how many run of how many only where there are several."""
    replicas = unit["replicas"]
    count = f" {replicas['running']}/{replicas['wanted']}" if replicas["wanted"] > 1 else ""
    return f"{unit['state']}{count}: {unit['reason']}" if unit["reason"] else f"{unit['state']}{count}"


def _models(unit: dict[str, Any]) -> str:
    """What is live, and what is loaded beside it: `lstm 6fd1c0ffee12 (candidate 2b0071a3a9c4)`."""
    return ", ".join(f"{model['step']} {model['version']}{_beside(unit, model)}" for model in unit["models"])


def _beside(unit: dict[str, Any], model: dict[str, Any]) -> str:
    others = [one for one in unit["versions"] if one["step"] == model["step"] and one.get("label") != "stable"]
    said = ", ".join(f"{one.get('label') or one.get('number')} {one['version']}" for one in others)
    return f" ({said})" if said else ""


@app.command()
def logs(
    pipeline_id: Id,
    unit: Annotated[str | None, typer.Argument(metavar="[UNIT]", help="One unit only.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many to begin with.")] = 100,
) -> None:
    """Print what the units of a pipeline logged."""
    from packer_lib import settings
    from packer_lib import status as machine

    read = machine.follow if follow else machine.logs
    for line in read(settings.read(), pipeline_id, unit, lines):
        print(line, flush=follow)


@app.command()
def undeploy(pipeline_id: Id) -> None:
    """Stop and remove every unit of a pipeline on all its machines; nothing of it is left."""
    from packer_lib import release, settings

    if not release.undeploy(pipeline_id, settings.read(), progress=say):
        say(f"nothing of {pipeline_id!r} is deployed here")


@app.command()
def airflow(
    folder: Annotated[Path, typer.Argument(help="The watched folder, for PADL files.")] = Path("pipelines"),
    port: Annotated[int, typer.Option(help="Where its pages are, on 127.0.0.1.")] = 8080,
) -> None:
    """Run Airflow on this machine, deploying the PADL files of a folder, until Ctrl-C."""
    from dataclasses import replace

    from packer_lib import settings, standalone

    ports = replace(standalone.free_ports(), api=port)
    server = standalone.Airflow(settings.read().home / "airflow", folder.absolute(), ports)
    say(f"starting Airflow; its logs are in {server.home}")
    with server:
        print(f"{server.url}  user {standalone.ADMIN}  password {server.password}", flush=True)
        say(f"watching {server.pipelines}; Ctrl-C ends Airflow, what it deployed stays")
        server.watch()


@app.command()
def schema(version: Annotated[str, typer.Argument(help="A PADL version.")] = "1.1") -> None:
    """Print the JSON Schema of a PADL version, for editors."""
    from packer_lib.padl.schema import VERSIONS, text

    if version not in VERSIONS:
        raise typer.BadParameter(f"there is {', '.join(VERSIONS)}", param_hint="VERSION")
    print(text(version), end="")


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A PADL file, for its machines.")] = None,
    as_json: Json = False,
) -> None:
    """Check what this machine, and every machine of a PADL file, has of what a deploy needs."""
    from dataclasses import asdict

    from packer_lib import settings
    from packer_lib.cli.doctor import examine, examine_machines

    config = settings.read()
    found = examine(config) + (examine_machines(file, config) if file else [])
    if as_json:
        show([asdict(finding) for finding in found])
    else:
        for finding in found:
            print(printable(str(finding)))
    if not all(finding.ok for finding in found if finding.needed):
        raise typer.Exit(1)


app.command()(trust)
app.command()(secure)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Ours: the message, the hint, and the error's own exit code. Others: one line, since they are ours to mend."""
    try:
        yield
    except MLPackerError as error:
        say(str(error) if isinstance(error, PadlInvalid) else f"error: {error}")
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            say(f"error: {error.filename}: {error.strerror}")
            sys.exit(1)
        if os.environ.get("MLPACKER_DEBUG"):
            traceback.print_exc()
        say(f"error: {type(error).__name__}: {error}\n  this is a bug; run it again with --debug and report it")
        sys.exit(1)


def main() -> None:
    """The `mlpacker` program."""
    # A deploy that is asked to end puts everything back first: TERM becomes an exception like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with mapped_errors():
        app()


if __name__ == "__main__":
    main()
