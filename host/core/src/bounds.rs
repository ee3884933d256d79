//! How much of what a sender wrote is taken in with one alert.
//!
//! Labels are an alert's identity, so they are whole or the alert is refused; annotations
//! are for people, so they are cut, and say so. The bounds are far above what real senders
//! need.

use crate::alert::Labels;

/// How many labels, and how many annotations, an alert may have.
pub const COUNT: usize = 256;

/// How long the name of a label or an annotation may be, in bytes.
pub const NAME: usize = 1 << 10;

/// How long a label's value may be, in bytes.
pub const LABEL: usize = 16 << 10;

/// How long all labels of an alert may be together, names and values, in bytes.
pub const LABELS: usize = 64 << 10;

/// How long an annotation may be, in bytes.
pub const ANNOTATION: usize = 32 << 10;

/// How long all annotations of an alert may be together, names and values, in bytes.
pub const ANNOTATIONS: usize = 64 << 10;

/// How long the link to what raised an alert may be, in bytes.
pub const LINK: usize = 4 << 10;

/// How long a fingerprint may be that a sender gave, in bytes; a longer one is not used.
pub const FINGERPRINT: usize = 128;

/// How long a target may be that a policy's template makes of an alert, in bytes: it stands in
/// every line about its incident.
pub const TARGET: usize = 256;

/// How much of a foreign text an error quotes, in characters.
pub const QUOTED: usize = 200;

/// What stands at the end of a text that was cut.
pub const CUT: &str = " […cut]";

/// Why an alert's labels are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// A name is too long.
    #[error("the name of label `{}` has {length} bytes, and may have {}", quoted(.name), NAME)]
    Name {
        /// The name.
        name: String,
        /// Its length.
        length: usize,
    },
    /// A value is too long.
    #[error("label `{}` has {length} bytes, and may have {}", quoted(.name), LABEL)]
    Value {
        /// The label.
        name: String,
        /// The value's length, or how much of it was read.
        length: usize,
    },
    /// There are too many.
    #[error("there are more than {} labels", COUNT)]
    Count,
    /// They are too long together.
    #[error("the labels together have more than {} bytes", LABELS)]
    Total,
}

/// Looks whether labels are within the bounds.
pub fn check_labels(labels: &Labels) -> Result<(), OutOfBounds> {
    if labels.len() > COUNT {
        return Err(OutOfBounds::Count);
    }
    let mut total = 0_usize;
    for (name, value) in labels {
        check_label(name, value)?;
        total = total.saturating_add(name.len()).saturating_add(value.len());
    }
    if total > LABELS {
        return Err(OutOfBounds::Total);
    }
    Ok(())
}

/// Looks whether one label is within its bounds.
pub fn check_label(name: &str, value: &str) -> Result<(), OutOfBounds> {
    if name.len() > NAME {
        return Err(OutOfBounds::Name {
            name: name.to_owned(),
            length: name.len(),
        });
    }
    if value.len() > LABEL {
        return Err(OutOfBounds::Value {
            name: name.to_owned(),
            length: value.len(),
        });
    }
    Ok(())
}

/// Annotations that are gathered one after another, and never more than the bounds let.
#[derive(Debug, Default)]
pub struct Annotations {
    taken: Labels,
    bytes: usize,
    cut: bool,
}

impl Annotations {
    /// Takes one in, as far as there is room; a later one takes the place of an earlier one
    /// of the same name.
    pub fn put(&mut self, name: String, mut value: String) {
        let before = self.taken.get(&name).map(|value| name.len() + value.len());
        let others = self.bytes - before.unwrap_or_default();
        let room = ANNOTATIONS.saturating_sub(others + name.len());
        let crowded = before.is_none() && self.taken.len() >= COUNT;
        if name.len() > NAME || crowded || room <= CUT.len() {
            self.cut = true;
            return;
        }
        self.cut |= cut(&mut value, ANNOTATION.min(room));
        self.bytes = others + name.len() + value.len();
        self.taken.insert(name, value);
    }

    /// Drops one, because it turned out to be absent.
    pub fn remove(&mut self, name: &str) {
        if let Some(value) = self.taken.remove(name) {
            self.bytes -= name.len() + value.len();
        }
    }

    /// The annotations, and whether something was left out.
    #[must_use]
    pub fn finish(self) -> (Labels, bool) {
        (self.taken, self.cut)
    }
}

/// Annotations within the bounds.
#[must_use]
pub fn annotations(all: Labels) -> Labels {
    let mut taken = Annotations::default();
    for (name, value) in all {
        taken.put(name, value);
    }
    taken.finish().0
}

/// Cuts a text to `limit` bytes, the mark of the cut included; false when it is short
/// enough.
pub fn cut(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    text.truncate(text.floor_char_boundary(limit.saturating_sub(CUT.len())));
    text.push_str(CUT);
    true
}

/// The beginning of a foreign text, fit to stand in an error: cut, and without anything
/// that moves the cursor.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(QUOTED)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: impl IntoIterator<Item = (String, String)>) -> Labels {
        pairs.into_iter().collect()
    }

    #[test]
    fn labels_are_whole_or_refused() {
        let ok = labels([("n".repeat(NAME), "v".repeat(LABEL))]);
        assert_eq!(check_labels(&ok), Ok(()));
        for (bad, reason) in [
            (
                labels([("n".repeat(NAME + 1), "v".to_owned())]),
                "may have 1024",
            ),
            (
                labels([("n".to_owned(), "v".repeat(LABEL + 1))]),
                "may have 16384",
            ),
            (
                labels((0..=COUNT).map(|n| (n.to_string(), "v".to_owned()))),
                "more than 256",
            ),
            (
                labels((0..5).map(|n| (n.to_string(), "v".repeat(LABEL)))),
                "more than 65536",
            ),
        ] {
            let error = check_labels(&bad).unwrap_err().to_string();
            assert!(error.contains(reason) && error.len() < 400, "{error}");
        }
    }

    #[test]
    fn annotations_are_cut_and_say_so() {
        let mut gathered = Annotations::default();
        gathered.put("summary".to_owned(), "short".to_owned());
        gathered.put("description".to_owned(), "ü".repeat(ANNOTATION));
        gathered.put("n".repeat(NAME + 1), "dropped".to_owned());
        let (taken, cut) = gathered.finish();
        assert!(cut);
        assert_eq!(taken.len(), 2);
        assert_eq!(taken["summary"], "short");
        let description = &taken["description"];
        assert!(description.len() <= ANNOTATION && description.len() > ANNOTATION - 10);
        assert!(description.ends_with(CUT), "says that it was cut");
    }

    #[test]
    fn all_annotations_together_are_bounded_whatever_comes() {
        let mut gathered = Annotations::default();
        for n in 0..2000 {
            gathered.put(format!("a{}", n % 700), "x".repeat(n * 37 % 9000));
            gathered.remove(&format!("a{}", n % 13));
        }
        let (taken, cut) = gathered.finish();
        let bytes: usize = taken
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(
            cut && bytes <= ANNOTATIONS && taken.len() <= COUNT,
            "{bytes}"
        );
    }

    #[test]
    fn what_is_quoted_is_short_and_stays_in_its_line() {
        let shown = quoted(&"a\n\u{1b}[31m".repeat(1000));
        assert!(shown.chars().count() == QUOTED + 1 && shown.ends_with('…'));
        assert!(!shown.contains(char::is_control));
        assert_eq!(quoted("plain"), "plain");
    }
}
