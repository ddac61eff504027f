//! Reads a link. [`super::link_frames`] decodes what is received. [`crate::worker::dispatch`] calls it for
//! link completions.

use std::io;

use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, RecvMode};
use crate::limits::{CONTROL_BACKLOG, POOL_BUFFER_BYTES};
use crate::tls::record;
use crate::worker::context::Cx;
use crate::worker::stream::conn::Reading;
use crate::worker::stream::tunnel::lane::{Lack, LinkReadMode};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// Why a tunnel in plaintext does not come up: caused by one of the two command lines.
const PEER_IS_ENCRYPTED: &str = "the peer speaks TLS, and this end plaintext: give this end STLS= \
                                 and TLSCONF= too, or the peer neither";

impl Streams {
    /// A bulk buffer is available for a link that waits for one.
    pub(in crate::worker) fn link_has_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            tunnel.lane.starved.take_if(|lack| *lack == Lack::Receive);
            self.read_link(cx, key);
        }
    }

    /// Starts reading the link. Backpressure: not while the peer leaves too many control frames
    /// unread, or has sent more than a turn takes.
    pub(in crate::worker::stream) fn read_link<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let full = (tunnel.session.control_backlog() >= CONTROL_BACKLOG
            && !tunnel.lane.transform.is_always_read())
            || tunnel.lane.transform.is_backed_up();
        let busy = tunnel.lane.reading != Reading::Idle || tunnel.lane.starved.is_some();
        // What is held up stands before what would come: it would only take buffers from others.
        if busy || full || tunnel.is_held_up() || tunnel.lane.input_ended {
            return;
        }
        match tunnel.lane.read_mode {
            LinkReadMode::Received => {
                let mode = RecvMode::Multishot;
                let token = Kind::LinkReceive.of(tunnel.lane.id);
                let op = cx.driver.recv(tunnel.lane.link.input(), mode, BufferClass::Bulk, token);
                tunnel.lane.reading = Reading::Armed { op, mode, cancelled: false };
            }
            LinkReadMode::Spliced => {
                let token = Kind::LinkReady.of(tunnel.lane.id);
                cx.driver.poll(tunnel.lane.link.input(), libc::POLLIN as u32, false, token);
                tunnel.lane.reading = Reading::Watched;
            }
        }
    }

    pub(in crate::worker) fn link_received<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        link: Key,
        more: bool,
        got: io::Result<Option<Chunk>>,
    ) {
        let Some((key, tunnel)) = self.tunnels.of_link_mut(link) else {
            cx.counters.stale += 1;
            return;
        };
        if !more {
            tunnel.lane.reading = Reading::Idle;
        }
        match got {
            Ok(Some(chunk)) => {
                if tunnel.session.is_up() && !tunnel.session.peer_is_ours() {
                    // The original implementation leaves Nagle on. It acknowledges a keystroke
                    // first and holds the echo until that frame is acknowledged in turn; a delayed
                    // ACK would add 40 ms.
                    tunnel.lane.link.acknowledge_now();
                }
                cx.busy_poll.on_payload(chunk.len() >= POOL_BUFFER_BYTES as usize, cx.now);
                if !self.on_link_bytes(cx, flows, key, chunk) {
                    return;
                }
                self.frames_read(cx, key);
            }
            // Behind what the peer has sent.
            Ok(None) if tunnel.is_held_up() || tunnel.lane.transform.is_backed_up() => {
                tunnel.lane.input_ended = true;
            }
            Ok(None) => return self.link_ended(cx, key),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => return self.tunnels.wait_for_buffer(cx, key),
                Some(libc::ECANCELED) => {}
                _ => {
                    return self.break_tunnel(
                        cx,
                        key,
                        &format!("receiving from the peer: {error}"),
                    );
                }
            },
        }
        if !more {
            self.read_link(cx, key);
        }
    }

    /// Takes bytes of the link: to the transform, or to the session. `false`: the tunnel is gone.
    pub(in crate::worker::stream) fn on_link_bytes<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
        chunk: Chunk,
    ) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        if let Some(tls) = tunnel.lane.transform.tls_mut() {
            tunnel.heard = true;
            tls.receive(chunk, cx.now);
            self.take_from_tls(cx, flows, key);
            return self.tunnels.get(key).is_some();
        }
        if !tunnel.heard && is_tls(&chunk) {
            self.drop_tunnel(cx, key, PEER_IS_ENCRYPTED);
            return false;
        }
        self.receive_chunk(cx, flows, key, chunk)
    }
}

/// Whether a connection's first bytes are those of TLS: of a handshake, or of an alert at our hello.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [record::HANDSHAKE | record::ALERT, 3, ..])
}
