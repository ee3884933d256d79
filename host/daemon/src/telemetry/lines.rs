//! The text log: one event is one line, whatever others wrote into it.

use std::error::Error;
use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes fields as `name=value`. A value with a space, a quote or a character that is not
/// seen stands in quotes, with such characters spelled out, so that nothing in it ends the
/// line, begins another field or turns the direction of reading.
pub(super) struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor {
            writer,
            begun: false,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'writer> {
    writer: Writer<'writer>,
    begun: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn put(&mut self, field: &Field, value: &str, quoted: bool) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), value, quoted);
        }
    }

    fn write(&mut self, name: &str, value: &str, quoted: bool) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return spelled(&mut self.writer, value, false);
        }
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
        } else {
            write!(self.writer, "{name}=")?;
        }
        let plain = |c: char| !(c.is_whitespace() || c == '"' || is_unseen(c));
        if quoted || value.is_empty() || !value.chars().all(plain) {
            self.writer.write_char('"')?;
            spelled(&mut self.writer, value, true)?;
            self.writer.write_char('"')
        } else {
            self.writer.write_str(value)
        }
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let quoted = field.name() != "message";
        self.put(field, value, quoted);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, &value.to_string(), true);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, &format!("{value:?}"), false);
    }
}

/// Writes `text` with everything spelled out that is not seen; `quoted` with what would end
/// the quotes as well.
fn spelled(to: &mut Writer<'_>, text: &str, quoted: bool) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\n' => to.write_str("\\n")?,
            '\r' => to.write_str("\\r")?,
            '\t' => to.write_str("\\t")?,
            '"' | '\\' if quoted => {
                to.write_char('\\')?;
                to.write_char(c)?;
            }
            c if is_unseen(c) => write!(to, "{}", c.escape_unicode())?,
            c => to.write_char(c)?,
        }
    }
    Ok(())
}

/// Whether a character steers a terminal, turns the direction of reading, or shows nothing.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(OneLine)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_others_wrote_is_one_line_whichever_way_it_is_given() {
        for foreign in [
            "<html>\n<h1>403</h1>\n</html>",
            "a\r\nERROR forged",
            "a\u{2028}b\u{85}c\u{b}d",
            "\u{202e}drow\u{200b}",
            "\u{1b}[31mred\u{9b}2J",
            "x\" error=\"forged",
            "\"a\" level=ERROR",
            "\u{0}\u{7}\u{feff}",
        ] {
            let error = std::io::Error::other(foreign.to_owned());
            let line = logged(|| {
                tracing::warn!(
                    said = foreign,
                    target = %foreign,
                    shown = ?foreign,
                    %error,
                    cause = &error as &(dyn Error + 'static),
                    "it went wrong: {foreign}"
                );
            });
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(line.ends_with('\n'));
            let unseen = |c: char| c != '\n' && is_unseen(c);
            assert!(!line.contains(unseen), "{line:?}");
            // No value of others is outside of quotes.
            let fields = line.split_once(" said=").unwrap().1;
            let mut inside = false;
            let mut bare = String::new();
            let mut escaped = false;
            for c in fields.chars() {
                match c {
                    _ if escaped => escaped = false,
                    '\\' if inside => escaped = true,
                    '"' => inside = !inside,
                    c if !inside => bare.push(c),
                    _ => {}
                }
            }
            assert_eq!(bare.trim_end(), " target= shown= error= cause=", "{line:?}");
        }
    }

    #[test]
    fn what_is_plain_is_written_plainly() {
        let line = logged(|| {
            tracing::info!(run = %"42.1", count = 3, on = true, said = "ok", took = ?std::time::Duration::from_millis(5), error = %"no such file", "done");
        });
        assert_eq!(
            line,
            " INFO done run=42.1 count=3 on=true said=\"ok\" took=5ms error=\"no such file\"\n"
        );
    }
}
