//! Which policies an alert concerns, and what each would do about it.

use std::time::Duration;

use super::Identity;
use crate::alert::Alert;
use crate::id::{IncidentId, Target};
use crate::incident::{Plan, PlannedVerify, VerifyCheck};
use crate::mutation::{Mutation, active};
use crate::policy::{Policy, PolicySet};

/// A policy that an alert matches.
#[derive(Debug)]
pub(super) struct Matched {
    /// What the policy would do.
    pub(super) plan: Plan,
    /// What it would act on.
    pub(super) identity: Identity,
    /// Why it cannot: its templates do not fit the alert.
    pub(super) refused: Option<String>,
    /// The incident that the alert led to before, and why it is believed again.
    pub(super) again: Option<(IncidentId, String)>,
}

impl Matched {
    /// Takes in what its target, as it was rendered, turned out to be. What has a target of
    /// its own keeps that.
    pub(super) fn identify(&mut self, found: Option<(Target, Identity)>) {
        if let Some((target, identity)) = found
            && target == self.identity.target
        {
            self.identity = identity;
        }
    }
}

/// A target that nobody was asked about.
fn called(target: Target) -> Identity {
    let host = target.host().to_owned();
    Identity::by_name(target, &host)
}

/// What each policy that acts on `alert` would do, in the order in which the
/// policies stand in their files.
pub(super) fn matches(policies: &PolicySet, alert: &Alert) -> Vec<Matched> {
    policies
        .matching(&alert.labels)
        .filter_map(|policy| matched(policy, alert))
        .collect()
}

/// What `policy`, which `alert` matches, would do about it.
pub(super) fn matched(policy: &Policy, alert: &Alert) -> Option<Matched> {
    let rendered = policy
        .target(alert)
        .and_then(|target| Ok((policy.plan(alert)?, target)));
    Some(match rendered {
        Ok((plan, target)) => Matched {
            plan,
            identity: called(target),
            refused: None,
            again: None,
        },
        Err(error) => Matched {
            plan: empty(policy, alert),
            identity: called(nowhere(policy, alert)?),
            refused: Some(format!("the policy does not fit the alert: {error}")),
            again: None,
        },
    })
}

/// A plan that does nothing: its incident goes straight to a person, who is told as the
/// policy says.
fn empty(policy: &Policy, alert: &Alert) -> Plan {
    Plan {
        policy: policy.name.clone(),
        digest: policy.digest,
        steps: Vec::new(),
        verify: PlannedVerify {
            check: VerifyCheck::AlertResolved,
            within: Duration::ZERO,
            every: Duration::ZERO,
            steady: Some(Duration::ZERO),
        },
        guards: policy.guards.clone(),
        // For what tells the person: there is no step.
        grants: policy.grants.clone(),
        mode: policy.mode,
        approval: policy.approval,
        ttl: policy.ttl,
        evidence: 0,
        escalate: policy
            .escalation(alert)
            .filter(|_| !active(Mutation::MisfitTellsNobody)),
    }
}

/// A target that nothing acts on, for an incident whose own cannot be told.
fn nowhere(policy: &Policy, alert: &Alert) -> Option<Target> {
    let name = &policy.name;
    format!("unknown://{name}/{}", alert.fingerprint)
        .parse()
        .or_else(|_| format!("unknown://{name}").parse())
        .ok()
}
