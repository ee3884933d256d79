//! The end of a container's output.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::TryStreamExt;
use sentinel_core::capability::CapabilityError;

use super::host::{Ask, Host};

/// The most lines that are returned.
const LINES: u32 = 1_000;

/// The most bytes that are returned.
const BYTES: usize = 256 * 1024;

/// The last `lines` lines, stdout and stderr as they came. Cut at the front to whole
/// lines within the limits; bytes that are no UTF-8 are replaced.
pub(super) async fn tail(
    host: &Host,
    container: &str,
    lines: u32,
    timeout: Duration,
) -> Result<String, CapabilityError> {
    if lines == 0 {
        return Ok(String::new());
    }
    let client = host.client(timeout).await?;
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail(&lines.min(LINES).to_string())
        .build();
    let reading =
        client
            .logs(container, Some(options))
            .try_fold(Vec::new(), async |mut bytes, chunk| {
                bytes.extend_from_slice(chunk.as_ref());
                // Only now and then, because it moves what is kept.
                if bytes.len() > 2 * BYTES {
                    bytes.drain(..bytes.len() - BYTES);
                }
                Ok(bytes)
            });
    let bytes = host
        .answer(Ask::observation("logs"), timeout, reading)
        .await?;
    Ok(last_bytes(String::from_utf8_lossy(&bytes).into_owned()))
}

/// At most `BYTES` of the end of `text`, from the start of a line where there is one.
fn last_bytes(mut text: String) -> String {
    let Some(excess) = text.len().checked_sub(BYTES).filter(|excess| *excess > 0) else {
        return text;
    };
    let start = text.ceil_char_boundary(excess);
    text.drain(..start);
    if let Some(end) = text.find('\n')
        && end + 1 < text.len()
    {
        text.drain(..=end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_stays() {
        assert_eq!(last_bytes("a\nb\n".to_owned()), "a\nb\n");
    }

    #[test]
    fn long_text_begins_with_a_whole_line() {
        let line = format!("{}\n", "ä".repeat(50));
        let text = last_bytes(line.repeat(10_000));
        assert!(text.len() <= BYTES && text.len() > BYTES - line.len());
        assert!(text.starts_with(&line));
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        let text = last_bytes(format!("x{}", "ä".repeat(BYTES)));
        assert!(text.len() <= BYTES && text.len() >= BYTES - 1);
    }
}
