//! Reads JSON as laxly as the languages of its senders write it, in one way through the
//! text and without building a tree: half a surrogate is U+FFFD, as are bytes that are no
//! UTF-8; of a key that stands twice the last one counts; a number is the text that it is
//! written as. What is skipped takes no memory.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What stands in the place of what is no character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The longest text that can be a time, as it is written.
const TIME: usize = 64;

/// How many bytes more than it has a body takes once what is no UTF-8 in it is replaced.
#[must_use]
pub fn growth(body: &[u8]) -> usize {
    if std::str::from_utf8(body).is_ok() {
        return 0;
    }
    let invalid = body.utf8_chunks().map(|chunk| chunk.invalid().len());
    body.len() + invalid.filter(|length| *length > 0).count() * REPLACEMENT.len_utf8()
}

/// A body as text, without the mark that some editors begin a file with.
#[must_use]
pub fn text(body: Bytes) -> String {
    let body = match body.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => body.slice_ref(rest),
        None => body,
    };
    String::from_utf8(body.into())
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// What kind of value stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Text,
    Number,
    Boolean,
    Object,
    Array,
}

impl Kind {
    /// Of a value as it is written.
    pub(crate) fn of(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'"') => Self::Text,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Object => "an object",
            Self::Array => "an array",
        })
    }
}

/// The one value of a text.
pub(crate) fn whole(text: &str) -> Result<&str, serde_json::Error> {
    serde_json::from_str::<&RawValue>(text).map(RawValue::get)
}

/// Shows `each` every key and value of an object, as they are written, until it says
/// false. Whatever is no object has none.
pub(crate) fn pairs<'a>(object: &'a str, each: impl FnMut(&'a str, &'a str) -> bool) {
    struct Pairs<F>(F);

    impl<'de, F: FnMut(&'de str, &'de str) -> bool> Visitor<'de> for Pairs<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<&RawValue>()? {
                let value = map.next_value::<&RawValue>()?;
                if !(self.0)(key.get(), value.get()) {
                    return Err(A::Error::custom("enough"));
                }
            }
            Ok(())
        }
    }

    if Kind::of(object) == Kind::Object {
        let mut deserializer = serde_json::Deserializer::from_str(object);
        // The text was read once, so it can only be that enough was seen.
        let _enough = deserializer.deserialize_map(Pairs(each));
    }
}

/// Whether a key as it is written is the name of this field: in any case, as Go reads it, so that
/// `EndsAt` of senders in other languages is not passed over.
pub(super) fn is_named(key: &str, name: &str) -> bool {
    let plain = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let plain = plain.unwrap_or(key);
    // An escape is longer than the character that it stands for.
    plain.eq_ignore_ascii_case(name)
        || (plain.len() > name.len()
            && plain.contains('\\')
            && string(key, name.len()).0.eq_ignore_ascii_case(name))
}

/// Where the values of an array begin that stands at `at`.
pub(crate) fn inside(text: &str, at: usize) -> usize {
    let array = text.get(at..).unwrap_or_default();
    at + array.find('[').map_or(array.len(), |bracket| bracket + 1)
}

/// The next value of an array from a place behind its bracket, or behind an earlier value:
/// its place and its end. None at the end of the array.
pub(crate) fn element(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = text.get(at..)?;
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
    if rest.is_empty() || rest.starts_with(']') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(rest);
    let raw = <&RawValue>::deserialize(&mut deserializer).ok()?;
    let start = text.len() - rest.len();
    Some((start, start + raw.get().len()))
}

/// The text of a string as it is written, with its quotes, up to `limit` bytes and a
/// little; and whether that is all of it.
pub(crate) fn string(raw: &str, limit: usize) -> (String, bool) {
    let inner = raw
        .strip_prefix('"')
        .and_then(|raw| raw.strip_suffix('"'))
        .unwrap_or(raw);
    let mut text = String::new();
    let mut rest = inner;
    while let Some(plain) = rest.find('\\') {
        push(&mut text, rest.get(..plain).unwrap_or_default(), limit);
        if text.len() > limit {
            return (text, false);
        }
        let (character, length) = escape(rest.get(plain..).unwrap_or_default());
        text.push(character);
        rest = rest.get(plain + length..).unwrap_or_default();
    }
    push(&mut text, rest, limit);
    let all = text.len() <= limit;
    (text, all)
}

/// Adds what is not more than one character over the limit.
fn push(text: &mut String, plain: &str, limit: usize) {
    let room = (limit + 1).saturating_sub(text.len());
    let end = plain.ceil_char_boundary(room.min(plain.len()));
    text.push_str(plain.get(..end).unwrap_or_default());
}

/// The character that an escape stands for, and how long it is as it is written.
fn escape(text: &str) -> (char, usize) {
    let bytes = text.as_bytes();
    let short = match bytes.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unicode(text),
        Some(other) => char::from(*other),
        None => REPLACEMENT,
    };
    (short, 2)
}

fn unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6)?;
        let digits = escape.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else {
        return (REPLACEMENT, 2);
    };
    if let Some(character) = char::from_u32(first) {
        return (character, 6);
    }
    // Half a pair, which is a character only with its other half behind it.
    match unit(6) {
        Some(second @ 0xDC00..0xE000) if first < 0xDC00 => {
            let character = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            (char::from_u32(character).unwrap_or(REPLACEMENT), 12)
        }
        _ => (REPLACEMENT, 6),
    }
}

/// What stands where a text is expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// Nothing: null.
    Absent,
    /// A text, or a number or a boolean as it is written.
    Text(String),
    /// More than there may be, by its beginning.
    Long(String),
    /// An object or an array.
    Compound,
}

/// A value as a text of up to `limit` bytes.
pub(crate) fn scalar(raw: &str, limit: usize) -> Scalar {
    let (text, all) = match Kind::of(raw) {
        Kind::Null => return Scalar::Absent,
        Kind::Object | Kind::Array => return Scalar::Compound,
        Kind::Text => string(raw, limit),
        Kind::Number | Kind::Boolean => {
            let mut text = String::new();
            push(&mut text, raw, limit);
            let all = text.len() <= limit;
            (text, all)
        }
    };
    if all {
        Scalar::Text(text)
    } else {
        Scalar::Long(text)
    }
}

/// What stands where a time is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// Nothing: null, an empty text, or Go's zero time.
    Absent,
    /// A time.
    At(Timestamp),
    /// Something else.
    Odd,
}

impl Time {
    /// The time, if there is one.
    pub(crate) fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Absent | Self::Odd => None,
        }
    }
}

/// A value as a time: RFC 3339; without an offset it is UTC, as Alertmanager has it.
pub(crate) fn time(raw: &str) -> Time {
    if Kind::of(raw) == Kind::Null {
        return Time::Absent;
    }
    if Kind::of(raw) != Kind::Text {
        return Time::Odd;
    }
    let (text, true) = string(raw, TIME) else {
        return Time::Odd;
    };
    if text.is_empty() {
        return Time::Absent;
    }
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    match text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| local().map(|zoned| zoned.timestamp()))
    {
        Some(at) if is_zero(at) => Time::Absent,
        Some(at) => Time::At(at),
        None => Time::Odd,
    }
}

/// The second of Go's zero `time.Time`, in year 1.
const ZERO: i64 = -62_135_596_800;

/// Go's zero time: what its programs write for a time that they do not have.
pub(crate) fn zero() -> Timestamp {
    Timestamp::from_second(ZERO).unwrap_or(Timestamp::MIN)
}

fn is_zero(at: Timestamp) -> bool {
    at.as_second() <= ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_go_reads_them() {
        for (raw, text) in [
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (r#""a\"b\\c\/d\n\t\r\b\f""#, "a\"b\\c/d\n\t\r\u{8}\u{c}"),
            (r#""\u00e4\u20AC""#, "ä€"),
            (r#""\ud83d\ude00!""#, "😀!"),
            // Half a pair: alone, at the end, before text, the wrong way round, twice.
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""stuck \ud83d""#, "stuck \u{fffd}"),
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\u0000""#, "\0"),
        ] {
            assert_eq!(whole(raw).unwrap(), raw);
            assert_eq!(string(raw, 100), (text.to_owned(), true), "{raw}");
        }
    }

    #[test]
    fn of_long_texts_no_more_is_kept_than_asked_for() {
        for inner in [
            "x".repeat(5000),
            "ü".repeat(5000),
            "\\u00fc".repeat(5000),
            "\\n".repeat(5000),
        ] {
            let raw = format!("\"{inner}\"");
            let (text, all) = string(&raw, 1000);
            assert!(
                !all && text.len() > 1000 && text.len() < 1004,
                "{}",
                text.len()
            );
        }
        let digits = "9".repeat(5000);
        assert!(matches!(scalar(&digits, 100), Scalar::Long(text) if text.len() == 101));
    }

    #[test]
    fn values_are_their_texts() {
        let text = |text: &str| Scalar::Text(text.to_owned());
        assert_eq!(scalar("null", 10), Scalar::Absent);
        assert_eq!(scalar("8080", 10), text("8080"));
        assert_eq!(scalar("93.50", 10), text("93.50"));
        assert_eq!(scalar("-1e400", 10), text("-1e400"));
        assert_eq!(scalar("true", 10), text("true"));
        assert_eq!(scalar("[]", 10), Scalar::Compound);
        assert_eq!(scalar("{}", 10), Scalar::Compound);
    }

    #[test]
    fn times_are_read_as_their_senders_write_them() {
        let at = |text: &str| Time::At(text.parse().unwrap());
        for (raw, time_) in [
            (r#""2026-01-01T00:00:00Z""#, at("2026-01-01T00:00:00Z")),
            (
                r#""2026-01-01T00:00:00.5-06:00""#,
                at("2026-01-01T06:00:00.5Z"),
            ),
            // Python's `datetime.utcnow().isoformat()`.
            (
                r#""2026-01-01T00:00:00.123456""#,
                at("2026-01-01T00:00:00.123456Z"),
            ),
            (r#""0001-01-01T00:00:00Z""#, Time::Absent),
            (r#""""#, Time::Absent),
            ("null", Time::Absent),
            (r#""yesterday""#, Time::Odd),
            ("1767225600", Time::Odd),
            ("{}", Time::Odd),
            ("true", Time::Odd),
        ] {
            assert_eq!(time(raw), time_, "{raw}");
        }
        assert_eq!(time(&format!("\"{}\"", "2".repeat(5000))), Time::Odd);
        assert_eq!(zero().to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn arrays_are_walked_value_by_value() {
        let all = |text: &str| {
            let (mut at, mut found) = (inside(text, 0), Vec::new());
            while let Some((start, end)) = element(text, at) {
                found.push(text[start..end].to_owned());
                at = end;
            }
            found
        };
        assert_eq!(all("[]"), Vec::<String>::new());
        assert_eq!(all(" [ \n ] "), Vec::<String>::new());
        assert_eq!(all("[1,2]"), ["1", "2"]);
        assert_eq!(
            all(" [ [[1]] , {\"a\":[2,3]} ,\"],\" , null,[]]"),
            ["[[1]]", "{\"a\":[2,3]}", "\"],\"", "null", "[]"]
        );
    }

    #[test]
    fn objects_are_walked_pair_by_pair_as_far_as_asked() {
        let mut seen = Vec::new();
        pairs(r#"{"a":1, "\ud83d" : [2], "a":null}"#, |key, value| {
            seen.push(format!("{key}={value}"));
            true
        });
        assert_eq!(seen, [r#""a"=1"#, r#""\ud83d"=[2]"#, r#""a"=null"#]);
        let mut count = 0;
        pairs(r#"{"a":1,"b":2,"c":3}"#, |_, _| {
            count += 1;
            count < 2
        });
        assert_eq!(count, 2);
        pairs("[1]", |_, _| panic!("an array has no pairs"));
    }

    #[test]
    fn fields_are_known_in_any_case_and_spelling() {
        for key in [
            r#""endsAt""#,
            r#""EndsAt""#,
            r#""endsat""#,
            r#""ends\u0041t""#,
            r#""\u0065\u006e\u0064\u0073\u0041\u0074""#,
        ] {
            assert!(is_named(key, "endsAt"), "{key}");
        }
        for key in [
            r#""endsA""#,
            r#""endsAt ""#,
            r#""ends_at""#,
            r#""endsAt\u0020""#,
            r#""endsAt\u0000""#,
            r#""""#,
        ] {
            assert!(!is_named(key, "endsAt"), "{key}");
        }
    }

    #[test]
    fn bodies_of_other_encodings_are_still_text() {
        assert_eq!(text(Bytes::from_static(b"\xEF\xBB\xBF[]")), "[]");
        assert_eq!(text(Bytes::from_static(b"\"caf\xE9\"")), "\"caf\u{fffd}\"");
        assert_eq!(growth(b"ascii"), 0);
        assert!(growth(&[0xFF; 100]) >= 300 - 100);
    }
}
