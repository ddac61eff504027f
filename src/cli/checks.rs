//! Contradictions between words: ports that would be listened on twice, a process that would connect
//! to itself, UDP where only TCP is possible.

use std::net::IpAddr;

use super::error::{Failure, Problem, plain};
use super::plan::{Bind, Entrance, ExitKind, Target, Transport};
use super::portlist::{self, PortList, show_bind, show_entrance};
use super::words::Word;

/// Ports of different words that cannot be listened on both.
pub(super) fn distinct(all: &[(Entrance, Word)]) -> Result<(), Failure> {
    match portlist::first_clash(all.iter().map(|(entrance, _)| entrance)) {
        None => Ok(()),
        Some((one, other)) => {
            let ((one, one_word), (other, other_word)) = (&all[one], &all[other]);
            let [one, other] = [one, other].map(show_entrance);
            Err(Failure::at(
                other_word,
                &Problem::new(
                    format!("{other} and {one} of {one_word} are the same port"),
                    "leave one of them out",
                ),
            ))
        }
    }
}

/// The receptor's own ports against the entrances.
pub(super) fn listen(
    listen: &[(Entrance, Word)],
    entrances: &[(Entrance, Word)],
) -> Result<(), Failure> {
    for (own, listen_word) in listen {
        let clash = entrances
            .iter()
            .find(|(e, _)| e.transport == own.transport && e.bind.clashes(&own.bind));
        if let Some((entrance, word)) = clash {
            return Err(Failure::at(
                word,
                &Problem::new(
                    format!(
                        "the entrance {} is the port of the persistent connection, {} of \
                         {listen_word}",
                        show_bind(&entrance.bind),
                        show_bind(&own.bind)
                    ),
                    "give them different ports",
                ),
            ));
        }
    }
    Ok(())
}

/// A connector that would come in by its own entrance.
pub(super) fn connector(
    target: &Target,
    word: &Word,
    entrances: &[(Entrance, Word)],
) -> Result<(), Failure> {
    match own_port(entrances, target, Transport::Tcp) {
        Some(entrance) => Err(Failure::at(
            word,
            &Problem::new(
                format!("it would connect to the entrance {entrance} of this very process"),
                "give the port that the receptor listens on",
            ),
        )),
        None => Ok(()),
    }
}

/// A plain relay that would be its own client, or leads to no port.
pub(super) fn relay(
    listen: &[(Entrance, Word)],
    (server, transport): (&ExitKind, Transport),
    word: &Word,
) -> Result<(), Failure> {
    let its_own = |target: &Target| match own_port(listen, target, transport) {
        Some(own) => Err(Failure::at(
            word,
            &Problem::new(
                format!("it would connect to {own} of this very process, for ever"),
                "give the port that the server listens on",
            ),
        )),
        None => Ok(()),
    };
    let (host, offset) = match server {
        ExitKind::Server { target, .. } => return its_own(target),
        ExitKind::SamePort { host, offset, .. } => (host, *offset),
        _ => return Ok(()),
    };
    // A port that the kernel chooses is known when clients come.
    for (own, own_word) in listen.iter().filter(|(own, _)| own.bind.port != 0) {
        match u16::try_from(i32::from(own.bind.port) + offset) {
            Ok(port @ 1..) => its_own(&Target { host: host.clone(), port })?,
            _ => {
                let at = show_entrance(own);
                return Err(Failure::at(
                    own_word,
                    &Problem::new(
                        format!("{at} and {offset:+}, as {word} has it, is not a port"),
                        "give ports that lead to one between 1 and 65535",
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A persistent connection, of this word, without entrances and exits.
pub(super) fn nothing_flows(word: Option<&Word>) -> Failure {
    match word {
        Some(word) => Failure::at(
            word,
            &Problem::new(
                "nothing would ever flow through the persistent connection",
                "add PORT= (streams begin here) or DEST=host:port (streams come out here)",
            ),
        ),
        None => Failure::new(
            "there is nothing to do; give -P[host]:port or SERVER=sockmux://host:port, and \
             PORT= or DEST=, or try `sockmux-uring demo` or --help",
        ),
    }
}

/// `-P` of the persistent connection, which is never UDP.
pub(super) fn link_transport(listen: &[(Entrance, Word)]) -> Result<(), Failure> {
    match listen.iter().find(|(own, _)| own.transport == Transport::Udp) {
        None => Ok(()),
        Some((_, word)) => Err(Failure::at(
            word,
            &Problem::new(
                "the persistent connection is never UDP",
                format!(
                    "write -P{}, or PORT={} for an entrance, or add SERVER=udprelay://host:port \
                     for a plain relay of UDP",
                    rewritten(word, Transport::Tcp),
                    rewritten(word, Transport::Udp)
                ),
            ),
        )),
    }
}

/// `-P` of a plain relay, whose transport has to be that of the relay.
pub(super) fn relay_transport(
    listen: &[(Entrance, Word)],
    transport: Transport,
    relay: &Word,
) -> Result<(), Failure> {
    let Some((own, word)) = listen.iter().find(|(own, _)| own.transport != transport) else {
        return Ok(());
    };
    let (at, server) = (show_entrance(own), plain(&relay.text));
    let ports = rewritten(word, transport);
    let problem = match transport {
        Transport::Udp => Problem::new(
            format!("{at} takes in TCP, but {server} relays UDP"),
            format!("write -P{ports}"),
        ),
        Transport::Tcp => Problem::new(
            format!("{at} takes in UDP, but {server} relays TCP"),
            format!(
                "write -P{ports}, or {} to relay UDP",
                server.replacen("tcprelay", "udprelay", 1)
            ),
        ),
    };
    Err(Failure::at(word, &problem))
}

/// The ports of a word `-Pports` as they are written for this transport.
fn rewritten(word: &Word, transport: Transport) -> String {
    let ports = word.text.strip_prefix("-P").unwrap_or(&word.text);
    let Ok(list) = PortList::parse(ports) else { return plain(ports) };
    let mut items = Vec::new();
    for mut item in list.0 {
        item.transport = transport;
        // 53,53/udp becomes one port.
        if !items.contains(&item) {
            items.push(item);
        }
    }
    plain(&PortList(items).to_string())
}

/// The word by which this process listens on a target that is on this machine.
fn own_port<'a>(
    all: &'a [(Entrance, Word)],
    target: &Target,
    transport: Transport,
) -> Option<&'a Word> {
    let here = match target.host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => target.host.eq_ignore_ascii_case("localhost"),
    };
    let aim = Bind { host: Some(target.host.clone()), port: target.port };
    all.iter()
        .find(|(own, _)| here && own.transport == transport && own.bind.clashes(&aim))
        .map(|(_, word)| word)
}
