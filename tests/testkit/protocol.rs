//! The protocol that two of ours speak with each other.

/// Protocols of the tests of whole programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SockMux 1, the default of native peers.
    V1,
    /// SockMux 0.3 with the extensions of native peers.
    V03,
}

impl Protocol {
    /// As the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V1 => "1",
            Protocol::V03 => "0.3",
        }
    }

    /// The words that make one end, and so both, speak it. None for the default.
    pub fn words(self) -> Option<String> {
        match self {
            Protocol::V1 => None,
            Protocol::V03 => Some("SOXCONF=protocol:0.3".to_owned()),
        }
    }
}

/// Makes two tests of each function named, which takes the [`Protocol`]:
/// `sockmux_1::NAME` and `sockmux_03::NAME`.
#[allow(unused_macros)]
macro_rules! in_both_protocols {
    ($($name:ident),+ $(,)?) => {
        mod sockmux_1 {
            $(#[test]
            fn $name() {
                super::$name(crate::testkit::protocol::Protocol::V1);
            })+
        }
        mod sockmux_03 {
            $(#[test]
            fn $name() {
                super::$name(crate::testkit::protocol::Protocol::V03);
            })+
        }
    };
}
#[allow(unused_imports)]
pub(crate) use in_both_protocols;
