"""Reads what a container said last, and does what the rule says that fits it."""

import re

from sentinel_plugin import OWN_GRACE, Permanent, changed, container, info, plugin, unchanged
from wit_world.imports import docker


def find(rules, lines):
    """The first rule that fits, and the last line that it fits."""
    for rule in rules:
        try:
            pattern = re.compile(rule["when"])
        except re.error as problem:
            raise Permanent(f"the pattern {rule['when']!r} is none: {problem}") from None
        for line in reversed(lines):
            if pattern.search(line):
                return rule, line
    return None, None


def remediate(incident, params):
    target = container(incident)
    name = f"{target.host}/{target.name}"
    lines = docker.logs(target, params.get("lines", 200)).splitlines()
    rule, line = find(params["rules"], lines)
    if rule is None:
        return unchanged(f"nothing in the last {len(lines)} lines of {name} fits a rule")
    because = rule.get("because", f"it matches {rule['when']}")
    info(f"{name} said `{line.strip()}`: {because}")
    grace = params["grace"] * 1000 if "grace" in params else OWN_GRACE
    match rule["do"]:
        case "restart":
            docker.restart(target, grace)
            return changed(f"restarted {name}: {because}")
        case "recreate":
            docker.recreate(target, grace)
            return changed(f"recreated {name}: {because}")
        case _:
            raise Permanent(f"{name} cannot be helped: {because}")


WitWorld = plugin(
    remediate,
    name="log-doctor",
    version="0.1.0",
    summary="Reads what a container said last, and does what the rule says that fits it.",
    params={
        "type": "object",
        "required": ["rules"],
        "properties": {
            "rules": {
                "description": "The first one with a line that fits is followed.",
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["when", "do"],
                    "properties": {
                        "when": {
                            "description": "A regular expression, as Python has them, for a line.",
                            "type": "string",
                            "minLength": 1,
                        },
                        "do": {
                            "description": "`give-up` ends the step: no attempt can succeed.",
                            "enum": ["restart", "recreate", "give-up"],
                        },
                        "because": {
                            "description": "What it means, for the incident's timeline.",
                            "type": "string",
                        },
                    },
                    "additionalProperties": False,
                },
            },
            "lines": {
                "description": "How many of the last lines are read.",
                "type": "integer",
                "minimum": 1,
                "maximum": 1000,
                "default": 200,
            },
            "grace": {
                "description": "Seconds that the container has to stop, before it is killed; "
                "without it as many as it asks for.",
                "type": "integer",
                "minimum": 0,
                "maximum": 300,
            },
        },
        "additionalProperties": False,
    },
)
