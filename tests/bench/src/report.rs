//! One table, or the same as JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;

/// What is aimed at.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "value")]
pub(crate) enum Aim {
    /// At least this much.
    AtLeast(f64),
    /// At most this much.
    AtMost(f64),
    /// Nothing: the figure is there to be compared with.
    None,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Which measure it belongs to, as `--only` takes it.
    pub(crate) measure: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What is aimed at.
    pub(crate) aim: Aim,
    /// What could be reached at the most here, where something else says so.
    pub(crate) limit: Option<f64>,
    /// What limits it, or what it consists of.
    pub(crate) limited_by: String,
}

impl Row {
    /// A figure without an aim.
    pub(crate) fn new(measure: &'static str, what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            measure,
            what: what.to_owned(),
            value,
            unit,
            aim: Aim::None,
            limit: None,
            limited_by: String::new(),
        }
    }

    /// With what is aimed at.
    pub(crate) fn aim(mut self, aim: Aim) -> Self {
        self.aim = aim;
        self
    }

    /// With what could be reached at the most.
    pub(crate) fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// With what limits it.
    pub(crate) fn by(mut self, limited_by: impl Into<String>) -> Self {
        self.limited_by = limited_by.into();
        self
    }

    /// Whether the aim is reached; none without one.
    fn reached(&self) -> Option<bool> {
        match self.aim {
            Aim::AtLeast(aim) => Some(self.value >= aim),
            Aim::AtMost(aim) => Some(self.value <= aim),
            Aim::None => None,
        }
    }

    fn cells(&self) -> [String; 5] {
        let unit = self.unit;
        let aim = match self.aim {
            Aim::AtLeast(aim) => format!("≥ {}", number(aim)),
            Aim::AtMost(aim) => format!("≤ {}", number(aim)),
            Aim::None => "–".to_owned(),
        };
        let mark = match self.reached() {
            Some(true) => " ✓",
            Some(false) => " ✗",
            None => "",
        };
        [
            self.what.clone(),
            format!("{} {unit}", number(self.value)),
            format!("{aim}{mark}"),
            self.limit.map_or_else(|| "–".to_owned(), number),
            self.limited_by.clone(),
        ]
    }
}

/// A number for people: three digits that count, thousands apart.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 10.0 {
        return format!("{value:.2}");
    }
    if magnitude < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{magnitude:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// The table.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["what", "figure", "aim", "limit", "limited by"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|cells| cells.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, cells) in lines.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Numbers stand at the right, words at the left.
            let (before, after) = if (1..=3).contains(&column) {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            // Writing to a string cannot fail.
            let _written = write!(line, "{before}{cell}{after}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if index == 0 {
            let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            text.push_str(&"─".repeat(total));
            text.push('\n');
        }
    }
    text
}

/// Prints to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// Says on stderr what is being done.
pub(crate) fn note(text: &str) {
    // A closed stderr is no reason to stop.
    let _written = writeln!(std::io::stderr().lock(), "==> {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_reached_or_not() {
        let row = Row::new("accept", "x", 10.0, "ms");
        assert_eq!(row.reached(), None);
        assert_eq!(row.clone().aim(Aim::AtMost(9.9)).reached(), Some(false));
        assert_eq!(row.clone().aim(Aim::AtLeast(10.0)).reached(), Some(true));
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(number(0.613), "0.61");
        assert_eq!(number(42.36), "42.4");
        assert_eq!(number(1_234_567.0), "1 234 567");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            Row::new("a", "short", 1.0, "ms"),
            Row::new("a", "rather longer", 1000.0, "ms").by("the disk"),
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let end = |line: &str| line.find(" ms").map(|at| line[..at].chars().count());
        assert_eq!(end(lines[2]), end(lines[3]), "{text}");
    }
}
