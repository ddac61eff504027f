//! Recordings of the original: frames, and the events of each stream.

use std::collections::HashMap;

use super::peer::{Frame, NO_ID, kind};
use super::recording::{self, Role, What};

/// An end of the persistent connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Connector,
    Receptor,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Connector => End::Receptor,
            End::Receptor => End::Connector,
        }
    }
}

/// One recorded frame.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub from: End,
    pub frame: Frame,
    /// The stream that it belongs to, counted from 0 in the order of CONNECT.
    pub stream: Option<usize>,
}

/// The events of one stream, as seen at its two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Data(End, Vec<u8>),
    Urgent(End, Vec<u8>),
    Close(End),
    /// The exit's end could not reach its server.
    Refuse(End),
}

/// One stream from CONNECT to CLOSED.
#[derive(Debug, Clone)]
pub struct Story {
    /// Where it begins.
    pub entrance: End,
    pub acts: Vec<Act>,
}

impl Story {
    /// All ordinary data that `end` sends.
    pub fn data_of(&self, end: End) -> Vec<u8> {
        self.pieces_of(end).concat()
    }

    /// As [`Story::data_of`], in the pieces that it was recorded in.
    pub fn pieces_of(&self, end: End) -> Vec<&[u8]> {
        let data = self.acts.iter().filter_map(|act| match act {
            Act::Data(from, data) if *from == end => Some(&data[..]),
            _ => None,
        });
        data.collect()
    }
}

/// A whole recording.
pub struct Trace {
    pub frames: Vec<Recorded>,
    pub stories: Vec<Story>,
}

impl Trace {
    /// Reads `tests/traces/NAME.json` up to the point where the cipher makes it unreadable.
    pub fn load(name: &str) -> Trace {
        let mut trace = Trace { frames: Vec::new(), stories: Vec::new() };
        let mut streams = HashMap::new();
        for entry in recording::load_one(name).entries {
            let What::Packet(role, packet) = entry.what else { continue };
            if packet.kind == kind::CRYPT_ON {
                break;
            }
            let from = match role {
                Role::Connector => End::Connector,
                Role::Receptor => End::Receptor,
            };
            let frame = Frame::new(packet.kind, packet.said, packet.raid, &packet.payload);
            trace.take(&mut streams, from, frame);
        }
        trace
    }

    /// Whether `end` closes this stream.
    pub fn closes(&self, stream: usize, end: End) -> bool {
        self.stories[stream].acts.contains(&Act::Close(end))
    }

    /// Adds a frame. `streams` maps the ids of an end to streams.
    fn take(&mut self, streams: &mut HashMap<(End, u16), usize>, from: End, frame: Frame) {
        if frame.kind == kind::CONNECT {
            streams.insert((from, frame.sender), self.stories.len());
            self.stories.push(Story { entrance: from, acts: Vec::new() });
        } else if frame.kind == kind::CONNECTED {
            let stream = streams[&(from.other(), frame.receiver)];
            streams.insert((from, frame.sender), stream);
        }
        let is_of_stream = matches!(
            frame.kind,
            kind::CONNECT
                | kind::CONNECTED
                | kind::SEND
                | kind::SENT
                | kind::SEND_OOB
                | kind::SENT_OOB
                | kind::CLOSE
                | kind::CLOSED
        );
        // A refusal has no id of its sender's.
        let stream = is_of_stream.then(|| match frame.sender {
            NO_ID => streams[&(from.other(), frame.receiver)],
            sender => streams[&(from, sender)],
        });
        if let Some(stream) = stream {
            let acts = &mut self.stories[stream].acts;
            match frame.kind {
                kind::CONNECT | kind::CONNECTED if !first_data(&frame).is_empty() => {
                    acts.push(Act::Data(from, first_data(&frame).to_vec()));
                }
                kind::SEND => acts.push(Act::Data(from, frame.payload.clone())),
                kind::SEND_OOB => acts.push(Act::Urgent(from, frame.payload.clone())),
                kind::CLOSE if frame.sender == NO_ID => acts.push(Act::Refuse(from)),
                kind::CLOSE => acts.push(Act::Close(from)),
                _ => {}
            }
        }
        self.frames.push(Recorded { from, frame, stream });
    }
}

/// The bytes behind the text of CONNECT or CONNECTED.
pub fn first_data(frame: &Frame) -> &[u8] {
    let end = frame.payload.iter().position(|byte| *byte == 0).expect("a NUL ends the text");
    &frame.payload[end + 1..]
}
