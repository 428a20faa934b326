"""What a machine does for us itself: start a unit, find a port and its holder, ask a unit over HTTP.

Copied to every machine as one file and run there as `python -I -S toolbox.py WORD …`: standard library only, Python
≥3.8, and nothing of ours imported. Answers are one JSON line on stdout.

    launch FILE NAME=VALUE…      become the process FILE describes: {"argv", "env", "cwd"}, told this besides
    port HOST PORT               {"free", "pid", "command", "program"}: who listens there, as far as this user may see
    free HOST FIRST HOME         {"port"}: the first free one from FIRST that no release below HOME has
    http METHOD URL TIMEOUT      {"status", "body"}; status 0 when nobody answers; POST: {"body", "key"} on stdin
    private FOLDER               {}: makes the folder, ours alone; fails when somebody else may have been there first
    programs SOCKET              {"programs": [{"name", "word", "pid", "text"}]}: what the supervisord there runs
    update SOCKET NAME           {"changed": bool}: it runs that program, or does not, as its configuration now says
    again SOCKET NAME            {}: one that it had given up is started afresh; not waited for
    forget SOCKET NAME…          {}: they are stopped, all at once, and not known any more
    retire SOCKET SECONDS NAME…  {}: they are told to leave for good (USR1), and have, or the time is up
                                 of all these: {"error", "gone"}: `gone` when no supervisord answers there
    clear CONF SOCKET            {"ended"}: processes left of a supervisord that does not answer, itself first
    ready URL SECONDS            the same for GET, as soon as the status is 200 or when the time is up
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TRY_EVERY = 0.05
PORTS = 10000


def launch(file: str, *told: str) -> None:
    """Supervisor's own `environment =` cannot hold every value (both kinds of quotes, newlines, ` ;`); JSON can."""
    with open(file, encoding="utf-8") as handle:  # noqa: PTH123  pathlib would double the start time
        unit = json.load(handle)
    os.chdir(unit["cwd"])
    environ = {**os.environ, **unit["env"], **dict(item.split("=", 1) for item in told)}
    os.execve(unit["argv"][0], unit["argv"], environ)  # noqa: S606  this is the point


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; a connection that is still closing does not count."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def port(host: str, number: str) -> dict[str, object]:
    if is_free(host, int(number)):
        return {"free": True, "pid": 0, "command": "", "program": ""}
    pid = holder(int(number))
    return {"free": False, "pid": pid, "command": command_of(pid), "program": program_of(pid)}


def holder(number: int) -> int:
    """The process that listens on `number`; 0 when it is another user's, or this is not Linux."""
    inodes = {f"socket:[{inode}]" for inode in _listening(number)}
    for pid in _pids() if inodes else ():
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
        except OSError:
            continue
        for descriptor in descriptors:
            if _link(f"/proc/{pid}/fd/{descriptor}") in inodes:
                return pid
    return 0


def _listening(number: int) -> list[str]:
    """Inodes of sockets in state LISTEN (0A) on that port, see proc(5)."""
    inodes = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _text(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == number:
                inodes.append(fields[9])
    return inodes


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def command_of(pid: int) -> str:
    """Its program and arguments, cut short; empty for 0."""
    return _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()[:200] if pid else ""


def program_of(pid: int) -> str:
    """What supervisor calls it, when a supervisor started it: `SOCKET PROGRAM`."""
    marks = dict(item.partition("=")[::2] for item in _text(f"/proc/{pid}/environ").split("\0"))
    if pid and "SUPERVISOR_SERVER_URL" in marks:
        return f"{marks['SUPERVISOR_SERVER_URL'].replace('unix://', '', 1)} {marks.get('SUPERVISOR_PROCESS_NAME', '')}"
    return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:  # noqa: PTH123
            return handle.read()
    except OSError:
        return ""


def free(host: str, first: str, home: str) -> dict[str, int]:
    taken = _promised(home)
    for number in range(int(first), int(first) + PORTS):
        if number not in taken and is_free(host, number):
            return {"port": number}
    return {"port": 0}


def _promised(home: str) -> set[int]:
    """Ports of every release that is or may come back live; its unit need not be running right now."""
    import glob

    files = glob.glob(os.path.join(glob.escape(home), "releases/*/*/history/*/release.json"))  # noqa: PTH118,PTH207
    return {json.loads(text)["port"] for text in map(_text, files) if text}


def private(folder: str) -> dict[str, str]:
    """In /tmp anyone may have made it before us, as a link or with rights for others."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102
    there = os.lstat(folder)
    if there.st_mode & 0o170077 != 0o040000 or there.st_uid != os.getuid():
        sys.exit(f"{folder} is not ours alone: look who made it (ls -ld {folder}), then remove it")
    return {}


def clear(conf: str, socket: str) -> dict[str, list[int]]:
    """A supervisord that was killed leaves its units behind, with their ports: supervisor marks their environment."""
    ended = [pid for pid in _pids() if _is_supervisord(pid, conf)]
    _end(ended, 15)
    marked = [
        pid for pid in _pids() if f"SUPERVISOR_SERVER_URL=unix://{socket}" in _text(f"/proc/{pid}/environ").split("\0")
    ]
    _end(marked, 30)
    return {"ended": ended + marked}


def _is_supervisord(pid: int, conf: str) -> bool:
    words = _text(f"/proc/{pid}/cmdline").split("\0")
    return "supervisor.supervisord" in words and conf in words


def _end(pids: list[int], seconds: float) -> None:
    """TERM, and KILL after `seconds`."""
    import signal

    end = time.monotonic() + seconds
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    while any(_runs(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(TRY_EVERY)
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _runs(pid: int) -> bool:
    """A zombie does not."""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


def http(method: str, url: str, timeout: str, body: bytes | None = None, key: str = "") -> dict[str, object]:
    import http.client
    from urllib.parse import urlsplit

    place = urlsplit(url)
    headers = {"Content-Type": "application/json"} if body else {}
    if key:
        headers["Authorization"] = "Bearer " + key
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=float(timeout))
    try:
        connection.request(
            method,
            place.path + (f"?{place.query}" if place.query else ""),
            body,
            headers,
        )
        response = connection.getresponse()
        return {"status": response.status, "body": response.read().decode("utf-8", "replace")}
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "body": str(error) or type(error).__name__}
    finally:
        connection.close()


def ready(url: str, seconds: str) -> dict[str, object]:
    end = time.monotonic() + float(seconds)
    while True:
        answer = http("GET", url, seconds)
        if answer["status"] == 200 or time.monotonic() >= end:
            return answer
        time.sleep(TRY_EVERY)


def supervised(word: str, path: str, *rest: str) -> dict[str, object]:
    """One word to supervisord over its Unix socket: a tenth of the time that `supervisorctl` takes to start."""
    import http.client
    import socket
    import xmlrpc.client

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(60)
            self.sock.connect(path)

    class Transport(xmlrpc.client.Transport):
        def make_connection(self, host: object) -> Connection:  # noqa: ARG002
            return Connection("localhost")

    server = xmlrpc.client.ServerProxy("http://localhost", transport=Transport()).supervisor
    try:
        return SUPERVISED[word](server, *rest)
    except xmlrpc.client.Fault as fault:
        return {"error": fault.faultString, "gone": fault.faultCode == SHUTTING_DOWN}
    except (OSError, http.client.HTTPException) as error:
        return {"error": str(error) or type(error).__name__, "gone": True}


SHUTTING_DOWN = 6  # supervisor.xmlrpc.Faults.SHUTDOWN_STATE


def _programs(server: Any) -> dict[str, object]:
    found = server.getAllProcessInfo()
    keys = {"name": "name", "word": "statename", "pid": "pid", "text": "description"}
    return {"programs": [{ours: info[theirs] for ours, theirs in keys.items()} for info in found]}


def _update(server: Any, name: str) -> dict[str, object]:
    """As `supervisorctl update NAME` does it."""
    ((added, changed, removed),) = server.reloadConfig()
    if name in changed or name in removed:
        _stop(server, name)
        server.removeProcessGroup(name)
    if name in changed or name in added:
        server.addProcessGroup(name)
    return {"changed": name in {*added, *changed, *removed}}


def _again(server: Any, name: str) -> dict[str, object]:
    _stop(server, name)
    server.removeProcessGroup(name)
    server.addProcessGroup(name)
    return {}


def _forget(server: Any, *names: str) -> dict[str, object]:
    there = [name for name in names if name in _known(server)]
    _stop(server, *there)
    for name in there:
        server.removeProcessGroup(name)
    return {}


def _known(server: Any) -> dict[str, Any]:
    return {info["name"]: info for info in server.getAllProcessInfo()}


def _stop(server: Any, *names: str) -> None:
    """Asked again and again: supervisor looks for ended processes once a second, and after every question."""
    for name in names:
        server.stopProcessGroup(name, False)
    while any(server.getProcessInfo(name)["statename"] == "STOPPING" for name in names):
        time.sleep(TRY_EVERY)


def _retire(server: Any, seconds: str, *names: str) -> dict[str, object]:
    """One that died of something else was started again, and is told again."""
    import xmlrpc.client

    told: set[int] = set()
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        found = [info for name, info in _known(server).items() if name in names]
        alive = [info for info in found if info["statename"] in ("RUNNING", "STARTING")]
        for info in alive:
            if info["pid"] not in told:
                with contextlib.suppress(xmlrpc.client.Fault):  # it has just ended
                    server.signalProcess(info["name"], "USR1")
                told.add(info["pid"])
        if not alive:
            break
        time.sleep(TRY_EVERY)
    return {}


SUPERVISED: dict[str, Callable[..., dict[str, object]]] = {
    "programs": _programs,
    "update": _update,
    "again": _again,
    "forget": _forget,
    "retire": _retire,
}


def main(argv: list[str]) -> None:
    word, *rest = argv
    if word == "launch":
        launch(*rest)
    elif word in SUPERVISED:
        print(json.dumps(supervised(word, *rest)))
    elif word == "http" and rest[0] != "GET":
        told = json.load(sys.stdin)  # a key is in nobody's argv
        print(json.dumps(http(rest[0], rest[1], rest[2], told["body"].encode(), told["key"])))
    else:
        words = {"port": port, "free": free, "private": private, "clear": clear, "http": http, "ready": ready}
        print(json.dumps(words[word](*rest)))  # type: ignore[operator]


if __name__ == "__main__":
    main(sys.argv[1:])
