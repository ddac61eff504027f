//! Host lists: clients that may use an exit, or connect at all.
//!
//! `[!]host[/mask][,...]`: the list is scanned to its end, and the last element that matches
//! decides; one that begins with `!` shuts out. A list whose first element begins with `!`
//! starts with all clients, any other with none.
//!
//! Every element is tested on its own, so a `-Pport` beside hosts admits more callers, not fewer:
//! `10.0.0.0/8,-P8023` are all of that network and all that connected to port 8023.
//! `-P8023,!10.0.0.5` are all that connected to 8023, but not that host.
//!
//! A pattern of names (`*.example.org`, `mail*`) is matched against the client's own name. The
//! caller of the verdict looks it up by the client's address and verifies it, because the owner of
//! an address may give it any name. So patterns serve to admit; one that excludes is evaded by
//! having no name.

use std::fmt;
use std::net::IpAddr;

pub use super::hosttest::Lookup;

use super::error::{Problem, quoted};
use super::hosttest::HostTest;
use super::plan::Caller;

/// The client's name, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientName<'a> {
    /// Not looked up yet.
    Unasked,
    /// Not found, or not verified.
    None,
    /// The verified name: one of its addresses is the client's.
    Is(&'a str),
}

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
    /// Reads a host list. Plain names are resolved at once, by `lookup`, and compared by those
    /// addresses.
    ///
    /// # Errors
    /// An invalid element, a mask that does not fit, a name that cannot be resolved.
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
                    "give host[,host]..., as in 192.168.0.0/16,!192.168.0.1 or -P8023, and an IPv6 \
                     address in brackets, [::1]",
                ));
            }
            rules.push(Rule { shuts_out, test: HostTest::parse(host, lookup)? });
        }
        Ok(HostList { rules, text: text.to_owned() })
    }

    /// The verdict on a caller whose name is not looked up.
    pub fn permits(&self, caller: &Caller) -> bool {
        self.verdict(caller, ClientName::None) == Some(true)
    }

    /// The verdict on a caller. `None`: it depends on the client's name, which is to be looked up.
    pub fn verdict(&self, caller: &Caller, name: ClientName<'_>) -> Option<bool> {
        let (name, asked) = match name {
            ClientName::Unasked => (None, caller.client.is_none()),
            ClientName::None => (None, true),
            ClientName::Is(name) => (Some(name), true),
        };
        // A caller of unknown address may be anyone: a list that excludes some hosts excludes it.
        let may_be_meant = |rule: &Rule| {
            let by_address = !matches!(rule.test, HostTest::Everybody | HostTest::EntrancePort(_));
            rule.shuts_out && by_address && caller.client.is_none()
        };
        for rule in self.rules.iter().rev() {
            if !asked && matches!(rule.test, HostTest::NamePattern(_)) {
                return None;
            }
            if rule.test.matches(caller, name) || may_be_meant(rule) {
                return Some(!rule.shuts_out);
            }
        }
        Some(self.rules.first().is_some_and(|rule| rule.shuts_out))
    }

    /// Appends another list, as if both had been written as one.
    pub fn append(&mut self, other: HostList) {
        self.rules.extend(other.rules);
        self.text.push(',');
        self.text.push_str(&other.text);
    }

    /// Appends another list to an optional one.
    pub(crate) fn add_to(all: &mut Option<HostList>, other: HostList) {
        match all {
            Some(all) => all.append(other),
            None => *all = Some(other),
        }
    }

    /// As [`HostList::verdict`], and an element that names certain addresses decides: the caller
    /// was named explicitly.
    pub fn singles_out(&self, caller: &Caller, name: ClientName<'_>) -> bool {
        let narrow = |rule: &&Rule| rule.test.is_narrow() && rule.test.matches(caller, None);
        let last = self.rules.iter().rev().find(narrow);
        self.verdict(caller, name) == Some(true) && last.is_some_and(|rule| !rule.shuts_out)
    }

    /// True when no caller is excluded: the last element is a plain `*`, or no element after one
    /// excludes any.
    pub fn permits_everybody(&self) -> bool {
        let open = self.rules.iter().rposition(|rule| rule.test == HostTest::Everybody);
        open.is_some_and(|at| self.rules[at..].iter().all(|rule| !rule.shuts_out))
    }

    /// Whether the list has `.localnet` in it, whose networks change.
    pub(crate) fn means_localnet(&self) -> bool {
        self.rules.iter().any(|rule| rule.test == HostTest::LocalNet)
    }

    /// The plain names of the list with the addresses that they had when it was read.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.rules.iter().filter_map(|rule| match &rule.test {
            HostTest::Name(name, addresses) => Some((name.as_str(), addresses.as_slice())),
            _ => None,
        })
    }

    /// True when the verdict on some caller depends on its name.
    pub(crate) fn has_name_patterns(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.test, HostTest::NamePattern(_)))
    }

    /// True when the list admits both certain hosts and a `-Pport`: the second widens the first,
    /// which may be unexpected.
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

    fn parse(list: &str) -> Result<HostList, Problem> {
        HostList::parse(list, &mut |_| Err(io::Error::other("no such name")))
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
        let caller = Caller { client: "127.0.0.1".parse().ok(), entrance_port: Some(80) };
        for narrow in [
            ".localnet",
            "127.0.0.1",
            "*,127.0.0.0/8",
            "127.*",
            "!10.0.0.1,127.0.0.1",
            "127.0.0.1,*",
        ] {
            assert!(parse(narrow).unwrap().singles_out(&caller, ClientName::None), "{narrow}");
        }
        let name = ClientName::Is("a.example.org");
        for wide in
            ["*", "0.0.0.0/0", "*.*.*.*", "-P80", "!10.0.0.1", "127.0.0.1,!-P80", "*.example.org"]
        {
            assert!(!parse(wide).unwrap().singles_out(&caller, name), "{wide}");
        }
        for plain in ["-P80,!10.0.0.1", "-P80", "10.0.0.1", "*,!-P80", "10.0.0.1,!-P80"] {
            assert!(!parse(plain).unwrap().widens_hosts_by_port(), "{plain}");
        }
    }

    #[test]
    fn a_name_is_asked_for_only_where_the_verdict_depends_on_it() {
        let caller = Caller { client: "10.0.0.1".parse().ok(), entrance_port: Some(80) };
        for (list, wanted) in [
            ("*.example.org", None),
            ("*.example.org,11.0.0.0/8", None),
            ("*.example.org,10.0.0.0/8", Some(true)),
            ("*.example.org,!-P80", Some(false)),
            ("10.0.0.0/8,!mail*", None),
            ("10.0.0.0/8", Some(true)),
        ] {
            let list = parse(list).unwrap();
            assert_eq!(list.verdict(&caller, ClientName::Unasked), wanted, "{list}");
        }
        let unknown = Caller { client: None, entrance_port: None };
        for (list, wanted) in [("*.example.org", false), ("*,!*.example.org", false)] {
            let list = parse(list).unwrap();
            assert_eq!(list.verdict(&unknown, ClientName::Unasked), Some(wanted), "{list}");
        }
    }

    #[test]
    fn lists_add_up_to_one() {
        let mut list = parse("10.0.0.0/8").unwrap();
        list.append(parse("!10.0.0.5").unwrap());
        assert_eq!(list.to_string(), "10.0.0.0/8,!10.0.0.5");
        let permits = |client: &str| {
            list.permits(&Caller { client: client.parse().ok(), entrance_port: None })
        };
        assert_eq!(["10.0.0.1", "10.0.0.5", "11.0.0.1"].map(permits), [true, false, false]);
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
