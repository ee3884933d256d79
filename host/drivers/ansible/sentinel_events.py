"""Tells Infra Sentinel what a playbook does, one JSON object a line.

The file's path comes in SENTINEL_EVENTS. Lines are of three kinds:

    {"event": "start", "task": NAME}
    {"event": "task", "host": HOST, "task": NAME, "status": STATUS, "message": TEXT}
    {"event": "stats", "hosts": {HOST: {"ok": N, "changed": N, ...}}}

STATUS is ok, changed, failed, skipped, unreachable or ignored. Results of tasks with
`no_log` reach every callback censored, this one too.
"""

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: sentinel_events
type: notification
short_description: Writes task results as JSON lines for Infra Sentinel
description:
  - Appends one JSON object a line to the file that SENTINEL_EVENTS names.
  - Does nothing where that is not set.
"""

# Characters of a task's message; the rest is in the playbook's output.
MESSAGE_LENGTH = 2000

COUNTS = ("ok", "changed", "skipped", "unreachable", "rescued", "ignored")


def part(result, name):
    """A part of a task result, whose attributes have no underscore since core 2.19."""
    value = getattr(result, name, None)
    return value if value is not None else getattr(result, "_" + name)


def text(value):
    """What a module put into a field, as text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str)


def message(outcome):
    """What the module said, in one text; empty when it said nothing."""
    if "censored" in outcome:
        return text(outcome["censored"])
    said = text(outcome.get("msg") or outcome.get("skip_reason"))
    # Of a loop, the items that failed say more than "One or more items failed".
    for item in outcome.get("results") or []:
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            said = "\n".join(filter(None, [said, message(item)]))
    if outcome.get("failed") or outcome.get("rc"):
        for field in ("stderr", "module_stderr"):
            error = text(outcome.get(field)).strip()
            if error and error not in said:
                said = "\n".join(filter(None, [said, error]))
    if len(said) > MESSAGE_LENGTH:
        said = said[: MESSAGE_LENGTH - 1] + "\u2026"
    return said


class CallbackModule(CallbackBase):
    """Loaded without being listed as enabled, so that operators' own list stays theirs."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "sentinel_events"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Taken out, so that tasks on this machine do not inherit it.
        path = os.environ.pop("SENTINEL_EVENTS", None)
        self.disabled = path is None
        if path is not None:
            self._events = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _emit(self, **event):
        # Ansible carries undecodable bytes as lone surrogates, which JSON cannot.
        def clean(value):
            if isinstance(value, str):
                return value.encode("utf-8", "replace").decode("utf-8")
            if isinstance(value, dict):
                return {clean(key): clean(inner) for key, inner in value.items()}
            return value

        os.write(self._events, json.dumps(clean(event)).encode("ascii") + b"\n")

    def _task(self, result, status):
        self._emit(
            event="task",
            host=part(result, "host").get_name(),
            task=part(result, "task").get_name().strip(),
            status=status,
            message=message(part(result, "result")),
        )

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._emit(event="start", task=task.get_name().strip())

    def v2_playbook_on_handler_task_start(self, task):
        self._emit(event="start", task=task.get_name().strip())

    def v2_runner_on_ok(self, result):
        changed = part(result, "result").get("changed", False)
        self._task(result, "changed" if changed else "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._task(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result):
        self._task(result, "skipped")

    def v2_runner_on_unreachable(self, result):
        self._task(result, "unreachable")

    def v2_playbook_on_stats(self, stats):
        hosts = {}
        for host in stats.processed:
            summary = stats.summarize(host)
            hosts[host] = {name: summary.get(name, 0) for name in COUNTS}
            hosts[host]["failed"] = summary["failures"]
        self._emit(event="stats", hosts=hosts)
