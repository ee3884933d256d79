use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use sentinel_core::http::SecretField;

use super::*;
use crate::redact::tests::spellings;

const SECRET: &str = "s3cr3t-key";
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server on loopback that keeps what it is sent.
struct Server {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request with what `answer` makes of it; `None` says nothing, and an
    /// empty answer hangs up.
    async fn new(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer, tasks) = (Arc::clone(&seen), Arc::new(answer), TaskTracker::new());
        tasks.clone().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tasks.spawn(async move {
                    let request = read(&mut stream).await;
                    kept.lock().unwrap().push(request.clone());
                    match answer(&request) {
                        // The client hangs up when it has had enough.
                        Some(answer) => drop(stream.write_all(&answer).await),
                        None => tokio::time::sleep(TIMEOUT).await,
                    }
                });
            }
        });
        Self { base, seen }
    }

    /// Always the same answer.
    async fn saying(head: &str, body: &[u8]) -> Self {
        let answer = answer(head, body);
        Self::new(move |_| Some(answer.clone())).await
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Under a name instead of the address.
    fn called(&self, name: &str) -> String {
        self.base.replace("127.0.0.1", name)
    }
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = vec![0; 64 << 10];
        let count = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        match text.find("\r\n\r\n") {
            Some(end) if bytes.len() >= end + 4 + length => return text,
            _ => assert!(count > 0, "the request broke off: {text}"),
        }
    }
}

fn http() -> Http {
    Http::new(BTreeMap::from([("key".to_owned(), SECRET.to_owned())])).unwrap()
}

fn request(method: HttpMethod, url: &str, headers: &[(&str, &str)]) -> HttpRequest {
    HttpRequest {
        method,
        url: url.parse().unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| HttpHeader {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        body: Blob::default(),
        secret_fields: Vec::new(),
        timeout_ms: None,
    }
}

fn get(url: &str) -> HttpRequest {
    request(HttpMethod::Get, url, &[])
}

fn post(url: &str) -> HttpRequest {
    HttpRequest {
        body: Blob(b"what is posted".to_vec()),
        ..request(HttpMethod::Post, url, &[("Content-Type", "text/plain")])
    }
}

async fn send(request: &HttpRequest) -> Result<HttpResponse, CapabilityError> {
    http().send(request, &|_, _| false, TIMEOUT).await
}

async fn follow(request: &HttpRequest) -> HttpResponse {
    http().send(request, &|_, _| true, TIMEOUT).await.unwrap()
}

#[tokio::test]
async fn a_request_goes_out_as_it_was_asked_for() {
    let server = Server::saying("201 Created\r\nX-Id: 7\r\nX-Id: 8", b"\xffmade").await;
    let asked = HttpRequest {
        body: Blob(b"{}".to_vec()),
        ..request(
            HttpMethod::Put,
            &format!("{}/a%20b?q=%2F#part", server.base),
            &[
                ("X-One", "1"),
                ("x-one", "2"),
                ("Authorization", "secret://key"),
            ],
        )
    };
    let answer = send(&asked).await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body.0, b"\xffmade");
    assert!(!answer.truncated);
    let ids: Vec<&str> = answer
        .headers
        .iter()
        .filter(|header| header.name == "x-id")
        .map(|header| header.value.as_str())
        .collect();
    assert_eq!(ids, ["7", "8"]);

    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let lines: Vec<&str> = seen[0].lines().collect();
    assert_eq!(lines[0], "PUT /a%20b?q=%2F HTTP/1.1");
    for line in [
        "x-one: 1",
        "x-one: 2",
        &format!("authorization: {SECRET}"),
        &format!("host: {}", &server.base["http://".len()..]),
    ] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert!(seen[0].ends_with("\r\n\r\n{}"));
}

#[tokio::test]
async fn an_error_status_is_an_answer() {
    let server = Server::saying("503 Service Unavailable", b"later").await;
    let answer = send(&post(&server.base)).await.unwrap();
    assert_eq!((answer.status, answer.body.0), (503, b"later".to_vec()));
}

#[tokio::test]
async fn a_secret_does_not_come_back() {
    let echo = format!("X-Echo: <{SECRET}>");
    let server = Server::saying(
        &format!("200 OK\r\n{echo}"),
        format!("you said {SECRET}{SECRET}, did you?").as_bytes(),
    )
    .await;
    let asked = request(HttpMethod::Get, &server.base, &[("X-Key", "secret://key")]);
    let answer = send(&asked).await.unwrap();
    assert!(server.seen()[0].contains(SECRET));
    assert_eq!(answer.body.0, b"you said [secret][secret], did you?");
    let echo = answer.headers.iter().find(|header| header.name == "x-echo");
    assert_eq!(echo.unwrap().value, "<[secret]>");

    // Nor in halves, where the body is cut.
    for before in (BODY_LIMIT - 30)..(BODY_LIMIT + 30) {
        let body = [vec![b'.'; before].as_slice(), SECRET.as_bytes(), b"...."].concat();
        let server = Server::saying("200 OK", &body).await;
        let asked = request(HttpMethod::Get, &server.base, &[("X-Key", "secret://key")]);
        let answer = send(&asked).await.unwrap();
        let body = String::from_utf8(answer.body.0).unwrap();
        assert!(
            !body.contains(&SECRET[..2]),
            "{before}: {:?}",
            &body[BODY_LIMIT - 40..]
        );
        assert!(body.len() <= BODY_LIMIT);
    }
    // Nor where it is so often taken out that the end of what was read moves up.
    for before in 0..SECRET.len() {
        let body = [
            vec![b'.'; before],
            SECRET.repeat(BODY_LIMIT / 4).into_bytes(),
        ]
        .concat();
        let server = Server::saying("200 OK", &body).await;
        let asked = request(HttpMethod::Get, &server.base, &[("X-Key", "secret://key")]);
        let answer = send(&asked).await.unwrap();
        let body = String::from_utf8(answer.body.0).unwrap();
        assert!(answer.truncated);
        assert!(!body.contains(&SECRET[..2]), "{before}");
    }
}

/// A server that repeats what it was sent in every usual way: in a header, and in the body
/// among other text.
#[tokio::test]
async fn a_secret_comes_back_in_no_usual_spelling() {
    const PLANTED: &str = "Bearer pl4nted/s3cret+value==\"&<\\>";
    for (name, spell) in spellings() {
        let spelled = spell(PLANTED);
        let header = spelled.replace(['\r', '\n'], "");
        let body = format!("{{\"echo\": \"{spelled}\"}}");
        let head = format!("401 Unauthorized\r\nX-Echo: {header}");
        let server = Server::saying(&head, body.as_bytes()).await;
        let secrets = BTreeMap::from([("key".to_owned(), PLANTED.to_owned())]);
        let http = Http::new(secrets).unwrap();
        let asked = request(
            HttpMethod::Get,
            &server.base,
            &[("Authorization", "secret://key")],
        );
        let answer = http.send(&asked, &|_, _| false, TIMEOUT).await.unwrap();
        assert!(server.seen()[0].contains(PLANTED));
        let said = format!("{answer:?}") + &String::from_utf8_lossy(&answer.body.0);
        for planted in ["pl4nted", "s3cret", "PL4NTED", "S3CRET"] {
            assert!(!said.contains(planted), "{name}: {said}");
        }
        let middle = spell("nted/s3cret");
        let middle = &middle[middle.len() / 4..middle.len() * 3 / 4];
        assert!(!said.contains(middle), "{name}: {middle} in {said}");
        assert!(said.contains("[secret]"), "{name}: {said}");
    }
}

#[test]
fn a_secret_is_in_no_message() {
    assert!(!format!("{:?}", http()).contains(SECRET));
    for (name, value) in [
        ("a/b", SECRET),
        ("", SECRET),
        ("a", ""),
        ("a", "s3cr3t-key\r\nX: y"),
    ] {
        let secrets = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let error = Http::new(secrets).unwrap_err().to_string();
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[tokio::test]
async fn what_must_not_be_sent_is_not() {
    let server = Server::saying("200 OK", b"").await;
    for (name, value, reason) in [
        (
            "X-Key",
            "secret://other",
            "no secret \"other\" is configured",
        ),
        (
            "X-Key",
            "Bearer secret://key",
            "a secret is the whole value",
        ),
        ("Host", "elsewhere", "is the host's to set"),
        ("content-length", "3", "is the host's to set"),
        ("Transfer-Encoding", "chunked", "is the host's to set"),
        ("Connection", "X-Key", "is the host's to set"),
        ("X-Key", "a\r\nX-Other: b", "a line break"),
        ("X-Key\r\nX-Other", "b", "no header name"),
        ("", "b", "no header name"),
        ("X-Key", &"a".repeat(HEADER_LIMIT), "larger than 64 KiB"),
    ] {
        let asked = request(HttpMethod::Get, &server.base, &[(name, value)]);
        let Err(CapabilityError::Invalid(text)) = send(&asked).await else {
            panic!("{name:?}: {value:.30}");
        };
        assert!(text.contains(reason), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    let mut asked = post(&server.base);
    asked.body.0 = vec![b'a'; BODY_LIMIT + 1];
    let error = send(&asked).await.unwrap_err().to_string();
    assert!(error.contains("larger than 512 KiB"), "{error}");
    assert_eq!(server.seen(), [""; 0]);

    asked.body.0.pop();
    send(&asked).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_long_answer_is_cut_and_said_to_be() {
    for (length, truncated) in [
        (BODY_LIMIT, false),
        (BODY_LIMIT + 1, true),
        (4 * BODY_LIMIT, true),
    ] {
        let server = Server::saying("200 OK", &vec![b'a'; length]).await;
        let answer = send(&get(&server.base)).await.unwrap();
        assert_eq!(answer.body.0.len(), BODY_LIMIT, "{length}");
        assert_eq!(answer.truncated, truncated, "{length}");
    }
}

#[tokio::test]
async fn a_redirect_is_the_answer_unless_it_may_be_followed() {
    let server = Server::new(|request| {
        Some(if request.starts_with("GET /end") {
            answer("200 OK", b"here")
        } else {
            answer("302 Found\r\nLocation: /end", b"")
        })
    })
    .await;
    let answer = send(&get(&server.base)).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(answer.headers.iter().any(|header| header.value == "/end"));
    assert_eq!(server.seen().len(), 1);

    let asked = Mutex::new(Vec::new());
    let asked = Arc::new(asked);
    let may_follow = {
        let asked = Arc::clone(&asked);
        move |method: HttpMethod, url: &HttpUrl| {
            asked.lock().unwrap().push(format!("{method} {url}"));
            true
        }
    };
    let answer = http()
        .send(&post(&server.base), &may_follow, TIMEOUT)
        .await
        .unwrap();
    assert_eq!((answer.status, answer.body.0), (200, b"here".to_vec()));
    assert_eq!(*asked.lock().unwrap(), [format!("GET {}/end", server.base)]);
    // What was posted is not sent along to where it is only looked.
    let last = server.seen().pop().unwrap();
    assert!(
        !last.contains("what is posted") && !last.contains("content-type"),
        "{last}"
    );
}

#[tokio::test]
async fn a_redirect_keeps_the_method_where_it_says_so() {
    for (status, first, second) in [
        ("307 Temporary Redirect", HttpMethod::Post, "POST"),
        ("308 Permanent Redirect", HttpMethod::Post, "POST"),
        ("301 Moved Permanently", HttpMethod::Post, "GET"),
        ("303 See Other", HttpMethod::Post, "GET"),
        ("303 See Other", HttpMethod::Delete, "GET"),
        ("302 Found", HttpMethod::Delete, "DELETE"),
        ("303 See Other", HttpMethod::Head, "HEAD"),
    ] {
        let server = Server::new(move |request| {
            Some(if request.contains(" /end ") {
                answer("200 OK", b"")
            } else {
                answer(&format!("{status}\r\nLocation: /end"), b"")
            })
        })
        .await;
        let asked = HttpRequest {
            method: first,
            ..post(&server.base)
        };
        assert_eq!(follow(&asked).await.status, 200);
        let seen = server.seen();
        assert!(
            seen[1].starts_with(&format!("{second} /end ")),
            "{status}: {}",
            seen[1]
        );
        let kept = second == first.as_str();
        assert_eq!(seen[1].contains("what is posted"), kept, "{status}");
    }
}

#[tokio::test]
async fn what_is_private_is_not_sent_to_another_origin() {
    let other = Server::saying("200 OK", b"").await;
    let location = format!("307 Temporary Redirect\r\nLocation: {}/", other.base);
    let server = Server::saying(&location, b"").await;
    let asked = request(
        HttpMethod::Get,
        &server.base,
        &[
            ("X-Key", "secret://key"),
            ("Authorization", "Bearer own"),
            ("Cookie", "own=1"),
            ("X-Plain", "1"),
        ],
    );
    assert_eq!(follow(&asked).await.status, 200);
    let there = other.seen().pop().unwrap();
    assert!(there.contains("x-plain: 1"), "{there}");
    for private in [SECRET, "x-key", "authorization", "cookie"] {
        assert!(!there.contains(private), "{private} in {there}");
    }
}

#[tokio::test]
async fn redirects_come_to_an_end_and_lead_to_no_odd_place() {
    let server = Server::saying("302 Found\r\nLocation: /", b"").await;
    assert_eq!(follow(&get(&server.base)).await.status, 302);
    assert_eq!(server.seen().len(), REDIRECTS + 1);

    for location in [
        "http://user:word@127.0.0.1/",
        "file:///etc/passwd",
        "/a/..%2fb",
    ] {
        let head = format!("302 Found\r\nLocation: {location}");
        let server = Server::saying(&head, b"").await;
        assert_eq!(follow(&get(&server.base)).await.status, 302, "{location}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_is_waited_for_no_longer_than_both_allow() {
    let server = Server::new(|_| None).await;
    for (own, given) in [(None, 300), (Some(300), 10_000), (Some(10_000), 300)] {
        for (method, doubtful) in [(HttpMethod::Get, false), (HttpMethod::Post, true)] {
            let asked = HttpRequest {
                timeout_ms: own,
                ..request(method, &server.base, &[])
            };
            let begun = Instant::now();
            let answer = http()
                .send(&asked, &|_, _| true, Duration::from_millis(given))
                .await;
            let Err(CapabilityError::TimedOut(text)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(
                text.ends_with("it may have been done all the same"),
                doubtful,
                "{text}"
            );
            assert!(begun.elapsed() < Duration::from_secs(2));
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_an_effect_in_doubt() {
    let server = Server::new(|_| Some(Vec::new())).await;
    assert!(matches!(
        send(&get(&server.base)).await,
        Err(CapabilityError::Unavailable(_))
    ));
    let Err(CapabilityError::TimedOut(text)) = send(&post(&server.base)).await else {
        panic!("no doubt");
    };
    assert!(
        text.ends_with("it may have been done all the same"),
        "{text}"
    );
    // Where there was no connection there is no doubt.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/?token=t0ken", listener.local_addr().unwrap());
    drop(listener);
    let Err(CapabilityError::Unavailable(text)) = send(&post(&url)).await else {
        panic!("in doubt");
    };
    assert!(
        text.contains("refused") && !text.contains("t0ken"),
        "{text}"
    );
}

/// Says where names lead, and counts how often it is asked.
struct Names {
    addresses: Vec<IpAddr>,
    asked: AtomicUsize,
}

impl Lookup for Names {
    fn lookup(&self, _host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        // From the second time on it leads elsewhere.
        let addresses = if asked == 0 {
            self.addresses.clone()
        } else {
            vec![IpAddr::from([127, 0, 0, 99])]
        };
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn leading_to(addresses: &[&str]) -> (Http, Arc<Names>) {
    let names = Arc::new(Names {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        asked: AtomicUsize::new(0),
    });
    let lookup: Arc<dyn Lookup> = Arc::clone(&names) as Arc<dyn Lookup>;
    (Http::with_lookup(BTreeMap::new(), &lookup).unwrap(), names)
}

#[tokio::test]
async fn a_name_leads_to_no_place_that_is_not_for_names() {
    let server = Server::saying("200 OK", b"").await;
    for addresses in [
        &["127.0.0.1"][..],
        &["::ffff:127.0.0.1"][..],
        &["0.0.0.0"][..],
        &["169.254.169.254", "127.0.0.1"][..],
    ] {
        let (http, names) = leading_to(addresses);
        let asked = get(&server.called("innocent.example"));
        let answer = http.send(&asked, &|_, _| true, TIMEOUT).await;
        let Err(CapabilityError::Denied(text)) = answer else {
            panic!("{addresses:?}: {answer:?}");
        };
        assert!(text.starts_with("innocent.example leads to"), "{text}");
        assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    }
    assert_eq!(server.seen(), [""; 0]);
}

#[tokio::test]
async fn the_address_that_was_looked_at_is_the_one_that_is_used() {
    let server = Server::saying("200 OK", b"").await;
    // The name of this machine may lead to it, and only there.
    let (http, names) = leading_to(&["169.254.169.254", "127.0.0.1"]);
    let asked = get(&server.called("web.localhost"));
    let answer = http.send(&asked, &|_, _| true, TIMEOUT).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    // An address needs no name, and is meant.
    let (http, names) = leading_to(&[]);
    let answer = http.send(&get(&server.base), &|_, _| true, TIMEOUT).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(names.asked.load(Ordering::Relaxed), 0);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn where_names_may_lead() {
    for (address, allowed) in [
        ("93.184.216.34", true),
        ("10.0.0.1", true),
        ("172.17.0.2", true),
        ("192.168.1.1", true),
        ("2606:2800:220:1::1", true),
        ("fd00::1", true),
        ("127.0.0.1", false),
        ("127.1.2.3", false),
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("169.254.169.254", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("fe80::1", false),
        ("ff02::1", false),
        ("::ffff:169.254.169.254", false),
        ("64:ff9b::a9fe:a9fe", false),
        ("64:ff9b::7f00:1", false),
        ("64:ff9b::5db8:d822", true),
        ("100.64.0.1", true),
        ("100.100.100.200", false),
        ("168.63.129.16", false),
        ("192.0.0.192", false),
        ("240.0.0.1", false),
        ("fd00:ec2::254", false),
        ("fd20:ce::254", false),
        ("::ffff:100.100.100.200", false),
        ("64:ff9b::a83f:8110", false),
        ("64:ff9b:1::a9fe:a9fe", false),
        ("64:ff9b:1:fffe::5db8:d822", false),
        ("2002:7f00:1::1", false),
        ("2002:a9fe:a9fe::", false),
        ("2002:5db8:d822::1", true),
        ("2001:0:a9fe:a9fe::1", false),
        ("2001::8000:0:5601:5601", false),
        ("::169.254.169.254", false),
        ("::93.184.216.34", true),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(may_lead_to("web.example", address), allowed, "{address}");
    }
    // Nor to this machine by any of its own addresses: the one that it would use to reach
    // somebody else, if it can reach anybody.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect("93.184.216.34:9").is_ok() {
        let own = socket.local_addr().unwrap().ip();
        assert!(!may_lead_to("web.example", own), "{own}");
        assert!(may_lead_to("localhost", own), "{own}");
    }
    for (name, allowed) in [
        ("localhost", true),
        ("localhost.", true),
        ("web.localhost", true),
        ("notlocalhost", false),
        ("localhost.example", false),
    ] {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(may_lead_to(name, loopback), allowed, "{name}");
    }
}

#[tokio::test]
async fn a_secret_can_be_the_whole_url_and_does_not_come_back_either() {
    let server = Server::new(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let said = format!("nothing at {path}, that is B0123456789abcdef of T0");
        Some(answer(
            &format!("404 Not Found\r\nX-Asked: {path}"),
            said.as_bytes(),
        ))
    })
    .await;
    let secret = format!(
        "{}/services/T0/B0123456789abcdef?key=Kfedcba987654321",
        server.base
    );
    let http = Http::new(BTreeMap::from([
        ("chat-url".to_owned(), secret.clone()),
        ("key".to_owned(), SECRET.to_owned()),
    ]))
    .unwrap();
    assert_eq!(http.url_of("chat-url").unwrap().to_string(), secret);
    let asked = post("secret://chat-url");
    let answer = http.send(&asked, &|_, _| false, TIMEOUT).await.unwrap();
    assert!(server.seen()[0].starts_with("POST /services/T0/B0123456789abcdef?key=Kfed"));
    assert_eq!(answer.status, 404);
    assert_eq!(
        String::from_utf8(answer.body.0).unwrap(),
        "nothing at [secret], that is [secret] of T0"
    );
    let asked = answer
        .headers
        .iter()
        .find(|header| header.name == "x-asked");
    assert_eq!(asked.unwrap().value, "[secret]");

    // What is none says nothing of itself.
    for (name, reason) in [("key", "no http or https URL"), ("none", "no secret")] {
        let error = http.url_of(name).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains(SECRET), "{error}");
        let asked = post(&format!("secret://{name}"));
        let error = http.send(&asked, &|_, _| false, TIMEOUT).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Nor does one that cannot be reached.
    let away = Http::new(BTreeMap::from([(
        "chat-url".to_owned(),
        "http://127.0.0.1:1/services/B0123456789abcdef".to_owned(),
    )]))
    .unwrap();
    let error = away
        .send(&post("secret://chat-url"), &|_, _| false, TIMEOUT)
        .await
        .unwrap_err();
    assert!(matches!(error, CapabilityError::Unavailable(_)), "{error}");
    assert!(!error.to_string().contains("B0123456789abcdef"), "{error}");
}

#[tokio::test]
async fn a_field_of_the_body_is_filled_in_where_it_is_said_and_nowhere_else() {
    let server = Server::saying("202 Accepted", format!("thanks for {SECRET}").as_bytes()).await;
    let fill = |pointer: &str, secret: &str| {
        vec![SecretField {
            pointer: pointer.to_owned(),
            secret: secret.to_owned(),
        }]
    };
    let mut asked = post(&server.base);
    asked.body.0 = br#"{"routing_key":"","text":"secret://key","deep":[{"key":"x"}],"n":1}"#.into();
    asked.secret_fields = fill("/routing_key", "key");
    let answer = send(&asked).await.unwrap();
    assert_eq!(answer.body.0, b"thanks for [secret]");
    let seen = server.seen().pop().unwrap();
    let body: Value = serde_json::from_str(seen.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({ "routing_key": SECRET, "text": "secret://key", "deep": [{ "key": "x" }], "n": 1 })
    );
    // Not even to where a redirect may be followed.
    let elsewhere = Server::saying("200 OK", b"mine").await;
    let away = format!("307 Temporary Redirect\r\nLocation: {}/", elsewhere.base);
    let redirecting = Server::saying(&away, b"").await;
    let mut again = post(&redirecting.base);
    again.body = asked.body.clone();
    again.secret_fields = fill("/routing_key", "key");
    assert_eq!(follow(&again).await.status, 307);
    assert_eq!(elsewhere.seen(), [""; 0]);
    again.secret_fields.clear();
    assert_eq!(follow(&again).await.status, 200);
    asked.secret_fields = fill("/deep/0/key", "key");
    send(&asked).await.unwrap();
    assert!(
        server
            .seen()
            .pop()
            .unwrap()
            .contains(&format!(r#"{{"key":"{SECRET}"}}"#))
    );

    for (pointer, secret, reason) in [
        ("/nothing", "key", "no text at"),
        ("/n", "key", "no text at"),
        ("", "key", "no text at"),
        ("/routing_key", "none", "no secret"),
    ] {
        asked.secret_fields = fill(pointer, secret);
        let error = send(&asked).await.unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains(SECRET), "{error}");
    }
    asked.body.0 = b"no JSON".into();
    asked.secret_fields = fill("/routing_key", "key");
    let error = send(&asked).await.unwrap_err().to_string();
    assert!(error.contains("no JSON"), "{error}");
    assert_eq!(server.seen().len(), 2);
}
