//! Records of TLS, with whatever a seed or a fuzzer makes of them: our end against one of rustls, and
//! against records that no library would make.

use std::io::Write;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, Connection, ConnectionTrafficSecrets};
use sockmux_uring::tls::record::{
    CONTROL_BYTES_MAX, Content, OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, RecordError, Records, length,
};

use super::bytes::Bytes;
use super::choice::Choice;
use super::tls_ends::{self, Ends};
use super::tls_keys::SUITES;

/// Sizes of payload around where something changes, and any.
fn size(choice: &mut impl Choice) -> usize {
    let most = PAYLOAD_BYTES_MAX as u64;
    let any = choice.below(most + 1);
    choice.pick(&[any, 1, 0, 15, 16, 17, most - 1, most, any % 300]) as usize
}

fn payload(bytes: usize, choice: &mut impl Choice) -> Vec<u8> {
    let first = choice.below(256) as u8;
    (0..bytes).map(|at| first.wrapping_add((at % 251) as u8)).collect()
}

/// Our end, and one of rustls.
struct World {
    ours: Records,
    theirs: Connection,
    /// On their way.
    to_them: Vec<u8>,
    to_us: Vec<u8>,
    /// Sent by one end and received by the other.
    we_sent: Vec<u8>,
    they_read: Vec<u8>,
    they_sent: Vec<u8>,
    we_read: Vec<u8>,
}

impl World {
    fn new(choice: &mut impl Choice) -> World {
        let (dials, suite) = (choice.below(2) == 1, choice.pick(&SUITES));
        let Ends { ours, theirs, for_us } = tls_ends::establish(dials, suite, choice);
        assert_eq!(ours.suite, suite);
        let mut ours = ours.records;
        ours.set_records_per_key(choice.pick(&[u64::MAX, 1, 2, 3, 7, 20]));
        let [we_sent, they_read, they_sent, we_read] = [const { Vec::new() }; 4];
        let to_us = for_us;
        World { ours, theirs, to_them: Vec::new(), to_us, we_sent, they_read, they_sent, we_read }
    }

    fn update(&mut self) {
        let mut record = [0; CONTROL_BYTES_MAX];
        let bytes = self.ours.seal_key_update(&mut record).expect("a key");
        self.to_them.extend_from_slice(&record[..bytes]);
        assert!(!self.ours.update_is_asked());
    }

    fn we_send(&mut self, choice: &mut impl Choice) {
        while self.ours.update_is_due() {
            self.update();
        }
        let payload = payload(size(choice), choice);
        let mut record = vec![0; payload.len() + OVERHEAD_BYTES + choice.below(9) as usize];
        let bytes = match choice.below(2) {
            0 => self.ours.seal(&payload, &mut record),
            _ => {
                record[5..5 + payload.len()].copy_from_slice(&payload);
                self.ours.seal_in_place(&mut record, payload.len())
            }
        };
        let bytes = bytes.expect("it is sealed");
        assert_eq!(bytes, payload.len() + OVERHEAD_BYTES);
        assert_eq!(length(&record), Ok(Some(bytes)));
        self.to_them.extend_from_slice(&record[..bytes]);
        self.we_sent.extend_from_slice(&payload);
    }

    fn they_send(&mut self, choice: &mut impl Choice) {
        for _ in 0..choice.below(3) {
            let payload = payload(2 * size(choice), choice);
            self.theirs.writer().write_all(&payload).expect("no limit");
            self.they_sent.extend_from_slice(&payload);
        }
    }

    /// Some of what is on its way arrives, or all of it.
    fn deliver(&mut self, choice: &mut impl Choice, all: bool) {
        let some = if all { u64::MAX } else { choice.below(40_000) };
        let bytes = self.to_them.len().min(usize::try_from(some).unwrap_or(usize::MAX));
        let arriving: Vec<u8> = self.to_them.drain(..bytes).collect();
        let read = tls_ends::feed(&mut self.theirs, &arriving, choice).expect("they accept it");
        self.they_read.extend_from_slice(&read);
        tls_ends::take_output(&mut self.theirs, &mut self.to_us);
        while let Some(whole) = length(&self.to_us).expect("records")
            && whole <= self.to_us.len()
            && (all || choice.below(4) > 0)
        {
            let mut record: Vec<u8> = self.to_us.drain(..whole).collect();
            match self.ours.open(&mut record).expect("we accept it") {
                Content::Data(place) => self.we_read.extend_from_slice(&record[place]),
                Content::Nothing => {}
                Content::Closed => panic!("nobody has closed"),
            }
        }
    }

    /// All that was sent arrives, answers included.
    fn settle(&mut self, choice: &mut impl Choice) {
        tls_ends::take_output(&mut self.theirs, &mut self.to_us);
        while !(self.to_us.is_empty() && self.to_them.is_empty()) {
            self.deliver(choice, true);
            if self.ours.update_is_asked() {
                self.update();
            }
        }
        assert!(self.they_read == self.we_sent, "what we sent is what they read");
        assert!(self.we_read == self.they_sent, "what they sent is what we read");
    }

    /// The connection ends, in one of the ways in which it can.
    fn end(mut self, choice: &mut impl Choice) {
        let mut record = vec![0; CONTROL_BYTES_MAX];
        match choice.below(5) {
            0 => {
                let close = AlertDescription::CloseNotify;
                let bytes = self.ours.seal_alert(close, &mut record).expect("an alert");
                let read = tls_ends::feed(&mut self.theirs, &record[..bytes], choice);
                assert_eq!(read, Ok(Vec::new()));
                let state = self.theirs.process_new_packets().expect("a state");
                assert!(state.peer_has_closed());
            }
            1 => {
                let alert = AlertDescription::BadRecordMac;
                let bytes = self.ours.seal_alert(alert, &mut record).expect("an alert");
                let read = tls_ends::feed(&mut self.theirs, &record[..bytes], choice);
                assert_eq!(read, Err(rustls::Error::AlertReceived(alert)));
            }
            2 => {
                self.theirs.send_close_notify();
                record.clear();
                tls_ends::take_output(&mut self.theirs, &mut record);
                assert_eq!(self.ours.open(&mut record), Ok(Content::Closed));
            }
            way => {
                // Changed, replayed or left out: not what was sealed with this number.
                self.theirs.writer().write_all(b"changed on its way").expect("no limit");
                record.clear();
                tls_ends::take_output(&mut self.theirs, &mut record);
                if way == 3 {
                    let at = 5 + choice.below(record.len() as u64 - 5) as usize;
                    record[at] ^= 1 << choice.below(8);
                } else {
                    let mut first = record.clone();
                    self.ours.open(&mut first).expect("the first time");
                }
                let error = self.ours.open(&mut record).expect_err("not this record");
                assert_eq!(error, RecordError::NotAuthentic);
                assert_eq!(error.alert(), Some(AlertDescription::BadRecordMac));
            }
        }
    }
}

/// A connection with rustls at its other end: what is sent arrives, whatever happens to keys.
pub(crate) fn random_run(choice: &mut impl Choice) {
    let mut world = World::new(choice);
    for _ in 0..choice.below(30) {
        match choice.below(6) {
            0 | 1 => world.we_send(choice),
            2 | 3 => world.they_send(choice),
            4 => world.theirs.refresh_traffic_keys().expect("the handshake is done"),
            _ => world.update(),
        }
        world.deliver(choice, false);
    }
    world.settle(choice);
    world.end(choice);
}

/// Seals whatever it is given.
pub(crate) struct Sealer {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    number: u64,
}

impl Sealer {
    pub(crate) fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Sealer {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match &secrets {
            Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => unreachable!("the ciphers of TLS 1.3"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).expect("a key"));
        Sealer { key, iv: iv.as_ref().try_into().expect("an IV"), number }
    }

    /// A record of which this is all that is sealed: payload, type, padding.
    pub(crate) fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let sealed_bytes = u16::try_from(inner.len() + 16).expect("a length").to_be_bytes();
        let head = [23, 3, 3, sealed_bytes[0], sealed_bytes[1]];
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= of_number;
        }
        self.number += 1;
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut sealed).expect("sealed");
        [&head[..], &sealed].concat()
    }
}

/// Our end, and who seals anything for it.
pub(crate) fn with_sealer(choice: &mut impl Choice) -> (Records, Sealer) {
    let (dials, suite) = (choice.below(2) == 1, choice.pick(&SUITES));
    let Ends { ours, theirs, for_us } = tls_ends::establish(dials, suite, choice);
    let mut records = ours.records;
    let mut rest = &for_us[..];
    while let Some(whole) = length(rest).expect("records") {
        let mut ticket = rest[..whole].to_vec();
        assert_eq!(records.open(&mut ticket), Ok(Content::Nothing));
        rest = &rest[whole..];
    }
    let secrets = match theirs {
        Connection::Client(client) => client.dangerous_extract_secrets(),
        Connection::Server(server) => server.dangerous_extract_secrets(),
    };
    (records, Sealer::new(secrets.expect("they may be extracted").tx))
}

/// Records that are authentic, and hold anything.
fn anything(choice: &mut Bytes) {
    let (mut ours, mut sealer) = with_sealer(choice);
    while !choice.0.is_empty() {
        let bytes = (choice.below(80) as usize).min(choice.0.len());
        let (inner, rest) = choice.0.split_at(bytes);
        choice.0 = rest;
        let mut inner = inner.to_vec();
        // Of a type that is one more often than not, and padded.
        inner.extend_from_slice(choice.pick(&[&[23][..], &[21], &[22], &[]]));
        inner.resize(inner.len() + choice.below(3) as usize * 500, 0);
        let end = inner.iter().rposition(|&byte| byte != 0);
        let mut record = sealer.seal(&inner);
        match (ours.open(&mut record), end.map(|end| (inner[end], &inner[..end]))) {
            (Ok(Content::Data(place)), Some((23, data))) => {
                assert!(!data.is_empty() && record[place] == *data);
            }
            (Ok(Content::Nothing), Some((23, []) | (21, [_, 90]))) => {}
            // Behind a KeyUpdate there would be another key.
            (Ok(Content::Nothing), Some((22, [.., 24, 0, 0, 1, 0 | 1]))) => return,
            (Ok(Content::Nothing), Some((22, [4, 0, ..]))) => {}
            (Ok(Content::Closed), Some((21, [_, 0]))) => return,
            (Err(_), Some((23, []))) => return,
            (Err(RecordError::NoType), None) => return,
            (Err(_), Some((kind, _))) if kind != 23 => return,
            (result, inner) => panic!("{result:?} of {inner:?}"),
        }
    }
}

/// What the fuzzer runs: the first byte picks.
pub(crate) fn run(data: &[u8]) {
    let mut choice = Bytes(data);
    match choice.below(2) {
        0 => anything(&mut choice),
        _ => random_run(&mut choice),
    }
}
