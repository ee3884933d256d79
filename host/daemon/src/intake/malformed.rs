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

/// Alerts, or what is wrong with each that is none.
pub(super) type Sifted<'a> = Box<dyn Iterator<Item = Result<Alert, Malformed>> + Send + 'a>;

/// Reads the alerts of `body` one by one, as they are asked for: one that is bad does not
/// take the others with it, and a body of many thousands takes no more memory than those
/// that are being dealt with.
pub(super) fn sift<'a, T: DeserializeOwned>(
    body: &'a [u8],
    raw: Vec<&'a RawValue>,
    normalise: impl Fn(T) -> Result<Alert, serde_json::Error> + Send + 'a,
) -> Sifted<'a> {
    Box::new(raw.into_iter().enumerate().map(move |(index, raw)| {
        serde_json::from_str(raw.get())
            .and_then(&normalise)
            .map_err(|error| locate(body, raw, index, &error))
    }))
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

    fn first(body: &str) -> Malformed {
        let raw: Vec<&RawValue> = serde_json::from_str(body).unwrap();
        let mut alerts = sift(body.as_bytes(), raw, |wire: Wire| {
            Err(serde_json::Error::custom(format!(
                "{} is too small",
                wire.n
            )))
        });
        alerts.next().unwrap().unwrap_err()
    }

    #[test]
    fn places_are_those_of_the_whole_body() {
        let error = first("[\n  {\"n\": true}]");
        assert_eq!((error.line, error.column), (2, 12), "{error}");
        assert!(
            error.message.starts_with("alerts[0]: invalid type"),
            "{error}"
        );
        let error = first("[{\n\"n\":\n  true}]");
        assert_eq!((error.line, error.column), (3, 6), "{error}");
        let error = first("[\n  {\"n\": 1}]");
        assert_eq!((error.line, error.column), (2, 3), "{error}");
    }
}
