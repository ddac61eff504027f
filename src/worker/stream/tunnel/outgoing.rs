//! Spliced payload on its way out: from the pipe of its stream to the link, behind the head of its frame.
//! Where the tunnel outlives its connection, it is doubled into pipes of the lane before it leaves.

use crate::io::driver::Driver;
use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use crate::worker::stream::tunnel::is_again;
use crate::worker::stream::tunnel::lane::{Lane, Outgoing};
use crate::worker::stream::tunnel::splice::{is_refused, why};
use crate::worker::table::Key;
use crate::worker::token::Kind;

impl Streams {
    /// Moves payload whose head was sent from its pipe to the link. `true`: all of it is sent, or
    /// there was none, or something else goes first. `false`: the link accepts no more for now, or is gone.
    pub(in crate::worker::stream) fn pipe_to_link<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) -> bool {
        loop {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
            if !tunnel.lane.outgoing_is_next() {
                return true;
            }
            let keeps = tunnel.session.resumes();
            let Lane { id, outgoing, retained, link, .. } = &mut tunnel.lane;
            let Some(rest) = outgoing else { return true };
            if rest.left_bytes == 0 {
                self.finish_outgoing(cx, key);
                return true;
            }
            let Some(output) = link.output() else { return false };
            if keeps && rest.kept_bytes == 0 {
                if !retained.has_room() {
                    // Goes on when the peer has read some.
                    return false;
                }
                rest.kept_bytes = retained.double(&mut cx.buffers, &rest.pipe, rest.left_bytes);
            }
            let next_bytes = if keeps { rest.kept_bytes } else { rest.left_bytes };
            if next_bytes == 0 {
                cx.counters.pipe_full += 1;
                if !self.copy_outgoing(cx, key) {
                    return false;
                }
                continue;
            }
            match rest.pipe.drain(output, next_bytes) {
                Ok(bytes) if bytes > 0 => rest.sent(bytes),
                Err(error) if is_again(&error) => {
                    let token = Kind::LinkWritable.of(*id);
                    cx.driver.poll(output, libc::POLLOUT as u32, false, token);
                    tunnel.lane.begin_sending(None, cx.now);
                    return false;
                }
                // The head is sent: what stands behind it in the pipe has to follow.
                Err(error) if is_refused(&error) => {
                    cx.counters.splice_refused += 1;
                    if !self.copy_outgoing(cx, key) {
                        return false;
                    }
                }
                result => {
                    let reason = format!("sending to the peer: {}", why(&result));
                    self.break_tunnel(cx, key, &reason);
                    return false;
                }
            }
        }
    }

    /// Lets the stream of spliced payload that has left its pipe go on, if it all has.
    pub(super) fn finish_outgoing<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let is_over = |outgoing: &mut Outgoing| outgoing.left_bytes == 0;
        if let Some(outgoing) = tunnel.lane.outgoing.take_if(is_over) {
            cx.buffers.pipes.give_back(outgoing.pipe);
            self.read_conn(cx, outgoing.conn);
        }
    }

    /// Copies a buffer's worth of payload that is to follow its head, and sends it. `false`: the rest has to
    /// wait, or the tunnel is gone.
    fn copy_outgoing<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let keeps = tunnel.session.resumes();
        let Some(rest) = &mut tunnel.lane.outgoing else { return true };
        let most_bytes = if rest.kept_bytes > 0 { rest.kept_bytes } else { rest.left_bytes };
        let batch = match cx.buffers.copy_out(&rest.pipe, most_bytes) {
            Ok(batch) => batch,
            Err(error) => {
                self.drop_tunnel(cx, key, &format!("sending to the peer: {error}"));
                return false;
            }
        };
        let is_kept = rest.kept_bytes > 0;
        rest.sent(batch.len_bytes());
        if keeps && !is_kept {
            tunnel.lane.retained.keep(cx, &batch, 0);
        }
        self.send_now(cx, key, batch, true)
    }
}
