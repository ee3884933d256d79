//! Between the contract's types and the host's.

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Labels};
use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, ContainerDetails, ContainerHealth, ContainerState,
    ContainerSummary, PlaybookReport, TaskStatus,
};
use sentinel_core::event::LogLevel;
use sentinel_core::http::{
    BODY_LIMIT, Blob, HEADER_LIMIT, HttpHeader, HttpRequest, HttpResponse, SecretField, header_size,
};
use sentinel_core::id::Target;
use sentinel_core::mail::{MailReceipt, MailRequest};

use crate::bindings::sentinel::plugin::{ansible, docker, http, log, mail, types};
use crate::run::IncidentInput;

/// How many texts of a body the host fills in.
const SECRET_FIELDS: usize = 16;

/// How many failed tasks a recap tells of.
const MAX_FAILURES: usize = 100;

pub(crate) fn incident(input: &IncidentInput) -> types::Incident {
    types::Incident {
        id: input.incident.to_string(),
        run: input.run.to_string(),
        policy: input.policy.to_string(),
        target: target(&input.target),
        alert: alert(&input.alert),
        step: input.step,
        attempt: input.attempt,
        params: serde_json::Value::Object(input.params.clone()).to_string(),
    }
}

fn target(target: &Target) -> types::Target {
    types::Target {
        uri: target.to_string(),
        kind: target.kind().to_owned(),
        host: target.host().to_owned(),
        name: target.name().to_owned(),
    }
}

fn alert(alert: &Alert) -> types::Alert {
    types::Alert {
        fingerprint: alert.fingerprint.0.clone(),
        status: match alert.status {
            AlertStatus::Firing => types::AlertStatus::Firing,
            AlertStatus::Resolved => types::AlertStatus::Resolved,
        },
        labels: labels(&alert.labels),
        annotations: labels(&alert.annotations),
        starts_at: timestamp(alert.starts_at),
        ends_at: alert.ends_at.map(timestamp),
        generator_url: alert.generator_url.clone(),
    }
}

pub(crate) fn labels(labels: &Labels) -> Vec<types::Label> {
    labels
        .iter()
        .map(|(name, value)| types::Label {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

pub(crate) fn to_labels(labels: Vec<types::Label>) -> Labels {
    labels
        .into_iter()
        .map(|label| (label.name, label.value))
        .collect()
}

/// Rounds towards the past, so that the nanoseconds count forward from the second as
/// the contract has it, also before 1970.
pub(crate) fn timestamp(at: Timestamp) -> types::Timestamp {
    let nanoseconds = at.as_nanosecond();
    let second = 1_000_000_000;
    types::Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(second)).unwrap_or(i64::MAX),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(second)).unwrap_or(0),
    }
}

pub(crate) fn level(level: log::Level) -> LogLevel {
    match level {
        log::Level::Debug => LogLevel::Debug,
        log::Level::Info => LogLevel::Info,
        log::Level::Warn => LogLevel::Warn,
        log::Level::Error => LogLevel::Error,
    }
}

pub(crate) fn error(error: CapabilityError) -> types::CapabilityError {
    match error {
        CapabilityError::Denied(why) => types::CapabilityError::Denied(why),
        CapabilityError::NotFound(why) => types::CapabilityError::NotFound(why),
        CapabilityError::Invalid(why) => types::CapabilityError::Invalid(why),
        CapabilityError::Unavailable(why) => types::CapabilityError::Unavailable(why),
        CapabilityError::TimedOut(why) => types::CapabilityError::TimedOut(why),
        CapabilityError::Failed(why) => types::CapabilityError::Failed(why),
    }
}

pub(crate) fn summary(row: ContainerSummary) -> docker::Summary {
    docker::Summary {
        id: row.id,
        name: row.name,
        image: row.image,
        state: state(row.state),
        labels: labels(&row.labels),
        network_of: row.network_of,
    }
}

pub(crate) fn details(details: ContainerDetails) -> docker::Details {
    docker::Details {
        id: details.id,
        name: details.name,
        image: details.image,
        state: state(details.state),
        health: match details.health {
            ContainerHealth::None => docker::Health::None,
            ContainerHealth::Starting => docker::Health::Starting,
            ContainerHealth::Healthy => docker::Health::Healthy,
            ContainerHealth::Unhealthy => docker::Health::Unhealthy,
        },
        failing_streak: details.failing_streak,
        exit_code: details.exit_code,
        oom_killed: details.oom_killed,
        restart_count: details.restart_count,
        started_at: details.started_at.map(timestamp),
        finished_at: details.finished_at.map(timestamp),
        labels: labels(&details.labels),
        network_of: details.network_of,
    }
}

fn state(state: ContainerState) -> docker::State {
    match state {
        ContainerState::Created => docker::State::Created,
        ContainerState::Running => docker::State::Running,
        ContainerState::Paused => docker::State::Paused,
        ContainerState::Restarting => docker::State::Restarting,
        ContainerState::Removing => docker::State::Removing,
        ContainerState::Exited => docker::State::Exited,
        ContainerState::Dead => docker::State::Dead,
    }
}

pub(crate) fn to_ansible(request: ansible::Request) -> Result<AnsibleRequest, CapabilityError> {
    let extra_vars = serde_json::from_str(&request.extra_vars).map_err(|error| {
        CapabilityError::Invalid(format!("extra-vars is no JSON object: {error}"))
    })?;
    Ok(AnsibleRequest {
        playbook: request.playbook,
        extra_vars,
        limit: request.limit,
        tags: request.tags,
        timeout_ms: request.timeout,
    })
}

pub(crate) fn recap(report: PlaybookReport) -> ansible::Recap {
    ansible::Recap {
        exit_code: report.exit_code,
        hosts: report
            .hosts
            .into_iter()
            .map(|(host, recap)| ansible::HostRecap {
                host,
                ok: recap.ok,
                changed: recap.changed,
                failed: recap.failed,
                skipped: recap.skipped,
                unreachable: recap.unreachable,
                rescued: recap.rescued,
                ignored: recap.ignored,
            })
            .collect(),
        failures: report
            .tasks
            .into_iter()
            .filter(|task| matches!(task.status, TaskStatus::Failed | TaskStatus::Unreachable))
            .take(MAX_FAILURES)
            .map(|task| ansible::TaskFailure {
                host: task.host,
                task: task.task,
                message: task.message,
            })
            .collect(),
        duration: report.duration_ms,
    }
}

/// What could not be sent, or would not fit into the record, is refused here.
pub(crate) fn to_http(request: http::Request) -> Result<HttpRequest, CapabilityError> {
    let invalid = |reason: String| CapabilityError::Invalid(reason);
    let headers: Vec<HttpHeader> = request
        .headers
        .into_iter()
        .map(|header| HttpHeader {
            name: header.name,
            value: header.value,
        })
        .collect();
    if header_size(&headers) > HEADER_LIMIT {
        let limit = HEADER_LIMIT >> 10;
        return Err(invalid(format!("the headers are larger than {limit} KiB")));
    }
    if headers.iter().any(HttpHeader::misplaces_secret) {
        return Err(invalid(
            "a header names a secret among other text; a secret is the whole value".to_owned(),
        ));
    }
    if request.secret_fields.len() > SECRET_FIELDS {
        return Err(invalid(format!(
            "more than {SECRET_FIELDS} texts of the body are to be filled in"
        )));
    }
    if request.body.len() > BODY_LIMIT {
        let limit = BODY_LIMIT >> 10;
        return Err(invalid(format!("the body is larger than {limit} KiB")));
    }
    Ok(HttpRequest {
        method: request
            .method
            .parse()
            .map_err(|error| invalid(format!("{error}")))?,
        url: request
            .url
            .parse()
            .map_err(|error| invalid(format!("{error}")))?,
        headers,
        body: Blob(request.body),
        secret_fields: request
            .secret_fields
            .into_iter()
            .map(|field| SecretField {
                pointer: field.pointer,
                secret: field.secret,
            })
            .collect(),
        timeout_ms: request.timeout,
    })
}

pub(crate) fn response(response: HttpResponse) -> http::Response {
    http::Response {
        status: response.status,
        headers: response
            .headers
            .into_iter()
            .map(|header| http::Header {
                name: header.name,
                value: header.value,
            })
            .collect(),
        body: response.body.0,
        truncated: response.truncated,
    }
}

/// What could not be sent is refused here.
pub(crate) fn to_mail(message: mail::Message) -> Result<MailRequest, CapabilityError> {
    MailRequest::new(&message.to, &message.cc, message.subject, message.text)
        .map_err(|error| CapabilityError::Invalid(error.to_string()))
}

pub(crate) fn receipt(receipt: MailReceipt) -> mail::Receipt {
    mail::Receipt {
        message_id: receipt.message_id,
        said: receipt.said,
        refused: receipt
            .refused
            .into_iter()
            .map(|refusal| mail::Refusal {
                address: refusal.address.to_string(),
                reason: refusal.reason,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_count_forward_before_1970_too() {
        let at = timestamp("1969-12-31T23:59:59.25Z".parse().unwrap());
        assert_eq!((at.seconds, at.nanoseconds), (-1, 250_000_000));
        let at = timestamp("2026-01-02T03:04:05.000000006Z".parse().unwrap());
        assert_eq!((at.seconds, at.nanoseconds), (1_767_323_045, 6));
    }
}
