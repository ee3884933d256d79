use sentinel_core::alert::{AlertStatus, Fingerprint};
use sentinel_core::bounds;
use sentinel_core::lease::RESOLVE_TIMEOUT;

use super::*;

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// What a delivery came to.
struct Read {
    taken: Vec<One>,
    refused: Refused,
    truncated: Option<Truncated>,
}

fn read(endpoint: Endpoint, body: impl Into<Vec<u8>>) -> Result<Read, Malformed> {
    let text = lax::text(body.into().into());
    let mut reading = Reading::open(endpoint, text, now(), RESOLVE_TIMEOUT)?;
    let truncated = reading.truncated();
    let mut taken = Vec::new();
    while !reading.is_done() {
        taken.extend(reading.slice());
    }
    Ok(Read {
        taken,
        refused: reading.refused,
        truncated,
    })
}

const BOTH: [Endpoint; 2] = [Endpoint::Alertmanager, Endpoint::Prometheus];

/// A body of the endpoint with these alerts.
fn body(endpoint: Endpoint, alerts: &str) -> String {
    match endpoint {
        Endpoint::Alertmanager => format!(r#"{{"version":"4","alerts":[{alerts}]}}"#),
        Endpoint::Prometheus => format!("[{alerts}]"),
    }
}

/// One firing alert, with `fields` in the place of its own of the same names.
fn alert(fields: &[(&str, Option<&str>)]) -> String {
    let own = [
        ("status", r#""firing""#),
        ("labels", r#"{"alertname":"A"}"#),
        ("annotations", r#"{"summary":"s"}"#),
        ("startsAt", r#""2026-01-01T11:00:00Z""#),
        ("generatorURL", r#""http://p/graph""#),
    ];
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in own {
        if !fields.iter().any(|(field, _)| *field == name) {
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    for (name, value) in fields {
        pairs.extend(value.map(|value| ((*name).to_owned(), value.to_owned())));
    }
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// The one alert of a body, or what is wrong with it.
fn one(endpoint: Endpoint, alert: &str) -> Result<One, String> {
    let mut read = read(endpoint, body(endpoint, alert)).map_err(|error| error.to_string())?;
    match read.taken.pop() {
        Some(one) => Ok(one),
        None => Err(read.refused.summary()),
    }
}

/// A value of each type that JSON has, and some that senders in other languages make.
const VALUES: [&str; 14] = [
    "null",
    "true",
    "false",
    "0",
    "-1.5",
    "1e400",
    "12345678901234567890123456",
    r#""""#,
    r#""text""#,
    r#""\ud83d""#,
    "[]",
    "[1,[2]]",
    "{}",
    r#"{"a":{"b":1}}"#,
];

#[test]
fn a_field_that_decides_nothing_may_be_absent_and_hold_anything() {
    for endpoint in BOTH {
        let of_both = [
            "annotations",
            "generatorURL",
            "silenceURL",
            "values",
            "valueString",
            "x",
        ];
        let of_one: &[&str] = match endpoint {
            Endpoint::Alertmanager => &["endsAt", "fingerprint"],
            Endpoint::Prometheus => &["status", "startsAt", "fingerprint"],
        };
        for field in of_both.iter().chain(of_one) {
            for value in VALUES.iter().map(Some).chain([None]) {
                let alert = alert(&[(field, value.copied())]);
                let one = one(endpoint, &alert)
                    .unwrap_or_else(|error| panic!("{endpoint:?} {alert}: {error}"));
                assert_eq!(one.alert.status, AlertStatus::Firing, "{alert}");
                assert_eq!(one.alert.labels["alertname"], "A");
            }
        }
    }
}

#[test]
fn what_a_label_or_an_annotation_is_becomes_its_text() {
    // Each value with what it is as a label and as an annotation; none is absent.
    let texts = [
        ("null", Some(None), None),
        ("true", Some(Some("true")), Some("true")),
        ("8080", Some(Some("8080")), Some("8080")),
        ("93.50", Some(Some("93.50")), Some("93.50")),
        ("1e400", Some(Some("1e400")), Some("1e400")),
        (r#""""#, Some(None), Some("")),
        (r#""text""#, Some(Some("text")), Some("text")),
        (
            r#""stuck \ud83d""#,
            Some(Some("stuck \u{fffd}")),
            Some("stuck \u{fffd}"),
        ),
        (r#""\ud83d\ude00""#, Some(Some("😀")), Some("😀")),
        // A label is never guessed.
        (r#"{"a":1}"#, None, Some(r#"{"a":1}"#)),
        ("[1, 2]", None, Some("[1, 2]")),
    ];
    for endpoint in BOTH {
        for (value, label, annotation) in texts {
            let labels = format!(r#"{{"alertname":"A","x":{value}}}"#);
            match (one(endpoint, &alert(&[("labels", Some(&labels))])), label) {
                (Ok(one), Some(label)) => {
                    let found = one.alert.labels.get("x").map(String::as_str);
                    assert_eq!(found, label, "{value}");
                }
                (Err(error), None) => {
                    assert!(error.contains("label `x`: expected a text"), "{error}");
                }
                (got, label) => panic!("{endpoint:?} {value}: {got:?} and not {label:?}"),
            }
            let annotations = format!(r#"{{"x":{value}}}"#);
            let one = one(endpoint, &alert(&[("annotations", Some(&annotations))])).unwrap();
            let found = one.alert.annotations.get("x").map(String::as_str);
            assert_eq!(found, annotation, "{value}");
        }
    }
}

#[test]
fn what_decides_is_exact_and_says_what_it_expects() {
    let labels = |endpoint, value: Option<&str>| one(endpoint, &alert(&[("labels", value)]));
    for endpoint in BOTH {
        for value in VALUES.iter().map(|value| Some(*value)).chain([None]) {
            let objects = [r#"{"a":{"b":1}}"#, "{}", "null"];
            let error = labels(endpoint, value).unwrap_err();
            let says = match value {
                None => "the field `labels` is missing",
                Some(value) if objects.contains(&value) => "label",
                Some(_) => "`labels`: expected an object, and found",
            };
            assert!(error.contains(says), "{value:?}: {error}");
            assert!(error.starts_with("line 1, column "), "{error}");
        }
        // Neither is what stands in the place of an alert.
        for value in VALUES.iter().filter(|value| !value.starts_with('{')) {
            let read = read(endpoint, body(endpoint, value)).unwrap();
            let error = read.refused.summary();
            assert!(error.contains("alerts[0]: expected an alert"), "{error}");
        }
    }
    for value in VALUES.iter().map(|value| Some(*value)).chain([None]) {
        let error = one(Endpoint::Alertmanager, &alert(&[("status", value)])).unwrap_err();
        assert!(error.contains("expected firing or resolved"), "{error}");
    }
    for value in VALUES {
        let absent = ["null", r#""""#].contains(&value);
        let started = one(Endpoint::Alertmanager, &alert(&[("startsAt", Some(value))]));
        let ended = one(Endpoint::Prometheus, &alert(&[("endsAt", Some(value))]));
        assert_eq!(started.is_ok(), absent, "{value}: {started:?}");
        assert_eq!(ended.is_ok(), absent, "{value}: {ended:?}");
        for (result, field) in [(started, "startsAt"), (ended, "endsAt")] {
            if let Err(error) = result {
                assert!(
                    error.contains(&format!("`{field}`: expected a time")),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn the_fields_of_a_notification_may_hold_anything_but_alerts() {
    let fields = [
        "receiver",
        "status",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
        "version",
        "groupKey",
        "truncatedAlerts",
        "orgId",
        "title",
        "state",
        "message",
        "x",
    ];
    for field in fields {
        for value in VALUES {
            let body = format!(r#"{{"{field}":{value},"alerts":[{}]}}"#, alert(&[]));
            let read = read(Endpoint::Alertmanager, body).unwrap();
            assert_eq!(read.taken.len(), 1, "{field}: {value}");
        }
    }
    for (value, count) in [
        ("0", None),
        ("3", Some(3)),
        ("-3", None),
        ("1.5", Some(1)),
        ("18446744073709551615", Some(u32::MAX)),
        ("1e400", Some(u32::MAX)),
        (r#""3""#, None),
        ("null", None),
    ] {
        let body = format!(r#"{{"truncatedAlerts":{value},"alerts":[]}}"#);
        let told = read(Endpoint::Alertmanager, body).unwrap().truncated;
        assert_eq!(told.map(|told| told.count), count, "{value}");
    }
    for value in VALUES {
        let read = read(Endpoint::Alertmanager, format!(r#"{{"alerts":{value}}}"#));
        match value {
            "null" | "[]" => assert_eq!(read.unwrap().taken.len(), 0),
            "[1,[2]]" => assert_eq!(read.unwrap().refused.count(), 2),
            _ => {
                let error = read.err().unwrap().to_string();
                assert!(
                    error.contains("`alerts`: expected an array, and found"),
                    "{error}"
                );
            }
        }
        let read = super::tests::read(Endpoint::Prometheus, value);
        match value {
            "null" | "[]" => assert_eq!(read.unwrap().taken.len(), 0),
            "[1,[2]]" => assert_eq!(read.unwrap().refused.count(), 2),
            _ => {
                let error = read.err().unwrap().to_string();
                assert!(error.contains("expected an array of alerts"), "{error}");
            }
        }
    }
}

#[test]
fn bodies_that_are_no_json_say_where() {
    for endpoint in BOTH {
        for (body, line) in [
            ("", 1),
            ("hello", 1),
            ("[{]", 1),
            ("{\n\"alerts\": [\n{,}]}", 3),
            ("[1]\n[2]", 2),
            ("[\"\\x\"]", 1),
        ] {
            let error = read(endpoint, body).err().unwrap();
            assert_eq!(error.line, line, "{body}: {error}");
        }
    }
}

#[test]
fn a_bad_alert_does_not_take_the_good_ones_with_it_and_is_located() {
    let good = alert(&[]);
    let bad = alert(&[("labels", Some("7"))]);
    for endpoint in BOTH {
        let read = read(
            endpoint,
            body(endpoint, &format!("\n{bad},\n\n  {good},\n{bad}\n")),
        )
        .unwrap();
        assert_eq!(read.taken.len(), 1);
        let reasons = read.refused.reasons();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].starts_with("line 2, column "), "{reasons:?}");
        assert!(reasons[0].contains("alerts[0]: `labels`"), "{reasons:?}");
        assert!(reasons[1].starts_with("line 5, column "), "{reasons:?}");
        assert!(reasons[1].contains("alerts[2]"), "{reasons:?}");
    }
}

#[test]
fn an_urgent_alert_that_is_refused_is_known_as_such() {
    for endpoint in BOTH {
        for (labels, urgent) in [
            (r#"{"severity":"critical","x":[]}"#, true),
            (r#"{"severity":"p\u0061ge","x":[]}"#, true),
            (r#"{"severity":"warning","x":[]}"#, false),
            (r#"{"severity":["critical"]}"#, false),
        ] {
            let alerts = format!("{},{}", alert(&[]), alert(&[("labels", Some(labels))]));
            let read = read(endpoint, body(endpoint, &alerts)).unwrap();
            assert_eq!((read.taken.len(), read.refused.count()), (1, 1), "{labels}");
            assert_eq!(read.refused.is_urgent(), urgent, "{labels}");
        }
    }
}

#[test]
fn of_keys_that_stand_twice_the_last_counts() {
    for endpoint in BOTH {
        let twice = r#"{"status":"resolved","status":"firing","labels":{"a":"1"},"labels":{"a":"2","a":"3","b":"x","b":null},"startsAt":"2026-01-01T11:00:00Z"}"#;
        let one = one(endpoint, twice).unwrap();
        assert_eq!(one.alert.status, AlertStatus::Firing);
        assert_eq!(one.alert.labels.len(), 1);
        assert_eq!(one.alert.labels["a"], "3");
    }
    let body = format!(r#"{{"alerts":[1],"alerts":[{}]}}"#, alert(&[]));
    assert_eq!(read(Endpoint::Alertmanager, body).unwrap().taken.len(), 1);
}

#[test]
fn bodies_with_a_mark_or_another_encoding_are_taken() {
    for endpoint in BOTH {
        let mut bytes = b"\xEF\xBB\xBF".to_vec();
        let annotations = r#"{"summary":"caf?"}"#;
        bytes.extend(body(endpoint, &alert(&[("annotations", Some(annotations))])).bytes());
        for byte in &mut bytes {
            if *byte == b'?' {
                *byte = 0xE9;
            }
        }
        let read = read(endpoint, bytes).unwrap();
        assert_eq!(read.taken[0].alert.annotations["summary"], "caf\u{fffd}");
    }
}

#[test]
fn identity_is_that_of_each_endpoint() {
    // The webhook: the sender's fingerprint and start, cut to the millisecond.
    let given = alert(&[
        ("fingerprint", Some(r#""57c6d9296de2ad39""#)),
        ("startsAt", Some(r#""2026-01-01T00:00:00.123987654-06:00""#)),
    ]);
    let one_ = one(Endpoint::Alertmanager, &given).unwrap().alert;
    assert_eq!(one_.fingerprint.0, "57c6d9296de2ad39");
    assert_eq!(one_.starts_at.to_string(), "2026-01-01T06:00:00.123Z");
    for fingerprint in [None, Some("null"), Some(r#""""#), Some("[]")] {
        let alert = alert(&[("fingerprint", fingerprint)]);
        let one = one(Endpoint::Alertmanager, &alert).unwrap().alert;
        assert_eq!(one.fingerprint, Fingerprint::of(&one.labels));
    }
    let long = format!("\"{}\"", "f".repeat(70_000));
    let one_ = one(
        Endpoint::Alertmanager,
        &alert(&[("fingerprint", Some(&long))]),
    )
    .unwrap()
    .alert;
    assert_eq!(one_.fingerprint, Fingerprint::of(&one_.labels));
    // Without a start it is the same alert each time, until it is told to have resolved.
    for start in [None, Some("null"), Some(r#""0001-01-01T00:00:00Z""#)] {
        let one = one(Endpoint::Alertmanager, &alert(&[("startsAt", start)]))
            .unwrap()
            .alert;
        assert_eq!(one.starts_at, lax::zero());
    }
    // The other: the labels alone, and times that say until when.
    let one_ = one(Endpoint::Prometheus, &given).unwrap();
    assert_eq!(one_.alert.fingerprint, Fingerprint::of(&one_.alert.labels));
    let span = one_.span.unwrap();
    assert!(span.timeout);
    assert_eq!(span.ends_at.to_string(), "2026-01-01T12:05:00Z");
}

#[test]
fn an_end_says_what_it_says_at_each_endpoint() {
    let past = alert(&[("endsAt", Some(r#""2026-01-01T11:59:00""#))]);
    let future = alert(&[("endsAt", Some(r#""2026-01-01T12:04:00Z""#))]);
    let zero = alert(&[("endsAt", Some(r#""0001-01-01T00:00:00Z""#))]);
    // At the webhook the status decides.
    for alert in [&past, &future, &zero] {
        let one = one(Endpoint::Alertmanager, alert).unwrap().alert;
        assert_eq!(one.status, AlertStatus::Firing);
    }
    let one_ = one(Endpoint::Prometheus, &past).unwrap().alert;
    assert_eq!(one_.status, AlertStatus::Resolved);
    assert_eq!(one_.ends_at.unwrap().to_string(), "2026-01-01T11:59:00Z");
    for alert in [&future, &zero] {
        let one = one(Endpoint::Prometheus, alert).unwrap().alert;
        assert_eq!((one.status, one.ends_at), (AlertStatus::Firing, None));
    }
    let first = alert(&[("endsAt", Some(r#""2026-01-01T10:59:00Z""#))]);
    let error = one(Endpoint::Prometheus, &first).unwrap_err();
    assert!(error.contains("before it starts"), "{error}");
    let resolved = alert(&[("status", Some(r#""Resolved""#)), ("endsAt", Some("7"))]);
    let one_ = one(Endpoint::Alertmanager, &resolved).unwrap().alert;
    assert_eq!((one_.status, one_.ends_at), (AlertStatus::Resolved, None));
}

#[test]
fn grafanas_notification_is_taken() {
    let body = r#"{"receiver":"lab\\.recv \\(prod\\)\\+1","status":"firing","orgId":1,"alerts":[{"status":"firing","labels":{"alertname":"X"},
        "annotations":null,"startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"?orgId=1",
        "fingerprint":"57c6d9296de2ad39","silenceURL":"https://g/s","dashboardURL":"","panelURL":"","values":null,"valueString":""}],
        "groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"https://g/","version":"1","groupKey":"{}:{}",
        "truncatedAlerts":2,"title":"x","state":"alerting","message":"y"}"#;
    let read = read(Endpoint::Alertmanager, body).unwrap();
    let alert = &read.taken[0].alert;
    assert_eq!(alert.generator_url.as_deref(), Some("?orgId=1"));
    assert_eq!(alert.ends_at, None);
    let truncated = read.truncated.unwrap();
    assert_eq!(truncated.receiver, "lab.recv (prod)+1");
    assert_eq!(truncated.count, 2);
}

#[test]
fn labels_are_whole_or_refused_and_annotations_are_cut() {
    let text = |length: usize| format!("\"{}\"", "x".repeat(length));
    for endpoint in BOTH {
        let labels = |labels: String| one(endpoint, &alert(&[("labels", Some(&labels))]));
        assert!(labels(format!(r#"{{"a":{}}}"#, text(bounds::LABEL))).is_ok());
        for (what, says) in [
            (
                format!(r#"{{"a":{}}}"#, text(bounds::LABEL + 1)),
                "label `a` has",
            ),
            (
                format!(r#"{{{}:"a"}}"#, text(bounds::NAME + 1)),
                "the name of label",
            ),
            (
                format!(
                    "{{{}}}",
                    (0..300)
                        .map(|n| format!("\"{n}\":\"x\""))
                        .collect::<Vec<_>>()
                        .join(",")
                ),
                "more than 256 labels",
            ),
            (
                format!(
                    "{{{}}}",
                    (0..5)
                        .map(|n| format!("\"{n}\":{}", text(bounds::LABEL)))
                        .collect::<Vec<_>>()
                        .join(",")
                ),
                "together have more than",
            ),
        ] {
            let error = labels(what).unwrap_err();
            assert!(error.contains(says) && error.len() < 500, "{error}");
        }
        let annotations =
            |value: String| one(endpoint, &alert(&[("annotations", Some(&value))])).unwrap();
        let whole = annotations(format!(r#"{{"a":{}}}"#, text(28_000)));
        assert!(!whole.cut && whole.alert.annotations["a"].len() == 28_000);
        let cut = annotations(format!(r#"{{"a":{},"runbook":"r"}}"#, text(5_000_000)));
        assert!(cut.cut && cut.alert.annotations["a"].ends_with(bounds::CUT));
        assert_eq!(cut.alert.annotations["runbook"], "r");
        let link = one(endpoint, &alert(&[("generatorURL", Some(&text(5000)))])).unwrap();
        assert_eq!(link.alert.generator_url, None);
    }
}

/// Bodies that are all work, by about how many bytes they have.
#[expect(clippy::too_many_lines, reason = "a list")]
fn bodies(endpoint: Endpoint, size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let repeat = |part: &str, joined: &str| {
        let count = size / (part.len() + joined.len());
        vec![part; count].join(joined)
    };
    let numbered = |part: &dyn Fn(usize) -> String| {
        let (mut all, mut n) = (String::new(), 0);
        while all.len() < size {
            if n > 0 {
                all.push(',');
            }
            all.push_str(&part(n));
            n += 1;
        }
        all
    };
    let alerts = |alerts: String| body(endpoint, &alerts).into_bytes();
    let labels = |labels: String| alerts(alert(&[("labels", Some(&format!("{{{labels}}}")))]));
    let annotations = |annotations: String| {
        alerts(alert(&[(
            "annotations",
            Some(&format!("{{{annotations}}}")),
        )]))
    };
    let good = alert(&[]);
    let bad = alert(&[("labels", Some("7"))]);
    let mixed = format!("{bad},{good}");
    let urgent = alert(&[("labels", Some(r#"{"severity":"critical","x":[]}"#))]);
    vec![
        ("junk", alerts(repeat("1", ","))),
        ("junk in lines", alerts(repeat("1", ",\n"))),
        ("empty objects", alerts(repeat("{}", ","))),
        ("bad alerts", alerts(repeat(&bad, ","))),
        ("urgent bad alerts", alerts(repeat(&urgent, ","))),
        ("bad alerts among good ones", alerts(repeat(&mixed, ","))),
        ("good alerts", alerts(repeat(&good, ","))),
        (
            "many labels",
            labels(numbered(&|n| format!("\"l{n}\":\"v\""))),
        ),
        (
            "many annotations",
            annotations(numbered(&|n| format!("\"l{n}\":\"v\""))),
        ),
        (
            "one label again and again",
            labels(repeat(r#""a":"b""#, ",")),
        ),
        (
            "one annotation again and again",
            annotations(repeat(r#""a":"b""#, ",")),
        ),
        (
            "one field again and again",
            alerts(format!("{{{}}}", repeat(r#""labels":{"a":"b"}"#, ","))),
        ),
        (
            "a long label",
            labels(format!("\"a\":\"{}\"", repeat("x", ""))),
        ),
        (
            "a long label in escapes",
            labels(format!("\"a\":\"{}\"", repeat("\\u00e4", ""))),
        ),
        (
            "a long name",
            labels(format!("\"{}\":\"a\"", repeat("x", ""))),
        ),
        (
            "a long annotation",
            annotations(format!("\"a\":\"{}\"", repeat("x", ""))),
        ),
        (
            "a long annotation in escapes",
            annotations(format!("\"a\":\"{}\"", repeat("\\n", ""))),
        ),
        (
            "long annotations",
            annotations(numbered(&|n| format!("\"a{n}\":\"{}\"", "x".repeat(9000)))),
        ),
        (
            "a long number",
            annotations(format!("\"a\":{}", repeat("9", ""))),
        ),
        (
            "nested arrays",
            alerts(format!("{}{}", repeat("[", ""), repeat("]", ""))),
        ),
        ("nested objects", {
            let open = repeat("{\"a\":", "");
            let close = "}".repeat(open.len() / 5);
            alerts(format!("{open}1{close}"))
        }),
        (
            "nested in a label",
            labels({
                let (open, close) = (repeat("[", ""), repeat("]", ""));
                format!("\"a\":{open}{close}")
            }),
        ),
        ("white space", alerts(format!("{}{good}", repeat(" ", "")))),
        ("lines", alerts(format!("{}{bad}", repeat("\n", "")))),
        (
            "lines between bad alerts",
            alerts(repeat(&bad, ",\n\n\n\n")),
        ),
        (
            "no UTF-8",
            [vec![b'['], vec![0xFF; size], vec![b']']].concat(),
        ),
        ("a string", format!("\"{}\"", repeat("x", "")).into_bytes()),
        (
            "cut off",
            alerts(repeat(&good, ","))[..size * 9 / 10].to_vec(),
        ),
    ]
}

/// Reads a body to its end; the time that it took on the processor, and what is said of it.
fn work(endpoint: Endpoint, body: &[u8]) -> (Duration, usize) {
    // A body of its own, so that copying it is not counted.
    let body = body.to_vec();
    let begun = processor();
    let said = match read(endpoint, body) {
        Ok(read) => {
            let summary = read.refused.summary().len();
            assert!(read.refused.reasons().len() <= 20);
            summary
        }
        Err(error) => error.to_string().len(),
    };
    (processor().saturating_sub(begun), said)
}

/// What this thread has had of the processor: other tests run beside this one.
fn processor() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

#[test]
fn twice_the_body_is_twice_the_work() {
    for endpoint in BOTH {
        let (small, large) = (bodies(endpoint, 300_000), bodies(endpoint, 1_200_000));
        for ((name, small), (_, large)) in small.iter().zip(&large) {
            // The best of several: whatever else the machine does only adds.
            let best = |body: &[u8]| (0..5).map(|_| work(endpoint, body).0).min().unwrap();
            let (short, long) = (best(small), best(large));
            // Four times the body: quadratic work would be sixteen times.
            let bound = short.max(Duration::from_micros(300)) * 9;
            assert!(long < bound, "{endpoint:?}, {name}: {short:?} and {long:?}");
            assert!(
                long < Duration::from_secs(5),
                "{endpoint:?}, {name}: {long:?}"
            );
            for body in [small, large] {
                let said = work(endpoint, body).1;
                assert!(said < 5000, "{endpoint:?}, {name}: {said} bytes are said");
            }
        }
    }
}
