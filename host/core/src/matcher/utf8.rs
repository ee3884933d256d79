//! The UTF-8 syntax: Alertmanager's `matcher/parse`.

use std::ops::Range;

use super::{MatchOp, Matcher, MatcherError, MatcherProblem, is_reserved};

const NAME: &str = "a label name, quoted if it has a space or one of {}!=~,\\\"'` in it";
const OPERATOR: &str = "one of the operators =, !=, =~, !~";
const VALUE: &str = "a value, quoted if it has a space or one of {}!=~,\\\"'` in it";
const ESCAPES: &str = "one of the escapes \\\\, \\\", \\n, \\r, \\t, \\xHH, \\uHHHH";
const CLOSE: &str = "a closing brace";
const SEPARATOR: &str = "a comma or the end";

/// Reads any number of matchers.
pub(super) fn parse(input: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut parser = Parser {
        lexer: Lexer { input, at: 0 },
    };
    parser.list()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Comma,
    Operator(MatchOp),
    Quoted,
    Bare,
    End,
}

#[derive(Debug, Clone)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    span: Range<usize>,
}

impl Token<'_> {
    /// The error that something else than this was expected.
    fn but(&self, expected: &'static str) -> MatcherError {
        self.instead(
            match self.kind {
                Kind::End => "the end".to_owned(),
                _ => format!("`{}`", self.text),
            },
            expected,
        )
    }

    fn instead(&self, found: String, expected: &'static str) -> MatcherError {
        MatcherError {
            span: self.span.clone(),
            problem: MatcherProblem::Unexpected { found, expected },
        }
    }
}

#[derive(Debug, Clone)]
struct Lexer<'a> {
    input: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// The next `length` bytes as a token.
    fn take(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let span = self.at..self.at + length;
        self.at = span.end;
        Token {
            kind,
            text: self.input.get(span.clone()).unwrap_or_default(),
            span,
        }
    }

    fn next(&mut self) -> Result<Token<'a>, MatcherError> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(self.take(Kind::End, 0));
        };
        let operator = [
            MatchOp::Matches,
            MatchOp::NotMatches,
            MatchOp::NotEqual,
            MatchOp::Equal,
        ]
        .into_iter()
        .find(|op| rest.starts_with(op.as_str()));
        match (first, operator) {
            ('{', _) => Ok(self.take(Kind::Open, 1)),
            ('}', _) => Ok(self.take(Kind::Close, 1)),
            (',', _) => Ok(self.take(Kind::Comma, 1)),
            (_, Some(op)) => Ok(self.take(Kind::Operator(op), op.as_str().len())),
            ('"', _) => self.quoted(),
            (first, _) if !is_reserved(first) => {
                let length = rest.find(is_reserved).unwrap_or(rest.len());
                Ok(self.take(Kind::Bare, length))
            }
            ('!', _) => Err(self.take(Kind::Bare, 1).but(OPERATOR)),
            (other, _) => {
                let token = self.take(Kind::Bare, other.len_utf8());
                Err(token.but("double quotes around this character"))
            }
        }
    }

    fn quoted(&mut self) -> Result<Token<'a>, MatcherError> {
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Ok(self.take(Kind::Quoted, offset + 1)),
                _ => {}
            }
        }
        let token = self.take(Kind::Quoted, self.rest().len());
        Err(token.but("a closing double quote"))
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Result<Token<'a>, MatcherError> {
        self.lexer.clone().next()
    }

    fn list(&mut self) -> Result<Vec<Matcher>, MatcherError> {
        let mut matchers = Vec::new();
        let braced = self.peek()?.kind == Kind::Open;
        if braced {
            self.lexer.next()?;
        }
        loop {
            match self.peek()?.kind {
                // Nothing at all, or nothing after a comma; never a comma alone.
                Kind::Close | Kind::End => break,
                _ => matchers.push(self.matcher()?),
            }
            let after = self.peek()?;
            match after.kind {
                Kind::Comma => {
                    self.lexer.next()?;
                }
                Kind::Close | Kind::End => break,
                _ => return Err(after.but(SEPARATOR)),
            }
        }
        let last = self.lexer.next()?;
        match (braced, last.kind) {
            (false, Kind::End) => return Ok(matchers),
            (false, _) => return Err(last.but("no closing brace, as there is no opening one")),
            (true, Kind::Close) => {}
            (true, _) => return Err(last.but(CLOSE)),
        }
        let end = self.lexer.next()?;
        if end.kind == Kind::End {
            Ok(matchers)
        } else {
            Err(end.but("the end after the closing brace"))
        }
    }

    fn matcher(&mut self) -> Result<Matcher, MatcherError> {
        let name_token = self.lexer.next()?;
        let name = text(&name_token, NAME)?;
        if name.is_empty() {
            return Err(name_token.but("a label name that is not empty"));
        }
        let operator = self.lexer.next()?;
        let Kind::Operator(op) = operator.kind else {
            return Err(operator.but(OPERATOR));
        };
        let value_token = self.lexer.next()?;
        let value = text(&value_token, VALUE)?;
        Matcher::new(name, op, value).map_err(|error| MatcherError {
            span: value_token.span.clone(),
            problem: error.into(),
        })
    }
}

/// The text of a name or a value.
fn text(token: &Token<'_>, expected: &'static str) -> Result<String, MatcherError> {
    match token.kind {
        Kind::Bare => Ok(token.text.to_owned()),
        Kind::Quoted => unquote(token.text).map_err(|found| token.instead(found, ESCAPES)),
        _ => Err(token.but(expected)),
    }
}

/// Go's `strconv.Unquote` for text in double quotes, with the demand that the outcome
/// is UTF-8.
fn unquote(quoted: &str) -> Result<String, String> {
    let inner = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(quoted);
    if inner.contains('\n') {
        return Err("a line break".to_owned());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte_or_char, after) = unescape(escape)?;
        match byte_or_char {
            Unescaped::Byte(byte) => bytes.push(byte),
            Unescaped::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| "bytes that are not UTF-8".to_owned())
}

enum Unescaped {
    Byte(u8),
    Char(char),
}

/// Reads one escape, whose backslash is gone; answers with what is left, too.
fn unescape(escape: &str) -> Result<(Unescaped, &str), String> {
    let mut chars = escape.chars();
    let kind = chars.next().unwrap_or('"');
    let unknown = || format!("the unknown escape `\\{kind}`");
    let number = |from: usize, digits: usize, radix: u32| {
        let text = escape.get(from..from + digits).ok_or_else(unknown)?;
        if !text.chars().all(|c| c.is_digit(radix)) {
            return Err(unknown());
        }
        let value = u32::from_str_radix(text, radix).map_err(|_| unknown())?;
        Ok((value, escape.get(from + digits..).unwrap_or_default()))
    };
    let byte = |(value, rest)| {
        let byte = u8::try_from(value).map_err(|_| unknown())?;
        Ok((Unescaped::Byte(byte), rest))
    };
    let char = |(value, rest)| {
        let c = char::from_u32(value).ok_or_else(unknown)?;
        Ok((Unescaped::Char(c), rest))
    };
    let simple = |c| Ok((Unescaped::Char(c), chars.as_str()));
    match kind {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        '\\' => simple('\\'),
        '"' => simple('"'),
        'x' => byte(number(1, 2, 16)?),
        '0'..='7' => byte(number(0, 3, 8)?),
        'u' => char(number(1, 4, 16)?),
        'U' => char(number(1, 8, 16)?),
        _ => Err(unknown()),
    }
}
