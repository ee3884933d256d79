//! Deliveries as Alertmanager sends them, rendered once and patched for each request:
//! rendering must not cost what is to be measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stands in the template where sixteen hexadecimal digits of the fingerprint go.
const FINGERPRINT: &str = "%FINGERPRINT%%%%";
/// Stands where the alert's number goes, sixteen hexadecimal digits too.
const NUMBER: &str = "%%%%%NUMBER%%%%%";

/// Numbers that no other alert of this process has.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// `count` numbers that no other alert has; the first of them.
pub(crate) fn numbers(count: u64) -> u64 {
    NEXT.fetch_add(count, Ordering::Relaxed)
}

/// What a delivery is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The label `alertname`, which policies match.
    pub(crate) name: &'static str,
    /// The label `severity`.
    pub(crate) severity: &'static str,
    /// Whether the alerts fire or have resolved.
    pub(crate) status: &'static str,
    /// How many containers the alerts are spread over; none gives each its own.
    pub(crate) containers: Option<u64>,
}

/// A whole HTTP request with one delivery, but for its alerts' numbers.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    request: Arc<[u8]>,
    // Where each alert's fingerprint, number and container stand.
    fingerprints: Arc<[usize]>,
    numbers: Arc<[usize]>,
    containers: Arc<[usize]>,
    spread: Option<u64>,
}

impl Template {
    /// A delivery of `alerts` alerts: 12 labels, 3 annotations and about 950 bytes each,
    /// the size that Alertmanager sends for the usual rules.
    pub(crate) fn new(address: SocketAddr, kind: Kind, alerts: usize) -> Self {
        const CONTAINER: &str = "%%%CONTAINER%%%%";
        let alert = alert(kind, CONTAINER);
        let list = vec![alert; alerts].join(",");
        let name = kind.name;
        let body = format!(
            r#"{{"receiver":"sentinel","status":"{}","alerts":[{list}],"groupLabels":{{"alertname":"{name}"}},"commonLabels":{{"alertname":"{name}","cluster":"bench-eu-west-1"}},"commonAnnotations":{{}},"externalURL":"http://alertmanager.example:9093","version":"4","groupKey":"{{}}:{{alertname=\"{name}\"}}","truncatedAlerts":0}}"#,
            kind.status,
        );
        let request = format!(
            "POST /api/v1/alerts/alertmanager HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Alertmanager/0.25.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        let places = |mark: &str| {
            request
                .match_indices(mark)
                .map(|(at, _)| at)
                .collect::<Arc<[usize]>>()
        };
        Self {
            fingerprints: places(FINGERPRINT),
            numbers: places(NUMBER),
            containers: places(CONTAINER),
            request: request.into_bytes().into(),
            spread: kind.containers,
        }
    }

    /// How many alerts a delivery holds.
    pub(crate) fn alerts(&self) -> u64 {
        self.fingerprints.len() as u64
    }

    /// How many bytes the request has.
    pub(crate) fn len(&self) -> usize {
        self.request.len()
    }

    /// A request to patch; each sender has one of its own.
    pub(crate) fn request(&self) -> Request {
        Request {
            bytes: self.request.to_vec(),
            template: self.clone(),
        }
    }
}

/// One sender's request.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    template: Template,
}

impl Request {
    /// The request for the alerts from `first` on.
    pub(crate) fn patch(&mut self, first: u64) -> &[u8] {
        let template = &self.template;
        let places = template
            .fingerprints
            .iter()
            .zip(template.numbers.iter())
            .zip(template.containers.iter());
        for (number, ((fingerprint, label), container)) in (first..).zip(places) {
            let shared = template.spread.map_or(number, |spread| number % spread);
            put(&mut self.bytes, *fingerprint, mix(number));
            put(&mut self.bytes, *label, number);
            put(&mut self.bytes, *container, shared);
        }
        &self.bytes
    }
}

fn alert(kind: Kind, container: &str) -> String {
    let Kind {
        name,
        severity,
        status,
        ..
    } = kind;
    let ends_at = if status == "firing" {
        "0001-01-01T00:00:00Z"
    } else {
        "2026-01-01T00:10:00.000Z"
    };
    format!(
        r#"{{"status":"{status}","labels":{{"alertname":"{name}","cluster":"bench-eu-west-1","container":"svc-{container}","datacenter":"eu-west-1a","device":"/dev/nvme0n1p1","instance":"host-{NUMBER}.example:9100","job":"node-exporter","namespace":"production","prometheus":"monitoring/k8s","service":"checkout-frontend","severity":"{severity}","team":"platform"}},"annotations":{{"description":"The service on this host has not answered any of its health checks for more than five minutes. Requests are being served by the remaining replicas.","runbook_url":"https://runbooks.example/services/checkout-frontend/not-answering","summary":"checkout-frontend does not answer"}},"startsAt":"2026-01-01T00:00:00.000Z","endsAt":"{ends_at}","generatorURL":"http://prometheus.example:9090/graph?g0.expr=probe_success%7Bjob%3D%22blackbox%22%7D+%3D%3D+0&g0.tab=1","fingerprint":"{FINGERPRINT}"}}"#
    )
}

/// Writes sixteen hexadecimal digits.
fn put(bytes: &mut [u8], at: usize, value: u64) {
    let Some(digits) = bytes.get_mut(at..at + 16) else {
        return;
    };
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (value >> (4 * index) & 0xf) as u8;
        *digit = if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        };
    }
}

/// Spreads numbers as a hash does (splitmix64): fingerprints come in no order, so each
/// is another place of the journal's index.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: "Test",
        severity: "warning",
        status: "firing",
        containers: None,
    };

    #[test]
    fn a_patched_request_is_a_delivery_of_distinct_alerts() {
        let address = "127.0.0.1:1".parse().unwrap();
        let template = Template::new(address, KIND, 3);
        let mut request = template.request();
        let text = String::from_utf8(request.patch(7).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let alerts = body["alerts"].as_array().unwrap();
        assert_eq!(alerts.len() as u64, template.alerts());
        let prints: std::collections::BTreeSet<_> = alerts
            .iter()
            .map(|alert| alert["fingerprint"].as_str().unwrap())
            .collect();
        assert_eq!(prints.len(), 3);
        assert_eq!(alerts[2]["labels"]["container"], format!("svc-{:016x}", 9));
        assert!(!text.contains("%%%"), "{text}");
    }

    #[test]
    fn alerts_can_share_containers() {
        let kind = Kind {
            containers: Some(2),
            ..KIND
        };
        let mut request = Template::new("127.0.0.1:1".parse().unwrap(), kind, 4).request();
        let text = String::from_utf8(request.patch(10).to_vec()).unwrap();
        assert_eq!(text.matches("svc-0000000000000000").count(), 2);
        assert_eq!(text.matches("svc-0000000000000001").count(), 2);
    }
}
