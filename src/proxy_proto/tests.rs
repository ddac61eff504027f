//! Properties of every conversation: splits make no difference, and no input does any harm.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::conversation::{Answers, run, talk};
use super::socks::{Socks, SocksConfig};
use super::telnet::{Telnet, TelnetConfig};
use super::{Conversation, ProxyStep};
use crate::cli::plan::User;

/// The result for this input, the same for all splits into three and into single bytes, and for early
/// and late answers.
pub(super) fn in_every_split(
    make: &dyn Fn() -> Box<dyn Conversation>,
    said: &[u8],
    failures: u32,
) -> Vec<ProxyStep> {
    answered_in_every_split(make, said, Answers { failures, ..Answers::default() })
}

/// As [`in_every_split`], for any answers.
pub(super) fn answered_in_every_split(
    make: &dyn Fn() -> Box<dyn Conversation>,
    said: &[u8],
    answers: Answers,
) -> Vec<ProxyStep> {
    let late = Answers { at_once: false, ..answers };
    let whole = talk(make, [said].into_iter(), late);
    for at_once in [false, true] {
        let answers = Answers { at_once, ..answers };
        assert_eq!(talk(make, said.chunks(1), answers), whole, "single bytes, {answers:?}");
        for first in 0..=said.len() {
            for second in first..=said.len() {
                let pieces = [&said[..first], &said[first..second], &said[second..]];
                let steps = talk(make, pieces.into_iter(), answers);
                assert_eq!(steps, whole, "cut at {first} and {second}, {answers:?}");
            }
        }
    }
    whole
}

fn socks(users: bool) -> Box<dyn Conversation> {
    let users = users.then(|| vec![User { name: "a".into(), password: "b".into() }]);
    Box::new(Socks::new(SocksConfig::from(users)))
}

fn telnet() -> Box<dyn Conversation> {
    Box::new(Telnet::new(TelnetConfig { banner_host: "relay".into() }))
}

/// Bytes put together from these and any others.
fn made_of(words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => select(words).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    (any::<[u8; 2]>(), vec(word, 0..24))
        .prop_map(|(how, words)| [how.to_vec(), words.concat()].concat())
}

const SOCKS_WORDS: &[&[u8]] = &[
    b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01",
    b"host\x00",
    b"\x05\x01\x00",
    b"\x05\x02\x00\x02",
    b"\x01\x01a\x01b",
    b"\x01\x01a\x01c",
    b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
    b"\x05\x01\x00\x03\x04host\x00\x50",
    b"\x05\x01\x00\x04",
    b"\x04\x02\x00\x15\x0a\x00\x00\x01\x00",
    b"\x05\x02\x00\x03\x04host\x00\x00",
    b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
    b"\x00\x00\x00\x00\x00\x00\x00\x00",
    b"early data",
];

const TELNET_WORDS: &[&[u8]] = &[
    b"host",
    b" ",
    b"23",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\x08",
    b"\x15",
    b"\x17",
    b"\xff\xfd\x06",
    b"\xff\xfb\x18",
    b"\xff\xfa\x18",
    b"\xff\xf0",
    b"\xff",
    b"\xff\xf6",
    b"\xff\xf7",
    b"quit",
];

proptest! {
    #[test]
    fn any_bytes_for_socks(data in vec(any::<u8>(), 0..600), users: bool) {
        run(&|| socks(users), &data);
    }

    #[test]
    fn socks_like_bytes(data in made_of(SOCKS_WORDS), users: bool) {
        run(&|| socks(users), &data);
    }

    #[test]
    fn any_bytes_for_telnet(data in vec(any::<u8>(), 0..600)) {
        run(&telnet, &data);
    }

    #[test]
    fn telnet_like_bytes(data in made_of(TELNET_WORDS)) {
        run(&telnet, &data);
    }
}

/// Findings of fuzzers, and typical inputs: `fuzz/regressions/TARGET/`.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
    files.map(|file| read(file).expect("a case")).collect()
}

#[test]
fn kept_cases_of_the_fuzzer() {
    for case in kept("socks") {
        let (users, data) = case.split_first().expect("whether users are set");
        run(&|| socks(users & 1 == 1), data);
    }
    for case in kept("telnet") {
        run(&telnet, &case);
    }
}
