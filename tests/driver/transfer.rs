//! Bytes through the driver: gathered sends, whole streams, the steady state.

use super::*;

on_both_drivers!(
    a_gather_arrives_in_order_and_comes_back_as_it_was,
    a_gather_of_more_parts_than_one_call_takes_goes_in_several,
    a_full_socket_refuses_or_makes_wait,
    a_send_to_nobody_is_an_error_and_no_signal,
    fifty_megabytes_arrive_unchanged,
    the_steady_state_does_not_allocate,
);

fn a_gather_arrives_in_order_and_comes_back_as_it_was<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64, 8).unwrap();
    let mut joined = chunk(&pool, b"cutinto pieces that touch");
    let head = joined.split_to(3);
    let parts = [head, joined, chunk(&pool, b", "), chunk(&pool, b"and others")];
    let gather = gather(parts);
    assert_eq!(gather.parts(), 3);
    let bytes = gather.len_bytes();
    rig.driver.send(&ours, gather, SendWait::Yes, Token(9));
    match rig.next() {
        Completion {
            token: Token(9),
            more: false,
            outcome: Outcome::Sent { result, mut gather },
        } => {
            assert_eq!(result.unwrap(), bytes);
            assert_eq!((gather.parts(), gather.len_bytes()), (3, bytes));
            gather.advance(bytes);
            assert!(gather.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read_exactly(&mut theirs, bytes), b"cutinto pieces that touch, and others");
    assert_eq!(pool.free(), pool.capacity());
}

fn a_gather_of_more_parts_than_one_call_takes_goes_in_several<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (near, mut far) = tcp_pair();
    far.set_nonblocking(false).unwrap();
    let near = fd(near);
    let pool = Pool::new(2, 3000).unwrap();
    let sent: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    let mut rest = gather(sent.iter().map(|byte| chunk(&pool, &[*byte])));
    assert_eq!(rest.parts(), 3000);
    while !rest.is_empty() {
        rig.driver.send(&near, rest, SendWait::Yes, Token(1));
        let Outcome::Sent { result, mut gather } = rig.next().outcome else { panic!() };
        gather.advance(result.unwrap());
        rest = gather;
    }
    assert_eq!(read_exactly(&mut far, 3000), sent);
}

fn a_full_socket_refuses_or_makes_wait<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64 << 10, 2).unwrap();
    let bytes = vec![5; 64 << 10];
    let (one, two) = (chunk(&pool, &bytes), chunk(&pool, &bytes));
    let mut queued = 0;
    let refused = loop {
        let gather = gather([one.clone(), two.clone()]);
        rig.driver.send(&ours, gather, SendWait::No, Token(1));
        let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
        assert_eq!(gather.len_bytes(), 128 << 10);
        match result {
            Ok(taken) => queued += taken,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
    rig.driver.send(&ours, gather([one, two]), SendWait::Yes, Token(2));
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 1));
    read_exactly(&mut theirs, queued);
    let Outcome::Sent { result, .. } = rig.next().outcome else { panic!() };
    let taken = result.unwrap();
    assert!(taken > 0);
    assert!(read_exactly(&mut theirs, taken).iter().all(|&byte| byte == 5));
}

fn a_send_to_nobody_is_an_error_and_no_signal<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, theirs) = pair();
    drop(theirs);
    let pool = Pool::new(16, 2).unwrap();
    for parts in 1..=2 {
        let gather = gather((0..parts).map(|_| chunk(&pool, b"x")));
        rig.driver.send(&ours, gather, SendWait::Yes, Token(4));
        assert_eq!(rig.next_error(Token(4)), libc::EPIPE);
    }
}

/// The byte at `position` of the stream that the next test sends: no period that a lost or
/// doubled buffer could hide behind.
fn stream_byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn fifty_megabytes_arrive_unchanged<D: Subject>() {
    const TOTAL: u64 = 50 << 20;
    let mut rig = Rig::<D>::new();
    let (near, far) = tcp_pair();
    let (near, far) = (fd(near), fd(far));
    let pool = Pool::new(48 << 10, 8).unwrap();
    let (mut put, mut taken, mut arrived) = (0u64, 0u64, 0u64);
    let mut scratch = Vec::new();
    let mut idle = Some(Box::new(Gather::new()));
    rig.driver.recv(&far, RecvMode::Multishot, BufferClass::Bulk, Token(1));
    while arrived < TOTAL {
        if let Some(mut gather) = idle.take() {
            while put < TOTAL
                && let Some(mut writer) = pool.take()
            {
                // Cut unevenly, so that parts begin and end anywhere.
                let bytes = (TOTAL - put).min(1 + u64::from(stream_byte(put)) * 180);
                scratch.clear();
                scratch.extend((put..put + bytes).map(stream_byte));
                put += writer.put(&scratch) as u64;
                gather.push(writer.take_written());
            }
            if gather.is_empty() {
                idle = Some(gather);
            } else {
                rig.driver.send(&near, gather, SendWait::Yes, Token(2));
            }
        }
        let completion = rig.next();
        match completion.outcome {
            Outcome::Sent { result, mut gather } => {
                let bytes = result.unwrap();
                taken += bytes as u64;
                gather.advance(bytes);
                idle = Some(gather);
            }
            Outcome::Received(Ok(Some(chunk))) => {
                for (position, &byte) in (arrived..).zip(chunk.iter()) {
                    assert!(byte == stream_byte(position), "a wrong byte at {position}");
                }
                arrived += chunk.len() as u64;
            }
            Outcome::Received(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            other => panic!("{other:?}"),
        }
        if completion.token == Token(1) && !completion.more {
            rig.driver.recv(&far, RecvMode::Multishot, BufferClass::Bulk, Token(1));
        }
    }
    assert_eq!((put, taken, arrived), (TOTAL, TOTAL, TOTAL));
}

/// One end of a ping-pong: echoes the bytes that it receives.
struct Player {
    fd: Fd,
    token: Token,
    gather: Option<Box<Gather>>,
}

impl Player {
    fn answer(&mut self, driver: &mut impl Driver, chunk: Chunk) {
        let mut gather = self.gather.take().expect("the last send is over");
        gather.push(chunk);
        driver.send(&self.fd, gather, SendWait::Yes, Token(self.token.0 + 10));
    }
}

fn play(rig: &mut Rig<impl Subject>, players: &mut [Player; 2], messages: u32) -> u64 {
    let before = ALLOCATIONS.get();
    let mut received = 0;
    while received < messages {
        rig.driver.wait(Some(DEADLINE), &mut rig.batch).unwrap();
        rig.done.extend(rig.batch.drain(..));
        while let Some(completion) = rig.done.pop_front() {
            let player = &mut players[(completion.token.0 % 10) as usize];
            match completion.outcome {
                Outcome::Received(Ok(Some(chunk))) => {
                    assert!(completion.more && chunk[..] == *b"a message of some length");
                    received += 1;
                    player.answer(&mut rig.driver, chunk);
                }
                Outcome::Sent { result, mut gather } => {
                    gather.advance(result.unwrap());
                    assert!(gather.is_empty());
                    player.gather = Some(gather);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    ALLOCATIONS.get() - before
}

fn the_steady_state_does_not_allocate<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (near, far) = tcp_pair();
    let mut players = [(fd(near), 0), (fd(far), 1)].map(|(fd, token)| Player {
        fd,
        token: Token(token),
        gather: Some(Box::new(Gather::new())),
    });
    for player in &players {
        rig.driver.recv(&player.fd, RecvMode::Multishot, BufferClass::Small, player.token);
    }
    let pool = Pool::new(64, 1).unwrap();
    players[0].answer(&mut rig.driver, chunk(&pool, b"a message of some length"));
    play(&mut rig, &mut players, 1_000);
    let begin = Instant::now();
    assert_eq!(play(&mut rig, &mut players, 10_000), 0, "allocations");
    println!("10,000 messages in {:?}, {:?}", begin.elapsed(), rig.driver.counters());
}
