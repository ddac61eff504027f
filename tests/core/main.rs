//! The pure core: sessions, codec and serial line by hand, under virtual time, and against recordings.
//! A module for each room: `cargo test --test core traces::`.

#[path = "../testkit"]
mod testkit {
    pub(crate) mod pure;
    // Some of it is for whole programs.
    #[allow(dead_code)]
    pub(crate) mod recording;
}

mod costs;
mod datagrams;
mod entrances;
mod fairness;
mod handshakes;
mod identity;
mod lanes;
mod line;
mod line_plain;
mod ports;
mod properties;
mod records;
mod regressions;
mod round_trip;
mod rules;
mod rules_v1;
mod simulation;
mod traces;
mod vectors;
mod windows;
