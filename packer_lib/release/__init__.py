"""Releases of units on a machine: stage, switch, verify, and back again when one of them does not answer.

A machine is asked, not remembered: `records` reads what is there, a `form` what runs; `native` and `container` are the
two forms. May import plan, artefacts, bundle, build, images, hosts and kept.
"""

from __future__ import annotations

from packer_lib.release.deploy import deploy
from packer_lib.release.live import locked, switch_all, verify_all
from packer_lib.release.model import Release, UnitStatus
from packer_lib.release.ready import preflight
from packer_lib.release.rollback import rollback
from packer_lib.release.same import as_it_runs, put_models
from packer_lib.release.stage import check, stage, told_with_place, variables
from packer_lib.release.swap import discard, promote, shadow, swap
from packer_lib.release.undeploy import undeploy

__all__ = [
    "Release",
    "UnitStatus",
    "as_it_runs",
    "check",
    "deploy",
    "discard",
    "locked",
    "preflight",
    "promote",
    "put_models",
    "rollback",
    "shadow",
    "stage",
    "swap",
    "switch_all",
    "told_with_place",
    "undeploy",
    "variables",
    "verify_all",
]
