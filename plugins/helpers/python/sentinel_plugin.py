"""What helps to write a remediation plugin for Infra Sentinel in Python.

`sentinel plugin build` puts this file beside the plugin: do not edit it there. A plugin is one
function, and a call that exports it:

    from sentinel_plugin import OWN_GRACE, changed, container, plugin
    from wit_world.imports import docker

    def remediate(incident, params):
        docker.restart(container(incident), OWN_GRACE)
        return changed("restarted")

    WitWorld = plugin(remediate, name="bounce", version="0.1.0", summary="Restarts the target.")

Everything that the contract has is in `wit_world.imports`, module by module: `docker`, `ansible`,
`clock`, `random`, as far as `uses` in plugin.yaml names it. Spans of time are in milliseconds.

Import at the top of a file: what is imported inside a function is not there when the plugin
runs. What stands at the top of a file runs when the plugin is built, and never again.
"""

import json
import traceback

from componentize_py_types import Err
from wit_world.imports import log, types

try:
    from wit_world.imports import docker as _docker
except ImportError:  # the plugin does not use it
    _docker = None

# A grace that is the container's own: its stop timeout, or Docker's ten seconds.
OWN_GRACE = 2**62

NO_PARAMS = {"type": "object", "additionalProperties": False}


class Failure(Exception):
    """How a run ends when something went wrong; raise one of the three below."""

    wire = types.Failure_Permanent


class Retryable(Failure):
    """Another attempt may succeed."""

    wire = types.Failure_Retryable


class Permanent(Failure):
    """No attempt at this step can succeed: the engine goes on to the next step."""

    wire = types.Failure_Permanent


class Denied(Failure):
    """Something needed was refused: a person has to look."""

    wire = types.Failure_Denied


def changed(what: str) -> types.Outcome:
    """The run changed something; `what` is for the incident's timeline."""
    return types.Outcome_Changed(what)


def unchanged(why: str) -> types.Outcome:
    """Nothing had to be changed."""
    return types.Outcome_Unchanged(why)


def debug(message: str) -> None:
    """Logs for the plugin's author."""
    log.write(log.Level.DEBUG, str(message))


def info(message: str) -> None:
    """Logs what an operator wants to read afterwards."""
    log.write(log.Level.INFO, str(message))


def warn(message: str) -> None:
    """Logs that something is odd and was survived."""
    log.write(log.Level.WARN, str(message))


def error(message: str) -> None:
    """Logs that something is wrong and a person should know."""
    log.write(log.Level.ERROR, str(message))


def labels(of) -> dict[str, str]:
    """The labels of an alert or a container, by name."""
    return {label.name: label.value for label in of.labels}


def annotations(alert: types.Alert) -> dict[str, str]:
    """The annotations of an alert, by name."""
    return {label.name: label.value for label in alert.annotations}


def container(incident: types.Incident, name: str | None = None):
    """The container that the policy acts on, or another one on the same host."""
    target = incident.target
    if _docker is None:
        raise Permanent("plugin.yaml names nothing of docker in `uses`")
    if target.kind != "docker" or not (name or target.name):
        raise Permanent(f"the target {target.uri} is no container")
    return _docker.Container(target.host, name or target.name)


def error_text(err: Err) -> str:
    """What a call's error says: `except Err as err: warn(error_text(err))`."""
    kind = type(err.value).__name__.removeprefix("CapabilityError_")
    return f"{_KINDS.get(kind, kind)}: {err.value.value}"


_KINDS = {
    "Denied": "denied",
    "NotFound": "not found",
    "Invalid": "invalid",
    "Unavailable": "unavailable",
    "TimedOut": "timed out",
    "Failed": "failed",
}


def _failure_of(err: Err):
    """The failure that fits a call's error, as the SDK for Rust has it."""
    match err.value:
        case types.CapabilityError_Denied(message):
            return types.Failure_Denied(message)
        case types.CapabilityError_NotFound() | types.CapabilityError_Invalid():
            return types.Failure_Permanent(error_text(err))
        case (
            types.CapabilityError_Unavailable()
            | types.CapabilityError_TimedOut()
            | types.CapabilityError_Failed()
        ):
            return types.Failure_Retryable(error_text(err))
        case failure:  # raised by the plugin itself
            return failure


def plugin(remediate, *, name: str, version: str, summary: str, params: dict | None = None):
    """Makes `remediate(incident, params)` a plugin.

    `params` is the JSON Schema of the step's params. The error of a call that `remediate` does not
    catch becomes the failure that fits it; any other exception is a permanent failure, with its
    traceback in the incident's log.
    """
    schema = json.dumps(params if params is not None else NO_PARAMS)

    class WitWorld:
        def describe(self) -> types.Description:
            return types.Description(name, version, summary, schema)

        def remediate(self, incident: types.Incident) -> types.Outcome:
            try:
                return remediate(incident, json.loads(incident.params))
            except Failure as failure:
                raise Err(failure.wire(str(failure))) from None
            except Err as err:
                raise Err(_failure_of(err)) from None
            except Exception as problem:
                error(traceback.format_exc().rstrip())
                said = f"{type(problem).__name__}: {problem}"
                raise Err(types.Failure_Permanent(said)) from None

    return WitWorld
