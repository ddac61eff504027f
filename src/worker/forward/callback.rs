//! Callbacks: a server has connected to the peer's exit, and this end connects it to a client at a
//! port that the client has named (FTP's active mode).
//!
//! A client can name any port, so calls are restricted: only to the client's own host, not below
//! port 1024 (RFC 2577), and to a client on this machine or its link only if a `PERMIT=` for `ftp`
//! at this end allows it. The connection is made from the address that the client has connected to,
//! as a server there would do.

use tracing::debug;

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Proxy, Target};
use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::CALLED_PORT_MIN;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::destinations::Asker;
use crate::policy::routing::NameWanted;
use crate::session::{NO_ADDRESS, StreamKey};
use crate::wire::Transport;
use crate::worker::context::Cx;
use crate::worker::context::dialer::dial::Request;
use crate::worker::forward::Forwards;
use crate::worker::forward::ports::Guest;
use crate::worker::message::{Call, Incoming};
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

/// The protocol whose `PERMIT=` applies to calls.
const CALLER: Proxy = Proxy::Ftp;

impl Forwards {
    /// The peer began a stream to a client of this end. `None`: it was refused.
    pub(in crate::worker) fn on_callback<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        (tunnel, stream): (Key, StreamKey),
        transport: Option<Transport>,
        (user, port): (u64, u16),
    ) -> Option<Incoming> {
        let owner = StreamOwner::conn(user);
        let guest = match (transport, owner) {
            (Some(Transport::Udp), _) => Err("clients are called by TCP only"),
            (_, None) => Err("the client sends datagrams, and has no connection"),
            (_, Some(owner)) => {
                self.guest(streams, owner).map(|guest| (guest, Call { owner, port }))
            }
        };
        match guest {
            Ok((Guest { client, own }, call)) => {
                let (client, entrance) = (Some(client), Some(own));
                let call = Some(call);
                let exit = None;
                Some(Incoming { tunnel, stream, client, entrance, transport, exit, call })
            }
            Err(reason) => {
                streams.refuse_stream(cx, tunnel, stream, NO_ADDRESS, reason, false);
                None
            }
        }
    }

    /// Connects to the client, if permitted.
    ///
    /// # Errors
    /// That depends on the client's name, which is unknown.
    pub(in crate::worker) fn connect_callback<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        incoming: &Incoming,
        call: Call,
        (asker, name): (&Asker, ClientName<'_>),
    ) -> Result<(), NameWanted> {
        let Incoming { tunnel, stream, .. } = *incoming;
        // It may be gone after the look-up of its name.
        let Guest { mut client, mut own } = match self.guest(streams, call.owner) {
            Ok(guest) => guest,
            Err(reason) => {
                streams.refuse_stream(cx, tunnel, stream, NO_ADDRESS, reason, false);
                return Ok(());
            }
        };
        if cx.destinations.want_name(CALLER, None, &asker.caller, name) {
            return Err(NameWanted);
        }
        let may = match call.port {
            port if port < CALLED_PORT_MIN => {
                Err(format!("clients are not called below port {CALLED_PORT_MIN} (RFC 2577)"))
            }
            port => {
                client.set_port(port);
                cx.destinations.may_call(CALLER, client, asker, net::is_ours)
            }
        };
        let acquired = may.and_then(|()| {
            let of_peer = cx.acquire_of_peer(streams.tunnels().peer_of(tunnel))?;
            Ok(LimitGuard::both(cx.connection_limits.acquire(Some(client.ip()))?, of_peer))
        });
        let limit_guard = match acquired {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                streams.refuse_stream(cx, tunnel, stream, client, &reason, false);
                return Ok(());
            }
        };
        own.set_port(0);
        let overall = cx.plan.timeouts.connect.map(|connect| cx.now.after(connect));
        let target = Target { host: client.ip().to_string(), port: client.port() };
        let begun = streams.begin_dialled_exit(cx, incoming, limit_guard, |owner| Request {
            address: Some(client),
            own: Some(own),
            ..Request::new(owner, target, overall)
        });
        if let Some(key) = begun {
            streams.relate(key, call.owner);
            debug!(%client, "call");
        }
        Ok(())
    }
}
