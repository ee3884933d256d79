//! `POST /api/v2/alerts` beside a real Alertmanager: the same bodies are posted to both, and what becomes of each alert
//! is compared. Where the two differ it is on purpose, and the table below says why, in the words of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use sentinel_tests::alertmanager::Alertmanager;
use sentinel_tests::daemon::{Daemon, client};
use sentinel_tests::root;
use serde_json::{Map, Value, json};

const POSTS: &str = "/api/v2/alerts";

/// Times that both fill in may differ by as much as lies between two posts.
const CLOSE: SignedDuration = SignedDuration::from_secs(5);

/// What is held of an alert that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    labels: Value,
    annotations: Value,
    link: String,
    starts_at: Timestamp,
    ends_at: Timestamp,
}

impl Held {
    fn is(&self, other: &Self) -> bool {
        let close = |one: Timestamp, other: Timestamp| one.duration_since(other).abs() < CLOSE;
        (&self.labels, &self.annotations, &self.link)
            == (&other.labels, &other.annotations, &other.link)
            && close(self.starts_at, other.starts_at)
            && close(self.ends_at, other.ends_at)
    }
}

/// What fires, by fingerprint.
type Firing = BTreeMap<String, Held>;

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().expect("a time")
}

/// What Alertmanager holds, by its API.
async fn theirs(alertmanager: &Alertmanager) -> Firing {
    let answer = client().get(alertmanager.url(POSTS)).send().await.unwrap();
    let alerts: Vec<Value> = answer.json().await.unwrap();
    let held = |alert: Value| {
        let held = Held {
            labels: alert["labels"].clone(),
            annotations: alert["annotations"].clone(),
            link: alert["generatorURL"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            starts_at: time(&alert["startsAt"]),
            ends_at: time(&alert["endsAt"]),
        };
        (alert["fingerprint"].as_str().unwrap().to_owned(), held)
    };
    alerts.into_iter().map(held).collect()
}

/// What sentinel holds, by its journal.
fn ours(daemon: &Daemon) -> Firing {
    let journal = daemon.path("data/journal.sqlite");
    let journal = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = journal
        .prepare(
            "SELECT l.fingerprint, l.body, a.body FROM leases l JOIN alerts a
             ON a.source = l.source AND a.fingerprint = l.fingerprint AND a.status = 'firing'
                AND a.starts_at = l.body ->> '$.episode'
             WHERE l.source = 'prometheus' AND l.over = 0",
        )
        .unwrap();
    let json = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    rows.query_map([], |row| {
        let (lease, alert) = (json(row.get(1)?), json(row.get(2)?));
        let held = Held {
            labels: alert["labels"].clone(),
            annotations: alert["annotations"].clone(),
            link: alert["generator_url"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            starts_at: time(&lease["span"]["starts_at"]),
            ends_at: time(&lease["span"]["ends_at"]),
        };
        Ok((row.get(0)?, held))
    })
    .unwrap()
    .map(Result::unwrap)
    // What has run out a moment ago.
    .filter(|(_, held): &(String, Held)| held.ends_at > Timestamp::now())
    .collect()
}

/// A request that both get.
struct Post {
    method: Method,
    content_type: Option<&'static str>,
    path: &'static str,
    body: Vec<u8>,
}

impl Post {
    fn json(body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            content_type: Some("application/json"),
            path: POSTS,
            body: body.into(),
        }
    }

    /// The status of the answer, and its text; 0 where the connection broke.
    async fn to(&self, url: String) -> (u16, String) {
        let mut request = client()
            .request(self.method.clone(), url)
            .body(self.body.clone());
        if let Some(content_type) = self.content_type {
            request = request.header("content-type", content_type);
        }
        match request.send().await {
            Ok(answer) => (
                answer.status().as_u16(),
                answer.text().await.unwrap_or_default(),
            ),
            Err(error) => (0, error.to_string()),
        }
    }
}

/// A body of one alert with these fields beside its labels.
fn fields(fields: &str) -> Post {
    Post::json(format!(r#"[{{"labels":{{"alertname":"@"}},{fields}}}]"#))
}

/// A body of one alert with these labels beside its name.
fn labels(labels: &str) -> Post {
    Post::json(format!(r#"[{{"labels":{{"alertname":"@",{labels}}}}}]"#))
}

fn body(text: &str) -> Post {
    Post::json(text)
}

fn typed(content_type: Option<&'static str>) -> Post {
    Post {
        content_type,
        ..body(GOOD)
    }
}

/// An array with one good alert.
const GOOD: &str = r#"[{"labels":{"alertname":"@"}}]"#;

/// What is posted, one after the other. In a body `@` is the case's own name, and `{+60}` the time a minute from now.
fn cases() -> Vec<(&'static str, Post)> {
    let starts = |text: &str| fields(&format!(r#""startsAt":{text}"#));
    let ends = |text: &str| fields(&format!(r#""endsAt":{text}"#));
    let both =
        |starts: &str, ends: &str| fields(&format!(r#""startsAt":"{starts}","endsAt":"{ends}""#));
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let many: Vec<_> = (0..300).map(|n| format!(r#""l{n}":"x""#)).collect();
    let mut cases = vec![
        ("no times", body(GOOD)),
        ("nothing", body("")),
        ("white space", body(" \n")),
        ("an empty array", body("[]")),
        ("null", body("null")),
        ("an object", body(r#"{"labels":{"alertname":"@"}}"#)),
        (
            "a notification",
            body(r#"{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"@"}}]}"#),
        ),
        ("a text", body(r#""x""#)),
        ("a number", body("1")),
        (
            "an array that breaks off",
            body(r#"[{"labels":{"alertname":"@"}}"#),
        ),
        (
            "a comma too many",
            body(r#"[{"labels":{"alertname":"@"}},]"#),
        ),
        ("a comment", body("[/* none */]")),
        ("single quotes", body("[{'labels':{'alertname':'@'}}]")),
        ("an alert that is a number", body("[1]")),
        ("an alert that is null", body("[null]")),
        (
            "text behind the array",
            body(r#"[{"labels":{"alertname":"@"}}] x"#),
        ),
        ("two arrays", body(r#"[{"labels":{"alertname":"@"}}][]"#)),
        (
            "a mark of the byte order",
            body("\u{feff}[{\"labels\":{\"alertname\":\"@\"}}]"),
        ),
        (
            "bytes that are no UTF-8",
            Post::json(b"[{\"labels\":{\"alertname\":\"@\",\"a\":\"caf\xE9\"}}]".to_vec()),
        ),
        (
            "half a surrogate and NUL",
            labels(r#""a":"\ud83d","b":"\u0000","c":"\n""#),
        ),
        (
            "white space all over",
            body(" [ \n { \"labels\" : { \"alertname\" : \"@\" } } \t ] \r\n"),
        ),
        ("labels that are empty", labels(r#""a":"","b":"x""#)),
        (
            "no label that is not empty",
            body(r#"[{"labels":{"alertname":""}}]"#),
        ),
        ("labels without any", body(r#"[{"labels":{}}]"#)),
        ("labels that are null", body(r#"[{"labels":null}]"#)),
        ("no labels", body("[{}]")),
        ("a label that is null", labels(r#""a":null"#)),
        ("a label that is a number", labels(r#""a":8080"#)),
        ("a label that is a boolean", labels(r#""a":true"#)),
        ("a label that is an array", labels(r#""a":["x"]"#)),
        ("a label that is an object", labels(r#""a":{}"#)),
        (
            "labels that are an array",
            body(r#"[{"labels":["alertname"]}]"#),
        ),
        ("a label without a name", labels(r#""":"x""#)),
        ("a label of another form", labels(r#""a-b.c":"x","0":"y""#)),
        ("a label in UTF-8", labels(r#""größe":"10 µm","😀":"y""#)),
        (
            "values in UTF-8 and in any order",
            labels(r#""z":"ü","b":"😀","a":"[::1]:9100","Z":"\"q\"\\""#),
        ),
        ("a label twice", labels(r#""a":"1","a":"2""#)),
        ("a label twice, absent at last", labels(r#""a":"1","a":"""#)),
        (
            "labels twice",
            body(r#"[{"labels":{"a":"1"},"labels":{"alertname":"@"}}]"#),
        ),
        (
            "a long label",
            labels(&format!(r#""a":"{}""#, "x".repeat(17 << 10))),
        ),
        ("three hundred labels", labels(&many.join(","))),
        (
            "annotations",
            fields(r#""annotations":{"a":"x","b":"","größe":"y"}"#),
        ),
        (
            "good annotations",
            fields(r#""annotations":{"a":"x","b":""}"#),
        ),
        ("annotations that are null", fields(r#""annotations":null"#)),
        (
            "an annotation that is null",
            fields(r#""annotations":{"a":null}"#),
        ),
        (
            "an annotation that is a number",
            fields(r#""annotations":{"a":1.50}"#),
        ),
        (
            "annotations that are a text",
            fields(r#""annotations":"x""#),
        ),
        (
            "a long annotation",
            fields(&format!(
                r#""annotations":{{"a":"{}"}}"#,
                "x".repeat(33 << 10)
            )),
        ),
        (
            "keys that nobody knows",
            fields(
                r#""status":{"state":"suppressed"},"fingerprint":"1","receivers":[1],"x":{"y":[null]}"#,
            ),
        ),
        (
            "a key that nobody knows, and deep",
            fields(&format!(r#""x":{deep}"#)),
        ),
        (
            "keys in other case",
            body(
                r#"[{"Labels":{"alertname":"@"},"ANNOTATIONS":{"a":"x"},"startsat":"2026-01-01T00:00:00Z","EndsAt":"{+600}","generatorurl":"http://x/y"}]"#,
            ),
        ),
        (
            "an end in another case",
            body(r#"[{"Labels":{"alertname":"@"},"EndsAt":"{-60}"}]"#),
        ),
        (
            "a key with an escape",
            body(r#"[{"label\u0073":{"alertname":"@"}}]"#),
        ),
        (
            "a link",
            fields(r#""generatorURL":"http://prometheus:9090/graph?g0.expr=up%3D%3D0&g0.tab=1""#),
        ),
        ("no link", fields(r#""generatorURL":"""#)),
        (
            "a link that is none",
            fields(r#""generatorURL":"the disk""#),
        ),
        ("a link that is a number", fields(r#""generatorURL":1"#)),
        ("a start before", starts(r#""{-3600}""#)),
        ("a start to come", starts(r#""{+60}""#)),
        ("a start after the timeout", starts(r#""{+600}""#)),
        ("a start that is null", starts("null")),
        ("a start that is empty", starts(r#""""#)),
        ("Go's zero for a start", starts(r#""0001-01-01T00:00:00Z""#)),
        (
            "a start without an offset",
            starts(r#""2026-01-01T00:00:00""#),
        ),
        (
            "a start with an offset",
            starts(r#""2026-01-01T05:30:00.9999+05:30""#),
        ),
        (
            "a start in nanoseconds",
            starts(r#""2026-01-01T00:00:00.123999999Z""#),
        ),
        ("a start that is no time", starts(r#""yesterday""#)),
        ("a start that is a number", starts("1767225600")),
        ("an end to come", ends(r#""{+60}""#)),
        ("an end that has passed", ends(r#""{-60}""#)),
        ("an end that is null", ends("null")),
        ("an end that is empty", ends(r#""""#)),
        ("Go's zero for an end", ends(r#""0001-01-01T00:00:00Z""#)),
        ("an end without an offset", ends(r#""2026-01-01T00:00:00""#)),
        ("an end to the minute", ends(r#""2026-01-01T00:00Z""#)),
        ("an end with a space", ends(r#""2026-01-01 00:00:00""#)),
        (
            "an end with a space in UTC",
            ends(r#""2026-01-01 00:00:00Z""#),
        ),
        ("an end that is a day", ends(r#""2026-01-01""#)),
        ("an end that is no time", ends(r#""tomorrow""#)),
        ("an end that is a number", ends("1767225600")),
        ("an end before the start", both("{+60}", "{+30}")),
        (
            "an end that passed before the start",
            both("{-30}", "{-60}"),
        ),
        (
            "an end at the start",
            both("2036-01-01T00:00:00Z", "2036-01-01T00:00:00Z"),
        ),
        ("a start and an end", both("{-60}", "{+60}")),
        (
            "an alert twice in a body",
            body(
                r#"[{"labels":{"alertname":"@","a":"1"},"startsAt":"{-60}","annotations":{"x":"1"}},{"labels":{"a":"1","alertname":"@","b":""},"startsAt":"{-120}","annotations":{"y":"2"}}]"#,
            ),
        ),
        (
            "it fires and has resolved in a body",
            body(
                r#"[{"labels":{"alertname":"@"},"startsAt":"{-60}"},{"labels":{"alertname":"@"},"startsAt":"{-60}","endsAt":"{-1}"}]"#,
            ),
        ),
        (
            "it has resolved and fires in a body",
            body(
                r#"[{"labels":{"alertname":"@"},"startsAt":"{-90}","endsAt":"{-60}"},{"labels":{"alertname":"@"},"startsAt":"{-30}"}]"#,
            ),
        ),
        (
            "a good one before a bad one",
            body(r#"[{"labels":{"alertname":"@"}},{"labels":{}}]"#),
        ),
        (
            "a good one behind a bad one",
            body(r#"[{"labels":{}},{"labels":{"alertname":"@"}}]"#),
        ),
        (
            "a good one before one that is no alert",
            body(r#"[{"labels":{"alertname":"@"}},{"labels":{"a":[]}}]"#),
        ),
        (
            "two bad ones",
            body(r#"[{"labels":{}},{"labels":{"alertname":"@"},"endsAt":"x"}]"#),
        ),
        ("no type", typed(None)),
        ("an empty type", typed(Some(""))),
        ("plain text", typed(Some("text/plain"))),
        ("a form", typed(Some("application/x-www-form-urlencoded"))),
        ("any type", typed(Some("*/*"))),
        ("JSON of a kind", typed(Some("application/vnd.api+json"))),
        ("JSON in capitals", typed(Some("Application/JSON"))),
        (
            "JSON with a character set",
            typed(Some("application/json; charset=utf-8")),
        ),
        (
            "by PUT",
            Post {
                method: Method::PUT,
                ..body(GOOD)
            },
        ),
        (
            "with a slash",
            Post {
                path: "/api/v2/alerts/",
                ..body(GOOD)
            },
        ),
        (
            "with a query",
            Post {
                path: "/api/v2/alerts?x=1",
                ..body(GOOD)
            },
        ),
    ];
    let padding = "x".repeat(2 << 20);
    cases.push((
        "a body of two MiB",
        fields(&format!(r#""annotations":{{"a":"{padding}"}}"#)),
    ));
    cases
}

/// Where the two differ: the status and the number of firing alerts of Alertmanager and of sentinel, and the words of
/// the documentation that say so.
type Differs = (&'static str, (u16, usize), (u16, usize), &'static str);

const ONE_BODY: &str = "what follows the array is refused with it";
const PARTS: &str = "An alert that is refused does not take the others of its delivery with it";
const LAX: &str = "Fields that decide nothing may be missing and hold anything";
const TEXTS: &str =
    "a number or a boolean is its text, null and (in labels) the empty text are absent";
const NAMES: &str = "A label's name is any text that is not empty, as in Alertmanager from 0.27 on";
const TIMES: &str = "An empty text in the place of a time is no time";
const FORMS: &str = "the day alone";
const BOUNDS: &str = "labels | 256; a name 1 KiB, a value 16 KiB, all together 64 KiB | refused";
const CUTS: &str = "annotations | 256; a name 1 KiB, a value 32 KiB, all together 64 KiB | cut";
const STATUSES: &str = "What is not understood is a 400, also where Alertmanager says 422";
const LAST: &str = "labels that stand twice, which Alertmanager puts together";
const MARK: &str = "A mark of the byte order is passed over";
const TYPES: &str = "`application/…+json`";
const LIMIT: &str = "a body that is larger than `limits.intake.body`";

const DIFFERS: &[Differs] = &[
    ("nothing", (422, 0), (400, 0), STATUSES),
    ("white space", (422, 0), (400, 0), STATUSES),
    ("labels that are null", (422, 0), (400, 0), STATUSES),
    ("no labels", (422, 0), (400, 0), STATUSES),
    // It falls over it, and says nothing.
    ("an alert that is null", (0, 0), (400, 0), STATUSES),
    ("text behind the array", (200, 1), (400, 0), ONE_BODY),
    ("two arrays", (200, 1), (400, 0), ONE_BODY),
    ("a mark of the byte order", (400, 0), (202, 1), MARK),
    ("a label that is a number", (400, 0), (202, 1), TEXTS),
    ("a label that is a boolean", (400, 0), (202, 1), TEXTS),
    ("a label of another form", (400, 0), (202, 1), NAMES),
    ("a label in UTF-8", (400, 0), (202, 1), NAMES),
    // Its labels are those of both.
    ("labels twice", (200, 1), (202, 1), LAST),
    ("a long label", (200, 1), (400, 0), BOUNDS),
    ("three hundred labels", (200, 1), (400, 0), BOUNDS),
    ("annotations", (400, 0), (202, 1), LAX),
    // It makes an empty text of it.
    ("an annotation that is null", (200, 1), (202, 1), TEXTS),
    ("an annotation that is a number", (400, 0), (202, 1), LAX),
    ("annotations that are a text", (400, 0), (202, 1), LAX),
    ("a long annotation", (200, 1), (202, 1), CUTS),
    ("a link that is none", (422, 0), (202, 1), LAX),
    ("a link that is a number", (400, 0), (202, 1), LAX),
    // It takes it for the year 1970: an end that has passed, too.
    ("a start that is empty", (200, 1), (202, 1), TIMES),
    ("an end that is empty", (200, 0), (202, 1), TIMES),
    ("a start that is no time", (400, 0), (202, 1), LAX),
    ("a start that is a number", (400, 0), (202, 1), LAX),
    ("an end with a space in UTC", (400, 0), (202, 0), FORMS),
    ("an end that is a day", (400, 0), (202, 0), FORMS),
    // It takes the good ones as well, and says no all the same.
    ("a good one before a bad one", (400, 1), (202, 1), PARTS),
    ("a good one behind a bad one", (400, 1), (202, 1), PARTS),
    (
        "a good one before one that is no alert",
        (400, 0),
        (202, 1),
        PARTS,
    ),
    ("JSON of a kind", (415, 0), (202, 1), TYPES),
    ("a body of two MiB", (200, 1), (413, 0), LIMIT),
];

/// The body with the times that it names.
fn filled(body: &[u8], name: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(body) else {
        // The one that is no UTF-8 has a name all the same.
        let at = body.iter().position(|byte| *byte == b'@').unwrap();
        return [&body[..at], name.as_bytes(), &body[at + 1..]].concat();
    };
    let mut filled = String::new();
    let mut rest = text;
    let now = Timestamp::now();
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let time = after.split_once('}').and_then(|(number, after)| {
            let seconds = number.strip_prefix('+').or(number.strip_prefix('-'))?;
            let seconds = SignedDuration::from_secs(seconds.parse().ok()?);
            let at = if number.starts_with('+') {
                now + seconds
            } else {
                now - seconds
            };
            Some((at, after))
        });
        if let Some((at, after)) = time {
            write!(filled, "{at}").unwrap();
            rest = after;
        } else {
            filled.push('{');
            rest = after;
        }
    }
    filled.push_str(rest);
    filled.replace('@', name).into_bytes()
}

/// What came to `after`.
fn new(before: &Firing, after: &Firing) -> Vec<(String, Held)> {
    let came = after
        .iter()
        .filter(|(fingerprint, _)| !before.contains_key(*fingerprint));
    came.map(|(fingerprint, held)| (fingerprint.clone(), held.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_becomes_what_alertmanager_makes_of_it() {
    let alertmanager = Alertmanager::start(
        "route: { receiver: s, group_wait: 1h }\nreceivers: [{ name: s }]\n",
        None,
    )
    .await;
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("limits: { intake: { body: 1MiB } }\n");
    daemon.serve().await;

    let docs = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut differs: BTreeMap<_, _> = DIFFERS.iter().map(|entry| (entry.0, entry)).collect();
    assert_eq!(differs.len(), DIFFERS.len(), "none is there twice");
    let mut wrong = String::new();
    let cases = cases();
    let (mut same, count) = (0, cases.len());
    for (name, mut post) in cases {
        post.body = filled(&post.body, name);
        let (them_before, us_before) = (theirs(&alertmanager).await, ours(&daemon));
        let them = post.to(alertmanager.url(post.path)).await;
        let us = post.to(daemon.url(post.path)).await;
        let they_hold = new(&them_before, &theirs(&alertmanager).await);
        let we_hold = new(&us_before, &ours(&daemon));
        let alike = they_hold.len() == we_hold.len()
            && std::iter::zip(&they_hold, &we_hold)
                .all(|((one, theirs), (other, ours))| one == other && theirs.is(ours));
        // Every 2xx is a yes to whoever posts.
        let agreed = alike && us.0 == if them.0 == 200 { 202 } else { them.0 };
        let found = ((them.0, they_hold.len()), (us.0, we_hold.len()));
        let good = match differs.remove(name) {
            None => agreed,
            Some((_, them, us, words)) => {
                assert!(
                    docs.contains(words),
                    "{name}: the documentation does not say `{words}`"
                );
                !agreed && found == (*them, *us)
            }
        };
        same += usize::from(agreed);
        if !good {
            writeln!(
                wrong,
                "{name}: {found:?}\n  theirs {:.200} {they_hold:.500?}\n  ours {:.200} {we_hold:.500?}",
                them.1, us.1
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(differs.is_empty(), "no such cases: {differs:?}");
    assert!(same > 60, "{same} of {count} are alike");
}

/// As random as a test should be that fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_of_one_alert_are_merged_as_alertmanager_merges_them() {
    /// Minutes from now; far enough from each other, and from what the timeout makes, that no test is that slow.
    const MINUTES: [Option<i64>; 9] = [
        None,
        Some(-30),
        Some(-20),
        Some(-10),
        Some(10),
        Some(20),
        Some(30),
        Some(-40),
        None,
    ];
    let alertmanager = Alertmanager::start(
        "global: { resolve_timeout: 15m }\nroute: { receiver: s, group_wait: 1h }\nreceivers: [{ name: s }]\n",
        None,
    )
    .await;
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("resolve_timeout: 15m\n");
    daemon.serve().await;
    let mut random = Random(7);
    let (mut fire, mut gone, mut refused) = (0, 0, 0);
    let mut story: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for n in 0..400 {
        let which = random.below(40);
        let mut alert = json!({
            "labels": { "alertname": "Merged", "which": which.to_string() },
            "annotations": { (format!("a{}", n % 3)): n.to_string() },
        });
        let now = Timestamp::now();
        let mut said = format!("{n}");
        for key in ["startsAt", "endsAt"] {
            if let Some(minutes) = MINUTES[random.below(MINUTES.len())] {
                alert[key] = json!((now + SignedDuration::from_mins(minutes)).to_string());
                write!(said, " {key} {minutes}").unwrap();
            }
        }
        let told = story.entry(which).or_default();
        told.push(said);
        let post = Post::json(json!([alert]).to_string());
        let them = post.to(alertmanager.url(POSTS)).await;
        let us = post.to(daemon.url(POSTS)).await;
        assert_eq!(them.0 == 200, us.0 == 202, "{told:?}: {them:?} {us:?}");
        refused += usize::from(us.0 != 202);
        let wanted = which.to_string();
        let one = |firing: Firing| {
            let mut all = firing.into_iter();
            all.find(|(_, held)| held.labels["which"] == *wanted)
        };
        let (them, us) = (one(theirs(&alertmanager).await), one(ours(&daemon)));
        match (&them, &us) {
            (None, None) => gone += 1,
            (Some((one, theirs)), Some((other, ours))) => {
                assert!(
                    one == other && theirs.is(ours),
                    "{told:#?}: {them:#?} {us:#?}"
                );
                fire += 1;
            }
            _ => panic!("{told:#?}: {them:#?} {us:#?}"),
        }
    }
    assert!(
        fire > 100 && gone > 50 && refused > 50,
        "{fire} {gone} {refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_repeats_is_over_when_it_is_over_in_alertmanager() {
    let alertmanager = Alertmanager::start(
        "global: { resolve_timeout: 4s }\nroute: { receiver: s, group_wait: 1h }\nreceivers: [{ name: s }]\n",
        None,
    )
    .await;
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("resolve_timeout: 4s\n");
    daemon.serve().await;
    let post = async |labels: &[&str], more: Map<String, Value>| {
        let alert = |name: &&str| {
            let mut alert = json!({ "labels": { "alertname": name } });
            alert.as_object_mut().unwrap().extend(more.clone());
            alert
        };
        let body = Value::from(labels.iter().map(alert).collect::<Vec<_>>()).to_string();
        let post = Post::json(body);
        assert_eq!(post.to(alertmanager.url(POSTS)).await.0, 200);
        assert_eq!(post.to(daemon.url(POSTS)).await.0, 202);
    };
    let names = |firing: Firing| -> Vec<String> {
        let names = firing
            .values()
            .map(|held| held.labels["alertname"].as_str().unwrap().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let end = Timestamp::now() + SignedDuration::from_secs(60);
    let told = json!({ "endsAt": end.to_string() });
    post(&["once", "again"], Map::new()).await;
    post(&["told"], told.as_object().unwrap().clone()).await;
    assert_eq!(names(ours(&daemon)), ["again", "once", "told"]);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        post(&["again"], Map::new()).await;
    }
    for found in [names(theirs(&alertmanager).await), names(ours(&daemon))] {
        assert_eq!(found, ["again", "told"]);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for found in [names(theirs(&alertmanager).await), names(ours(&daemon))] {
        assert_eq!(found, ["told"]);
    }
}
