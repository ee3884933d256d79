//! Why a delivery was not accepted, in the terms that its sender understands.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sentinel_intake::Malformed;
use serde::Serialize;

/// Why a delivery was not accepted.
///
/// Alertmanager tries again at once after a 5xx, and only at the next group interval
/// after a 4xx (`notify/util.go`, `Retrier.Check`): whatever may go better in a moment
/// is a 503.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    /// The body is not what this door takes; and whether somebody should have been woken for
    /// something in it.
    #[error("the body is not understood: {0}")]
    Malformed(Malformed, bool),
    /// The body is larger than `limits.intake.body`.
    #[error("the body is larger than {limit} (limits.intake.body)")]
    TooLarge {
        /// The limit, as the configuration writes it.
        limit: String,
    },
    /// The body did not arrive.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(std::time::Duration),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    BrokenOff(String),
    /// Too much is under way.
    #[error("overloaded, come again")]
    Overloaded,
    /// The daemon is stopping.
    #[error("stopping, come again")]
    Stopping,
    /// The disk refuses.
    #[error("the journal cannot be written")]
    Disk(String),
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Rejection {
    /// One word, for the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(..) => "malformed",
            Self::TooLarge { .. } => "too-large",
            Self::TooSlow(_) => "too-slow",
            Self::BrokenOff(_) => "broken-off",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::Disk(_) => "disk",
        }
    }
}

impl Rejection {
    /// Whether somebody should have been woken for what is lost.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Malformed(_, true))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Malformed(..) | Self::BrokenOff(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) | Self::Overloaded | Self::Stopping | Self::Disk(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let place = match &self {
            Self::Malformed(error, _) => Some((error.line, error.column)),
            _ => None,
        };
        let body = ErrorBody {
            error: self.to_string(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
        };
        let mut response = (status, Json(body)).into_response();
        if status != StatusCode::BAD_REQUEST {
            // The rest of the body is not read, and a balancer should look elsewhere.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
