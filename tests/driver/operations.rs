//! Each operation, and its end.

use super::*;

on_both_drivers!(
    one_accept_takes_many_connections_until_cancelled,
    a_single_accept_leaves_the_others_in_the_queue,
    a_connection_accepted_for_nobody_is_closed_with_its_completion,
    multishot_receive_goes_on_to_the_end_of_data,
    a_single_receive_takes_what_there_is,
    a_connect_is_made_or_refused,
    a_poll_fires_once_or_each_time,
    a_cancelled_operation_ends_once_and_a_stale_name_does_nothing,
    cancelling_all_lets_a_descriptor_close,
    cancelling_all_of_an_idle_descriptor_does_nothing,
    errors_carry_the_kernels_number,
);

fn one_accept_takes_many_connections_until_cancelled<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (listener, address) = listener();
    let op = rig.driver.accept(&listener, Token(7));
    let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    while accepted.len() < clients.len() {
        match rig.next() {
            Completion { token: Token(7), more: true, outcome: Outcome::Accepted(Ok(fd)) } => {
                accepted.push(fd);
            }
            other => panic!("{other:?}"),
        }
    }
    for fd in &accepted {
        // SAFETY: reads the flags of a descriptor that we own.
        let (status, flags) = unsafe {
            (libc::fcntl(fd.as_raw_fd(), libc::F_GETFL), libc::fcntl(fd.as_raw_fd(), libc::F_GETFD))
        };
        assert_ne!(status & libc::O_NONBLOCK, 0);
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
    }
    assert_eq!(rig.driver.in_flight(), 1);
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(7)), libc::ECANCELED);
    assert_eq!(rig.driver.in_flight(), 0);
}

fn a_single_accept_leaves_the_others_in_the_queue<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (listener, address) = listener();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &clients {
        assert_eq!(rig.driver.in_flight(), 0);
        rig.driver.accept_one(&listener, Token(7));
        let completion = rig.next();
        assert!(!completion.more);
        let Outcome::Accepted(Ok(fd)) = completion.outcome else { panic!("{completion:?}") };
        let accepted = TcpStream::from(fd);
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
    }
    // Without a client it waits.
    let op = rig.driver.accept_one(&listener, Token(8));
    let client = TcpStream::connect(address).unwrap();
    let completion = rig.next();
    assert!(matches!(completion.outcome, Outcome::Accepted(Ok(_))), "{completion:?}");
    rig.driver.cancel(op);
    drop(client);
}

fn a_connection_accepted_for_nobody_is_closed_with_its_completion<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (listener, address) = listener();
    rig.driver.accept(&listener, Token(1));
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    drop(rig.next());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

fn multishot_receive_goes_on_to_the_end_of_data<D: Subject>() {
    let mut rig = Rig::<D>::new();
    for class in [BufferClass::Small, BufferClass::Bulk] {
        let (ours, mut theirs) = pair();
        rig.driver.recv(&ours, RecvMode::Multishot, class, Token(1));
        for message in [&b"first"[..], b"second", b"third"] {
            theirs.write_all(message).unwrap();
            let (chunk, more) = rig.next_chunk(Token(1));
            assert_eq!((&chunk[..], more), (message, true));
        }
        drop(theirs);
        match rig.next() {
            Completion { more: false, outcome: Outcome::Received(Ok(None)), .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.driver.in_flight(), 0);
    assert_eq!(rig.driver.counters().completions, 8);
}

fn a_single_receive_takes_what_there_is<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Now, BufferClass::Bulk, Token(1));
    let Completion { more: false, outcome: Outcome::Received(Err(error)), .. } = rig.next() else {
        panic!("nothing was there to be received");
    };
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    theirs.write_all(b"one").unwrap();
    rig.driver.recv(&ours, RecvMode::Now, BufferClass::Bulk, Token(1));
    let (chunk, more) = rig.next_chunk(Token(1));
    assert_eq!((&chunk[..], more), (&b"one"[..], false));
    theirs.write_all(b"two").unwrap();
    assert_eq!(rig.driver.in_flight(), 0);
    rig.driver.recv(&ours, RecvMode::Now, BufferClass::Small, Token(2));
    assert_eq!(&rig.next_chunk(Token(2)).0[..], b"two");
    drop(theirs);
    rig.driver.recv(&ours, RecvMode::Now, BufferClass::Small, Token(3));
    assert!(matches!(rig.next().outcome, Outcome::Received(Ok(None))));
    let free = rig.driver.free_buffers(BufferClass::Bulk);
    drop(chunk);
    assert_eq!(rig.driver.free_buffers(BufferClass::Bulk), free + 1);
}

fn tcp_socket() -> Fd {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    fd(socket)
}

fn a_connect_is_made_or_refused<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (listening, address) = listener();
    let socket = tcp_socket();
    rig.driver.connect(&socket, SockAddr::from(address), Token(1));
    match rig.next() {
        Completion { token: Token(1), more: false, outcome: Outcome::Connected(Ok(())) } => {}
        other => panic!("{other:?}"),
    }
    drop(listening);
    let socket = tcp_socket();
    rig.driver.connect(&socket, SockAddr::from(address), Token(2));
    assert_eq!(rig.next_error(Token(2)), libc::ECONNREFUSED);
}

fn a_poll_fires_once_or_each_time<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.poll(&ours, POLLIN, false, Token(1));
    rig.driver.poll(&ours, POLLOUT, false, Token(2));
    match rig.next() {
        Completion { token: Token(2), more: false, outcome: Outcome::Polled(Ok(events)) } => {
            assert_ne!(events & POLLOUT, 0);
        }
        other => panic!("{other:?}"),
    }
    theirs.write_all(b"x").unwrap();
    match rig.next() {
        Completion { token: Token(1), more: false, outcome: Outcome::Polled(Ok(events)) } => {
            assert_ne!(events & POLLIN, 0);
        }
        other => panic!("{other:?}"),
    }
    let op = rig.driver.poll(&ours, POLLIN, true, Token(3));
    for _ in 0..3 {
        match rig.next() {
            Completion { token: Token(3), more: true, outcome: Outcome::Polled(Ok(events)) } => {
                assert_ne!(events & POLLIN, 0);
            }
            other => panic!("{other:?}"),
        }
        theirs.write_all(b"x").unwrap();
    }
    rig.next();
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(3)), libc::ECANCELED);
}

fn a_cancelled_operation_ends_once_and_a_stale_name_does_nothing<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    let op = rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    // Before it was submitted, and twice.
    rig.driver.cancel(op);
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(1)), libc::ECANCELED);
    assert_eq!(rig.driver.counters().stale, 0);
    rig.driver.cancel(op);
    assert_eq!(rig.driver.counters().stale, 1);
    let again = rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(2));
    assert_ne!(op, again);
    rig.driver.cancel(op);
    assert_eq!(rig.driver.counters().stale, 2);
    theirs.write_all(b"still there").unwrap();
    assert_eq!(&rig.next_chunk(Token(2)).0[..], b"still there");
    rig.driver.cancel(again);
    assert_eq!(rig.next_error(Token(2)), libc::ECANCELED);
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 0));
}

fn cancelling_all_lets_a_descriptor_close<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    let (other, mut other_end) = pair();
    rig.driver.recv(&other, RecvMode::Multishot, BufferClass::Small, Token(100));
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.driver.poll(&ours, libc::POLLPRI as u32, true, Token(2));
    rig.driver.poll(&ours, libc::POLLPRI as u32, false, Token(3));
    rig.turn();
    assert_eq!(rig.driver.in_flight(), 4);
    rig.driver.cancel_all(&ours);
    drop(ours);
    let mut ended = Vec::new();
    while ended.len() < 3 {
        let completion = rig.next();
        assert!(!completion.more);
        ended.push(completion.token.0);
    }
    ended.sort_unstable();
    assert_eq!((ended, rig.driver.in_flight()), (vec![1, 2, 3], 1));
    rig.turn();
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    other_end.write_all(b"unharmed").unwrap();
    assert_eq!(&rig.next_chunk(Token(100)).0[..], b"unharmed");
}

fn cancelling_all_of_an_idle_descriptor_does_nothing<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (ours, mut theirs) = pair();
    rig.driver.cancel_all(&ours);
    drop(ours);
    rig.turn();
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 0));
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

fn errors_carry_the_kernels_number<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let file = fd(std::fs::File::open("/dev/null").unwrap());
    rig.driver.recv(&file, RecvMode::Multishot, BufferClass::Small, Token(1));
    assert_eq!(rig.next_error(Token(1)), libc::ENOTSOCK);
    let (ours, theirs) = tcp_pair();
    // A reset: data unread at the far end when it closes.
    let ours = fd(ours);
    let pool = Pool::new(16, 1).unwrap();
    rig.driver.send(&ours, gather([chunk(&pool, b"unread")]), SendWait::Yes, Token(2));
    assert!(matches!(rig.next().outcome, Outcome::Sent { result: Ok(6), .. }));
    drop(theirs);
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(3));
    assert_eq!(rig.next_error(Token(3)), libc::ECONNRESET);
    let error = io::Error::from_raw_os_error(libc::ECONNRESET);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
