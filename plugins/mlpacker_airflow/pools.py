"""One Airflow pool per machine, so that a dozen units do not log in there at once (sshd refuses that: MaxStartups).

A task whose pool does not exist is never scheduled, so a DAG names only pools that are known to exist. They are made in
the DAG processor, which may ask the database; where that cannot be (the plain generator, a test) tasks are in Airflow's
default pool. A pool is made once: how many tasks it lets in is the administrator's to change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from packer_lib.padl.model import Pipeline

SLOTS = 4

log = logging.getLogger(__name__)


def name(hostname: str) -> str:
    return f"mlpacker.{hostname}"


def of(pipeline: Pipeline | None) -> set[str]:
    """The pools that the tasks of a pipeline want."""
    remote = pipeline is not None and pipeline.deploy_mode == "remote"
    return {name(machine.hostname) for machine in pipeline.machines} if pipeline and remote else set()


def ensure(names: Iterable[str]) -> frozenset[str]:
    """Makes the pools that are missing; those of `names` that are there now."""
    wanted = frozenset(names)
    try:
        return wanted if not wanted else _ensure(wanted)
    except Exception as error:  # whatever keeps us from the database keeps nobody from their DAGs
        log.warning("no pools for %s: %s", ", ".join(sorted(wanted)), error)
        return frozenset()


def _ensure(wanted: frozenset[str]) -> frozenset[str]:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        there = set(session.scalars(select(Pool.pool).where(Pool.pool.in_(wanted))))
        for missing in wanted - there:
            description = "MLPacker: tasks that are logged in on this machine at the same time"
            session.add(Pool(pool=missing, slots=SLOTS, description=description, include_deferred=False))
    return wanted
