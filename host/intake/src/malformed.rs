//! What is wrong with a body, and where. However much that is, little is kept of it.

use sentinel_core::bounds::quoted;

/// How many alerts of a delivery that are refused are told of one by one.
const TOLD: usize = 20;

/// How long all that is said of a delivery may be, in bytes.
const SAID: usize = 4 << 10;

/// A body, or an alert in it, is not what an endpoint takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Malformed {
    /// What is wrong.
    pub message: String,
    /// The line in the body, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
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
    quoted(text.strip_suffix(&place).unwrap_or(&text))
}

/// What is wrong with something that stands at a place of the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The place, in bytes from the beginning.
    pub(crate) at: usize,
    /// What.
    pub(crate) message: String,
}

impl Wrong {
    /// Something is wrong with `part`, which is a part of `text`.
    pub(crate) fn with(text: &str, part: &str, message: String) -> Self {
        let at = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        Self { at, message }
    }
}

/// Finds the lines of places that come one behind the other, in one way through the text.
#[derive(Debug)]
pub(crate) struct Places {
    at: usize,
    line: usize,
    line_begins: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            at: 0,
            line: 1,
            line_begins: 0,
        }
    }
}

impl Places {
    pub(crate) fn locate(&mut self, text: &str, wrong: Wrong) -> Malformed {
        let passed = text.get(self.at..wrong.at).unwrap_or_default();
        for (offset, _) in passed.match_indices('\n') {
            self.line += 1;
            self.line_begins = self.at + offset + 1;
        }
        self.at = self.at.max(wrong.at);
        Malformed {
            message: wrong.message,
            line: self.line,
            column: wrong.at.saturating_sub(self.line_begins) + 1,
        }
    }
}

/// The alerts of a delivery that are refused: some of them, and how many.
#[derive(Debug, Default)]
pub struct Refused {
    first: Vec<Malformed>,
    count: usize,
    urgent: bool,
}

impl Refused {
    /// Whether what is wrong with one more would be told.
    pub(crate) fn tells(&self) -> bool {
        self.first.len() < TOLD
    }

    /// One more; `wrong` says what is wrong with it, if that is to be told.
    pub(crate) fn push(&mut self, wrong: Option<Malformed>, urgent: bool) {
        self.count += 1;
        self.urgent |= urgent;
        self.first.extend(wrong);
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether somebody should have been woken for one of them.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// What is wrong with the first of them.
    #[must_use]
    pub fn first(&self) -> Option<&Malformed> {
        self.first.first()
    }

    /// What is wrong with each of which that is told, as far as there is room.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut room = SAID;
        let mut reasons = Vec::new();
        for one in &self.first {
            let reason = one.to_string();
            room = room.saturating_sub(reason.len());
            if room == 0 {
                break;
            }
            reasons.push(reason);
        }
        reasons
    }

    /// All of that in one line, and how many more there are.
    #[must_use]
    pub fn summary(&self) -> String {
        let reasons = self.reasons();
        let summary = reasons.join("; ");
        match self.count - reasons.len() {
            0 => summary,
            more => format!("{summary}; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_whole_body() {
        let text = "[\n  {\"n\": true},\n\n{}]";
        let mut places = Places::default();
        for (part, line, column) in [("{\"n\"", 2, 3), ("true", 2, 9), ("{}", 4, 1)] {
            let at = text.find(part).unwrap();
            let wrong = Wrong::with(text, &text[at..], "bad".to_owned());
            assert_eq!(wrong.at, at);
            let found = places.locate(text, wrong);
            assert_eq!((found.line, found.column), (line, column), "{part}");
        }
    }

    #[test]
    fn what_is_kept_of_refused_alerts_is_little() {
        let mut refused = Refused::default();
        for n in 0..100_000 {
            let wrong = refused.tells().then(|| Malformed {
                message: format!("alerts[{n}]: {}", "x".repeat(300)),
                line: 1,
                column: n + 1,
            });
            refused.push(wrong, false);
        }
        assert_eq!(refused.count(), 100_000);
        let summary = refused.summary();
        assert!(summary.len() < SAID + 100, "{}", summary.len());
        assert!(
            summary.starts_with("line 1, column 1: alerts[0]"),
            "{summary}"
        );
        assert!(summary.ends_with("more"), "{summary}");
        let told = refused.reasons().len();
        assert!(
            summary.ends_with(&format!("and {} more", 100_000 - told)),
            "{summary}"
        );
    }
}
