use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::io::driver::Gather;

fn written(pool: &Pool, bytes: &[u8]) -> Chunk {
    let mut writer = pool.take().expect("a free buffer");
    assert_eq!(writer.put(bytes), bytes.len());
    writer.take_written()
}

#[test]
fn put_takes_what_fits_and_the_rest_of_the_buffer_goes_on() {
    let pool = Pool::new(8, 1).unwrap();
    let mut writer = pool.take().unwrap();
    assert!(writer.is_untouched());
    assert_eq!(writer.put(b"abc"), 3);
    let first = writer.take_written();
    assert_eq!((writer.written_len(), writer.room()), (0, 5));
    assert_eq!(writer.put(b"defghijk"), 5);
    assert_eq!(writer.put(b"x"), 0);
    let second = writer.take_written();
    assert!(writer.take_written().is_empty());
    assert!(!writer.is_untouched());
    assert_eq!((&first[..], &second[..]), (&b"abc"[..], &b"defgh"[..]));
}

#[test]
fn a_buffer_returns_with_its_last_holder_and_the_latest_goes_out_first() {
    let pool = Pool::new(4, 2).unwrap();
    let first = written(&pool, b"1");
    let second = written(&pool, b"2");
    assert!(pool.take().is_none());
    let copy = first.clone();
    drop(first);
    assert_eq!(pool.free(), 0);
    drop(second);
    drop(copy);
    assert_eq!((pool.free(), pool.capacity()), (2, 2));
    assert_eq!(pool.take().unwrap().lease.index, 0, "the one that came back last");
}

#[test]
fn chunks_outlive_their_pool() {
    let pool = Pool::new(4, 1).unwrap();
    let chunk = written(&pool, b"keep");
    drop(pool);
    assert_eq!(&chunk[..], b"keep");
}

#[test]
fn a_buffer_is_changed_in_place_by_its_only_holder() {
    let pool = Pool::new(8, 1).unwrap();
    let mut writer = pool.take().unwrap();
    writer.put(b"abcdefgh");
    let mut chunk = writer.take_written();
    assert!(chunk.get_mut().is_none(), "there is its writer");
    drop(writer);
    chunk.advance(1);
    chunk.truncate(6);
    chunk.get_mut().unwrap().make_ascii_uppercase();
    let copy = chunk.clone();
    assert!(chunk.get_mut().is_none(), "there is another chunk");
    assert_eq!(&copy[..], b"BCDEFG");
    drop(chunk);
    let mut rest = copy;
    let head = rest.split_to(2);
    assert!(rest.get_mut().is_none(), "there is the head");
    drop(head);
    rest.get_mut().unwrap()[0] = b'x';
    assert_eq!(&rest[..], b"xEFG");
}

#[test]
fn chunks_are_cut_and_trimmed() {
    let pool = Pool::new(8, 1).unwrap();
    let mut rest = written(&pool, b"abcdefgh");
    let head = rest.split_to(3);
    rest.advance(1);
    rest.truncate(9);
    rest.truncate(2);
    assert_eq!((&head[..], &rest[..]), (&b"abc"[..], &b"ef"[..]));
    assert_eq!(rest.len(), 2);
}

#[test]
fn impossible_pools_are_refused() {
    assert!(Pool::new(0, 1).is_err());
    assert!(Pool::new(1, 0).is_err());
}

#[test]
fn a_gather_joins_what_touches_and_nothing_else() {
    let pool = Pool::new(8, 2).unwrap();
    let mut first = written(&pool, b"abcdefgh");
    let other = written(&pool, b"zz");
    let head = first.split_to(2);
    let middle = first.split_to(2);
    let mut gather = Gather::new();
    gather.push(head.clone());
    gather.push(middle);
    assert_eq!((gather.parts(), gather.len_bytes()), (1, 4));
    gather.push(other);
    gather.push(first);
    gather.push(head);
    assert_eq!((gather.parts(), gather.len_bytes()), (4, 12));
    gather.advance(5);
    let left: Vec<u8> = gather.iter().flat_map(|part| part.to_vec()).collect();
    assert_eq!(left, b"zefghab");
    let mut drained = gather.drain();
    assert_eq!(drained.next().as_deref(), Some(&b"z"[..]));
    drop(drained);
    assert!(gather.is_empty());
    assert_eq!((gather.len_bytes(), pool.free()), (0, 2));
}

/// What a test may do to a pool; numbers pick among what is there.
#[derive(Debug, Clone)]
enum Step {
    Take,
    Put { writer: usize, bytes: usize },
    TakeWritten { writer: usize },
    DropWriter { writer: usize },
    Split { chunk: usize, at: usize },
    Advance { chunk: usize, bytes: usize },
    Clone { chunk: usize },
    Join { chunk: usize, next: usize },
    DropChunk { chunk: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pick = 0..64usize;
    prop_oneof![
        2 => Just(Step::Take),
        4 => (pick.clone(), 0..40usize).prop_map(|(writer, bytes)| Step::Put { writer, bytes }),
        3 => pick.clone().prop_map(|writer| Step::TakeWritten { writer }),
        1 => pick.clone().prop_map(|writer| Step::DropWriter { writer }),
        2 => (pick.clone(), 0..40usize).prop_map(|(chunk, at)| Step::Split { chunk, at }),
        1 => (pick.clone(), 0..40usize).prop_map(|(chunk, bytes)| Step::Advance { chunk, bytes }),
        1 => pick.clone().prop_map(|chunk| Step::Clone { chunk }),
        1 => (pick.clone(), pick.clone()).prop_map(|(chunk, next)| Step::Join { chunk, next }),
        3 => pick.prop_map(|chunk| Step::DropChunk { chunk }),
    ]
}

const BUFFER_BYTES: u32 = 32;
const BUFFERS: u32 = 4;

/// Writers and chunks of a pool, each with what is to be in it.
struct Model {
    pool: Pool,
    writers: Vec<(ChunkMut, Vec<u8>)>,
    chunks: Vec<(Chunk, Vec<u8>)>,
    next_byte: u8,
}

impl Model {
    fn new() -> Model {
        let pool = Pool::new(BUFFER_BYTES, BUFFERS).unwrap();
        Model { pool, writers: Vec::new(), chunks: Vec::new(), next_byte: 0 }
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Take => self.take()?,
            Step::Put { writer, bytes } if !self.writers.is_empty() => {
                let at = writer % self.writers.len();
                self.put(at, bytes)?;
            }
            Step::TakeWritten { writer } if !self.writers.is_empty() => {
                let at = writer % self.writers.len();
                let (writer, pending) = &mut self.writers[at];
                self.chunks.push((writer.take_written(), std::mem::take(pending)));
            }
            Step::DropWriter { writer } if !self.writers.is_empty() => {
                let at = writer % self.writers.len();
                self.writers.swap_remove(at);
            }
            _ if self.chunks.is_empty() => {}
            Step::Split { chunk, at } => {
                let (chunk, model) = self.chunk(chunk);
                let at = at.min(chunk.len());
                let head = (chunk.split_to(at), model.drain(..at).collect());
                self.chunks.push(head);
            }
            Step::Advance { chunk, bytes } => {
                let (chunk, model) = self.chunk(chunk);
                let bytes = bytes.min(chunk.len());
                chunk.advance(bytes);
                model.drain(..bytes);
            }
            Step::Clone { chunk } => {
                let copy = self.chunk(chunk).clone();
                self.chunks.push(copy);
            }
            Step::Join { chunk, next } if self.chunks.len() > 1 => {
                let (next, next_model) = self.chunks.swap_remove(next % self.chunks.len());
                let (chunk, model) = self.chunk(chunk);
                match chunk.try_join(next) {
                    Ok(()) => model.extend_from_slice(&next_model),
                    Err(next) => self.chunks.push((next, next_model)),
                }
            }
            Step::DropChunk { chunk } => {
                let at = chunk % self.chunks.len();
                self.chunks.swap_remove(at);
            }
            _ => {}
        }
        Ok(())
    }

    fn chunk(&mut self, number: usize) -> &mut (Chunk, Vec<u8>) {
        let at = number % self.chunks.len();
        &mut self.chunks[at]
    }

    fn take(&mut self) -> Result<(), TestCaseError> {
        match self.pool.take() {
            Some(writer) => {
                let index = writer.lease.index;
                prop_assert!(self.leases().all(|lease| lease.index != index));
                prop_assert_eq!(writer.room(), BUFFER_BYTES as usize);
                self.writers.push((writer, Vec::new()));
            }
            None => prop_assert_eq!(self.pool.free(), 0),
        }
        Ok(())
    }

    fn put(&mut self, at: usize, count: usize) -> Result<(), TestCaseError> {
        let first = self.next_byte.wrapping_add(1);
        let bytes: Vec<u8> = (0..count).map(|at| first.wrapping_add(at.to_le_bytes()[0])).collect();
        self.next_byte = self.next_byte.wrapping_add(count.to_le_bytes()[0]);
        let (writer, pending) = &mut self.writers[at];
        let room = writer.room();
        let put = writer.put(&bytes);
        prop_assert_eq!(put, bytes.len().min(room));
        pending.extend_from_slice(&bytes[..put]);
        prop_assert_eq!(writer.written_len(), pending.len());
        Ok(())
    }

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        let writers = self.writers.iter().map(|(writer, _)| &writer.lease);
        writers.chain(self.chunks.iter().map(|(chunk, _)| &chunk.lease))
    }

    /// Each buffer is free or counts its holders, and each chunk has its bytes.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut holders: HashMap<u32, u32> = HashMap::new();
        for lease in self.leases() {
            *holders.entry(lease.index).or_default() += 1;
        }
        prop_assert_eq!(self.pool.free(), BUFFERS as usize - holders.len());
        for (index, count) in holders {
            prop_assert_eq!(self.pool.set.refs[index as usize].get(), count);
        }
        for (chunk, model) in &self.chunks {
            prop_assert_eq!(&chunk[..], &model[..]);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Against plain vectors: every chunk keeps its bytes whatever happens to the others, no
    /// buffer has two writers, and all come back.
    #[test]
    fn buffers_are_never_shared_by_writers_nor_lost(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step)?;
            model.check()?;
        }
        let Model { pool, writers, chunks, .. } = model;
        drop((writers, chunks));
        prop_assert_eq!(pool.free(), pool.capacity());
    }
}
