//! The demo's result as a small table.

use std::fs;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::client::{Bulk, Latencies};

/// A bulk phase's row.
#[derive(Debug)]
pub(super) struct BulkRow {
    pub(super) name: String,
    pub(super) moved: Bulk,
    /// Processor time of the relays; none on the direct way.
    pub(super) relays: Option<Duration>,
    /// Processor time of the process: clients, relays, server.
    pub(super) process: Duration,
}

/// A round-trip phase's row.
#[derive(Debug)]
pub(super) struct LatencyRow {
    pub(super) name: String,
    pub(super) times: Latencies,
}

/// Everything measured, in the order of the phases.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) bulk: Vec<BulkRow>,
    pub(super) latency: Vec<LatencyRow>,
    /// Bulk moved beside the keystrokes, which has no row of its own.
    pub(super) beside: Option<Bulk>,
}

impl Report {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "client > entrance relay = one TCP connection = exit relay > server, in one"
        )?;
        writeln!(out, "process over loopback. {}.", machine())?;
        writeln!(out)?;
        writeln!(
            out,
            "{:28}{:>10}{:>20}{:>16}",
            "bulk", "GiB/s", "relays CPU s/GiB", "all CPU s/GiB"
        )?;
        for row in &self.bulk {
            let per_gib = |time: Duration| time.as_secs_f64() / row.moved.gib();
            let relays = row.relays.map_or("-".into(), |time| format!("{:.2}", per_gib(time)));
            writeln!(
                out,
                "{:28}{:>10.2}{relays:>20}{:>16.2}",
                row.name,
                row.moved.gib_per_sec(),
                per_gib(row.process)
            )?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "{:28}{:>10}{:>12}{:>12}{:>12}",
            "round trip, us", "count", "p50", "p90", "p99"
        )?;
        for row in &self.latency {
            write!(out, "{:28}{:>10}", row.name, row.times.count())?;
            for percent in [50.0, 90.0, 99.0] {
                let micros = row.times.percentile(percent).as_secs_f64() * 1e6;
                write!(out, "{micros:>12.0}")?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        let moved = self.bulk.iter().map(|row| &row.moved).chain(&self.beside);
        let gib: f64 = moved.map(Bulk::gib).sum();
        let exchanged: usize = self.latency.iter().map(|row| row.times.count()).sum();
        writeln!(
            out,
            "Every byte of {gib:.2} GiB and {exchanged} messages was compared with what was sent,"
        )?;
        writeln!(out, "and every stream's CRC-32: no difference. (All CPU includes that work.)")
    }
}

/// Kernel, cores and congestion control: without them the figures mean nothing.
fn machine() -> String {
    let read = |path| {
        fs::read_to_string(path).map_or("unknown".into(), |text: String| text.trim().to_owned())
    };
    format!(
        "Linux {}, {} cores, congestion control {}",
        read("/proc/sys/kernel/osrelease"),
        thread::available_parallelism().map_or("unknown".into(), |cores| cores.to_string()),
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
    )
}
