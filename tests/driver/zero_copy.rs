//! Sends from our own pages: their bytes stay until the kernel's notice, and its report counts.

use super::*;

const BYTES: usize = 256 << 10;

/// Bytes of a send, different for each.
fn pattern(number: u8) -> Vec<u8> {
    (0..BYTES).map(|position| (position / 3 + position / 4093) as u8 ^ number).collect()
}

/// A gather like those of the link: a head in one buffer, the payload in another.
fn framed(heads: &Pool, payloads: &Pool, number: u8) -> Box<Gather> {
    gather([chunk(heads, &[number; 12]), chunk(payloads, &pattern(number))])
}

/// Sends it all, in as many sends as it takes; the gather comes back empty.
fn send_all(rig: &mut Rig<UringDriver>, to: &Fd, mut rest: Box<Gather>) {
    while !rest.is_empty() {
        rig.driver.send(to, rest, SendWait::Yes, Token(1));
        match rig.next() {
            Completion {
                token: Token(1),
                more: false,
                outcome: Outcome::Sent { result, mut gather },
            } => {
                gather.advance(result.expect("it is sent"));
                rest = gather;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A connection whose far end takes much less than the near one: most of a send stays with the
/// near end's kernel until the far end reads.
fn uneven_pair() -> (Fd, TcpStream) {
    let (near, far) = tcp_pair();
    socket2::SockRef::from(&near).set_send_buffer_size(8 << 20).unwrap();
    socket2::SockRef::from(&far).set_recv_buffer_size(16 << 10).unwrap();
    far.set_nonblocking(false).unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    (fd(near), far)
}

/// Turns until every chunk is back: all notices have come.
#[track_caller]
fn settle(rig: &mut Rig<UringDriver>, pool: &Pool) {
    let deadline = Instant::now() + DEADLINE;
    while pool.free() < pool.capacity() {
        assert!(Instant::now() < deadline, "a notice does not come");
        rig.driver.wait(Some(Duration::from_millis(1)), &mut rig.batch).unwrap();
    }
    assert!(rig.batch.is_empty(), "notices are the driver's own: {:?}", rig.batch);
}

/// Reads `frames` in another thread and compares each.
fn reader(far: TcpStream, frames: u8) -> std::thread::JoinHandle<()> {
    far.set_nonblocking(false).unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    std::thread::spawn(move || {
        let mut far = far;
        for number in 0..frames {
            assert_eq!(read_exactly(&mut far, 12), [number; 12]);
            assert!(read_exactly(&mut far, BYTES) == pattern(number), "frame {number} is changed");
        }
    })
}

#[test]
fn buffers_used_again_after_the_result_do_not_change_what_was_sent() {
    const FRAMES: u8 = 40;
    let mut rig = Rig::<UringDriver>::new();
    let heads = Pool::new(16, 4).unwrap();
    // Few buffers, which the next frame wants at once: one that came back early would be changed
    // under the kernel's hands.
    let payloads = Pool::new(BYTES as u32, 4).unwrap();
    for _ in 0..3 {
        let (near, far) = tcp_pair();
        let (near, read) = (fd(near), reader(far, FRAMES));
        for number in 0..FRAMES {
            if payloads.free() == 0 || heads.free() == 0 {
                settle(&mut rig, &payloads);
            }
            let framed = framed(&heads, &payloads, number);
            send_all(&mut rig, &near, framed);
        }
        read.join().unwrap();
    }
    settle(&mut rig, &payloads);
    assert_eq!(rig.driver.in_flight(), 0);
    assert_eq!(rig.driver.counters().zero_copy_sends, 3, "once for each connection");
}

#[test]
fn the_chunks_are_held_until_the_far_end_has_them() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, mut far) = uneven_pair();
    let payloads = Pool::new(BYTES as u32, 1).unwrap();
    rig.driver.send(&near, gather([chunk(&payloads, &pattern(7))]), SendWait::Yes, Token(1));
    let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
    let sent = result.unwrap();
    // The worker drops its part, and closes the connection.
    drop(gather);
    drop(near);
    rig.turn();
    assert_eq!((payloads.free(), rig.driver.in_flight()), (0, 0), "the kernel still reads them");
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    assert!(read == pattern(7)[..sent]);
    settle(&mut rig, &payloads);
    assert_eq!(rig.driver.in_flight(), 0);
}

#[test]
fn a_notice_ends_a_wait_since_it_sets_buffers_free() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, mut far) = uneven_pair();
    let payloads = Pool::new(BYTES as u32, 1).unwrap();
    rig.driver.send(&near, gather([chunk(&payloads, &pattern(0))]), SendWait::Yes, Token(1));
    let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
    drop(gather);
    assert_eq!(payloads.free(), 0);
    let sent = result.unwrap();
    let read = std::thread::spawn(move || read_exactly(&mut far, sent));
    let begin = Instant::now();
    while payloads.free() == 0 {
        assert!(begin.elapsed() < DEADLINE, "the notice comes, and nobody is told");
        rig.driver.wait(Some(DEADLINE), &mut rig.batch).unwrap();
    }
    assert!(begin.elapsed() < DEADLINE && rig.batch.is_empty());
    assert!(read.join().unwrap() == pattern(0)[..sent]);
}

#[test]
fn a_path_that_copies_is_tried_once_and_a_new_one_again() {
    let mut rig = Rig::<UringDriver>::new();
    let heads = Pool::new(16, 4).unwrap();
    let payloads = Pool::new(BYTES as u32, 4).unwrap();
    for connections in 1..=3 {
        let (near, far) = tcp_pair();
        let (near, read) = (fd(near), reader(far, 8));
        for number in 0..8 {
            let framed = framed(&heads, &payloads, number);
            send_all(&mut rig, &near, framed);
            settle(&mut rig, &payloads);
        }
        read.join().unwrap();
        let counters = rig.driver.counters();
        // Loopback always copies; other paths cannot be had in a test without privilege.
        assert_eq!(counters.zero_copy_sends, connections);
        assert_eq!(counters.zero_copy_copied, connections);
    }
}

#[test]
fn trying_a_new_path_does_not_allocate() {
    let mut rig = Rig::<UringDriver>::new();
    let heads = Pool::new(16, 4).unwrap();
    let payloads = Pool::new(BYTES as u32, 4).unwrap();
    let mut others = Vec::new();
    for number in 0..4 {
        let (near, far) = tcp_pair();
        // Connections come with higher and higher numbers, as where many are opened.
        others.extend((0..50).map(|_| near.try_clone().unwrap()));
        let (near, read) = (fd(near.try_clone().unwrap()), reader(far, 1));
        let framed = framed(&heads, &payloads, 0);
        let before = ALLOCATIONS.get();
        send_all(&mut rig, &near, framed);
        settle(&mut rig, &payloads);
        assert!(number == 0 || ALLOCATIONS.get() == before, "allocations");
        read.join().unwrap();
    }
    assert_eq!(rig.driver.counters().zero_copy_sends, 4);
}

#[test]
fn more_connections_than_are_kept_in_mind_are_sent_to_plainly() {
    use sockmux_uring::limits::ZERO_COPY_PATHS_MAX;
    let mut rig = Rig::<UringDriver>::new();
    let heads = Pool::new(16, 4).unwrap();
    let payloads = Pool::new(BYTES as u32, 4).unwrap();
    let mut open = Vec::new();
    for number in 0..=ZERO_COPY_PATHS_MAX {
        let (near, far) = tcp_pair();
        let (near, read) = (fd(near), reader(far, 1));
        send_all(&mut rig, &near, framed(&heads, &payloads, 0));
        read.join().unwrap();
        settle(&mut rig, &payloads);
        let tried = (number + 1).min(ZERO_COPY_PATHS_MAX) as u64;
        assert_eq!(rig.driver.counters().zero_copy_sends, tried);
        open.push(near);
    }
    // One that closes makes room.
    open.truncate(1);
    let (near, far) = tcp_pair();
    let (near, read) = (fd(near), reader(far, 1));
    send_all(&mut rig, &near, framed(&heads, &payloads, 0));
    read.join().unwrap();
    assert_eq!(rig.driver.counters().zero_copy_sends, ZERO_COPY_PATHS_MAX as u64 + 1);
}

#[test]
fn small_sends_and_those_that_do_not_wait_are_plain() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, far) = tcp_pair();
    let near = fd(near);
    let payloads = Pool::new(BYTES as u32, 2).unwrap();
    let small = gather([chunk(&payloads, &[1; 64 << 10])]);
    rig.driver.send(&near, small, SendWait::Yes, Token(1));
    assert!(matches!(rig.next().outcome, Outcome::Sent { result: Ok(_), .. }));
    let large = gather([chunk(&payloads, &pattern(0))]);
    rig.driver.send(&near, large, SendWait::No, Token(1));
    assert!(matches!(rig.next().outcome, Outcome::Sent { .. }));
    assert_eq!(rig.driver.counters().zero_copy_sends, 0);
    drop(far);
}

#[test]
fn a_socket_that_cannot_is_sent_to_plainly_by_the_same_operation() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, mut far) = pair();
    let payloads = Pool::new(BYTES as u32, 2).unwrap();
    for round in 0..3 {
        let op = rig.driver.send(
            &near,
            gather([chunk(&payloads, &pattern(round))]),
            SendWait::Yes,
            Token(1),
        );
        let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
        let sent = result.expect("Unix sockets take no zero-copy sends, and are sent to anyway");
        assert!(read_exactly(&mut far, sent) == pattern(round)[..sent]);
        drop(gather);
        rig.driver.cancel(op);
        assert_eq!(rig.driver.counters().stale, u64::from(round) + 1);
    }
    settle(&mut rig, &payloads);
    assert_eq!((rig.driver.counters().zero_copy_sends, rig.driver.in_flight()), (1, 0));
    assert_eq!(rig.driver.counters().zero_copy_copied, 0);
}

/// Fills the connection until it takes no more for the moment.
fn fill(near: &Fd) {
    let mut near = TcpStream::from(near.try_clone().unwrap());
    let bytes = vec![9; 64 << 10];
    loop {
        match near.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A send that waits for a full connection is cancelled, by its name or with all others, over and
/// over; whether none of them found room after all.
fn all_are_cancelled(rig: &mut Rig<UringDriver>, near: &Fd, payloads: &Pool) -> bool {
    for by_name in [true, false, true] {
        let before = *rig.driver.counters();
        let gather = gather([chunk(payloads, &pattern(0))]);
        let op = rig.driver.send(near, gather, SendWait::Yes, Token(1));
        rig.turn();
        if rig.done.is_empty() {
            if by_name { rig.driver.cancel(op) } else { rig.driver.cancel_all(near) }
        }
        let Completion { more: false, outcome: Outcome::Sent { result, gather }, .. } = rig.next()
        else {
            panic!()
        };
        drop(gather);
        let Err(error) = result else { return false };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        settle(rig, payloads);
        let after = rig.driver.counters();
        assert_eq!(after.zero_copy_sends, before.zero_copy_sends + 1, "still untried");
        assert_eq!(after.zero_copy_copied, before.zero_copy_copied);
    }
    true
}

#[test]
fn a_send_that_waits_can_be_cancelled_and_leaves_the_path_untried() {
    let mut rig = Rig::<UringDriver>::new();
    let payloads = Pool::new(BYTES as u32, 2).unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "no connection stays full");
        let (near, far) = uneven_pair();
        fill(&near);
        let done = all_are_cancelled(&mut rig, &near, &payloads);
        // Lets the remaining sends complete.
        drop((near, far));
        settle(&mut rig, &payloads);
        if done {
            break;
        }
    }
    assert_eq!((rig.driver.in_flight(), rig.driver.counters().stale), (0, 0));
}

#[test]
fn a_driver_dropped_before_the_notice_waits_for_it() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, far) = tcp_pair();
    let near = fd(near);
    let heads = Pool::new(16, 1).unwrap();
    let payloads = Pool::new(BYTES as u32, 1).unwrap();
    rig.driver.send(&near, framed(&heads, &payloads, 0), SendWait::Yes, Token(1));
    let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
    assert_eq!((result.unwrap(), rig.driver.in_flight()), (12 + BYTES, 0));
    drop(gather);
    let read = reader(far, 1);
    drop(rig);
    assert_eq!((heads.free(), payloads.free()), (1, 1));
    assert_eq!(Rc::strong_count(&near), 1);
    read.join().unwrap();
}

#[test]
fn a_driver_dropped_while_the_far_end_reads_nothing_gives_the_bytes_up() {
    let mut rig = Rig::<UringDriver>::new();
    let (near, mut far) = uneven_pair();
    let payloads = Pool::new(BYTES as u32, 1).unwrap();
    rig.driver.send(&near, gather([chunk(&payloads, &pattern(3))]), SendWait::Yes, Token(1));
    let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
    let sent = result.unwrap();
    drop(gather);
    let begin = Instant::now();
    drop(rig);
    assert!(begin.elapsed() < DEADLINE);
    assert_eq!(payloads.free(), 0, "never used again");
    drop(near);
    assert!(read_exactly(&mut far, sent) == pattern(3)[..sent]);
}
