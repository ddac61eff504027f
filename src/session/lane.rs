//! The lane's place: how many bytes of frames have gone each way, so that another connection can go on
//! where one broke. The engine keeps what it has sent until the peer has read it (LANE_READ).
//!
//! What counts is the same at both ends: every byte of SockMux 1, but for the frames that report on the
//! lane itself (LANE_TAKEN, LANE_READ). They are neither kept nor sent again; newer ones say more.

use std::time::Duration;

use super::{Event, Moment, Session, Transmit, TunnelError};
use crate::limits::{DOUBT_MILLIS_MIN, DOUBTS_MAX, LANE_READ_BYTES, LANE_READ_MICROS};
use crate::wire::HELLO_PACKETS;
use crate::wire::v03::{LaneHello, LaneName, NO_ID, TakeUp};

/// Bytes of frames, both ways.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Sent.
    sent: u64,
    /// Sent, and read by the peer.
    acknowledged: u64,
    /// Read from the link.
    read: u64,
    /// Read, and reported to the peer.
    reported: u64,
    /// A report is to be sent by then.
    report_at: Option<Moment>,
    /// A report is to be sent now.
    report_due: bool,
    /// What is sent and not acknowledged waits since then, or since the last report. `None`: nothing is.
    waits_since: Option<Moment>,
    /// Both ends take part.
    counts: bool,
    /// A hello has named the position: none beyond it is reported until that has come to something.
    is_claimed: bool,
    doubt: Doubt,
    /// Doubts in a row without a report in between.
    doubts: u32,
}

/// Whether the connection is still good, while something waits to be read by the peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    /// Nothing has come for a while, and a ping asks for a sign of life.
    Asked,
    /// Nor for another while.
    Doubted,
}

impl Place {
    /// The hello is done. `counts`: both ends can take up the lane.
    pub(super) fn begin(&mut self, counts: bool) {
        self.counts = counts;
    }

    pub(super) fn report_at(&self) -> Option<Moment> {
        self.report_at
    }

    /// What was read is reported with the next batch, if there is anything new.
    pub(super) fn report_soon(&mut self) {
        self.report_due |= self.read > self.reported;
    }

    /// A report whose time has come is sent with the next batch.
    pub(super) fn report_on_time(&mut self, now: Moment) {
        if self.report_at.is_some_and(|at| now >= at) {
            self.report_at = None;
            self.report_due = true;
        }
    }

    /// The position to be reported, if it is time.
    pub(super) fn take_report(&mut self) -> Option<u64> {
        if self.is_claimed || !std::mem::take(&mut self.report_due) {
            return None;
        }
        self.report_at = None;
        self.reported = self.read;
        Some(self.read)
    }
}

impl Session {
    /// Both ends can take up the lane of this session when its connection breaks.
    #[inline]
    pub fn resumes(&self) -> bool {
        self.place.counts
    }

    fn lanes(&self) -> Option<(&LaneHello, &LaneHello)> {
        Some((self.config.lane.as_ref()?, self.peer.lane.as_ref()?))
    }

    /// Whether this is what was issued here for the lane.
    pub fn is_lane(&self, name: &LaneName) -> bool {
        self.lanes().is_some_and(|(own, _)| own.own.is(name))
    }

    /// Another connection is to take up the lane beside the one that it has: where this end stands now. Until
    /// that has come to something the peer keeps what is beyond.
    pub fn claim(&mut self) -> Option<TakeUp> {
        let again = self.take_up()?;
        self.place.is_claimed = true;
        Some(again)
    }

    /// Nothing has come of it.
    pub fn disclaim(&mut self) {
        self.place.is_claimed = false;
        self.place.report_soon();
    }

    /// What takes up the lane at the peer, where this end stands.
    pub fn take_up(&self) -> Option<TakeUp> {
        let (_, peer) = self.lanes()?;
        Some(TakeUp { lane: peer.own, position: self.place.read })
    }

    /// What the hello, which is not said yet, is to say of lanes.
    pub fn offer_lane(&mut self, lane: LaneHello) {
        self.config.lane = self.config.offer.filter(|offer| offer.newest >= 1).map(|_| lane);
    }

    /// A hello that is still to be said answers that this lane goes on. Returns the position that the hello
    /// names: one that asked first has named its own before, and may have read more since.
    pub fn answer_take_up(&mut self, answer: TakeUp) -> u64 {
        self.hello.undecided = false;
        let Some(lane) = &mut self.config.lane else { return answer.position };
        lane.again.get_or_insert(answer).position
    }

    /// No lane is taken up by this connection: its hello says so, and the tunnel is a new one.
    pub fn begin_anew(&mut self) {
        self.hello.undecided = false;
    }

    /// Says all that is left to be said of the hello, without waiting for the peer's part: that of a
    /// connection which takes up a lane is known.
    pub fn finish_hello(&mut self) {
        if !self.hello.is_said() {
            self.say_hello();
        }
        while self.hello.packets_out < HELLO_PACKETS {
            self.say_hello_ok(NO_IDS);
        }
    }

    /// Bytes of frames of the lane that the peer has read, as far as it has said so.
    #[inline]
    pub fn acknowledged(&self) -> u64 {
        self.place.acknowledged
    }

    /// Bytes of frames of the lane that were sent.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.place.sent
    }

    /// Counts what was handed out to be sent behind `head_bytes`.
    #[inline]
    pub(super) fn count_sent(&mut self, transmit: &Transmit, head_bytes: usize) {
        if !self.place.counts {
            return;
        }
        let payload = match *transmit {
            Transmit::Unkept => return,
            Transmit::Control => 0,
            Transmit::Data { bytes, .. } | Transmit::Datagrams { bytes, .. } => bytes,
            Transmit::Urgent { .. } => 1,
        };
        self.place.sent += head_bytes as u64 + payload;
    }

    /// A batch is handed out: what is new in it waits from now on.
    #[inline]
    pub fn batch_made(&mut self, now: Moment) {
        if self.place.counts && self.place.acknowledged < self.place.sent {
            self.place.waits_since.get_or_insert(now);
        }
    }

    /// The engine has read this many bytes of frames from the link.
    #[inline]
    pub fn read(&mut self, bytes: u64, now: Moment) {
        let place = &mut self.place;
        if !place.counts || bytes == 0 {
            return;
        }
        place.read += bytes;
        if place.read - place.reported >= LANE_READ_BYTES {
            place.report_due = true;
        } else if place.report_at.is_none() {
            place.report_at = Some(now.after(Duration::from_micros(LANE_READ_MICROS)));
        }
    }

    /// LANE_READ: how far the peer has read.
    pub(super) fn on_lane_read(&mut self, position: u64, now: Moment) -> Result<(), TunnelError> {
        let place = &mut self.place;
        if !(place.acknowledged..=place.sent).contains(&position) {
            let extra_bytes = position.abs_diff(place.sent);
            return Err(TunnelError::AckOverrun { extra_bytes });
        }
        if position > place.acknowledged {
            place.doubts = 0;
        }
        place.acknowledged = position;
        place.waits_since = (position < place.sent).then_some(now);
        Ok(())
    }

    /// Bytes of any kind have come: the connection is good.
    #[inline]
    pub(super) fn trust(&mut self) {
        self.place.doubt = Doubt::None;
    }

    /// Whether something waits for the peer, and nothing comes from it, not even the answer to a ping.
    pub fn is_doubted(&self) -> bool {
        self.place.doubt == Doubt::Doubted
    }

    /// When the connection is doubted next.
    pub(super) fn doubt_at(&self) -> Option<Moment> {
        let whiles = match self.place.doubt {
            Doubt::None => 1,
            Doubt::Asked => 2,
            Doubt::Doubted => return None,
        };
        let since = self.place.waits_since?.max(self.liveness.last_received());
        let round_trip = self.round_trip().unwrap_or_default();
        let least = Duration::from_millis(DOUBT_MILLIS_MIN << self.place.doubts.min(DOUBTS_MAX));
        Some(since.after((2 * round_trip).max(least) * whiles))
    }

    pub(super) fn doubt_on_time(&mut self, now: Moment) {
        if self.doubt_at().is_none_or(|at| now < at) {
            return;
        }
        if self.place.doubt == Doubt::None {
            self.place.doubt = Doubt::Asked;
            self.ping(now);
        } else {
            self.place.doubt = Doubt::Doubted;
            self.place.doubts += 1;
            self.events.push_back(Event::Doubted);
        }
    }

    /// The connection broke: nothing is sent, and no time runs, until [`Session::resume`].
    pub fn suspend(&mut self) {
        self.is_suspended = true;
    }

    /// Whether the session is without a connection.
    #[inline]
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// A new connection goes on where the peer has read to `position`. `false`, and nothing has changed: it
    /// cannot have.
    pub fn resume(&mut self, position: u64, now: Moment) -> bool {
        if !self.is_suspended || self.on_lane_read(position, now).is_err() {
            return false;
        }
        self.is_suspended = false;
        self.place.is_claimed = false;
        self.trust();
        self.link_window.clock(now);
        self.place.report_due = true;
        self.link_window.report_is_due();
        self.liveness.begin_again(now);
        self.ping(now);
        true
    }
}

/// Ids of an answer to a hello of ours.
const NO_IDS: (u16, u16) = (NO_ID, NO_ID);
