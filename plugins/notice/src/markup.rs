//! Text of others for those who read markup: what an alert says is words, and never a mention,
//! a link under another name, a heading or a line of ours.

/// Whose markup it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// Slack's own. It has no way to escape what makes text bold or slanted: that is switched
    /// off where foreign text stands.
    Slack,
    /// Markdown as Mattermost reads it.
    Mattermost,
    /// Markdown as Rocket.Chat reads it, where a backslash helps before a few marks alone.
    RocketChat,
    /// Markdown as Discord reads it.
    Discord,
}

/// Takes no room, and ends what would be read as one.
const APART: char = '\u{200b}';

impl Markup {
    /// `text` in one line, as words.
    #[must_use]
    pub fn words(self, text: &str) -> String {
        let mut line = one_line(text);
        if self == Self::Slack {
            // It has no escape for what begins a block.
            line = line.replace("```", "'''");
        }
        let line = line.trim();
        let mut words = String::with_capacity(line.len());
        // What begins a line may be a heading, a list or a quote.
        if self != Self::Slack
            && line.starts_with(|c: char| c.is_ascii_punctuation() || c.is_ascii_digit())
        {
            words.push(APART);
        }
        for c in line.chars() {
            match (self, c) {
                (Self::Slack, '&') => words.push_str("&amp;"),
                (Self::Slack, '<') => words.push_str("&lt;"),
                (Self::Slack, '>') => words.push_str("&gt;"),
                // Some who take what Slack takes read Markdown.
                (_, '@') => words.extend(['@', APART]),
                (Self::Slack, ']')
                | (Self::RocketChat, '[' | ']' | '<' | '|' | '\\' | '!' | ':' | '$') => {
                    words.extend([c, APART]);
                }
                (Self::RocketChat, '*' | '_' | '~' | '`' | '#')
                | (
                    Self::Mattermost | Self::Discord,
                    '\\' | '`' | '*' | '_' | '~' | '[' | ']' | '(' | ')' | '<' | '>' | '|' | '#'
                    | '!' | '&' | '{' | '}',
                ) => words.extend(['\\', c]),
                _ => words.push(c),
            }
        }
        words
    }

    /// Lines between fences, which are shown as they are.
    #[must_use]
    pub fn block(self, lines: &str) -> String {
        let lines: Vec<String> = lines
            .lines()
            .map(|line| {
                let line = one_line(line).replace('@', "@\u{200b}");
                let line = match self {
                    Self::Slack => line
                        .replace('&', "&amp;")
                        .replace('<', "&lt;")
                        .replace('>', "&gt;"),
                    Self::Mattermost | Self::RocketChat | Self::Discord => line,
                };
                // What would end the block is not to.
                line.replace("```", "'''")
            })
            .collect();
        format!("```\n{}\n```", lines.join("\n"))
    }

    /// A link whose text is its address.
    #[must_use]
    pub fn link(self, name: &str, url: &str) -> String {
        let name = self.words(name);
        let url = written(url);
        match self {
            Self::Slack => format!("{name}: {}", url.replace('&', "&amp;")),
            Self::RocketChat => format!("{name}: {url}"),
            Self::Mattermost | Self::Discord => format!("{name}: <{url}>"),
        }
    }
}

/// `text` in one line, in which nothing moves a cursor, turns the direction of reading, or is
/// there without being seen.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .filter(|c| !is_hidden(*c))
        .map(|c| {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// Whether a character shows nothing and changes what others show.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A URL with everything percent-encoded that could end it or be read as markup.
fn written(url: &str) -> String {
    use std::fmt::Write as _;
    let mut written = String::with_capacity(url.len());
    let mut utf8 = [0; 4];
    for c in url.chars() {
        if c.is_ascii_graphic()
            && !matches!(c, '<' | '>' | '|' | '`' | '"' | '\\' | '^' | '{' | '}')
        {
            written.push(c);
        } else {
            for byte in c.encode_utf8(&mut utf8).bytes() {
                // Writing to a String cannot fail.
                let _ok = write!(written, "%{byte:02X}");
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people who write labels may try.
    const FOREIGN: [(&str, &str); 16] = [
        ("channel", "@channel come"),
        ("everyone", "@everyone @here @all"),
        ("slack channel", "<!channel> <!here> <!everyone>"),
        ("slack user", "<@U012345> <#C1|general>"),
        ("discord", "<@123> <@&456> <#789> <a:b:1>"),
        ("link", "[runbook](http://evil.example/x)"),
        ("slack link", "<http://evil.example|http://good.example>"),
        ("image", "![x](http://evil.example/x.png)"),
        ("heading", "# approved by ann"),
        ("quote", "> approved by ann"),
        ("list", "1. all is well"),
        ("bold", "*approved* __by__ ~~nobody~~ ||hidden||"),
        ("fence", "```\napproved\n```"),
        ("code", "`sentinel resume`"),
        (
            "lines",
            "fine\nWhy: approved by ann\r\nPolicy\u{2028}x\u{2029}y\u{85}z",
        ),
        (
            "turned",
            "\u{202e}lla si llew\u{200b}@\u{200d}here\u{e0041}\u{feff}",
        ),
    ];

    #[test]
    fn words_of_others_are_words_in_every_chat() {
        for markup in [
            Markup::Slack,
            Markup::Mattermost,
            Markup::RocketChat,
            Markup::Discord,
        ] {
            for (name, foreign) in FOREIGN {
                let words = markup.words(foreign);
                let all = format!("{markup:?}, {name}: {words:?}");
                // Of one line.
                assert!(
                    !words.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}']),
                    "{all}"
                );
                assert!(
                    !words.contains(['\u{202e}', '\u{200d}', '\u{e0041}', '\u{feff}']),
                    "{all}"
                );
                // That nobody is called by.
                let calls = words.split('@').skip(1);
                assert!(
                    calls.into_iter().all(|call| call.starts_with(APART)),
                    "{all}"
                );
                // In which nothing is a link under another name.
                assert!(!words.contains("]("), "{all}");
                // And no markup begins or ends.
                let marks: &[char] = match markup {
                    Markup::Slack => &['<', '>'],
                    Markup::RocketChat => &['*', '_', '~', '`', '#'],
                    Markup::Mattermost | Markup::Discord => &[
                        '*', '_', '~', '`', '#', '[', ']', '(', ')', '<', '>', '|', '!',
                    ],
                };
                let mut before = ' ';
                for c in words.chars() {
                    assert!(!marks.contains(&c) || before == '\\', "{all}");
                    // A backslash that is escaped itself escapes nothing.
                    before = if before == '\\' && c == '\\' { ' ' } else { c };
                }
                if markup != Markup::Slack {
                    let first = words.chars().next().unwrap();
                    assert!(
                        first == APART || first.is_alphabetic() || first == ' ',
                        "{all}"
                    );
                }
                // In a block they are as they are, and the block ends where it does.
                let block = markup.block(foreign);
                let inner = block.strip_prefix("```\n").unwrap();
                let inner = inner.strip_suffix("\n```").unwrap();
                assert!(!inner.contains("```"), "{all}: {block:?}");
                let calls = inner.split('@').skip(1);
                assert!(
                    calls.into_iter().all(|call| call.starts_with(APART)),
                    "{all}"
                );
                assert!(markup != Markup::Slack || !inner.contains('<'), "{all}");
            }
        }
    }

    #[test]
    fn words_can_still_be_read() {
        let text = "nginx_1 is down (5 < 7) & \\out*";
        assert_eq!(
            Markup::Slack.words(text),
            "nginx_1 is down (5 &lt; 7) &amp; \\out*"
        );
        assert_eq!(
            Markup::Mattermost.words(text),
            r"nginx\_1 is down \(5 \< 7\) \& \\out\*"
        );
        assert_eq!(Markup::Discord.words("- a"), "\u{200b}- a");
        assert_eq!(Markup::RocketChat.words("a_b"), "a\\_b");
    }

    #[test]
    fn a_link_shows_where_it_leads() {
        let url = "http://p/graph?g0=up|x&b=<\u{fc}>";
        assert_eq!(
            Markup::Slack.link("so|urce", url),
            "so|urce: http://p/graph?g0=up%7Cx&amp;b=%3C%C3%BC%3E"
        );
        assert_eq!(
            Markup::Discord.link("source", url),
            "source: <http://p/graph?g0=up%7Cx&b=%3C%C3%BC%3E>"
        );
    }
}
