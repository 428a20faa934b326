"""What of the runtime a unit needs: files and requirements, from the catalogue. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from packer_lib.plan import Plan, Unit
from packer_lib.runtime.catalogue import CHECKS, CONNECTORS, CORE, FORMATS, FRAMEWORKS, PACKAGE_MODES, Plugin, find


def plugins(plan: Plan, unit: Unit) -> tuple[Plugin, ...]:
    """The catalogue's entries that `unit` uses, each once: the package mode, then connectors, frameworks, formats of
    its queues, and the check of messages where a queue that it reads has a schema."""
    connectors = sorted({plan.queue(name).connector for name in queues(unit)})
    frameworks = sorted({step.framework for step in unit.steps if step.framework})
    return (
        find("package mode", plan.package_mode, PACKAGE_MODES),
        *(find("connector", name, CONNECTORS) for name in connectors),
        *(find("framework", name, FRAMEWORKS) for name in frameworks),
        *(find("format", name, FORMATS) for name in formats(unit)),
        *((CHECKS["json-schema"],) if any(plan.queue(name).schema is not None for name in unit.sources) else ()),
    )


def formats(unit: Unit) -> tuple[str, ...]:
    """The formats of the queues that `unit` reads and writes, sorted; between its steps values have none."""
    read = {step.input_format for step in unit.steps if set(step.inputs) & set(unit.sources)}
    written = {step.output_format for step in unit.steps if set(step.outputs) & set(unit.sinks)}
    return tuple(sorted(read | written))


def queues(unit: Unit) -> tuple[str, ...]:
    """Every queue that `unit` reads from or writes to, dead letters included."""
    dead = [step.dead_letter for step in unit.steps if step.dead_letter]
    return tuple(dict.fromkeys([*unit.sources, *unit.sinks, *dead]))


def modules(used: tuple[Plugin, ...]) -> tuple[str, ...]:
    """The runtime files below `packer_lib/runtime` for these entries, sorted, with the packages they are in."""
    files = {*CORE, *(module for plugin in used for module in plugin.modules)}
    packages = {str(PurePosixPath(file).parent / "__init__.py") for file in files}
    return tuple(sorted(files | packages))


def needs(used: tuple[Plugin, ...]) -> tuple[str, ...]:
    """The entries that have requirements, by name; each has a committed lock of that name."""
    return tuple(plugin.name for plugin in used if plugin.requires)


def requirements(used: tuple[Plugin, ...]) -> tuple[str, ...]:
    """The direct requirements of these entries, sorted."""
    return tuple(sorted({requirement for plugin in used for requirement in plugin.requires}))
