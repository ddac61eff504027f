//! Routing: which exit a stream from the peer takes.

use crate::params::plan::{Caller, Exit, Transport};

/// The first exit, in the order of the command line, that is for what the stream carries (all are
/// where the peer does not say) and open to the caller. `None` means that the stream is to be
/// refused.
pub fn choose<'p>(
    exits: &'p [Exit],
    caller: &Caller,
    transport: Option<Transport>,
) -> Option<&'p Exit> {
    exits.iter().find(|exit| {
        transport.is_none_or(|transport| transport == exit.transport)
            && exit.clients.as_ref().is_none_or(|list| list.permits(caller))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::hostlist::HostList;
    use crate::params::plan::Target;

    fn exit(port: u16, clients: Option<&str>) -> Exit {
        let list = |text| HostList::parse(text, &mut |_| unreachable!()).unwrap();
        Exit {
            protocol: "tcprelay".into(),
            target: Target { host: "h".into(), port },
            transport: Transport::Tcp,
            clients: clients.map(list),
            source: String::new(),
        }
    }

    fn taken(exits: &[Exit], client: &str, entrance_port: Option<u16>) -> Option<u16> {
        let caller = Caller { client: client.parse().ok(), entrance_port };
        choose(exits, &caller, None).map(|exit| exit.target.port)
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
        let udp = Exit { transport: Transport::Udp, ..exit(2, None) };
        let exits = [exit(1, None), udp];
        let caller = Caller { client: None, entrance_port: Some(53) };
        let taken = |transport| choose(&exits, &caller, transport).map(|exit| exit.target.port);
        assert_eq!(taken(Some(Transport::Tcp)), Some(1));
        assert_eq!(taken(Some(Transport::Udp)), Some(2));
        assert_eq!(taken(None), Some(1));
        assert!(choose(&exits[..1], &caller, Some(Transport::Udp)).is_none());
    }

    #[test]
    fn without_a_match_the_stream_is_refused() {
        let exits = [exit(1, Some("-P8023")), exit(2, Some("10.0.0.0/8"))];
        assert_eq!(taken(&exits, "11.0.0.1", Some(80)), None);
        assert_eq!(taken(&exits, "unknown", None), None);
        assert_eq!(taken(&[], "10.0.0.1", Some(80)), None);
    }
}
