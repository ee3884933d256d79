use std::panic::Location;

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Reads `input` and compares with `(name, operator, value)`.
#[track_caller]
fn reads(input: &str, expected: &[(&str, &str, &str)]) {
    let Matchers(found) = Matchers::parse_list(input)
        .unwrap_or_else(|error| panic!("{}: {input}: {error}", Location::caller()));
    let found: Vec<_> = found
        .iter()
        .map(|matcher| (matcher.name(), matcher.op().as_str(), matcher.value()))
        .collect();
    assert_eq!(found, expected, "{input}");
}

/// Expects an error that points at `pointed` and says `message`.
#[track_caller]
fn refuses(input: &str, pointed: &str, message: &str) {
    let error = Matchers::parse_list(input).expect_err(input);
    assert_eq!(error.to_string(), message, "{input}");
    assert_eq!(input.get(error.span()), Some(pointed), "{input}");
}

#[test]
fn reads_bare_and_quoted_names_and_values() {
    reads("foo=bar", &[("foo", "=", "bar")]);
    reads("foo=\"bar\"", &[("foo", "=", "bar")]);
    reads("foo!=\"bar\"", &[("foo", "!=", "bar")]);
    reads("foo=~\"a|b\"", &[("foo", "=~", "a|b")]);
    reads("foo!~a.*", &[("foo", "!~", "a.*")]);
    reads("foo=~[a-z]+", &[("foo", "=~", "[a-z]+")]);
    reads("\"foo\"=bar", &[("foo", "=", "bar")]);
    reads("\"foo bar\"=\"baz\"", &[("foo bar", "=", "baz")]);
    reads(" foo = bar ", &[("foo", "=", "bar")]);
    reads("foo!=\"\"", &[("foo", "!=", "")]);
    reads("a:b=c", &[("a:b", "=", "c")]);
    reads("foo=:", &[("foo", "=", ":")]);
}

#[test]
fn reads_utf8() {
    reads("🙂=🙃", &[("🙂", "=", "🙃")]);
    reads("\"ä ö\"=~\"ü+\"", &[("ä ö", "=~", "ü+")]);
    reads("service.name=api", &[("service.name", "=", "api")]);
    reads("1st=x", &[("1st", "=", "x")]);
}

#[test]
fn reads_lists() {
    reads("", &[]);
    reads("{}", &[]);
    reads("{foo=bar,}", &[("foo", "=", "bar")]);
    reads("foo=bar,", &[("foo", "=", "bar")]);
    let two = [("a", "=", "b"), ("c", "=~", "d")];
    reads("{a=\"b\", c=~\"d\"}", &two);
    reads("a=b,c=~d", &two);
    reads(" { a = b , c =~ d , } ", &two);
    reads("a=\"b,c\"", &[("a", "=", "b,c")]);
    reads("a=\"}\",b=\"{\"", &[("a", "=", "}"), ("b", "=", "{")]);
}

#[test]
fn reads_escapes() {
    reads(r#""foo"="a\"b""#, &[("foo", "=", "a\"b")]);
    reads(r#"foo="a\\b\nc""#, &[("foo", "=", "a\\b\nc")]);
    reads(
        r#""foo"="\t\x41\101\u00e4\U0001f642""#,
        &[("foo", "=", "\tAAä🙂")],
    );
    reads(r#""foo"="\xf0\x9f\x99\x82""#, &[("foo", "=", "🙂")]);
    reads(r#"{"foo"=~"\\d+"}"#, &[("foo", "=~", "\\d+")]);
}

#[test]
fn where_both_syntaxes_read_a_text_the_classic_one_is_right() {
    // Go's `\t` is a tab, OpenMetrics knows no such escape.
    reads(r#"foo="a\tb""#, &[("foo", "=", "a\\tb")]);
    reads(r#""foo"="a\tb""#, &[("foo", "=", "a\tb")]);
    reads(r#"foo="\x41""#, &[("foo", "=", "\\x41")]);
}

#[test]
fn what_only_the_classic_syntax_reads_is_read() {
    reads("foo=", &[("foo", "=", "")]);
    reads("foo=a b", &[("foo", "=", "a b")]);
    reads("foo=it's", &[("foo", "=", "it's")]);
    reads("foo==bar", &[("foo", "=", "=bar")]);
    reads("{foo=bar", &[("foo", "=", "bar")]);
    reads("foo=bar}", &[("foo", "=", "bar")]);
    reads("{", &[]);
    reads("}", &[]);
    reads(r#"foo=~"\d+\.\d+""#, &[("foo", "=~", "\\d+\\.\\d+")]);
    reads("foo=\"a\nb\"", &[("foo", "=", "a\nb")]);
    reads(r"foo=a\", &[("foo", "=", "a\\")]);
    reads(
        r#"foo="She said: \"Hi, ladies!\"",a=b"#,
        &[("foo", "=", "She said: \"Hi, ladies!\""), ("a", "=", "b")],
    );
}

#[test]
fn says_where_and_what_was_expected() {
    let operator = "one of the operators =, !=, =~, !~";
    let name = "a label name, quoted if it has a space or one of {}!=~,\\\"'` in it";
    refuses("foo", "", &format!("expected {operator}, found the end"));
    refuses(
        "foo bar",
        "bar",
        &format!("expected {operator}, found `bar`"),
    );
    refuses("foo!bar", "!", &format!("expected {operator}, found `!`"));
    refuses("=bar", "=", &format!("expected {name}, found `=`"));
    refuses(",", ",", &format!("expected {name}, found `,`"));
    refuses("a=b,,c=d", ",", &format!("expected {name}, found `,`"));
    refuses(
        "\"ä\"=b}",
        "}",
        "expected no closing brace, as there is no opening one, found `}`",
    );
    refuses("{\"ä\"=b", "", "expected a closing brace, found the end");
    refuses(
        "foo=\"unterminated",
        "\"unterminated",
        "expected a closing double quote, found `\"unterminated`",
    );
    refuses("\"a b\"=c d", "d", "expected a comma or the end, found `d`");
    refuses(
        "\"ä\"='b'",
        "'",
        "expected double quotes around this character, found `'`",
    );
    refuses(
        r#""foo"="\d""#,
        r#""\d""#,
        r#"expected one of the escapes \\, \", \n, \r, \t, \xHH, \uHHHH, found the unknown escape `\d`"#,
    );
    refuses(
        "{\"ä\"=b} c",
        "c",
        "expected the end after the closing brace, found `c`",
    );
    refuses(
        "\"\"=\"a\"",
        "\"\"",
        "expected a label name that is not empty, found `\"\"`",
    );
    refuses(
        "foo=~\"[\"",
        "\"[\"",
        "the regular expression is not valid in Go's syntax: a character class without its closing bracket",
    );
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let error = Matchers::parse_list(r#""foo"="\xf0\x9f""#).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("found bytes that are not UTF-8"),
        "{error}"
    );
    for input in [
        r#""a"="\ud800""#,
        r#""a"="\400""#,
        r#""a"="\'""#,
        r#""a"="\x4""#,
    ] {
        assert!(Matchers::parse_list(input).is_err(), "{input}");
    }
}

#[test]
fn one_matcher_is_one() {
    assert!(Matcher::parse("a=b").is_ok());
    for (input, found) in [("", "0 matchers"), ("a=b,c=d", "2 matchers")] {
        let error = Matcher::parse(input).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("expected one matcher, found {found}")
        );
    }
}

#[test]
fn a_missing_label_is_empty() {
    let none = Labels::new();
    for (matcher, holds) in [
        ("a=", true),
        ("a=b", false),
        ("a!=\"\"", false),
        ("a!=b", true),
        ("a=~\".*\"", true),
        ("a=~\".+\"", false),
        ("a!~\".+\"", true),
        ("a!~\"b|\"", false),
    ] {
        assert_eq!(
            Matcher::parse(matcher).unwrap().matches(&none),
            holds,
            "{matcher}"
        );
    }
}

#[test]
fn regular_expressions_are_anchored() {
    let alert = labels(&[("severity", "critical"), ("text", "one\ntwo")]);
    for (matcher, holds) in [
        ("severity=~critical", true),
        ("severity=~crit", false),
        ("severity=~critical|page", true),
        ("severity=~\"page|crit\"", false),
        ("severity!~crit", true),
        ("severity=~\"(?i)CRITICAL\"", true),
        // A dot is not a line break, and `$` is the very end.
        ("text=~\"one.two\"", false),
        ("text=~\"(?s)one.two\"", true),
        ("text=~one", false),
    ] {
        assert_eq!(
            Matcher::parse(matcher).unwrap().matches(&alert),
            holds,
            "{matcher}"
        );
    }
}

#[test]
fn all_matchers_of_a_list_have_to_hold() {
    let list = Matchers::parse_list("a=1,b=2").unwrap();
    assert!(list.matches(&labels(&[("a", "1"), ("b", "2"), ("c", "3")])));
    assert!(!list.matches(&labels(&[("a", "1")])));
    assert!(Matchers::default().matches(&Labels::new()));
}

/// Whether `go` matches the whole of `text`.
#[track_caller]
fn regex_matches(go: &str, text: &str) -> bool {
    Matcher::new("l", MatchOp::Matches, go)
        .unwrap_or_else(|error| panic!("{go}: {error}"))
        .matches(&labels(&[("l", text)]))
}

#[test]
fn expressions_mean_what_they_mean_in_go() {
    for (go, yes, no) in [
        (r"\d+", "42", "٤٢"),
        (r"\w+", "a_1", "ä"),
        (r"\W", "ä", "a"),
        (r"\s", "\t", "\u{a0}"),
        (r"[\d.]+", "1.2", "1,2"),
        (r"[^\w]", "-", "w"),
        (r"[\D]", "x", "1"),
        (r"ä\bb", "äb", "ä b"),
        (r"a\Bb", "ab", "a b"),
        (r"\Qa.b[\E+", "a.b[[", "axb["),
        (r"\Qa+", "a+", "aa"),
        (r"[[a]", "[", "b"),
        (r"[a&&b]+", "a&b", "c"),
        (r"[a~~]+", "~a", "b"),
        (r"[]a]+", "]a", "b"),
        (r"[^]a]", "b", "]"),
        (r"[+--]", ",", "a"),
        (r"[a-]+", "a-", "b"),
        (r"[-a]+", "a-", "b"),
        (r"[[:alpha:]_]+", "a_", "1"),
        (r"[[:^digit:]]", "a", "1"),
        (r"a{2}", "aa", "a{2}"),
        (r"a{,2}", "a{,2}", "aa"),
        (r"a{", "a{", "a"),
        (r"{x}", "{x}", "x"),
        (r"\101\x42\x{43}", "ABC", "ABD"),
        (r"\<a\>", "<a>", "a"),
        (r"\pL\p{Greek}", "aα", "αa"),
        (r"[\pN]", "1", "a"),
        (r"(?P<n>a)(?<m>b)", "ab", "a"),
        (r"(?i:A)(?U)b+", "ab", "AC"),
        (r"\#\ \-", "# -", "#-"),
        (r"a$|^b", "b", "c"),
    ] {
        assert!(regex_matches(go, yes), "{go} on {yes:?}");
        assert!(!regex_matches(go, no), "{go} on {no:?}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for go in [
        "[",
        "(",
        ")",
        "*",
        "a\\",
        r"\1",
        r"\y",
        r"\é",
        r"(?x)a",
        r"(?-u)a",
        r"(?=a)",
        r"(?!a)",
        "[[:foo:]]",
        "[b-a]",
        r"[a-\d]",
        r"[\b]",
        r"\p",
        r"\p{Nope}",
        r"\x{110000}",
        r"\x4",
        "a{2,1}",
        "(a{1000}){1000}",
    ] {
        assert!(Matcher::new("l", MatchOp::Matches, go).is_err(), "{go}");
    }
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let text = prop_oneof!["[a-z_:]{1,8}", "\\PC{1,8}", any::<String>()];
    let name = text.clone().prop_filter("a name", |name| !name.is_empty());
    let equal = prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual)];
    let regex = prop_oneof![Just(MatchOp::Matches), Just(MatchOp::NotMatches)];
    let pattern = text.clone().prop_map(|text| regex::escape(&text));
    prop_oneof![(name.clone(), equal, text), (name, regex, pattern),]
        .prop_filter_map("a valid expression", |(name, op, value)| {
            Matcher::new(name, op, value).ok()
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(matcher in any_matcher()) {
        prop_assert_eq!(Matcher::parse(&matcher.to_string()), Ok(matcher));
    }

    #[test]
    fn lists_are_read_again(list in prop::collection::vec(any_matcher(), 0..4)) {
        let list = Matchers(list);
        prop_assert_eq!(Matchers::parse_list(&list.to_string()), Ok(list));
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(input in "[a=~!\"\\\\{},'\\[\\]()0x ä\n]{0,24}") {
        match Matchers::parse_list(&input) {
            Ok(list) => prop_assert_eq!(Matchers::parse_list(&list.to_string()), Ok(list)),
            Err(error) => prop_assert!(input.get(error.span()).is_some()),
        }
    }

    #[test]
    fn a_literal_matches_itself(text in "\\PC{0,12}") {
        // Go's QuoteMeta and Rust's escape agree on ASCII punctuation but for a few
        // characters, and Go takes any of those escaped.
        prop_assert!(regex_matches(&regex::escape(&text), &text));
    }
}

#[test]
fn quotes_that_are_part_of_a_value_are_probably_not_meant() {
    for (written, meant) in [
        ("alertname='A'", r#"alertname="A""#),
        (r#"alertname="'A'""#, r#"alertname="A""#),
        (r#"alertname="\"A\"""#, r#"alertname="A""#),
        ("alertname=`A`", r#"alertname="A""#),
        ("alertname=“A b”", r#"alertname="A b""#),
        ("alertname=„A“", r#"alertname="A""#),
        ("alertname!='A'", r#"alertname!="A""#),
        ("severity=~'critical|page'", r#"severity=~"critical|page""#),
        (
            "severity=~'critical'|'page'",
            r#"severity=~"critical|page""#,
        ),
        ("“alertname”=“A”", r#"alertname="A""#),
        ("“alertname”=A", r#"alertname="A""#),
    ] {
        let matcher = Matcher::parse(written).unwrap();
        let found = matcher.without_quotes().map(|meant| meant.to_string());
        assert_eq!(found.as_deref(), Some(meant), "{written}");
    }
    for written in [
        "alertname=A",
        r#"alertname="A""#,
        r#""alertname"="A""#,
        "alertname=",
        "alertname=O'Brien",
        "alertname='",
        "alertname=''",
        "alertname=A'",
        r#"summary=~".*'x'""#,
    ] {
        let matcher = Matcher::parse(written).unwrap();
        assert_eq!(matcher.without_quotes(), None, "{written}");
    }
}
