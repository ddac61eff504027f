//! Recordings of the original, as packets.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Type bytes, as in `docs/protocol.md`.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const CONNECT: u8 = 0x02;
    pub(crate) const CONNECTED: u8 = 0x42;
    pub(crate) const SEND: u8 = 0x06;
    pub(crate) const SENT: u8 = 0x46;
    pub(crate) const SEND_OOB: u8 = 0x07;
    pub(crate) const CLOSE: u8 = 0x08;
    pub(crate) const CLOSED: u8 = 0x48;
    pub(crate) const ECHO: u8 = 0x09;
    pub(crate) const SETOPT: u8 = 0x0a;
    pub(crate) const CRYPT_ON: u8 = 0x0c;
}

/// "No id".
pub(crate) const NO_ID: u16 = 255;

/// One whole packet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    /// The sender's id and the receiver's.
    pub(crate) said: u16,
    pub(crate) raid: u16,
    pub(crate) payload: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.payload[..self.payload.len().min(40)]);
        let bytes = self.payload.len();
        write!(f, "{:#04x} {}>{} {bytes} {start:?}", self.kind, self.said, self.raid)
    }
}

impl Packet {
    /// Reads a whole packet.
    pub(crate) fn parse(bytes: &[u8]) -> Packet {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(bytes[0], 3);
        assert_eq!(usize::from(word(6)), bytes.len() - 8);
        Packet { kind: bytes[1], said: word(2), raid: word(4), payload: bytes[8..].to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![3, self.kind];
        for word in [self.said, self.raid, self.payload.len() as u16] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.payload);
        out
    }

    /// It belongs to a stream.
    pub(crate) fn is_of_stream(&self) -> bool {
        matches!(self.kind & 0x3f, kind::CONNECT | kind::SEND | kind::SEND_OOB | kind::CLOSE)
    }

    /// Text up to its NUL.
    pub(crate) fn text(&self) -> &str {
        let end = self.payload.iter().position(|&b| b == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(&self.payload[..end]).expect("text of a recording")
    }

    /// The bytes behind the text.
    pub(crate) fn behind_text(&self) -> &[u8] {
        self.payload.get(self.text().len() + 1..).unwrap_or(&[])
    }

    /// The decimal count of SENT.
    pub(crate) fn count(&self) -> u64 {
        self.text().parse().expect("a count")
    }
}

/// The sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Connector,
    Receptor,
}

/// The events, in the order of the recording.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Packet(Role, Packet),
    /// Bytes that are no packet: behind CRYPTON.
    Opaque,
    Event(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) micros: u64,
    pub(crate) conn: u64,
    pub(crate) what: What,
}

/// A recording.
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
}

impl Trace {
    /// The connections in it that came to be.
    pub(crate) fn connections(&self) -> Vec<u64> {
        let packets = self.entries.iter().filter(|e| matches!(e.what, What::Packet(..)));
        let mut conns: Vec<u64> = packets.map(|entry| entry.conn).collect();
        conns.dedup();
        conns.sort_unstable();
        conns.dedup();
        conns
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

/// All recordings, those with a cipher or those without, by name.
pub(crate) fn load_all(crypt: bool) -> Vec<Trace> {
    let mut traces = Vec::new();
    for file in std::fs::read_dir(folder()).expect("tests/traces") {
        let path = file.expect("tests/traces").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".json") else { continue };
        if stem.ends_with(".crypt") == crypt {
            traces.push(load(stem, &path));
        }
    }
    traces.sort_by(|one, other| one.name.cmp(&other.name));
    traces
}

/// The recording of this name.
pub(crate) fn load_one(name: &str) -> Trace {
    load(name, &folder().join(format!("{name}.json")))
}

fn load(name: &str, path: &Path) -> Trace {
    let text = std::fs::read_to_string(path).expect("a recording");
    let list: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
    let entries = list.iter().filter_map(|entry| {
        // Without bytes: the end of the connection.
        let hex = entry["hex"].as_str().map(unhex).filter(|bytes| !bytes.is_empty());
        let what = match (entry["dir"].as_str(), hex) {
            (Some("event"), _) => What::Event(entry["parsed"]["event"].as_str()?.to_owned()),
            (Some(_), Some(_)) if entry["parsed"]["ver"] != 3 => What::Opaque,
            (Some("connector->receptor"), Some(bytes)) => {
                What::Packet(Role::Connector, Packet::parse(&bytes))
            }
            (Some("receptor->connector"), Some(bytes)) => {
                What::Packet(Role::Receptor, Packet::parse(&bytes))
            }
            _ => return None,
        };
        let micros = (entry["t"].as_f64().expect("a time") * 1e6) as u64;
        Some(Entry { micros, conn: entry["conn"].as_u64().unwrap_or(0), what })
    });
    Trace { name: name.to_owned(), entries: entries.collect() }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text}");
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}
