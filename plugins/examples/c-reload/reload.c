/*
 * Has a service read its configuration again, without an interruption: sends its container a
 * signal (SIGHUP), and sees whether it is still there a moment later.
 */

#include "sentinel.h"

static const char schema[] =
    "{\"type\": \"object\", \"properties\": {"
    "\"signal\": {\"description\": \"What the service reads its configuration again on.\","
    " \"type\": \"string\", \"pattern\": \"^SIG[A-Z0-9]+$\", \"default\": \"SIGHUP\"},"
    "\"wait\": {\"description\": \"Milliseconds after which it has to be still there.\","
    " \"type\": \"integer\", \"minimum\": 0, \"maximum\": 60000, \"default\": 1000}"
    "}, \"additionalProperties\": false}";

void exports_remediation_describe(remediation_description_t *description) {
  sentinel_describe(description, "reload", "0.1.0",
                    "Has a service read its configuration again, by a signal.", schema);
}

bool exports_remediation_remediate(remediation_incident_t *incident,
                                   remediation_outcome_t *outcome,
                                   remediation_failure_t *failure) {
  if (!sentinel_is(incident->target.kind, "docker") || incident->target.name.len == 0) {
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT,
                         "the target is no container");
  }
  sentinel_plugin_docker_container_t container = {incident->target.host, incident->target.name};
  sentinel_plugin_docker_details_t before, after;
  sentinel_plugin_docker_capability_error_t error;
  const char *name = sentinel_param_text(incident->params, "signal", "SIGHUP");
  remediation_string_t signal = sentinel_text(name);

  if (!sentinel_plugin_docker_inspect(&container, &before, &error)) {
    return sentinel_failed(failure, &error);
  }
  if (before.state != SENTINEL_PLUGIN_DOCKER_STATE_RUNNING) {
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT,
                         "%.*s does not run: a signal does not help it",
                         SENTINEL_TEXT(container.name));
  }
  if (!sentinel_plugin_docker_kill(&container, &signal, &error)) {
    return sentinel_failed(failure, &error);
  }
  sentinel_plugin_clock_sleep((uint64_t)sentinel_param_number(incident->params, "wait", 1000));
  if (!sentinel_plugin_docker_inspect(&container, &after, &error)) {
    return sentinel_failed(failure, &error);
  }
  if (after.state != SENTINEL_PLUGIN_DOCKER_STATE_RUNNING ||
      after.restart_count != before.restart_count) {
    /* Its configuration is wrong, or the signal was: neither gets better by another attempt. */
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT,
                         "%.*s did not survive %s (exit code %lld)",
                         SENTINEL_TEXT(container.name), name, (long long)after.exit_code);
  }
  return sentinel_changed(outcome, "sent %s to %.*s", name, SENTINEL_TEXT(container.name));
}
