/**
 * What helps to write a remediation plugin for Infra Sentinel in JavaScript.
 *
 * `sentinel plugin build` puts this file beside the plugin: do not edit it there. A plugin is one
 * function, and two exports:
 *
 *     import * as docker from 'sentinel:plugin/docker@0.1.0';
 *     import { OWN_GRACE, changed, container, plugin } from './bindings/sentinel.js';
 *
 *     export const { describe, remediate } = plugin({
 *       name: 'bounce',
 *       version: '0.1.0',
 *       summary: 'Restarts the target.',
 *       remediate(incident, params) {
 *         docker.restart(container(incident), OWN_GRACE);
 *         return changed('restarted');
 *       },
 *     });
 *
 * Everything that the contract has is imported by its name, as far as `uses` in plugin.yaml names
 * it. Names are in camel case (`exitCode`), cases are texts (`'running'`), spans of time are in
 * milliseconds, and all numbers are plain ones, never BigInts.
 */

import * as host from 'sentinel:plugin/log@0.1.0';

/** A grace that is the container's own: its stop timeout, or Docker's ten seconds. */
export const OWN_GRACE = 2 ** 62;

/** How a run ends when something went wrong. Throw `retryable(…)`, `permanent(…)` or `denied(…)`. */
export class Failure extends Error {
  constructor(tag, message) {
    super(message);
    this.tag = tag;
  }
}

/** Another attempt may succeed. */
export const retryable = (why) => new Failure('retryable', why);
/** No attempt at this step can succeed: the engine goes on to the next step. */
export const permanent = (why) => new Failure('permanent', why);
/** Something needed was refused: a person has to look. */
export const denied = (what) => new Failure('denied', what);

/** The run changed something; `what` is for the incident's timeline. */
export const changed = (what) => ({ tag: 'changed', val: String(what) });
/** Nothing had to be changed. */
export const unchanged = (why) => ({ tag: 'unchanged', val: String(why) });

/** Lines for the incident's timeline. */
export const log = {
  debug: (message) => host.write('debug', String(message)),
  info: (message) => host.write('info', String(message)),
  warn: (message) => host.write('warn', String(message)),
  error: (message) => host.write('error', String(message)),
};

/** The labels of an alert or a container, by name. */
export const labels = (of) => Object.fromEntries(of.labels.map(({ name, value }) => [name, value]));
/** The annotations of an alert, by name. */
export const annotations = (alert) =>
  Object.fromEntries(alert.annotations.map(({ name, value }) => [name, value]));

/** The container that the policy acts on, or another one on the same host. */
export function container(incident, name) {
  const { target } = incident;
  if (target.kind !== 'docker' || !(name || target.name)) {
    throw permanent(`the target ${target.uri} is no container`);
  }
  return { host: target.host, name: name || target.name };
}

/** What a call's error says, and its kind: `{ tag: 'unavailable', val: '…' }`; else nothing. */
export const capabilityError = (error) => error?.payload;

const AFTER = {
  denied: 'denied',
  'not-found': 'permanent',
  invalid: 'permanent',
  unavailable: 'retryable',
  'timed-out': 'retryable',
  failed: 'retryable',
};

/** What the host is told of whatever was thrown; anything else would be a bare trap. */
function failureOf(error) {
  if (error instanceof Failure) {
    return { tag: error.tag, val: error.message };
  }
  const payload = capabilityError(error);
  if (payload?.tag in AFTER) {
    const text = payload.tag === 'denied' ? payload.val : `${payload.tag.replace('-', ' ')}: ${payload.val}`;
    return { tag: AFTER[payload.tag], val: text };
  }
  log.error(error?.stack ? `${error}\n${error.stack}`.trimEnd() : String(error));
  return { tag: 'permanent', val: String(error) };
}

const NO_PARAMS = { type: 'object', additionalProperties: false };

/**
 * Makes `remediate(incident, params)` a plugin: gives the two functions to export. `params` is
 * the JSON Schema of the step's params. The error of a call that `remediate` does not catch
 * becomes the failure that fits it; anything else that is thrown is a permanent failure, with its
 * stack in the incident's log.
 */
export function plugin({ name, version, summary, params = NO_PARAMS, remediate }) {
  return {
    describe: () => ({ name, version, summary, paramsSchema: JSON.stringify(params) }),
    remediate: (incident) => {
      try {
        return remediate(incident, JSON.parse(incident.params));
      } catch (error) {
        throw failureOf(error);
      }
    },
  };
}
