"""Restarts the container that the policy acts on, when it is stopped or unhealthy."""

from sentinel_plugin import OWN_GRACE, changed, container, info, plugin, unchanged
from wit_world.imports import docker
from wit_world.imports.docker import Health, State


def remediate(incident, params):
    target = container(incident)
    name = f"{target.host}/{target.name}"
    # Look before you act: somebody else, or an earlier attempt, may have been faster.
    details = docker.inspect(target)
    if details.state == State.RUNNING and details.health != Health.UNHEALTHY:
        return unchanged(f"{name} runs")
    info(f"{name} is {details.state.name.lower()}, health: {details.health.name.lower()}")
    docker.restart(target, params["grace"] * 1000 if "grace" in params else OWN_GRACE)
    return changed(f"restarted {name}")


WitWorld = plugin(
    remediate,
    name="{{name}}",
    version="0.1.0",
    summary="Restarts a container that is stopped or unhealthy.",
    params={
        "type": "object",
        "properties": {
            "grace": {
                "description": "Seconds that the container has to stop, before it is killed; "
                "without it as many as it asks for.",
                "type": "integer",
                "minimum": 0,
                "maximum": 300,
            }
        },
        "additionalProperties": False,
    },
)
