"""Tells Infra Sentinel what a playbook does, one JSON object a line, and holds it to what is granted.

The file's path comes in SENTINEL_EVENTS. Lines are of four kinds:

    {"event": "start", "task": NAME}
    {"event": "task", "host": HOST, "task": NAME, "status": STATUS, "message": TEXT}
    {"event": "stats", "hosts": {HOST: {"ok": N, "changed": N, ...}}}
    {"event": "refused", "message": TEXT}

Beside it is scope.json: the variables that were given from outside, and the hosts that are
granted. A playbook that would run on other hosts, or that sets one of those variables itself
(what is given is above all that a task finds out), is ended before it does anything.

STATUS is ok, changed, failed, skipped, unreachable or ignored. Results of tasks with
`no_log` reach every callback censored, this one too.
"""

import json
import os
import re
import sys

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


def own_variables(task):
    """The variables that a task sets or uses under a name of its own, each with the keyword."""
    found = [(task.register, "register")] if getattr(task, "register", None) else []
    try:
        inherited = task.get_vars()
    except Exception:  # Their templates may need what is not known yet.
        inherited = getattr(task, "vars", None) or {}
    found += [(name, "vars of a task, block or include") for name in inherited]
    if str(task.action).rsplit(".", 1)[-1] == "set_fact" and isinstance(task.args, dict):
        found += [(name, "set_fact") for name in task.args]
    control = getattr(task, "loop_control", None)
    for keyword in ("loop_var", "index_var"):
        name = getattr(control, keyword, None)
        if name:
            found.append((name, keyword))
    return found


def tasks_of(block):
    """All tasks of a block and of the blocks in it."""
    for section in (block.block, block.rescue, block.always):
        for task in section or []:
            if hasattr(task, "block"):
                yield from tasks_of(task)
            else:
                yield task


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
            # A plugin that cannot be made is only warned of, so what is missing is found later.
            self._scope = None
            try:
                with open(os.path.join(os.path.dirname(path), "scope.json"), encoding="utf-8") as file:
                    self._scope = json.load(file)
            except (OSError, ValueError):
                pass

    def _emit(self, **event):
        # Ansible carries undecodable bytes as lone surrogates, which JSON cannot.
        def clean(value):
            if isinstance(value, str):
                return value.encode("utf-8", "replace").decode("utf-8")
            if isinstance(value, dict):
                return {clean(key): clean(inner) for key, inner in value.items()}
            return value

        os.write(self._events, json.dumps(clean(event)).encode("ascii") + b"\n")

    def _refuse(self, message):
        """Ends the playbook: a callback that raises is only warned of."""
        self._emit(event="refused", message=message)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    def _check(self, check, *args):
        """Whatever cannot be checked is refused."""
        try:
            reason = check(*args)
        except Exception as error:
            reason = "it cannot be checked: %s: %s" % (type(error).__name__, error)
        if reason:
            self._refuse(reason)

    def _set_by(self, task):
        given = self._scope["variables"]
        for name, keyword in own_variables(task) if given else []:
            if name in given:
                return (
                    "it sets the variable `%s` itself (%s, in task `%s`), so a policy cannot set it: "
                    "rename one of the two" % (name, keyword, task.get_name().strip())
                )
        return None

    def _set_in(self, playbook):
        for play in playbook.get_plays():
            try:
                blocks = play.compile()
            except Exception:  # Each task is looked at once more when it begins.
                continue
            for block in list(blocks) + list(play.handlers):
                for task in tasks_of(block):
                    reason = self._set_by(task)
                    if reason:
                        return reason
        return None

    def _hosts_of(self, play):
        scope = self._scope
        if not scope["hosts"] and not scope["limit"]:
            return None
        inventory = play.get_variable_manager()._inventory
        groups = inventory.groups
        for name in scope["limit"]:
            if name in groups and name not in scope["names"]:
                return "`%s` is a group, and the policy grants it by no name of its own (`hosts: ['%s']`)" % (name, name)
        if not scope["hosts"]:
            return None
        members = set()
        for name in scope["names"]:
            if name in groups:
                members.update(host.get_name() for host in groups[name].get_hosts())
        if "all" in scope["names"]:
            return None
        for host in inventory.get_hosts(play.hosts):
            name = host.get_name()
            if name not in members and not any(re.match(pattern, name) for pattern in scope["hosts"]):
                return "it would run on `%s`, and the policy grants the hosts %s" % (name, ", ".join(scope["names"]))
        return None

    def _task(self, result, status):
        self._emit(
            event="task",
            host=part(result, "host").get_name(),
            task=part(result, "task").get_name().strip(),
            status=status,
            message=message(part(result, "result")),
        )

    def v2_playbook_on_start(self, playbook):
        self._check(self._set_in, playbook)

    def v2_playbook_on_play_start(self, play):
        self._check(self._hosts_of, play)

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._check(self._set_by, task)
        self._emit(event="start", task=task.get_name().strip())

    def v2_playbook_on_handler_task_start(self, task):
        self._check(self._set_by, task)
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
