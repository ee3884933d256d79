// Restarts the container that the policy acts on, when it is stopped or unhealthy.

import * as docker from 'sentinel:plugin/docker@0.1.0';
import { OWN_GRACE, changed, container, log, plugin, unchanged } from './bindings/sentinel.js';

export const { describe, remediate } = plugin({
  name: '{{name}}',
  version: '0.1.0',
  summary: 'Restarts a container that is stopped or unhealthy.',
  params: {
    type: 'object',
    properties: {
      grace: {
        description: 'Seconds that the container has to stop, before it is killed; without it as many as it asks for.',
        type: 'integer',
        minimum: 0,
        maximum: 300,
      },
    },
    additionalProperties: false,
  },
  remediate(incident, { grace }) {
    const target = container(incident);
    const name = `${target.host}/${target.name}`;
    // Look before you act: somebody else, or an earlier attempt, may have been faster.
    const details = docker.inspect(target);
    if (details.state === 'running' && details.health !== 'unhealthy') {
      return unchanged(`${name} runs`);
    }
    log.info(`${name} is ${details.state}, health: ${details.health}`);
    docker.restart(target, grace === undefined ? OWN_GRACE : grace * 1000);
    return changed(`restarted ${name}`);
  },
});
