//! Several operations at once on one descriptor, and others that use it beside the driver.

use std::collections::HashSet;

use super::*;

on_both_drivers!(
    operations_of_every_kind_wait_on_one_descriptor,
    urgent_data_stops_a_read_and_loses_nothing,
    what_others_read_and_write_beside_the_driver_does_not_deceive_it,
    a_number_given_to_another_file_is_another_descriptor,
    a_flood_lets_others_have_their_turn,
    looking_finds_what_the_next_wait_has,
    two_polls_are_told_of_the_same,
);

/// Sends until the socket takes no more: one send is then left waiting.
fn block(rig: &mut Rig<impl Subject>, ours: &Fd, pool: &Pool) {
    let bytes = vec![1; pool.buffer_bytes()];
    loop {
        rig.driver.send(ours, gather([chunk(pool, &bytes)]), SendWait::Yes, Token(90));
        rig.turn();
        if rig.done.pop_front().is_none() {
            return;
        }
    }
}

fn operations_of_every_kind_wait_on_one_descriptor<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (near, mut far) = tcp_pair();
    far.set_nonblocking(false).unwrap();
    let near = fd(near);
    let pool = Pool::new(64 << 10, 4).unwrap();
    rig.driver.recv(&near, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.driver.poll(&near, libc::POLLPRI as u32, false, Token(2));
    rig.driver.poll(&near, 0, false, Token(3));
    block(&mut rig, &near, &pool);
    assert_eq!(rig.driver.in_flight(), 4);
    far.write_all(b"data").unwrap();
    assert_eq!(&rig.next_chunk(Token(1)).0[..], b"data");
    // Room, after more has been read than the socket holds back.
    far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sink = vec![0; 1 << 20];
    let deadline = Instant::now() + DEADLINE;
    while !rig.done.iter().any(|done| done.token == Token(90)) {
        assert!(Instant::now() < deadline, "the send never finds room");
        let _ = far.read(&mut sink);
        rig.turn();
    }
    rig.done.clear();
    // A reset ends those that are left.
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    let mut ended = HashSet::new();
    while rig.driver.in_flight() > 0 || !rig.done.is_empty() {
        let completion = rig.next();
        if !completion.more {
            assert!(ended.insert(completion.token), "two last completions: {completion:?}");
        }
    }
    assert_eq!(ended, HashSet::from([Token(1), Token(2), Token(3)]));
}

fn urgent_data_stops_a_read_and_loses_nothing<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (near, far) = tcp_pair();
    let near = fd(near);
    let events = (libc::POLLIN | libc::POLLPRI) as u32;
    let mut sent = 0u8;
    let mut received = Vec::new();
    for _ in 0..50 {
        for urgent in [false, true, false] {
            let socket = socket2::SockRef::from(&far);
            if urgent {
                socket.send_out_of_band(b"!").unwrap();
            } else {
                sent += 1;
                socket.send(&[sent; 3]).unwrap();
            }
        }
        // As the worker does it: watched, urgent data taken, one receive, and again.
        let target = usize::from(sent) * 3;
        let mut urgent = 0;
        while received.len() < target || urgent == 0 {
            rig.driver.poll(&near, events, false, Token(1));
            let Outcome::Polled(Ok(happened)) = rig.next().outcome else { panic!() };
            if happened & libc::POLLPRI as u32 != 0 {
                let mut byte = [std::mem::MaybeUninit::uninit()];
                let taken = socket2::SockRef::from(&near).recv_out_of_band(&mut byte);
                urgent += usize::from(taken.is_ok());
            }
            if happened & POLLIN != 0 {
                rig.driver.recv(&near, RecvMode::Now, BufferClass::Small, Token(2));
                match rig.next().outcome {
                    Outcome::Received(Ok(Some(chunk))) => received.extend_from_slice(&chunk),
                    Outcome::Received(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(urgent, 1);
    }
    assert!(received.into_iter().eq((1..=sent).flat_map(|n| [n; 3])));
}

fn what_others_read_and_write_beside_the_driver_does_not_deceive_it<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (near, mut far) = tcp_pair();
    let mut beside = near.try_clone().unwrap();
    let near = fd(near);
    for round in 0..20 {
        rig.driver.poll(&near, POLLIN, false, Token(1));
        rig.turn();
        assert!(rig.done.is_empty(), "round {round}: nothing is there");
        far.write_all(&[7; 100]).unwrap();
        assert!(matches!(rig.next().outcome, Outcome::Polled(Ok(_))));
        // Half of it, and a poll that must see the other half; then the rest.
        read_exactly(&mut beside, 50);
        rig.driver.poll(&near, POLLIN, false, Token(1));
        assert!(matches!(rig.next().outcome, Outcome::Polled(Ok(_))));
        read_exactly(&mut beside, 50);
    }
    // The same for room to write.
    let bytes = vec![0; 64 << 10];
    for _ in 0..3 {
        let mut written = 0;
        loop {
            match beside.write(&bytes) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        rig.driver.poll(&near, POLLOUT, false, Token(2));
        far.set_nonblocking(false).unwrap();
        read_exactly(&mut far, written);
        assert!(matches!(rig.next().outcome, Outcome::Polled(Ok(_))));
    }
}

fn a_number_given_to_another_file_is_another_descriptor<D: Subject>() {
    let mut rig = Rig::<D>::new();
    for round in 0..50u8 {
        let (ours, mut theirs) = pair();
        rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
        theirs.write_all(&[round; 5]).unwrap();
        assert_eq!(&rig.next_chunk(Token(1)).0[..], [round; 5]);
        if round % 2 == 0 {
            // More comes while the old one is given up.
            theirs.write_all(b"too late").unwrap();
        }
        rig.driver.cancel_all(&ours);
        drop(ours);
        while rig.driver.in_flight() > 0 {
            rig.turn();
        }
        rig.done.clear();
    }
}

fn a_flood_lets_others_have_their_turn<D: Subject>() {
    const FLOOD: usize = 200;
    let mut rig = Rig::<D>::new();
    let (loud, mut loud_end) = pair();
    let (quiet, mut quiet_end) = pair();
    rig.driver.recv(&loud, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.driver.recv(&quiet, RecvMode::Multishot, BufferClass::Small, Token(2));
    rig.turn();
    for _ in 0..FLOOD / 8 {
        loud_end.write_all(&[0; 4096]).unwrap();
    }
    quiet_end.write_all(b"me too").unwrap();
    let mut before = 0;
    loop {
        match rig.next() {
            Completion { token: Token(2), .. } => break,
            Completion { token: Token(1), more, .. } => {
                before += 1;
                if !more {
                    rig.driver.recv(&loud, RecvMode::Multishot, BufferClass::Small, Token(1));
                }
                // The bytes read are replaced by as many.
                if before < FLOOD {
                    loud_end.write_all(&[0; 4096]).unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(before < FLOOD, "the flood was received to its end first");
}

fn looking_finds_what_the_next_wait_has<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    let time = Duration::from_millis(20);
    let begin = Instant::now();
    rig.driver.watch_for(time);
    assert!(begin.elapsed() >= time, "nothing was there to end it");
    theirs.write_all(b"found").unwrap();
    let begin = Instant::now();
    rig.driver.watch_for(DEADLINE);
    assert!(begin.elapsed() < DEADLINE);
    rig.turn();
    assert_eq!(&rig.next_chunk(Token(1)).0[..], b"found");
}

fn two_polls_are_told_of_the_same<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.poll(&ours, POLLIN, false, Token(1));
    rig.driver.poll(&ours, POLLIN, false, Token(2));
    rig.turn();
    theirs.write_all(b"x").unwrap();
    assert_eq!([rig.next().token, rig.next().token].map(|token| token.0).iter().sum::<u64>(), 3);
    assert_eq!(rig.driver.in_flight(), 0);
}
