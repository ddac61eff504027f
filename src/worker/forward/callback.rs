//! Callbacks: a server has connected to the peer's exit, and this end connects it to a client at a
//! port that the client has named (FTP's active mode).
//!
//! A client can name any port, so calls are restricted: only to the client's own host, not below
//! port 1024 (RFC 2577), and to a client on this machine or its link only if a `PERMIT=` for `ftp`
//! at this end allows it. The connection is made from the address that the client has connected to,
//! as a server there would do.

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

/// The protocol whose `PERMIT=` applies to calls.
const CALLER: Proxy = Proxy::Ftp;

/// The client to be called.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Call {
    /// The client of the control stream.
    owner: Key,
    port: u16,
}

impl<D: Driver> Worker<D> {
    /// The peer began a stream to a client of this end.
    pub(in crate::worker) fn on_callback(
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

    /// Connects to the client, if permitted.
    pub(in crate::worker) fn connect_callback(&mut self, incoming: Incoming, call: Call) {
        let Incoming { tunnel, stream, .. } = incoming;
        // It may be gone after the look-up of its name.
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
