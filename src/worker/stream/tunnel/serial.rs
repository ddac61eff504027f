//! Tunnels over a serial line: [`crate::serial_line`] is the transform between session and device.
//! [`super::link_write`] calls this module for such lanes.
//!
//! The device is slow, so nothing may queue in front of it. The session is asked for one frame at a
//! time, and only when the line accepts it at once; the most urgent frame is therefore always next.

use std::io;

use tracing::info;

use crate::io::direct;
use crate::io::driver::{Driver, Fd};
use crate::limits::{AHEAD_BYTES_MAX, CONTROL_BACKLOG};
use crate::serial_line::{LineConfig, LineError, LineMode, LineProtocol};
use crate::session::Moment;
use crate::worker::context::counts::log_line_counts;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::stream::tunnel::is_again;
use crate::worker::stream::tunnel::lane::Lack;
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// The line of one tunnel and the data in transit through it.
#[derive(Debug)]
pub(super) struct SerialLine {
    line: LineProtocol,
    /// The mode last logged.
    mode: LineMode,
    /// Bytes for the device, and how many of them it has accepted.
    output: Vec<u8>,
    taken_bytes: usize,
    /// Received bytes of the peer's stream.
    inbox: Vec<u8>,
}

impl SerialLine {
    /// A line that was just opened, with this capacity.
    pub(in crate::worker::stream) fn new(
        bytes_per_second: u32,
        checked: bool,
        now: Moment,
    ) -> SerialLine {
        let config = LineConfig { bytes_per_second, incarnation: fastrand::u32(1..), checked };
        SerialLine {
            line: LineProtocol::new(config, now),
            mode: LineMode::Probing,
            output: Vec::new(),
            taken_bytes: 0,
            inbox: Vec::new(),
        }
    }

    /// Maximum stream bytes in a frame of the session.
    pub(in crate::worker::stream) fn frame_bytes(&self) -> u64 {
        self.line.frame_bytes() as u64
    }

    /// When [`SerialLine::on_time`] is due.
    pub(in crate::worker::stream) fn next_timeout(&self) -> Option<Moment> {
        self.line.next_timeout()
    }

    /// Advances the clock; writes nothing.
    pub(in crate::worker::stream) fn on_time(&mut self, now: Moment) -> Result<(), LineError> {
        self.line.on_time(now)
    }

    /// Whether the line is read regardless of the session's backlog. Input includes
    /// acknowledgements, and the line bounds the rest itself.
    pub(in crate::worker::stream) fn is_always_read(&self) -> bool {
        self.line.mode() != LineMode::Plain
    }

    /// Whether all written data has reached the peer, as far as that is known.
    pub(in crate::worker::stream) fn is_settled(&self) -> bool {
        self.output.is_empty() && self.line.is_settled()
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
                let token = Kind::LinkWritable.of(key);
                cx.driver.poll(device, libc::POLLOUT as u32, false, token);
                tunnel.lane.begin_sending(None, cx.now);
                false
            }
            Err(error) => {
                self.drop_tunnel(cx, key, &format!("writing to the device: {error}"));
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
        if serial.line.room_bytes(now) == 0 {
            return false;
        }
        let mut frame = match tunnel.lane.unsent.take() {
            Some(rest) => rest,
            None if matches!(cx.drain, Drain::Leaving(_)) => return false,
            None => self.make_batch(cx, flows, key).0,
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
                Ok(None) => return self.drop_tunnel(cx, key, "the device is gone"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tunnel.lane.starved = Some(Lack::Pool);
                    self.tunnels.wait_for_pool(cx, key);
                    break;
                }
                Err(error) => {
                    return self.drop_tunnel(cx, key, &format!("reading from the device: {error}"));
                }
            };
            if let Err(error) = serial.line.received(&chunk, now) {
                return self.drop_tunnel(cx, key, &error.to_string());
            }
            self.take_from_line(cx, flows, key);
            if chunk.len() < AHEAD_BYTES_MAX {
                break;
            }
        }
        self.tunnels.mark(key);
    }

    /// Passes the received stream to the session, unless its control backlog is full.
    pub(in crate::worker::stream) fn take_from_line<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
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
            if tunnel.session.control_backlog() >= CONTROL_BACKLOG || is_held_up {
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
            if !self.receive_chunk(cx, flows, key, chunk) {
                return;
            }
        }
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        log_line_counts(&self.line.counters());
    }
}
