/* Restarts the container that the policy acts on, when it is stopped or unhealthy. */

#include "sentinel.h"

void exports_remediation_describe(remediation_description_t *description) {
  sentinel_describe(description, "{{name}}", "0.1.0",
                    "Restarts a container that is stopped or unhealthy.",
                    "{\"type\": \"object\", \"properties\": {\"grace\": {"
                    "\"description\": \"Seconds that the container has to stop, before it is killed; "
                    "without it as many as it asks for.\","
                    "\"type\": \"integer\", \"minimum\": 0, \"maximum\": 300}},"
                    "\"additionalProperties\": false}");
}

static const char *const states[] = {"created",  "running", "paused", "restarting",
                                     "removing", "exited",  "dead"};

bool exports_remediation_remediate(remediation_incident_t *incident,
                                   remediation_outcome_t *outcome,
                                   remediation_failure_t *failure) {
  if (!sentinel_is(incident->target.kind, "docker") || incident->target.name.len == 0) {
    return sentinel_fail(failure, SENTINEL_PLUGIN_TYPES_FAILURE_PERMANENT,
                         "the target is no container");
  }
  sentinel_plugin_docker_container_t container = {incident->target.host, incident->target.name};
  sentinel_plugin_docker_details_t details;
  sentinel_plugin_docker_capability_error_t error;

  /* Look before you act: somebody else, or an earlier attempt, may have been faster. */
  if (!sentinel_plugin_docker_inspect(&container, &details, &error)) {
    return sentinel_failed(failure, &error);
  }
  if (details.state == SENTINEL_PLUGIN_DOCKER_STATE_RUNNING &&
      details.health != SENTINEL_PLUGIN_DOCKER_HEALTH_UNHEALTHY) {
    return sentinel_unchanged(outcome, "%.*s/%.*s runs", SENTINEL_TEXT(container.host),
                              SENTINEL_TEXT(container.name));
  }
  sentinel_info("%.*s/%.*s is %s", SENTINEL_TEXT(container.host), SENTINEL_TEXT(container.name),
                states[details.state]);
  long long seconds = sentinel_param_number(incident->params, "grace", -1);
  uint64_t grace = seconds < 0 ? SENTINEL_OWN_GRACE : (uint64_t)seconds * 1000;
  if (!sentinel_plugin_docker_restart(&container, grace, &error)) {
    return sentinel_failed(failure, &error);
  }
  return sentinel_changed(outcome, "restarted %.*s/%.*s", SENTINEL_TEXT(container.host),
                          SENTINEL_TEXT(container.name));
}
