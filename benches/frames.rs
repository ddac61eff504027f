//! Costs of the pure core: frames to bytes, bytes to frames, and the session between them.
//! `cargo bench --bench frames`; `-- --quick` for a look.

#[path = "support/pair.rs"]
mod pair;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, Throughput};

use pair::Pair;
use sockmux_uring::wire::DecodeStep;
use sockmux_uring::wire::v03::{Decoder, Encoder, PAYLOAD_BYTES_MAX};

/// Frames in the buffer that is parsed, as of one large receive.
const FRAMES: u32 = 256;

/// The payloads of small messages and of bulk, in bytes.
const PAYLOADS: [u32; 2] = [64, PAYLOAD_BYTES_MAX];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    write(&mut criterion);
    session(&mut criterion);
    criterion.final_summary();
}

/// Time for [`FRAMES`] data frames and an acknowledgement for each.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(u64::from(2 * FRAMES)));
    for payload in PAYLOADS {
        let mut bytes = Vec::new();
        for id in 0..FRAMES as u16 {
            Encoder.data(&mut bytes, id, id, payload);
            bytes.resize(bytes.len() + payload as usize, 0);
            Encoder.consumed(&mut bytes, id, id, u64::from(payload));
        }
        group.bench_with_input(BenchmarkId::new("data and sent", payload), &bytes, |b, bytes| {
            b.iter(|| assert_eq!(count_frames(bytes), 2 * FRAMES));
        });
    }
    group.finish();
}

fn count_frames(mut bytes: &[u8]) -> u32 {
    let mut decoder = Decoder::new();
    let mut frames = 0;
    loop {
        let (consumed, step) = decoder.step(bytes).expect("as encoded");
        bytes = &bytes[consumed..];
        match step {
            DecodeStep::Frame(frame) => {
                black_box(frame);
                frames += 1;
            }
            DecodeStep::Payload => {}
            DecodeStep::More => return frames,
        }
    }
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(u64::from(FRAMES)));
    let mut bytes = Vec::with_capacity(1 << 16);
    group.bench_function("data", |b| {
        b.iter(|| {
            bytes.clear();
            for id in 0..FRAMES as u16 {
                Encoder.data(&mut bytes, black_box(id), id, PAYLOAD_BYTES_MAX);
            }
            black_box(bytes.as_slice());
        });
    });
    group.bench_function("sent", |b| {
        b.iter(|| {
            bytes.clear();
            for id in 0..FRAMES as u16 {
                Encoder.consumed(&mut bytes, black_box(id), id, u64::from(PAYLOAD_BYTES_MAX));
            }
            black_box(bytes.as_slice());
        });
    });
    let client = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 17), 54_321));
    let entrance = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 15_432));
    group.bench_function("connect", |b| {
        b.iter(|| {
            bytes.clear();
            for id in 0..FRAMES as u16 {
                Encoder.connect(&mut bytes, black_box(id), client, entrance, 0);
            }
            black_box(bytes.as_slice());
        });
    });
    group.finish();
}

/// Both sessions' work for one data frame on every stream: ready, write, parse, deliver, take,
/// acknowledge.
fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for (streams, payload) in [(1, PAYLOAD_BYTES_MAX), (64, 64), (64, PAYLOAD_BYTES_MAX)] {
        group.throughput(Throughput::Elements(streams));
        let mut pair = Pair::with_streams(streams);
        let name = BenchmarkId::new(format!("{streams} streams, both ends"), payload);
        group.bench_function(name, |b| b.iter(|| pair.send_on_each(u64::from(payload))));
    }
    group.finish();
}
