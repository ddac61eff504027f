//! Calls: a server has connected to the peer's exit, and is to be led to a client of ours at a port
//! that the client has named (FTP's active mode).
//!
//! The client may name what it likes, so it is only its own host that is called: not the services that
//! any host has, below port 1024 (RFC 2577), and a client on this machine or its link only where a
//! `PERMIT=` of this end says so, by the name of `ftp`. The connection comes from the address that the
//! client has reached, as it would from a server there.

use tracing::debug;

use crate::cli::plan::{Proxy, Target};
use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::CALLED_PORT_MIN;
use crate::session::{NO_ADDRESS, StreamKey};
use crate::wire::Transport;
use crate::worker::dialer::dial::Request;
use crate::worker::forward::ports::Guest;
use crate::worker::ingress::access::Incoming;
use crate::worker::token::StreamOwner;
use crate::worker::{Key, Worker};

/// For whom the peer's exit calls, by what `PERMIT=` says of it.
const CALLER: Proxy = Proxy::Ftp;

/// Who is to be called.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Call {
    /// The client of the control stream.
    owner: Key,
    port: u16,
}

impl<D: Driver> Worker<D> {
    /// The peer began a stream that is to be led to a client of ours.
    pub(in crate::worker) fn call_came(
        &mut self,
        (tunnel, stream): (Key, StreamKey),
        transport: Option<Transport>,
        (user, port): (u64, u16),
    ) {
        let owner = StreamOwner::conn(user);
        let guest = match (transport, owner) {
            (Some(Transport::Udp), _) => Err("clients are called by TCP only"),
            (_, None) => Err("the client sends datagrams, and has no connection"),
            (_, Some(owner)) => self.guest(owner).map(|guest| (guest, Call { owner, port })),
        };
        match guest {
            Ok((Guest { client, own }, call)) => {
                let (client, entrance) = (Some(client), Some(own));
                let call = Some(call);
                self.open_exit(Incoming {
                    tunnel,
                    stream,
                    client,
                    entrance,
                    transport,
                    exit: None,
                    call,
                });
            }
            Err(reason) => self.refuse_stream(tunnel, stream, NO_ADDRESS, reason, false),
        }
    }

    /// Sets out for the client, if it may be called.
    pub(in crate::worker) fn lead_call(&mut self, incoming: Incoming, call: Call) {
        let Incoming { tunnel, stream, .. } = incoming;
        // It may have gone while its name was looked up.
        let Guest { mut client, mut own } = match self.guest(call.owner) {
            Ok(guest) => guest,
            Err(reason) => {
                return self.refuse_stream(tunnel, stream, NO_ADDRESS, reason, false);
            }
        };
        let asker = self.asker(&incoming);
        if self.cx.destinations.want_name(CALLER, None, &asker.caller, self.name_of(&asker.caller))
        {
            return self.hold_stream(&incoming, client);
        }
        let may = match call.port {
            port if port < CALLED_PORT_MIN => {
                Err(format!("clients are not called below port {CALLED_PORT_MIN} (RFC 2577)"))
            }
            port => {
                client.set_port(port);
                self.cx.destinations.may_call(CALLER, client, &asker, net::is_ours)
            }
        };
        let limit_guard =
            match may.and_then(|()| self.cx.connection_limits.acquire(Some(client.ip()))) {
                Ok(limit_guard) => limit_guard,
                Err(reason) => return self.refuse_stream(tunnel, stream, client, &reason, false),
            };
        own.set_port(0);
        let overall = self.cx.plan.timeouts.connect.map(|connect| self.cx.now.after(connect));
        let target = Target { host: client.ip().to_string(), port: client.port() };
        let begun = self.begin_dialled_exit(&incoming, limit_guard, |owner| Request {
            address: Some(client),
            own: Some(own),
            ..Request::new(owner, target, overall)
        });
        let Some(key) = begun else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.related = Some(call.owner);
        }
        debug!(%client, "call");
    }
}
