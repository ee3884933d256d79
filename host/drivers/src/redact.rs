//! Takes secrets out of what others say, in the spellings that servers usually give to what
//! they repeat.
//!
//! Each character of a secret may be written plainly, percent-encoded, as an escape of JSON
//! (also of JSON inside a text of JSON), as an entity of HTML, or as mail writes what is not
//! plain (quoted-printable); and the whole may be hexadecimal digits or a part of base64, in
//! each of the three ways in which it can lie there. It is no promise against a server that
//! wants to pass a secret on: such a one can spell it in ways that nobody knows.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands where a secret was.
pub(crate) const TAKEN_OUT: &str = "[secret]";

/// How many times over a spelling may be spelled again: backslashes before a quote in JSON
/// in JSON, `%2525` for `%`.
const NESTED: usize = 3;
/// The most backslashes that so many levels write before one character, and some more.
const BACKSLASHES: usize = 16;
/// A secret of fewer bytes is not looked for as base64, or in another case: that would take
/// out what only looks like it.
const LONG: usize = 8;
/// How few characters of base64 say something.
const BASE64: usize = 6;

/// Secrets, as they are looked for.
pub(crate) struct Redactor {
    needles: Vec<Needle>,
    /// The needles that may begin with a byte.
    begin: Vec<Vec<usize>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TAKEN_OUT)
    }
}

impl Redactor {
    /// Looks for each of these.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needles = Vec::new();
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            needles.extend(Needle::all(secret));
        }
        needles.sort();
        needles.dedup();
        let begin = (0..=u8::MAX)
            .map(|byte| {
                let begins = |(at, needle): (usize, &Needle)| needle.begins(byte).then_some(at);
                needles.iter().enumerate().filter_map(begins).collect()
            })
            .collect();
        Self { needles, begin }
    }

    /// `text` without them.
    pub(crate) fn text(&self, text: &str) -> String {
        let clean = self.bytes(text.as_bytes(), false);
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// `bytes` without them. Where the bytes are only the beginning of what was said
    /// (`cut`), what may be the beginning of a secret at their end is taken out, too.
    pub(crate) fn bytes(&self, bytes: &[u8], cut: bool) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            match self.at(rest) {
                Found::Whole(length) => {
                    clean.extend_from_slice(TAKEN_OUT.as_bytes());
                    rest = rest.get(length..).unwrap_or_default();
                }
                Found::Beginning if cut => {
                    clean.extend_from_slice(TAKEN_OUT.as_bytes());
                    break;
                }
                Found::Beginning | Found::Nothing => {
                    clean.push(*first);
                    rest = after;
                }
            }
        }
        clean
    }

    /// What is at the beginning of `rest`: the longest that can be taken out.
    fn at(&self, rest: &[u8]) -> Found {
        let mut best = Found::Nothing;
        let first = rest.first().copied().map_or(0, usize::from);
        for needle in self.begin.get(first).into_iter().flatten() {
            let Some(needle) = self.needles.get(*needle) else {
                continue;
            };
            match (needle.at(rest), best) {
                (Found::Whole(length), Found::Whole(known)) if length <= known => {}
                (found @ Found::Whole(_), _) | (found @ Found::Beginning, Found::Nothing) => {
                    best = found;
                }
                _ => {}
            }
        }
        best
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A secret on so many bytes.
    Whole(usize),
    /// What may become one: the bytes end first.
    Beginning,
    /// Nothing.
    Nothing,
}

/// How the characters of a needle may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// As they are, or in any of the ways to write one of them.
    Plain,
    /// As they are, large or small.
    AnyCase,
    /// As digits of base64, whose last two have two ways to be written.
    Base64,
    /// As hexadecimal digits, two for each.
    Hex,
}

/// One thing that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Needle {
    characters: Vec<char>,
    form: Form,
}

impl Needle {
    /// Everything that gives `secret` away.
    fn all(secret: &str) -> Vec<Self> {
        let new = |text: &str, form: Form| Self {
            characters: text.chars().collect(),
            form,
        };
        let mut needles = vec![];
        if secret.len() < LONG {
            needles.push(new(secret, Form::Plain));
            return needles;
        }
        needles.push(new(secret, Form::AnyCase));
        // By their bytes.
        needles.push(Self {
            characters: secret.bytes().map(char::from).collect(),
            form: Form::Hex,
        });
        let quoted = serde_json::Value::from(secret).to_string();
        let quoted = quoted.trim_matches('"');
        let mut texts = vec![secret.to_owned()];
        texts.extend([
            quoted.to_owned(),
            quoted.replace('/', "\\/"),
            percent(secret),
        ]);
        texts.sort();
        texts.dedup();
        for text in texts {
            for shift in 0..3 {
                let inner = base64_at(text.as_bytes(), shift);
                if inner.len() >= BASE64 {
                    needles.push(new(&inner, Form::Base64));
                }
            }
        }
        needles
    }

    /// Whether it may begin with this byte.
    fn begins(&self, byte: u8) -> bool {
        let Some(first) = self.characters.first() else {
            return false;
        };
        if self.form == Form::Hex {
            return byte.is_ascii_hexdigit();
        }
        let mut utf8 = [0; 4];
        let plain = first.encode_utf8(&mut utf8).as_bytes().first().copied();
        let same = plain.is_some_and(|plain| match self.form {
            Form::AnyCase => plain.eq_ignore_ascii_case(&byte),
            Form::Plain | Form::Base64 | Form::Hex => plain == byte,
        });
        same || matches!(byte, b'%' | b'\\' | b'&' | b'=')
            || (byte == b'+' && *first == ' ')
            || (self.form == Form::Base64 && matches!(byte, b'-' | b'_'))
    }

    /// Whether it is what `text` begins with. A character can often be read in several ways
    /// (one backslash, or two that stand for one), so all of them are followed.
    fn at(&self, text: &[u8]) -> Found {
        if self.form == Form::Hex {
            return self.hex_at(text);
        }
        let (mut ends, mut next) = (vec![0], Vec::new());
        let mut begins = false;
        for (number, character) in self.characters.iter().enumerate() {
            for end in &ends {
                let rest = text.get(*end..).unwrap_or_default();
                let skipped = if number == 0 { 0 } else { self.breaks(rest) };
                let rest = rest.get(skipped..).unwrap_or_default();
                let mut ways = Ways {
                    from: end + skipped,
                    ends: &mut next,
                    begins: rest.is_empty(),
                };
                self.character(*character, rest, &mut ways);
                begins |= ways.begins && number > 0;
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut ends, &mut next);
            next.clear();
            if ends.is_empty() {
                return if begins {
                    Found::Beginning
                } else {
                    Found::Nothing
                };
            }
        }
        ends.last().map_or(Found::Nothing, |end| Found::Whole(*end))
    }

    /// As digits, with what dumps put between two bytes.
    fn hex_at(&self, text: &[u8]) -> Found {
        let mut length = 0;
        for (number, character) in self.characters.iter().enumerate() {
            let rest = text.get(length..).unwrap_or_default();
            let skipped = match rest {
                [b' ' | b':' | b'-' | b',', ..] if number > 0 => 1,
                _ => 0,
            };
            let rest = rest.get(skipped..).unwrap_or_default();
            let prefix = match rest {
                [b'0' | b'\\', b'x' | b'X', ..] => 2,
                _ => 0,
            };
            match rest.get(prefix..prefix + 2) {
                Some(digits) if byte(digits).map(char::from) == Some(*character) => {
                    length += skipped + prefix + 2;
                }
                None if number > 0 => return Found::Beginning,
                Some(_) | None => return Found::Nothing,
            }
        }
        Found::Whole(length)
    }

    /// How much of `text` is a break of a line that means nothing: that of
    /// quoted-printable, and those inside base64.
    fn breaks(&self, text: &[u8]) -> usize {
        let soft: &[&[u8]] = &[b"=\r\n", b"=\n"];
        let hard: &[&[u8]] = &[
            b"\r\n", b"\n", b"\\r\\n", b"\\n", b"\r\n ", b"%0D%0A", b"%0A",
        ];
        let hard = if self.form == Form::Base64 { hard } else { &[] };
        let all = soft.iter().chain(hard);
        all.filter(|found| text.starts_with(found))
            .map(|found| found.len())
            .max()
            .unwrap_or(0)
    }

    /// The ways to write `character` with which `text` begins.
    fn character(&self, character: char, text: &[u8], ways: &mut Ways<'_>) {
        spelled(character, text, ways);
        match self.form {
            Form::AnyCase if character.is_ascii_lowercase() => {
                spelled(character.to_ascii_uppercase(), text, ways);
            }
            Form::AnyCase if character.is_ascii_uppercase() => {
                spelled(character.to_ascii_lowercase(), text, ways);
            }
            Form::Base64 if character == '+' => spelled('-', text, ways),
            Form::Base64 if character == '/' => spelled('_', text, ways),
            Form::Plain | Form::AnyCase | Form::Base64 | Form::Hex => {}
        }
    }
}

/// Where the ways to write a character end.
struct Ways<'a> {
    from: usize,
    ends: &'a mut Vec<usize>,
    /// Whether the text ended before one did.
    begins: bool,
}

impl Ways<'_> {
    fn add(&mut self, found: Found) {
        match found {
            Found::Whole(length) => self.ends.push(self.from + length),
            Found::Beginning => self.begins = true,
            Found::Nothing => {}
        }
    }
}

fn spelled(wanted: char, text: &[u8], ways: &mut Ways<'_>) {
    ways.add(plain(wanted, text));
    // Only an escape can begin so.
    match text.first() {
        Some(b'%') => (0..=NESTED).for_each(|nested| ways.add(bytes_of(wanted, text, nested))),
        Some(b'=') => ways.add(bytes_of(wanted, text, 0)),
        Some(b'&') => (0..=NESTED).for_each(|nested| entity(wanted, text, nested, ways)),
        Some(b'\\') => backslashed(wanted, text, ways),
        Some(b'+') if wanted == ' ' => ways.add(Found::Whole(1)),
        _ => {}
    }
}

/// The character as it is.
fn plain(wanted: char, text: &[u8]) -> Found {
    let mut utf8 = [0; 4];
    starts(text, wanted.encode_utf8(&mut utf8).as_bytes())
}

/// Whether `text` begins with `wanted`, or `wanted` with all of `text`.
fn starts(text: &[u8], wanted: &[u8]) -> Found {
    if text.starts_with(wanted) {
        Found::Whole(wanted.len())
    } else if wanted.starts_with(text) {
        Found::Beginning
    } else {
        Found::Nothing
    }
}

/// The character by its bytes, each as `%XX` or `=XX`; the `%` itself is written as `%25` so
/// many times over.
fn bytes_of(wanted: char, text: &[u8], nested: usize) -> Found {
    let mut utf8 = [0; 4];
    let mut length = 0;
    for (number, wanted) in wanted.encode_utf8(&mut utf8).as_bytes().iter().enumerate() {
        let mut rest = text.get(length..).unwrap_or_default();
        let soft = [&b"=\r\n"[..], b"=\n"];
        if let Some(soft) = soft
            .iter()
            .find(|soft| number > 0 && rest.starts_with(soft))
        {
            length += soft.len();
            rest = rest.get(soft.len()..).unwrap_or_default();
        }
        match rest.first() {
            Some(b'%' | b'=') => {}
            Some(_) => return Found::Nothing,
            None => return Found::Beginning,
        }
        let mut at = 1;
        for _ in 0..nested {
            match starts(rest.get(at..).unwrap_or_default(), b"25") {
                Found::Whole(taken) => at += taken,
                other => return other,
            }
        }
        match rest.get(at..at + 2) {
            Some(digits) if byte(digits) == Some(*wanted) => length += at + 2,
            Some(_) => return Found::Nothing,
            None => return Found::Beginning,
        }
    }
    Found::Whole(length)
}

/// The character behind backslashes, as in texts of JSON: itself, `uXXXX`, `xXX`, or the
/// letter that stands for it.
fn backslashed(wanted: char, text: &[u8], ways: &mut Ways<'_>) {
    let slashes = backslashes(text);
    if wanted == '\\' {
        // However many there are, they may stand for this one.
        (1..=slashes.min(BACKSLASHES)).for_each(|taken| ways.add(Found::Whole(taken)));
    }
    if slashes > BACKSLASHES {
        return;
    }
    let rest = text.get(slashes..).unwrap_or_default();
    if rest.is_empty() {
        ways.add(Found::Beginning);
        return;
    }
    ways.add(unicode(wanted, rest, slashes));
    let letter = match wanted {
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        '\u{8}' => Some('b'),
        '\u{c}' => Some('f'),
        _ => None,
    };
    let itself = (!wanted.is_ascii_alphanumeric()).then_some(wanted);
    for wanted in itself.into_iter().chain(letter) {
        ways.add(after(plain(wanted, rest), slashes));
    }
}

/// How many backslashes `text` begins with; no more than one more than may stand before a
/// character are counted, so that a long run of them is not gone through from each of them.
fn backslashes(text: &[u8]) -> usize {
    let counted = text.iter().take(BACKSLASHES + 1);
    counted.take_while(|byte| **byte == b'\\').count()
}

/// `uXXXX` (of characters beyond the first 65,536 two of them) or `xXX`, behind `before`
/// bytes.
fn unicode(wanted: char, text: &[u8], before: usize) -> Found {
    let mut utf16 = [0; 2];
    let mut length = 0;
    for (number, wanted) in wanted.encode_utf16(&mut utf16).iter().enumerate() {
        let mut rest = text.get(length..).unwrap_or_default();
        if number > 0 {
            let slashes = backslashes(rest);
            if slashes > BACKSLASHES {
                return Found::Nothing;
            }
            rest = rest.get(slashes..).unwrap_or_default();
            length += slashes;
        }
        let digits = match rest.first() {
            Some(b'u' | b'U') => 4,
            Some(b'x' | b'X') => 2,
            Some(_) => return Found::Nothing,
            None => return Found::Beginning,
        };
        match rest.get(1..=digits) {
            Some(found) if number_of(found, 16) == Some(u32::from(*wanted)) => {
                length += 1 + digits;
            }
            Some(_) => return Found::Nothing,
            None => return Found::Beginning,
        }
    }
    Found::Whole(before + length)
}

/// The character as an entity of HTML, whose `&` is written as `&amp;` so many times over.
fn entity(wanted: char, text: &[u8], nested: usize, ways: &mut Ways<'_>) {
    let mut at = 1;
    for _ in 0..nested {
        match starts(text.get(at..).unwrap_or_default(), b"amp;") {
            Found::Whole(taken) => at += taken,
            other => {
                ways.add(other);
                return;
            }
        }
    }
    let rest = text.get(at..).unwrap_or_default();
    if let [b'#', number @ ..] = rest {
        ways.add(after(numbered(wanted, number), at + 1));
    }
    for (name, character) in ENTITIES {
        if *character == wanted {
            let named = [name.as_bytes(), b";"].concat();
            ways.add(after(starts(rest, &named), at));
        }
    }
}

/// The character by its number, behind `&#`.
fn numbered(wanted: char, text: &[u8]) -> Found {
    /// No more digits are read: with zeros before them, a few more than any number has.
    const DIGITS: usize = 10;
    let (radix, digits, skipped) = match text {
        [b'x' | b'X', digits @ ..] => (16, digits, 1),
        digits => (10, digits, 0),
    };
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = digits.iter().take(DIGITS).take_while(is_digit).count();
    if length == digits.len() {
        return Found::Beginning;
    }
    let found = digits
        .get(..length)
        .and_then(|digits| number_of(digits, radix));
    if found != Some(u32::from(wanted)) {
        return Found::Nothing;
    }
    let ends = usize::from(digits.get(length) == Some(&b';'));
    Found::Whole(skipped + length + ends)
}

/// The names of what may stand in a secret and is not a letter or a digit.
const ENTITIES: &[(&str, char)] = &[
    ("amp", '&'),
    ("AMP", '&'),
    ("lt", '<'),
    ("LT", '<'),
    ("gt", '>'),
    ("GT", '>'),
    ("quot", '"'),
    ("QUOT", '"'),
    ("apos", '\''),
    ("sol", '/'),
    ("bsol", '\\'),
    ("plus", '+'),
    ("equals", '='),
    ("commat", '@'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("ast", '*'),
    ("midast", '*'),
    ("lpar", '('),
    ("rpar", ')'),
    ("lsqb", '['),
    ("lbrack", '['),
    ("rsqb", ']'),
    ("rbrack", ']'),
    ("lcub", '{'),
    ("lbrace", '{'),
    ("rcub", '}'),
    ("rbrace", '}'),
    ("verbar", '|'),
    ("vert", '|'),
    ("excl", '!'),
    ("quest", '?'),
    ("colon", ':'),
    ("semi", ';'),
    ("comma", ','),
    ("period", '.'),
    ("lowbar", '_'),
    ("UnderBar", '_'),
    ("grave", '`'),
    ("Hat", '^'),
    ("nbsp", ' '),
];

fn after(found: Found, before: usize) -> Found {
    match found {
        Found::Whole(length) => Found::Whole(before + length),
        other => other,
    }
}

/// Two hexadecimal digits.
fn byte(digits: &[u8]) -> Option<u8> {
    number_of(digits, 16).and_then(|number| u8::try_from(number).ok())
}

fn number_of(digits: &[u8], radix: u32) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    let all = |c: char| c.is_digit(radix);
    (!digits.is_empty() && digits.chars().all(all))
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

/// Percent-encoded, as forms are.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ok = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// The digits of base64 that `text` makes when `shift` bytes are before it, without those
/// that its neighbours share.
fn base64_at(text: &[u8], shift: usize) -> String {
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(text);
    let digits = STANDARD.encode(&shifted);
    // The bits of the first `shift` bytes reach into so many digits.
    let from = (shift * 8).div_ceil(6);
    let to = shifted.len() * 8 / 6;
    digits.get(from..to).unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A way to write a text.
    type Spelling = fn(&str) -> String;

    /// Ways in which servers repeat what they are sent. Each is a spelling of a text.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub(crate) fn spellings() -> Vec<(&'static str, Spelling)> {
        fn json(text: &str) -> String {
            serde_json::Value::from(text).to_string()
        }
        fn each(text: &str, spell: impl Fn(char) -> String) -> String {
            text.chars().map(spell).collect()
        }
        fn bytes(text: &str, spell: impl Fn(u8) -> String) -> String {
            text.bytes().map(spell).collect()
        }
        fn printable(text: &str) -> String {
            use std::fmt::Write as _;
            let mut out = String::new();
            for (at, byte) in text.bytes().enumerate() {
                if at % 5 == 4 {
                    out.push_str("=\r\n");
                }
                if byte == b'=' || !byte.is_ascii_graphic() {
                    write!(out, "={byte:02X}").unwrap();
                } else {
                    out.push(char::from(byte));
                }
            }
            out
        }
        vec![
            ("plain", str::to_owned),
            ("upper", |t| t.to_ascii_uppercase()),
            ("lower", |t| t.to_ascii_lowercase()),
            ("percent", percent),
            ("percent, small", |t| {
                bytes(t, |b| {
                    if b.is_ascii_alphanumeric() {
                        char::from(b).to_string()
                    } else {
                        format!("%{b:02x}")
                    }
                })
            }),
            ("percent, all", |t| bytes(t, |b| format!("%{b:02X}"))),
            ("percent twice", |t| percent(&percent(t))),
            ("percent thrice", |t| percent(&percent(&percent(t)))),
            ("form", |t| percent(t).replace("%20", "+")),
            ("json", json),
            ("json, slashes", |t| json(t).replace('/', "\\/")),
            ("json in json", |t| json(&json(t))),
            ("json in json in json", |t| json(&json(&json(t)))),
            ("json, unicode", |t| {
                each(t, |c| format!("\\u{:04x}", u32::from(c) & 0xffff))
            }),
            ("json, unicode, capitals", |t| {
                each(t, |c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_string()
                    } else {
                        format!("\\u{:04X}", u32::from(c))
                    }
                })
            }),
            ("unicode in json in json", |t| {
                each(t, |c| format!("\\\\u{:04x}", u32::from(c)))
            }),
            ("x", |t| each(t, |c| format!("\\x{:02x}", u32::from(c)))),
            ("html", |t| {
                t.replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('"', "&quot;")
                    .replace('\'', "&#39;")
                    .replace('/', "&#x2F;")
                    .replace('+', "&#43;")
                    .replace('=', "&equals;")
            }),
            ("html, numbers", |t| {
                each(t, |c| format!("&#{};", u32::from(c)))
            }),
            ("html, hex", |t| {
                each(t, |c| format!("&#x{:X};", u32::from(c)))
            }),
            ("html, padded", |t| {
                each(t, |c| format!("&#{:07};", u32::from(c)))
            }),
            ("html twice", |t| {
                t.replace('&', "&amp;amp;")
                    .replace('"', "&amp;quot;")
                    .replace('/', "&amp;#x2f;")
            }),
            ("quoted-printable", printable),
            ("quoted-printable, all", |t| {
                bytes(t, |b| format!("={b:02X}"))
            }),
            ("base64, 0", |t| STANDARD.encode(t)),
            ("base64, 1", |t| STANDARD.encode(format!("x{t}"))),
            ("base64, 2", |t| STANDARD.encode(format!("xy{t}"))),
            ("base64, inside", |t| {
                STANDARD.encode(format!("{{\"authorization\":\"{t}\",\"more\":1}}"))
            }),
            ("base64, basic", |t| STANDARD.encode(format!("user:{t}"))),
            ("base64, plain", |t| STANDARD.encode(format!("\0user\0{t}"))),
            ("base64 of json", |t| {
                STANDARD.encode(format!("{{\"a\":{}}}", json(t)))
            }),
            ("base64 of percent", |t| {
                STANDARD.encode(format!("q={}", percent(t)))
            }),
            ("base64, url", |t| {
                STANDARD
                    .encode(t)
                    .replace('+', "-")
                    .replace('/', "_")
                    .replace('=', "")
            }),
            ("base64, lines", |t| {
                let digits = STANDARD.encode(t);
                let lines: Vec<&str> = digits
                    .as_bytes()
                    .chunks(8)
                    .map(|line| std::str::from_utf8(line).unwrap())
                    .collect();
                lines.join("\r\n")
            }),
            ("base64 in json", |t| {
                json(&STANDARD.encode(t)).replace('/', "\\/")
            }),
            ("base64, percent", |t| percent(&STANDARD.encode(t))),
            ("hex", |t| bytes(t, |b| format!("{b:02x}"))),
            ("hex, capitals", |t| bytes(t, |b| format!("{b:02X}"))),
            ("hex, spaced", |t| bytes(t, |b| format!("{b:02x} "))),
            ("hex, colons", |t| bytes(t, |b| format!("{b:02X}:"))),
            ("hex, bytes", |t| bytes(t, |b| format!("\\x{b:02x}"))),
        ]
    }

    /// Secrets with what is written in different ways.
    pub(crate) const SECRETS: [&str; 5] = [
        "s3cret-token.ABC_123~xyz",
        r#"Bearer a"b\c/d+e=f&g<h>i'j%k"#,
        "p@ss w0rd: {[#!?]}",
        "https://hooks.example.com/services/T0001/B0002/XyZ987?key=a/b+c==",
        "gr\u{fc}\u{df}e-\u{1f511}-schl\u{fc}ssel",
    ];

    #[test]
    fn no_usual_spelling_of_a_secret_is_left() {
        for secret in SECRETS {
            let redactor = Redactor::new([secret]);
            for (name, spell) in spellings() {
                if !secret.is_ascii()
                    && [
                        "json, unicode",
                        "x",
                        "json, unicode, capitals",
                        "unicode in json in json",
                    ]
                    .contains(&name)
                {
                    continue;
                }
                let spelled = spell(secret);
                let said = format!("<b>you sent {spelled} to us</b>");
                let clean = redactor.text(&said);
                // What base64 and quotes share with their neighbours may be left.
                let left = clean.replace(TAKEN_OUT, "");
                assert!(clean.contains(TAKEN_OUT), "{name} of {secret}: {clean}");
                assert!(
                    left.len() <= said.len() - spelled.len() + 100 && !left.contains(&spelled),
                    "{name} of {secret}: {clean}"
                );
                let longest = longest_common(&left, &spelled);
                let allowed = if name.starts_with("base64") { 44 } else { 12 };
                assert!(longest <= allowed, "{name} of {secret}: {clean}");
            }
        }
        let key = "\u{1f511}\u{1f511}\u{1f511}";
        let pair = "\\ud83d\\udd11".repeat(3);
        assert_eq!(Redactor::new([key]).text(&pair), TAKEN_OUT);
    }

    fn longest_common(a: &str, b: &str) -> usize {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        (0..a.len())
            .flat_map(|at| (0..b.len()).map(move |other| (at, other)))
            .map(|(at, other)| {
                a[at..]
                    .iter()
                    .zip(&b[other..])
                    .take_while(|(a, b)| a == b)
                    .count()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn what_is_no_secret_stays() {
        let redactor = Redactor::new(["s3cret-token", "ab"]);
        for text in [
            "",
            "nothing here: %25 \\\\ &amp; = \u{fc} \u{1f511}",
            r#"{"status":"ok","token":"s3cret"}"#,
            "s3cret token",
            "YWI= 6162 AB",
        ] {
            assert_eq!(redactor.text(text), text);
        }
        assert_eq!(redactor.text("ab cab"), "[secret] c[secret]");
        assert_eq!(Redactor::new([""]).text("a"), "a");
        assert_eq!(redactor.bytes(b"\xff\xfe", false), b"\xff\xfe");
    }

    #[test]
    fn the_longest_is_taken_out_first() {
        let redactor = Redactor::new(["token-one", "token-one-and-more"]);
        assert_eq!(
            redactor.text("a token-one-and-more b token-one"),
            "a [secret] b [secret]"
        );
    }

    #[test]
    fn what_was_cut_does_not_end_in_the_beginning_of_a_secret() {
        let secret = "s3cret/token=value";
        let redactor = Redactor::new([secret]);
        for (name, spell) in spellings() {
            let spelled = format!("..{}", spell(secret));
            for end in 12..spelled.len() {
                let clean = redactor.bytes(&spelled.as_bytes()[..end], true);
                let clean = String::from_utf8_lossy(&clean).into_owned();
                assert!(
                    !clean.contains("token") && (name.starts_with("base64") || clean.len() < 32),
                    "{name} to {end}: {clean}"
                );
            }
        }
    }

    /// Twenty times as much takes about twenty times as long, whatever it is made of, and not
    /// four hundred times.
    #[test]
    fn it_takes_time_in_proportion() {
        let redactor = Redactor::new([SECRETS[0]]);
        for piece in [
            "\\",
            "%25",
            "&amp;",
            "=\r\n",
            "s3cret-token.ABC_123~xy",
            "a",
            "61",
            "&#0",
        ] {
            let time = |length: usize| {
                let text = piece.repeat(length / piece.len());
                let began = std::time::Instant::now();
                redactor.bytes(text.as_bytes(), true);
                began.elapsed()
            };
            let (short, long) = (time(1_000), time(20_000));
            assert!(
                long < short * 100 + std::time::Duration::from_millis(500),
                "{piece}: {short:?}, {long:?}"
            );
        }
    }
}
