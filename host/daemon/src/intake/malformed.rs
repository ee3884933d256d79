//! What is wrong with a body, and where; and how one bad alert is told from the others.

use sentinel_core::alert::Alert;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A body, or an alert in it, is not what a door takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub(super) struct Malformed {
    /// What is wrong.
    pub(super) message: String,
    /// The line in the body, counted from 1.
    pub(super) line: usize,
    /// The column, counted from 1.
    pub(super) column: usize,
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self {
            line: error.line().max(1),
            column: error.column().max(1),
            message: message(&error),
        }
    }
}

/// The error without its place, which is told beside it.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Reads the alerts of `body` one by one, so that one that is bad does not take the
/// others with it. If none is good, the first error is the whole delivery's.
pub(super) fn sift<T: DeserializeOwned>(
    body: &[u8],
    raw: Vec<&RawValue>,
    normalise: impl Fn(T) -> Result<Alert, serde_json::Error>,
) -> Result<(Vec<Alert>, Vec<Malformed>), Malformed> {
    let mut alerts = Vec::with_capacity(raw.len());
    let mut bad = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        match serde_json::from_str(raw.get()).and_then(&normalise) {
            Ok(alert) => alerts.push(alert),
            Err(error) => bad.push(locate(body, raw, index, &error)),
        }
    }
    match bad.first() {
        Some(first) if alerts.is_empty() => Err(first.clone()),
        _ => Ok((alerts, bad)),
    }
}

/// An error inside one alert, with its place in the whole body.
fn locate(body: &[u8], raw: &RawValue, index: usize, error: &serde_json::Error) -> Malformed {
    // The alert is a part of the body, so the distance is its offset.
    let offset = (raw.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    let before = body.get(..offset).unwrap_or_default();
    let line = before
        .split(|byte| *byte == b'\n')
        .count()
        .saturating_sub(1);
    let column = before
        .rsplit(|byte| *byte == b'\n')
        .next()
        .map_or(0, <[u8]>::len);
    let (line, column) = match (error.line(), error.column()) {
        // An error of our own making speaks of the alert as a whole.
        (0, _) => (line + 1, column + 1),
        (1, inside) => (line + 1, column + inside),
        (lines, inside) => (line + lines, inside),
    };
    Malformed {
        message: format!("alerts[{index}]: {}", message(error)),
        line,
        column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde::de::Error as _;

    #[derive(Deserialize)]
    struct Wire {
        n: u32,
    }

    fn read(body: &str) -> Result<(usize, Vec<Malformed>), Malformed> {
        let raw: Vec<&RawValue> = serde_json::from_str(body).unwrap();
        sift(body.as_bytes(), raw, |wire: Wire| {
            Err(serde_json::Error::custom(format!(
                "{} is too small",
                wire.n
            )))
        })
        .map(|(alerts, bad)| (alerts.len(), bad))
    }

    #[test]
    fn places_are_those_of_the_whole_body() {
        let error = read("[\n  {\"n\": true}]").unwrap_err();
        assert_eq!((error.line, error.column), (2, 12), "{error}");
        assert!(
            error.message.starts_with("alerts[0]: invalid type"),
            "{error}"
        );
        let error = read("[{\n\"n\":\n  true}]").unwrap_err();
        assert_eq!((error.line, error.column), (3, 6), "{error}");
        let error = read("[\n  {\"n\": 1}]").unwrap_err();
        assert_eq!((error.line, error.column), (2, 3), "{error}");
    }
}
