//! HTTP as plugins ask for it (`sentinel:plugin/http`), as data.
//!
//! A URL means different things to those who read it: who checks it may see another host
//! or path than who sends it, or than the server. So a [`HttpUrl`] is read once, by the
//! rules that browsers follow, and what could still be read in two ways is refused. What
//! is checked is what is sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use url::Url;

/// How long a URL may be, in bytes.
const URL_LENGTH: usize = 8 << 10;

/// What a header value, or a URL, begins with that the host fills in.
const SECRET: &str = "secret://";

/// How much of a body crosses in either direction.
pub const BODY_LIMIT: usize = 512 << 10;

/// How much a request's headers may hold together.
pub const HEADER_LIMIT: usize = 64 << 10;

/// Whether `name` can stand behind `secret://`: letters, digits, `_`, `.` and `-`.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// A request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are HTTP's own")]
pub enum HttpMethod {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Head,
        Self::Options,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
    ];

    /// The method as it is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it may change something: all but `GET` and `HEAD`.
    #[must_use]
    pub fn is_effect(self) -> bool {
        !matches!(self, Self::Get | Self::Head)
    }
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HttpMethod {
    type Err = HttpMethodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or(HttpMethodError)
    }
}

/// Why a text is no method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the method is none of GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, in capitals")]
pub struct HttpMethodError;

/// An absolute `http` or `https` URL that means the same to everyone.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct HttpUrl(Url);

/// Why a text is no URL to send to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// It does not parse.
    #[error("the URL is not valid: {0}")]
    Invalid(String),
    /// It is longer than 8 KiB.
    #[error("the URL is longer than {URL_LENGTH} bytes")]
    TooLong,
    /// It has a character that readers drop or turn into another.
    #[error("the URL holds a space, a control character or a backslash")]
    Character,
    /// The scheme is another.
    #[error("the URL is neither http nor https")]
    Scheme,
    /// It has a user or a password.
    #[error("the URL holds a user or a password; they belong into a header")]
    Userinfo,
    /// The path can be read in two ways.
    #[error("the path of the URL {0}")]
    Path(&'static str),
    /// It begins with `secret://`, and what follows names no secret.
    #[error(
        "what follows `secret://` is no name of a secret: expected 1 to 128 letters, digits, `_`, `.` and `-`, and nothing behind them"
    )]
    Secret,
}

impl HttpUrl {
    /// The URL as it is sent.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The same scheme, host and port, and nothing behind them.
    #[must_use]
    pub fn origin(&self) -> Self {
        let mut url = self.0.clone();
        url.set_path("");
        url.set_query(None);
        Self(url)
    }

    /// The path with what need not be encoded decoded: what patterns are held against.
    #[must_use]
    pub fn path(&self) -> String {
        plain(self.0.path())
    }

    /// What a redirect to `location` leads to from here.
    pub fn join(&self, location: &str) -> Result<Self, HttpUrlError> {
        check_characters(location)?;
        self.0
            .join(location)
            .map_err(|error| HttpUrlError::Invalid(error.to_string()))
            .and_then(Self::checked)
    }

    fn checked(mut url: Url) -> Result<Self, HttpUrlError> {
        if url.as_str().len() > URL_LENGTH {
            return Err(HttpUrlError::TooLong);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(HttpUrlError::Userinfo);
        }
        // It is never sent.
        url.set_fragment(None);
        check_path(url.path()).map_err(HttpUrlError::Path)?;
        Ok(Self(url))
    }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > URL_LENGTH {
            return Err(HttpUrlError::TooLong);
        }
        check_characters(text)?;
        Url::parse(text)
            .map_err(|error| HttpUrlError::Invalid(error.to_string()))
            .and_then(Self::checked)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

fn check_characters(text: &str) -> Result<(), HttpUrlError> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.contains(odd) {
        return Err(HttpUrlError::Character);
    }
    Ok(())
}

/// Refuses what a server may take for another path. Plain dot segments are resolved
/// before this.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    let mut rest = path;
    while let Some((_, after)) = rest.split_once('%') {
        let Some(byte) = after.get(..2).and_then(hex) else {
            return Err("has a `%` that encodes nothing");
        };
        if matches!(byte, b'/' | b'\\') || byte.is_ascii_control() {
            return Err("has an encoded slash, backslash or control character");
        }
        rest = after;
    }
    let plain = plain(path);
    let mut segments = plain
        .strip_prefix('/')
        .unwrap_or(&plain)
        .split('/')
        .peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err("has two slashes in a row");
        }
        // Some servers cut parameters off before they resolve dots.
        let name = segment.split(';').next().unwrap_or_default();
        if matches!(name, "." | "..") {
            return Err("has a segment of `.` or `..`");
        }
    }
    Ok(())
}

/// `path` with the characters decoded that mean the same either way (RFC 3986, 6.2.2.2).
pub(crate) fn plain(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let unreserved = after
            .get(..2)
            .and_then(hex)
            .map(char::from)
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~'));
        if let (Some(c), Some(after)) = (unreserved, after.get(2..)) {
            plain.push(c);
            rest = after;
        } else {
            plain.push('%');
            // In capitals, as the digits are meant to be.
            let digits = after.get(..2).unwrap_or_default();
            plain.push_str(&digits.to_ascii_uppercase());
            rest = after.get(digits.len()..).unwrap_or_default();
        }
    }
    plain.push_str(rest);
    plain
}

fn hex(digits: &str) -> Option<u8> {
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Where a request goes: a URL, or the name of a secret that holds one. Many incoming
/// webhooks have no other secret than their address.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay, DeserializeFromStr)]
pub enum HttpPlace {
    /// This URL.
    Url(HttpUrl),
    /// The URL that the host knows as this secret.
    Secret(String),
}

impl HttpPlace {
    /// The name of the secret that holds the URL.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::Url(_) => None,
            Self::Secret(name) => Some(name),
        }
    }

    /// The place for people, without the query: it can hold what is nobody else's
    /// business.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Url(url) => {
                let mut place = url.as_url().clone();
                place.set_query(None);
                place.into()
            }
            Self::Secret(name) => format!("{SECRET}{name}"),
        }
    }
}

impl FromStr for HttpPlace {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(SECRET) {
            Some(name) if is_secret_name(name) => Ok(Self::Secret(name.to_owned())),
            Some(_) => Err(HttpUrlError::Secret),
            None => text.parse().map(Self::Url),
        }
    }
}

impl fmt::Display for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Secret(name) => write!(f, "{SECRET}{name}"),
        }
    }
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpHeader {
    /// The name; case does not matter.
    pub name: String,
    /// The value, or `secret://NAME`.
    pub value: String,
}

impl HttpHeader {
    /// The name of the secret that the host fills in.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        self.value.strip_prefix(SECRET)
    }

    /// Whether the value speaks of a secret in another place than the only one where it
    /// would be filled in.
    #[must_use]
    pub fn misplaces_secret(&self) -> bool {
        self.secret().is_none() && self.value.contains(SECRET)
    }
}

/// Bytes, such as a body. In the journal they are text where that can be, and else
/// hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Journaled", try_from = "Journaled")]
pub struct Blob(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Journaled {
    Text(String),
    Hex(String),
}

impl From<Blob> for Journaled {
    fn from(body: Blob) -> Self {
        String::from_utf8(body.0).map_or_else(
            |error| {
                let bytes = error.into_bytes();
                let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                Self::Hex(
                    digits
                        .filter_map(|digit| char::from_digit(digit.into(), 16))
                        .collect(),
                )
            },
            Self::Text,
        )
    }
}

impl TryFrom<Journaled> for Blob {
    type Error = &'static str;

    fn try_from(body: Journaled) -> Result<Self, Self::Error> {
        match body {
            Journaled::Text(text) => Ok(Self(text.into_bytes())),
            Journaled::Hex(digits) => digits
                .as_bytes()
                .chunks(2)
                .map(|pair| {
                    std::str::from_utf8(pair)
                        .ok()
                        .filter(|pair| pair.len() == 2)
                })
                .map(|pair| pair.and_then(hex))
                .collect::<Option<Vec<u8>>>()
                .map(Self)
                .ok_or("bytes are not written in hexadecimal digits"),
        }
    }
}

/// `sentinel:plugin/http` `secret-field`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretField {
    /// A JSON Pointer to a text of the body.
    pub pointer: String,
    /// The name of the secret that takes its place.
    pub secret: String,
}

/// `sentinel:plugin/http` `request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename = "http.send")]
pub struct HttpRequest {
    /// `GET` and `HEAD` are observations, all others effects.
    pub method: HttpMethod,
    /// Where to.
    pub url: HttpPlace,
    /// The headers; secrets by their names alone.
    pub headers: Vec<HttpHeader>,
    /// The body.
    pub body: Blob,
    /// The texts of the body that the host fills in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_fields: Vec<SecretField>,
    /// How long to wait for the whole answer, in milliseconds.
    pub timeout_ms: Option<u64>,
}

impl HttpRequest {
    /// The names of all secrets that the host fills in.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().filter_map(HttpHeader::secret);
        let fields = self.secret_fields.iter().map(|field| field.secret.as_str());
        self.url.secret().into_iter().chain(headers).chain(fields)
    }

    /// How many bytes of the record it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let fields: usize = self
            .secret_fields
            .iter()
            .map(|field| field.pointer.len() + field.secret.len())
            .sum();
        header_size(&self.headers) + fields + self.body.0.len()
    }
}

/// How many bytes `headers` have.
#[must_use]
pub fn header_size(headers: &[HttpHeader]) -> usize {
    headers
        .iter()
        .map(|header| header.name.len() + header.value.len())
        .sum()
}

/// `sentinel:plugin/http` `response`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: Vec<HttpHeader>,
    /// The body, or its beginning.
    pub body: Blob,
    /// Whether the body was longer.
    pub truncated: bool,
}

impl HttpResponse {
    /// What a plugin is told that is not to be told what was answered: the status, and how long
    /// it is to wait. [`truncated`](Self::truncated) says that there was more.
    #[must_use]
    pub fn withheld(self) -> Self {
        let says_when = |header: &HttpHeader| {
            header.name.eq_ignore_ascii_case("retry-after")
                && header.value.len() <= 5
                && header.value.bytes().all(|byte| byte.is_ascii_digit())
        };
        Self {
            status: self.status,
            headers: self.headers.into_iter().filter(says_when).collect(),
            truncated: self.truncated || !self.body.0.is_empty(),
            body: Blob::default(),
        }
    }

    /// How many bytes of the record it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        header_size(&self.headers) + self.body.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_can_stand_for_a_url_and_is_told_by_its_name() {
        let place: HttpPlace = "secret://chat-url".parse().unwrap();
        assert_eq!(place.secret(), Some("chat-url"));
        assert_eq!(place.summary(), "secret://chat-url");
        assert_eq!(
            serde_json::to_string(&place).unwrap(),
            r#""secret://chat-url""#
        );
        let place: HttpPlace = "https://h/a?token=s3cret".parse().unwrap();
        assert_eq!(place.secret(), None);
        assert_eq!(place.summary(), "https://h/a");
        for text in ["secret://", "secret://a/b", "secret://a?b", "secret://a b"] {
            assert_eq!(text.parse::<HttpPlace>(), Err(HttpUrlError::Secret));
        }
        assert!("Secret://a".parse::<HttpPlace>().is_err());
    }

    fn url(text: &str) -> Result<HttpUrl, HttpUrlError> {
        text.parse()
    }

    #[test]
    fn a_url_comes_out_as_everybody_reads_it() {
        for (given, sent) in [
            ("http://h", "http://h/"),
            ("HTTP://ExAmPle.COM:80/a", "http://example.com/a"),
            ("https://h:443/a?q=1#part", "https://h/a?q=1"),
            ("https://h:80/", "https://h:80/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://017700000001/", "http://127.0.0.1/"),
            ("http://[0:0::1]:80/", "http://[::1]/"),
            ("http://h/a/../b/./c", "http://h/b/c"),
            ("http://h/a/%2e%2E/b", "http://h/b"),
            ("http://h/../../b", "http://h/b"),
            (
                "http://b\u{fc}cher.example/",
                "http://xn--bcher-kva.example/",
            ),
            ("http://\u{ff45}xample.com/", "http://example.com/"),
            ("http://@h/", "http://h/"),
        ] {
            let found = url(given).unwrap();
            assert_eq!(found.to_string(), sent, "{given}");
            // What is journaled is read back as the same.
            assert_eq!(url(&found.to_string()).unwrap(), found);
        }
        assert_eq!(url("http://h/%61%2Db%c3").unwrap().path(), "/a-b%C3");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            "ftp://h/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "h/path",
            "//h/path",
            "http://",
            "http:///",
            "http://user@h/",
            "http://user:word@h/",
            "http://granted.example@evil.example/",
            "http://granted.example:80@evil.example/",
            "http://h\\@evil.example/",
            "http://h/a\\..\\b",
            "http://h/a b",
            " http://h/",
            "http://h/\n",
            "http://ex\tample.com/",
            "http://h/a%2fb",
            "http://h/a/..%2F..%2Fb",
            "http://h/a%5cb",
            "http://h/a%00",
            "http://h/a%0d%0aX: y",
            "http://h/a%zz",
            "http://h/a%",
            "http://h//b",
            "http://h/a//b",
            "http://h/a/..;/b",
            "http://h/a/%2e%2e;x/b",
            "http://h/a/.;/b",
            "http://h:99999/",
            "http://[::1/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
        ] {
            assert!(url(text).is_err(), "{text:?} is {:?}", url(text));
        }
        assert_eq!(
            url(&format!("http://h/{}", "a".repeat(9_000))),
            Err(HttpUrlError::TooLong)
        );
    }

    #[test]
    fn redirects_are_read_like_any_url() {
        let from = url("http://h/a/b").unwrap();
        for (location, to) in [
            ("c", "http://h/a/c"),
            ("/c", "http://h/c"),
            ("//other/c", "http://other/c"),
            ("https://other/", "https://other/"),
            ("../../../c", "http://h/c"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to);
        }
        for location in ["\\\\other", "//u@other/", "ftp://h/", "/a%2fb", "\t/c"] {
            assert!(from.join(location).is_err(), "{location:?}");
        }
    }

    #[test]
    fn methods_are_written_in_capitals() {
        for method in HttpMethod::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
            assert_eq!(
                serde_json::to_string(&method).unwrap(),
                format!("{:?}", method.as_str())
            );
        }
        for text in ["get", "Get", "", "CONNECT", "TRACE", "GET ", "GET\r\n"] {
            assert_eq!(text.parse::<HttpMethod>(), Err(HttpMethodError));
        }
        let effects: Vec<_> = HttpMethod::ALL
            .into_iter()
            .filter(|method| !method.is_effect())
            .collect();
        assert_eq!(effects, [HttpMethod::Get, HttpMethod::Head]);
    }

    #[test]
    fn bodies_come_back_from_the_journal() {
        for (bytes, json) in [
            (&b"gr\xc3\xbcn"[..], r#"{"text":"grün"}"#),
            (b"", r#"{"text":""}"#),
            (b"\xff\x00\x7f", r#"{"hex":"ff007f"}"#),
        ] {
            let body = Blob(bytes.to_vec());
            assert_eq!(serde_json::to_string(&body).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), body);
        }
        for json in [r#"{"hex":"f"}"#, r#"{"hex":"+1"}"#, r#"{"hex":"äb"}"#] {
            assert!(serde_json::from_str::<Blob>(json).is_err(), "{json}");
        }
    }
}
