"""A document's value → `Pipeline`.

Lenient: what the schema refuses becomes a default, so that the rules can still look at the rest of the file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from packer_lib.padl.model import Admin, Batch, Golden, Link, Machine, Pipeline, Queue, Resources, SecretRef, Step

SYNONYMS = {"sklearn": "scikit-learn"}
PORTS = {"mqtt": 1883, "kafka": 9092}
_QUEUE_KEYS = ("server", "port", "topic")
_SECRETS = (("conn_id", "conn"), ("key_file", "file"), ("pass_env", "env"))


def build(value: dict[str, Any], file: str) -> Pipeline:
    """The pipeline that `value` describes; complete and exact when the schema has nothing against it."""
    pipeline = Pipeline(
        version=_text(value, "version"),
        id=_text(value, "id"),
        containerized=value.get("containerized") is True,
        package_mode=cast("Any", _text(value, "package-mode")),
        deploy_mode=cast("Any", _text(value, "deploy-mode")),
        steps=tuple(_step(name, node) for name, node in _entries(value, "pipeline")),
        queues=tuple(_queue(name, node) for name, node in _entries(value, "queues")),
        machines=tuple(_machine(name, node) for name, node in _entries(value, "infra")),
        file=file,
    )
    return _with(pipeline, value)


def _with(pipeline: Pipeline, value: dict[str, Any]) -> Pipeline:
    """`pipeline` with the keys of PADL 1.1."""
    return replace(
        pipeline,
        schedule=_text(value, "schedule") or None,
        autodeploy=value.get("autodeploy") is not False,
        retries=_whole(value, "retries", 2),
        owner=_text(value, "owner", "mlpacker"),
        tags=tuple(tag for tag in _list(value, "tags") if isinstance(tag, str)),
        description=_text(value, "description"),
        env=_environment(value),
        registry=_text(value, "registry") or None,
        link=_link(_object(value, "link")),
        admin=_admin(_object(value, "admin")),
        key=_reference(_object(value, "key"), "key_env"),
    )


def _admin(node: dict[str, Any]) -> Admin | None:
    port = _whole(node, "port", 0)
    return Admin(port, _reference(node, "token_env"), node.get("expose") is True) if port else None


def _reference(node: dict[str, Any], env: str) -> SecretRef | None:
    for key, kind in (("conn_id", "conn"), (env, "env")):
        if _text(node, key):
            return SecretRef(cast("Any", kind), _text(node, key))
    return None


def _link(node: dict[str, Any]) -> Link:
    default = Link()
    return Link(_number(node, "timeout", default.timeout), _whole(node, "retries", default.retries))


def _step(name: str, node: dict[str, Any]) -> Step:
    queues = _object(node, "queues")
    props = _object(node, "props")
    framework = _text(node, "framework")
    return Step(
        name=name,
        kind="code" if node.get("type") == "code" else "model",
        path=_text(props, "path"),
        inputs=_references(queues, "input"),
        outputs=_references(queues, "output"),
        machine=_text(node, "infra") or None,
        framework=SYNONYMS.get(framework, framework) or None,
        **_artefact(props),
        **_behaviour(node),
    )


def _artefact(props: dict[str, Any]) -> dict[str, Any]:
    return {
        "serializer": _text(props, "serializer") or None,
        "sha256": _text(props, "sha256") or None,
        "ref": _text(props, "ref") or None,
        "versions": _versions(props.get("versions")),
        "input_format": _text(props, "input_format", "json"),
        "output_format": _text(props, "output_format", "json"),
        "entrypoint": _text(props, "entrypoint", "main.py"),
        "function": _text(props, "function", "handler"),
    }


def _versions(written: Any) -> dict[str, Any]:
    """As the runtime has it, see runtime/wanted.py."""
    if written == "all":
        return {"all": True}
    return dict(written) if isinstance(written, dict) and written else {"latest": 1}


def _behaviour(node: dict[str, Any]) -> dict[str, Any]:
    batch, test = _object(node, "batch"), _object(node, "test")
    return {
        "description": _text(node, "description"),
        "replicas": _whole(node, "replicas", 1),
        "batch": Batch(_whole(batch, "max_size", Batch().max_size), _whole(batch, "max_wait_ms", Batch().max_wait_ms)),
        "on_error": _text(node, "on_error", "fail"),
        "dead_letter": _text(node, "dead_letter") or None,
        "delivery": _text(node, "delivery", "at_least_once"),
        "test": Golden(test["input"], test.get("output")) if "input" in test else None,
        "port": _whole(node, "port", 0) or None,
        "env": _environment(node),
        "resources": _resources(_object(node, "resources")),
        "idempotent": node.get("idempotent", node.get("type") != "code") is True,
    }


def _resources(node: dict[str, Any]) -> Resources:
    return Resources(_text(node, "memory"), _number(node, "cpus", Resources().cpus))


def _queue(name: str, node: dict[str, Any]) -> Queue:
    props = _object(node, "props")
    connector = _text(node, "connector")
    return Queue(
        id=name,
        connector=connector,
        server=_text(props, "server"),
        port=_whole(props, "port", PORTS.get(connector, 0)),
        topic=_text(props, "topic"),
        options={key: value for key, value in props.items() if key not in _QUEUE_KEYS},
        schema=schema if isinstance(schema := node.get("schema"), dict | str) else None,
    )


def _machine(name: str, node: dict[str, Any]) -> Machine:
    login = _object(node, "sshConfig")
    return Machine(
        id=name,
        hostname=_text(node, "hostname"),
        user=_text(login, "user") or None,
        port=_whole(login, "port", 22),
        secret=_secret(name, login),
        host_key=_text(login, "host_key") or None,
        install=tuple(what for what in _list(node, "install") if isinstance(what, str)),
    )


def _secret(machine: str, login: dict[str, Any]) -> SecretRef | None:
    for key, kind in _SECRETS:
        if _text(login, key):
            return SecretRef(cast("Any", kind), _text(login, key))
    return SecretRef("padl", f"/infra/{machine}/sshConfig/pass") if _text(login, "pass") else None


def _references(queues: dict[str, Any], side: str) -> tuple[str, ...]:
    written = queues.get(side, ())
    listed = [written] if isinstance(written, str) else written if isinstance(written, list) else []
    return tuple(item for item in listed if isinstance(item, str))


def _entries(value: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, node) for name, node in _object(value, key).items() if isinstance(node, dict)]


def _object(node: dict[str, Any], key: str) -> dict[str, Any]:
    found = node.get(key)
    return found if isinstance(found, dict) else {}


def _list(node: dict[str, Any], key: str) -> list[Any]:
    found = node.get(key)
    return found if isinstance(found, list) else []


def _text(node: dict[str, Any], key: str, default: str = "") -> str:
    found = node.get(key)
    return found if isinstance(found, str) else default


def _whole(node: dict[str, Any], key: str, default: int) -> int:
    found = node.get(key)
    return found if type(found) is int else default


def _number(node: dict[str, Any], key: str, default: float) -> float:
    found = node.get(key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else default


def _environment(node: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in _object(node, "env").items() if isinstance(value, str)}
