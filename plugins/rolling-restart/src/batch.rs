//! How many containers are restarted at once.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of containers, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batch {
    /// So many; at least one.
    Count(usize),
    /// So many of a hundred, 1 to 100.
    Percent(usize),
}

impl Batch {
    /// How many of `total` that is: at least one.
    pub(crate) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => total.saturating_mul(percent) / 100,
        }
        .max(1)
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BatchVisitor;

        impl Visitor<'_> for BatchVisitor {
            type Value = Batch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of containers, at least 1, or a share such as 25%")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Batch, E> {
                match usize::try_from(count) {
                    Ok(count @ 1..) => Ok(Batch::Count(count)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(count), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Batch, E> {
                text.strip_suffix('%')
                    .and_then(|percent| percent.parse().ok())
                    .filter(|percent| (1..=100).contains(percent))
                    .map(Batch::Percent)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(BatchVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_never_nothing() {
        for (batch, total, size) in [
            (Batch::Count(3), 10, 3),
            (Batch::Percent(25), 10, 2),
            (Batch::Percent(25), 3, 1),
            (Batch::Percent(100), 7, 7),
        ] {
            assert_eq!(batch.of(total), size, "{batch:?} of {total}");
        }
    }
}
