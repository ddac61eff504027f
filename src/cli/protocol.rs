//! Protocol words of `SERVER=proto://host,-in`. Here a protocol only gives its standard port.

use super::error::{Problem, quoted};
use super::suggest;

/// Protocol words with their standard ports: the registry of IANA, plus 6379 and 5900, which
/// their servers use by default. The original's words and common ones of today.
pub(super) const STANDARD_PORTS: [(&str, u16); 45] = [
    ("amqp", 5672),
    ("dns", 53),
    ("finger", 79),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("ident", 113),
    ("imap", 143),
    ("imaps", 993),
    ("irc", 6667),
    ("ldap", 389),
    ("ldaps", 636),
    ("lpr", 515),
    ("mqtt", 1883),
    ("mqtts", 8883),
    ("mysql", 3306),
    ("nntp", 119),
    ("nntps", 563),
    ("ntp", 123),
    ("pop", 110),
    ("pop3", 110),
    ("pop3s", 995),
    ("pops", 995),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("rdp", 3389),
    ("redis", 6379),
    ("rlogin", 513),
    ("rsh", 514),
    ("rsync", 873),
    ("rtsp", 554),
    ("sip", 5060),
    ("smb", 445),
    ("smtp", 25),
    ("smtps", 465),
    ("socks", 1080),
    ("ssh", 22),
    ("submission", 587),
    ("telnet", 23),
    ("telnets", 992),
    ("vnc", 5900),
    ("wais", 210),
    ("whois", 43),
];

/// The protocol word as it counts: lower case.
///
/// # Errors
/// Text that cannot be a protocol word.
pub(crate) fn word(text: &str) -> Result<String, Problem> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letters) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Problem::new(
        format!("{} is not a protocol", quoted(text)),
        "write SERVER=proto://host:port,-in with a word such as telnet, http or tcprelay",
    ))
}

/// The port that a protocol's servers listen on, the same for TCP and UDP.
///
/// # Errors
/// `tcprelay`, `udprelay` and unknown protocols have none.
pub(crate) fn standard_port(protocol: &str) -> Result<u16, Problem> {
    if let Some((_, port)) = STANDARD_PORTS.iter().find(|(word, _)| *word == protocol) {
        return Ok(*port);
    }
    let nearest = suggest::nearest(protocol, STANDARD_PORTS.iter().map(|(word, _)| *word))
        .filter(|_| !is_relay(protocol));
    let or = nearest.map(|word| format!(" (or did you mean `{word}`?)")).unwrap_or_default();
    Err(Problem::new(
        format!("{} has no standard port", quoted(protocol)),
        format!("give the port, as in SERVER={protocol}://host:port,-in{or}"),
    ))
}

/// True for a word that certainly means a protocol, and is not a slip in `sockmux`.
pub(crate) fn is_known(protocol: &str) -> bool {
    is_relay(protocol) || standard_port(protocol).is_ok()
}

/// True for the words that name only a transport.
fn is_relay(protocol: &str) -> bool {
    matches!(protocol, "tcprelay" | "udprelay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_manual_and_of_today() {
        for (protocol, port) in [("telnet", 23), ("http", 80), ("postgres", 5432), ("vnc", 5900)] {
            assert_eq!(standard_port(protocol), Ok(port));
        }
        for relay in ["tcprelay", "udprelay"] {
            let message = standard_port(relay).unwrap_err().to_string();
            assert!(message.contains("give the port") && is_known(relay), "{message}");
        }
        assert!(standard_port("telnte").unwrap_err().to_string().contains("`telnet`"));
        assert_eq!(word("HTTP").as_deref(), Ok("http"));
        assert!(word("").is_err() && word("9p").is_err() && word("a b").is_err());
    }

    #[test]
    fn the_table_is_in_order_and_without_repetition() {
        assert!(STANDARD_PORTS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
