//! Fuzz target: a lane whose peer says anything of positions, and whose connection breaks at any time.

use std::time::Duration;

use sockmux_uring::limits::{DOUBT_MILLIS_MIN, LANE_READ_BYTES, LANE_READ_MICROS};
use sockmux_uring::session::{Moment, Session, TunnelError};
use sockmux_uring::wire::v03::{LaneHello, LaneName};
use sockmux_uring::wire::{DecodeStep, Frame, v1};

use super::bytes::Bytes;
use super::choice::Choice;
use super::lone::{START, lane_name, up_with_lane};

/// A session with a lane, and what has to be true of it.
struct Lane {
    session: Session,
    now: Moment,
    /// Bytes of frames that were read, and what was told of that.
    read: u64,
    reported: u64,
    /// Where this end said that it stands, while another connection is to take the lane up.
    claimed: Option<u64>,
    is_suspended: bool,
}

impl Lane {
    fn begin() -> Lane {
        let (session, now) = (up_with_lane(), START);
        let mut lane =
            Lane { session, now, read: 0, reported: 0, claimed: None, is_suspended: false };
        let mut hello = Vec::new();
        while lane.session.poll_transmit(&mut hello, true).is_some() {}
        assert!(lane.session.resumes());
        lane
    }

    /// One position: those on either side of what may be said are as likely as all others.
    fn position(&self, choice: &mut impl Choice) -> u64 {
        let (acknowledged, sent) = (self.session.acknowledged(), self.session.sent());
        let any = choice.below(sent + 2);
        let edges = [acknowledged, acknowledged.wrapping_sub(1), sent, sent + 1, u64::MAX, any];
        choice.pick(&edges)
    }

    /// `false`: the tunnel is over.
    fn step(&mut self, choice: &mut impl Choice) -> bool {
        match choice.below(9) {
            0 if !self.is_suspended => self.read(choice),
            1 if !self.is_suspended => return self.hear(choice),
            2 => self.pass(choice),
            3 => self.send(),
            4 => {
                let claim = self.session.claim().expect("the peer takes part");
                assert_eq!((claim.lane, claim.position), (lane_name(2), self.read));
                self.claimed = Some(self.read);
            }
            5 => {
                self.session.disclaim();
                self.claimed = None;
            }
            6 => {
                self.session.suspend();
                self.is_suspended = true;
            }
            7 => self.resume(choice),
            _ => {
                self.session.received(self.now);
                assert!(!self.session.is_doubted());
            }
        }
        assert_eq!(self.session.is_suspended(), self.is_suspended);
        assert!(self.session.acknowledged() <= self.session.sent());
        true
    }

    fn read(&mut self, choice: &mut impl Choice) {
        let any = choice.below(1 << 24);
        let bytes = choice.pick(&[0, 1, LANE_READ_BYTES - 1, LANE_READ_BYTES, any]);
        self.session.read(bytes, self.now);
        self.read += bytes;
    }

    /// What the peer says that it has read.
    fn hear(&mut self, choice: &mut impl Choice) -> bool {
        let position = self.position(choice);
        let may_be = (self.session.acknowledged()..=self.session.sent()).contains(&position);
        match self.session.on_frame(Frame::LaneRead { position }, self.now) {
            Ok(_) => assert!(may_be && self.session.acknowledged() == position),
            Err(TunnelError::AckOverrun { .. }) => assert!(!may_be),
            Err(error) => panic!("{error}"),
        }
        may_be
    }

    fn pass(&mut self, choice: &mut impl Choice) {
        let any = choice.below(1 << 32);
        let micros = choice.pick(&[1, LANE_READ_MICROS, DOUBT_MILLIS_MIN * 1_000, any]);
        self.now = self.now.after(Duration::from_micros(micros));
        self.session.on_time(self.now).expect("no silence is too long");
        assert!(!self.is_suspended || self.session.next_timeout().is_none(), "no time runs");
        while self.session.poll_event().is_some() {}
    }

    /// All that is to be sent; what it tells of the lane is true, and new.
    fn send(&mut self) {
        let mut out = Vec::new();
        while self.session.poll_transmit(&mut out, true).is_some() {}
        self.session.batch_made(self.now);
        assert!(!self.is_suspended || out.is_empty(), "there is no connection");
        let (mut decoder, mut rest) = (v1::Decoder::new(), &out[..]);
        while let (n, DecodeStep::Frame(frame)) = decoder.step(rest).expect("frames") {
            rest = &rest[n..];
            if let Frame::LaneRead { position } = frame {
                assert_eq!((position, self.claimed), (self.read, None));
                assert!(position >= self.reported);
                self.reported = position;
            }
        }
    }

    fn resume(&mut self, choice: &mut impl Choice) {
        let position = self.position(choice);
        let may_be = (self.session.acknowledged()..=self.session.sent()).contains(&position);
        let resumed = self.session.resume(position, self.now);
        assert_eq!(resumed, self.is_suspended && may_be);
        if resumed {
            assert_eq!(self.session.acknowledged(), position);
            (self.is_suspended, self.claimed) = (false, None);
        }
    }
}

/// Nothing but what was issued takes the lane up.
fn check_names(session: &Session, choice: &mut impl Choice) {
    let mut name: LaneName = lane_name(1);
    name.number ^= choice.below(4);
    let at = choice.below(name.secret.len() as u64) as usize;
    name.secret[at] ^= choice.below(256) as u8;
    assert_eq!(session.is_lane(&name), name == lane_name(1));
}

/// Positions, breaks and times that the bytes describe; and the bytes as what a hello says of lanes.
pub(crate) fn run(data: &[u8]) {
    if let Some(hello) = LaneHello::decode(data) {
        let mut again = Vec::new();
        hello.encode(&mut again);
        assert!(data.starts_with(&again));
    }
    let mut choice = Bytes(data);
    let mut lane = Lane::begin();
    check_names(&lane.session, &mut choice);
    let mut steps = 0;
    while !choice.0.is_empty() && steps < 500 && lane.step(&mut choice) {
        steps += 1;
    }
}
