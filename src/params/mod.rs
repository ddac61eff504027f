//! The command line: words as written, then a resolved and validated [`plan::Plan`].

pub mod hostlist;
pub mod plan;
