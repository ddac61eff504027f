//! The ring's queues, and what cancellations cost.

use super::*;

#[test]
fn more_operations_than_the_queues_hold_all_complete_once() {
    const OPERATIONS: u64 = 500;
    let config =
        UringConfig { submission_entries: 8, completion_entries: 16, ..UringConfig::default() };
    let driver = UringDriver::new(&config).expect("io_uring works here");
    let mut rig = Rig::with(driver);
    let (ours, _theirs) = pair();
    for round in 0..3 {
        for token in 0..OPERATIONS {
            rig.driver.poll(&ours, POLLOUT, false, Token(round * OPERATIONS + token));
        }
        let mut seen: Vec<u64> = (0..OPERATIONS)
            .map(|_| match rig.next() {
                Completion { token, more: false, outcome: Outcome::Polled(Ok(_)) } => token.0,
                other => panic!("{other:?}"),
            })
            .collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(round * OPERATIONS..(round + 1) * OPERATIONS));
        assert_eq!(rig.driver.in_flight(), 0);
    }
    let counters = rig.driver.counters();
    assert!(counters.queue_full > 0 && counters.overflows > 0, "{counters:?}");
    assert_eq!(counters.submissions, 3 * OPERATIONS);
}

#[test]
fn a_turn_with_nothing_to_do_enters_for_nothing() {
    let mut rig = Rig::<UringDriver>::new();
    let (ours, _theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.turn();
    let enters = rig.driver.counters().enters;
    rig.turn();
    assert_eq!(rig.driver.counters().enters, enters);
}

/// The least time from a cancellation of all that goes on at a descriptor to its completion.
fn least_time_to_cancel(rig: &mut Rig<UringDriver>, fd: &Fd) -> Duration {
    let times = (0..100).map(|_| {
        rig.driver.poll(fd, POLLIN, false, Token(u64::MAX));
        rig.turn();
        let began = Instant::now();
        rig.driver.cancel_all(fd);
        assert_eq!(rig.next_error(Token(u64::MAX)), libc::ECANCELED);
        began.elapsed()
    });
    times.min().expect("some")
}

/// The kernel finds the operations on a descriptor by looking at all that there are.
#[test]
fn ending_what_goes_on_at_a_descriptor_costs_the_same_beside_thousands_of_others() {
    const OTHERS: u64 = 10_000;
    let mut rig = Rig::<UringDriver>::new();
    let ((ours, _theirs), (other, _other_end)) = (pair(), pair());
    let alone = least_time_to_cancel(&mut rig, &ours);
    for token in 0..OTHERS {
        rig.driver.poll(&other, POLLIN, false, Token(token));
    }
    rig.turn();
    let beside = least_time_to_cancel(&mut rig, &ours);
    // The end of the driver has them one by one.
    rig.driver.cancel_all(&other);
    while rig.driver.in_flight() > 0 {
        rig.turn();
    }
    assert!(beside < 10 * alone, "{beside:?}, {alone:?} without the others");
}

/// The kernel runs a part of what it has deferred at each entry. What is left would stand before all that comes
/// later, and grow from turn to turn.
#[test]
fn what_a_turn_has_cancelled_is_over_in_the_next() {
    const OPERATIONS: u64 = 200;
    let mut rig = Rig::<UringDriver>::new();
    let (ours, _theirs) = pair();
    for round in 0..3 {
        for token in 0..OPERATIONS {
            rig.driver.poll(&ours, POLLIN, false, Token(token));
        }
        rig.turn();
        rig.driver.cancel_all(&ours);
        rig.turn();
        let in_one_turn = rig.done.len() as u64;
        assert_eq!((in_one_turn, rig.driver.in_flight()), (OPERATIONS, 0), "round {round}");
        rig.done.clear();
    }
}
