//! The forms that `/metrics` is written in, and which of them a client wants.

use std::fmt::Write as _;

/// A form of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4, which everything reads.
    Text,
}

impl Form {
    /// What a client that says `accept` wants: OpenMetrics if it likes that at least as much as plain text.
    pub(crate) fn wanted(accept: &str) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, String::new());
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => weight = value.trim().parse().unwrap_or(0.0),
                    Some(("version", value)) => value.trim_matches('"').clone_into(&mut version),
                    _ => {}
                }
            }
            match name.as_str() {
                "application/openmetrics-text" if matches!(&*version, "" | "0.0.1" | "1.0.0") => {
                    open = open.max(weight);
                }
                "text/plain" if matches!(&*version, "" | "0.0.4") => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its Content-Type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics as text 0.0.4, which knows no units, no end, no `info`, and calls a counter by the name of its series.
pub(super) fn as_text(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = ("", "");
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), said) => help = (name, said.unwrap_or_default()),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                // Help comes before the type, and the type says what both are called.
                if help.0 == name {
                    // Writing to a String cannot fail.
                    let _ok = writeln!(out, "# HELP {name}{suffix} {}", help.1);
                }
                let _ok = writeln!(out, "# TYPE {name}{suffix} {kind}");
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        for (accept, form) in [
            ("", Form::Text),
            ("*/*", Form::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Text),
            ("text/plain;version=0.0.4", Form::Text),
            ("application/openmetrics-text", Form::OpenMetrics),
            // Prometheus 2.53.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Form::OpenMetrics,
            ),
            // Prometheus 3 asks for names with escapes first.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Form::OpenMetrics,
            ),
            (
                "text/plain;q=0.9, application/openmetrics-text;q=0.1",
                Form::Text,
            ),
            ("application/openmetrics-text;version=2.0.0", Form::Text),
            ("application/openmetrics-text;q=0", Form::Text),
            ("application/openmetrics-text; q = x", Form::OpenMetrics),
            ("application/openmetrics-text; q=x", Form::Text),
        ] {
            assert_eq!(Form::wanted(accept), form, "{accept}");
        }
    }

    #[test]
    fn text_has_what_openmetrics_has_under_the_names_of_text() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# \\\"\"} 1\n# HELP b_seconds Time.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 0.0\n# HELP c What.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# \\\"\"} 1\n# HELP b_seconds Time.\n# TYPE b_seconds histogram\nb_seconds_sum 0.0\n# HELP c_info What.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(as_text(open), text);
    }
}
