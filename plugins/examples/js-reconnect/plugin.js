// Restarts what depends on the target, one after another: after a database was replaced, for
// example, whatever holds connections to the old one. A container says what it depends on in a
// label, by default `depends-on: db`.

import * as clock from 'sentinel:plugin/clock@0.1.0';
import * as docker from 'sentinel:plugin/docker@0.1.0';
import { OWN_GRACE, changed, container, labels, log, plugin, retryable, unchanged } from './bindings/sentinel.js';

const LOOK_AGAIN_AFTER = 250;

/** Waits until the container works, as far as its health check tells. */
function settle(target, patience) {
  const until = clock.elapsed() + patience;
  for (;;) {
    const { state, health } = docker.inspect(target);
    if (state === 'running' && (health === 'healthy' || health === 'none')) return;
    if (clock.elapsed() >= until) {
      throw retryable(`${target.name} is ${state}, health: ${health}; the others were left alone`);
    }
    clock.sleep(LOOK_AGAIN_AFTER);
  }
}

export const { describe, remediate } = plugin({
  name: 'reconnect',
  version: '0.1.0',
  summary: 'Restarts the containers that say they depend on the target, one after another.',
  params: {
    type: 'object',
    properties: {
      label: {
        description: 'The label with the names of what a container depends on, with commas between.',
        type: 'string',
        minLength: 1,
        default: 'depends-on',
      },
      patience: {
        description: 'Seconds that each has to become healthy.',
        type: 'integer',
        minimum: 1,
        maximum: 600,
        default: 30,
      },
    },
    additionalProperties: false,
  },
  remediate(incident, { label = 'depends-on', patience = 30 }) {
    const { host, name } = container(incident);
    const depends = (row) =>
      (labels(row)[label] ?? '').split(',').some((other) => other.trim() === name);
    const rows = docker.list(host, { all: false, labels: [{ name: label, value: '' }] });
    const dependents = rows.filter(depends).map((row) => row.name);
    if (dependents.length === 0) {
      return unchanged(`nothing on ${host} says that it depends on ${name}`);
    }
    log.info(`${dependents.join(', ')} depend on ${name}`);
    for (const dependent of dependents) {
      const target = { host, name: dependent };
      docker.restart(target, OWN_GRACE);
      settle(target, patience * 1000);
    }
    return changed(`restarted ${dependents.join(', ')}`);
  },
});
