//! The original's recorded bytes as input of our session, in each role, and its answers compared with
//! those of the original that it replaces.

mod player;

use std::time::Duration;

use player::{IDLE, Player};
use sockmux_uring::session::{Ended, Moment, SessionConfig, TunnelError};
use sockmux_uring::wire::v03::{Encoder, hello_text};

use crate::testkit::recording::{Entry, NO_ID, Packet, Role, Trace, What, kind, load_all};

const ROLES: [Role; 2] = [Role::Connector, Role::Receptor];

fn packets(trace: &Trace, conn: u64, role: Role) -> Vec<&Packet> {
    let of_role = trace.entries.iter().filter(|entry| entry.conn == conn);
    of_role
        .filter_map(|entry| match &entry.what {
            What::Packet(by, packet) if *by == role => Some(packet),
            _ => None,
        })
        .collect()
}

/// The configuration of the recorded side.
fn config(own: &[&Packet], offers: bool) -> SessionConfig {
    let hello = own.iter().find(|packet| packet.kind == kind::HELLO).expect("a hello");
    let first_data = own.iter().any(|p| p.kind == kind::SETOPT && p.payload[0] == 2);
    SessionConfig {
        hello_text: hello.text().to_owned(),
        answer_text: hello.text().to_owned(),
        first_data,
        offer: SessionConfig::default().offer.filter(|_| offers),
        ..SessionConfig::default()
    }
}

/// Plays one side of the recording up to the end of its connection. The link of `blackhole` goes
/// silent at its event: nothing is fed after it.
fn play(trace: &Trace, conn: u64, role: Role, offers: bool, piece: usize) -> Player {
    let own = packets(trace, conn, role);
    let entries: Vec<&Entry> = trace.entries.iter().filter(|entry| entry.conn == conn).collect();
    let mut player = Player::new(config(&own, offers), Moment(entries[0].micros), piece);
    if is_of_datagrams(trace) {
        player.set_datagrams();
    }
    // A CLOSE that is held back advances our clock; the rest of the recording follows.
    let mut shift = 0;
    for entry in entries {
        let at = Moment(entry.micros + shift);
        player.advance(at).expect("the tunnel stays up");
        match &entry.what {
            What::Packet(by, packet) if *by == role => player.act(packet),
            What::Packet(_, packet) => {
                let place = || format!("{} connection {conn}, played as {role:?}", trace.name);
                player.feed(packet).unwrap_or_else(|error| panic!("{}: {error}", place()));
                if packet.kind & 0x3f == kind::CONNECT {
                    player.take_first();
                }
                let first = player.locals.first().map_or(0, |local| local.said_later);
                if packet.kind == kind::CONNECTED && first > 0 {
                    // In the recording, first data was sent in SEND, which is acknowledged.
                    assert!(is_hurried(trace, conn) && role == Role::Connector);
                    let payload = format!("{first}\0").into_bytes();
                    let ack = Packet { kind: kind::SENT, payload, ..packet.clone() };
                    player.feed(&ack).expect("an acknowledgement is accepted");
                }
            }
            What::Event(event) if event.contains("blackholes") => break,
            What::Event(_) => {}
            What::Opaque => break,
        }
        shift += player.now.0.saturating_sub(at.0);
    }
    player
}

/// Packets by stream, those of the tunnel itself first. ECHO follows each side's own clock and is
/// compared separately.
fn by_stream<'a>(packets: impl Iterator<Item = &'a Packet>) -> Vec<(Option<u16>, Vec<Packet>)> {
    let mut streams: Vec<(Option<u16>, Vec<Packet>)> = vec![(None, Vec::new())];
    for packet in packets.filter(|packet| packet.kind != kind::ECHO) {
        let id = if packet.said == NO_ID { packet.raid } else { packet.said };
        let id = packet.is_of_stream().then_some(id);
        let mut packet = packet.clone();
        if packet.kind == kind::HELLO {
            // The ids of a hello have no meaning, and our offer follows its text.
            (packet.said, packet.raid) = (0, 0);
            packet.payload = packet.text().as_bytes().to_vec();
        }
        match streams.iter_mut().find(|stream| stream.0 == id) {
            Some((_, list)) => list.push(packet),
            None => streams.push((id, vec![packet])),
        }
    }
    streams
}

fn is_of_datagrams(trace: &Trace) -> bool {
    trace.name.starts_with("udp")
}

/// In `udp_more` a client has sent an empty datagram, which the original takes for the end of its
/// mapping. Ours drops an empty datagram, which 0.3 cannot carry, and ends a stream of datagrams only
/// when it is idle, evicted or unreachable. Its CLOSE has the reason; to an original any text is an end.
fn with_reason(stream: &[Packet]) -> Vec<Packet> {
    let mut stream = stream.to_vec();
    for close in stream.iter_mut().filter(|packet| packet.kind == kind::CLOSE) {
        assert_eq!(close.text(), "DO close");
        close.payload = format!("#{IDLE}\0").into_bytes();
    }
    stream
}

fn is_hurried(trace: &Trace, conn: u64) -> bool {
    matches!((&trace.name[..], conn), ("killtunnel", 1) | ("receptor_restart", 4))
}

/// In `killtunnel` and `receptor_restart` the original has clients waiting at the end of its hello,
/// and sends first data in CONNECT before that is negotiated, because the last connection permitted
/// it. Ours negotiates it for each connection: the bytes follow in SEND.
fn without_first_data(stream: &[Packet]) -> Vec<Packet> {
    let mut out = Vec::new();
    for packet in stream {
        let first = if packet.kind == kind::CONNECT { packet.behind_text() } else { &[] };
        let mut packet = packet.clone();
        let first = first.to_vec();
        packet.payload.truncate(packet.payload.len() - first.len());
        let (said, answer) = (packet.said, packet.kind == kind::CONNECT);
        out.push(packet);
        if answer && !first.is_empty() {
            out.push(Packet { kind: kind::SEND, said, raid: NO_ID, payload: first });
        }
    }
    // The id of SEND is known only later: type and bytes are compared here.
    out.iter_mut().for_each(|packet| packet.raid = NO_ID);
    out
}

/// The packets of the recorded side while its connection was up, without acknowledgements after the
/// peer's CLOSE: an original that closes expects none, and our stream has ended by then.
fn own_packets(trace: &Trace, conn: u64, role: Role) -> Vec<&Packet> {
    let heard = |entry: &&Entry| !matches!(&entry.what, What::Event(e) if e.contains("blackholes"));
    let mut closed = Vec::new();
    let mut own = Vec::new();
    for entry in trace.entries.iter().filter(|entry| entry.conn == conn).take_while(heard) {
        match &entry.what {
            What::Packet(by, packet) if *by == role => {
                let late = packet.kind == kind::SENT && closed.contains(&packet.raid);
                own.extend((!late).then_some(packet));
            }
            What::Packet(_, packet) if packet.kind == kind::CLOSE => closed.push(packet.said),
            What::Packet(_, packet) if packet.kind & 0x3f == kind::CONNECT => {
                closed.retain(|&id| id != packet.said);
            }
            _ => {}
        }
    }
    own
}

fn compare(trace: &Trace, conn: u64, role: Role, player: &Player) {
    let place = format!("{} connection {conn}, played as {role:?}", trace.name);
    let recorded = by_stream(own_packets(trace, conn, role).into_iter());
    let sent = by_stream(player.sent.iter());
    assert_eq!(sent.len(), recorded.len(), "{place}: streams");
    let hurried = is_hurried(trace, conn);
    for ((id, sent), (recorded_id, recorded)) in sent.iter().zip(&recorded) {
        assert_eq!(id, recorded_id, "{place}");
        if hurried && id.is_some() && role == Role::Connector {
            assert_eq!(without_first_data(sent), without_first_data(recorded), "{place}: {id:?}");
        } else if is_of_datagrams(trace) {
            assert_eq!(*sent, with_reason(recorded), "{place}: stream {id:?}");
        } else {
            assert_eq!(sent, recorded, "{place}: stream {id:?}");
        }
    }
}

#[test]
fn every_plain_recording_is_answered_as_the_original_answers_it() {
    let traces = load_all(false);
    assert_eq!(traces.len(), 24);
    for trace in &traces {
        for conn in trace.connections() {
            if trace.name == "blackhole" && conn > 0 {
                continue;
            }
            for role in ROLES {
                for (offers, piece) in [(true, 0), (false, 0), (true, 1), (true, 13)] {
                    let player = play(trace, conn, role, offers, piece);
                    compare(trace, conn, role, &player);
                    check_ends(trace, conn, role, &player);
                }
            }
        }
    }
}

/// Checks that each byte of the peer was received, that no frame was for an unknown stream, and that
/// our open streams are those of the recording.
fn check_ends(trace: &Trace, conn: u64, role: Role, player: &Player) {
    let place = format!("{} connection {conn}, played as {role:?}", trace.name);
    let counters = *player.session.counters();
    assert_eq!((counters.unknown_ids, counters.stale_keys), (0, 0), "{place}");
    assert_eq!((counters.discarded_bytes, counters.ignored_frames), (0, 0), "{place}");
    let peer = if role == Role::Connector { Role::Receptor } else { Role::Connector };
    let said: Vec<&Packet> = packets(trace, conn, peer);
    let bytes = |of: &[&Packet], which: u8| -> u64 {
        let of_kind = of.iter().filter(|packet| packet.kind & 0x3f == which);
        of_kind.map(|p| if which == kind::SEND { p.payload.len() } else { p.behind_text().len() } as u64).sum()
    };
    let only_sends: Vec<&Packet> = said.iter().copied().filter(|p| p.kind != kind::SENT).collect();
    let said_bytes = bytes(&only_sends, kind::SEND) + bytes(&said, kind::CONNECT);
    let heard: u64 = player.locals.iter().map(|local| local.heard.len() as u64).sum();
    assert_eq!(heard, said_bytes, "{place}: bytes heard");
    let urgent = said.iter().filter(|packet| packet.kind == kind::SEND_OOB).count();
    assert_eq!(player.locals.iter().map(|local| local.heard_urgent.len()).sum::<usize>(), urgent);
    let both: Vec<&Packet> = ROLES.iter().flat_map(|&role| packets(trace, conn, role)).collect();
    let count = |which| both.iter().filter(|packet| packet.kind == which).count();
    let left = count(kind::CONNECT) - count(kind::CLOSED);
    assert_eq!(player.session.stream_count(), left, "{place}: streams left");
}

/// An original drops a stream that was idle for 180 s at the next datagram of any client, without a
/// packet: the same client then opens another stream. Ours sends CLOSE when the time is over, and
/// forgets the stream when that is answered.
#[test]
fn an_idle_stream_of_datagrams_is_left_by_the_original_and_closed_by_us() {
    let traces = load_all(false);
    let trace = traces.iter().find(|trace| trace.name == "udp_idle").expect("udp_idle");
    let player = play(trace, 0, Role::Receptor, true, 0);
    let texts: Vec<String> = packets(trace, 0, Role::Connector)
        .iter()
        .filter(|packet| packet.kind == kind::CONNECT)
        .map(|packet| packet.text().to_owned())
        .collect();
    assert!(texts.len() == 3 && texts[0] == texts[2], "the first client comes again: {texts:?}");
    assert!(player.locals.iter().all(|local| local.ended.is_none()));
    assert_eq!(player.session.stream_count(), 3);
    let mut player = play(trace, 0, Role::Connector, true, 0);
    let connected = packets(trace, 0, Role::Receptor)
        .into_iter()
        .find(|packet| packet.kind == kind::CONNECTED)
        .expect("an answer");
    let (own, peers) = (connected.raid, connected.said);
    let close = Packet { kind: kind::CLOSE, said: own, raid: peers, payload: Vec::new() };
    player.act(&close);
    let sent = player.sent.last().expect("a CLOSE");
    assert_eq!((sent.kind, sent.said, sent.text()), (kind::CLOSE, own, "#idle"));
    let payload = b"OK closed\0".to_vec();
    let closed = Packet { kind: kind::CLOSED, said: peers, raid: own, payload };
    player.feed(&closed).expect("its answer");
    assert_eq!(player.session.stream_count(), 2);
}

#[test]
fn a_refused_destination_is_told_as_a_refusal() {
    let traces = load_all(false);
    let trace = traces.iter().find(|trace| trace.name == "closedport").expect("closedport");
    let player = play(trace, 0, Role::Connector, true, 0);
    assert!(!player.locals[0].opened);
    assert_eq!(player.locals[0].ended, Some(Ended::Refused(String::from("No server"))));
}

#[test]
fn a_silent_tunnel_is_asked_for_life_and_given_up() {
    let traces = load_all(false);
    let trace = traces.iter().find(|trace| trace.name == "blackhole").expect("blackhole");
    for role in ROLES {
        let mut player = play(trace, 0, role, true, 0);
        let last = player.now;
        let error = player.advance(last.after(Duration::from_secs(600))).unwrap_err();
        assert_eq!(error, TunnelError::Silent { seconds: 90 });
        assert!(player.now <= last.after(Duration::from_secs(90)));
        let pings = player.sent.iter().filter(|packet| packet.kind == kind::ECHO).count();
        assert_eq!(pings, 2, "asked after 30 s and after 60 s");
        assert_eq!(player.session.stream_count(), 1);
    }
    // The connections that follow are not answered.
    for conn in [1, 2] {
        let own = packets(trace, conn, Role::Connector);
        let mut player = Player::new(config(&own, true), Moment(0), 0);
        let error = player.advance(Moment(600_000_000)).unwrap_err();
        assert_eq!(
            (error, player.now),
            (TunnelError::HelloTimeout { seconds: 15 }, Moment(15_000_000))
        );
    }
}

/// Our own ECHO keeps a quiet tunnel alive, on our clock.
#[test]
fn a_quiet_tunnel_is_kept_alive() {
    for trace in load_all(false).iter().filter(|trace| trace.name.starts_with("keepalive")) {
        for role in ROLES {
            let player = play(trace, 0, role, true, 0);
            let pings: Vec<&Packet> =
                player.sent.iter().filter(|packet| packet.kind == kind::ECHO).collect();
            assert!(!pings.is_empty());
            for ping in pings {
                assert_eq!((ping.said, ping.raid), (NO_ID, NO_ID));
                assert!(ping.count() > 0);
            }
        }
    }
}

/// The original's offer of a cipher is ignored, and a stream works.
#[test]
fn the_offer_of_a_cipher_is_passed_over() {
    let traces = load_all(true);
    assert_eq!(traces.len(), 16);
    for trace in &traces {
        for conn in trace.connections() {
            for role in ROLES {
                pass_over_the_cipher(trace, conn, role);
            }
        }
    }
}

fn pass_over_the_cipher(trace: &Trace, conn: u64, role: Role) {
    let place = format!("{} connection {conn}, played as {role:?}", trace.name);
    let own = packets(trace, conn, role);
    let peer = if role == Role::Connector { Role::Receptor } else { Role::Connector };
    let mut player = Player::new(config(&own, true), Moment(0), 0);
    let mut offered = false;
    let mut asked = Vec::new();
    for packet in packets(trace, conn, peer) {
        if packet.kind == kind::CRYPT_ON {
            break;
        }
        offered |= packet.kind == kind::SETOPT && packet.payload[0] == 1;
        if packet.kind == kind::ECHO {
            asked.push(packet.payload.clone());
        }
        player.feed(packet).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
    assert!(offered, "{place}: no cipher was offered");
    assert_eq!(player.session.counters().ignored_frames, 1, "{place}: the offer alone");
    let answered: Vec<Vec<u8>> =
        player.sent.iter().filter(|p| p.kind == 0x49).map(|p| p.payload.clone()).collect();
    assert_eq!(answered, asked, "{place}");
    for packet in &player.sent {
        assert_ne!(packet.kind, kind::CRYPT_ON, "{place}");
        assert!(packet.kind != kind::SETOPT || packet.payload[0] != 1, "{place}");
    }

    // A stream that is opened here, in plain text.
    let [client, server] = ["127.0.0.1:40000", "127.0.0.1:80"].map(|a| a.parse().expect("address"));
    let mut connect = Vec::new();
    Encoder.connect(&mut connect, 3, client, server, 5);
    connect.extend_from_slice(b"hello");
    // In `killtunnel` a client of the peer was accepted, too.
    let user = player.locals.len();
    player.act(&Packet::parse(&connect));
    let mut answer = Vec::new();
    Encoder.connected(&mut answer, 2, 3, server, client, 3);
    answer.extend_from_slice(b"yes");
    player.feed(&Packet::parse(&answer)).expect("CONNECTED is taken");
    assert!(player.locals[user].opened, "{place}");
    assert_eq!(player.locals[user].heard, b"yes", "{place}");
    assert_eq!(player.sent.last().map(Packet::behind_text), Some(&b"hello"[..]), "{place}");
    // Packets after CRYPTON cannot be read: the tunnel ends with a reason.
    let crypt_on = Packet { kind: kind::CRYPT_ON, said: NO_ID, raid: NO_ID, payload: vec![1, 4] };
    assert_eq!(player.feed(&crypt_on), Err(TunnelError::CipherOn));
}

#[test]
fn the_text_of_our_hello_is_as_long_as_the_originals() {
    for trace in load_all(false) {
        let own = packets(&trace, 0, Role::Connector);
        assert_eq!(hello_text(1_795_369_808_475_200, "vm").len(), own[0].text().len());
    }
}
