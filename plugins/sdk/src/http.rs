//! HTTP to places that the policy grants by method and URL.
//!
//! A header value, or a URL, of the form `secret://NAME` is filled in by the host, and so
//! are the texts of a JSON body that [`Request::secret_field`] points at: the plugin never
//! sees the secret. Redirects are followed only to granted URLs.
//!
//! ```no_run
//! use sentinel_plugin::Failure;
//! use sentinel_plugin::http::Request;
//! use sentinel_plugin::serde_json::json;
//!
//! fn page(text: &str) -> Result<(), Failure> {
//!     Request::post("https://events.example.com/v2/enqueue")
//!         .header("authorization", "secret://pager-key")
//!         .json(&json!({ "summary": text }))?
//!         .send()?
//!         .error_for_status()?;
//!     Ok(())
//! }
//! ```

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::bindings::sentinel::plugin::http::{Header, Request, Response, SecretField};

use crate::CapabilityError;
use crate::bindings::sentinel::plugin::http as host;
use crate::clock::milliseconds;

impl Request {
    /// A request without headers and body; `url` is absolute, `http` or `https`, without
    /// userinfo, or `secret://NAME` for one that is a secret as a whole. `GET` and `HEAD` are observations, all other methods effects.
    #[must_use]
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            secret_fields: Vec::new(),
            timeout: None,
        }
    }

    /// A `GET` request.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` request.
    #[must_use]
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header; `value` may be `secret://NAME`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sets the body, at most 512 KiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` as JSON, and says so in a header;
    /// [`CapabilityError::Invalid`] when it has no form in JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, CapabilityError> {
        let body = serde_json::to_vec(value)
            .map_err(|error| CapabilityError::Invalid(format!("the request's body: {error}")))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Has the host fill a text of the JSON body in: the one at `pointer` (RFC 6901), such
    /// as `/routing_key`, which has to be there, by the secret of this name.
    #[must_use]
    pub fn secret_field(mut self, pointer: impl Into<String>, secret: impl Into<String>) -> Self {
        self.secret_fields.push(SecretField {
            pointer: pointer.into(),
            secret: secret.into(),
        });
        self
    }

    /// How long to wait for the whole answer; 10 seconds when this is not called.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Duration>) -> Self {
        self.timeout = Some(milliseconds(timeout.into()));
        self
    }

    /// Observation or effect, by the method: sends the request. An answer with an error
    /// status is a [`Response`] and no error.
    pub fn send(&self) -> Result<Response, CapabilityError> {
        Ok(host::send(self)?)
    }
}

impl Response {
    /// Whether the status is one of success, 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The response itself when its status is one of success. Else `Unavailable` for 408,
    /// 425, 429 and 500 to 599, which are worth another attempt; `NotFound` for 404 and 410;
    /// `Invalid` for the rest of 400 to 499; `Failed` for all others.
    pub fn error_for_status(self) -> Result<Self, CapabilityError> {
        let text = format!("the answer's status is {}", self.status);
        match self.status {
            200..300 => Ok(self),
            408 | 425 | 429 | 500..600 => Err(CapabilityError::Unavailable(text)),
            404 | 410 => Err(CapabilityError::NotFound(text)),
            400..500 => Err(CapabilityError::Invalid(text)),
            _ => Err(CapabilityError::Failed(text)),
        }
    }

    /// The value of the first header of that name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// The body as text; what is no UTF-8 in it is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON; [`CapabilityError::Failed`] when it is no `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CapabilityError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CapabilityError::Failed(format!("the answer's body: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16) -> Response {
        Response {
            status,
            headers: vec![Header {
                name: "Content-Type".to_owned(),
                value: "text/plain".to_owned(),
            }],
            body: b"{\"up\":true}".to_vec(),
            truncated: false,
        }
    }

    #[test]
    fn statuses_become_errors_by_what_a_caller_would_do() {
        assert!(response(204).error_for_status().is_ok());
        for status in [408, 429, 500, 503] {
            let error = response(status).error_for_status().unwrap_err();
            assert!(matches!(error, CapabilityError::Unavailable(_)), "{error}");
        }
        for (status, text) in [
            (404, "not found: the answer's status is 404"),
            (403, "invalid: the answer's status is 403"),
            (304, "failed: the answer's status is 304"),
        ] {
            let error = response(status).error_for_status().unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn headers_are_found_in_any_case() {
        assert_eq!(response(200).header("content-type"), Some("text/plain"));
        assert_eq!(response(200).header("accept"), None);
    }

    #[test]
    fn json_goes_out_and_comes_back() {
        let request = Request::post("http://x/").json(&[1, 2]).unwrap();
        assert_eq!(request.body, b"[1,2]");
        assert_eq!(request.headers[0].value, "application/json");
        let body: std::collections::BTreeMap<String, bool> = response(200).json().unwrap();
        assert!(body["up"]);
        assert!(response(200).json::<u8>().is_err());
    }
}
