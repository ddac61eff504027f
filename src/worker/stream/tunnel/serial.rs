//! Tunnels over a serial line: [`crate::serial_line`] is the transform between session and device, with
//! [`super::tls`] above it where the tunnel is encrypted. [`super::link_write`] calls this module for such
//! lanes.
//!
//! The device is slow, so nothing may queue in front of it. The session is asked for one frame at a
//! time, and only when the line accepts it at once; the most urgent frame is therefore always next. A
//! frame is sealed into a record of its own.

use std::io;

use tracing::info;

use crate::io::direct;
use crate::io::driver::{Driver, Fd};
use crate::io::link::Link;
use crate::limits::{AHEAD_BYTES_MAX, CONTROL_BACKLOG, LINE_RECORD_BYTES_MIN};
use crate::serial_line::{LineChecks, LineConfig, LineError, LineMode, LineProtocol};
use crate::session::Moment;
use crate::tls::settings::Settings;
use crate::wire::v1;
use crate::worker::context::counts::log_line_counts;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::stream::tunnel::is_again;
use crate::worker::stream::tunnel::lane::{Lack, TransformError};
use crate::worker::stream::tunnel::tls::Tls;
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// The line of one tunnel and the data in transit through it.
#[derive(Debug)]
pub(super) struct SerialLine {
    line: LineProtocol,
    /// Encryption of what the line carries. It begins when the line is up, anew with each opening.
    tls: Option<Box<Tls>>,
    /// The mode last logged.
    mode: LineMode,
    /// Bytes for the device, and how many of them it has accepted.
    output: Vec<u8>,
    taken_bytes: usize,
    /// The line has taken nothing when the session might have had something to say.
    holds_back: bool,
    /// Received bytes of the peer's stream.
    inbox: Vec<u8>,
}

impl SerialLine {
    /// A line that was just opened: its capacity, and whether it is to be checked where the peer does.
    /// What is encrypted always has to be.
    pub(in crate::worker::stream) fn new(
        (bytes_per_second, checked): (u32, bool),
        encryption: Option<&Settings>,
        now: Moment,
    ) -> SerialLine {
        let checks = match (encryption, checked) {
            (Some(_), _) => LineChecks::Always,
            (None, true) => LineChecks::WherePeerDoes,
            (None, false) => LineChecks::Never,
        };
        let config = LineConfig { bytes_per_second, incarnation: fastrand::u32(1..), checks };
        let line = LineProtocol::new(config, now);
        let record_bytes = record_bytes(line.payload_bytes());
        let tls = encryption.map(|settings| {
            Box::new(Tls::new(settings, true, now).over_line(record_bytes, bytes_per_second))
        });
        SerialLine {
            line,
            tls,
            mode: LineMode::Probing,
            output: Vec::new(),
            taken_bytes: 0,
            holds_back: false,
            inbox: Vec::new(),
        }
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    pub(super) fn tls_mut(&mut self) -> Option<&mut Tls> {
        self.tls.as_deref_mut()
    }

    /// Maximum stream bytes in a frame of the session: with its head it fills a frame of the line, or a
    /// record.
    pub(in crate::worker::stream) fn frame_bytes(&self) -> u64 {
        match &self.tls {
            None => self.line.frame_bytes() as u64,
            Some(tls) => (tls.payload_bytes_max() - v1::HEADER_BYTES) as u64,
        }
    }

    /// When [`SerialLine::on_time`] is due.
    pub(in crate::worker::stream) fn next_timeout(&self) -> Option<Moment> {
        let of_tls = self.tls.as_ref().and_then(|tls| tls.next_timeout());
        [self.line.next_timeout(), of_tls].into_iter().flatten().min()
    }

    /// Advances the clock; writes nothing.
    pub(super) fn on_time(&mut self, now: Moment) -> Result<(), TransformError> {
        self.line.on_time(now)?;
        if let Some(tls) = &mut self.tls {
            tls.on_time(now)?;
        }
        Ok(())
    }

    /// Whether the line is read regardless of the session's backlog. Input includes
    /// acknowledgements, and the line bounds the rest itself.
    pub(in crate::worker::stream) fn is_always_read(&self) -> bool {
        self.line.mode() != LineMode::Plain
    }

    /// Whether all written data has reached the peer, as far as that is known. What waits for a peer that
    /// has not come is no data.
    pub(in crate::worker::stream) fn is_settled(&self) -> bool {
        let has_sealed = self.tls.as_ref().is_none_or(|tls| tls.is_settled());
        let is_taken = self.line.is_settled() && (has_sealed || !self.line.is_up());
        self.output.is_empty() && is_taken && !(self.holds_back && self.line.is_up())
    }

    /// Whether the peer has not answered for several attempts.
    pub(super) fn is_unheard(&self) -> bool {
        self.line.is_unheard()
    }

    /// Gives the device what TLS says last, as much as it takes at once, whether it arrives or not.
    pub(super) fn say_last(&mut self, link: &Link) {
        let (Some(tls), Some(device)) = (&mut self.tls, link.output()) else { return };
        let last = tls.take_control();
        if !last.is_empty() {
            self.line.say_last(&last, &mut self.output);
            // Whether the device is still there does not matter any more.
            let _ = self.flush(device);
        }
    }

    /// Writes output to the device. `true`: the device accepted all of it.
    fn flush(&mut self, device: &Fd) -> io::Result<bool> {
        while self.taken_bytes < self.output.len() {
            match direct::write_bytes(device, &self.output[self.taken_bytes..]) {
                Ok(bytes) => self.taken_bytes += bytes,
                Err(error) if is_again(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.taken_bytes = 0;
        Ok(true)
    }
}

impl Streams {
    /// Writes what the line can send now: its own control frames, then frames of the session.
    pub(in crate::worker::stream) fn write_line<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        while self.flush_line(cx, key) {
            let now = cx.now;
            let Some(serial) =
                self.tunnels.get_mut(key).and_then(|t| t.lane.transform.serial_line())
            else {
                return;
            };
            if !serial.line.poll_output(&mut serial.output, now)
                && !self.send_frames_to_line(cx, flows, key)
            {
                break;
            }
        }
    }

    /// `false`: the device accepts no more for now, or is gone.
    fn flush_line<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let (Some(serial), Some(device)) =
            (tunnel.lane.transform.serial_line(), tunnel.lane.link.output())
        else {
            return false;
        };
        if tunnel.lane.sending {
            return false;
        }
        match serial.flush(device) {
            Ok(true) => true,
            Ok(false) => {
                let token = Kind::LinkWritable.of(tunnel.lane.id);
                cx.driver.poll(device, libc::POLLOUT as u32, false, token);
                tunnel.lane.begin_sending(None, cx.now);
                false
            }
            Err(error) => {
                self.break_tunnel(cx, key, &format!("writing to the device: {error}"));
                false
            }
        }
    }

    /// Passes session frames to the line, as far as it accepts them at once. Returns whether it
    /// accepted any.
    fn send_frames_to_line<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> bool {
        let now = cx.now;
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let Some(serial) = tunnel.lane.transform.serial_line() else { return false };
        serial.holds_back = serial.line.room_bytes(now) == 0;
        if serial.holds_back {
            return false;
        }
        let leaves = matches!(cx.drain, Drain::Leaving(_));
        let mut frame = match (tunnel.lane.unsent.take(), tunnel.lane.transform.tls_mut()) {
            (Some(rest), _) => rest,
            (None, Some(tls)) => {
                if leaves {
                    tls.say_end(None);
                }
                self.sealed_batch(cx, flows, key).0
            }
            (None, None) if leaves => return false,
            (None, None) => self.make_batch(cx, flows, key).0,
        };
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let Some(serial) = tunnel.lane.transform.serial_line() else { return false };
        let mut took_any = false;
        loop {
            let took = frame.iter().next().map_or(0, |part| serial.line.write(part, now));
            if took == 0 {
                break;
            }
            took_any = true;
            frame.advance(took);
        }
        if frame.is_empty() {
            cx.buffers.give_back(frame);
        } else {
            tunnel.lane.unsent = Some(frame);
        }
        took_any
    }

    /// The device is readable.
    pub(in crate::worker::stream) fn read_line<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        let now = cx.now;
        loop {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            let Some(serial) = tunnel.lane.transform.serial_line() else { return };
            let chunk = match cx.buffers.read_ahead(&tunnel.lane.link, AHEAD_BYTES_MAX) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.break_tunnel(cx, key, "the device is gone"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tunnel.lane.starved = Some(Lack::Pool);
                    self.tunnels.wait_for_pool(cx, key);
                    break;
                }
                Err(error) => {
                    return self.break_tunnel(
                        cx,
                        key,
                        &format!("reading from the device: {error}"),
                    );
                }
            };
            if let Err(error) = serial.line.received(&chunk, now) {
                let reason = explain(error, serial.tls());
                return self.break_tunnel(cx, key, &reason);
            }
            self.take_from_line(cx, flows, key);
            if chunk.len() < AHEAD_BYTES_MAX {
                break;
            }
        }
        self.tunnels.mark(key);
    }

    /// Passes the received stream to the session, or to TLS, unless the session's control backlog is
    /// full.
    pub(in crate::worker::stream) fn take_from_line<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        // What has come to TLS already goes first.
        self.take_from_tls(cx, flows, key);
        loop {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            let is_held_up = tunnel.is_held_up();
            let Some(serial) = tunnel.lane.transform.serial_line() else { return };
            if serial.line.mode() != serial.mode {
                serial.mode = serial.line.mode();
                if cx.log_limit.allow(Class::Tunnel, cx.now) {
                    let (link, mode) = (&tunnel.lane.link, serial.mode.name());
                    info!(tunnel = key.number(), %link, mode, "serial line");
                }
            }
            let mut is_backed_up = false;
            if let Some(tls) = serial.tls.as_mut().filter(|_| serial.line.is_up()) {
                tls.begin_time(cx.now);
                is_backed_up = tls.is_backed_up();
            }
            if tunnel.session.control_backlog() >= CONTROL_BACKLOG || is_held_up || is_backed_up {
                return;
            }
            if serial.inbox.is_empty() {
                serial.line.read(&mut serial.inbox);
            }
            if serial.inbox.is_empty() {
                return;
            }
            let Some((chunk, took)) = cx.buffers.chunk_of(&serial.inbox) else {
                return self.tunnels.wait_for_pool(cx, key);
            };
            serial.inbox.drain(..took);
            if !self.on_link_bytes(cx, flows, key, chunk) {
                return;
            }
        }
    }
}

/// Bytes of a record of bulk: those of one frame of the line, or of a few short ones.
fn record_bytes(line_frame_bytes: usize) -> usize {
    LINE_RECORD_BYTES_MIN.div_ceil(line_frame_bytes) * line_frame_bytes
}

/// The reason shown to the user. An end that refuses the other one begins anew, and what it said last may
/// have been lost on the line.
fn explain(error: LineError, tls: Option<&Tls>) -> String {
    match (error, tls) {
        (LineError::PeerRestarted, Some(tls)) if !tls.is_open() => format!(
            "{error} in the TLS handshake: it may speak plaintext (no STLS= there), or not let in the \
             key of this end, which its log says"
        ),
        _ => error.to_string(),
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        log_line_counts(&self.line.counters());
    }
}
