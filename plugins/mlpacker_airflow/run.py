"""What a stage works with, and how values travel between tasks: as small JSON without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from packer_lib.plan import Plan, Unit, from_dict
from packer_lib.settings import Settings

if TYPE_CHECKING:
    from mlpacker_airflow.machines import Machines
    from packer_lib.artefacts import Artefact
    from packer_lib.build import Environment
    from packer_lib.bundle import Bundle
    from packer_lib.images import Image
    from packer_lib.release import Release

T = TypeVar("T")
VALIDATE = "validate"
SWAPS = "swaps"  # what `build` leaves when there is nothing to build: the release that goes on


@dataclass(frozen=True, slots=True)
class Run:
    """The task's context, this installation's settings, the PADL file's text, and what earlier tasks left."""

    context: Any
    settings: Settings
    text: str = ""

    @property
    def id(self) -> str:
        return str(self.context["run_id"])

    @property
    def plan(self) -> Plan:
        return from_dict(self._left(VALIDATE)["plan"])

    @contextmanager
    def machines(self, plan: Plan) -> Iterator[Machines]:
        """The plan's machines, this one, and those that the pipeline was on before."""
        from mlpacker_airflow import machines

        with machines.opened(machines.of_plan(plan, self.text, self.settings), self.settings) as fleet:
            yield fleet

    def with_registry(self, plan: Plan) -> Settings:
        """The settings, with the login of the registry where an Airflow connection has it."""
        from mlpacker_airflow import machines

        return machines.with_registry(self.settings, plan)

    def with_connections(self, plan: Plan) -> Settings:
        """The settings, with the secrets that Airflow connections have for the plan's units."""
        from mlpacker_airflow import machines

        return machines.with_connections(self.settings, plan)

    def artefacts(self, unit: str) -> tuple[Artefact, ...]:
        from packer_lib.artefacts import Artefact

        return tuple(value(item, Artefact) for item in self._left(VALIDATE)["artefacts"][unit])

    def bundle(self, unit: str) -> Bundle:
        from packer_lib.bundle import Bundle

        return value(self._left(f"{unit}.template"), Bundle)

    def environment(self, unit: str) -> Environment:
        from packer_lib.build import Environment

        return value(self._left(f"{unit}.build"), Environment)

    def swaps(self, unit: str) -> str:
        """The release that the unit goes on with, only with other models: nothing is built for it then. Or ""."""
        left = self._left(f"{unit}.build")
        return str(left.get(SWAPS, "")) if isinstance(left, dict) else ""

    def image(self, unit: str) -> Image:
        """As it was pushed, where it was."""
        from packer_lib.images import Image

        return value(self._left(f"{unit}.push") or self._left(f"{unit}.build"), Image)

    def made(self, plan: Plan, unit: Unit) -> Environment | Image:
        return self.image(unit.name) if plan.containerized else self.environment(unit.name)

    def releases(self, plan: Plan) -> list[Release]:
        from packer_lib.release import Release

        return [value(self._left(f"{unit.name}.stage"), Release) for unit in plan.units]

    def _left(self, task: str) -> Any:
        return self.context["ti"].xcom_pull(task_ids=task)


def plain(value: Any) -> Any:
    """`value` in JSON's types; paths as text."""
    return msgspec.to_builtins(value, enc_hook=str)


def value(plain: Any, kind: type[T]) -> T:
    """The reverse of `plain`."""
    return msgspec.convert(plain, kind, dec_hook=lambda wanted, text: wanted(text))
