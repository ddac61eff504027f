//! Host lists: a verdict for every form of the grammar, and an error for all other texts.

use std::io;
use std::net::IpAddr;

use sockmux_uring::cli::error::Problem;
use sockmux_uring::cli::hostlist::{ClientName, HostList};
use sockmux_uring::cli::plan::Caller;

/// The names that can be looked up.
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

/// The verdict on a caller as the table writes it: an address, or `?` for none; behind a blank the
/// entrance port; behind `=` the client's name.
fn verdict(list: &HostList, text: &str) -> Option<bool> {
    let (text, name) = match text.split_once('=') {
        Some((text, name)) => (text, ClientName::Is(name)),
        None => (text, ClientName::None),
    };
    let (client, port) = text.split_once(' ').unwrap_or((text, ""));
    let caller = Caller { client: client.parse().ok(), entrance_port: port.parse().ok() };
    list.verdict(&caller, name)
}

/// Lists, the callers that they admit and those that they reject, separated by `;`.
const VERDICTS: &[(&str, &str, &str)] = &[
    // all and none
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
    // this machine; its neighbours are as its interfaces are
    (".localnet", "127.0.0.1;127.9.9.9;::1;::ffff:127.0.0.1", "233.252.0.1;ff0e::db8:0:1;?;? 80"),
    (".LOCALNET,233.252.0.1", "127.0.0.1;233.252.0.1", "233.252.0.2"),
    ("!.localnet", "233.252.0.1;ff0e::db8:0:1", "127.0.0.1;::1;?"),
    // names, looked up at start
    ("office", "10.1.1.1;2001:db8::1;::ffff:10.1.1.1", "10.1.1.2;::1;?"),
    ("*,!office", "10.1.1.2;::1", "10.1.1.1;2001:db8::1"),
    ("mapped", "10.9.9.9;::ffff:10.9.9.9", "10.9.9.8"),
    // patterns of names
    ("*.example.org", "10.0.0.1=mail.example.org;10.0.0.1=a.b.example.org;::1=x.example.org", ""),
    (
        "*.example.org",
        "10.0.0.1=example.org;10.0.0.1=MAIL.Example.ORG;10.0.0.1=mail.example.org.",
        "",
    ),
    ("*.example.org", "", "10.0.0.1=example.com;10.0.0.1=badexample.org;10.0.0.1;?"),
    ("*.example.org", "", "10.0.0.1=example.org.evil.net;10.0.0.1=example;10.0.0.1=org"),
    ("*.EXAMPLE.org", "10.0.0.1=mail.example.org", "10.0.0.1=example.net"),
    ("*.org", "10.0.0.1=mail.example.org;10.0.0.1=org", "10.0.0.1=example.orga"),
    ("*example.org", "10.0.0.1=badexample.org;10.0.0.1=example.org", "10.0.0.1=example.com"),
    ("*-dmz.example.org", "10.0.0.1=web-dmz.example.org", "10.0.0.1=web.example.org"),
    (
        "mail*",
        "10.0.0.1=mail.example.org;10.0.0.1=mail7;10.0.0.1=MAIL",
        "10.0.0.1=web.mail;10.0.0.1",
    ),
    ("mail.*", "10.0.0.1=mail.example.org", "10.0.0.1=mail7.example.org;10.0.0.1=mail"),
    ("Mail.*", "10.0.0.1=mail.example.org", "10.0.0.1"),
    ("!*.example.org", "10.0.0.1=example.com;10.0.0.1", "10.0.0.1=www.example.org;?"),
    ("!mail*", "10.0.0.1=web", "10.0.0.1=mail;?"),
    ("*,!*.example.org", "10.0.0.1=a.net;10.0.0.1", "10.0.0.1=example.org"),
    ("*.example.org,!mail*", "10.0.0.1=web.example.org", "10.0.0.1=mail.example.org;10.0.0.1=mail"),
    ("!mail*,*.example.org", "10.0.0.1=mail.example.org;10.0.0.1=web", "10.0.0.1=mail"),
    ("*.example.org,!10.0.0.5", "10.0.0.4=a.example.org", "10.0.0.5=a.example.org;10.0.0.4"),
    ("10.0.0.0/8,*.example.org", "10.0.0.1;9.9.9.9=a.example.org", "9.9.9.9;9.9.9.9=a.net"),
    ("*.example.org,-P8023", "9.9.9.9 8023;9.9.9.9 80=a.example.org", "9.9.9.9 80;? 80"),
    ("*.example.org,office", "10.1.1.1;10.9.9.9=a.example.org", "10.9.9.9"),
];

/// Invalid host lists, and their errors.
const FAULTS: &[(&str, &str)] = &[
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
    ("[::g]", "`[::g]`"),
    ("nowhere", "`nowhere` cannot be looked up: no such name"),
    ("empty", "`empty` has no address"),
    ("-P", "`` is not a port"),
    ("-P0", "port 0"),
    ("-P99999", "`99999` is not a port"),
    ("-", "`-` meant the interface that the client came in by"),
    (
        "10.0.0.0/.",
        "the mask `/.` meant the network by the class of its address; write its bits, as in 10.0.0.0/8",
    ),
    (".example.org", "`.example.org` is not a host; write *.example.org"),
    ("a*b", "`a*b` is not a name pattern; write a name with one * before or after it"),
    ("*mail*", "`*mail*` is not a name pattern"),
    ("*.*.org", "`*.*.org` is not a name pattern"),
    ("*..org", "`*..org` is not a name pattern"),
    ("mail..*", "`mail..*` is not a name pattern"),
    ("*.exa mple", "`*.exa mple` is not a name pattern"),
    ("**", "`**` is not"),
    ("*.example.org/24", "needs an address"),
];

#[test]
fn verdicts() {
    assert!(VERDICTS.len() >= 80);
    for (text, let_in, shut_out) in VERDICTS {
        let list = parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(list.to_string(), *text);
        for (callers, wanted) in [(let_in, true), (shut_out, false)] {
            for who in callers.split(';').filter(|who| !who.is_empty()) {
                assert_eq!(verdict(&list, who), Some(wanted), "{text}: {who}");
            }
        }
    }
}

#[test]
fn faults_name_the_element() {
    for (text, wanted) in FAULTS {
        let message = parse(text).map(|list| list.to_string()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{text}: {message}");
    }
}
