//! Test code without sockets and clocks: sessions joined under virtual time, and the fuzz targets.

// Each test executable, and each fuzz target, uses some of this.
#![allow(dead_code)]

pub(crate) mod answered;
pub(crate) mod bytes;
pub(crate) mod choice;
pub(crate) mod costs;
pub(crate) mod decode_target;
pub(crate) mod joined;
pub(crate) mod lane_target;
pub(crate) mod line_end;
pub(crate) mod line_target;
pub(crate) mod line_world;
pub(crate) mod lone;
pub(crate) mod original;
pub(crate) mod pair_target;
pub(crate) mod proxy_header_target;
pub(crate) mod reading;
pub(crate) mod record_target;
pub(crate) mod roundtrip_target;
pub(crate) mod script;
pub(crate) mod seeded;
pub(crate) mod session_target;
pub(crate) mod side;
pub(crate) mod tls_ends;
pub(crate) mod tls_keys;
pub(crate) mod world;
