//! Clients and servers of every behaviour, at random and many at once: orderly exchanges arrive whole
//! beside the others, and when all have ended no resource is left in use.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::testkit::net::{bounded, check_echo, connect, reset};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Server, serve_echo};
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// How long new clients come.
const SECS: u64 = 4;
/// Clients at once.
const CLIENTS: u64 = 16;
/// Sizes of messages: nothing, a keystroke, less than a buffer, bulk, more than a window.
const SIZES: [usize; 5] = [0, 1, 5_000, 300_000, 4_000_000];

/// Requests of a client to its server, as a byte.
const ECHO: u8 = b'e';
const MANNERS: &[u8] = b"eesrfhn";

/// Signals the end of the test to threads that wait for it.
#[derive(Default)]
struct Over {
    is: Mutex<bool>,
    told: Condvar,
}

impl Over {
    fn tell(&self) {
        *self.is.lock().expect("nobody panics with it") = true;
        self.told.notify_all();
    }

    fn wait(&self) {
        let is = self.is.lock().expect("nobody panics with it");
        drop(self.told.wait_while(is, |is| !*is));
    }
}

/// Serves a request.
fn serve(mut stream: TcpStream, over: &Over) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut random = fastrand::Rng::new();
    stream.read_exact(&mut buffer[..1])?;
    match buffer[0] {
        ECHO => return serve_echo(stream),
        // Stands still for a while.
        b's' => {
            std::thread::sleep(Duration::from_millis(random.u64(0..1_000)));
            if random.bool() {
                reset(stream);
                return Ok(());
            }
        }
        b'r' => {
            reset(stream);
            return Ok(());
        }
        // Says much, and that it was all; or only that.
        b'f' => {
            stream.write_all(&vec![1; *random.choice(&SIZES).expect("some")])?;
            stream.shutdown(Shutdown::Write)?;
        }
        b'h' => stream.shutdown(Shutdown::Write)?,
        // Never reads.
        _ => {
            over.wait();
            return Ok(());
        }
    }
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// A client that is badly treated, or behaves so; how it goes on is not looked at.
fn come_and_go(entrance: SocketAddr, random: &mut fastrand::Rng) -> std::io::Result<()> {
    let mut stream = connect(entrance);
    stream.set_write_timeout(Some(Duration::from_millis(random.u64(1..500))))?;
    stream.set_read_timeout(Some(Duration::from_millis(random.u64(1..500))))?;
    stream.write_all(&[*random.choice(MANNERS).expect("some")])?;
    let sent = stream.write_all(&vec![2; *random.choice(&SIZES).expect("some")]);
    match random.u8(0..5) {
        0 => {}
        1 => stream.shutdown(Shutdown::Write)?,
        2 => std::thread::sleep(Duration::from_millis(random.u64(0..500))),
        3 => {
            let _ = stream.read(&mut [0; 1000])?;
        }
        // Ends in good order, unless something of the server's was not read.
        _ => return sent,
    }
    reset(stream);
    Ok(())
}

/// Clients come and go, and some of them want an echo: how many got it.
fn all_manners(entrance: SocketAddr, programs: &[&Program], over: &Over) -> usize {
    let before: Vec<usize> = programs.iter().map(|program| program.sockets()).collect();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (began, echoes) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(client));
            let echoes = &echoes;
            scope.spawn(move || {
                while began.elapsed() < Duration::from_secs(SECS) {
                    if random.u8(0..4) > 0 {
                        let _ = come_and_go(entrance, &mut random);
                        continue;
                    }
                    let stream = connect(entrance);
                    { &stream }.write_all(&[ECHO]).expect("sent");
                    let bytes = *random.choice(&SIZES).expect("some");
                    check_echo(&stream, random.u64(..), bytes as u64);
                    echoes.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    over.tell();
    for (program, before) in programs.iter().zip(before) {
        let settled = eventually(2 * DEADLINE, || program.sockets() <= before);
        assert!(settled, "{} of {before} sockets", program.sockets());
    }
    echoes.into_inner()
}

/// A server, and the signal of the end.
fn server() -> (Server, Arc<Over>) {
    let over = Arc::new(Over::default());
    let told = Arc::clone(&over);
    (Server::start("127.0.0.1:0", move |stream| serve(bounded(stream), &told)), over)
}

fn through_a_tunnel(protocol: Protocol) {
    let (server, over) = server();
    let mut tunnel = Tunnel::to(protocol, server.address());
    let programs = [&tunnel.receptor, &tunnel.connector];
    assert!(all_manners(tunnel.entrance(), &programs, &over) > 0);
    for program in [&mut tunnel.connector, &mut tunnel.receptor] {
        program.terminate();
        assert!(program.wait_exit(DEADLINE).success());
    }
}

in_both_protocols!(through_a_tunnel);

#[test]
fn through_a_plain_relay() {
    let (server, over) = server();
    let words = ["-P127.0.0.1:0".to_owned(), format!("SERVER=tcprelay://{}", server.address())];
    let mut relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    assert!(all_manners(entrance, &[&relay], &over) > 0);
    relay.terminate();
    assert!(relay.wait_exit(DEADLINE).success());
}
