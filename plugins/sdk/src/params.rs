//! What helps with a step's `params`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

use crate::Failure;

/// The params of a plugin that takes none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct None {}

impl None {
    /// The schema of no params.
    pub const SCHEMA: &'static str = r#"{ "type": "object", "additionalProperties": false }"#;
}

/// A span of time as policies write it: `5s`, `1m30s`, `250ms`, or a number of seconds.
///
/// The units are `d`, `h`, `m`, `s` and `ms`, the greater one first. This is its JSON Schema:
///
/// ```json
/// {
///     "type": ["string", "number"],
///     "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
///     "minLength": 2,
///     "minimum": 0
/// }
/// ```
///
/// It is a [`Duration`] wherever the crate asks for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The span as the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// As it is read: `1m30s`. Parts of a millisecond are left out.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, milliseconds) in UNITS {
            let count = rest / u128::from(milliseconds);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            rest %= u128::from(milliseconds);
        }
        Ok(())
    }
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The text is no span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseSpanError(());

impl fmt::Display for ParseSpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }
}

impl std::error::Error for ParseSpanError {}

const EXPECTED: &str = "a span of time such as 5s, 1m30s or 250ms";

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let mut rest = text;
        let mut total: u64 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (count, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(letters);
            let (_, milliseconds) = units
                .find(|(name, _)| *name == unit)
                .ok_or(ParseSpanError(()))?;
            total = count
                .parse::<u64>()
                .ok()
                .and_then(|count| count.checked_mul(*milliseconds))
                .and_then(|part| total.checked_add(part))
                .ok_or(ParseSpanError(()))?;
            rest = tail;
        }
        if text.is_empty() {
            return Err(ParseSpanError(()));
        }
        Ok(Self::from_millis(total))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{EXPECTED}, or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse()
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span::from_secs(seconds))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(seconds)
                    .map(Span)
                    .map_err(|_| E::invalid_value(de::Unexpected::Float(seconds), &self))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

/// The params as the plugin wants them; a permanent failure that says what is wrong, for
/// they are the policy's, and another attempt brings the same.
pub(crate) fn parse<T: DeserializeOwned>(params: &str) -> Result<T, Failure> {
    serde_json::from_str(params).map_err(|error| {
        let text = error.to_string();
        // The place is one in a JSON text that nobody wrote by hand.
        let place = format!(" at line {} column {}", error.line(), error.column());
        Failure::permanent(format!(
            "params: {}",
            text.strip_suffix(&place).unwrap_or(&text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        timeout: Span,
    }

    fn timeout(json: &str) -> Result<Span, Failure> {
        parse::<Params>(&format!("{{\"timeout\":{json}}}")).map(|params| params.timeout)
    }

    #[test]
    fn spans_are_read_as_policies_write_them() {
        for (json, milliseconds) in [
            ("\"5s\"", 5_000),
            ("\"1m30s\"", 90_000),
            ("\"250ms\"", 250),
            ("\"1d2h3m4s5ms\"", 93_784_005),
            ("\"0s\"", 0),
            ("2", 2_000),
            ("0.25", 250),
        ] {
            assert_eq!(timeout(json), Ok(Span::from_millis(milliseconds)), "{json}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_with_what_was_expected() {
        for json in [
            "\"\"",
            "\"5\"",
            "\"s\"",
            "\"5 s\"",
            "\"-5s\"",
            "\"5s1m\"",
            "\"5s5s\"",
            "\"5y\"",
            "\"5S\"",
            "\"99999999999999999999s\"",
            "\"999999999999999d\"",
            "-1",
            "1e300",
            "true",
            "null",
            "\"٥s\"",
        ] {
            let Err(Failure::Permanent(text)) = timeout(json) else {
                panic!("{json} was taken");
            };
            assert!(text.starts_with("params: "), "{text}");
            assert!(
                text.ends_with(
                    "expected a span of time such as 5s, 1m30s or 250ms, or a number of seconds"
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn spans_print_as_they_are_read() {
        for text in ["5s", "1m30s", "250ms", "1d2h3m4s5ms", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_param_is_named() {
        assert_eq!(
            parse::<Params>(r#"{"timeuot":1}"#),
            Err(Failure::permanent(
                "params: unknown field `timeuot`, expected `timeout`"
            ))
        );
        assert_eq!(
            parse::<None>(r#"{"x":1}"#),
            Err(Failure::permanent(
                "params: unknown field `x`, there are no fields"
            ))
        );
    }
}
