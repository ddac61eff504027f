//! Operations that complete at once, and system calls that are avoided.

use super::*;

#[test]
fn what_can_be_done_at_once_is_done_when_it_is_started() {
    let mut rig = Rig::<EpollDriver>::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(16, 1).unwrap();
    rig.driver.send(&ours, gather([chunk(&pool, b"now")]), SendWait::Yes, Token(1));
    assert_eq!(read_exactly(&mut theirs, 3), b"now");
    assert_eq!(rig.driver.in_flight(), 1, "its completion is still to be passed on");
    // Without sleeping, although no time is set.
    rig.driver.wait(None, &mut rig.batch).unwrap();
    assert_eq!((rig.batch.len(), rig.driver.in_flight()), (1, 0));
}

#[test]
fn a_message_costs_a_look_a_receive_and_a_send() {
    const MESSAGES: u64 = 1000;
    let mut rig = Rig::<EpollDriver>::new();
    let (near, mut far) = tcp_pair();
    let near = fd(near);
    far.set_nonblocking(false).unwrap();
    let mut answer = Some(Box::new(Gather::new()));
    let watch = |rig: &mut Rig<EpollDriver>| {
        rig.driver.poll(&near, POLLIN, false, Token(1));
    };
    watch(&mut rig);
    rig.turn();
    let before = rig.driver.counters().enters;
    for _ in 0..MESSAGES {
        far.write_all(b"question").unwrap();
        assert!(matches!(rig.next().outcome, Outcome::Polled(Ok(_))));
        rig.driver.recv(&near, RecvMode::Now, BufferClass::Small, Token(2));
        let (chunk, _) = rig.next_chunk(Token(2));
        let mut gather = answer.take().unwrap();
        gather.push(chunk);
        rig.driver.send(&near, gather, SendWait::No, Token(3));
        watch(&mut rig);
        let Outcome::Sent { result, mut gather } = rig.next().outcome else { panic!() };
        gather.advance(result.unwrap());
        answer = Some(gather);
        read_exactly(&mut far, 8);
    }
    let enters = rig.driver.counters().enters - before;
    assert!(enters <= MESSAGES * 3 + MESSAGES / 10, "{enters} calls for {MESSAGES} messages");
}
