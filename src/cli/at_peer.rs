//! `PORT=...?at=peer`: entrances that this end asks for at the other one, whose clients come to the exits
//! here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::checks;
use super::error::{Failure, Problem, plain, quoted};
use super::plan::{Encryption, Entrance, Exit, Proof, TlsSide, Transport};
use super::portlist::{PortItem, show_entrance};
use super::words::Word;
use crate::limits::ASKED_ENTRANCES_MAX;

/// The value of `?at=`.
pub(super) fn is_meant(value: &str) -> Result<bool, Problem> {
    if value == "peer" {
        return Ok(true);
    }
    Err(Problem::new(
        format!("{} is nothing that at can be", quoted(value)),
        "write at=peer for an entrance at the other end, or leave it out for one at this end",
    ))
}

/// `-P` with `?at=peer`.
pub(super) fn not_by_p(item: &PortItem) -> Problem {
    Problem::new(
        "-P is a port of this end, and at=peer means one of the other",
        format!("write PORT={}", plain(&item.to_string())),
    )
}

/// The entrances in the end, against what they need.
///
/// # Errors
/// One that the peer would not open, or whose clients could go nowhere here.
pub(super) fn finish(
    asked: &[(Entrance, Word)],
    exits: &[Exit],
    encryption: Option<&Encryption>,
    newest_protocol: u8,
) -> Result<Vec<(Transport, SocketAddr)>, Failure> {
    let Some((_, word)) = asked.first() else { return Ok(Vec::new()) };
    check(exits, encryption, newest_protocol).map_err(|problem| Failure::at(word, &problem))?;
    checks::distinct(asked)?;
    if asked.len() > ASKED_ENTRANCES_MAX {
        return Err(Failure::at(
            word,
            &Problem::new(
                format!(
                    "{} entrances at the peer are more than one connector may ask for \
                     ({ASKED_ENTRANCES_MAX})",
                    asked.len()
                ),
                "give a smaller range, or let the receptor open them by its own PORT=",
            ),
        ));
    }
    let each = |(entrance, word): &(Entrance, Word)| {
        let address = address(entrance).map_err(|problem| Failure::at(word, &problem))?;
        Ok((entrance.transport, address))
    };
    asked.iter().map(each).collect()
}

fn check(
    exits: &[Exit],
    encryption: Option<&Encryption>,
    newest_protocol: u8,
) -> Result<(), Problem> {
    let key_is_needed = "at=peer is permitted by the receptor's peers file, to a peer whose key \
                         stands there";
    match encryption {
        None => Err(Problem::new(
            key_is_needed,
            "add TLSCONF=peer:SHA256:..., the fingerprint of the receptor's key",
        )),
        Some(Encryption { proof: Proof::Secret(_), .. }) => Err(Problem::new(
            key_is_needed,
            "write TLSCONF=peer:SHA256:... in place of TLSCONF=secret:, at the receptor \
             TLSCONF=peers:FILE",
        )),
        Some(Encryption { side: TlsSide::Accepts, .. }) => Err(Problem::new(
            "at=peer is for the end that dials, and this one accepts the persistent connection",
            "leave it out: PORT= opens an entrance here, and ?peer=NAME leads it to that peer",
        )),
        _ if newest_protocol == 0 => Err(Problem::new(
            "SockMux 0.3 has no way to ask for an entrance",
            "leave SOXCONF=protocol:0.3 out",
        )),
        _ if exits.is_empty() => Err(Problem::new(
            "the clients of an entrance at the peer come to this end, which has no exit for them",
            "add DEST=host:port",
        )),
        _ => Ok(()),
    }
}

/// Where the peer is to listen.
fn address(entrance: &Entrance) -> Result<SocketAddr, Problem> {
    let Entrance { bind, proxy_header, peers, .. } = entrance;
    let shown = show_entrance(entrance);
    if *proxy_header {
        return Err(Problem::unsupported(
            format!("a PROXY header at {shown} of the peer"),
            "leave proxy=accept out, or let the receptor open it: \
             PORT=NUMBER?proxy=accept&peer=NAME there",
        ));
    }
    if let Some(name) = peers.first() {
        return Err(Problem::new(
            format!(
                "the clients of {shown} at the peer come to this end, and peer={name} is given"
            ),
            format!("leave peer={name} out"),
        ));
    }
    if bind.port == 0 {
        return Err(Problem::new(
            "port 0 at the peer would be any",
            "name a port that the receptor permits to this key by listen= in its peers file",
        ));
    }
    let ip = match &bind.host {
        None => Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        Some(host) => host.parse(),
    };
    ip.map(|ip| SocketAddr::new(ip, bind.port)).map_err(|_| {
        Problem::new(
            format!("the host of {shown} is a name, which the two ends may look up differently"),
            "give an address of the receptor's host, or the port alone for all of them",
        )
    })
}
