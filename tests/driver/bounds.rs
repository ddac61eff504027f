//! Bounds: no buffers, full queues, time, a driver dropped in mid-work.

use super::*;

on_both_drivers!(
    a_receive_out_of_buffers_ends_and_can_be_started_again,
    a_wait_ends_in_time,
    a_wait_is_not_ended_by_the_drivers_own_completions,
    spinning_without_waiting_sees_what_comes,
    a_driver_dropped_in_mid_work_gives_everything_back,
);

fn a_receive_out_of_buffers_ends_and_can_be_started_again<D: Subject>() {
    let mut rig = Rig::with(D::with_small_buffers(2, 4096));
    let (ours, mut theirs) = pair();
    let sent: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 7) as u8).collect();
    theirs.write_all(&sent).unwrap();
    let mut received = Vec::new();
    assert_eq!(rig.driver.free_buffers(BufferClass::Small), 2);
    let mut rounds = 0;
    while received.len() < sent.len() {
        rounds += 1;
        rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(3));
        let held: Vec<Chunk> = (0..2.min((sent.len() - received.len()) / 4096))
            .map(|_| rig.next_chunk(Token(3)).0)
            .collect();
        held.iter().for_each(|chunk| received.extend_from_slice(chunk));
        if held.len() == 2 {
            assert_eq!(rig.driver.free_buffers(BufferClass::Small), 0);
            assert_eq!(rig.next_error(Token(3)), libc::ENOBUFS);
        }
        drop(held);
        assert_eq!(rig.driver.free_buffers(BufferClass::Small), 2);
    }
    assert_eq!(received, sent);
    assert_eq!((rounds, rig.driver.counters().no_buffers), (3, 2));
}

fn a_wait_ends_in_time<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, _theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    let timeout = Duration::from_millis(50);
    for _ in 0..3 {
        // The first of these returns early at times: it submits, too.
        let begin = Instant::now();
        let mut turns = 0;
        while begin.elapsed() < timeout {
            turns += 1;
            let time_left = timeout.saturating_sub(begin.elapsed());
            rig.driver.wait(Some(time_left), &mut rig.batch).unwrap();
        }
        assert!(turns <= 4, "{turns} turns: it does not wait");
        assert!(begin.elapsed() < DEADLINE);
        assert!(rig.batch.is_empty());
    }
    let begin = Instant::now();
    rig.driver.wait(Some(Duration::ZERO), &mut rig.batch).unwrap();
    assert!(begin.elapsed() < timeout);
}

fn a_wait_is_not_ended_by_the_drivers_own_completions<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, _theirs) = pair();
    rig.driver.poll(&ours, POLLIN, false, Token(1));
    rig.turn();
    rig.driver.cancel_all(&ours);
    assert_eq!(rig.next_error(Token(1)), libc::ECANCELED);
    let begin = Instant::now();
    let timeout = Duration::from_millis(30);
    rig.driver.wait(Some(timeout), &mut rig.batch).unwrap();
    assert!(rig.batch.is_empty());
    assert!(begin.elapsed() >= timeout);
}

fn spinning_without_waiting_sees_what_comes<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.turn();
    for _ in 0..100 {
        theirs.write_all(b"ping").unwrap();
        let deadline = Instant::now() + DEADLINE;
        while rig.done.is_empty() {
            assert!(Instant::now() < deadline, "what was deferred is never run");
            rig.turn();
        }
        assert_eq!(&rig.next_chunk(Token(1)).0[..], b"ping");
    }
}

fn a_driver_dropped_in_mid_work_gives_everything_back<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64 << 10, 4).unwrap();
    let bytes = vec![1; 64 << 10];
    theirs.write_all(b"kept").unwrap();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    let (kept, _) = rig.next_chunk(Token(1));
    let mut blocked = false;
    while !blocked {
        rig.driver.send(&ours, gather([chunk(&pool, &bytes)]), SendWait::Yes, Token(2));
        rig.turn();
        blocked = rig.done.pop_front().is_none();
    }
    rig.driver.poll(&ours, POLLIN, true, Token(3));
    rig.driver.recv(&ours, RecvMode::Now, BufferClass::Bulk, Token(4));
    assert_eq!(rig.driver.in_flight(), 4, "two of them not submitted yet");
    drop(rig);
    assert_eq!(pool.free(), pool.capacity());
    assert_eq!(Rc::strong_count(&ours), 1);
    assert_eq!(&kept[..], b"kept");
    drop(ours);
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|&byte| byte == 1));
}
