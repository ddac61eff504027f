//! The sweep: finds expired deadlines a few times a second. Deadlines of connections are coarse and
//! often changed, so a scan is cheaper than a timer each. [`crate::worker::turn`] runs it.

use std::time::Duration;

use crate::io::driver::Driver;
use crate::limits::SWEEP_MILLIS;
use crate::session::Moment;
use crate::worker::context::{Cx, Effect};
use crate::worker::message::HandshakeEvent;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{ReadMode, Stage};
use crate::worker::table::Key;

/// What the last scan has found.
#[derive(Debug, Default)]
pub(in crate::worker) struct Swept {
    due: Vec<Key>,
    /// Busy streams that were idle for a while.
    idle_busy: Vec<Key>,
}

impl Streams {
    /// When the next sweep is due, if one is wanted.
    pub(in crate::worker) fn next_sweep(&self) -> Moment {
        self.conns.next_sweep
    }

    /// Deadlines of connections, for the simulator.
    #[cfg(test)]
    pub(in crate::worker) fn conn_deadlines(&self) -> impl Iterator<Item = Moment> {
        self.conns.iter().filter_map(|(_, conn)| conn.deadline)
    }

    /// Scans all connections for deadlines that have expired.
    pub(in crate::worker) fn scan_deadlines<D: Driver>(&mut self, cx: &mut Cx<D>) -> Swept {
        let now = cx.now;
        self.conns.next_sweep = now.after(Duration::from_millis(SWEEP_MILLIS));
        let quiet = now.0.saturating_sub(SWEEP_MILLIS * 1_000);
        let mut swept = Swept::default();
        cx.deadline_count = 0;
        for (key, conn) in self.conns.iter() {
            let idle = cx.timeouts_of(conn.exit.as_ref()).io;
            let idle_over = idle.is_some_and(|idle| conn.last_data.after(idle) <= now);
            match conn.deadline {
                Some(deadline) if deadline <= now => swept.due.push(key),
                _ if idle_over => swept.due.push(key),
                Some(_) => cx.deadline_count += 1,
                None => {}
            }
            if conn.read_mode == ReadMode::Busy {
                cx.deadline_count += 1;
                if conn.last_data.0 < quiet {
                    swept.idle_busy.push(key);
                }
            }
        }
        swept
    }

    /// Handles what a scan has found.
    pub(in crate::worker) fn finish_sweep<D: Driver>(&mut self, cx: &mut Cx<D>, swept: Swept) {
        for key in swept.idle_busy {
            self.demote(cx, key);
        }
        for key in swept.due {
            self.deadline_expired(cx, key);
        }
    }

    /// Terminates commands whose streams have ended.
    pub(in crate::worker) fn sweep_execs<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let conns = &self.conns;
        self.execs.sweep(cx, |key| conns.get(key).is_some());
    }

    /// A command has exited.
    pub(in crate::worker) fn exec_exited<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let conns = &self.conns;
        self.execs.on_exit(cx, key, |key| conns.get(key).is_some());
    }

    /// Data of related connections counts as data of their control connection, and so does what
    /// flows have carried for these (`of_flows`).
    pub(in crate::worker) fn refresh_controls(&mut self, of_flows: Vec<(Key, Moment)>) {
        let mut used = of_flows;
        let of_conns = self.conns.iter();
        used.extend(of_conns.filter_map(|(_, conn)| Some((conn.related?, conn.last_data))));
        for (control, when) in used {
            if let Some(conn) = self.conns.get_mut(control) {
                conn.last_data = conn.last_data.max(when);
            }
        }
    }

    fn deadline_expired<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Stage::Dialing(_) = conn.stage {
            // The dial enforces TIMEOUT=con.
            return;
        }
        if let Stage::ConnectingUnix(..) = conn.stage {
            self.retry_unix_connect(cx, key);
            return;
        }
        if matches!(conn.stage, Stage::Waiting) {
            return cx.effects.push_back(Effect::HoldExpired(key));
        }
        if matches!(conn.stage, Stage::ProxyHandshake(_)) {
            let expired = Effect::Handshake(key, HandshakeEvent::Deadline);
            return cx.effects.push_back(expired);
        }
        if self.check_broken(cx, key) {
            return;
        }
        let over = std::io::Error::from(std::io::ErrorKind::TimedOut);
        self.conn_failed(cx, key, "timed out", &over);
    }
}
