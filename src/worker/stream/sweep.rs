//! The sweep: finds expired deadlines a few times a second. Deadlines of connections are coarse and
//! often changed, so a scan is cheaper than a timer each. [`crate::worker::turn`] runs it.

use std::time::Duration;

use crate::io::driver::Driver;
use crate::limits::SWEEP_MILLIS;
use crate::session::Moment;
use crate::worker::stream::conn::{ReadMode, Stage};
use crate::worker::{Key, Worker};

impl<D: Driver> Worker<D> {
    /// When the next sweep is due, if one is needed.
    pub(in crate::worker) fn next_sweep(&self) -> Option<Moment> {
        self.sweep_is_wanted().then_some(self.conns.next_sweep)
    }

    fn sweep_is_wanted(&self) -> bool {
        let any = self.conns.len() + self.relay.len() > 0;
        let others =
            self.ingress.header_read_count() + self.execs.len() + self.proxies.expected_count();
        self.cx.deadline_count + others > 0 || (self.conns.exits.end_silent && any)
    }

    /// Handles expired deadlines. Scans all connections, a few times a second and only while some
    /// have a deadline.
    pub(in crate::worker) fn sweep_if_due(&mut self) {
        if !self.sweep_is_wanted() || self.cx.now < self.conns.next_sweep {
            return;
        }
        let now = self.cx.now;
        if self.conns.exits.end_silent {
            self.refresh_controls();
        }
        self.conns.next_sweep = now.after(Duration::from_millis(SWEEP_MILLIS));
        let quiet = now.0.saturating_sub(SWEEP_MILLIS * 1_000);
        let (mut due, mut idle_busy): (Vec<Key>, Vec<Key>) = (Vec::new(), Vec::new());
        self.cx.deadline_count = 0;
        for (key, conn) in self.conns.iter() {
            let idle = self.cx.plan.timeouts_of(conn.exit).io;
            let idle_over = idle.is_some_and(|idle| conn.last_data.after(idle) <= now);
            match conn.deadline {
                Some(deadline) if deadline <= now => due.push(key),
                _ if idle_over => due.push(key),
                Some(_) => self.cx.deadline_count += 1,
                None => {}
            }
            if conn.read_mode == ReadMode::Busy {
                self.cx.deadline_count += 1;
                if conn.last_data.0 < quiet {
                    idle_busy.push(key);
                }
            }
        }
        self.relay.sweep(&mut self.cx);
        self.sweep_header_reads();
        let conns = &self.conns;
        self.execs.sweep(&mut self.cx, |key| conns.get(key).is_some());
        self.sweep_expected();
        for key in idle_busy {
            self.demote(key);
        }
        for key in due {
            self.deadline_expired(key);
        }
    }

    /// Data of related connections counts as data of their control connection.
    fn refresh_controls(&mut self) {
        let mut used: Vec<(Key, Moment)> = Vec::new();
        let of_conns = self.conns.iter();
        used.extend(of_conns.filter_map(|(_, conn)| Some((conn.related?, conn.last_data))));
        let owner_of = |port| self.forwards.owner_of(port);
        used.extend(self.datagrams.used_by_controls(owner_of));
        for (control, when) in used {
            if let Some(conn) = self.conns.get_mut(control) {
                conn.last_data = conn.last_data.max(when);
            }
        }
    }

    fn deadline_expired(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Stage::Dialing(_) = conn.stage {
            // The dial enforces TIMEOUT=con.
            return;
        }
        if let Stage::ConnectingUnix(..) = conn.stage {
            self.retry_unix_connect(key);
            return;
        }
        if matches!(conn.stage, Stage::Waiting) {
            return self.client_hold_expired(key);
        }
        if matches!(conn.stage, Stage::ProxyHandshake(_)) {
            return self.proxy_deadline_expired(key);
        }
        if self.check_broken(key) {
            return;
        }
        let over = std::io::Error::from(std::io::ErrorKind::TimedOut);
        self.conn_failed(key, "timed out", &over);
    }
}
