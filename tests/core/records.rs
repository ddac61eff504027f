//! Records of TLS: against rustls by random scripts, and against records that no library would make.
//!
//! Each run follows from its seed, which a failure prints. To have one again:
//! `RECORD_SEED=1234 cargo test --test core records::`. To try more of them:
//! `RECORD_RUNS=100000 cargo test --release --test core records::`.

use rustls::AlertDescription;
use sockmux_uring::limits::IDLE_RECORDS_MAX;
use sockmux_uring::tls::record::{
    Content, HEAD_BYTES, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, RecordError, length, plain_alert,
};

use crate::testkit::pure::choice::Choice as _;
use crate::testkit::pure::record_target::{self, with_sealer};
use crate::testkit::pure::seeded::Seeded;

/// Runs by default: quick enough for every `cargo test`.
const RUNS: u64 = 150;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn what_either_end_sends_the_other_reads() {
    let one = number("RECORD_SEED");
    let first = one.unwrap_or(1);
    let runs = if one.is_some() { 1 } else { number("RECORD_RUNS").unwrap_or(RUNS) };
    for seed in first..first + runs {
        let run = std::panic::AssertUnwindSafe(|| record_target::random_run(&mut Seeded(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("RECORD_SEED={seed} cargo test --test core records::  # runs this again");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn authentic_records_of_anything_are_read_as_the_standard_has_it() {
    for seed in 0..100 {
        let mut choice = Seeded(seed);
        let mut data: Vec<u8> = (0..600).map(|_| choice.below(256) as u8).collect();
        data[0] = 0;
        record_target::run(&data);
    }
}

#[test]
fn padding_is_cut_off_and_a_record_of_nothing_else_is_an_error() {
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(1));
    let mut padded = [&b"data"[..], &[23], &[0; 900]].concat();
    let mut record = sealer.seal(&padded);
    assert_eq!(ours.open(&mut record), Ok(Content::Data(HEAD_BYTES..HEAD_BYTES + 4)));
    assert_eq!(&record[HEAD_BYTES..HEAD_BYTES + 4], b"data");
    padded = vec![0; 900];
    let error = ours.open(&mut sealer.seal(&padded)).unwrap_err();
    assert_eq!(error, RecordError::NoType);
    assert_eq!(error.alert(), Some(AlertDescription::UnexpectedMessage));
}

#[test]
fn the_longest_record_is_opened_and_no_longer_one() {
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(2));
    let longest = [vec![7; PAYLOAD_BYTES_MAX], vec![23]].concat();
    let mut record = sealer.seal(&longest);
    let place = HEAD_BYTES..HEAD_BYTES + PAYLOAD_BYTES_MAX;
    assert_eq!(ours.open(&mut record), Ok(Content::Data(place)));
    let error = ours.open(&mut sealer.seal(&[longest, vec![0]].concat())).unwrap_err();
    assert_eq!(error.alert(), Some(AlertDescription::RecordOverflow));
    assert_eq!(length(&[23, 3, 3, 0x41, 0]), Ok(Some(RECORD_BYTES_MAX)));
    assert_eq!(length(&[23, 3, 3, 0x41, 1]), Err(RecordError::TooLong { bytes: 0x4101 }));
}

#[test]
fn heads_of_no_records_are_found() {
    assert_eq!(length(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(length(&plain_alert(AlertDescription::UnexpectedMessage)), Ok(Some(7)));
    for head in [*b"\x03\x01\0\0\0", *b"\x17\x02\x03\0\x20", *b"\x18\x03\x03\0\x20"] {
        assert_eq!(length(&head), Err(RecordError::NotTls { head }));
    }
    let (mut ours, _) = with_sealer(&mut Seeded(3));
    let mut alert = plain_alert(AlertDescription::CloseNotify);
    assert_eq!(ours.open(&mut alert), Err(RecordError::Unexpected { kind: 21 }));
}

#[test]
fn records_in_another_order_are_not_authentic() {
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(4));
    let (_first, mut second) = (sealer.seal(b"first\x17"), sealer.seal(b"second\x17"));
    assert_eq!(ours.open(&mut second), Err(RecordError::NotAuthentic));
}

#[test]
fn messages_behind_the_handshake_are_whole_and_a_change_of_keys_is_the_last() {
    let malformed = RecordError::Malformed { kind: 22 };
    let unexpected = RecordError::Unexpected { kind: 22 };
    let cases: [(&[u8], &RecordError); 8] = [
        (&[], &malformed),
        (&[24, 0, 0, 1], &malformed),
        (&[24, 0, 0, 1, 2], &malformed),
        (&[24, 0, 0, 1, 0, 23], &malformed),
        (&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], &malformed),
        (&[4, 0, 0, 9, 1, 2, 3], &malformed),
        (&[4, 0, 0], &malformed),
        (&[1, 0, 0, 0], &unexpected),
    ];
    for (messages, wanted) in cases {
        let (mut ours, mut sealer) = with_sealer(&mut Seeded(5));
        let mut record = sealer.seal(&[messages, &[22]].concat());
        assert_eq!(ours.open(&mut record).as_ref(), Err(wanted), "{messages:?}");
    }
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(5));
    let mut record = sealer.seal(&[4, 0, 0, 2, 9, 9, 24, 0, 0, 1, 1, 22]);
    assert_eq!(ours.open(&mut record), Ok(Content::Nothing));
    assert!(ours.update_is_asked() && ours.update_is_due());
    let mut late = sealer.seal(b"with the key before\x17");
    assert_eq!(ours.open(&mut late), Err(RecordError::NotAuthentic));
}

#[test]
fn a_peer_that_sends_nothing_but_empty_records_is_cut_off() {
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(6));
    for _ in 0..3 {
        for _ in 0..IDLE_RECORDS_MAX {
            assert_eq!(ours.open(&mut sealer.seal(&[23])), Ok(Content::Nothing));
        }
        assert!(matches!(ours.open(&mut sealer.seal(&[1, 23])), Ok(Content::Data(_))));
    }
    for _ in 0..IDLE_RECORDS_MAX {
        assert_eq!(ours.open(&mut sealer.seal(&[23])), Ok(Content::Nothing));
    }
    assert_eq!(ours.open(&mut sealer.seal(&[23])), Err(RecordError::TooManyIdle));
}

#[test]
fn alerts_end_the_connection_but_the_one_that_announces_its_end() {
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(7));
    assert_eq!(ours.open(&mut sealer.seal(&[1, 90, 21])), Ok(Content::Nothing));
    assert_eq!(ours.open(&mut sealer.seal(&[1, 0, 21])), Ok(Content::Closed));
    let (mut ours, mut sealer) = with_sealer(&mut Seeded(8));
    let error = ours.open(&mut sealer.seal(&[2, 46, 21])).unwrap_err();
    assert_eq!(error, RecordError::Alert(AlertDescription::CertificateUnknown));
    assert_eq!(error.alert(), None, "the peer knows");
    assert_eq!(
        ours.open(&mut sealer.seal(&[2, 46, 1, 21])),
        Err(RecordError::Malformed { kind: 21 })
    );
}
