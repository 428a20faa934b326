"""A bundle as an image: built, checked, pushed, brought to a machine, removed. Everything asks the docker client.

`words` and `names` are pure; `build`, `push` and `deliver` run them on a host. May import plan, bundle, build, hosts.
"""

from __future__ import annotations

from packer_lib.images.build import build, check, inspect
from packer_lib.images.deliver import deliver, present
from packer_lib.images.model import Image, Registry, registry_of
from packer_lib.images.push import push
from packer_lib.images.remove import forget, remove

__all__ = [
    "Image",
    "Registry",
    "build",
    "check",
    "deliver",
    "forget",
    "inspect",
    "present",
    "push",
    "registry_of",
    "remove",
]
