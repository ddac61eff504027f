//! The decision on each kind of address, with and without rules.

use super::*;
use crate::cli::hostlist::HostList;

fn permit(protocols: Option<Vec<Proxy>>, destinations: &str, sources: &str) -> Permit {
    let list = |text| HostList::parse(text, &mut |_| unreachable!()).unwrap();
    let (destinations, sources) = (list(destinations), list(sources));
    let (relays, source) = (Vec::new(), String::new());
    Permit { protocols, relays, destinations, sources, source }
}

fn access(permits: Vec<Permit>) -> Destinations {
    let own = ["0.0.0.0:9000", "[::]:9001", "192.0.2.7:9002"].map(|at| at.parse().unwrap());
    let receptor = "192.0.2.7:9100".parse().unwrap();
    let mut access = Destinations::new(permits, [&own[..], &[receptor]].concat(), vec![receptor]);
    access.dials(&["203.0.113.5:9200", "[2001:db8:5::1]:9200"].map(|at| at.parse().unwrap()));
    access
}

fn ask(access: &Destinations, destination: &str, client: &str) -> Result<(), String> {
    let caller = Caller { client: client.parse().ok(), entrance_port: Some(1080) };
    let ours: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let destination = destination.parse().unwrap();
    let asker = Asker { caller, name: None, permits: None };
    access.may(Proxy::Socks, destination, "name", &asker, |ip| ours.contains(&ip))
}

#[test]
fn what_is_nobody_elses_is_refused_unless_it_is_named() {
    let cases = [
        ("127.0.0.1:80", "loopback"),
        ("127.255.0.9:80", "loopback"),
        ("[::1]:80", "loopback"),
        ("0.0.0.0:80", "unspecified"),
        ("0.1.2.3:80", "unspecified"),
        ("[::]:80", "unspecified"),
        ("169.254.169.254:80", "link-local"),
        ("[fe80::1]:80", "link-local"),
        ("[febf::1]:80", "link-local"),
        ("224.0.0.1:80", "multicast"),
        ("239.1.1.1:80", "multicast"),
        ("[ff02::1]:80", "multicast"),
        ("255.255.255.255:80", "broadcast"),
        // IPv4 addresses inside IPv6 ones.
        ("[::ffff:127.0.0.1]:80", "loopback"),
        ("[::127.0.0.1]:80", "loopback"),
        ("[::ffff:0:127.0.0.1]:80", "loopback"),
        ("[::ffff:0.0.0.0]:80", "unspecified"),
        ("[64:ff9b::127.0.0.1]:80", "loopback"),
        ("[64:ff9b::169.254.169.254]:80", "link-local"),
        ("[64:ff9b:1::127.0.0.1]:80", "loopback"),
        ("[2002:7f00:1::1]:80", "loopback"),
        ("[::ffff:224.0.0.1]:80", "multicast"),
        // Metadata of clouds in either family.
        ("[fd00:ec2::254]:80", "metadata"),
        ("[fd00:ec2::23]:80", "metadata"),
        ("[fd20:ce::254]:80", "metadata"),
        ("[fd00:c1::a9fe:a9fe]:80", "metadata"),
        ("[fd00:a9fe:a9fe::1]:80", "metadata"),
        ("[fd00:42::42]:80", "metadata"),
        ("100.100.100.200:80", "metadata"),
        ("[::ffff:100.100.100.200]:80", "metadata"),
        ("168.63.129.16:32526", "metadata"),
        ("[::ffff:192.0.0.192]:80", "metadata"),
        ("[::ffff:169.254.169.254]:80", "link-local"),
        ("[2002:a9fe:a9fe::]:80", "link-local"),
        // Our own ports, on every address.
        ("192.0.2.7:9000", "a port of this relay"),
        ("192.0.2.7:9001", "a port of this relay"),
        ("192.0.2.7:9002", "a port of this relay"),
        ("[::ffff:192.0.2.7]:9002", "a port of this relay"),
        ("[2001:db8::7]:9001", "a port of this relay"),
    ];
    let (none, wide) = (access(vec![]), access(vec![permit(None, "*,0.0.0.0/0,::/0", "*")]));
    for (destination, kind) in cases {
        for access in [&none, &wide] {
            let why = ask(access, destination, "10.0.0.1").unwrap_err();
            assert!(why.contains(kind), "{destination}: {why}");
        }
        let meant = meant(destination.parse::<SocketAddr>().unwrap().ip());
        let named = access(vec![permit(None, &meant.to_string(), "*")]);
        assert_eq!(ask(&named, destination, "10.0.0.1"), Ok(()), "{destination}");
    }
}

/// Neither here nor at the process that is dialled, and whatever is permitted.
#[test]
fn no_proxy_reaches_where_peers_are_accepted() {
    let named = "192.0.2.7,203.0.113.5,2001:db8:5::1,-P9100,-P9200";
    for permits in [vec![], vec![permit(None, "*", "*")], vec![permit(None, named, "*")]] {
        let access = access(permits);
        for destination in [
            "192.0.2.7:9100",
            "[::ffff:192.0.2.7]:9100",
            "203.0.113.5:9200",
            "[::ffff:203.0.113.5]:9200",
            "[64:ff9b::203.0.113.5]:9200",
            "[2001:db8:5::1]:9200",
        ] {
            let why = ask(&access, destination, "10.0.0.1").unwrap_err();
            assert!(why.contains("where a peer is accepted"), "{destination}: {why}");
        }
        // The same host's other services, and the same port elsewhere.
        for destination in ["203.0.113.5:80", "203.0.113.6:9200"] {
            assert_eq!(ask(&access, destination, "10.0.0.1"), Ok(()), "{destination}");
        }
    }
}

#[test]
fn a_peer_that_is_dialled_on_this_machine_is_not_reached_by_its_other_addresses() {
    let mut access = access(vec![permit(None, "127.0.0.1,192.0.2.7", "*")]);
    assert_eq!(ask(&access, "192.0.2.7:9300", "10.0.0.1"), Ok(()));
    access.dials(&["192.0.2.7:9300".parse().unwrap()]);
    let other = "[2001:db8::7]:9300";
    assert!(ask(&access, other, "10.0.0.1").unwrap_err().contains("a peer"));
}

#[test]
fn addresses_that_were_dialled_are_remembered_within_a_bound() {
    let mut access = access(vec![]);
    let at = |port: u16| SocketAddr::from(([203, 0, 113, 5], port));
    for port in 1..=u16::try_from(DIALLED_ADDRESSES_MAX).unwrap() + 1 {
        // Again and again the same is one.
        access.dials(&[at(port), at(2)]);
    }
    let may = |port: u16| ask(&access, &at(port).to_string(), "10.0.0.1").is_ok();
    assert_eq!([1, 2, 3].map(may), [true, false, false]);
}

#[test]
fn a_client_on_this_machine_is_called_only_if_it_is_named() {
    let named = || permit(None, "192.0.2.7", "*");
    for (permits, client, wanted) in [
        (vec![], "10.0.0.1:2000", true),
        (vec![], "127.0.0.1:2000", false),
        (vec![], "192.0.2.7:2000", false),
        (vec![], "[::ffff:192.0.2.7]:2000", false),
        (vec![permit(None, "*", "*")], "192.0.2.7:2000", false),
        (vec![named()], "192.0.2.7:2000", true),
        (vec![named()], "10.0.0.1:2000", false),
    ] {
        let access = access(permits);
        let client: SocketAddr = client.parse().unwrap();
        let caller = Caller { client: Some(client.ip()), entrance_port: Some(21) };
        let asker = Asker { caller, name: None, permits: None };
        let ours: IpAddr = "192.0.2.7".parse().unwrap();
        let may = access.may_call(Proxy::Socks, client, &asker, |ip| ip == ours);
        assert_eq!(may.is_ok(), wanted, "{client}: {may:?}");
    }
}

#[test]
fn of_a_name_s_addresses_those_that_may_be_reached_are_left() {
    let access = access(vec![]);
    let caller = Caller { client: None, entrance_port: None };
    let asker = Asker { caller, name: None, permits: None };
    let permitted = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|at| at.parse().unwrap()).collect();
        access.permitted(Proxy::Socks, addresses, "name", &asker, |_| false)
    };
    let left = permitted(&["127.0.0.1:80", "10.0.0.1:80", "[::1]:80"]);
    assert_eq!(left, Ok(vec!["10.0.0.1:80".parse().unwrap()]));
    assert!(permitted(&["127.0.0.1:80", "[::1]:80"]).unwrap_err().contains("loopback"));
    let is_own = |at: &str| access.is_own(at.parse().unwrap(), |ip| ip.is_loopback());
    assert!(is_own("127.0.0.1:9000") && is_own("[::ffff:192.0.2.7]:9002"));
    assert!(!is_own("192.0.2.9:9000") && !is_own("127.0.0.1:80"));
}

#[test]
fn all_else_may_be_reached_without_a_permit() {
    let access = access(vec![]);
    for destination in [
        "10.0.0.1:80",
        "93.184.216.34:443",
        "[2001:db8::1]:80",
        "[::ffff:10.0.0.1]:80",
        "[64:ff9b::10.0.0.1]:80",
        "[2002:a00:1::1]:80",
        // Our addresses with other ports, and our port on another address.
        "192.0.2.7:80",
        "192.0.2.8:9000",
        "192.0.2.8:9002",
    ] {
        assert_eq!(ask(&access, destination, "unknown"), Ok(()), "{destination}");
    }
}

#[test]
fn with_permits_only_what_one_of_them_says() {
    let access = access(vec![
        permit(Some(vec![Proxy::Http]), "*", "*"),
        permit(Some(vec![Proxy::Http, Proxy::Socks]), "10.0.0.0/8,!10.9.0.0/16", "*"),
        permit(None, "127.0.0.1,!-P22", "192.168.1.0/24"),
        permit(None, "-P443", "-P1080,!192.168.1.9"),
    ]);
    for (destination, client, wanted) in [
        ("10.0.0.1:80", "10.1.1.1", true),
        ("[::ffff:10.0.0.1]:80", "10.1.1.1", true),
        ("10.9.0.1:80", "10.1.1.1", false),
        ("11.0.0.1:80", "10.1.1.1", false),
        ("127.0.0.1:80", "192.168.1.1", true),
        ("127.0.0.1:22", "192.168.1.1", false),
        ("127.0.0.1:80", "192.168.2.1", false),
        ("127.0.0.1:80", "unknown", false),
        ("127.0.0.2:80", "192.168.1.1", false),
        ("11.0.0.1:443", "192.168.1.1", true),
        ("11.0.0.1:443", "192.168.1.9", false),
        // A port alone names no address.
        ("127.0.0.1:443", "192.168.2.1", false),
    ] {
        let may = ask(&access, destination, client);
        assert_eq!(may.is_ok(), wanted, "{destination} for {client}: {may:?}");
    }
    let why = ask(&access, "11.0.0.1:80", "10.1.1.1").unwrap_err();
    assert_eq!(why, "no PERMIT= for socks to name (11.0.0.1:80)");
}

#[test]
fn an_exits_own_permits_stand_in_place_of_the_processs() {
    let access = access(vec![permit(None, "10.0.0.0/8,127.0.0.1", "*")]);
    let own = permit(Some(vec![Proxy::Socks]), "11.0.0.1,127.0.0.2", "*.org");
    let caller = Caller { client: "10.0.0.1".parse().ok(), entrance_port: Some(1080) };
    for (permits, reached) in [
        (None, ["10.0.0.1:80", "127.0.0.1:80"]),
        (Some(Rc::from([own])), ["11.0.0.1:80", "127.0.0.2:80"]),
    ] {
        let has_own = permits.is_some();
        let asker = Asker { caller, name: Some("pc.org".into()), permits };
        for at in ["10.0.0.1:80", "127.0.0.1:80", "11.0.0.1:80", "127.0.0.2:80"] {
            let may = access.may(Proxy::Socks, at.parse().unwrap(), at, &asker, |_| false);
            assert_eq!(may.is_ok(), reached.contains(&at), "{at}, own: {has_own}: {may:?}");
        }
        let own = asker.permits.as_deref();
        let wanted = access.want_name(Proxy::Socks, own, &caller, ClientName::Unasked);
        assert_eq!(wanted, has_own);
    }
}

#[test]
fn patterns_mean_the_name_that_was_asked_for_and_the_client_s_own() {
    let by_name = access(vec![permit(None, "*.example.org", "*")]);
    let caller = Caller { client: "10.0.0.1".parse().ok(), entrance_port: Some(1080) };
    let nobody = Asker { caller, name: None, permits: None };
    let may = |access: &Destinations, asker: &Asker, name: &str, at: &str| {
        access.may(Proxy::Socks, at.parse().unwrap(), name, asker, |_| false).is_ok()
    };
    for (name, at, wanted) in [
        ("www.example.org", "11.0.0.1:80", true),
        ("www.example.com", "11.0.0.1:80", false),
        ("11.0.0.1", "11.0.0.1:80", false),
        // A name that resolves to loopback.
        ("www.example.org", "127.0.0.1:80", false),
    ] {
        assert_eq!(may(&by_name, &nobody, name, at), wanted, "{name} at {at}");
    }
    let for_named = access(vec![permit(Some(vec![Proxy::Socks]), "*", "*.example.org")]);
    for (proxy, name, wanted) in [
        (Proxy::Socks, ClientName::Unasked, true),
        (Proxy::Socks, ClientName::None, false),
        (Proxy::Http, ClientName::Unasked, false),
    ] {
        assert_eq!(for_named.want_name(proxy, None, &caller, name), wanted, "{proxy:?} {name:?}");
    }
    let named = Asker { caller, name: Some("pc.example.org".into()), permits: None };
    for (asker, wanted) in [(named, true), (nobody, false)] {
        assert_eq!(may(&for_named, &asker, "11.0.0.1", "11.0.0.1:80"), wanted, "{asker:?}");
    }
}

/// An entrance that a peer has asked for comes and goes.
#[test]
fn ports_opened_while_it_runs_are_its_own() {
    let mut access = access(vec![]);
    let entrance = "192.0.2.7:8022";
    assert_eq!(ask(&access, entrance, "10.0.0.1"), Ok(()));
    access.opened("[::]:8022".parse().unwrap());
    let why = ask(&access, entrance, "10.0.0.1").unwrap_err();
    assert!(why.contains("a port of this relay"), "{why}");
    access.closed("[::]:8022".parse().unwrap());
    assert_eq!(ask(&access, entrance, "10.0.0.1"), Ok(()));
}
