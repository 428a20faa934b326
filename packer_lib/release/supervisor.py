"""One supervisord per user who deploys: its configuration, starting it, and what it says of a unit."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import time
from functools import cache
from pathlib import Path
from typing import Any

from packer_lib import commands
from packer_lib.errors import DeployFailed
from packer_lib.hosts import Host
from packer_lib.hosts.home import clean_environment, must, put_text
from packer_lib.hosts.layout import DOOR, Layout, program, short_folder
from packer_lib.hosts.lock import hold
from packer_lib.release.model import Release, number_of
from packer_lib.release.state import State
from packer_lib.runtime.manifest import LEFT

LONGEST_SOCKET = 90  # sun_path holds 108 bytes, and supervisor binds `<path>.<pid>` first
ANSWER_WITHIN = 15.0
START_WITHIN = 120.0  # of all who want to; clearing away alone may take 45 s
LOCK = "SUPERVISOR"  # no pipeline's id: those have no capitals
STOP_WITHIN = 30  # seconds from TERM to KILL: a unit finishes its batch and closes its connections
RETIRE_WITHIN = 120  # seconds that a replica has to finish what its broker gave to it alone, before TERM
SETTLED_AFTER = 10  # a unit that lives this long is started; less is a failed start and counted


def conf_value(value: str) -> str:
    """`value` as supervisor's configuration reads it back unchanged; `DeployFailed` for what no escape exists for."""
    if re.search(r"[\n\r\0]|\s[;#]", value) or value != value.strip():
        raise DeployFailed(
            f"supervisor cannot read {value!r} in its configuration",
            "choose a home without line breaks, ' ;' and ' #' in it (MLPACKER__PATHS__HOME)",
        )
    return value.replace("%", "%%")


def render(template: str, **values: Any) -> str:
    return str(_templates().get_template(template).render(values))


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701  these are configuration files, with an escape of their own
        loader=PackageLoader("packer_lib"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["conf"] = conf_value
    return environment


def unit_conf(host: Host, layout: Layout, release: Release, process: str) -> str:
    """The program section of one process of a release. One of several stays away when it has left for good; the first
    has the unit's port, and the others say in their state folder which they found."""
    pipeline, unit, number = release.pipeline, release.unit, number_of(process)
    launch = f"{layout.history(pipeline, unit, release.id)}/launch.json"
    told = (f"MLPACKER_REPLICA={number}", f"MLPACKER_REPLICAS={release.replicas}") if release.replicas > 1 else ()
    own_port = ("MLPACKER_PORT=0",) if number else ()
    command = commands.toolbox(host.python, layout.toolbox, "launch", launch, *told, *own_port)
    return _program(
        layout,
        program(pipeline, unit, process),
        command,
        layout.log(pipeline, unit, number),
        ends_with=LEFT if told else None,
    )


def door_conf(host: Host, layout: Layout, release: Release) -> str:
    """The program section of the unit's door, for the public port of this release. Nobody gives a door up."""
    name = program(release.pipeline, release.unit, DOOR)
    folder = layout.door(release.pipeline, release.unit, host.uid)
    command = commands.door(host.python, layout.door_program, "hold", folder, release.host, str(release.port))
    return _program(layout, name, command, f"{layout.home}/logs/{name}.log", 1, 1000)


def _program(  # noqa: PLR0913  what supervisor has to know
    layout: Layout,
    name: str,
    command: commands.Argv,
    log: str,
    startsecs: int = SETTLED_AFTER,
    startretries: int = 4,
    ends_with: int | None = None,
) -> str:
    return render(
        "supervisor.conf.j2",
        program=name,
        command=shlex.join(command),
        directory=layout.home,
        log=log,
        startsecs=startsecs,
        startretries=startretries,
        stopwaitsecs=STOP_WITHIN,
        ends_with=ends_with,
    )


def configure(host: Host, layout: Layout) -> None:
    """Supervisor's own configuration, as this version wants it."""
    if glob.escape(layout.home) != layout.home:
        raise DeployFailed(
            f"supervisor takes the home {layout.home!r} for a pattern",
            "choose one without *, ? and [ in it (MLPACKER__PATHS__HOME)",
        )
    socket = socket_path(layout.home, host.uid)
    if not socket.startswith(f"{layout.home}/"):
        _make_private(host, layout, socket.rpartition("/")[0])
    put_text(host, render("supervisord.conf.j2", home=layout.home, socket=socket), layout.supervisord)


def socket_path(home: str, uid: int) -> str:
    """`supervisor.sock` in `home`, or in a short folder when the path would be too long for a socket."""
    plain = f"{home}/supervisor.sock"
    return plain if len(plain.encode()) <= LONGEST_SOCKET else f"{short_folder(home, uid)}/supervisor.sock"


def _make_private(host: Host, layout: Layout, folder: str) -> None:
    if host.machine is None:
        private_folder(Path(folder))
    else:
        must(host, commands.toolbox(host.python, layout.toolbox, "private", folder))


def private_folder(folder: Path) -> None:
    """Makes `folder`, or makes sure that it is ours alone: in /tmp anyone may have been there first."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        there = folder.lstat()
        if folder.is_symlink() or there.st_uid != os.getuid() or there.st_mode & 0o077:
            raise DeployFailed(
                f"{folder} is not ours alone", f"look who made it (ls -ld {folder}), then remove it"
            ) from None


def update(host: Host, layout: Layout, name: str) -> bool:
    """Supervisor (started when nobody answers) runs the program as `conf.d` says; False when it did already."""
    return bool(_told(host, layout, "update", name).get("changed"))


def again(host: Host, layout: Layout, name: str) -> None:
    """A program that supervisor has given up starts afresh; it is not waited for."""
    _told(host, layout, "again", name)


def forget(host: Host, layout: Layout, *names: str) -> bool:
    """The programs are stopped, all at once, and not known any more until their files are read again; False when nobody
    answers."""
    answer = _say(host, layout, "forget", *names)
    if "error" in answer and not answer.get("gone"):
        raise DeployFailed(f"supervisor on {host.name} does not stop {', '.join(names)}: {answer['error']}")
    return not answer.get("gone")


def retire(host: Host, layout: Layout, *names: str) -> None:
    """They have left for good, in order, or run on after `RETIRE_WITHIN` seconds; supervisor knows them still."""
    answer = _say(host, layout, "retire", str(RETIRE_WITHIN), *names, within=RETIRE_WITHIN)
    if "error" in answer and not answer.get("gone"):
        raise DeployFailed(f"supervisor on {host.name} does not tell {', '.join(names)} to leave: {answer['error']}")


def _told(host: Host, layout: Layout, word: str, name: str) -> dict[str, Any]:
    answer = _say(host, layout, word, name)
    if answer.get("gone"):
        start(host, layout)
        answer = _say(host, layout, word, name) | ({"changed": True} if word == "update" else {})
    if "error" in answer:
        raise DeployFailed(f"supervisor on {host.name} does not take {name}: {answer['error']}")
    return answer


def _say(host: Host, layout: Layout, *words: str, within: float = STOP_WITHIN) -> dict[str, Any]:
    word, *rest = words
    argv = commands.toolbox(host.python, layout.toolbox, word, socket_path(layout.home, host.uid), *rest)
    result = host.run(argv, env=clean_environment(host), timeout=within + ANSWER_WITHIN)
    if not result.ok:
        return {"error": result.tail(3), "gone": True}  # no toolbox: nothing was ever started there
    answer: dict[str, Any] = json.loads(result.out)
    return answer


def ask(host: Host, layout: Layout, name: str) -> State:
    """What supervisor says of one program; UNKNOWN also when no supervisor runs, which is never started for a
    question."""
    return ask_all(host, layout).get(name, State("UNKNOWN"))


def ask_all(host: Host, layout: Layout) -> dict[str, State]:
    """Every program that supervisor knows, by its name."""
    found = _say(host, layout, "programs").get("programs", [])
    return {one["name"]: State(one["word"], one["pid"], one["text"]) for one in found}


def start(host: Host, layout: Layout) -> None:
    """Starts supervisord in a session and an environment of its own: it outlives the task that needed it.

    One at a time: several pipelines may be the first on a machine at once, and what is left of a supervisord that ended
    is cleared away before, which would be the one that another has just started.
    """
    with hold(host, layout, LOCK, "starting supervisor", wait=START_WITHIN, progress=lambda _: None):
        if _say(host, layout, "programs").get("gone"):
            _start(host, layout)


def _start(host: Host, layout: Layout) -> None:
    host.run(
        commands.toolbox(host.python, layout.toolbox, "clear", layout.supervisord, socket_path(layout.home, host.uid))
    )
    begun = host.run(
        commands.supervisord(host.python, layout.supervisord), env=clean_environment(host), timeout=ANSWER_WITHIN
    )
    # one that somebody else starts at the same moment, by hand or at boot, makes ours fail, and answers soon
    end = time.monotonic() + (ANSWER_WITHIN if begun.ok else ANSWER_WITHIN / 5)
    while (answer := _say(host, layout, "programs")).get("gone"):
        if time.monotonic() > end:
            log = host.run(commands.tail(f"{layout.home}/logs/supervisord.log", 5)).out
            said = "\n".join(text for text in (str(answer["error"]), begun.tail(5), log) if text)
            raise DeployFailed(f"supervisord did not start on {host.name}: {said}".rstrip())
        time.sleep(0.05)


def stop_if_idle(host: Host, layout: Layout) -> bool:
    """No supervisord without units. One that is needed the next moment starts again by itself (see `update`)."""
    if host.run(commands.names(f"{layout.home}/conf.d")).out.strip():
        return False
    host.run(commands.supervisorctl(host.python, layout.supervisord, "shutdown"), env=clean_environment(host))
    return True
