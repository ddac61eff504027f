//! Two relays that are turned by hand, to stop them where a script would not.

use super::build::{ENTRANCE, SERVER, address, kernel, start};
use super::found::{FRIENDLY, script};
use super::script::Script;
use crate::io::sim::{Conditions, Kernel, Side, SimDriver};
use crate::limits::POOL_BUFFER_BYTES;
use crate::worker::Worker;

/// Turns these ends, each with its number, so often.
fn turn(ends: &mut [(usize, &mut Worker<SimDriver>)], times: usize) {
    let mut completions = Vec::new();
    for _ in 0..times {
        for (owner, worker) in ends.iter_mut() {
            kernel(|kernel| {
                kernel.set_owner(*owner);
                kernel.set_time(kernel.now_micros() + 500);
            });
            let stopped = worker.turn(&mut completions).expect("the driver goes on");
            assert_eq!(stopped, None, "it was not told to stop");
            kernel(Kernel::reap_closed);
        }
    }
}

/// A record that goes on in the next buffer waits for one of the pool, and the peer has ended behind it.
#[test]
fn an_encrypted_link_that_ends_while_data_waits_for_a_buffer_ends_behind_it() {
    const BYTES: usize = 20_000;
    // What is sent is cut anywhere.
    let conditions = Conditions { partial: 200, latency_micros: 1, pool_buffers: 64, ..FRIENDLY };
    let script = Script { records_per_key: Some(u64::MAX), ..script(1, conditions) };
    Kernel::begin(script.seed, conditions);
    fastrand::seed(script.seed);
    let listener = kernel(|kernel| kernel.listen_as_actor(address(SERVER)));
    let [mut far, mut near] = [0, 1].map(|end| start(&script, end, end, None));
    turn(&mut [(0, &mut far), (1, &mut near)], 100);
    let client = kernel(|kernel| kernel.connect(address(ENTRANCE))).expect("an entrance");
    let send = |bytes: usize| {
        kernel(|kernel| kernel.send_as(client, Side::Near, &vec![7; bytes])).expect("room")
    };
    assert_eq!(send(1), 1);
    turn(&mut [(0, &mut far), (1, &mut near)], 100);
    assert!(kernel(|kernel| kernel.accept(listener)).is_some(), "the stream is there");

    let buffers = &mut far.cx.buffers;
    let bytes = [0; POOL_BUFFER_BYTES as usize];
    let taken: Vec<_> = std::iter::from_fn(|| buffers.chunk_of(&bytes)).collect();
    let mut sent = 0;
    while sent < BYTES {
        sent += send(BYTES - sent);
    }
    turn(&mut [(0, &mut far), (1, &mut near)], 100);
    near.streams.tunnels_mut().end_output(&mut near.cx.buffers);
    turn(&mut [(0, &mut far)], 100);
    assert_eq!(far.streams.tunnels().len(), 1, "what waits comes first");
    drop(taken);
    turn(&mut [(0, &mut far)], 100);
    assert_eq!(far.streams.tunnels().len(), 0);
    assert_eq!(far.cx.counters.past_bytes_in, BYTES as u64 + 1);
    drop((far, near));
    Kernel::end();
}
