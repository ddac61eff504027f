//! Makes room in the pool before it is used up: resets the streams that hold most of it, of the tunnel whose
//! streams do. Whoever has its clients or its peer's leave everything unread costs its own tunnel.

use std::cmp::Reverse;
use std::collections::HashMap;

use tracing::warn;

use crate::io::driver::Driver;
use crate::limits::POOL_BUFFER_BYTES;
use crate::worker::context::Cx;
use crate::worker::context::log_limit::Class;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::Conn;
use crate::worker::stream::stalled::STALLED;
use crate::worker::stream::tunnel::Tunnel;
use crate::worker::table::Key;

impl Streams {
    /// Resets streams until enough of the pool is free, or will be once their sends have ended.
    pub(in crate::worker) fn make_room<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let wanted = cx.buffers.scarcity();
        if wanted == 0 || cx.now < self.conns.next_room {
            return;
        }
        let (mut holders, mut of_tunnels) = (Vec::new(), HashMap::<Key, usize>::new());
        for (key, conn) in self.conns.iter() {
            let held = self.held_buffers(conn);
            if held > 0 {
                *of_tunnels.entry(conn.tunnel).or_default() += held;
                holders.push((held, conn.tunnel, key));
            }
        }
        let greediest = of_tunnels.into_iter().max_by_key(|&(tunnel, held)| (held, tunnel));
        holders.retain(|&(_, tunnel, _)| greediest.is_some_and(|(most, _)| tunnel == most));
        holders.sort_unstable_by_key(|&(held, _, key)| (Reverse(held), key));
        let mut freed = 0;
        for (held, _, key) in holders {
            if freed >= wanted {
                break;
            }
            freed += held;
            self.out_of_buffers(cx, key);
        }
        if freed < wanted {
            // Others hold it. The scan is not repeated in each turn.
            self.conns.next_room = cx.now.after(STALLED);
        }
    }

    /// How many buffers of the pool hold what the reader of a connection has not taken.
    fn held_buffers(&self, conn: &Conn) -> usize {
        let session = self.tunnels.get(conn.tunnel).map(Tunnel::session).zip(conn.stream);
        // What is being sent is not in the output.
        let delivered_bytes = session.map_or(0, |(session, stream)| session.backlog_bytes(stream));
        let bytes = delivered_bytes.max(conn.output.len_bytes() as u64);
        let whole = usize::try_from(bytes / u64::from(POOL_BUFFER_BYTES)).unwrap_or(usize::MAX);
        match conn.spill {
            Some(_) => whole + 1,
            None => 0,
        }
    }

    /// Resets a stream that finds no buffer for its slow reader, or that holds most of them.
    pub(super) fn out_of_buffers<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        cx.counters.spill_exhausted += 1;
        if cx.may_log(Class::Shortage)
            && let Some(conn) = self.conns.get(key)
        {
            let (stream, free_buffers) = (key.number(), cx.buffers.free_buffers());
            warn!(stream, client = %conn.client, free_buffers, "slow readers use up the buffers: stream reset");
        }
        let error = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        self.conn_failed(cx, key, "out of buffers", &error);
    }
}
