"""The door of an API unit: keeps the unit's public port and lends it to the release that is current.

A folder that runs alone, standard library only, Python ≥3.8: a bundle has it, and a machine can be sent it.

    python DOOR hold FOLDER HOST PORT           run; `FOLDER/door.sock` is where units and askers come to
    python DOOR hold FOLDER HOST PORT SECOND TARGET    … and what comes to SECOND is passed on, see passage.py
    python DOOR ask FOLDER status [SECONDS]     {"current", "holding", "waiting": {release: private port}, "port", …}
    python DOOR ask FOLDER switch ID [SECONDS]  the same, once ID has the port and the former one has left it;
                                                {"error": "…"} and exit code 1 when nothing was changed

DOOR is this folder, or `-m mlpacker_runtime.door` in a bundle.

The listening socket itself is lent (SCM_RIGHTS): a unit accepts on it, no byte of a request passes through here. While
nobody has it, connections wait in the kernel's queue: for 30 seconds after a release left or died, then they
are told 503 at once, as they are while no release was ever current. Whoever dies, the others go on: units serve on
what they hold and come back to a new door with it; `FOLDER/current` says who is to have it.
"""

from .line import Line, connect

__all__ = ["Line", "connect"]
