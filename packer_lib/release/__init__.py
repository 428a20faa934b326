"""Releases of units on a machine: stage, switch, verify, and back again when one of them does not answer.

A machine is asked, not remembered: `records` reads what is there, `supervisor` what runs. May import plan, artefacts,
bundle, build and hosts.
"""

from __future__ import annotations

from packer_lib.release.deploy import deploy, refuse_what_is_elsewhere, undeploy
from packer_lib.release.live import locked, switch_all, verify_all
from packer_lib.release.model import Release, UnitStatus
from packer_lib.release.restore import restore
from packer_lib.release.stage import check, stage
from packer_lib.release.switch import switch
from packer_lib.release.verify import verify

__all__ = [
    "Release",
    "UnitStatus",
    "check",
    "deploy",
    "locked",
    "refuse_what_is_elsewhere",
    "restore",
    "stage",
    "switch",
    "switch_all",
    "undeploy",
    "verify",
    "verify_all",
]
