//! Host lists: who may use an exit.
//!
//! `[!]host[/mask][,...]`: the list is scanned to its end, and the last element that matches
//! decides; one that begins with `!` shuts out. A list whose first element begins with `!`
//! begins with "everybody", any other with "nobody".
//!
//! Every element is tested on its own, so a `-Pport` beside hosts lets in more callers, not
//! fewer: `10.0.0.0/8,-P8023` are all of that network and all who came in by port 8023.
//! `-P8023,!10.0.0.5` are all who came in by 8023, but not that host.

use std::fmt;
use std::net::IpAddr;

pub use super::hosttest::Lookup;

use super::error::{Problem, quoted};
use super::hosttest::HostTest;
use super::plan::Caller;

/// A parsed host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostList {
    rules: Vec<Rule>,
    /// As written, for messages.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Written with `!`.
    shuts_out: bool,
    test: HostTest,
}

impl HostList {
    /// Reads a host list. Plain names are looked up at once, by `lookup`, and compared by the
    /// addresses they have now.
    ///
    /// # Errors
    /// An element that is none, a mask that does not fit, a name that cannot be looked up, a
    /// name pattern (`*.example.org`), for that would need reverse look-ups.
    pub fn parse(text: &str, lookup: &mut Lookup<'_>) -> Result<Self, Problem> {
        let mut rules = Vec::new();
        for element in text.split(',') {
            let element = element.trim();
            let (shuts_out, host) = match element.strip_prefix('!') {
                Some(host) => (true, host),
                None => (false, element),
            };
            if host.is_empty() {
                return Err(Problem::new(
                    format!("an empty host in the list {}", quoted(text)),
                    "give host[,host]..., as in 192.168.0.0/16,!192.168.0.1 or -P8023",
                ));
            }
            rules.push(Rule { shuts_out, test: HostTest::parse(host, lookup)? });
        }
        Ok(HostList { rules, text: text.to_owned() })
    }

    /// The verdict on a caller.
    pub fn permits(&self, caller: &Caller) -> bool {
        // A caller whose address is not known may be anyone: what shuts some hosts out, shuts it
        // out.
        let may_be_meant = |rule: &Rule| {
            let by_address = !matches!(rule.test, HostTest::Everybody | HostTest::EntrancePort(_));
            rule.shuts_out && by_address && caller.client.is_none()
        };
        let last =
            (self.rules.iter().rev()).find(|rule| rule.test.matches(caller) || may_be_meant(rule));
        match last {
            Some(rule) => !rule.shuts_out,
            None => self.rules.first().is_some_and(|rule| rule.shuts_out),
        }
    }

    /// True when no caller at all is shut out: the last element is a plain `*`, or nothing that
    /// follows one shuts anybody out.
    pub fn permits_everybody(&self) -> bool {
        let open = self.rules.iter().rposition(|rule| rule.test == HostTest::Everybody);
        open.is_some_and(|at| self.rules[at..].iter().all(|rule| !rule.shuts_out))
    }

    /// The plain names of the list with the addresses that they had when it was read.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.rules.iter().filter_map(|rule| match &rule.test {
            HostTest::Name(name, addresses) => Some((name.as_str(), addresses.as_slice())),
            _ => None,
        })
    }

    /// True when the list lets in both certain hosts and a `-Pport`: the second widens the
    /// first, which not everybody expects.
    pub fn widens_hosts_by_port(&self) -> bool {
        let lets_in = |wanted: fn(&HostTest) -> bool| {
            self.rules.iter().any(|rule| !rule.shuts_out && wanted(&rule.test))
        };
        lets_in(|test| matches!(test, HostTest::EntrancePort(_)))
            && lets_in(|test| !matches!(test, HostTest::EntrancePort(_) | HostTest::Everybody))
    }
}

/// As written.
impl fmt::Display for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    fn table(name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "office" => Ok(vec!["10.1.1.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
            "mapped" => Ok(vec!["::ffff:10.9.9.9".parse().unwrap()]),
            "empty" => Ok(vec![]),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn parse(list: &str) -> Result<HostList, Problem> {
        HostList::parse(list, &mut table)
    }

    /// `client` is an address or `?` for none; behind a blank the entrance port.
    fn caller(text: &str) -> Caller {
        let (client, port) = text.split_once(' ').unwrap_or((text, ""));
        Caller { client: client.parse().ok(), entrance_port: port.parse().ok() }
    }

    #[test]
    fn verdicts() {
        // (list, callers let in, callers shut out), callers parted by `;`
        let cases = [
            // everybody and nobody
            ("*", "1.2.3.4;::1;?;? 80", ""),
            ("!*", "", "1.2.3.4;::1;?"),
            ("*,!*", "", "1.2.3.4;?"),
            ("!*,*", "1.2.3.4;?", ""),
            // single addresses
            ("10.0.0.1", "10.0.0.1;10.0.0.1 9;::ffff:10.0.0.1", "10.0.0.2;::1;?"),
            ("!10.0.0.1", "10.0.0.2;::1", "?;10.0.0.1;::ffff:10.0.0.1"),
            ("::1", "::1", "::2;127.0.0.1"),
            ("[::1]", "::1", "::2"),
            ("__1", "::1", "::2"),
            ("2001_db8__7", "2001:db8::7", "2001:db8::8"),
            ("::ffff:10.0.0.1", "10.0.0.1;::ffff:10.0.0.1", "10.0.0.2"),
            ("![::1]", "::2;10.0.0.1", "::1"),
            // several, the last that matches decides
            ("10.0.0.1,10.0.0.2", "10.0.0.1;10.0.0.2", "10.0.0.3"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.2", "10.0.0.3"),
            ("*,!10.0.0.1", "10.0.0.2", "10.0.0.1;?"),
            ("!10.0.0.1,*", "10.0.0.1;10.0.0.2", ""),
            ("10.0.0.0/8,!10.1.0.0/16,10.1.1.1", "10.0.0.1;10.1.1.1", "10.1.0.1;11.0.0.1"),
            ("10.1.1.1,!10.1.0.0/16,10.0.0.0/8", "10.1.1.1;10.1.0.1", "11.0.0.1"),
            ("!10.0.0.0/8,10.0.0.1", "10.0.0.1;9.9.9.9", "10.0.0.2"),
            ("!10.0.0.1,!10.0.0.2", "10.0.0.3", "10.0.0.1;10.0.0.2"),
            ("10.0.0.1,!10.0.0.1", "", "10.0.0.1;10.0.0.2"),
            ("!10.0.0.1,10.0.0.1", "10.0.0.1;10.0.0.2", ""),
            // masks
            ("192.168.0.0/24", "192.168.0.0;192.168.0.255", "192.168.1.0;::1"),
            ("192.168.0.77/24", "192.168.0.1", "192.168.1.1"),
            ("192.168.0.0/255.255.0.0", "192.168.9.9", "192.169.0.0"),
            ("192.168.0.0/FFFF0000", "192.168.9.9", "192.169.0.0"),
            ("192.168.0.0/ffff0000", "192.168.9.9", "192.169.0.0"),
            ("192.168.0.0/0xFFFF0000", "192.168.9.9", "192.169.0.0"),
            ("1.2.3.4/0", "9.9.9.9;255.255.255.255", "::1;?"),
            ("1.2.3.4/00000000", "9.9.9.9", "::1"),
            ("1.2.3.4/0.0.0.0", "9.9.9.9", "::1"),
            ("1.2.3.4/32", "1.2.3.4", "1.2.3.5"),
            ("1.2.3.4/255.255.255.255", "1.2.3.4", "1.2.3.5"),
            ("128.0.0.0/1", "128.0.0.1;255.0.0.1", "127.0.0.1"),
            ("!10.0.0.0/8", "11.0.0.1;::1", "10.255.255.255;?"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::;10.0.0.1"),
            ("[2001:db8::]/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001_db8__/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "::1;2001:db8::1", "10.0.0.1;::ffff:10.0.0.1;?"),
            ("::1/128", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1;::1"),
            ("::ffff:0.0.0.0/96", "10.0.0.1;1.1.1.1", "::1"),
            // patterns
            ("192.168.[0-31].*", "192.168.0.1;192.168.31.255", "192.168.32.0;192.167.0.1"),
            ("192.168.*.1", "192.168.7.1;::ffff:192.168.7.1", "192.168.7.2"),
            ("192.168.*", "192.168.7.1", "192.169.7.1"),
            ("10.*", "10.7.7.7", "11.7.7.7;::1;?"),
            ("*.*.*.1", "9.9.9.1", "9.9.9.2"),
            ("[10-20].0.0.1", "10.0.0.1;20.0.0.1", "21.0.0.1;9.0.0.1"),
            ("10.0.0.[5-5]", "10.0.0.5", "10.0.0.6"),
            ("10.0.0.[0-255]", "10.0.0.0;10.0.0.255", "10.0.1.0"),
            ("!192.168.*.*", "10.0.0.1", "192.168.0.1"),
            ("*.*.*.*", "1.2.3.4", "::1"),
            // entrance ports
            ("-P8023", "1.2.3.4 8023;? 8023;::1 8023", "1.2.3.4 8080;1.2.3.4"),
            ("-P127.0.0.1:8023", "1.2.3.4 8023", "127.0.0.1 8080"),
            ("-P[::1]:8023", "1.2.3.4 8023", "::1 8080"),
            ("-P:8023", "1.2.3.4 8023", "1.2.3.4 80"),
            ("!-P8023", "1.2.3.4 8080;1.2.3.4", "1.2.3.4 8023;? 8023"),
            ("-P8023,-P8080", "? 8023;? 8080", "? 80"),
            ("10.0.0.0/8,-P8023", "10.0.0.1 80;9.9.9.9 8023", "9.9.9.9 80"),
            ("-P8023,!10.0.0.5", "10.0.0.4 8023", "? 8023;10.0.0.5 8023;10.0.0.4 80"),
            ("!10.0.0.5,-P8023", "10.0.0.5 8023;10.0.0.4 80", "10.0.0.5 80"),
            ("10.0.0.0/8,!-P22", "10.0.0.1 80;10.0.0.1", "10.0.0.1 22;9.9.9.9 80"),
            ("!-P22,!10.0.0.0/8", "9.9.9.9 80", "? 80;9.9.9.9 22;10.0.0.1 80"),
            // names, looked up at start
            ("office", "10.1.1.1;2001:db8::1;::ffff:10.1.1.1", "10.1.1.2;::1;?"),
            ("*,!office", "10.1.1.2;::1", "10.1.1.1;2001:db8::1"),
            ("mapped", "10.9.9.9;::ffff:10.9.9.9", "10.9.9.8"),
        ];
        assert!(cases.len() >= 60);
        for (text, let_in, shut_out) in cases {
            let list = parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(list.to_string(), text);
            for (callers, wanted) in [(let_in, true), (shut_out, false)] {
                for who in callers.split(';').filter(|who| !who.is_empty()) {
                    assert_eq!(list.permits(&caller(who)), wanted, "{text}: {who}");
                }
            }
        }
    }

    #[test]
    fn faults_name_the_element() {
        for (text, wanted) in [
            ("", "an empty host"),
            ("10.0.0.1,", "an empty host"),
            ("!", "an empty host"),
            ("!!10.0.0.1", "`!10.0.0.1` is not a host"),
            ("10.0.0.1/33", "`/33` does not fit"),
            ("::1/129", "`/129` does not fit"),
            ("::1/255.0.0.0", "does not fit"),
            ("10.0.0.1/", "`/` is not a mask"),
            ("10.0.0.1/abc", "`/abc` is not a mask"),
            ("10.0.0.1/-1", "`/-1` is not a mask"),
            ("10.0.0.1/255.0.255.0", "has a hole"),
            ("10.0.0.0/0.255.255.255", "has a hole"),
            ("office/24", "needs an address"),
            ("10.*/8", "needs an address"),
            ("10.0.0.[9-3]", "not an address pattern"),
            ("10.0.0.[3]", "not an address pattern"),
            ("10.0.0.[0-256]", "not an address pattern"),
            ("10.*.1", "not an address pattern"),
            ("1.2.3.4.*", "not an address pattern"),
            ("256.*", "not an address pattern"),
            ("1.2.3", "not an IPv4 address"),
            ("*.example.org", "not supported in this version; give addresses"),
            ("mail.*", "not supported in this version"),
            (".example.org", "not supported in this version"),
            ("[::g]", "`[::g]`"),
            ("nowhere", "`nowhere` cannot be looked up: no such name"),
            ("empty", "`empty` has no address"),
            ("-P", "`` is not a port"),
            ("-P0", "port 0"),
            ("-P99999", "`99999` is not a port"),
            ("-", "`-` is not a host"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }

    #[test]
    fn what_the_plan_asks_of_a_list() {
        for open in ["*", "10.0.0.1,*", "!*,*", "*,10.0.0.1"] {
            assert!(parse(open).unwrap().permits_everybody(), "{open}");
        }
        for shut in ["10.0.0.1", "*,!10.0.0.1", "!10.0.0.1", "-P80"] {
            assert!(!parse(shut).unwrap().permits_everybody(), "{shut}");
        }
        assert!(parse("10.0.0.0/8,-P80").unwrap().widens_hosts_by_port());
        for plain in ["-P80,!10.0.0.1", "-P80", "10.0.0.1", "*,!-P80", "10.0.0.1,!-P80"] {
            assert!(!parse(plain).unwrap().widens_hosts_by_port(), "{plain}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f:,!\\-P\\[\\]_*/. ]{0,40}", client: Option<u128>) {
            let client = client.map(|bits| IpAddr::V6(bits.into()));
            if let Ok(list) = parse(&text) {
                list.permits(&Caller { client, entrance_port: Some(80) });
            }
        }

        #[test]
        fn a_network_holds_what_its_bits_say(address: u32, client: u32, bits in 0_u32..=32) {
            let [address_text, client] = [address, client].map(|a| IpAddr::V4(a.into()));
            let list = parse(&format!("{address_text}/{bits}")).unwrap();
            let IpAddr::V4(v4) = client else { unreachable!() };
            let same = bits == 0 || (address ^ v4.to_bits()) >> (32 - bits) == 0;
            let caller = Caller { client: Some(client), entrance_port: None };
            prop_assert_eq!(list.permits(&caller), same);
        }
    }
}
