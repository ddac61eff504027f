//! Routing: choice of the exit for a stream of the peer.

use std::net::SocketAddr;

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, Exit, ExitKind, LinkPlan, PeerOptions, Plan, Target, Transport};

/// The choice depends on the client's name, which was not looked up yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameWanted;

/// The peer that a stream is of, by its key.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamPeer<'p> {
    /// As it is called here. `None`: it has no name.
    pub name: Option<&'p str>,
    /// What it may do here. `None`: it has shown no key.
    pub options: Option<&'p PeerOptions>,
}

impl StreamPeer<'_> {
    /// Whether its streams may leave by an exit.
    pub fn may_use(&self, exit: &Exit) -> bool {
        exit.is_for_peer(self.name) && self.options.is_none_or(|options| options.permits_exit(exit))
    }
}

/// As [`choose_by_name`], for a caller whose name is not looked up, of a peer without one.
pub fn choose<'e, E: AsRef<Exit>>(
    exits: &'e [E],
    caller: &Caller,
    transport: Option<Transport>,
) -> Option<&'e E> {
    let peer = StreamPeer::default();
    choose_by_name(exits, peer, (caller, ClientName::None), transport).ok().flatten()
}

/// The first exit, in the order of the command line, that suits the transport (any does if the peer
/// does not announce it), is for this peer and admits the caller. `None`: the stream is to be refused.
///
/// # Errors
/// The decision of an exit's list depends on the name.
pub fn choose_by_name<'e, E: AsRef<Exit>>(
    exits: &'e [E],
    peer: StreamPeer<'_>,
    (caller, name): (&Caller, ClientName<'_>),
    transport: Option<Transport>,
) -> Result<Option<&'e E>, NameWanted> {
    let fits = |exit: &Exit| {
        transport.is_none_or(|transport| transport == exit.transport()) && peer.may_use(exit)
    };
    for exit in exits.iter().filter(|exit| fits((*exit).as_ref())) {
        let clients = exit.as_ref().clients.as_ref();
        let verdict = clients.map_or(Some(true), |list| list.verdict(caller, name));
        if verdict.ok_or(NameWanted)? {
            return Ok(Some(exit));
        }
    }
    Ok(None)
}

/// The server at the port of the caller's entrance, plus `offset`.
///
/// # Errors
/// The reason for having none, as it is sent to the peer.
pub fn at_port_of(host: &str, offset: i32, caller: &Caller) -> Result<Target, String> {
    let Some(entrance_port) = caller.entrance_port else {
        return Err(format!("no port at {host}: the peer does not say the entrance's"));
    };
    match u16::try_from(i32::from(entrance_port) + offset) {
        Ok(port @ 1..) => Ok(Target { host: host.to_owned(), port }),
        _ => {
            Err(format!("no port at {host}: the entrance's {entrance_port} and {offset:+} is none"))
        }
    }
}

/// The server for clients accepted at this address.
///
/// # Errors
/// There is no such port.
pub fn relay_target(plan: &Plan, at: SocketAddr) -> Result<Target, String> {
    match &plan.link {
        LinkPlan::Relay { server: ExitKind::Server { target, .. }, .. } => Ok(target.clone()),
        LinkPlan::Relay { server: ExitKind::SamePort { host, offset, .. }, .. } => {
            let caller = Caller { client: None, entrance_port: Some(at.port()) };
            at_port_of(host, *offset, &caller)
        }
        _ => Err("there is no plain relay".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::hostlist::HostList;
    use crate::cli::plan::ExitOptions;

    fn way(port: u16, transport: Transport) -> ExitKind {
        ExitKind::Server { target: Target { host: "h".into(), port }, transport }
    }

    fn port(exit: &Exit) -> Option<u16> {
        exit.target().map(|target| target.port)
    }

    fn exit(port: u16, clients: Option<&str>) -> Exit {
        let list = |text| HostList::parse(text, &mut |_| unreachable!()).unwrap();
        Exit {
            protocol: "tcprelay".into(),
            way: way(port, Transport::Tcp),
            name: way(port, Transport::Tcp).name(),
            proxy_header: None,
            clients: clients.map(list),
            options: ExitOptions::default(),
            source: String::new(),
        }
    }

    fn taken(exits: &[Exit], client: &str, entrance_port: Option<u16>) -> Option<u16> {
        let caller = Caller { client: client.parse().ok(), entrance_port };
        choose(exits, &caller, None).and_then(port)
    }

    #[test]
    fn the_first_that_matches_is_taken() {
        let exits = [exit(1, Some("-P8023")), exit(2, Some("10.0.0.0/8")), exit(3, None)];
        assert_eq!(taken(&exits, "10.0.0.1", Some(8023)), Some(1));
        assert_eq!(taken(&exits, "10.0.0.1", Some(80)), Some(2));
        assert_eq!(taken(&exits, "11.0.0.1", Some(80)), Some(3));
        assert_eq!(taken(&exits, "unknown", None), Some(3));
    }

    #[test]
    fn an_exit_for_datagrams_takes_no_byte_streams() {
        let udp = Exit { way: way(2, Transport::Udp), ..exit(2, None) };
        let exits = [exit(1, None), udp];
        let caller = Caller { client: None, entrance_port: Some(53) };
        let taken = |transport| choose(&exits, &caller, transport).and_then(port);
        assert_eq!(taken(Some(Transport::Tcp)), Some(1));
        assert_eq!(taken(Some(Transport::Udp)), Some(2));
        assert_eq!(taken(None), Some(1));
        assert!(choose(&exits[..1], &caller, Some(Transport::Udp)).is_none());
    }

    #[test]
    fn a_name_is_wanted_where_an_exit_before_the_others_depends_on_it() {
        let exits = [exit(1, Some("*.example.org")), exit(2, None)];
        let caller = |client: &str| Caller { client: client.parse().ok(), entrance_port: None };
        let taken = |client, name| {
            choose_by_name(&exits, StreamPeer::default(), (&caller(client), name), None)
                .map(|exit| exit.and_then(port))
        };
        assert_eq!(taken("10.0.0.1", ClientName::Unasked), Err(NameWanted));
        assert_eq!(taken("10.0.0.1", ClientName::Is("a.example.org")), Ok(Some(1)));
        assert_eq!(taken("10.0.0.1", ClientName::None), Ok(Some(2)));
        assert_eq!(taken("unknown", ClientName::Unasked), Ok(Some(2)));
    }

    #[test]
    fn an_exit_of_a_peer_is_for_no_other() {
        let of = |port, peers: &[&str]| {
            let mut exit = exit(port, None);
            exit.options.peers = peers.iter().map(|&peer| peer.to_owned()).collect();
            exit
        };
        let exits = [of(1, &["a", "b"]), of(2, &["c"]), of(3, &[])];
        let caller = Caller { client: None, entrance_port: None };
        let taken_of = |exits, name| {
            let peer = StreamPeer { name, options: None };
            let chosen = choose_by_name(exits, peer, (&caller, ClientName::None), None);
            chosen.expect("no name is wanted").and_then(port)
        };
        let taken = |peer| taken_of(&exits[..], peer);
        assert_eq!([Some("a"), Some("b"), Some("c")].map(taken), [Some(1), Some(1), Some(2)]);
        // A name counts whole, and a peer without one has none.
        assert_eq!([Some("d"), Some(""), Some("A"), None].map(taken), [Some(3); 4]);
        assert_eq!(taken_of(&exits[..2], None), None);
    }

    /// They narrow what `peer=` leaves, and take the next exit where the first one is not theirs.
    #[test]
    fn the_exits_of_a_peers_options_are_those_that_it_may_use() {
        let mut exits = [exit(1, None), exit(2, None), exit(3, None)];
        exits[1].options.peers = vec!["b".to_owned()];
        let caller = Caller { client: None, entrance_port: None };
        let taken = |name, names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            let options = PeerOptions { exits: Some(names), ..PeerOptions::default() };
            let peer = StreamPeer { name: Some(name), options: Some(&options) };
            let chosen = choose_by_name(&exits, peer, (&caller, ClientName::None), None);
            chosen.expect("no name is wanted").and_then(port)
        };
        assert_eq!(taken("a", &["h:3", "h:1"]), Some(1));
        assert_eq!(taken("a", &["h:2", "h:3"]), Some(3));
        assert_eq!(taken("b", &["h:2", "h:3"]), Some(2));
        assert_eq!(taken("a", &["h:2"]), None);
        assert_eq!(taken("a", &[]), None);
    }

    #[test]
    fn ports_that_follow_the_entrance() {
        let at = |port, offset| {
            let caller = Caller { client: None, entrance_port: port };
            at_port_of("h", offset, &caller).map(|target| target.port)
        };
        assert_eq!(at(Some(80), 0), Ok(80));
        assert_eq!(at(Some(80), 8000), Ok(8080));
        assert_eq!(at(Some(8080), -8000), Ok(80));
        assert_eq!(at(Some(80), 65_455), Ok(65_535));
        let said = |port, offset| at(port, offset).unwrap_err();
        assert_eq!(said(None, 0), "no port at h: the peer does not say the entrance's");
        assert_eq!(said(Some(80), -80), "no port at h: the entrance's 80 and -80 is none");
        assert_eq!(said(Some(80), 65_456), "no port at h: the entrance's 80 and +65456 is none");
    }

    #[test]
    fn without_a_match_the_stream_is_refused() {
        let exits = [exit(1, Some("-P8023")), exit(2, Some("10.0.0.0/8"))];
        assert_eq!(taken(&exits, "11.0.0.1", Some(80)), None);
        assert_eq!(taken(&exits, "unknown", None), None);
        assert_eq!(taken(&[], "10.0.0.1", Some(80)), None);
    }
}
