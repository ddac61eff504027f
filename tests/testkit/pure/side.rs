//! A model of an engine: one session with its decoder and its scripted local sockets.

use std::collections::HashMap;
use std::time::Duration;

use sockmux_uring::session::{
    Ended, Event, Moment, Session, SessionConfig, Sink, StreamKey, Transmit, TunnelError,
};
use sockmux_uring::wire::v03::PAYLOAD_BYTES_MAX;
use sockmux_uring::wire::{DecodeStep, Decoder, Frame, Protocol, Transport};

mod flows;
mod framed;
mod locals;

use super::script::{Exit, Pattern, Plan, Script, address_of, plan_of};

/// Largest datagram towards a peer whose packet size is unknown: both accept the largest.
const UNSAID_BYTES: u64 = PAYLOAD_BYTES_MAX as u64;

/// The cause of a stream's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    Close,
    Closed,
    /// The peer's end of data, after ours.
    End,
    /// A frame of ours.
    Sent,
}

/// A local socket.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) plan: usize,
    /// 0 at the opener, 1 at the exit.
    pub(crate) end: usize,
    pub(crate) script: Script,
    /// It carries datagrams.
    pub(crate) flow: Option<flows::Flow>,
    key: Option<StreamKey>,
    began: Moment,
    /// The time at which the exit decides, if it has not.
    decide_at: Option<Moment>,
    paused: bool,
    write_at: Moment,
    take_at: Moment,
    urgent_left: u8,
    /// Bytes offered to the session, bytes that it has framed, and the first data among them.
    pub(crate) read: u64,
    pub(crate) framed: u64,
    pub(crate) framed_first: u64,
    /// SockMux 1: END was sent; credit sent and received; bytes announced by frames.
    end_said: bool,
    credit_said: u64,
    credit_heard: u64,
    announced: u64,
    /// The session has released the data that it has not framed.
    dropped: bool,
    pub(crate) delivered: u64,
    pub(crate) taken: u64,
    pub(crate) eof: bool,
    pub(crate) reset: bool,
    /// The session was given time for data read before the reset.
    pub(crate) broken: bool,
    pub(crate) opened: bool,
    /// Bytes delivered before the peer's end of data.
    pub(crate) peer_end: Option<u64>,
    pub(crate) ended: Option<(Ended, EndedBy)>,
}

/// One end of the tunnel.
pub(crate) struct Side {
    pub(crate) name: usize,
    pub(crate) session: Session,
    pub(crate) protocol: Protocol,
    /// Taken out while reading.
    decoder: Option<Decoder>,
    sink: Sink,
    pub(crate) locals: Vec<Local>,
    by_key: HashMap<StreamKey, usize>,
    by_plan: Vec<Option<usize>>,
    /// Plans for this side to open.
    pub(crate) to_open: Vec<usize>,
    /// Plans that the peer refused because it was going away.
    pub(crate) given_up: Vec<usize>,
    /// When this side starts going away.
    pub(crate) leave_at: Option<Moment>,
    left: bool,
    peer_leaves: bool,
    retry_at: Moment,
    head: Vec<u8>,
    /// The frame being handled is a CLOSE, or a CLOSED.
    ending: Option<EndedBy>,
    pub(crate) payload_out: u64,
    pub(crate) payload_in: u64,
    /// SockMux 1: payload announced by frames of data, with a stream or not.
    link_in: u64,
    pub(crate) urgent_out: u64,
    pub(crate) urgent_in: u64,
    urgent_frame: bool,
    /// Maximum bytes of a stream that wait for its local socket.
    backlog_max: u64,
    /// Largest packet that the other side accepts.
    packet_max: u64,
    largest_id: u32,
    numbers: framed::Numbers,
    /// Frames received for ended streams.
    pub(crate) late_frames: u64,
}

impl Side {
    pub(crate) fn new(name: usize, config: SessionConfig, backlog_max: u64, now: Moment) -> Side {
        Side {
            name,
            decoder: Some(Decoder::new(config.offer.map_or(0, |offer| offer.newest))),
            session: Session::new(config, now),
            protocol: Protocol::V03,
            sink: Sink::Discard,
            locals: Vec::new(),
            by_key: HashMap::new(),
            by_plan: Vec::new(),
            to_open: Vec::new(),
            given_up: Vec::new(),
            leave_at: None,
            left: false,
            peer_leaves: false,
            retry_at: now,
            head: Vec::new(),
            ending: None,
            payload_out: 0,
            payload_in: 0,
            link_in: 0,
            urgent_out: 0,
            urgent_in: 0,
            urgent_frame: false,
            backlog_max,
            packet_max: 16_384,
            largest_id: 0,
            numbers: framed::Numbers::default(),
            late_frames: 0,
        }
    }

    /// Sets the largest packet that the other side accepts.
    pub(crate) fn set_packet_max(&mut self, bytes: u16) {
        self.packet_max = u64::from(bytes);
    }

    /// Largest id of ours that was sent.
    pub(crate) fn largest_id(&self) -> u32 {
        self.largest_id
    }

    /// Handles bytes of the link.
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        now: Moment,
        plans: &[Plan],
        pattern: &Pattern,
    ) -> Result<(), TunnelError> {
        self.session.received(now);
        let mut decoder = self.decoder.take().expect("a tunnel that has not broken");
        loop {
            let (n, step) = decoder.step(input)?;
            match step {
                DecodeStep::Frame(frame) => {
                    self.ending = match frame {
                        Frame::Close { .. } => Some(EndedBy::Close),
                        Frame::Closed { .. } => Some(EndedBy::Closed),
                        Frame::End { .. } => Some(EndedBy::End),
                        _ => None,
                    };
                    self.urgent_frame = matches!(frame, Frame::Urgent { .. });
                    let late = self.protocol == Protocol::V1 && self.is_late(&frame);
                    let before = self.session.counters().unknown_ids;
                    self.sink = self.session.on_frame(frame, now)?;
                    if let Frame::Data { .. } | Frame::Open { .. } | Frame::Datagrams { .. } = frame
                    {
                        self.link_in += u64::from(frame.payload_bytes());
                    }
                    let unknown = self.session.counters().unknown_ids - before;
                    assert_eq!(unknown, u64::from(late), "{frame:?}");
                    self.take_events(now, plans);
                    self.announce(self.sink, frame.payload_bytes());
                    self.begin_datagrams(frame.payload_bytes());
                }
                DecodeStep::Payload => self.deliver(&input[..n], plans, pattern, now),
                DecodeStep::More => {
                    assert_eq!(n, input.len(), "More must consume everything");
                    self.decoder = Some(decoder);
                    return Ok(());
                }
            }
            input = &input[n..];
        }
    }

    fn deliver(&mut self, bytes: &[u8], plans: &[Plan], pattern: &Pattern, now: Moment) {
        match self.sink {
            Sink::Discard if self.urgent_frame => self.urgent_in += bytes.len() as u64,
            Sink::Discard => self.payload_in += bytes.len() as u64,
            Sink::Urgent(key) => {
                assert!(self.by_key.contains_key(&key));
                self.urgent_in += bytes.len() as u64;
            }
            Sink::Datagrams { key, .. } => self.deliver_datagrams(key, bytes, now),
            Sink::Stream(key) if self.locals[self.by_key[&key]].flow.is_some() => {
                self.deliver_datagrams(key, bytes, now);
            }
            Sink::Stream(key) => {
                let local = &mut self.locals[self.by_key[&key]];
                assert!(!local.reset && local.ended.is_none() && local.peer_end.is_none());
                let seed = plans[local.plan].scripts[1 - local.end].seed;
                assert!(
                    pattern.matches(bytes, seed, local.delivered),
                    "plan {} at side {}: wrong bytes at {}",
                    local.plan,
                    self.name,
                    local.delivered
                );
                if local.delivered == local.taken {
                    local.take_at = local.take_at.max(now);
                }
                local.delivered += bytes.len() as u64;
                self.payload_in += bytes.len() as u64;
                let waiting = local.delivered - local.taken;
                let most = match self.protocol {
                    Protocol::V03 => self.backlog_max,
                    Protocol::V1 => self.session.windows(key).map_or(0, |w| w.window_bytes),
                };
                assert!(waiting <= most, "{waiting} bytes wait, {most} are the most");
            }
        }
    }

    fn take_events(&mut self, now: Moment, plans: &[Plan]) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Up { protocol, .. } => self.protocol = protocol,
                Event::GoingAway => self.peer_leaves = true,
                Event::TakeUp { .. } | Event::Doubted => unreachable!("no lane is taken up here"),
                Event::Incoming { key, client, entrance, transport, .. } => {
                    // Streams that crossed the announcement are still accepted.
                    let in_time = !self.left || self.session.is_leaving();
                    assert!(in_time, "a stream came in after the peer knew that we go away");
                    let plan = plan_of(client.expect("the opener's address is known"));
                    assert_eq!(entrance, Some(address_of(0)));
                    let (Exit::Accept { after } | Exit::Refuse { after, .. }) = plans[plan].exit;
                    let user = self.begin(plan, 1, &plans[plan], now);
                    self.locals[user].decide_at = Some(later(now, after));
                    self.set_key(user, key);
                    let carries =
                        if plans[plan].datagrams { Transport::Udp } else { Transport::Tcp };
                    let v1 = self.protocol == Protocol::V1;
                    assert_eq!(transport, v1.then_some(carries));
                    match plans[plan].datagrams {
                        true => self.session.attach_datagrams(key, user as u64),
                        false => self.session.attach(key, user as u64),
                    }
                }
                Event::PortAsked { .. }
                | Event::PortClosed { .. }
                | Event::PortGiven { .. }
                | Event::EntranceAsked { .. }
                | Event::EntranceAnswered { .. } => {
                    unreachable!("nobody asks for ports or entrances here")
                }
                Event::Opened { user } => {
                    let local = self.live(user);
                    assert!(local.end == 0 && !local.opened);
                    local.opened = true;
                }
                Event::EndOfData { user } => {
                    let local = self.live(user);
                    assert!(local.peer_end.is_none(), "end of data came twice");
                    local.peer_end = Some(local.delivered);
                    local.write_at = local.write_at.max(now);
                }
                Event::ReadMore { user } => {
                    let local = self.live(user);
                    assert!(local.paused, "nobody had been told to wait");
                    local.paused = false;
                    local.write_at = local.write_at.max(now);
                }
                Event::Ended { user, how } => {
                    let by = self.ending.expect("only frames end a stream");
                    // The last frame of each stream, also if its socket is gone.
                    let local = &mut self.locals[user as usize];
                    assert!(local.ended.is_none(), "a stream ended twice");
                    local.ended = Some((how, by));
                    if let Some(key) = local.key.take() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
    }

    /// The local socket of an event: it must exist, and its end must not have been reported.
    fn live(&mut self, user: u64) -> &mut Local {
        let local = &mut self.locals[user as usize];
        assert!(!local.reset && local.ended.is_none(), "an event for a socket that is gone");
        local
    }

    fn begin(&mut self, plan: usize, end: usize, of: &Plan, now: Moment) -> usize {
        if self.by_plan.len() <= plan {
            self.by_plan.resize(plan + 1, None);
        }
        let before = self.by_plan[plan].replace(self.locals.len());
        let script = of.scripts[end];
        assert!(before.is_none(), "plan {plan} began twice");
        self.locals.push(Local {
            plan,
            end,
            script,
            flow: of.datagrams.then(flows::Flow::default),
            key: None,
            began: now,
            decide_at: None,
            paused: false,
            write_at: now,
            take_at: later(now, script.stall),
            urgent_left: script.urgent,
            read: 0,
            framed: 0,
            framed_first: 0,
            end_said: false,
            credit_said: 0,
            credit_heard: 0,
            announced: 0,
            dropped: false,
            delivered: 0,
            taken: 0,
            eof: false,
            reset: false,
            broken: false,
            opened: false,
            peer_end: None,
            ended: None,
        });
        self.locals.len() - 1
    }

    fn set_key(&mut self, user: usize, key: StreamKey) {
        self.locals[user].key = Some(key);
        self.by_key.insert(key, user);
    }

    /// Runs the session's timers if they are due at `now`.
    pub(crate) fn run_clock(&mut self, now: Moment, plans: &[Plan]) -> Result<bool, TunnelError> {
        if self.session.next_timeout().is_none_or(|at| now < at) {
            return Ok(false);
        }
        self.session.on_time(now)?;
        let next = self.session.next_timeout();
        assert!(next.is_none_or(|at| at > now), "a timer that does not move: {next:?} at {now:?}");
        self.ending = None;
        self.take_events(now, plans);
        Ok(true)
    }

    /// Appends frames of the session until `out` has `room` bytes.
    pub(crate) fn transmit(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        now: Moment,
        plans: &[Plan],
        pattern: &Pattern,
    ) -> bool {
        let before = out.len();
        while out.len() < room {
            self.head.clear();
            let in_batch = out.len() > before;
            let Some(transmit) = self.session.poll_transmit(&mut self.head, in_batch) else {
                break;
            };
            self.ending = None;
            self.check_head(transmit);
            out.extend_from_slice(&self.head);
            match transmit {
                Transmit::Control | Transmit::Unkept => {}
                Transmit::Data { key, user, bytes } => {
                    let local = &mut self.locals[user as usize];
                    assert!(!local.dropped, "data of a socket whose data was dropped");
                    assert_eq!(local.key, Some(key));
                    assert!(local.framed + bytes <= local.read, "more framed than was read");
                    pattern.append(out, local.script.seed, local.framed, bytes);
                    local.framed += bytes;
                    if self.protocol == Protocol::V03 && self.head[1] != 0x06 {
                        local.framed_first += bytes;
                    }
                    self.payload_out += bytes;
                }
                Transmit::Datagrams { key, user, bytes } => {
                    let local = &self.locals[user as usize];
                    assert!(local.key == Some(key) && !local.reset);
                    self.frame_datagrams(user, bytes, pattern, out);
                }
                Transmit::Urgent { byte } => {
                    out.push(byte);
                    self.urgent_out += 1;
                }
            }
            self.take_events(now, plans);
        }
        out.len() > before
    }

    fn check_head(&mut self, transmit: Transmit) {
        if self.head[0] != 3 {
            assert_eq!(self.protocol, Protocol::V1);
            return self.check_head_v1(transmit);
        }
        assert!(self.head.len() >= 8 && self.head[0] == 3);
        let declared = u64::from(u16::from_be_bytes([self.head[6], self.head[7]]));
        let behind = match transmit {
            Transmit::Control | Transmit::Unkept => 0,
            Transmit::Data { bytes, .. } | Transmit::Datagrams { bytes, .. } => bytes,
            Transmit::Urgent { .. } => 1,
        };
        assert_eq!(declared, self.head.len() as u64 - 8 + behind, "a head that lies");
        // A datagram cannot be cut: it may have been queued before the peer's size was known.
        let waited = matches!(transmit, Transmit::Datagrams { .. }) && behind <= UNSAID_BYTES;
        assert!(waited || declared + 8 <= self.packet_max, "a packet larger than the peer takes");
        if self.head[1] == 0x02 || self.head[1] == 0x42 {
            let id = u16::from_be_bytes([self.head[2], self.head[3]]);
            assert!(id != 255 && id >= 2);
            self.largest_id = self.largest_id.max(u32::from(id));
        }
    }

    /// The index of a plan's local socket.
    fn user(&self, plan: usize) -> Option<usize> {
        self.by_plan.get(plan).copied().flatten()
    }

    /// This side's local socket of a plan.
    pub(crate) fn local(&self, plan: usize) -> Option<&Local> {
        self.user(plan).map(|user| &self.locals[user])
    }

    pub(crate) fn local_mut(&mut self, plan: usize) -> Option<&mut Local> {
        self.user(plan).map(|user| &mut self.locals[user])
    }

    /// Datagrams received here, and those dropped by our session.
    pub(crate) fn datagrams(&self) -> (u64, u64) {
        let flows = self.locals.iter().filter_map(|local| local.flow.as_ref());
        flows.fold((0, 0), |(got, dropped), flow| (got + flow.got, dropped + flow.dropped))
    }

    /// Number of local sockets that were reset after one direction had ended.
    pub(crate) fn reset_half_closed(&self) -> usize {
        let told = |local: &&Local| {
            let reset = matches!(local.ended, Some((Ended::Reset(_), _))) && !local.reset;
            reset && (local.eof || local.peer_end.is_some())
        };
        self.locals.iter().filter(told).count()
    }

    /// Checks that the session has exactly the streams that have not ended.
    pub(crate) fn check_users(&self) {
        assert_eq!(self.session.stream_count(), self.by_key.len());
        for (&key, &user) in &self.by_key {
            assert_eq!(self.session.user_of(key), Some(user as u64));
        }
    }
}

pub(crate) fn later(now: Moment, micros: u64) -> Moment {
    now.after(Duration::from_micros(micros))
}
