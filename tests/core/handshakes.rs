//! Handshakes of two of our ends with somebody between them, who changes a byte, or says again what was
//! said in another handshake.

use std::sync::Arc;

use rustls::CipherSuite;
use sockmux_uring::tls::handshake::Handshake;
use sockmux_uring::tls::record::{self, HEAD_BYTES};

use crate::testkit::pure::choice::Choice as _;
use crate::testkit::pure::seeded::Seeded;
use crate::testkit::pure::tls_keys::{client_config, name, server_config};

const SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

struct End {
    handshake: Handshake,
    /// What it wants to send.
    output: Vec<u8>,
    is_done: bool,
    has_failed: bool,
}

impl End {
    fn new(handshake: Handshake, output: Vec<u8>) -> End {
        End { handshake, output, is_done: false, has_failed: false }
    }

    /// Takes the next record that it wants to send.
    fn next(&mut self) -> Option<Vec<u8>> {
        let whole = record::length(&self.output).expect("a record")?;
        Some(self.output.drain(..whole).collect())
    }

    fn take(&mut self, record: &[u8]) {
        assert!(!self.is_done, "nothing comes behind the handshake");
        if self.has_failed {
            return;
        }
        match self.handshake.advance(record, &mut self.output) {
            Ok(is_done) => self.is_done = is_done,
            Err(_) => self.has_failed = true,
        }
    }
}

/// A handshake as far as it goes: whether both ends are done, and what was sent, in this order.
/// `between` is given each record with its number.
fn shake(mut between: impl FnMut(usize, &mut Vec<u8>)) -> (bool, Vec<Vec<u8>>) {
    let (client, server) = (Arc::new(client_config(SUITE)), Arc::new(server_config(SUITE)));
    let mut first = Vec::new();
    let dials = Handshake::dial(client, name(), &mut first).expect("a configuration");
    let accepts = Handshake::accept(server).expect("a configuration");
    let mut ends = [End::new(dials, first), End::new(accepts, Vec::new())];
    let mut sent = Vec::new();
    loop {
        let mut goes_on = false;
        for from in [0, 1] {
            // What else the server of these tests has to say is none of the handshake (tickets).
            while !ends[1 - from].is_done
                && let Some(mut record) = ends[from].next()
            {
                sent.push(record.clone());
                between(sent.len() - 1, &mut record);
                ends[1 - from].take(&record);
                goes_on = true;
            }
        }
        if !goes_on {
            return (ends.iter().all(|end| end.is_done), sent);
        }
    }
}

#[test]
fn a_changed_byte_ends_the_handshake() {
    let (is_done, sent) = shake(|_, _| {});
    assert!(is_done && sent.len() > 5, "{} records", sent.len());
    let mut choice = Seeded(1);
    for (number, record) in sent.iter().enumerate() {
        let inside = (record.len() - HEAD_BYTES) as u64;
        let some = [0; 4].map(|_| HEAD_BYTES + choice.below(inside) as usize);
        // The head of a sealed record says nothing that its inside does not.
        for at in [HEAD_BYTES, record.len() - 1].into_iter().chain(some) {
            let mask = 1 + choice.below(255) as u8;
            let (is_done, _) = shake(|nth, record| {
                if nth == number {
                    let at = at.min(record.len() - 1);
                    record[at] ^= mask;
                }
            });
            assert!(!is_done, "byte {at} of record {number} changed by {mask:#x}");
        }
    }
}

#[test]
fn what_was_said_in_another_handshake_ends_this_one() {
    let (_, before) = shake(|_, _| {});
    for (number, older) in before.iter().enumerate() {
        let mut is_other = false;
        let (is_done, _) = shake(|nth, record| {
            if nth == number {
                is_other = record != older;
                record.clone_from(older);
            }
        });
        // All but one are alike in no two handshakes.
        assert_eq!(is_done, !is_other, "record {number}");
    }
}
