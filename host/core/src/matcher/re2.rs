//! Go's regular expressions in Rust's syntax.
//!
//! The two engines are alike (no look-around, no backreferences), and most expressions
//! mean the same in both. What differs is rewritten here, and what only Rust knows is
//! refused; everything else passes through, and Rust's compiler has the last word.

use std::fmt::Write as _;
use std::str::Chars;

/// Classes by the name that stands between `[:` and `:]`; the same in Go and Rust.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Rewrites `go`, or says why it cannot be a regular expression in Go.
pub(super) fn translate(go: &str) -> Result<String, String> {
    let mut out = String::with_capacity(go.len());
    let mut rest = go.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            // A brace that counts nothing is a brace.
            '{' if !is_repetition(rest.as_str()) => out.push_str("\\{"),
            '(' => {
                check_group(rest.as_str())?;
                out.push('(');
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Whether `rest` goes on as `n}`, `n,}` or `n,m}`.
fn is_repetition(rest: &str) -> bool {
    let Some((count, _)) = rest.split_once('}') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match count.split_once(',') {
        None => number(count),
        Some((from, to)) => number(from) && (to.is_empty() || number(to)),
    }
}

/// Refuses the flags that Go does not know; `rest` follows an opening parenthesis.
fn check_group(rest: &str) -> Result<(), String> {
    let Some(flags) = rest.strip_prefix('?') else {
        return Ok(());
    };
    if flags.starts_with(['<', 'P', '=', '!']) {
        return Ok(());
    }
    let end = flags.find([':', ')']).unwrap_or(flags.len());
    match flags.chars().take(end).find(|c| !"imsU-".contains(*c)) {
        None => Ok(()),
        Some(flag) => Err(format!("the group flag `{flag}` is not one of i, m, s, U")),
    }
}

/// What a class escape stands for, without brackets, and whether it is negated.
fn perl(c: char) -> Option<(&'static str, bool)> {
    let set = match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0C\r\x20",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((set, c.is_ascii_uppercase()))
}

/// An escape outside of a class; its backslash is gone.
fn escape(rest: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    let mut ahead = rest.clone();
    let c = ahead.next().ok_or("a backslash at the end")?;
    if let Some((set, negated)) = perl(c) {
        *rest = ahead;
        let caret = if negated { "^" } else { "" };
        let _ok = write!(out, "[{caret}{set}]");
        return Ok(());
    }
    match c {
        'Q' => {
            let (literal, after) = ahead
                .as_str()
                .split_once("\\E")
                .unwrap_or((ahead.as_str(), ""));
            out.push_str(&regex::escape(literal));
            *rest = after.chars();
        }
        // Without the Unicode flag the boundary looks at ASCII, as Go's does.
        'b' => {
            *rest = ahead;
            out.push_str(r"(?-u:\b)");
        }
        'B' => {
            *rest = ahead;
            out.push_str(r"(?-u:\B)");
        }
        'A' | 'z' => {
            *rest = ahead;
            out.extend(['\\', c]);
        }
        'p' | 'P' => property(rest, out)?,
        _ => push_literal(out, escaped_char(rest)?),
    }
    Ok(())
}

/// `pL` or `p{Greek}`, passed on; the backslash is gone.
fn property(rest: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    let text = rest.as_str();
    let body = text.get(1..).unwrap_or_default();
    let length = if body.starts_with('{') {
        body.find('}').map(|end| end + 1)
    } else {
        body.chars().next().map(char::len_utf8)
    };
    let length = 1 + length.ok_or("a character class without a name after \\p")?;
    out.push('\\');
    out.push_str(text.get(..length).unwrap_or_default());
    *rest = text.get(length..).unwrap_or_default().chars();
    Ok(())
}

/// The character that an escape stands for, in a class or out of it; the backslash is
/// gone.
fn escaped_char(rest: &mut Chars<'_>) -> Result<char, String> {
    let c = rest.next().ok_or("a backslash at the end")?;
    let unknown = || format!("the unknown escape `\\{c}`");
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        'x' => {
            let text = rest.as_str();
            let (digits, length) = match text.strip_prefix('{') {
                Some(braced) => {
                    let (digits, _) = braced.split_once('}').ok_or_else(unknown)?;
                    (digits, digits.len() + 2)
                }
                None => (text.get(..2).ok_or_else(unknown)?, 2),
            };
            *rest = text.get(length..).unwrap_or_default().chars();
            code_point(digits, 16).ok_or_else(unknown)
        }
        '0'..='7' => {
            let text = rest.as_str();
            let more = text
                .bytes()
                .take(2)
                .take_while(|b| (b'0'..=b'7').contains(b));
            let more = more.count();
            // One digit alone would refer back to a group, which neither engine can.
            if c != '0' && more == 0 {
                return Err(unknown());
            }
            let digits = format!("{c}{}", text.get(..more).unwrap_or_default());
            *rest = text.get(more..).unwrap_or_default().chars();
            code_point(&digits, 8).ok_or_else(unknown)
        }
        c if c.is_ascii_punctuation() || c == ' ' => Ok(c),
        _ => Err(unknown()),
    }
}

fn code_point(digits: &str, radix: u32) -> Option<char> {
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all_digits
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
        .and_then(char::from_u32)
}

/// Writes a character so that it means itself, in a class or out of it.
fn push_literal(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        let _ok = write!(out, "\\x{{{:X}}}", u32::from(c));
    }
}

/// A class; its opening bracket is gone.
fn class(rest: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if let Some(after) = rest.as_str().strip_prefix('^') {
        out.push('^');
        *rest = after.chars();
    }
    let mut first = true;
    loop {
        let text = rest.as_str();
        // At the very beginning a closing bracket is a character.
        if let Some(after) = text.strip_prefix(']').filter(|_| !first) {
            out.push(']');
            *rest = after.chars();
            return Ok(());
        }
        first = false;
        if let Some(after) = posix(text, out)? {
            *rest = after.chars();
        } else if let Some((set, negated)) = text
            .strip_prefix('\\')
            .and_then(|escape| perl(escape.chars().next()?))
        {
            if negated {
                let _ok = write!(out, "[^{set}]");
            } else {
                out.push_str(set);
            }
            *rest = text.get(2..).unwrap_or_default().chars();
        } else if text.starts_with("\\p") || text.starts_with("\\P") {
            rest.next();
            property(rest, out)?;
        } else {
            push_literal(out, class_char(rest)?);
            let range = rest.as_str().strip_prefix('-');
            if let Some(after) = range.filter(|after| !after.starts_with(']')) {
                *rest = after.chars();
                out.push('-');
                push_literal(out, class_char(rest)?);
            }
        }
    }
}

/// `[:alpha:]` at the beginning of `text`; answers with what follows it.
fn posix<'a>(text: &'a str, out: &mut String) -> Result<Option<&'a str>, String> {
    let Some((name, after)) = text
        .strip_prefix("[:")
        .and_then(|inner| inner.split_once(":]"))
    else {
        return Ok(None);
    };
    let plain = name.strip_prefix('^').unwrap_or(name);
    if !POSIX.contains(&plain) {
        return Err(format!("the unknown character class `[:{name}:]`"));
    }
    let _ok = write!(out, "[:{name}:]");
    Ok(Some(after))
}

fn class_char(rest: &mut Chars<'_>) -> Result<char, String> {
    match rest.next() {
        Some('\\') => escaped_char(rest),
        Some(c) => Ok(c),
        None => Err("a character class without its closing bracket".to_owned()),
    }
}
