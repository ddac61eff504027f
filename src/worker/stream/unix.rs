//! Exits to Unix sockets. A connect to a Unix socket succeeds or fails at once, except with
//! `EAGAIN` while the listener's backlog is full; then it is retried until `TIMEOUT=con` has
//! passed.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use crate::io::driver::Driver;
use crate::io::{net, unix};
use crate::limits::SWEEP_MILLIS;
use crate::policy::connection_limits::LimitGuard;
use crate::session::NO_ADDRESS;
use crate::worker::context::Cx;
use crate::worker::message::Incoming;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::Stage;
use crate::worker::stream::tunnel::is_again;
use crate::worker::table::Key;

impl Streams {
    /// Opens an exit to a Unix socket.
    pub(super) fn open_unix_exit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        header: Option<Vec<u8>>,
        path: Rc<Path>,
    ) {
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        let connect = cx.timeouts_of(incoming.exit.as_ref()).connect;
        let until = connect.map(|connect| cx.now.after(connect));
        let stage = Stage::ConnectingUnix(Rc::clone(&path), until);
        let Some(key) = self.begin_exit(cx, incoming, limit_guard, header, stage) else { return };
        let (stream, tunnel) = (key.number(), incoming.tunnel.number());
        debug!(stream, tunnel, %client, path = %path.display(), "exit");
        self.retry_unix_connect(cx, key);
    }

    /// Tries to connect to the Unix socket of an exit.
    pub(super) fn retry_unix_connect<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ConnectingUnix(path, until) = &conn.stage else { return };
        let connected = unix::connect(path).and_then(|socket| {
            conn.header.as_ref().map_or(Ok(()), |header| net::send_first(&socket, header))?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => {
                conn.fd = Some(Rc::new(socket));
                self.exit_reached(cx, key);
            }
            Err(error) if is_again(&error) && until.is_none_or(|until| cx.now < until) => {
                let again = cx.now.after(Duration::from_millis(SWEEP_MILLIS));
                self.set_deadline(cx, key, Some(again));
            }
            Err(error) => {
                let why = match is_again(&error) {
                    true => String::from("connect timed out (TIMEOUT=con)"),
                    false => error.to_string(),
                };
                let reason = format!("unix:{}: {why}", path.display());
                self.exit_unreachable(cx, key, &reason);
            }
        }
    }
}
