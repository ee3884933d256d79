//! What a mail is known by.

use sentinel_core::id::{Digest, RunId};
use sentinel_core::mail::MailRequest;

/// How many hexadecimal digits tell mails apart: 128 bits.
const DIGITS: usize = 32;

/// The identity of a mail that `run` sends. The same mail of the same run has the same, so
/// that one that is sent again is known for what it is: after a crash, or because no answer
/// came. The run's `seed` sets it apart from the mails of all other installations, which
/// number their runs alike.
pub(super) fn id(run: RunId, seed: &[u8], mail: &MailRequest) -> String {
    let mut bytes = seed.to_vec();
    // A request has a form in JSON; without it the seed still tells runs apart.
    bytes.extend(serde_json::to_vec(mail).unwrap_or_default());
    let digest: String = Digest::of(&bytes).hex().chars().take(DIGITS).collect();
    format!("{run}.{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_core::id::IncidentId;

    #[test]
    fn the_same_mail_of_the_same_run_is_the_same() {
        let mail = |text: &str| {
            let to = ["oncall@example.com".to_owned()];
            MailRequest::new(&to, &[], "down".to_owned(), text.to_owned()).unwrap()
        };
        let run = |number| RunId {
            incident: IncidentId(42),
            number,
        };
        let first = id(run(1), &[7; 32], &mail("a"));
        assert!(first.starts_with("42.1."), "{first}");
        assert_eq!(first, id(run(1), &[7; 32], &mail("a")));
        for other in [
            id(run(2), &[7; 32], &mail("a")),
            id(run(1), &[8; 32], &mail("a")),
            id(run(1), &[7; 32], &mail("b")),
        ] {
            assert_ne!(first, other);
        }
    }
}
