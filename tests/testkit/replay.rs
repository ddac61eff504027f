//! Plays one end of a recording to the real binary, in the place of the original.
//!
//! The frames of the recorded end are sent as they were, but for the ids that the binary chose and for
//! SENT, which answers the binary's own data: it may split its data differently.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::DEADLINE;
use super::peer::{Frame, NO_ID, Peer, kind};
use super::stories::{Act, End, Recorded, Trace, first_data};

/// Four packets of the greatest size: past this the original waits for SENT.
const UNACKNOWLEDGED_BYTES: usize = 4 * 16384;

/// The binary's frames of one stream so far.
#[derive(Default)]
struct Seen {
    /// The binary's id of the stream, once it has sent CONNECT or CONNECTED.
    id: Option<u16>,
    /// Text of its CONNECT or CONNECTED.
    text: String,
    first_data: Vec<u8>,
    data: Vec<u8>,
    /// Where each piece of it ends.
    ends: Vec<usize>,
    urgent: Vec<u8>,
    /// Bytes of ours that it has acknowledged.
    acknowledged: usize,
    closes: usize,
    closeds: usize,
}

impl Seen {
    fn hear(&mut self, piece: &[u8]) {
        if !piece.is_empty() {
            self.data.extend(piece);
            self.ends.push(self.data.len());
        }
    }

    /// Bytes of each piece.
    fn pieces(&self) -> impl Iterator<Item = usize> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| end - start)
    }
}

/// Our side of one stream.
#[derive(Default)]
struct Said {
    id: u16,
    /// Bytes sent in SEND: those that are acknowledged.
    sent: usize,
}

/// One end of the recording in play.
pub struct Replay<'t> {
    trace: &'t Trace,
    played: End,
    peer: Peer,
    hello_oks: usize,
    options: Vec<Vec<u8>>,
    seen: Vec<Seen>,
    said: Vec<Said>,
    urgent_heard: Arc<AtomicBool>,
    /// Its streams carry datagrams: as recorded, each is a piece.
    datagrams: bool,
}

impl<'t> Replay<'t> {
    /// Plays the end `played` of `trace` over `stream`.
    pub fn new(trace: &'t Trace, played: End, stream: TcpStream) -> Replay<'t> {
        let mut replay = Replay {
            trace,
            played,
            peer: Peer { stream },
            hello_oks: 0,
            options: Vec::new(),
            seen: Vec::new(),
            said: Vec::new(),
            urgent_heard: Arc::default(),
            datagrams: false,
        };
        replay.seen.resize_with(trace.stories.len(), Seen::default);
        replay.said.resize_with(trace.stories.len(), Said::default);
        replay
    }

    /// The recording is one of datagrams.
    pub fn of_datagrams(mut self) -> Replay<'t> {
        self.datagrams = true;
        self
    }

    /// Becomes true when the binary has passed on urgent data.
    pub fn urgent_heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.urgent_heard)
    }

    /// Plays everything. `entrance_opens` is called where the recording has a stream begin at
    /// the binary's end, with the stream's number. Gives the connection back, still up.
    pub fn run(mut self, mut entrance_opens: impl FnMut(usize)) -> Peer {
        let trace = self.trace;
        for (nth, recorded) in trace.frames.iter().enumerate() {
            if recorded.from == self.played {
                self.say(recorded, nth);
            } else if recorded.frame.kind == kind::CONNECT {
                let stream = recorded.stream.expect("CONNECT has a stream");
                entrance_opens(stream);
                self.read_until(|replay| replay.seen[stream].id.is_some());
            }
        }
        self.finish()
    }

    /// Sends the played end's frame at this point, once the binary has sent its recorded frames before
    /// it.
    fn say(&mut self, recorded: &Recorded, nth: usize) {
        let mut frame = recorded.frame.clone();
        let Some(stream) = recorded.stream else {
            return self.peer.send(&frame);
        };
        // The binary may leave its first data for after CONNECTED.
        let before = match frame.kind {
            kind::CONNECTED => 0,
            _ => self.heard_before(stream, nth),
        };
        match frame.kind {
            kind::SENT | kind::SENT_OOB => return,
            kind::CONNECT => self.said[stream].id = frame.sender,
            kind::CONNECTED => self.said[stream].id = frame.sender,
            kind::CLOSED => self.read_until(|replay| replay.seen[stream].closes > 0),
            _ => {}
        }
        self.read_until(|replay| replay.seen[stream].data.len() >= before);
        if frame.kind == kind::CLOSE && frame.sender != NO_ID {
            // Everything was written to the local socket, and acknowledged.
            self.read_until(|replay| replay.seen[stream].acknowledged == replay.said[stream].sent);
        }
        if frame.kind == kind::SEND {
            // As the original: it reads its client no further while more than this is on its way.
            self.read_until(|replay| {
                let (said, seen) = (&replay.said[stream], &replay.seen[stream]);
                said.sent - seen.acknowledged <= UNACKNOWLEDGED_BYTES
            });
            self.said[stream].sent += frame.payload.len();
        }
        if frame.kind == kind::CLOSE && frame.sender == NO_ID {
            // A refusal answers the CONNECT, by the binary's id; our side never gets one.
            self.said[stream].id = NO_ID;
        }
        if frame.kind != kind::CONNECT && frame.receiver != NO_ID {
            frame.receiver = self.seen[stream].id.expect("the binary has said its id");
        }
        self.peer.send(&frame);
        if frame.kind == kind::CONNECT {
            // One after the other, so that the binary's server sees them in this order.
            self.read_until(|replay| {
                replay.seen[stream].id.is_some() || replay.seen[stream].closes > 0
            });
        }
    }

    /// Bytes that the other end had sent on `stream` before the `nth` frame.
    fn heard_before(&self, stream: usize, nth: usize) -> usize {
        let before = self.trace.frames[..nth].iter();
        before
            .filter(|recorded| recorded.from != self.played && recorded.stream == Some(stream))
            .map(|Recorded { frame, .. }| match frame.kind {
                kind::CONNECT | kind::CONNECTED => first_data(frame).len(),
                kind::SEND => frame.payload.len(),
                _ => 0,
            })
            .sum()
    }

    fn read_until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !done(self) {
            // The binary's keep-alive would make a wait for something else an endless one.
            assert!(Instant::now() < end, "the binary says nothing that it should");
            let frame = self.peer.receive().expect("the binary goes on");
            self.hear(frame);
        }
    }

    /// Takes a frame of the binary's.
    fn hear(&mut self, frame: Frame) {
        match frame.kind {
            kind::HELLO => {}
            kind::HELLO_OK => self.hello_oks += 1,
            kind::SET_OPTION => self.options.push(frame.payload),
            kind::ECHO => {
                self.peer.send(&Frame { kind: kind::ECHO_OK, ..frame });
            }
            kind::ECHO_OK => {}
            kind::CONNECT => {
                // Streams begin one after the other: this is the first one not yet begun.
                let stream = self.seen.iter().position(|seen| seen.id.is_none());
                let stream = stream.expect("no more streams than in the recording");
                assert_eq!(frame.receiver, NO_ID);
                self.begins(stream, &frame);
            }
            kind::CONNECTED => {
                let stream = self.stream_of(&frame);
                self.begins(stream, &frame);
            }
            _ => self.hear_of_stream(frame),
        }
    }

    fn begins(&mut self, stream: usize, frame: &Frame) {
        let seen = &mut self.seen[stream];
        assert!(seen.id.is_none(), "a stream begins once");
        assert!(frame.sender < NO_ID, "an id that the original can keep: {}", frame.sender);
        seen.id = Some(frame.sender);
        let first = first_data(frame);
        let text = &frame.payload[..frame.payload.len() - first.len() - 1];
        seen.text = String::from_utf8(text.to_vec()).expect("text");
        seen.first_data = first.to_vec();
        seen.hear(first);
    }

    fn hear_of_stream(&mut self, frame: Frame) {
        let stream = self.stream_of(&frame);
        let (seen, said) = (&mut self.seen[stream], &self.said[stream]);
        let mut answer = |kind, text: String| {
            let payload = [text.as_bytes(), b"\0"].concat();
            self.peer.send(&Frame::new(kind, said.id, frame.sender, &payload));
        };
        match frame.kind {
            kind::SEND => {
                seen.hear(&frame.payload);
                answer(kind::SENT, frame.payload.len().to_string());
            }
            kind::SEND_OOB => {
                seen.urgent.extend(&frame.payload);
                self.urgent_heard.store(true, Ordering::SeqCst);
                answer(kind::SENT_OOB, frame.payload.len().to_string());
            }
            kind::SENT => seen.acknowledged += count(&frame),
            kind::SENT_OOB => assert!(count(&frame) > 0),
            kind::CLOSE => {
                seen.closes += 1;
                // A flow that was forgotten where the original's was not.
                if self.datagrams && !self.trace.closes(stream, self.played.other()) {
                    answer(kind::CLOSED, String::from("OK closed"));
                }
            }
            kind::CLOSED => seen.closeds += 1,
            other => panic!("the binary says {other:#04x}, which the original never does"),
        }
    }

    /// The stream whose frame this is, by our id in it.
    fn stream_of(&self, frame: &Frame) -> usize {
        let live = |said: &Said| said.id == frame.receiver;
        self.said.iter().rposition(live).unwrap_or_else(|| panic!("no such stream: {frame:?}"))
    }

    /// Waits for the remaining frames, then compares all frames of the binary with those recorded.
    fn finish(mut self) -> Peer {
        let binary = self.played.other();
        let packet_size = vec![3, 0x40, 0];
        self.read_until(|replay| replay.hello_oks == 2 && replay.options.contains(&packet_size));
        for (stream, story) in self.trace.stories.iter().enumerate() {
            let closed_by = |end| story.acts.contains(&Act::Close(end));
            let refused_by = |end| story.acts.contains(&Act::Refuse(end));
            if closed_by(self.played) || refused_by(self.played) {
                self.read_until(|replay| replay.seen[stream].closeds > 0);
            }
            if closed_by(binary) || refused_by(binary) {
                self.read_until(|replay| replay.seen[stream].closes > 0);
            }
            let recorded = story.data_of(binary);
            // Flows end without a word behind the last datagram.
            self.read_until(|replay| replay.seen[stream].data.len() >= recorded.len());
            let seen = &self.seen[stream];
            assert!(seen.data == recorded, "stream {stream}: other data");
            if self.datagrams {
                let recorded = story.pieces_of(binary).into_iter().map(<[u8]>::len);
                assert!(seen.pieces().eq(recorded), "stream {stream}: other datagrams");
            }
            let urgent =
                story.acts.iter().any(|act| matches!(act, Act::Urgent(e, _) if *e == binary));
            assert_eq!(!seen.urgent.is_empty(), urgent, "stream {stream}: urgent data");
            assert!(seen.closes <= 1 && seen.closeds <= 1, "stream {stream} ends once");
            if !refused_by(binary) {
                check_text(&seen.text);
            }
            if !self.said_first_data() {
                assert!(seen.first_data.is_empty(), "first data, which was not asked for");
            }
        }
        assert!(self.options.iter().all(|option| option[0] != 1), "a cipher was offered");
        self.peer.check_alive(b"to the end");
        self.peer
    }

    /// Whether the played end takes first data in CONNECT and CONNECTED.
    fn said_first_data(&self) -> bool {
        self.trace.frames.iter().any(|recorded| {
            recorded.from == self.played
                && recorded.frame.kind == kind::SET_OPTION
                && recorded.frame.payload.first() == Some(&2)
        })
    }
}

/// The decimal count of SENT.
fn count(frame: &Frame) -> usize {
    let digits = frame.payload.strip_suffix(b"\0").expect("a NUL ends the count");
    std::str::from_utf8(digits).expect("digits").parse().expect("a decimal count")
}

/// CONNECT and CONNECTED carry `98304 HOST:PORT HOST:PORT`.
fn check_text(text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!(words.len(), 3, "{text}");
    assert_eq!(words[0], "98304", "{text}");
    for address in &words[1..] {
        address.parse::<std::net::SocketAddr>().unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}
