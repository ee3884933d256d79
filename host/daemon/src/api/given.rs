//! What a request gives: JSON bodies and query strings, read strictly. What decides something is never guessed: a key
//! that is not known, or is there twice, is refused by name.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use sentinel_core::policy::nearest;
use serde::de::value::Error as NoValue;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor,
};
use url::form_urlencoded;

use super::operate::Refused;

/// How large the body of a request may be that is no delivery and no plugin.
pub(super) const BODY: usize = 64 << 10;

/// How long it may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a body that is not wanted is read all the same, and for how long: a client that is still sending when
/// the connection closes sees a broken pipe, and not why.
const UNWANTED: usize = 1 << 20;
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of what was given a message repeats.
const SHOWN: usize = 100;

/// A body that is a JSON object with exactly the keys of `T`.
pub(super) struct Given<T>(pub(super) T);

/// A query string with exactly the keys of `T`.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let body = collect(request.into_body()).await?;
        object(&body).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let query = parts.uri.query().unwrap_or_default();
        let known = keys::<T>();
        let mut seen: Vec<String> = Vec::new();
        for (key, _) in form_urlencoded::parse(query.as_bytes()) {
            let key = key.into_owned();
            wanted(&key, known, &seen).map_err(Refused::bad)?;
            seen.push(key);
        }
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(params)| Self(params))
            .map_err(|error| Refused::bad(shown(&error.body_text())))
    }
}

/// The whole body, if it is not too large and does not take too long.
async fn collect(body: Body) -> Result<Bytes, Refused> {
    let too_large = || {
        Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} KiB", BODY >> 10),
        )
    };
    if body.size_hint().lower() > BODY as u64 {
        pour(body).await;
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Refused::bad(format!("the body broke off: {error}")));
            let chunk = chunk?;
            if bytes.len() + chunk.len() > BODY {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, read).await else {
        return Err(Refused(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {BODY_TIMEOUT:?}"),
        ));
    };
    if read.is_err() {
        pour(Body::from_stream(chunks)).await;
    }
    read
}

/// Reads on for a while, and keeps nothing.
pub(super) async fn pour(body: Body) {
    let mut chunks = body.into_data_stream();
    let rest = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > UNWANTED {
                break;
            }
        }
    };
    if tokio::time::timeout(UNWANTED_TIMEOUT, rest).await.is_err() {
        tracing::debug!("a body that is not wanted did not come to its end");
    }
}

/// Whether a body is said to be JSON: `Some(false)` when it is said to be something else.
pub(super) fn is_json(headers: &HeaderMap) -> Option<bool> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let first = types.next()?;
    let Ok(text) = first.to_str() else {
        return Some(false);
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    Some(json && types.next().is_none())
}

/// Why a body that is not said to be JSON is not read, with what to do.
pub(super) fn no_json(headers: &HeaderMap) -> Refused {
    let said = headers.get(header::CONTENT_TYPE);
    let said = said.map(|said| shown(&String::from_utf8_lossy(said.as_bytes())));
    let said = match said {
        Some(said) => format!("the body's Content-Type is `{said}`"),
        None => "the body has no Content-Type".to_owned(),
    };
    Refused(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "{said}, and this takes application/json: with curl, add -H 'Content-Type: application/json'"
        ),
    )
}

/// The beginning of a text that came from outside.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Reads a body as an object with exactly the keys of `T`.
fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let Keys(given) = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let known = keys::<T>();
    let mut seen = Vec::new();
    for key in given {
        wanted(&key, known, &seen)
            .map_err(|said| Refused(StatusCode::UNPROCESSABLE_ENTITY, said))?;
        seen.push(key);
    }
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Refused {
    let status = if error.is_data() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::BAD_REQUEST
    };
    let mut said = error.to_string();
    // An error may repeat what was given, its place comes last.
    if said.chars().count() > 4 * SHOWN {
        said = format!(
            "{} at line {} column {}",
            shown(&said),
            error.line(),
            error.column()
        );
    }
    Refused(status, format!("the body is not understood: {said}"))
}

/// Whether a key is known and new.
fn wanted(key: &str, known: &[&'static str], seen: &[String]) -> Result<(), String> {
    if !known.contains(&key) {
        let meant = nearest(&shown(key), known.iter().copied());
        let meant = meant.map_or_else(String::new, |meant| format!(", did you mean `{meant}`"));
        let known = known.join("`, `");
        return Err(format!(
            "there is no key `{}`{meant}: the keys are `{known}`",
            shown(key)
        ));
    }
    if seen.iter().any(|seen| seen == key) {
        return Err(format!("the key `{key}` is there twice"));
    }
    Ok(())
}

/// The keys of an object, in order, with those that are there twice.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(KeysVisitor)
    }
}

/// The keys that `T` is read from, as `T` itself names them.
fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    let probe = Probe { keys: &mut keys };
    // It holds nothing, and is asked only for what it would have to hold.
    let _nothing = T::deserialize(probe);
    keys
}

/// Listens to what a struct asks for.
struct Probe<'a> {
    keys: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = NoValue;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoValue> {
        Err(NoValue::custom("nothing"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NoValue> {
        *self.keys = fields;
        Err(NoValue::custom("nothing"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        AcceptBody, InstallQuery, PauseBody, PlanBody, ReasonBody, ResumeBody, RollBackBody,
    };

    fn refused<T: DeserializeOwned>(body: &str) -> (StatusCode, String) {
        let Refused(status, said) = object::<T>(body.as_bytes()).err().expect(body);
        (status, said)
    }

    #[test]
    fn every_body_knows_its_keys() {
        assert_eq!(
            keys::<PauseBody>(),
            ["all", "policy", "target", "for", "by", "reason"]
        );
        assert_eq!(keys::<ResumeBody>(), ["all", "policy", "target", "by"]);
        assert_eq!(keys::<PlanBody>(), ["plan", "by", "reason"]);
        assert_eq!(keys::<ReasonBody>(), ["by", "reason"]);
        assert_eq!(keys::<RollBackBody>(), ["to", "by", "reason"]);
        assert_eq!(keys::<AcceptBody>(), ["by"]);
        assert_eq!(keys::<InstallQuery>(), ["by", "signature", "accept"]);
    }

    #[test]
    fn a_key_that_is_not_known_is_named_with_the_nearest_one() {
        let (status, said) =
            refused::<PauseBody>(r#"{"all":true,"fro":"2h","by":"ann","reason":"x"}"#);
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(said.contains("`fro`, did you mean `for`"), "{said}");
        assert!(
            said.contains("`all`, `policy`, `target`, `for`, `by`, `reason`"),
            "{said}"
        );
        for (body, says) in [
            (r#"{"for ":"2h"}"#, "`for `"),
            (r#"{"For":"2h"}"#, "did you mean `for`"),
            (r#"{"f\u006fr":"2h","for":"3h"}"#, "`for` is there twice"),
            (r#"{"":1}"#, "no key ``"),
            (r#"{"duration":"2h"}"#, "`duration`"),
            ("[true]", "expected a JSON object"),
            ("\"all\"", "expected a JSON object"),
            ("null", "expected a JSON object"),
            (
                r#"{"all":"true","by":"a","reason":"b"}"#,
                "expected a boolean",
            ),
            (r#"{"all":1,"by":"a","reason":"b"}"#, "expected a boolean"),
            (r#"{"all":true,"for":2,"by":"a","reason":"b"}"#, "line 1"),
            (
                r#"{"all":true,"by":["a"],"reason":"b"}"#,
                "expected a string",
            ),
            (r#"{"all":true,"reason":"b"}"#, "missing field `by`"),
            (r#"{"all":true,"by":"a","reason":"b"}{}"#, "trailing"),
            (r#"{"all":true,"by":"a","reason":"b"} x"#, "trailing"),
            (r#"{"all":true,"by":"a","reason":"b",}"#, "trailing comma"),
            ("", "EOF"),
        ] {
            let (status, said) = refused::<PauseBody>(body);
            assert!(
                status.is_client_error() && said.contains(says),
                "{body}: {said}"
            );
        }
        let long = "x".repeat(60_000);
        for body in [
            format!(r#"{{"{long}":1}}"#),
            format!(r#"{{"all":true,"by":"a","reason":"b","for":"{long}"}}"#),
        ] {
            let (_, said) = refused::<PauseBody>(&body);
            assert!(said.len() < 1000, "{}", said.len());
        }
        let Ok(body) = object::<PauseBody>(br#" {"all":true,"for":null,"by":"a","reason":"b"} "#)
        else {
            panic!("it is a good one");
        };
        assert!(body.all && body.duration.is_none());
    }

    #[test]
    fn only_json_is_json() {
        let is = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(text));
            is_json(&headers).unwrap()
        };
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=UTF-8",
            "application/cloudevents+json",
        ] {
            assert!(is(json), "{json}");
        }
        for other in [
            "",
            "text/plain",
            "text/plain; application/json",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/jsonp",
            "application/json, text/plain",
        ] {
            assert!(!is(other), "{other}");
        }
        assert_eq!(is_json(&HeaderMap::new()), None);
    }
}
