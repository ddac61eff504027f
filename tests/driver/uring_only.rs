//! The ring's queues.

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
