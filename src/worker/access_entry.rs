//! What the access log is to say of a stream, flow or pair. It is kept with the connection, and written
//! when that is dropped, so each has one line, however it ends.
//!
//! Without an access log an entry is empty, and its methods do nothing.

use std::fmt::Display;
use std::time::Instant;

use crate::observe::access::{AccessLog, Entry};

/// An entry, if there is an access log.
#[derive(Debug, Default)]
pub(in crate::worker) struct AccessEntry(Option<Box<Begun>>);

/// What an entry begins with.
#[derive(Debug)]
pub(in crate::worker) struct Beginning {
    pub(in crate::worker) kind: &'static str,
    pub(in crate::worker) number: Option<u32>,
    pub(in crate::worker) side: Side,
    pub(in crate::worker) client: String,
    pub(in crate::worker) place: Option<String>,
}

/// The end of a stream that is in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Side {
    /// Its client.
    Entrance,
    /// Its server.
    Exit,
}

impl Side {
    fn local(self) -> &'static str {
        match self {
            Side::Entrance => CLIENT,
            Side::Exit => SERVER,
        }
    }

    fn remote(self) -> &'static str {
        match self {
            Side::Entrance => SERVER,
            Side::Exit => CLIENT,
        }
    }
}

const CLIENT: &str = "client";
const SERVER: &str = "server";
const PEER: &str = "peer";
const HERE: &str = "here";

const REFUSED: &str = "refused";

/// The address of a client without one.
const NOBODY: &str = "0.0.0.0:0";

#[derive(Debug)]
struct Begun {
    log: AccessLog,
    began: Instant,
    beginning: Beginning,
    tunnel: Option<u32>,
    peer: Option<String>,
    server: Option<String>,
    up_bytes: u64,
    down_bytes: u64,
    /// Who has ended its data first.
    ended_first: Option<&'static str>,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    how: &'static str,
    by: Option<&'static str>,
    reason: Option<String>,
}

impl AccessEntry {
    pub(in crate::worker) fn new(
        log: Option<&AccessLog>,
        beginning: impl FnOnce() -> Beginning,
    ) -> AccessEntry {
        AccessEntry(log.map(|log| {
            Box::new(Begun {
                log: log.clone(),
                began: Instant::now(),
                beginning: beginning(),
                tunnel: None,
                peer: None,
                server: None,
                up_bytes: 0,
                down_bytes: 0,
                ended_first: None,
                end: None,
            })
        }))
    }

    /// It is in this tunnel, whose peer has this name.
    pub(in crate::worker) fn in_tunnel(&mut self, tunnel: u32, peer: Option<&str>) {
        if let Some(begun) = &mut self.0 {
            begun.tunnel = Some(tunnel);
            begun.peer = peer.map(str::to_owned);
        }
    }

    /// Its server, as far as it is known.
    pub(in crate::worker) fn server_is(&mut self, server: impl Display) {
        if let Some(begun) = &mut self.0 {
            begun.server = Some(server.to_string());
        }
    }

    /// The server of which the address is known.
    pub(in crate::worker) fn server_at(&mut self, server: std::net::SocketAddr) {
        if !server.ip().is_unspecified() {
            self.server_is(server);
        }
    }

    /// Bytes from client to server.
    #[inline]
    pub(in crate::worker) fn up(&mut self, bytes: usize) {
        if let Some(begun) = &mut self.0 {
            begun.up_bytes += bytes as u64;
        }
    }

    /// Bytes from server to client.
    #[inline]
    pub(in crate::worker) fn down(&mut self, bytes: usize) {
        if let Some(begun) = &mut self.0 {
            begun.down_bytes += bytes as u64;
        }
    }

    /// Bytes that the local socket has given.
    #[inline]
    pub(in crate::worker) fn local_gave(&mut self, bytes: usize) {
        if let Some(begun) = &mut self.0 {
            match begun.beginning.side {
                Side::Entrance => begun.up_bytes += bytes as u64,
                Side::Exit => begun.down_bytes += bytes as u64,
            }
        }
    }

    /// Bytes that the local socket has taken.
    #[inline]
    pub(in crate::worker) fn local_took(&mut self, bytes: usize) {
        if let Some(begun) = &mut self.0 {
            match begun.beginning.side {
                Side::Entrance => begun.down_bytes += bytes as u64,
                Side::Exit => begun.up_bytes += bytes as u64,
            }
        }
    }

    /// The client, or else the server, has ended its data.
    pub(in crate::worker) fn data_ended(&mut self, is_client: bool) {
        if let Some(begun) = &mut self.0 {
            begun.ended_first.get_or_insert(if is_client { CLIENT } else { SERVER });
        }
    }

    /// The local socket has ended its data.
    pub(in crate::worker) fn local_ended(&mut self) {
        self.data_ended(self.is_entrance());
    }

    /// The peer has ended its data.
    pub(in crate::worker) fn remote_ended(&mut self) {
        self.data_ended(!self.is_entrance());
    }

    fn is_entrance(&self) -> bool {
        self.0.as_ref().is_some_and(|begun| begun.beginning.side == Side::Entrance)
    }

    /// Both directions have ended in order.
    pub(in crate::worker) fn closed(&mut self) {
        if let Some(begun) = &mut self.0 {
            let by = begun.ended_first;
            begun.ends("closed", by, None);
        }
    }

    /// The local socket was reset, or failed.
    pub(in crate::worker) fn reset_by_local(&mut self, reason: Option<&str>) {
        if let Some(begun) = &mut self.0 {
            begun.ends("reset", Some(begun.beginning.side.local()), reason);
        }
    }

    /// The client, or else the server, of a pair was reset, or failed.
    pub(in crate::worker) fn reset_by(&mut self, is_client: bool) {
        if let Some(begun) = &mut self.0 {
            begun.ends("reset", Some(if is_client { CLIENT } else { SERVER }), None);
        }
    }

    /// The other end has reset it.
    pub(in crate::worker) fn reset_by_peer(&mut self, reason: &str) {
        if let Some(begun) = &mut self.0 {
            match reason {
                "reset" => begun.ends("reset", Some(begun.beginning.side.remote()), None),
                "timed out" => begun.ends("timeout", Some(PEER), None),
                _ => begun.ends("reset", Some(PEER), Some(reason)),
            }
        }
    }

    /// The other end has ended a flow, which has no order.
    pub(in crate::worker) fn ended_by_peer(&mut self, reason: Option<&str>) {
        self.ends("closed", Some(PEER), reason);
    }

    /// This end resets it.
    pub(in crate::worker) fn reset_here(&mut self, reason: &str) {
        self.ends("reset", Some(HERE), Some(reason));
    }

    /// A timeout of this end is over.
    pub(in crate::worker) fn timed_out(&mut self, reason: Option<&str>) {
        self.ends("timeout", Some(HERE), reason);
    }

    pub(in crate::worker) fn refused_here(&mut self, reason: &str) {
        self.ends(REFUSED, Some(HERE), Some(reason));
    }

    /// What was refused before is served now: a client of a proxy has asked for something else.
    pub(in crate::worker) fn served(&mut self) {
        if let Some(begun) = &mut self.0
            && begun.end.as_ref().is_some_and(|end| end.how == REFUSED)
        {
            begun.end = None;
        }
    }

    pub(in crate::worker) fn refused_by_peer(&mut self, reason: &str) {
        self.ends(REFUSED, Some(PEER), Some(reason));
    }

    /// The tunnel is lost.
    pub(in crate::worker) fn tunnel_lost(&mut self, reason: Option<&str>) {
        self.ends("lost", None, reason);
    }

    /// The process ends before the stream.
    pub(in crate::worker) fn drained(&mut self) {
        self.ends("drained", Some(HERE), None);
    }

    /// It makes room for another one.
    pub(in crate::worker) fn evicted(&mut self, reason: &str) {
        self.ends("evicted", Some(HERE), Some(reason));
    }

    /// What has ended it first is what counts.
    fn ends(&mut self, how: &'static str, by: Option<&'static str>, reason: Option<&str>) {
        if let Some(begun) = &mut self.0 {
            begun.ends(how, by, reason);
        }
    }
}

impl Begun {
    fn ends(&mut self, how: &'static str, by: Option<&'static str>, reason: Option<&str>) {
        if self.end.is_none() {
            self.end = Some(End { how, by, reason: reason.map(str::to_owned) });
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Beginning { kind, number, side, client, place } = &self.beginning;
        let end = self.end.as_ref();
        self.log.write(&Entry {
            kind,
            tunnel: self.tunnel,
            number: *number,
            peer: self.peer.as_deref(),
            client: Some(&**client).filter(|client| *client != NOBODY),
            side: match side {
                Side::Entrance => "entrance",
                Side::Exit => "exit",
            },
            place: place.as_deref(),
            server: self.server.as_deref(),
            up_bytes: self.up_bytes,
            down_bytes: self.down_bytes,
            duration: self.began.elapsed(),
            end: end.map(|end| end.how),
            by: end.and_then(|end| end.by),
            reason: end.and_then(|end| end.reason.as_deref()),
        });
    }
}
