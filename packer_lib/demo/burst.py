"""A burst of load that the pipelines should notice: processors, loopback network and disk, for some seconds.

    python -m packer_lib.demo.burst --seconds 10 --folder .demo

Runs at the lowest priority, so that what it disturbs is the picture of the machine and not its work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

CHUNK = 1 << 20
FILE_SIZE = 64 * CHUNK


def burn(end: float) -> None:
    """Keeps one core busy until `end` (of `time.monotonic`, which all processes of a machine share)."""
    while time.monotonic() < end:
        sum(range(50_000))


def talk(end: float) -> None:
    """Sends bytes to itself through the loopback interface until `end`."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            threading.Thread(target=_drain, args=(receiver,), daemon=True).start()
            block = bytes(CHUNK)
            while time.monotonic() < end:
                sender.sendall(block)
            sender.shutdown(socket.SHUT_WR)


def _drain(receiver: socket.socket) -> None:
    while receiver.recv(CHUNK):
        pass


def read_disk(end: float, folder: Path) -> None:
    """Reads a file again and again until `end`, from the disk each time: its pages are dropped from the cache first."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(os.urandom(CHUNK) * (FILE_SIZE // CHUNK))
        file.flush()
        os.fsync(file.fileno())
        while time.monotonic() < end:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            while file.read(CHUNK) and time.monotonic() < end:
                pass


def main(argv: list[str] | None = None) -> int:
    """Returns when the burst is over, some tenths of a second after `--seconds`."""
    parser = argparse.ArgumentParser(prog="python -m packer_lib.demo.burst", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that is read")
    options = parser.parse_args(argv)
    os.nice(19)
    end = time.monotonic() + options.seconds
    workers = [multiprocessing.Process(target=burn, args=(end,), daemon=True) for _ in range(os.cpu_count() or 1)]
    workers.append(multiprocessing.Process(target=talk, args=(end,), daemon=True))
    workers.append(multiprocessing.Process(target=read_disk, args=(end, options.folder), daemon=True))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
