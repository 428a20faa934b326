"""The rules between the parts of a file, which no schema can hold: `Pipeline` → findings. Pure.

Each rule is a function of the pipeline; `links` has those about steps and queues, `placement` those about machines and
units, and this module the rest and the list of all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from packer_lib.padl import containers, control, cron, delivery, links, messages, paths, placement
from packer_lib.padl.document import Finding
from packer_lib.padl.model import Pipeline, Queue, Step

Rule = Callable[[Pipeline], Iterator[Finding]]
_SECRET_KEYS = ("conn_id", "key_file", "pass_env", "pass")


def check(pipeline: Pipeline, value: dict[str, Any]) -> list[Finding]:
    """Every finding of every rule. `value` is the document, for what the pipeline leaves out on purpose (secrets)."""
    found = [finding for rule in RULES for finding in rule(pipeline)]
    return [*found, *_logins(pipeline, value), *control.references(value)]


def _schedule(pipeline: Pipeline) -> Iterator[Finding]:
    fault = cron.fault(pipeline.schedule) if pipeline.schedule else ""
    if fault:
        presets = ", ".join(cron.PRESETS)
        yield Finding(("schedule",), f"not a schedule: {fault}", f'such as "0 3 * * *", or one of {presets}')


def _paths(pipeline: Pipeline) -> Iterator[Finding]:
    for step in pipeline.steps:
        if not step.path:
            continue
        fault = paths.code_fault(step.path) if step.kind == "code" else paths.model_fault(step.path)
        if fault:
            yield Finding(("pipeline", step.name, "props", "path"), fault.message, fault.hint)
        elif step.ref and not paths.is_git(step.path):
            message = "'ref' is for git repositories, and the path is a folder"
            yield Finding(("pipeline", step.name, "props", "ref"), message, on="key")


def _fates(pipeline: Pipeline) -> Iterator[Finding]:
    for step in pipeline.steps:
        yield from _fate(step, pipeline.package_mode == "api")


def _fate(step: Step, api: bool) -> Iterator[Finding]:
    here = ("pipeline", step.name)
    if step.on_error == "dead_letter" and api:
        message = "dead letters are for stream pipelines"
        yield Finding((*here, "on_error"), message, "an api pipeline answers the caller")
    elif step.on_error == "dead_letter" and not step.dead_letter:
        hint = 'the queue for messages that fail, for example "dead_letter": "failed"'
        yield Finding((*here, "on_error"), "missing 'dead_letter'", hint)
    elif step.dead_letter and step.on_error != "dead_letter":
        message = '\'dead_letter\' needs "on_error": "dead_letter"'
        yield Finding((*here, "dead_letter"), message, f'without it, "{step.on_error}" applies', on="key")


def _topics(pipeline: Pipeline) -> Iterator[Finding]:
    written = {name for step in pipeline.steps for name in (*step.outputs, step.dead_letter)}
    for queue in pipeline.queues:
        if queue.connector == "mqtt" and re.search(r"[+#]", queue.topic):
            yield from _wildcards(queue, queue.id in written)


def _wildcards(queue: Queue, written: bool) -> Iterator[Finding]:
    here = ("queues", queue.id, "props", "topic")
    if written:
        yield Finding(here, "'+' and '#' are for reading, and a step writes to this queue")
    levels = queue.topic.split("/")
    if any(len(level) > 1 and re.search(r"[+#]", level) for level in levels) or "#" in levels[:-1]:
        message = "'+' and '#' stand for whole levels, '#' for the last ones only"
        yield Finding(here, message, "such as plant/+/readings or plant/#")


def _same_topics(pipeline: Pipeline) -> Iterator[Finding]:
    first: dict[object, str] = {}
    for queue in pipeline.queues:
        known = first.setdefault(links.identity(queue), queue.id)
        if known != queue.id:
            yield Finding(("queues", queue.id), f"this is the same topic as queue '{known}'", level="warning", on="key")


def _passwords(pipeline: Pipeline) -> Iterator[Finding]:
    for queue in pipeline.queues:
        here = ("queues", queue.id, "props")
        if "pass_env" in queue.options and "username" not in queue.options:
            yield Finding((*here, "pass_env"), "'pass_env' needs 'username'", on="key")
        elif "username" in queue.options and "pass_env" not in queue.options and queue.connector != "mqtt":
            yield Finding((*here, "username"), "'username' needs 'pass_env'", on="key")


def _listening(pipeline: Pipeline) -> Iterator[Finding]:
    for queue in pipeline.queues:
        if queue.options.get("role") == "server" and queue.options.get("tls"):
            message = "a websocket server takes no TLS connections itself"
            hint = "leave tls out and put a proxy with the certificate before it"
            yield Finding(("queues", queue.id, "props", "tls"), message, hint, on="key")


def _logins(pipeline: Pipeline, value: dict[str, Any]) -> Iterator[Finding]:
    for machine in pipeline.machines:
        login = value["infra"][machine.id].get("sshConfig")
        if isinstance(login, dict):
            yield from _login(("infra", machine.id, "sshConfig"), login, pipeline.version)


def _login(here: tuple[str, ...], login: dict[str, Any], version: str) -> Iterator[Finding]:
    given = [key for key in _SECRET_KEYS if key in login]
    if len(given) > 1:
        message = f"{' and '.join(given)} are given, and one is enough"
        yield Finding((*here, given[-1]), message, f"keep {given[0]}", on="key")
    if "pass" in login:
        newer = "" if version == "1.1" else ', which need "version": "1.1"'
        hint = f"safer, best first: conn_id, key_file with host_key, pass_env{newer}"
        yield Finding((*here, "pass"), "the password is in this file in plain text", hint, level="warning", on="key")


RULES: tuple[Rule, ...] = (
    links.names,
    links.references,
    links.ends,
    links.api,
    links.circles,
    placement.machines,
    placement.neighbours,
    placement.ports,
    placement.replicas,
    placement.twins,
    placement.calls,
    control.without_effect,
    control.range_of_ports,
    containers.without_effect,
    containers.limits,
    containers.brokers,
    links.unused,
    messages.schemas,
    _schedule,
    _paths,
    _fates,
    delivery.exactly_once,
    _topics,
    _same_topics,
    _passwords,
    _listening,
)
