//! Two ends by hand: bytes in pieces of any size, in buffers that are their own or others', and few of
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::io::chunk::Pool;
use crate::limits::PEERS_LOOK_SECS;
use crate::tls::record::RecordError;
use crate::tls::settings::Peers;
use crate::worker::sim::{encryption, tls_keys};

const NOW: Moment = Moment(1);

struct End {
    tls: Tls,
    settings: Settings,
    buffers: Buffers,
    /// What is received into, and what frames stand in.
    pool: Pool,
    opened: Vec<u8>,
    is_closed: bool,
}

impl End {
    fn new(end: usize, records_per_key: u64) -> End {
        let settings = encryption(end, records_per_key);
        End {
            tls: Tls::new(&settings, false, NOW),
            settings,
            buffers: Buffers::new(256).expect("memory"),
            pool: Pool::new(64 << 10, 64).expect("memory"),
            opened: Vec::new(),
            is_closed: false,
        }
    }

    /// Seals a batch of these bytes, in parts of any size, and returns what goes to the link.
    fn send(&mut self, bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
        let (mut plain, mut sealed) = (Gather::new(), Gather::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rng.usize(1..=rest.len()).min(60_000));
            plain.push(self.chunk(part, true).0);
            rest = behind;
        }
        assert!(self.tls.write_control(&mut self.buffers, &mut sealed));
        let mut wire = Vec::new();
        loop {
            self.tls.seal(&mut self.buffers, &mut plain, &mut sealed).expect("it is sealed");
            sealed.drain().for_each(|chunk| wire.extend_from_slice(&chunk));
            if plain.is_empty() {
                return wire;
            }
        }
    }

    /// A chunk of a buffer that nothing else refers to, or with who else does.
    fn chunk(&self, bytes: &[u8], is_alone: bool) -> (Chunk, Option<crate::io::chunk::ChunkMut>) {
        let mut buffer = self.pool.take().expect("a free buffer");
        assert_eq!(buffer.put(bytes), bytes.len());
        (buffer.take_written(), (!is_alone).then_some(buffer))
    }

    fn receive(&mut self, mut bytes: &[u8], rng: &mut Rng) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let most = [3, 300, 20_000, 60_000][rng.usize(..4)];
            let (piece, behind) = bytes.split_at(rng.usize(1..=bytes.len()).min(most));
            let (chunk, _other) = self.chunk(piece, rng.u8(..4) > 0);
            self.tls.receive(chunk, NOW);
            self.read()?;
            bytes = behind;
        }
        Ok(())
    }

    /// As far as that goes.
    fn read(&mut self) -> Result<Step, TlsError> {
        loop {
            while let Some(chunk) = self.tls.take_opened() {
                self.opened.extend_from_slice(&chunk);
            }
            match self.tls.step(&self.settings, &mut self.buffers)? {
                Step::Again | Step::Secured => {}
                Step::Closed => self.is_closed = true,
                step @ (Step::Waits | Step::NoBuffer | Step::Looks) => return Ok(step),
            }
        }
    }
}

/// Both ends behind the handshake: the one that dials second.
fn secured(records_per_key: u64, rng: &mut Rng) -> [End; 2] {
    secured_by(records_per_key, rng, |tls| tls)
}

/// The same, with ends that are made from these.
fn secured_by(records_per_key: u64, rng: &mut Rng, made: impl Fn(Tls) -> Tls) -> [End; 2] {
    let mut ends = [0, 1].map(|end| {
        let end = End::new(end, records_per_key);
        End { tls: made(end.tls), ..end }
    });
    for _ in 0..4 {
        for from in [1, 0] {
            let wire = ends[from].send(b"", rng);
            ends[1 - from].receive(&wire, rng).expect("a handshake");
        }
    }
    assert!(ends.iter().all(|end| end.tls.is_open() && end.tls.next_timeout().is_none()));
    ends
}

#[test]
fn bytes_arrive_once_and_in_order_whatever_the_pieces_and_the_keys() {
    for seed in 0..40 {
        let rng = &mut Rng::with_seed(seed);
        let mut ends = secured([u64::MAX, 1, 2, 9][rng.usize(..4)], rng);
        for from in [0, 1] {
            let (mut sent, mut wire) = (Vec::new(), Vec::new());
            for _ in 0..rng.usize(1..6) {
                let bytes: Vec<u8> = (0..rng.usize(..200_000)).map(|_| rng.u8(..)).collect();
                wire.extend(ends[from].send(&bytes, rng));
                sent.extend(bytes);
            }
            ends[from].tls.say_end(None);
            wire.extend(ends[from].send(b"", rng));
            ends[1 - from].receive(&wire, rng).expect("records");
            assert!(ends[1 - from].opened == sent, "seed {seed}");
            assert!(ends[1 - from].is_closed && ends[1 - from].tls.cut_off().is_none());
        }
        let pools = ends.iter().map(|end| end.pool.free());
        assert!(pools.eq([64, 64]), "all buffers are back");
    }
}

#[test]
fn a_batch_that_finds_no_buffers_is_sealed_later() {
    let rng = &mut Rng::with_seed(1);
    let mut ends = secured(u64::MAX, rng);
    let bytes: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
    let (mut plain, mut sealed, mut wire) = (Gather::new(), Gather::new(), Vec::new());
    bytes.chunks(50_000).for_each(|part| plain.push(ends[1].chunk(part, true).0));
    let pool = ends[1].buffers.pool();
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    let mut rounds = 0;
    while !plain.is_empty() {
        let End { tls, buffers, .. } = &mut ends[1];
        tls.seal(buffers, &mut plain, &mut sealed).expect("it is sealed");
        sealed.drain().for_each(|chunk| wire.extend_from_slice(&chunk));
        taken.pop();
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    ends[0].receive(&wire, rng).expect("records");
    assert!(ends[0].opened == bytes);
}

#[test]
fn a_record_that_finds_no_buffer_is_handed_on_later() {
    let rng = &mut Rng::with_seed(2);
    let mut ends = secured(u64::MAX, rng);
    let bytes: Vec<u8> = (0..40_000).map(|_| rng.u8(..)).collect();
    let wire = ends[1].send(&bytes, rng);
    let pool = ends[0].buffers.pool();
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    // In buffers with other holders, so that nothing is opened in place.
    for piece in wire.chunks(10_000) {
        let (chunk, _other) = ends[0].chunk(piece, false);
        ends[0].tls.receive(chunk, NOW);
        ends[0].read().expect("records");
    }
    assert!(ends[0].tls.is_backed_up() && ends[0].opened.len() < bytes.len());
    while ends[0].opened.len() < bytes.len() {
        assert!(taken.pop().is_some(), "with buffers it goes on");
        ends[0].read().expect("records");
    }
    assert!(ends[0].opened == bytes && !ends[0].tls.is_backed_up());
}

#[test]
fn plaintext_is_told_from_tls_by_its_first_byte_and_answered() {
    let rng = &mut Rng::with_seed(3);
    for end in [0, 1] {
        let mut end = End::new(end, u64::MAX);
        end.send(b"", rng);
        let error = end.receive(b"\x03\x01\0\0\0\0\0\0", rng).unwrap_err();
        assert!(matches!(error, TlsError::Plaintext), "{error}");
        end.tls.say_end(Some(&error));
        assert_eq!(end.send(b"", rng), [21, 3, 3, 0, 2, 2, 10]);
    }
}

#[test]
fn a_record_that_was_changed_ends_the_link_and_the_peer_is_told() {
    let rng = &mut Rng::with_seed(4);
    for is_alone in [true, false] {
        let mut ends = secured(u64::MAX, rng);
        let mut wire = ends[1].send(b"in order", rng);
        let good = wire.len();
        wire.extend(ends[1].send(b"changed", rng));
        wire[good + 7] ^= 1;
        let (chunk, _other) = ends[0].chunk(&wire, is_alone);
        ends[0].tls.receive(chunk, NOW);
        let error = ends[0].read().unwrap_err();
        assert!(matches!(error, TlsError::Record(RecordError::NotAuthentic)), "{error}");
        assert_eq!(ends[0].opened, b"in order", "and nothing of the other one");
        ends[0].tls.say_end(Some(&error));
        let alert = ends[0].send(b"", rng);
        let error = ends[1].receive(&alert, rng).unwrap_err();
        let wanted = RecordError::Alert(AlertDescription::BadRecordMac);
        assert!(matches!(error, TlsError::Record(alert) if alert == wanted));
    }
}

#[test]
fn a_handshake_has_its_time_from_the_first_byte_where_a_peer_may_come_at_any_time() {
    let settings = encryption(0, u64::MAX);
    let deadline = NOW.after(Duration::from_secs(HANDSHAKE_SECS));
    let mut tls = Tls::new(&settings, false, NOW);
    assert_eq!(tls.next_timeout(), Some(deadline));
    assert!(tls.on_time(Moment(deadline.0 - 1)).is_ok());
    assert!(matches!(tls.on_time(deadline), Err(TlsError::Timeout { secs: HANDSHAKE_SECS })));
    let mut end = End::new(0, u64::MAX);
    end.tls = Tls::new(&settings, true, NOW);
    assert_eq!(end.tls.next_timeout(), None);
    end.receive(&[22], &mut Rng::with_seed(5)).expect("a beginning");
    assert_eq!(end.tls.next_timeout(), Some(deadline));
    assert!(matches!(end.tls.on_time(deadline), Err(TlsError::Timeout { secs: HANDSHAKE_SECS })));
}

/// The time that the line needs is added, and the peer's may begin before it says anything.
#[test]
fn a_slow_line_gives_a_handshake_more_time_and_bulk_short_records() {
    const RECORD_BYTES_MAX: usize = 128;
    let rng = &mut Rng::with_seed(6);
    let settings = encryption(0, u64::MAX);
    let mut tls = Tls::new(&settings, true, NOW).over_line(RECORD_BYTES_MAX, 960);
    assert_eq!(tls.next_timeout(), None);
    tls.begin_time(NOW);
    let deadline = NOW.after(Duration::from_secs(HANDSHAKE_SECS + 26));
    assert_eq!(tls.next_timeout(), Some(deadline));
    tls.begin_time(deadline);
    assert_eq!(tls.next_timeout(), Some(deadline), "it begins once");
    assert!(matches!(tls.on_time(deadline), Err(TlsError::Unheard { secs: 36 })));

    let mut ends = secured_by(u64::MAX, rng, |tls| tls.over_line(RECORD_BYTES_MAX, 960));
    ends[0].tls.begin_time(NOW);
    assert_eq!(ends[0].tls.next_timeout(), None, "the handshake is done");
    let bytes: Vec<u8> = (0..1_000).map(|_| rng.u8(..)).collect();
    let wire = ends[1].send(&bytes, rng);
    let mut rest = &wire[..];
    while let Some(length) = record::length(rest).expect("records") {
        assert!(length <= RECORD_BYTES_MAX, "{length}");
        rest = &rest[length..];
    }
    assert_eq!(wire.len(), 1_000 + 10 * OVERHEAD_BYTES, "and no shorter than they may be");
    ends[0].receive(&wire, rng).expect("records");
    assert!(ends[0].opened == bytes);
}

/// An end of rustls that names no protocol.
fn without_protocol(dials: bool) -> rustls::Connection {
    if dials {
        let mut config = tls_keys::client_config(tls_keys::SUITES[0]);
        config.alpn_protocols.clear();
        rustls::ClientConnection::new(Arc::new(config), tls_keys::name()).expect("a client").into()
    } else {
        let mut config = tls_keys::server_config(tls_keys::SUITES[0]);
        config.alpn_protocols.clear();
        rustls::ServerConnection::new(Arc::new(config)).expect("a server").into()
    }
}

/// rustls itself goes on without a protocol where one side names none.
#[test]
fn a_peer_that_names_no_protocol_is_refused_and_told() {
    let rng = &mut Rng::with_seed(7);
    for end in [0, 1] {
        let (mut end, mut peer) = (End::new(end, u64::MAX), without_protocol(end == 0));
        let mut refusal = None;
        let told = (0..4).find_map(|_| {
            let wire = end.send(b"", rng);
            let _ = peer.read_tls(&mut &wire[..]).expect("it takes all");
            let told = peer.process_new_packets().err();
            let mut wire = Vec::new();
            while peer.wants_write() {
                let _ = peer.write_tls(&mut wire).expect("a vector takes all");
            }
            if let Err(error) = end.receive(&wire, rng) {
                end.tls.say_end(Some(&error));
                refusal.get_or_insert(error);
            }
            told
        });
        assert!(matches!(refusal, Some(TlsError::OtherProtocol)), "{refusal:?}");
        let wanted = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(told, Some(wanted));
    }
}

/// Peers of a file that somebody has to look at.
#[derive(Default)]
struct InFile {
    is_late: AtomicBool,
}

impl Peers for InFile {
    fn has_file(&self) -> bool {
        true
    }

    fn look(&self) {}

    fn look_is_late(&self) {
        self.is_late.store(true, Ordering::Relaxed);
    }

    fn identify(&self, _: &[CertificateDer<'_>]) -> Result<Peer, String> {
        let name = Some(String::from("hostY"));
        Ok(Peer { fingerprint: String::from("SHA256:of-hostY"), name, options: Arc::default() })
    }
}

/// Either end waits with the key of the other one, and with nothing that comes before it.
#[test]
fn a_key_is_judged_when_the_peers_file_was_looked_at_or_is_late() {
    let rng = &mut Rng::with_seed(8);
    for (end, in_time) in [(0, true), (0, false), (1, true), (1, false)] {
        let mut ends = [0, 1].map(|end| End::new(end, u64::MAX));
        let peers = Arc::new(InFile::default());
        let role = encryption(end, u64::MAX).role().clone();
        ends[end].settings = Settings::new(role, String::new(), peers.clone());
        ends[end].tls = Tls::new(&ends[end].settings, false, NOW);
        while ends[end].read().expect("a handshake") != Step::Looks {
            for from in [1, 0] {
                let wire = ends[from].send(b"", rng);
                ends[1 - from].receive(&wire, rng).expect("a handshake");
            }
        }
        let tls = &mut ends[end].tls;
        assert!(tls.look_mut().begin(NOW) && !tls.look_mut().begin(NOW));
        let until = NOW.after(Duration::from_secs(PEERS_LOOK_SECS));
        assert_eq!(tls.next_timeout(), Some(until));
        tls.on_time(Moment(until.0 - 1)).expect("there is time");
        assert_eq!(ends[end].read().expect("it waits"), Step::Looks);
        match in_time {
            true => ends[end].tls.look_mut().end(true),
            false => ends[end].tls.on_time(until).expect("the handshake has time"),
        }
        assert!(ends[end].tls.is_backed_up() && !peers.is_late.load(Ordering::Relaxed));
        ends[end].read().expect("a handshake");
        assert_eq!(peers.is_late.load(Ordering::Relaxed), !in_time);
        // What comes late changes nothing.
        ends[end].tls.look_mut().end(true);
        assert!(!ends[end].tls.is_backed_up());
        for from in [1, 0] {
            let wire = ends[from].send(b"", rng);
            ends[1 - from].receive(&wire, rng).expect("a handshake");
        }
        let (peer, _) = ends[end].tls.peer().expect("it has come");
        assert_eq!(peer.name.as_deref(), Some("hostY"));
    }
}
