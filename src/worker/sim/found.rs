//! Scripts that found faults, shortened.

use super::findings_of;
use super::script::{Conversation, ExitKind, Fault, How, LinkKind, Script, Tempo};
use crate::io::sim::Conditions;

pub(super) const FRIENDLY: Conditions = Conditions {
    partial: 0,
    again: 0,
    no_buffer: 0,
    delay: 0,
    no_splice: 0,
    noise: 0,
    pipe_slots: 16,
    socket_bytes: 80_000,
    latency_micros: 1_700,
    buffers: [64, 55],
    pool_buffers: 0,
    descriptors: 0,
    turn_frames: 0,
};

pub(super) fn script(seed: u64, conditions: Conditions) -> Script {
    Script {
        seed,
        link: LinkKind::Tcp,
        entrance_at: 1,
        is_v03: false,
        records_per_key: None,
        bulk: "splice",
        resume_secs: 0,
        exit: ExitKind::Server,
        conditions,
        conversations: Vec::new(),
        datagrams: None,
        faults: Vec::new(),
    }
}

/// Both ends are told to stop while the tunnel comes up again: clients were held for want of a tunnel,
/// and a drain takes none.
#[test]
fn a_tunnel_that_comes_up_during_a_drain_costs_nothing() {
    let faults = vec![(934_198, Fault::Cut), (934_953, Fault::Pause(1, 700))];
    let found = (0..20).filter_map(|seed| {
        findings_of(&Script { faults: faults.clone(), ..script(seed, FRIENDLY) }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Sockets that cannot be spliced to: what stands in a pipe for them is copied. Pipes for a link can be,
/// so that there the local sockets meet it.
#[test]
fn sockets_that_cannot_be_spliced_carry_bulk() {
    let conditions = Conditions { no_splice: 100, ..FRIENDLY };
    let tempo = Tempo { piece_bytes: 29_000, every_micros: 70, reads_after_micros: 0 };
    let conversation =
        Conversation { at: 5_000, how: How::Exchange, bytes: [130_000; 2], tempos: [tempo; 2] };
    let links = [LinkKind::Tcp, LinkKind::Pipes, LinkKind::Fifos];
    let found = (0..30).filter_map(|seed| {
        let (conversations, link) = (vec![conversation; 3], links[seed as usize % links.len()]);
        let bulk = if seed % 2 == 0 { "auto" } else { "splice" };
        findings_of(&Script { conversations, link, bulk, ..script(seed, conditions) }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// The descriptor that a dial gives up for its socket is gone before it has it: it waits, and is not
/// tried again and again in one turn.
#[test]
fn a_dial_that_is_short_again_waits_for_the_next_look() {
    let conversation = Conversation {
        at: 5_000,
        how: How::Exchange,
        bytes: [2_000; 2],
        tempos: [Tempo { piece_bytes: 200, every_micros: 60_000, reads_after_micros: 0 }; 2],
    };
    let found = (0..20).filter_map(|seed| {
        let conditions = Conditions { descriptors: 14 + seed as u16 % 8, ..FRIENDLY };
        let conversations = vec![conversation; 12];
        findings_of(&Script { conversations, ..script(seed, conditions) }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Each end of a line says hello before it has heard the other. A line may echo, so neither may say the same
/// as the other: it would be taken for an echo, and no tunnel would come up.
#[test]
fn the_ends_of_a_line_tell_each_other_from_an_echo() {
    let tempo = Tempo { piece_bytes: 1_000, every_micros: 100, reads_after_micros: 0 };
    let conversation =
        Conversation { at: 100_000, how: How::Exchange, bytes: [500; 2], tempos: [tempo; 2] };
    let found = (0..5).filter_map(|seed| {
        let (conversations, link) = (vec![conversation], LinkKind::Line(92_160));
        findings_of(&Script { conversations, link, ..script(seed, FRIENDLY) }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// A line stands still for seconds, which its ends take for its round trip. Soon afterwards both leave, and one
/// without its last acknowledgement: it does not wait for as long as a drain may take.
#[test]
fn a_line_that_stood_still_is_left_all_the_same() {
    let tempo = Tempo { piece_bytes: 4_000, every_micros: 500, reads_after_micros: 0 };
    let conversation =
        Conversation { at: 615_260, how: How::Exchange, bytes: [2_325, 6_838], tempos: [tempo; 2] };
    let conditions = Conditions { partial: 112, delay: 71, noise: 22, ..FRIENDLY };
    let found = (0..40).filter_map(|seed| {
        let (conversations, link) = (vec![conversation], LinkKind::Line(92_160));
        let faults = vec![(300_000, Fault::Freeze(4_515_777))];
        findings_of(&Script { conversations, link, faults, ..script(seed, conditions) }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// An end that leaves answers to the last close of a stream first, though the line takes nothing at that moment:
/// it has just carried an acknowledgement.
#[test]
fn the_last_answer_is_not_left_behind_for_want_of_room_on_the_line() {
    let tempo = |every_micros| Tempo { piece_bytes: 2_000, every_micros, reads_after_micros: 0 };
    let conversation = Conversation {
        at: 112_823,
        how: How::Exchange,
        bytes: [1, 311],
        tempos: [tempo(768), tempo(441)],
    };
    let found = (0..40).filter_map(|seed| {
        let (conversations, link) = (vec![conversation], LinkKind::Line(11_520));
        let faults = vec![(300_000 + 500 * seed, Fault::Stop(1))];
        let run = Script { conversations, link, faults, ..script(seed, FRIENDLY) };
        findings_of(&Script { is_v03: true, entrance_at: 0, ..run }).err()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// The peer stands still in the middle of the first hello, for longer than a hello may take. A second link is
/// dialled beside the first one, which then ends: that link is the tunnel's, and no third is dialled.
#[test]
fn a_link_that_was_dialled_beside_a_hello_that_fails_is_the_next_tunnel() {
    let conditions = Conditions {
        again: 51,
        no_buffer: 6,
        delay: 80,
        no_splice: 50,
        pipe_slots: 3,
        socket_bytes: 154_149,
        latency_micros: 1_736,
        buffers: [64, 48],
        ..FRIENDLY
    };
    let tempo =
        |piece_bytes, every_micros| Tempo { piece_bytes, every_micros, reads_after_micros: 0 };
    let exchange = |at, tempos| Conversation { at, how: How::Exchange, bytes: [1, 1], tempos };
    let script = Script {
        entrance_at: 0,
        records_per_key: Some(50),
        bulk: "copy",
        resume_secs: 30,
        conversations: vec![
            exchange(17_520, [tempo(13_977, 235), tempo(12_526, 565)]),
            exchange(323_362, [tempo(16_385, 726), tempo(2_061, 47)]),
        ],
        faults: vec![(2_881, Fault::Pause(0, 6_652_440))],
        ..script(171_922, conditions)
    };
    assert_eq!(findings_of(&script).err(), None);
}
